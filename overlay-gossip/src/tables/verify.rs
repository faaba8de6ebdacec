//! Whose word an entry is.

use std::fmt::Debug;

use overlay_core::{NetworkId, NodeId};

use crate::tables::wire::Change;

/// Signs a node's own changes and its goodbye, and checks everybody else's, so that a node that has been taken over can write, and
/// leave, in nobody's name but its own. It can still withhold what it should pass on. foca's goodbyes are not signed.
///
/// What is signed is a statement that names owner, network, incarnation and sequence beside the entry, so that no signature fits
/// elsewhere.
///
/// ```
/// use overlay_core::NodeId;
/// use overlay_gossip::Verify;
///
/// /// Not secure: shows the shape only.
/// #[derive(Debug)]
/// struct Sum(NodeId);
///
/// fn sum(owner: NodeId, statement: &[u8]) -> Vec<u8> {
///     owner.to_bytes().iter().chain(statement).fold(7_u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte)).to_be_bytes().to_vec()
/// }
///
/// impl Verify for Sum {
///     fn sign(&self, statement: &[u8]) -> Vec<u8> {
///         sum(self.0, statement)
///     }
///
///     fn verify(&self, owner: NodeId, statement: &[u8], signature: &[u8]) -> bool {
///         sum(owner, statement) == signature
///     }
/// }
///
/// let node = NodeId::from_bytes([7; 16]);
/// let signature = Sum(node).sign(b"an entry");
/// assert!(Sum(node).verify(node, b"an entry", &signature));
/// ```
pub trait Verify: Debug + Send + Sync {
    /// This node's signature of a statement: 1 to 255 bytes.
    fn sign(&self, statement: &[u8]) -> Vec<u8>;

    /// Whether a signature is `owner`'s of the statement. A signature may be empty, and is then refused.
    fn verify(&self, owner: NodeId, statement: &[u8], signature: &[u8]) -> bool;
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
