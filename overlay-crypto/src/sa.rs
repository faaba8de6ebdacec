//! Security associations as a state has them.

use std::fmt;
use std::net::IpAddr;

use overlay_core::Port;
use serde::{Deserialize, Serialize};

use crate::{Direction, Epoch, Numbers, SaKey, Spi, UdpEncapsulation, Usage, WindowSize};

/// What names an association: its destination and SPI (RFC 4301 §4.1; the protocol is always ESP). One never carries two keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SaId {
    /// Where its packets go.
    pub destination: IpAddr,
    /// Its number there.
    pub spi: Spi,
}

/// The epochs that a key is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epochs {
    /// The sender's.
    pub sender: Epoch,
    /// The receiver's.
    pub receiver: Epoch,
}

/// A security association: ESP in transport mode, from one node to another, for one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sa {
    /// Whether this node sends or receives by it.
    pub direction: Direction,
    /// Where its packets come from.
    pub source: IpAddr,
    /// The UDP port whose datagrams it carries, and no others.
    pub port: Port,
    /// How sequence numbers are counted.
    pub numbers: Numbers,
    /// How many the receiver remembers.
    pub window: WindowSize,
    /// How much it seals at most; as much as its numbers allow if `None`.
    pub limits: Option<Limits>,
    /// The UDP header in front, where there is NAT between.
    pub udp: Option<UdpEncapsulation>,
    /// The epochs that the key is of.
    pub epochs: Epochs,
    /// The key.
    pub key: SaKey,
}

/// How much is sealed by an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At this, whoever holds it says so, and another key is wanted.
    pub soft: Usage,
    /// At this it ends: nothing more is sealed by it. No more than [`Usage::MOST`].
    pub hard: Usage,
}

impl Limits {
    /// Another key is wanted at this much, and the old one goes on for a quarter more at most, by which time there should be another.
    pub const fn of(soft: Usage) -> Self {
        Self { soft, hard: Usage { bytes: quarter_more(soft.bytes), packets: quarter_more(soft.packets) } }
    }
}

const fn quarter_more(amount: u64) -> u64 {
    amount.saturating_add(amount / 4)
}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.spi, self.destination)
    }
}

impl fmt::Display for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epochs {} and {}", self.sender, self.receiver)
    }
}

impl fmt::Display for Sa {
    /// All but the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, source, port, numbers, window, limits, udp, epochs, key } = self;
        write!(f, "{direction} from {source} port {port}, {}, {epochs}", key.cipher())?;
        if *numbers == Numbers::Short {
            f.write_str(", numbers of 32 bits")?;
        }
        if *window != WindowSize::default() {
            write!(f, ", window {}", window.get())?;
        }
        if let Some(Limits { hard, .. }) = limits {
            write!(f, ", {} bytes or {} packets", hard.bytes, hard.packets)?;
        }
        match udp {
            Some(UdpEncapsulation { source, destination }) => write!(f, ", in UDP from {source} to {destination}"),
            None => Ok(()),
        }
    }
}
