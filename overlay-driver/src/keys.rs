//! Keys, while the node runs.

use overlay_node::GossipKeyChange;

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

    /// Changes what this node's gossip is sealed with. To change keys without losing a message, install the new one on all nodes, then promote it on all, then retire the old
    /// one on all.
    ///
    /// # Errors
    /// If gossip is not sealed here, or the keyring refuses it: see [`GossipKeyError`](overlay_node::GossipKeyError).
    pub async fn change_gossip_keys(&self, change: GossipKeyChange) -> Result<(), GossipKeysError> {
        Ok(self.ask(|asked| Command::ChangeGossipKeys(change, asked)).await??)
    }
}
