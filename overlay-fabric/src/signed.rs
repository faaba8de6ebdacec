//! What nodes sign by gossip, and what one that was taken over says.

use std::sync::Arc;

use bytes::Bytes;
use overlay_core::{ClusterId, NodeId};
use overlay_crypto::Chance;
use overlay_crypto::gossip::{Keyring, Purpose, Signer, SignerKey, Verifier};
use overlay_gossip::testing::{Forgery, Machine as _, Net};
use overlay_gossip::{Class, EntryKey};
use overlay_node::{Signing, Vouch};

use crate::Cluster;
use crate::station::Station;

/// A simulation's root: whose key signs the nodes'. Nothing of it is by chance, as certificates are.
#[derive(Debug)]
struct Root {
    root: SignerKey,
    voucher: Bytes,
    verifier: Arc<Verifier>,
}

const CONTEXT: &[u8] = b"overlay-fabric voucher 1";

fn statement(node: NodeId, key: SignerKey) -> Vec<u8> {
    [&node.to_bytes()[..], &key.to_bytes()].concat()
}

impl Vouch for Root {
    fn voucher(&self, _: SignerKey) -> Option<Bytes> {
        Some(self.voucher.clone())
    }

    fn key_of(&self, node: NodeId, voucher: &[u8]) -> Option<SignerKey> {
        let (key, signature) = voucher.split_first_chunk()?;
        let key = SignerKey::from_bytes(*key);
        let verified = self.verifier.verify(&self.root, CONTEXT, &statement(node, key), signature);
        verified.ok().map(|()| key)
    }
}

impl Cluster {
    /// What remembers which signatures are true, for all nodes: that follows from their bytes, so it makes a run shorter and no other.
    pub(crate) fn shared_verifier() -> Arc<Verifier> {
        Arc::new(Verifier::remembering(1 << 16))
    }

    /// How a node signs in its present life.
    pub(crate) fn signing(&self, number: usize) -> Option<Signing> {
        let node = self.nodes.get(number)?;
        let (root, signer) = (self.signer_of(None), self.signer_of(Some(number)));
        let signature = root.sign(CONTEXT, &[statement(node.id, signer.key())]).pop()?;
        let voucher = [&signer.key().to_bytes()[..], &signature].concat().into();
        let verifier = Arc::clone(&self.verifier);
        let vouch = Root { root: root.key(), voucher, verifier: Arc::clone(&verifier) };
        Some(Signing::new(self.cluster_id(), signer, Arc::new(vouch)).verifying_by(verifier))
    }

    fn cluster_id(&self) -> ClusterId {
        let mut bytes = [0x51; 16];
        bytes[..8].copy_from_slice(&self.seed.to_be_bytes());
        ClusterId::from_bytes(bytes)
    }

    /// The key of a node's life, or the root's.
    fn signer_of(&self, number: Option<usize>) -> Signer {
        let life = number.and_then(|number| Some((number as u64 + 1, self.nodes.get(number)?.incarnation)));
        let (number, incarnation) = life.unwrap_or_default();
        let mut seed = [0x51; 32];
        let numbers = [self.seed, number, incarnation].map(u64::to_be_bytes);
        seed.iter_mut().zip(numbers.as_flattened()).for_each(|(to, from)| *to = *from);
        Signer::from_seed(&seed)
    }

    /// Signs a forgery with the key of the node that tells it, which is all that one that was taken over has.
    pub fn sign_as(&self, liar: usize, forgery: &mut Forgery) {
        let signed = self.signer_of(Some(liar)).sign(&self.cluster_id().to_bytes(), &[forgery.statement()]).pop();
        forgery.signature = signed.unwrap_or_default().into();
    }

    /// A node that was taken over tells another this, in whosever name, sealed as its gossip is. Nothing happens where one of them is down.
    pub fn lie(&mut self, liar: usize, to: usize, forgery: &Forgery) {
        let (Some(from), seed) = (self.node_id(liar), self.dice.seed()) else { return };
        let Some(agent) = self.agent(liar) else { return };
        let mut payload = Vec::from(forgery.news(from));
        if let Some(keys) = agent.gossip_keys()
            && let Some(key) = keys.get(keys.primary().id)
        {
            // As another start of it would: so no nonce comes twice.
            let mut keyring = Keyring::new(key.clone(), &mut Chance::new(seed));
            if keyring.seal(Purpose::Datagram, &mut payload).is_err() {
                return;
            }
        }
        let at = Net::<Station>::address(liar);
        self.net.with(to, |station, now| station.handle(at, Class::Datagram, &payload, now));
    }

    /// A node that was taken over says this in its own name, as it says the rest; whether it could.
    pub fn say(&mut self, liar: usize, at: EntryKey, value: impl Into<Bytes>) -> bool {
        let value = value.into();
        self.net.with(liar, |station, now| station.agent.say(at, value, now)).unwrap_or(false)
    }
}
