//! A key of gossip on its way to one node.

use std::fmt;

use overlay_core::{Malformed, NodeId};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::{Generation, GossipKey};
use crate::provider::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use crate::provider::hkdf::{HKDF_SHA256, Salt};
use crate::{Chance, PublicKey, version};

/// What one start of a node opens keys with that others have wrapped for it: an X25519 secret (RFC 7748), nowhere written down, wiped when it is dropped.
///
/// ```
/// use overlay_core::NodeId;
/// use overlay_crypto::Chance;
/// use overlay_crypto::gossip::{Generation, GossipKey, Recipient, WrappedKey};
///
/// # let (anns, bobs) = ([1; 32], [2; 32]);
/// let (mut anns_chance, mut bobs_chance) = (Chance::new(anns), Chance::new(bobs)); // of the operating system
/// let bob = Recipient::generate(NodeId::from_bytes([2; 16]), &mut bobs_chance);
/// let key = GossipKey::generate(|to| anns_chance.draw(to));
/// let generation = Generation { number: 7, id: key.id() };
/// let wrapped = WrappedKey::wrap(&key, generation, (bob.node(), bob.public()), &mut anns_chance)?;
/// assert_eq!(bob.open(&wrapped)?.secret_bytes(), key.secret_bytes());
/// # Ok::<(), overlay_crypto::gossip::WrapError>(())
/// ```
pub struct Recipient {
    node: NodeId,
    secret: StaticSecret,
    public: PublicKey,
}

/// A key that one start of one node can open, and nobody else: not who has other keys of the cluster either.
///
/// The key is sealed with AES-256-GCM under a key that X25519 and HKDF-SHA256 (RFC 5869) make of a secret that is thrown away and the recipient's; the recipient, both public keys and the
/// [`Generation`] are in what is derived and authenticated. It says nothing of who wrapped it: that is gossip's seal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WrappedKey {
    generation: Generation,
    ephemeral: PublicKey,
    sealed: [u8; SEALED],
}

/// Why a key was not wrapped, or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrapError {
    /// A public key that leads to the same secret with every other, known to all (RFC 7748 §6.1).
    #[error("the public key leads to no secret (RFC 7748 §6.1)")]
    NoSecret,
    /// Wrapped for another node or another start of it, or changed on its way; or the key is not the one it says.
    #[error("key {0} was not wrapped for this start of this node")]
    Foreign(Generation),
}

const VERSION: u8 = 1;
const SEALED: usize = GossipKey::LEN + 16;
const LABEL: &[u8] = b"overlay-crypto gossip wrap 1"; // another number if anything of the derivation changes

impl Recipient {
    /// Of this node, from 32 bytes drawn from `chance`.
    pub fn generate(node: NodeId, chance: &mut Chance) -> Self {
        let secret = drawn(chance);
        let public = PublicKey::from_bytes(x25519_dalek::PublicKey::from(&secret).to_bytes());
        Self { node, secret, public }
    }

    /// Whose it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What is to be published.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The key that was wrapped for this.
    ///
    /// # Errors
    /// See [`WrapError`].
    pub fn open(&self, wrapped: &WrappedKey) -> Result<GossipKey, WrapError> {
        let WrappedKey { generation, ephemeral, sealed } = wrapped;
        let context = context(*ephemeral, (self.node, self.public), *generation);
        let by = agreed(&self.secret, *ephemeral, &context)?;
        let mut sealed = Zeroizing::new(*sealed);
        let opened = by.open_in_place(nonce(), Aad::from(&context), sealed.as_mut_slice());
        let bytes = opened.ok().and_then(|bytes| <&[u8; GossipKey::LEN]>::try_from(&*bytes).ok());
        let key = GossipKey::from_bytes(*bytes.ok_or(WrapError::Foreign(*generation))?);
        if key.id() == generation.id { Ok(key) } else { Err(WrapError::Foreign(*generation)) }
    }
}

impl WrappedKey {
    /// Bytes of one, encoded.
    pub const LEN: usize = 1 + Generation::LEN + 32 + SEALED;

    /// Wraps a key for that node, whose [public key](Recipient::public) this is: 0.1 ms or so. 32 bytes are drawn from `chance`, which must be fit for keys.
    ///
    /// # Errors
    /// [`WrapError::NoSecret`].
    pub fn wrap(
        key: &GossipKey,
        generation: Generation,
        to: (NodeId, PublicKey),
        chance: &mut Chance,
    ) -> Result<Self, WrapError> {
        let secret = drawn(chance);
        let ephemeral = PublicKey::from_bytes(x25519_dalek::PublicKey::from(&secret).to_bytes());
        let context = context(ephemeral, to, generation);
        let by = agreed(&secret, to.1, &context)?;
        let mut sealed = [0; SEALED];
        let (body, end) = sealed.split_at_mut(GossipKey::LEN);
        body.copy_from_slice(key.secret_bytes());
        let tag = by.seal_in_place_separate_tag(nonce(), Aad::from(&context), body);
        end.copy_from_slice(tag.map_err(|_| WrapError::NoSecret)?.as_ref()); // for the cipher only gigabytes are too long
        Ok(Self { generation, ephemeral, sealed })
    }

    /// Which key is in it.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The format's number, 1, generation, public key, and the key sealed with its tag.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let rest = self.generation.encode().into_iter().chain(self.ephemeral.to_bytes()).chain(self.sealed);
        let from = [VERSION].into_iter().chain(rest);
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If it is of another release's format, there are not as many bytes, or the number is out of range.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (field, have) = ("a wrapped key", bytes.len());
        let truncated = Malformed::Truncated { field, need: Self::LEN, have };
        let bytes = version::behind(VERSION, field, bytes)?;
        let (generation, rest) = bytes.split_first_chunk::<{ Generation::LEN }>().ok_or(truncated)?;
        let (ephemeral, rest) = rest.split_first_chunk::<32>().ok_or(truncated)?;
        let (sealed, rest) = rest.split_first_chunk::<SEALED>().ok_or(truncated)?;
        if !rest.is_empty() {
            return Err(Malformed::Trailing { field, extra: rest.len() });
        }
        let generation = Generation::parse(generation)?;
        Ok(Self { generation, ephemeral: PublicKey::from_bytes(*ephemeral), sealed: *sealed })
    }
}

fn drawn(chance: &mut Chance) -> StaticSecret {
    let mut bytes = Zeroizing::new([0; 32]);
    chance.draw(bytes.as_mut_slice());
    StaticSecret::from(*bytes)
}

/// All that a wrapped key is bound to.
fn context(ephemeral: PublicKey, (node, public): (NodeId, PublicKey), generation: Generation) -> Vec<u8> {
    let (keys, generation) = ([ephemeral.to_bytes(), public.to_bytes()].concat(), generation.encode());
    [LABEL, &keys, &node.to_bytes(), &generation].concat()
}

/// What both ends come to. It seals once: the secret of one end is thrown away.
fn agreed(secret: &StaticSecret, public: PublicKey, context: &[u8]) -> Result<LessSafeKey, WrapError> {
    let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(public.to_bytes()));
    if !shared.was_contributory() {
        return Err(WrapError::NoSecret);
    }
    let extracted = Salt::new(HKDF_SHA256, LABEL).extract(shared.as_bytes());
    let info = [context];
    let okm = extracted.expand(&info, &AES_256_GCM).map_err(|_| WrapError::NoSecret)?; // its length is right
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

/// Each key seals one message.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, secret: _, public } = self;
        f.debug_struct("Recipient").field("node", node).field("public", public).finish_non_exhaustive()
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey({})", self.generation)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANN: NodeId = NodeId::from_bytes([1; 16]);
    const BOB: NodeId = NodeId::from_bytes([2; 16]);

    fn recipient(node: NodeId, seed: u8) -> Recipient {
        Recipient::generate(node, &mut Chance::new([seed; 32]))
    }

    fn wrapped(key: &GossipKey, number: u64, to: &Recipient) -> WrappedKey {
        let generation = Generation { number, id: key.id() };
        WrappedKey::wrap(key, generation, (to.node, to.public), &mut Chance::new([9; 32])).unwrap()
    }

    proptest! {
        #[test]
        fn a_key_comes_to_whom_it_was_wrapped_for_and_not_with_a_changed_bit(bytes: [u8; 32], number in 0..Generation::MOST, at: prop::sample::Index, bit in 0..8) {
            let (key, bob) = (GossipKey::from_bytes(bytes), recipient(BOB, 2));
            let wrapped = wrapped(&key, number, &bob);
            let encoded = wrapped.encode();
            prop_assert_eq!(WrappedKey::parse(&encoded), Ok(wrapped));
            let opened = bob.open(&wrapped).unwrap();
            prop_assert_eq!(opened.secret_bytes(), &bytes);
            let mut changed = encoded;
            changed[at.index(encoded.len())] ^= 1_u8 << bit;
            prop_assert!(WrappedKey::parse(&changed).is_ok_and(|changed| bob.open(&changed).is_err()) || changed[..3] != encoded[..3]);
        }

        #[test]
        fn bytes_that_are_no_wrapped_key_are_refused(bytes: Vec<u8>) {
            let read = WrappedKey::parse(&bytes);
            prop_assert!(read.is_err() || bytes.len() == WrappedKey::LEN);
        }
    }

    #[test]
    fn nobody_else_opens_it_nor_another_start_of_whom_it_was_for() {
        let key = GossipKey::from_bytes([7; 32]);
        let wrapped = wrapped(&key, 3, &recipient(BOB, 2));
        let foreign = Some(WrapError::Foreign(wrapped.generation()));
        assert_eq!(recipient(BOB, 3).open(&wrapped).err(), foreign);
        assert_eq!(recipient(ANN, 2).open(&wrapped).err(), foreign, "with the very secret, as another node");
        let wire = wrapped.encode();
        assert!(!wire.windows(8).any(|bytes| bytes == [7; 8]));
    }

    #[test]
    fn a_key_that_is_not_the_one_it_says_is_refused() {
        let (key, bob) = (GossipKey::from_bytes([7; 32]), recipient(BOB, 2));
        let generation = Generation { number: 3, id: GossipKey::from_bytes([8; 32]).id() };
        let wrapped =
            WrappedKey::wrap(&key, generation, (bob.node(), bob.public()), &mut Chance::new([9; 32])).unwrap();
        assert_eq!(bob.open(&wrapped).err(), Some(WrapError::Foreign(generation)));
    }

    #[test]
    fn a_public_key_that_leads_to_no_secret_is_refused() {
        let key = GossipKey::from_bytes([7; 32]);
        let generation = Generation { number: 3, id: key.id() };
        for point in [[0; 32], {
            let mut one = [0; 32];
            one[0] = 1;
            one
        }] {
            let to = (BOB, PublicKey::from_bytes(point));
            let refused = WrappedKey::wrap(&key, generation, to, &mut Chance::new([9; 32]));
            assert_eq!(refused.err(), Some(WrapError::NoSecret));
        }
    }
}
