//! What keeps a node's keys of gossip over its death, and what looks at what they seal.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use overlay_core::NodeId;
use overlay_crypto::Chance;
use overlay_crypto::gossip::{GossipKey, KeyId, Succession};
use overlay_node::{GossipKeyChange, Input};

use crate::{Cluster, FabricError};

/// Where a node writes its keys down. A copy is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Option<Succession>>>);

impl Disk {
    pub(crate) fn write(&self, keys: Succession) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
    }

    pub(crate) fn read(&self) -> Option<Succession> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All nonces that were seen, with what tells their keys apart. A copy is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nonces(Arc<Mutex<BTreeSet<[u8; TRAILER]>>>);

/// A message's number, the chance of its sender's start, the key's name: what a key and a nonce follow from.
const TRAILER: usize = 8 + 16 + KeyId::LEN;

impl Nonces {
    /// Whether a sealed message has one that was never there.
    pub(crate) fn is_new(&self, message: &[u8]) -> bool {
        let trailer = message.split_last().and_then(|(_, rest)| rest.last_chunk::<TRAILER>());
        trailer.is_none_or(|trailer| self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*trailer))
    }
}

impl Cluster {
    /// The first key of gossip, which every node comes with.
    pub fn first_gossip_key(&self) -> GossipKey {
        let mut seed = [0x5e; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        GossipKey::generate(|to| Chance::new(seed).draw(to))
    }

    /// A node has all change to a new key of gossip, which the nodes `without` do not get.
    pub fn rotate_gossip_keys(&mut self, node: usize, without: impl IntoIterator<Item = usize>) {
        let without = without.into_iter().filter_map(|node| self.node_id(node)).collect();
        self.post(node, Input::RotateGossipKeys { without });
    }

    /// All nodes but this one hear that it is the cluster's no more. It runs on, as far as it can.
    pub fn dismiss(&mut self, node: usize) {
        let Some(id) = self.node_id(node) else { return };
        (0..self.len()).filter(|other| *other != node).for_each(|other| self.tell_without(other, id));
    }

    fn tell_without(&mut self, node: usize, gone: NodeId) {
        self.post(node, Input::GossipWithout(gone));
    }

    /// Somebody gives a node the key that another seals with, by another way than gossip.
    ///
    /// # Errors
    /// If one of them is down, or does not take it.
    pub fn hand_gossip_key(&mut self, from: usize, to: usize) -> Result<(), FabricError> {
        let keys = self.agent(from).and_then(overlay_node::Agent::gossip_keys).ok_or(FabricError::NoNode(from))?;
        let key = keys.get(keys.primary().id).cloned().ok_or(FabricError::NoNode(from))?;
        let (id, now) = (key.id(), self.now());
        let changed = self.net.with(to, |station, _| {
            station.agent.change_gossip_keys(GossipKeyChange::Install(key), now)?;
            station.agent.change_gossip_keys(GossipKeyChange::Promote(id), now)
        });
        changed.ok_or(FabricError::NoNode(to))?.map_err(FabricError::internal)
    }
}
