//! Whose word an entry is.

use std::fmt::Debug;

use bytes::Bytes;
use overlay_core::{NetworkId, NodeId};

use crate::Key;
use crate::tables::wire::Change;

/// Signs a node's own changes, what it says of itself as a [`Member`](crate::Member) and its goodbye, and checks everybody else's, so that a node that has been taken over can write,
/// move and leave in nobody's name but its own. It can still withhold what it should pass on, and say that others do not answer. With foca, members and goodbyes are not signed.
///
/// What is signed is a statement that names owner, network, incarnation and sequence beside the entry, or the member and its number, so that no signature fits
/// elsewhere. Changes that are made before a message leaves are signed together, and each is passed on with a signature of its own.
///
/// ```
/// use overlay_core::NodeId;
/// use overlay_gossip::{Disbelief, Signature, Verify};
///
/// /// Not secure: shows the shape only.
/// #[derive(Debug)]
/// struct Sum(NodeId);
///
/// fn sum(owner: NodeId, statement: &[u8]) -> [u8; 4] {
///     owner.to_bytes().iter().chain(statement).fold(7_u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte)).to_be_bytes()
/// }
///
/// impl Verify for Sum {
///     fn sign(&self, statements: &[Vec<u8>]) -> Vec<Signature> {
///         statements.iter().filter_map(|statement| Signature::new(sum(self.0, statement).to_vec()).ok()).collect()
///     }
///
///     fn verify(&self, owner: NodeId, statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
///         if sum(owner, statement) == signature { Ok(()) } else { Err(Disbelief::Forged) }
///     }
/// }
///
/// let node = NodeId::from_bytes([7; 16]);
/// let signatures = Sum(node).sign(&[b"an entry".to_vec()]);
/// assert_eq!(Sum(node).verify(node, b"an entry", signatures[0].as_bytes()), Ok(()));
/// ```
pub trait Verify: Debug + Send + Sync {
    /// This node's signatures of statements, one for each, in their order.
    fn sign(&self, statements: &[Vec<u8>]) -> Vec<Signature>;

    /// The most bytes of a signature; one that is longer is as if there were none.
    fn longest(&self) -> usize {
        Signature::MOST
    }

    /// Whether a signature is `owner`'s of the statement. A signature may be empty: then there is none. Who answers [`Disbelief::Unvouched`], or [`Disbelief::Forged`] of a later start than is known,
    /// is called again once the owner's [voucher](Self::voucher) was [introduced](Self::introduce): of members that is asked for at once.
    ///
    /// # Errors
    /// Why it is not believed.
    fn verify(&self, owner: NodeId, statement: &[u8], signature: &[u8]) -> Result<(), Disbelief>;

    /// What this node shows of itself, so that others can verify what it signs: its first entry, which everybody hears. Without it the others know
    /// what they need from elsewhere, and take a member only when they hear of it after that. One with less than 1 KiB travels as news, and has others wait for it the least.
    fn voucher(&self) -> Option<Bytes> {
        None
    }

    /// Another node shows this of itself; the statement is of that. What it signs is verified by it from now on: all that was signed by this start of it, so a later voucher is of the same key.
    ///
    /// # Errors
    /// Why it is not believed: nothing has changed then.
    fn introduce(&self, owner: NodeId, voucher: &[u8], statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
        let _ = voucher;
        self.verify(owner, statement, signature)
    }

    /// A node is gone, or has started again: what it has shown of itself counts no more.
    fn forget(&self, owner: NodeId) {
        let _ = owner;
    }
}

/// Why a change is not taken for its owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disbelief {
    /// It is not signed.
    #[error("it is not signed")]
    Unsigned,
    /// How its owner signs is not known, or not yet.
    #[error("nothing is known by which its owner's signature could be verified")]
    Unvouched,
    /// The signature is another's, or of something else; or what its owner shows of itself is not believed.
    #[error("its owner has not signed it")]
    Forged,
}

/// A signature: 1 to [`MOST`](Self::MOST) bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature(Bytes);

/// Too many bytes for a signature, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signature has 1 to {most} bytes, this has {found}", most = Signature::MOST)]
pub struct SignatureLengthError {
    /// Bytes given.
    pub found: usize,
}

impl Signature {
    /// So many bytes at most.
    pub const MOST: usize = 255;

    /// These bytes.
    ///
    /// # Errors
    /// If there are too many, or none.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, SignatureLengthError> {
        let bytes = bytes.into();
        let found = bytes.len();
        if (1..=Self::MOST).contains(&found) { Ok(Self(bytes)) } else { Err(SignatureLengthError { found }) }
    }

    /// Them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is signed of a change.
pub(crate) fn statement(network: NetworkId, owner: NodeId, incarnation: u64, change: &Change) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + change.encoded_len());
    out.extend_from_slice(b"overlay-gossip entry 1");
    out.extend_from_slice(&network.to_bytes());
    out.extend_from_slice(&owner.to_bytes());
    out.extend_from_slice(&incarnation.to_be_bytes());
    change.encode_unsigned(true, &mut out);
    out
}

/// The key of vouchers, in the directory's table for them: no network's id, so that who knows nothing of them takes it for no subscription.
pub(crate) fn voucher_key() -> Option<Key> {
    Key::new("voucher").ok()
}
