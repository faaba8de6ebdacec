//! Statements that a node signs, many at once.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use overlay_core::Malformed;

use crate::provider::digest::{Context, SHA256};
use crate::provider::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use crate::version;

/// Signs what one start of a node says by gossip: an Ed25519 key (RFC 8032), nowhere written down.
///
/// Statements that are made at once are signed at once, [`MOST`](Self::MOST) by one signature: of the root of a tree of their digests. Each carries the signature and its way to the root, so it
/// is proved by itself, whoever passes it on. What is signed is the same each time.
///
/// ```
/// use overlay_crypto::gossip::{Signer, Verifier};
///
/// # let seed = [7; 32];
/// let ann = Signer::from_seed(&seed); // by chance
/// let signatures = ann.sign(b"cluster 1", &["web is at 10.0.0.2".as_bytes(), b"db is at 10.0.0.3"]);
/// let verifier = Verifier::default();
/// assert_eq!(verifier.verify(&ann.key(), b"cluster 1", b"db is at 10.0.0.3", &signatures[1]), Ok(()));
/// assert!(verifier.verify(&ann.key(), b"cluster 1", b"db is at 10.0.0.9", &signatures[1]).is_err());
/// assert!(verifier.verify(&ann.key(), b"cluster 2", b"db is at 10.0.0.3", &signatures[1]).is_err());
/// ```
pub struct Signer {
    pair: Option<Ed25519KeyPair>,
    key: SignerKey,
}

/// The public key of a [`Signer`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignerKey([u8; 32]);

/// Verifies statements, and remembers the last signatures that were true: so of statements that were signed at once the first costs a signature, and the others
/// some digests. What was not true is not remembered; how often that is looked at is the caller's to bound.
#[derive(Debug)]
pub struct Verifier {
    most: usize,
    believed: Mutex<Believed>,
}

/// Why a statement is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// No signature of ours.
    #[error("not a signature of a statement: {0}")]
    Malformed(#[from] Malformed),
    /// Not by that key, or not of that statement.
    #[error("the signature is another's, or another statement's")]
    Forged,
}

/// What a signature carries: version, how many statements were signed at once and which this is, a byte each; the digests beside its way to the root; and the signature of the root.
struct Proof<'a> {
    count: u8,
    index: u8,
    beside: &'a [[u8; DIGEST]],
    signature: &'a [u8; 64],
}

/// Half of a digest. Who would pass another statement off as one that was signed needs one of the same digest, which is 2¹²⁸ tries; that its signer finds two of one is of no
/// use to it, who may sign both.
const DIGEST: usize = 16;
const VERSION: u8 = 1;
const FIELD: &str = "a signature of a statement";

impl Signer {
    /// So many statements are signed at once: with more, each would carry more digests than the share of the signature that it saves.
    pub const MOST: usize = 64;
    /// Bytes of a signature at most.
    pub const LONGEST: usize = 3 + 6 * DIGEST + 64;

    /// The key that follows from 32 bytes of chance. The caller wipes its own copy.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok(); // any 32 bytes are a seed
        let mut key = [0; 32];
        let public = pair.iter().flat_map(|pair| pair.public_key().as_ref());
        key.iter_mut().zip(public).for_each(|(to, from)| *to = *from);
        Self { pair, key: SignerKey(key) }
    }

    /// Its public key.
    pub const fn key(&self) -> SignerKey {
        self.key
    }

    /// A signature for each statement, in their order. It counts for this context alone: for one cluster, say.
    pub fn sign(&self, context: &[u8], statements: &[impl AsRef<[u8]>]) -> Vec<Vec<u8>> {
        statements.chunks(Self::MOST).flat_map(|some| self.sign_some(context, some)).collect()
    }

    fn sign_some(&self, context: &[u8], statements: &[impl AsRef<[u8]>]) -> Vec<Vec<u8>> {
        let levels = levels(statements.iter().map(|statement| of_leaf(statement.as_ref())).collect());
        let root = levels.last().and_then(|level| level.first()).copied().unwrap_or_default();
        let count = statements.len() as u8;
        let signature = self.pair.as_ref().map(|pair| pair.sign(&of_root(context, count, root)));
        let signature = signature.as_ref().map_or(&[][..], AsRef::as_ref);
        let proof = |index: usize| {
            let head = [VERSION, count, index as u8];
            let beside = levels.iter().enumerate().filter_map(|(height, level)| level.get((index >> height) ^ 1));
            head.into_iter().chain(beside.flatten().copied()).chain(signature.iter().copied()).collect()
        };
        (0..statements.len()).map(proof).collect()
    }
}

impl SignerKey {
    /// That key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl Verifier {
    /// So many signatures are remembered, 32 bytes each, if nothing else is said.
    pub const REMEMBERED: usize = 1_024;

    /// One that remembers so many signatures.
    pub fn remembering(most: usize) -> Self {
        Self { most, believed: Mutex::default() }
    }

    /// Whether a signature is of a statement, in that context, by that key.
    ///
    /// # Errors
    /// If it is not.
    pub fn verify(
        &self,
        key: &SignerKey,
        context: &[u8],
        statement: &[u8],
        signature: &[u8],
    ) -> Result<(), StatementError> {
        let proof = Proof::parse(signature)?;
        let signed = of_root(context, proof.count, proof.root(of_leaf(statement)));
        let name = name(key, &signed, proof.signature);
        if self.believed().contains(&name) {
            return Ok(());
        }
        let verified = UnparsedPublicKey::new(&ED25519, &key.0).verify(&signed, proof.signature);
        verified.map_err(|_| StatementError::Forged)?;
        self.believed().insert(name, self.most);
        Ok(())
    }

    fn believed(&self) -> std::sync::MutexGuard<'_, Believed> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Verifier {
    /// One that remembers [`REMEMBERED`](Self::REMEMBERED).
    fn default() -> Self {
        Self::remembering(Self::REMEMBERED)
    }
}

/// Signatures that were true, the latest last.
#[derive(Debug, Default)]
struct Believed {
    names: BTreeSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Believed {
    fn contains(&self, name: &[u8; 32]) -> bool {
        self.names.contains(name)
    }

    fn insert(&mut self, name: [u8; 32], most: usize) {
        if self.names.insert(name) {
            self.order.push_back(name);
        }
        if self.order.len() > most
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }
}

impl<'a> Proof<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let range = |field, found: u8, least: u64, most: u64| match (least..=most).contains(&found.into()) {
            true => Ok(()),
            false => Err(Malformed::Range { field, found: found.into(), least, most }),
        };
        let truncated = |need| Malformed::Truncated { field: FIELD, need, have: bytes.len() };
        let rest = version::behind(VERSION, FIELD, bytes)?;
        let (&[count, index], rest) = rest.split_first_chunk().ok_or_else(|| truncated(3))?;
        range("statements signed at once", count, 1, Signer::MOST as u64)?;
        range("number of a statement", index, 0, u64::from(count) - 1)?;
        let (beside, signature) = rest.split_last_chunk::<64>().ok_or_else(|| truncated(3 + 64))?;
        let (digests, odd) = beside.as_chunks::<DIGEST>();
        let need = steps(count, index).filter(|step| *step != Step::Alone).count();
        if digests.len() < need {
            return Err(truncated(3 + need * DIGEST + 64));
        }
        match odd.len() + (digests.len() - need) * DIGEST {
            0 => Ok(Self { count, index, beside: digests, signature }),
            extra => Err(Malformed::Trailing { field: FIELD, extra }),
        }
    }

    fn root(&self, leaf: [u8; DIGEST]) -> [u8; DIGEST] {
        let mut beside = self.beside.iter();
        steps(self.count, self.index).fold(leaf, |digest, step| match step {
            Step::Alone => digest,
            Step::Left => beside.next().map_or(digest, |right| of_pair(&digest, right)),
            Step::Right => beside.next().map_or(digest, |left| of_pair(left, &digest)),
        })
    }
}

/// On which side of its pair something is, on the way to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Left,
    Right,
    /// The last of an odd number: it goes up as it is.
    Alone,
}

fn steps(count: u8, index: u8) -> impl Iterator<Item = Step> {
    let mut at = (count, index);
    std::iter::from_fn(move || {
        let (count, index) = at;
        at = (count.div_ceil(2), index / 2);
        match index % 2 {
            _ if count <= 1 => None,
            1 => Some(Step::Right),
            _ if index + 1 < count => Some(Step::Left),
            _ => Some(Step::Alone),
        }
    })
}

/// A tree from its leaves to the root.
fn levels(leaves: Vec<[u8; DIGEST]>) -> Vec<Vec<[u8; DIGEST]>> {
    let mut levels = vec![leaves];
    while let Some(level) = levels.last().filter(|level| level.len() > 1) {
        let (pairs, alone) = level.as_chunks::<2>();
        let above = pairs.iter().map(|[left, right]| of_pair(left, right)).chain(alone.iter().copied()).collect();
        levels.push(above);
    }
    levels
}

fn of_leaf(statement: &[u8]) -> [u8; DIGEST] {
    half(&[&[0], statement])
}

fn of_pair(left: &[u8; DIGEST], right: &[u8; DIGEST]) -> [u8; DIGEST] {
    half(&[&[1], left, right])
}

fn half(parts: &[&[u8]]) -> [u8; DIGEST] {
    let whole = whole(parts);
    std::array::from_fn(|at| whole[at])
}

fn whole(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// What is signed of a tree.
fn of_root(context: &[u8], count: u8, root: [u8; DIGEST]) -> Vec<u8> {
    [b"overlay-crypto gossip statements 1\0", &[count][..], &root, context].concat()
}

/// What a signature is remembered by: it, whose it is and of what.
fn name(key: &SignerKey, signed: &[u8], signature: &[u8; 64]) -> [u8; 32] {
    whole(&[&key.0, signature, signed])
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key", &self.key).finish_non_exhaustive()
    }
}

impl fmt::Display for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hex::show(&self.0, f)
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn ann() -> Signer {
        Signer::from_seed(&[1; 32])
    }

    #[test]
    fn of_what_is_signed_at_once_one_signature_is_verified_and_each_proof_is_short() {
        let statements: Vec<[u8; 1]> = (0..200).map(|number| [number]).collect();
        let signatures = ann().sign(b"", &statements);
        assert_eq!((signatures.len(), signatures[0].len(), Signer::LONGEST), (200, 163, 163));
        assert_eq!(ann().sign(b"", &[b"alone"])[0].len(), 67);
        let verifier = Verifier::default();
        for (statement, signature) in statements.iter().zip(&signatures) {
            assert_eq!(verifier.verify(&ann().key(), b"", statement, signature), Ok(()));
        }
        assert_eq!(verifier.believed().order.len(), 4, "one of each tree was verified");
    }

    #[test]
    fn no_more_is_remembered_than_was_said() {
        let verifier = Verifier::default();
        for number in 0..Verifier::REMEMBERED as u32 + 9 {
            let statement = number.to_be_bytes();
            let signature = ann().sign(b"", &[statement]);
            assert_eq!(verifier.verify(&ann().key(), b"", &statement, &signature[0]), Ok(()));
        }
        let believed = verifier.believed();
        assert_eq!((believed.order.len(), believed.names.len()), (Verifier::REMEMBERED, Verifier::REMEMBERED));
    }

    #[test]
    fn another_signature_of_a_root_that_is_believed_is_not() {
        let (verifier, signature) = (Verifier::default(), ann().sign(b"", &[b"said"]).remove(0));
        assert_eq!(verifier.verify(&ann().key(), b"", b"said", &signature), Ok(()));
        let mut other = signature;
        other[66] ^= 1;
        assert_eq!(verifier.verify(&ann().key(), b"", b"said", &other), Err(StatementError::Forged));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn each_is_believed_by_its_own_signature_alone(statements in vec(vec(any::<u8>(), 0..40), 1..70), other in any::<prop::sample::Index>()) {
            let (verifier, key) = (Verifier::default(), ann().key());
            let signatures = ann().sign(b"here", &statements);
            for (number, (statement, signature)) in statements.iter().zip(&signatures).enumerate() {
                prop_assert_eq!(verifier.verify(&key, b"here", statement, signature), Ok(()));
                let other = other.index(statements.len());
                let same = statements[other] == *statement;
                prop_assert!(same || verifier.verify(&key, b"here", statement, &signatures[other]).is_err(), "{} by {}", number, other);
            }
            let (statement, signature) = (&statements[0], &signatures[0]);
            prop_assert_eq!(verifier.verify(&key, b"there", statement, signature), Err(StatementError::Forged));
            let bob = Signer::from_seed(&[2; 32]);
            prop_assert_eq!(verifier.verify(&bob.key(), b"here", statement, signature), Err(StatementError::Forged));
            prop_assert_eq!(&bob.sign(b"here", &statements), &bob.sign(b"here", &statements));
        }

        #[test]
        fn what_is_altered_anywhere_is_refused(statements in vec(vec(any::<u8>(), 0..20), 1..20), at in any::<prop::sample::Index>(), bit in 0..8_u8, cut in any::<prop::sample::Index>()) {
            let (verifier, key) = (Verifier::default(), ann().key());
            let signature = ann().sign(b"", &statements).remove(0);
            prop_assert_eq!(verifier.verify(&key, b"", &statements[0], &signature), Ok(()));
            let mut altered = signature.clone();
            altered[at.index(signature.len())] ^= 1 << bit;
            prop_assert!(verifier.verify(&key, b"", &statements[0], &altered).is_err());
            let cut = &signature[..cut.index(signature.len())];
            prop_assert!(matches!(verifier.verify(&key, b"", &statements[0], cut), Err(StatementError::Malformed(_))));
        }
    }
}
