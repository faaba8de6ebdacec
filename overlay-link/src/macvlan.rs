//! Containers that are stations of a physical network.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use overlay_core::{IfName, Mac, Mtu, Refusal};
use serde::{Deserialize, Serialize};

use crate::Inside;
use crate::bridge::list;

/// A container's interface on the network that an interface of the host is on.
///
/// The host itself is not reached by it, nor reaches it: the kernel keeps a parent and its macvlans apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macvlan {
    /// The host's interface, which is not changed.
    pub parent: IfName,
    /// Whom of the parent's other macvlans it hears. Those of one parent are all [`Passthru`](MacvlanMode::Passthru), of which there is one
    /// only, or none is.
    pub mode: MacvlanMode,
    /// Its Ethernet address, its own on the physical network. The parent's in mode [`Passthru`](MacvlanMode::Passthru), where the kernel gives
    /// it to the parent.
    pub mac: Mac,
    /// Largest IP packet; not more than the parent's.
    pub mtu: Mtu,
    /// Its addresses, each with its subnet's prefix length.
    pub addresses: BTreeSet<IpNet>,
    /// The container's interface.
    pub inside: Inside,
}

impl Macvlan {
    /// In mode [`Bridge`](MacvlanMode::Bridge), with packets of Ethernet's size and no address.
    pub const fn new(parent: IfName, mac: Mac, inside: Inside) -> Self {
        Self { parent, mode: MacvlanMode::Bridge, mac, mtu: Mtu::ETHERNET, addresses: BTreeSet::new(), inside }
    }
}

/// Who hears whom among the macvlans of one parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MacvlanMode {
    /// They hear each other directly.
    #[default]
    Bridge,
    /// They hear each other by way of an external switch that sends frames back (IEEE 802.1Qbg).
    Vepa,
    /// They never hear each other.
    Private,
    /// The one macvlan takes the parent over.
    Passthru,
}

impl MacvlanMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bridge, Self::Vepa, Self::Private, Self::Passthru];

    const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Vepa => "vepa",
            Self::Private => "private",
            Self::Passthru => "passthru",
        }
    }
}

impl fmt::Display for MacvlanMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for MacvlanMode {
    type Err = Refusal;

    /// Reads `bridge`, `vepa`, `private` or `passthru`.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mode = Self::ALL.into_iter().find(|mode| mode.name() == text);
        mode.ok_or_else(|| {
            Refusal::new("macvlan mode", text.to_owned(), "there are bridge, vepa, private and passthru")
        })
    }
}

impl fmt::Display for Macvlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parent, mode, mac, mtu, .. } = self;
        write!(f, "{} on {parent}, mode {mode}, mtu {mtu}, as {mac} with ", self.inside)?;
        list(f, &self.addresses)
    }
}
