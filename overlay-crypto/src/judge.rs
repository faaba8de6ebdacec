//! What happens to a packet: the pure meaning of a state.

use std::fmt;
use std::net::IpAddr;

use overlay_core::Port;

use crate::{Direction, Lanes, Sa, SaId, Spi, State, Tunnel};

/// A UDP datagram's addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datagram {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// Its source port.
    pub source_port: u16,
    /// Its destination port.
    pub destination_port: u16,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes as it is: none of ours.
    Pass,
    /// It is sealed by that association, and goes out.
    Seal(SaId),
    /// It is opened by that association; then [`State::opened`] says what happens.
    Open(SaId),
    /// It goes no further.
    Drop(Reason),
}

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It came in the clear to a guarded port.
    Clear,
    /// It is for a guarded port, or from one, and no tunnel leads there.
    NoTunnel,
    /// A tunnel leads there, and has no association to send by.
    NoAssociation,
    /// It came sealed, by an association that nobody has here.
    ForeignSpi,
    /// It came sealed by an association that is another tunnel's.
    OfAnother,
}

impl State {
    /// What happens to a datagram that this node sends.
    pub fn outgoing(&self, datagram: &Datagram) -> Verdict {
        let Some(port) = self.guarded(datagram) else { return self.unguarded(datagram) };
        let tunnel = Tunnel { port, local: datagram.source, peer: datagram.destination };
        let Some(lanes) = self.tunnels.get(&tunnel) else { return Verdict::Drop(Reason::NoTunnel) };
        match self.lane(&tunnel, lanes, datagram.source_port) {
            Some(id) => Verdict::Seal(id),
            None => Verdict::Drop(Reason::NoAssociation),
        }
    }

    /// What leaves for a port that is not guarded: from one that is, nothing, as tunnels send from others.
    fn unguarded(&self, datagram: &Datagram) -> Verdict {
        let is_guarded = self.ports.iter().any(|port| port.get() == datagram.source_port);
        if is_guarded { Verdict::Drop(Reason::NoTunnel) } else { Verdict::Pass }
    }

    /// What happens to a datagram that arrives in the clear.
    pub fn incoming(&self, datagram: &Datagram) -> Verdict {
        match self.guarded(datagram) {
            None => Verdict::Pass,
            Some(_) => Verdict::Drop(Reason::Clear),
        }
    }

    /// What happens to an ESP packet that arrives at `destination` with `spi`.
    pub fn sealed(&self, destination: IpAddr, spi: Spi) -> Verdict {
        let id = SaId { destination, spi };
        match self.receiving(&id) {
            Some(_) => Verdict::Open(id),
            None => Verdict::Drop(Reason::ForeignSpi),
        }
    }

    /// What happens to the datagram that was in a packet of that association. An association carries one peer's datagrams to one port: who
    /// has its key is nobody else, on no other network.
    pub fn opened(&self, id: &SaId, inside: &Datagram) -> Verdict {
        let Some(sa) = self.receiving(id) else { return Verdict::Drop(Reason::ForeignSpi) };
        let as_agreed = inside.source == sa.source
            && inside.destination == id.destination
            && inside.destination_port == sa.port.get();
        if !as_agreed {
            return Verdict::Drop(Reason::OfAnother);
        }
        let tunnel = Tunnel { port: sa.port, local: id.destination, peer: sa.source };
        match self.tunnels.contains_key(&tunnel) {
            true => Verdict::Pass,
            false => Verdict::Drop(Reason::NoTunnel),
        }
    }

    fn guarded(&self, datagram: &Datagram) -> Option<Port> {
        Port::new(datagram.destination_port).ok().filter(|port| self.ports.contains(port))
    }

    fn receiving(&self, id: &SaId) -> Option<&Sa> {
        self.sas.get(id).filter(|sa| sa.direction == Direction::In)
    }

    /// The association of a tunnel's lane for a source port, if it is there.
    fn lane(&self, tunnel: &Tunnel, lanes: &[Spi], source_port: u16) -> Option<SaId> {
        let lane = Lanes::new(lanes.len()).ok()?.of_source_port(source_port);
        let id = SaId { destination: tunnel.peer, spi: *lanes.get(usize::from(lane.get()))? };
        let serves = |sa: &&Sa| sa.direction == Direction::Out && sa.port == tunnel.port && sa.source == tunnel.local;
        self.sas.get(&id).filter(serves).map(|_| id)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Clear => "in the clear at a guarded port",
            Self::NoTunnel => "no tunnel leads there",
            Self::NoAssociation => "its tunnel has nothing to send by",
            Self::ForeignSpi => "no association of its SPI is here",
            Self::OfAnother => "its association is another tunnel's",
        })
    }
}
