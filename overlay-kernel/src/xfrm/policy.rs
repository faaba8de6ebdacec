//! Policies: which packets are sealed, which are dropped.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Mode;

/// Which way the packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To this machine.
    In,
    /// From this machine.
    Out,
    /// Through it.
    Forward,
}

/// Which packets a policy is for. Both networks are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// Where they come from.
    pub source: IpNet,
    /// Where they go.
    pub destination: IpNet,
    /// Their protocol's number; 0 is any.
    pub protocol: u8,
    /// From which ports; none is any.
    pub source_port: Option<Ports>,
    /// To which ports; none is any.
    pub destination_port: Option<Ports>,
}

/// The ports that have these bits where the mask has ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The bits, none outside the mask.
    pub bits: u16,
    /// Which bits count, not 0.
    pub mask: u16,
}

/// What names a policy: the kernel has one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Which way.
    pub direction: Direction,
    /// Which packets.
    pub selector: Selector,
}

/// What happens to packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The lowest of all that match counts. Says whose it is, too: see [`Claim`](super::Claim).
    pub priority: u32,
    /// What happens.
    pub action: Action,
}

/// What happens to packets that a policy is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// They are dropped. Of what leaves, also ICMP errors about packets whose answer would be one of them: an error quotes what came, in the clear.
    Block,
    /// They pass as these say, one within the other: 1 to 6. Never without: that is in the clear.
    Protect(Vec<Template>),
}

/// By which associations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Template {
    /// The sender of what is sealed.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The associations with this request id, not 0.
    pub reqid: u32,
    /// One association; none is any.
    pub spi: Option<u32>,
    /// What of a packet is sealed.
    pub mode: Mode,
}

/// One port.
impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self { bits: port, mask: u16::MAX }
    }
}

impl fmt::Display for Ports {
    /// As `ip xfrm` takes it: `53`, or `0x1/0x3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mask {
            u16::MAX => self.bits.fmt(f),
            mask => write!(f, "{:#x}/{mask:#x}", self.bits),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, protocol, source_port, destination_port } = self;
        write!(f, "from {source} to {destination} proto {protocol}")?;
        source_port.map_or(Ok(()), |ports| write!(f, " sport {ports}"))?;
        destination_port.map_or(Ok(()), |ports| write!(f, " dport {ports}"))
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Forward => "fwd",
        };
        write!(f, "{direction} {}", self.selector)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "priority {}", self.priority)?;
        match &self.action {
            Action::Block => f.write_str(" block"),
            Action::Protect(templates) => templates.iter().try_for_each(|template| {
                let Template { source, destination, reqid, spi, mode: _ } = template;
                write!(f, " by reqid {reqid} from {source} to {destination}")?;
                spi.map_or(Ok(()), |spi| write!(f, " spi {spi:#010x}"))
            }),
        }
    }
}
