//! A node's secret of one epoch.

use std::collections::BTreeMap;
use std::fmt;

use overlay_core::NodeId;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::{Epoch, EpochRecord, Pair, PublicKey};

/// A node's X25519 secret of one epoch (RFC 7748 §6.1): made by chance, nowhere written down, wiped when it is dropped.
///
/// It cannot be copied, stored or read back. So an agent that starts again, and cannot know what it has sent, has another secret, of another epoch, and all its
/// keys are new: there is no way to adopt the old ones. With each peer's key it agrees once, and from what comes of it each key is
/// issued once.
///
/// ```
/// use overlay_core::{NetworkId, NodeId};
/// use overlay_crypto::{Cipher, Direction, Epoch, EpochSecret, Lane, Use};
///
/// let (ann, bob) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
/// # let (anns_chance, bobs_chance) = (|bytes: &mut [u8]| bytes.fill(3), |bytes: &mut [u8]| bytes.fill(4));
/// let mut anns = EpochSecret::generate(ann, Epoch::FIRST, anns_chance);
/// let mut bobs = EpochSecret::generate(bob, Epoch::FIRST, bobs_chance);
///
/// let mut at_ann = anns.agree(bob, bobs.record())?; // records travel by gossip
/// let mut at_bob = bobs.agree(ann, anns.record())?;
/// let network = NetworkId::from_bytes([9; 16]);
/// let sends = at_ann.issue(Use { network, lane: Lane::default(), direction: Direction::Out }, Cipher::default())?;
/// let receives = at_bob.issue(Use { network, lane: Lane::default(), direction: Direction::In }, Cipher::default())?;
/// assert_eq!((sends.spi, sends.key), (receives.spi, receives.key));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EpochSecret {
    node: NodeId,
    record: EpochRecord,
    secret: StaticSecret,
    agreed: BTreeMap<NodeId, Epoch>, // the last of each peer
}

/// Why no keys come of a peer's record. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgreeError {
    /// The record is the node's own.
    #[error("the record is this node's own")]
    Oneself,
    /// The peer's record is no newer than one that keys were issued from: each key is issued once.
    #[error("keys were issued for the peer's epoch {last}, and its epoch {epoch} is no later")]
    Old {
        /// The epoch of the record.
        epoch: Epoch,
        /// The last that was agreed upon.
        last: Epoch,
    },
    /// The peer's key is one of the few that lead to the same secret with every key, known to all (RFC 7748 §6.1).
    #[error("the peer's key leads to no secret (RFC 7748 §6.1)")]
    NoSecret,
}

impl EpochSecret {
    /// A secret of `node` from 32 bytes of chance, which `fill` must take from a source that is fit for keys: never a seed that may come again.
    ///
    /// `epoch` is above all that the node had before, as others still have them.
    pub fn generate(node: NodeId, epoch: Epoch, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut chance = Zeroizing::new([0; 32]);
        fill(chance.as_mut_slice());
        let secret = StaticSecret::from(*chance);
        let public = PublicKey::from_bytes(x25519_dalek::PublicKey::from(&secret).to_bytes());
        Self { node, record: EpochRecord { epoch, public }, secret, agreed: BTreeMap::new() }
    }

    /// What is to be published.
    pub fn record(&self) -> EpochRecord {
        self.record
    }

    /// Whose it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Agrees with `peer` by the record it has published: 50 µs or so. What comes of it is secret only if the record is the peer's.
    ///
    /// # Errors
    /// See [`AgreeError`].
    pub fn agree(&mut self, peer: NodeId, record: EpochRecord) -> Result<Pair, AgreeError> {
        if peer == self.node || record.public == self.record.public {
            return Err(AgreeError::Oneself);
        }
        if let Some(last) = self.agreed.get(&peer).copied().filter(|last| record.epoch <= *last) {
            return Err(AgreeError::Old { epoch: record.epoch, last });
        }
        let shared = self.secret.diffie_hellman(&x25519_dalek::PublicKey::from(record.public.to_bytes()));
        if !shared.was_contributory() {
            return Err(AgreeError::NoSecret);
        }
        self.agreed.insert(peer, record.epoch);
        Ok(Pair::new(Zeroizing::new(shared.to_bytes()), (self.node, self.record), (peer, record)))
    }
}

impl fmt::Debug for EpochSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, record, secret: _, agreed: _ } = self;
        f.debug_struct("EpochSecret").field("node", node).field("record", record).finish_non_exhaustive()
    }
}
