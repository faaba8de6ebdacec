//! The seal of gossip.

use bytes::Bytes;
use overlay_core::Instant;
use overlay_crypto::gossip::{GossipKey, KeyId, Keyring, KeyringError, OpenError, Purpose};
use overlay_gossip::{Class, Transmit};

use super::{Agent, AgentConfig, AgentError, Me};

/// A change of the keys that gossip is sealed with. To change them without losing a message, install the new one on all nodes, then promote it on all,
/// then retire the old one on all.
#[derive(Debug, Clone)]
pub enum GossipKeyChange {
    /// What is sealed with this key is opened too.
    Install(GossipKey),
    /// This node seals with this key.
    Promote(KeyId),
    /// What is sealed with this key is not opened any more.
    Retire(KeyId),
}

/// Why the keys that gossip is sealed with were not changed. They are as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GossipKeyError {
    /// Gossip is not sealed here.
    #[error("gossip is not sealed here: start the node with a key, as all others")]
    Unsealed,
    /// The keyring refuses it.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

impl Agent {
    /// As [`new`](Self::new), an agent whose gossip is sealed: all nodes of the cluster have the keyring's keys, and what nobody sealed is as if it had
    /// not come. The keyring is new: another start of the node has another.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn sealed(
        config: AgentConfig,
        me: Me,
        keyring: Keyring,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, AgentError> {
        let gossip = overlay_gossip::Config { seal_overhead: Keyring::OVERHEAD, ..config.gossip };
        let agent = Self::new(AgentConfig { gossip, ..config }, me, seed, now)?;
        Ok(Self { seal: Some(keyring), ..agent })
    }

    /// What gossip is sealed with; `None` if it goes as it is.
    pub const fn seal(&self) -> Option<&Keyring> {
        self.seal.as_ref()
    }

    /// Changes what gossip is sealed with.
    ///
    /// # Errors
    /// See [`GossipKeyError`]. Nothing was changed then.
    pub fn change_gossip_keys(&mut self, change: GossipKeyChange) -> Result<(), GossipKeyError> {
        let keyring = self.seal.as_mut().ok_or(GossipKeyError::Unsealed)?;
        Ok(match change {
            GossipKeyChange::Install(key) => keyring.install(key),
            GossipKeyChange::Promote(id) => keyring.promote(id),
            GossipKeyChange::Retire(id) => keyring.retire(id),
        }?)
    }

    /// The next message to send, sealed if gossip is.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        loop {
            let transmit = self.gossip.poll_transmit(now)?;
            let Some(keyring) = &mut self.seal else { return Some(transmit) };
            let mut message = Vec::with_capacity(transmit.payload.len() + Keyring::OVERHEAD);
            message.extend_from_slice(&transmit.payload);
            // What cannot be sealed does not leave.
            if keyring.seal(purpose(transmit.class), &mut message).is_ok() {
                return Some(Transmit { payload: message.into(), ..transmit });
            }
        }
    }

    /// What is in a message that came.
    pub(super) fn open(&mut self, class: Class, message: Bytes) -> Result<Bytes, OpenError> {
        let Some(keyring) = &mut self.seal else { return Ok(message) };
        let mut message = Vec::from(message);
        keyring.open(purpose(class), &mut message).inspect_err(|_| self.counts.unopened += 1)?;
        Ok(message.into())
    }
}

const fn purpose(class: Class) -> Purpose {
    match class {
        Class::Datagram => Purpose::Datagram,
        Class::Stream => Purpose::Stream,
    }
}
