//! Keys, while the node runs.

use std::collections::BTreeSet;

use overlay_core::NodeId;
use overlay_node::GossipKeyChange;

use crate::control::Ring;
use crate::heart::Command;
use crate::{Driver, GossipKeysError, Stopped};

impl Driver {
    /// Changes this node's keys for encrypted networks for others now, without a packet lost. That is done by itself as
    /// [`AgentConfig::rotation`](overlay_node::AgentConfig::rotation) says.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn rotate_keys(&self) -> Result<(), Stopped> {
        self.send(Command::RotateKeys).await
    }

    /// Has all nodes change to a new key of gossip, without losing each other, which these nodes do not get: such as were removed, and may still have the old one. It takes some seconds, and
    /// up to twice [`RotationConfig::limit`](overlay_crypto::RotationConfig::limit) where somebody does not answer. Who is away until all old keys are gone has to be given one by
    /// [`change_gossip_keys`](Self::change_gossip_keys), or by a file as it starts.
    ///
    /// # Errors
    /// If gossip is not sealed here.
    pub async fn rotate_gossip_keys(&self, without: impl IntoIterator<Item = NodeId>) -> Result<(), GossipKeysError> {
        let without: BTreeSet<NodeId> = without.into_iter().collect();
        Ok(self.ask(|asked| Command::RotateGossipKeys(without, asked)).await??)
    }

    /// The keys that gossip is sealed with here, the one that seals first, and its number; `None` if it goes as it is. They are the cluster's secret: for who is let in, and nobody
    /// else, see [`Membership::carry_gossip_keys`](crate::Membership::carry_gossip_keys).
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn gossip_keys(&self) -> Result<Option<Ring>, Stopped> {
        self.ask(Command::GossipKeys).await
    }

    /// Changes by hand what this node's gossip is sealed with: for one that lacks the key of the others. What is installed is not rolled back by a start with an older file.
    ///
    /// # Errors
    /// If gossip is not sealed here, or the keyring refuses it: see [`GossipKeyError`](overlay_node::GossipKeyError).
    pub async fn change_gossip_keys(&self, change: GossipKeyChange) -> Result<(), GossipKeysError> {
        Ok(self.ask(|asked| Command::ChangeGossipKeys(change, asked)).await??)
    }
}
