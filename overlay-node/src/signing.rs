//! What a node says by gossip is signed by it, and what others say is verified.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use overlay_core::{ClusterId, NodeId};
use overlay_crypto::gossip::{Signer, SignerKey, Verifier};
use overlay_gossip::{Disbelief, Signature, Verify};

/// Says which key a node signs with: what binds the two is the caller's, usually a certificate of the cluster's.
pub trait Vouch: Debug + Send + Sync {
    /// What this node shows of its key, to be believed by all others: the same until it has to be another. `None` if there is nothing to show: then nobody believes this node.
    fn voucher(&self, key: SignerKey) -> Option<Bytes>;

    /// The key that a node has shown; `None` if it is not believed that it is that node's.
    fn key_of(&self, node: NodeId, voucher: &[u8]) -> Option<SignerKey>;
}

/// Signs the entries of one start of a node, what it says of itself as a member and its goodbye, and verifies all others', for [`TablesConfig::verify`](overlay_gossip::TablesConfig::verify): so a node that was taken over
/// says nothing in another's name. That it says untrue things in its own is what the catalogue is for.
///
/// Every node shows a voucher in gossip, before all else that it says; a key counts from then on until its node has gone or started again. Who has shown none that is believed is no member.
///
/// ```
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use overlay_core::{ClusterId, NodeId};
/// use overlay_crypto::gossip::{Signer, SignerKey};
/// use overlay_node::{AgentConfig, Signing, Vouch};
///
/// /// Whoever is asked believes everybody: shows the shape only.
/// #[derive(Debug)]
/// struct Anybody;
///
/// impl Vouch for Anybody {
///     fn voucher(&self, key: SignerKey) -> Option<Bytes> {
///         Some(Bytes::copy_from_slice(&key.to_bytes()))
///     }
///
///     fn key_of(&self, _: NodeId, voucher: &[u8]) -> Option<SignerKey> {
///         voucher.try_into().ok().map(SignerKey::from_bytes)
///     }
/// }
///
/// # let seed = [7; 32];
/// let signer = Signer::from_seed(&seed); // by chance
/// let mut config = AgentConfig::lan();
/// config.gossip.tables.verify = Some(Arc::new(Signing::new(ClusterId::from_bytes([5; 16]), signer, Arc::new(Anybody))));
/// ```
#[derive(Debug)]
pub struct Signing {
    cluster: ClusterId,
    signer: Signer,
    vouch: Arc<dyn Vouch>,
    takes_unsigned: bool,
    verifier: Arc<Verifier>,
    keys: Mutex<BTreeMap<NodeId, SignerKey>>,
}

impl Signing {
    /// For a node of a cluster: no signature of another cluster counts here, whoever made it. The key is new at each start.
    pub fn new(cluster: ClusterId, signer: Signer, vouch: Arc<dyn Vouch>) -> Self {
        let (verifier, keys) = Default::default();
        Self { cluster, signer, vouch, takes_unsigned: false, verifier, keys }
    }

    /// As that, but takes what is not signed as its owner's as long as that has shown no voucher: while a cluster is brought from a release that does not sign to one that does. Whoever could write
    /// in an owner's name before can do so until it shows one.
    #[must_use]
    pub fn taking_unsigned(self) -> Self {
        Self { takes_unsigned: true, ..self }
    }

    /// As that, but remembers which signatures were true in the same place as others of this process: what was verified for one node is for all. For simulations, whose
    /// nodes hear the same.
    #[must_use]
    pub fn verifying_by(self, verifier: Arc<Verifier>) -> Self {
        Self { verifier, ..self }
    }

    /// The nodes that have shown a voucher.
    pub fn vouched(&self) -> Vec<NodeId> {
        self.keys().keys().copied().collect()
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, SignerKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_of(&self, key: &SignerKey, statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
        let verified = self.verifier.verify(key, &self.cluster.to_bytes(), statement, signature);
        verified.map_err(|_| Disbelief::Forged)
    }
}

impl Verify for Signing {
    fn sign(&self, statements: &[Vec<u8>]) -> Vec<Signature> {
        let signatures = self.signer.sign(&self.cluster.to_bytes(), statements);
        signatures.into_iter().filter_map(|signature| Signature::new(signature).ok()).collect()
    }

    fn longest(&self) -> usize {
        Signer::LONGEST
    }

    fn verify(&self, owner: NodeId, statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
        let key = self.keys().get(&owner).copied();
        match key {
            None if signature.is_empty() && self.takes_unsigned => Ok(()),
            _ if signature.is_empty() => Err(Disbelief::Unsigned),
            None => Err(Disbelief::Unvouched),
            Some(key) => self.is_of(&key, statement, signature),
        }
    }

    fn voucher(&self) -> Option<Bytes> {
        self.vouch.voucher(self.signer.key())
    }

    fn introduce(&self, owner: NodeId, voucher: &[u8], statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
        let key = self.vouch.key_of(owner, voucher).ok_or(Disbelief::Forged)?;
        self.is_of(&key, statement, signature)?;
        self.keys().insert(owner, key);
        Ok(())
    }

    fn forget(&self, owner: NodeId) {
        self.keys().remove(&owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key beside a word that only those of the cluster know: nothing for use.
    #[derive(Debug)]
    struct Word(NodeId, &'static [u8]);

    impl Vouch for Word {
        fn voucher(&self, key: SignerKey) -> Option<Bytes> {
            Some([&key.to_bytes()[..], &self.0.to_bytes(), self.1].concat().into())
        }

        fn key_of(&self, node: NodeId, voucher: &[u8]) -> Option<SignerKey> {
            let (key, rest) = voucher.split_first_chunk()?;
            (rest == [&node.to_bytes()[..], self.1].concat()).then_some(SignerKey::from_bytes(*key))
        }
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn signing(cluster: u8, number: u8) -> Signing {
        let word = Arc::new(Word(node(number), b"word"));
        Signing::new(ClusterId::from_bytes([cluster; 16]), Signer::from_seed(&[number; 32]), word)
    }

    fn signature(of: &Signing, statement: &[u8]) -> Vec<u8> {
        of.sign(&[statement.to_vec()])[0].as_bytes().to_vec()
    }

    fn introduce(here: &Signing, of: NodeId, shown: &Signing) -> Result<(), Disbelief> {
        here.introduce(of, &shown.voucher().unwrap(), b"voucher", &signature(shown, b"voucher"))
    }

    #[test]
    fn a_node_is_believed_once_it_was_introduced_and_until_it_is_forgotten() {
        let (here, there) = (signing(5, 1), signing(5, 2));
        let signed = signature(&there, b"said");
        assert_eq!(here.verify(node(2), b"said", &signed), Err(Disbelief::Unvouched));
        assert_eq!(introduce(&here, node(2), &there), Ok(()));
        assert_eq!((here.verify(node(2), b"said", &signed), here.vouched()), (Ok(()), vec![node(2)]));
        assert_eq!(here.verify(node(2), b"else", &signed), Err(Disbelief::Forged));
        assert_eq!(here.verify(node(2), b"said", b""), Err(Disbelief::Unsigned));
        here.forget(node(2));
        assert_eq!(here.verify(node(2), b"said", &signed), Err(Disbelief::Unvouched));
    }

    #[test]
    fn nobody_is_introduced_by_another_nor_by_what_it_cannot_sign_for_nor_from_another_cluster() {
        let (here, liar, victim) = (signing(5, 1), signing(5, 2), signing(5, 3));
        assert_eq!(introduce(&here, node(3), &liar), Err(Disbelief::Forged));
        let copied = here.introduce(node(3), &victim.voucher().unwrap(), b"voucher", &signature(&liar, b"voucher"));
        assert_eq!(copied, Err(Disbelief::Forged));
        assert_eq!(introduce(&here, node(3), &signing(6, 3)), Err(Disbelief::Forged));
        assert_eq!(here.vouched(), []);
        assert_eq!(introduce(&here, node(3), &victim), Ok(()));
        assert_eq!(here.verify(node(3), b"lie", &signature(&liar, b"lie")), Err(Disbelief::Forged));
    }

    #[test]
    fn while_a_cluster_is_brought_to_sign_only_those_are_believed_unsigned_that_have_not_begun() {
        let (here, there) = (signing(5, 1).taking_unsigned(), signing(5, 2));
        assert_eq!(here.verify(node(2), b"said", b""), Ok(()));
        assert_eq!(here.verify(node(2), b"said", &signature(&there, b"said")), Err(Disbelief::Unvouched));
        assert_eq!(introduce(&here, node(2), &there), Ok(()));
        assert_eq!(here.verify(node(2), b"said", b""), Err(Disbelief::Unsigned));
    }

    #[test]
    fn no_signature_is_longer_than_is_foretold() {
        let statements: Vec<Vec<u8>> = (0..Signer::MOST).map(|number| vec![number as u8]).collect();
        let signing = signing(5, 1);
        let longest = signing.sign(&statements).iter().map(|signature| signature.as_bytes().len()).max();
        assert_eq!(longest, Some(signing.longest()));
    }
}
