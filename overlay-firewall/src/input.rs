//! Ports of this machine's own that others may reach.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

use overlay_core::{Port, Protocol, Vni};
use serde::{Deserialize, Serialize};

/// The guard of a VXLAN port: who may send to it, and which networks may pass there in cleartext.
///
/// A network is in [`encrypted`](Self::encrypted) from before its first peer is known until after its last has gone: that
/// nobody is a member yet is no reason to let anybody in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Underlay addresses of the nodes; datagrams from others are dropped, before anything else may accept them.
    pub members: BTreeSet<IpAddr>,
    /// Networks whose datagrams pass only inside ESP, both ways.
    pub encrypted: BTreeSet<Vni>,
}

/// The guard of a port that everybody may knock at, such as gossip's: what is not from a member passes at this rate only.
///
/// It spares the process behind the port work; whether a datagram is genuine, its seal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Of which the port is.
    pub protocol: Protocol,
    /// The port.
    pub port: Port,
    /// Addresses without a limit.
    pub members: BTreeSet<IpAddr>,
    /// Packets in a second that pass, of all others together.
    pub per_second: NonZeroU32,
    /// As many more may pass at once after a silence.
    pub burst: u32,
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} members, {} networks encrypted", self.members.len(), self.encrypted.len())
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, {} members, ", self.protocol, self.port, self.members.len())?;
        write!(f, "others {}/s burst {}", self.per_second, self.burst)
    }
}
