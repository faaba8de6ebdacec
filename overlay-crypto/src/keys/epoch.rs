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

    /// Whether it has agreed with that peer ever, so that the peer knows keys of this epoch.
    pub fn has_agreed_with(&self, peer: NodeId) -> bool {
        self.agreed.contains_key(&peer)
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

#[cfg(test)]
mod tests {
    use overlay_core::NetworkId;

    use super::*;
    use crate::{Cipher, Direction, Lane, SaKey, Spi, Use};

    const ANN: NodeId = NodeId::from_bytes([1; 16]);
    const BOB: NodeId = NodeId::from_bytes([2; 16]);

    fn secret(node: NodeId, epoch: u64, seed: u8) -> EpochSecret {
        EpochSecret::generate(node, Epoch::new(epoch).unwrap(), |bytes| bytes.fill(seed))
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn usual(direction: Direction) -> Use {
        Use { network: NetworkId::from_bytes([9; 16]), lane: Lane::default(), direction }
    }

    /// RFC 7748 §6.1.
    #[test]
    fn what_is_published_and_agreed_is_what_the_rfc_says() {
        let alice = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
        let bob = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
        let of = |node, hex: &str| EpochSecret::generate(node, Epoch::FIRST, |to| to.copy_from_slice(&bytes(hex)));
        let (mut alice, mut bob) = (of(ANN, alice), of(BOB, bob));
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        assert_eq!(alice.record().public.to_string(), public);
        let public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
        assert_eq!(bob.record().public.to_string(), public);
        let (a, b) = (alice.agree(BOB, bob.record()).unwrap(), bob.agree(ANN, alice.record()).unwrap());
        let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!((a.shared().as_slice(), b.shared().as_slice()), (&shared[..], &shared[..]));
    }

    /// RFC 7748 §6.1, §5: 0 and 1, a point of order 8, p - 1, and p and p + 1, which are 0 and 1 again.
    #[test]
    fn a_key_that_leads_to_no_secret_is_refused_and_nothing_changes() {
        let mut ann = secret(ANN, 1, 3);
        for point in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            let public = PublicKey::from_bytes(bytes(point).try_into().unwrap());
            let record = EpochRecord { epoch: Epoch::FIRST, public };
            assert_eq!(ann.agree(BOB, record).unwrap_err(), AgreeError::NoSecret, "{point}");
        }
        assert!(!ann.has_agreed_with(BOB));
        assert!(ann.agree(BOB, secret(BOB, 1, 4).record()).is_ok() && ann.has_agreed_with(BOB));
    }

    #[test]
    fn both_ends_have_the_same_keys_and_each_use_another() {
        let (mut ann, mut bob) = (secret(ANN, 1, 3), secret(BOB, 7, 4));
        let (mut a, mut b) = (ann.agree(BOB, bob.record()).unwrap(), bob.agree(ANN, ann.record()).unwrap());
        let mut all: Vec<(Spi, SaKey)> = Vec::new();
        for network in [[9; 16], [10; 16]].map(NetworkId::from_bytes) {
            for lane in [0, 1].map(|lane| Lane::new(lane).unwrap()) {
                for (ours, theirs) in [(Direction::Out, Direction::In), (Direction::In, Direction::Out)] {
                    let at_ann = a.issue(Use { network, lane, direction: ours }, Cipher::Aes256Gcm).unwrap();
                    let at_bob = b.issue(Use { network, lane, direction: theirs }, Cipher::Aes256Gcm).unwrap();
                    assert_eq!(at_ann, at_bob);
                    all.push((at_ann.spi, at_ann.key));
                }
            }
        }
        for (at, (spi, key)) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|(other_spi, other)| other_spi != spi && other != key));
        }
    }

    /// Computed by hmac and hashlib of Python: other releases derive the same, or have another label.
    #[test]
    fn what_is_derived_stays_the_same() {
        let (mut ann, bob) = (secret(ANN, 1, 3), secret(BOB, 7, 4));
        let mut pair = ann.agree(BOB, bob.record()).unwrap();
        let issued = pair.issue(usual(Direction::Out), Cipher::Aes128Gcm).unwrap();
        assert_eq!(issued.spi.to_string(), "0x2473d8e2");
        assert_eq!(issued.key.take().unwrap().material(), bytes("67ea5f3141acfde2903ba7a91d977d80093144e3"));
    }

    #[test]
    fn each_key_is_issued_once_and_an_epoch_agreed_upon_once() {
        let (mut ann, bob) = (secret(ANN, 1, 3), secret(BOB, 7, 4));
        let mut pair = ann.agree(BOB, bob.record()).unwrap();
        pair.issue(usual(Direction::Out), Cipher::Aes128Gcm).unwrap();
        let again = pair.issue(usual(Direction::Out), Cipher::Aes256Gcm).unwrap_err();
        assert!(again.to_string().ends_with("lane 0, out was issued already"), "{again}");
        let old = |epoch: u64| AgreeError::Old { epoch: Epoch::new(epoch).unwrap(), last: Epoch::new(7).unwrap() };
        assert_eq!(ann.agree(BOB, bob.record()).unwrap_err(), old(7));
        assert_eq!(ann.agree(BOB, secret(BOB, 6, 5).record()).unwrap_err(), old(6));
        assert!(ann.agree(BOB, secret(BOB, 8, 6).record()).is_ok());
        assert_eq!(ann.agree(ANN, secret(ANN, 9, 6).record()).unwrap_err(), AgreeError::Oneself);
        assert_eq!(ann.agree(NodeId::from_bytes([5; 16]), ann.record()).unwrap_err(), AgreeError::Oneself);
    }

    #[test]
    fn an_agent_that_starts_again_has_other_keys_and_so_has_its_peer() {
        let bob = secret(BOB, 7, 4);
        let mut keys = [(1, 3), (2, 8)].map(|(epoch, chance)| {
            let mut ann = secret(ANN, epoch, chance);
            ann.agree(BOB, bob.record()).unwrap().issue(usual(Direction::Out), Cipher::default()).unwrap().key
        });
        assert_ne!(keys[0], keys[1]);
        // Another epoch of the same secret would do, even if chance failed.
        keys[1] = secret(ANN, 2, 3)
            .agree(BOB, bob.record())
            .unwrap()
            .issue(usual(Direction::Out), Cipher::default())
            .unwrap()
            .key;
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn nothing_that_is_printed_tells_of_a_secret() {
        let mut ann = secret(ANN, 1, 0xab);
        let pair = ann.agree(BOB, secret(BOB, 7, 4).record()).unwrap();
        let shown = format!("{ann:?} {pair:?}");
        assert!(!shown.contains("abab") && !shown.contains("171, 171") && !shown.contains("shared"), "{shown}");
    }
}
