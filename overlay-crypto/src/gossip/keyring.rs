//! The keys a node has, and sealing and opening with them.

use std::fmt;

use crate::provider::aead::{Aad, LessSafeKey, Nonce};

use super::heard::Heard;
use super::key::StartSalt;
use super::trailer::Trailer;
use super::{GossipKey, KeyId, Succession};
use crate::Chance;

/// The keys of a cluster's gossip that one node has: it opens what is sealed with any of them, and seals with one, its *primary*.
///
/// So a key is changed without a message lost: all nodes [install](Self::install) the new one, then [promote](Self::promote) it, then
/// [retire](Self::retire) the old, each step when all have done the one before. [`Rotation`](crate::Rotation) says when.
///
/// **No nonce comes twice.** A keyring draws 16 bytes of chance when it is made, and seals under keys derived from them (HKDF-SHA256, RFC 5869), by one
/// counter that never begins anew, whatever is promoted, retired and installed again. Neither a restart nor another node can come to the same
/// but by the same 128 bits of chance.
///
/// A sealed message is the ciphertext of AES-256-GCM (NIST SP 800-38D) with its tag of 16 bytes, then the counter (8 bytes, highest first), the 16 bytes of
/// chance, the key's name (4 bytes) and the format's number (1). Format and [`Purpose`] are authenticated with it. It may be opened more than once: gossip tells
/// old news from new by itself.
///
/// ```
/// use overlay_crypto::Chance;
/// use overlay_crypto::gossip::{GossipKey, Keyring, Purpose};
///
/// # let (ours, anns, bobs) = ([1; 32], [2; 32], [3; 32]);
/// let (mut ann_chance, mut bob_chance) = (Chance::new(anns), Chance::new(bobs)); // of the operating system
/// let mut ann = Keyring::new(GossipKey::from_bytes(ours), &mut ann_chance);
/// let mut bob = Keyring::new(GossipKey::from_bytes(ours), &mut bob_chance);
///
/// let mut message = b"all is well".to_vec();
/// ann.seal(Purpose::Datagram, &mut message)?;
/// assert_eq!(message.len(), 11 + Keyring::OVERHEAD);
/// bob.open(Purpose::Datagram, &mut message)?;
/// assert_eq!(message, b"all is well");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Keyring {
    keys: Vec<Held>,
    /// Which of them seals.
    primary: usize,
    salt: StartSalt,
    /// The number of the last message sealed.
    last: u64,
    heard: Heard,
}

struct Held {
    key: GossipKey,
    sends: LessSafeKey,
}

/// How a message travels: what was sealed for one way is not opened on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// In a datagram.
    Datagram,
    /// On a stream.
    Stream,
}

/// Why a keyring was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// Another key has that name.
    #[error("another key has the name {0}: make a new one")]
    Ambiguous(KeyId),
    /// There is no such key.
    #[error("there is no key {0}: install it first")]
    Unknown(KeyId),
    /// The key is the primary.
    #[error("key {0} is the primary: promote another first")]
    Primary(KeyId),
    /// There are as many as there may be.
    #[error("there are {most} keys, which is the most: retire one first")]
    Full {
        /// The most.
        most: usize,
    },
}

/// Why nothing was sealed: all 2^64 − 1 numbers are spent, or there is no such key. The message is as it was; another keyring has other numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all numbers of this keyring are spent, or it has no such key: another is needed")]
pub struct SealError;

/// Why a message was not opened. It is to be dropped; its bytes may be anything now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Shorter than an empty message, sealed.
    #[error("a sealed message has {need} bytes or more, {have} are there")]
    Truncated {
        /// The least: [`Keyring::OVERHEAD`].
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// Of a format that this release does not know; or not sealed at all.
    #[error("format {found} of sealed messages is not known, {known} is", known = Trailer::FORMAT)]
    Format {
        /// What it says of itself.
        found: u8,
    },
    /// Sealed with a key that is not in the keyring: of another cluster, not yet installed, or retired.
    #[error("sealed with key {0}, which is not in the keyring")]
    Unknown(KeyId),
    /// Not of who has the key, not for this purpose, or changed on its way.
    #[error("what says that it was sealed with key {0} was not, or was changed")]
    Forged(KeyId),
}

const TAG: usize = 16; // NIST SP 800-38D §5.2.1.2

impl Keyring {
    /// Bytes that a sealed message is longer by: what gossip calls its seal's overhead.
    pub const OVERHEAD: usize = TAG + Trailer::LEN;
    /// Keys at most.
    pub const LIMIT: usize = 8;

    /// A keyring of one key, the primary. `chance` must be fit for keys; 32 bytes are drawn from it.
    pub fn new(key: GossipKey, chance: &mut Chance) -> Self {
        let mut salt = StartSalt::default();
        chance.draw(&mut salt);
        let sends = key.of_start(&salt);
        Self { keys: vec![Held { key, sends }], primary: 0, salt, last: 0, heard: Heard::default() }
    }

    /// Adds a key that opens from now on. Nothing happens if it is there.
    ///
    /// # Errors
    /// [`KeyringError::Ambiguous`] if another has its name, [`KeyringError::Full`] at [`LIMIT`](Self::LIMIT). Nothing was changed then.
    pub fn install(&mut self, key: GossipKey) -> Result<(), KeyringError> {
        if let Some(held) = self.keys.iter().find(|held| held.key.id() == key.id()) {
            let same = held.key.is(&key);
            return if same { Ok(()) } else { Err(KeyringError::Ambiguous(key.id())) };
        }
        if self.keys.len() >= Self::LIMIT {
            return Err(KeyringError::Full { most: Self::LIMIT });
        }
        let sends = key.of_start(&self.salt);
        self.keys.push(Held { key, sends });
        Ok(())
    }

    /// Seals with that key from now on.
    ///
    /// # Errors
    /// [`KeyringError::Unknown`] if it is not there. Nothing was changed then.
    pub fn promote(&mut self, id: KeyId) -> Result<(), KeyringError> {
        self.primary = self.position(id)?;
        Ok(())
    }

    /// Takes a key away: what is sealed with it is no longer opened.
    ///
    /// # Errors
    /// [`KeyringError::Unknown`] if it is not there, [`KeyringError::Primary`] if it is the one that seals. Nothing was changed then.
    pub fn retire(&mut self, id: KeyId) -> Result<(), KeyringError> {
        let at = self.position(id)?;
        if at == self.primary {
            return Err(KeyringError::Primary(id));
        }
        self.keys.remove(at);
        self.primary -= usize::from(at < self.primary);
        self.heard.forget(id);
        Ok(())
    }

    /// Has the keys of a [`Succession`] and no others from now on, and seals with its primary.
    pub fn follow(&mut self, succession: &Succession) {
        let wanted = |id: KeyId| succession.get(id).is_some();
        let primary = succession.primary().id;
        let over: Vec<KeyId> = self.keys().map(GossipKey::id).filter(|id| !wanted(*id)).collect();
        let let_go = |keyring: &mut Self| {
            for id in &over {
                let _ = keyring.retire(*id);
            }
        };
        let_go(self); // all but the primary, which goes when there is another
        for key in succession.get(primary).into_iter().chain(succession.keys()) {
            let _ = self.install(key.clone()); // there is room: a succession has no more than a keyring
            let _ = self.promote(primary);
            let_go(self);
        }
    }

    /// As [`seal`](Self::seal), with a key that may not be the primary.
    ///
    /// # Errors
    /// As [`seal`](Self::seal); also if there is no such key.
    pub fn seal_with(&mut self, id: KeyId, purpose: Purpose, message: &mut Vec<u8>) -> Result<(), SealError> {
        let position = self.position(id).map_err(|_| SealError)?;
        let primary = std::mem::replace(&mut self.primary, position);
        let sealed = self.seal(purpose, message);
        self.primary = primary;
        sealed
    }

    /// The key that seals.
    pub fn primary(&self) -> KeyId {
        self.keys.get(self.primary).map_or(KeyId::from_bytes([0; 4]), |held| held.key.id()) // it is there
    }

    /// All keys, oldest first.
    pub fn keys(&self) -> impl Iterator<Item = &GossipKey> {
        self.keys.iter().map(|held| &held.key)
    }

    /// How many messages were sealed.
    pub fn sealed(&self) -> u64 {
        self.last
    }

    /// Seals a message in place, which grows by [`OVERHEAD`](Self::OVERHEAD).
    ///
    /// # Errors
    /// [`SealError`] after 2^64 − 1 messages.
    pub fn seal(&mut self, purpose: Purpose, message: &mut Vec<u8>) -> Result<(), SealError> {
        let number = self.last.checked_add(1).ok_or(SealError)?;
        let held = self.keys.get(self.primary).ok_or(SealError)?; // it is there
        let id = held.key.id();
        message.reserve(Self::OVERHEAD);
        let tag = held.sends.seal_in_place_separate_tag(nonce(number), associated(purpose), message);
        let tag = tag.map_err(|_| SealError)?; // for the cipher only gigabytes are too long
        self.last = number;
        message.extend_from_slice(tag.as_ref());
        message.extend_from_slice(&Trailer { number, salt: self.salt, id }.encode());
        Ok(())
    }

    /// Opens a message in place and says whose key it was sealed with.
    ///
    /// # Errors
    /// See [`OpenError`]. The message's bytes may be anything then.
    pub fn open(&mut self, purpose: Purpose, message: &mut Vec<u8>) -> Result<KeyId, OpenError> {
        let truncated = OpenError::Truncated { need: Self::OVERHEAD, have: message.len() };
        let Some((sealed, trailer)) = message.split_last_chunk_mut::<{ Trailer::LEN }>() else { return Err(truncated) };
        let Trailer { number, salt, id } = Trailer::parse(trailer)?;
        let Some(length) = sealed.len().checked_sub(TAG) else { return Err(truncated) };
        let held = self.keys.iter().find(|held| held.key.id() == id).ok_or(OpenError::Unknown(id))?;
        self.heard.with(&held.key, salt, |key| {
            let opened = key.open_in_place(nonce(number), associated(purpose), sealed);
            opened.map(drop).map_err(|_| OpenError::Forged(id))
        })?;
        message.truncate(length);
        Ok(id)
    }

    fn position(&self, id: KeyId) -> Result<usize, KeyringError> {
        self.keys.iter().position(|held| held.key.id() == id).ok_or(KeyringError::Unknown(id))
    }
}

/// Each number is one message's of a start's key.
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes.iter_mut().skip(4).zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    Nonce::assume_unique_for_key(bytes)
}

fn associated(purpose: Purpose) -> Aad<[u8; 2]> {
    Aad::from([
        Trailer::FORMAT,
        match purpose {
            Purpose::Datagram => 0,
            Purpose::Stream => 1,
        },
    ])
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<KeyId> = self.keys().map(GossipKey::id).collect();
        let mut shown = f.debug_struct("Keyring");
        shown.field("keys", &keys).field("primary", &self.primary()).field("sealed", &self.last);
        shown.field("heard", &self.heard.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> GossipKey {
        GossipKey::from_bytes([byte; 32])
    }

    fn keyring(start: u8) -> Keyring {
        Keyring::new(key(7), &mut Chance::new([start; 32]))
    }

    fn sealed(by: &mut Keyring, text: &[u8]) -> Vec<u8> {
        let mut message = text.to_vec();
        by.seal(Purpose::Datagram, &mut message).unwrap();
        message
    }

    fn opened(by: &mut Keyring, message: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut message = message.to_vec();
        by.open(Purpose::Datagram, &mut message).map(|_| message)
    }

    proptest! {
        #[test]
        fn what_one_seals_the_others_open_and_nobody_a_changed_bit_of_it(text: Vec<u8>, at: prop::sample::Index, bit in 0..8) {
            let (mut ann, mut bob) = (keyring(1), keyring(2));
            let message = sealed(&mut ann, &text);
            prop_assert_eq!(message.len(), text.len() + Keyring::OVERHEAD);
            prop_assert_eq!(opened(&mut bob, &message).unwrap(), text);
            let mut changed = message.clone();
            changed[at.index(message.len())] ^= 1_u8 << bit;
            prop_assert!(opened(&mut bob, &changed).is_err());
            prop_assert!(opened(&mut bob, &message[..at.index(message.len())]).is_err());
        }

        #[test]
        fn bytes_that_nobody_sealed_are_refused(bytes: Vec<u8>) {
            prop_assert!(opened(&mut keyring(1), &bytes).is_err());
        }

        /// The trailer, less the key's name, is what a nonce and its key follow from.
        #[test]
        fn whatever_is_installed_promoted_and_retired_no_nonce_comes_twice(steps in prop::collection::vec((0..3, 1_u8..9), 0..80)) {
            let mut ours = keyring(1);
            let mut seen = BTreeSet::new();
            for (step, which) in steps {
                let id = key(which).id();
                let _ = match step {
                    0 => ours.install(key(which)),
                    1 => ours.promote(id),
                    _ => ours.retire(id),
                };
                let message = sealed(&mut ours, b"");
                prop_assert!(seen.insert(message[TAG..].to_vec()));
                prop_assert_eq!(opened(&mut ours, &message).unwrap(), b"");
                prop_assert!(ours.keys().count() <= Keyring::LIMIT);
            }
        }
    }

    #[test]
    fn two_starts_seal_the_same_text_otherwise() {
        let (mut first, mut second) = (keyring(1), keyring(2));
        assert_ne!(sealed(&mut first, b"text")[..4], sealed(&mut second, b"text")[..4]);
    }

    #[test]
    fn a_key_is_changed_without_a_message_lost() {
        let (mut ann, mut bob) = (keyring(1), keyring(2));
        let before = sealed(&mut ann, b"old");
        let (old, new) = (key(7).id(), key(8).id());
        assert_eq!(ann.promote(new), Err(KeyringError::Unknown(new)));
        ann.install(key(8)).unwrap();
        ann.promote(new).unwrap();
        let after = sealed(&mut ann, b"new");
        assert_eq!(opened(&mut bob, &after), Err(OpenError::Unknown(new)));
        bob.install(key(8)).unwrap();
        assert_eq!(opened(&mut bob, &after).unwrap(), b"new");
        assert_eq!(opened(&mut bob, &before).unwrap(), b"old");
        assert_eq!(bob.retire(old), Err(KeyringError::Primary(old)));
        bob.promote(new).unwrap();
        bob.retire(old).unwrap();
        assert_eq!(opened(&mut bob, &before), Err(OpenError::Unknown(old)));
        assert_eq!((bob.primary(), bob.keys().count()), (new, 1));
    }

    #[test]
    fn what_was_sealed_for_one_way_is_not_opened_on_the_other() {
        let (mut ann, mut bob) = (keyring(1), keyring(2));
        let mut message = b"a stream's".to_vec();
        ann.seal(Purpose::Stream, &mut message).unwrap();
        assert_eq!(opened(&mut bob, &message), Err(OpenError::Forged(key(7).id())));
        bob.open(Purpose::Stream, &mut message).unwrap();
    }

    #[test]
    fn each_refusal_has_a_name_and_changes_nothing() {
        let mut bob = keyring(2);
        assert_eq!(opened(&mut bob, &[1; 20]), Err(OpenError::Truncated { need: 45, have: 20 }));
        assert_eq!(opened(&mut bob, &[1; 40]), Err(OpenError::Truncated { need: 45, have: 40 }));
        assert_eq!(opened(&mut bob, &[0; 50]), Err(OpenError::Format { found: 0 }));
        assert_eq!(opened(&mut bob, &[1; 50]), Err(OpenError::Unknown(KeyId::from_bytes([1; 4]))));
        (8..15).for_each(|byte| bob.install(key(byte)).unwrap());
        assert_eq!(bob.install(key(8)), Ok(()), "it is there");
        assert_eq!(bob.install(key(15)), Err(KeyringError::Full { most: 8 }));
        bob.last = u64::MAX;
        let mut message = b"as it was".to_vec();
        assert_eq!(bob.seal(Purpose::Stream, &mut message), Err(SealError));
        assert_eq!(message, b"as it was");
    }

    #[test]
    fn it_follows_what_keys_there_are_and_seals_for_one_who_has_but_an_older() {
        let (mut ann, mut bob) = (keyring(1), keyring(2));
        let mut keys = Succession::new(key(7));
        (8..14).for_each(|byte| keys.install(key(byte)).unwrap());
        let next = keys.succeed(key(14)).unwrap();
        ann.follow(&keys);
        assert_eq!((ann.primary(), ann.keys().count()), (key(7).id(), 8));
        keys.lead(next.id).unwrap();
        ann.follow(&keys);
        assert_eq!(ann.primary(), next.id);
        let mut message = b"for bob".to_vec();
        ann.seal_with(key(7).id(), Purpose::Datagram, &mut message).unwrap();
        assert_eq!((opened(&mut bob, &message).unwrap(), ann.primary()), (b"for bob".to_vec(), next.id));
        assert_eq!(ann.seal_with(key(99).id(), Purpose::Datagram, &mut message), Err(SealError));
        let full = Succession::new(key(50)); // nothing in common, and no room
        ann.follow(&full);
        assert_eq!((ann.primary(), ann.keys().count()), (key(50).id(), 1));
    }

    #[test]
    fn a_key_with_the_name_of_another_is_refused() {
        let mut bob = keyring(2);
        assert_eq!(bob.install(key(9).named_as(&key(7))), Err(KeyringError::Ambiguous(key(7).id())));
        assert_eq!(bob.keys().count(), 1);
    }
}
