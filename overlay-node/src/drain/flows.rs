//! The flows that an endpoint has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use overlay_core::Protocol;
use serde::{Deserialize, Serialize};

/// A flow that somebody began to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Its protocol.
    pub protocol: Protocol,
    /// Who began it.
    pub from: SocketAddr,
    /// Its end in the container: the endpoint's address, or the one that it is led on to.
    pub to: SocketAddr,
}

/// What a [`Meter`](overlay_core::Meter) reads at a container: the flows that came to one of its endpoints, by any way. Those that the container
/// began itself, to others or to itself, are none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flows {
    /// Those that stand: a TCP connection until both ends have closed it, another flow until it was idle for too long.
    pub standing: BTreeSet<Flow>,
    /// Those that have ended, as far as they are kept in mind.
    pub ended: BTreeSet<Flow>,
    /// Why some are not among them, if the kernel does not list all.
    pub uncounted: Option<String>,
}

impl Flows {
    /// Those that stand, counted by protocol and by who began them, in that order.
    pub fn left(&self) -> Vec<LeftFlows> {
        let mut counts = Counts::default();
        self.standing.iter().for_each(|flow| counts.add(flow));
        counts.list()
    }
}

/// Flows by protocol and by who began them.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(BTreeMap<(Protocol, IpAddr), u64>);

impl Counts {
    pub(super) fn add(&mut self, flow: &Flow) {
        *self.0.entry((flow.protocol, flow.from.ip())).or_default() += 1;
    }

    pub(super) fn list(&self) -> Vec<LeftFlows> {
        self.0
            .iter()
            .map(|((protocol, peer), flows)| LeftFlows { protocol: *protocol, peer: *peer, flows: *flows })
            .collect()
    }
}

/// Flows of one protocol that one address began to an endpoint that drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftFlows {
    /// Their protocol.
    pub protocol: Protocol,
    /// Who began them.
    pub peer: IpAddr,
    /// How many they are.
    pub flows: u64,
}

impl fmt::Display for LeftFlows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, peer, flows } = self;
        write!(f, "{flows} {protocol} flow{} of {peer}", if *flows == 1 { "" } else { "s" })
    }
}
