//! The keys of gossip, while the node runs.

use overlay_crypto::gossip::{GossipKey, KeyId};

use crate::envelope::KeyChange;
use crate::heart::Command;
use crate::{Driver, GossipKeysError};

impl Driver {
    /// Opens what is sealed with this key too, from now on. To change keys without losing a message, install the new one on all nodes, then
    /// [promote](Self::promote_gossip_key) it on all, then [retire](Self::retire_gossip_key) the old one on all.
    ///
    /// # Errors
    /// If gossip is not sealed here, or the keyring refuses it ([`KeyringError`](overlay_crypto::gossip::KeyringError)).
    pub async fn install_gossip_key(&self, key: GossipKey) -> Result<(), GossipKeysError> {
        self.change(KeyChange::Install(key)).await
    }

    /// Seals with this key from now on.
    ///
    /// # Errors
    /// As [`install_gossip_key`](Self::install_gossip_key).
    pub async fn promote_gossip_key(&self, key: KeyId) -> Result<(), GossipKeysError> {
        self.change(KeyChange::Promote(key)).await
    }

    /// Does not open any more what is sealed with this key.
    ///
    /// # Errors
    /// As [`install_gossip_key`](Self::install_gossip_key).
    pub async fn retire_gossip_key(&self, key: KeyId) -> Result<(), GossipKeysError> {
        self.change(KeyChange::Retire(key)).await
    }

    async fn change(&self, change: KeyChange) -> Result<(), GossipKeysError> {
        let changed = self.ask(|asked| Command::ChangeKeys(change, asked)).await?;
        Ok(changed.ok_or(GossipKeysError::Unsealed)??)
    }
}
