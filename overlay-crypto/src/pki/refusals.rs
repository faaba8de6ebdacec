//! Nodes that were removed.

use std::collections::BTreeMap;

use overlay_core::{NodeId, UnixTime};
use serde::{Deserialize, Serialize};

use super::{Identity, VerifyError};

/// The nodes that were removed from the cluster and may still have a certificate that counts: each until its last has expired, so the list does not grow.
///
/// A node's id is never given again, so what is refused is the node and not one certificate.
///
/// ```
/// use overlay_core::{ClusterId, NodeId, UnixTime};
/// use overlay_crypto::pki::{Identity, Refusals, Role};
///
/// let (node, cluster) = (NodeId::from_bytes([1; 16]), ClusterId::from_bytes([2; 16]));
/// let mut refusals = Refusals::default();
/// refusals.refuse(node, UnixTime::from_millis(90_000));
/// let gone = Identity { node, role: Role::Worker, cluster };
/// assert!(refusals.check(&gone).is_err());
/// refusals.forget(UnixTime::from_millis(91_000));
/// assert!(refusals.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Refusals(BTreeMap<NodeId, UnixTime>);

impl Refusals {
    /// Refuses a node until its last certificate has expired; never for shorter than was said before.
    pub fn refuse(&mut self, node: NodeId, until: UnixTime) {
        let end = self.0.entry(node).or_insert(until);
        *end = (*end).max(until);
    }

    /// Forgets those whose certificates have all expired: by a clock that is right, as what is forgotten is believed again by one that is set back.
    pub fn forget(&mut self, now: UnixTime) {
        self.0.retain(|_, until| until.as_secs() >= now.as_secs());
    }

    /// # Errors
    /// [`VerifyError::Removed`] of one that was removed.
    pub fn check(&self, identity: &Identity) -> Result<(), VerifyError> {
        if self.0.contains_key(&identity.node) { Err(VerifyError::Removed(*identity)) } else { Ok(()) }
    }

    /// Whether a node is among them.
    pub fn is_refused(&self, node: NodeId) -> bool {
        self.0.contains_key(&node)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
