//! What can be counted of an agent.

use overlay_crypto::gossip::{Generation, Succession};
use overlay_crypto::{Epoch, RotationCounts, Stage};
use serde::Serialize;

use super::Agent;
use crate::Contest;

/// A snapshot of an agent's counts and lengths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AgentMetrics {
    /// Of gossip.
    pub gossip: overlay_gossip::Metrics,
    /// Nodes known, this one included.
    pub nodes: usize,
    /// Networks followed.
    pub networks: usize,
    /// Endpoints plugged in here.
    pub local: usize,
    /// Endpoints known on other nodes.
    pub remote: usize,
    /// Words of nodes on endpoints that do not count, since the catalogue does not say so too, or not yet, or the endpoint is here: 0 but
    /// while endpoints come and move, unless somebody lies.
    pub contested: usize,
    /// Why they do not.
    pub contested_for: Contested,
    /// Endpoints that what was derived last leaves out, whole or in part: see [`Unfit`](crate::Unfit).
    pub unfit: usize,
    /// Networks that could not be followed, each time it was tried.
    pub unfollowed: u64,
    /// Entries and metadata of other nodes that could not be read.
    pub malformed: u64,
    /// The epoch of this node's keys for encrypted networks; none while it has none.
    pub epoch: Option<Epoch>,
    /// In which stage of a rotation those keys are.
    pub stage: Option<Stage>,
    /// Rotations of those, and why they began.
    pub rotations: RotationCounts,
    /// The key that this node's gossip is sealed with; none if it is not.
    pub gossip_key: Option<Generation>,
    /// Changes of that key that this node has made. One that a later one came before has ended too.
    pub gossip_rotations: RotationCounts,
    /// Messages that nobody sealed who has a key of this cluster's gossip.
    pub unopened: u64,
}

/// How many words of nodes on endpoints do not count, by reason: see [`Contest`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Contested {
    /// There is no such endpoint, or not yet.
    pub unknown: usize,
    /// It is plugged in here.
    pub here: usize,
    /// It is another node's, or on another network.
    pub owner: usize,
    /// It was not given that address.
    pub address: usize,
    /// It was not given that Ethernet address.
    pub mac: usize,
    /// It is not of that service.
    pub service: usize,
    /// It was not attached by those names.
    pub names: usize,
    /// It was not attached with those labels.
    pub labels: usize,
}

impl Contested {
    fn of(contested: impl Iterator<Item = Contest>) -> Self {
        let mut counts = Self::default();
        contested.for_each(|why| {
            *match why {
                Contest::Unknown => &mut counts.unknown,
                Contest::Here => &mut counts.here,
                Contest::Owner { .. } => &mut counts.owner,
                Contest::Address { .. } => &mut counts.address,
                Contest::Mac { .. } => &mut counts.mac,
                Contest::Service => &mut counts.service,
                Contest::Names => &mut counts.names,
                Contest::Labels => &mut counts.labels,
            } += 1;
        });
        counts
    }
}

impl Agent {
    pub(super) fn measure(&self) -> AgentMetrics {
        let (present, rotations) = self.epochs();
        let sections = || self.knowledge.networks.values();
        AgentMetrics {
            gossip: self.gossip.metrics(),
            nodes: self.knowledge.nodes.len(),
            networks: self.knowledge.networks.len(),
            local: sections().map(|section| section.local.len()).sum(),
            remote: sections().map(|section| section.remote.len()).sum(),
            contested: self.claims.values().map(crate::knowledge::Claims::len).sum(),
            contested_for: Contested::of(self.contested().map(|(.., why)| why)),
            unfit: self.deriver.unfit(),
            epoch: present.map(|(epoch, _)| epoch),
            stage: present.map(|(_, stage)| stage),
            rotations,
            gossip_key: self.gossip_keys().map(Succession::primary),
            gossip_rotations: self.seal.as_ref().map(|seal| seal.counts).unwrap_or_default(),
            ..self.counts
        }
    }
}
