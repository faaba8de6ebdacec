//! The seal of gossip.

use bytes::Bytes;
use overlay_crypto::gossip::{GossipKey, KeyId, Keyring, KeyringError, Purpose};
use overlay_gossip::Class;

use crate::status::SealStatus;

/// Seals what gossip sends and opens what comes, if the node has keys; else all goes as it is.
#[derive(Debug)]
pub(crate) struct Envelope {
    keyring: Option<Keyring>,
    refused: u64,
}

/// A change of the keys that gossip is sealed with.
#[derive(Debug)]
pub(crate) enum KeyChange {
    Install(GossipKey),
    Promote(KeyId),
    Retire(KeyId),
}

impl Envelope {
    pub(crate) const fn new(keyring: Option<Keyring>) -> Self {
        Self { keyring, refused: 0 }
    }

    /// `None` if it could not be sealed: then it is not sent.
    pub(crate) fn seal(&mut self, class: Class, message: Bytes) -> Option<Bytes> {
        let Some(keyring) = &mut self.keyring else { return Some(message) };
        let mut sealed = Vec::with_capacity(message.len() + Keyring::OVERHEAD);
        sealed.extend_from_slice(&message);
        keyring.seal(purpose(class), &mut sealed).ok()?;
        Some(sealed.into())
    }

    /// `None` if nobody of the cluster sealed it: then it is as if it had not come.
    pub(crate) fn open(&mut self, class: Class, mut message: Vec<u8>) -> Option<Bytes> {
        if let Some(keyring) = &mut self.keyring
            && keyring.open(purpose(class), &mut message).is_err()
        {
            self.refused += 1;
            return None;
        }
        Some(message.into())
    }

    /// `None` if nothing is sealed here.
    pub(crate) fn change(&mut self, change: KeyChange) -> Option<Result<(), KeyringError>> {
        let keyring = self.keyring.as_mut()?;
        Some(match change {
            KeyChange::Install(key) => keyring.install(key),
            KeyChange::Promote(id) => keyring.promote(id),
            KeyChange::Retire(id) => keyring.retire(id),
        })
    }

    pub(crate) fn status(&self) -> Option<SealStatus> {
        let keyring = self.keyring.as_ref()?;
        let keys = keyring.keys().map(|key| key.id().to_string()).collect();
        Some(SealStatus { primary: keyring.primary().to_string(), keys, refused: self.refused })
    }
}

const fn purpose(class: Class) -> Purpose {
    match class {
        Class::Datagram => Purpose::Datagram,
        Class::Stream => Purpose::Stream,
    }
}
