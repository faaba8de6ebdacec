//! Signatures that cost nothing.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use overlay_core::NodeId;
use siphasher::sip::SipHasher24;

use crate::testing::Net;
use crate::{Config, Disbelief, Signature, Verify};

/// Signs by a secret of one start of a node; what it shows of itself is that very secret, sealed for one cluster. So it does all that a [`Verify`] with vouchers does, keeps nothing
/// secret, and is the same in each run.
///
/// ```
/// use overlay_gossip::testing::{Conditions, Net, TestKeys};
/// use overlay_gossip::{Config, Gossip};
///
/// let mut net: Net<Gossip> = Net::new(Conditions::lan(), 7);
/// for node in 0..3 {
///     net.add_gossip(&TestKeys::of_start(&Config::lan(), node, 1));
/// }
/// net.join_all();
/// assert!(net.run_until(std::time::Duration::from_secs(5), Net::is_complete).is_some(), "{net:?}");
/// ```
#[derive(Debug)]
pub struct TestKeys {
    me: NodeId,
    secret: u64,
    cluster: u64,
    takes_unsigned: bool,
    counts: Mutex<Counts>,
    others: Mutex<BTreeMap<NodeId, u64>>,
}

/// What was done.
#[derive(Debug, Default)]
struct Counts {
    signed: Vec<usize>,
    looks: usize,
}

impl TestKeys {
    /// Of a node, which signs with this secret, in this cluster.
    pub fn new(me: NodeId, secret: u64, cluster: u64) -> Self {
        let (counts, others) = Default::default();
        Self { me, secret, cluster, takes_unsigned: false, counts, others }
    }

    /// The settings of one start of a [`Net`]'s node, which signs by a secret of that start, in cluster 5.
    pub fn of_start(config: &Config, node: usize, incarnation: u64) -> Config {
        let mut config = config.clone();
        config.tables.verify = Some(Arc::new(Self::new(Net::node_id(node), Self::secret(node, incarnation), 5)));
        config
    }

    /// The secret of [such a start](Self::of_start).
    pub const fn secret(node: usize, incarnation: u64) -> u64 {
        ((node as u64) << 32) + incarnation
    }

    /// As that, but takes what is not signed of whoever has shown nothing.
    #[must_use]
    pub fn taking_unsigned(self) -> Self {
        Self { takes_unsigned: true, ..self }
    }

    /// What a node with this secret signs a statement with.
    pub fn signature(secret: u64, statement: &[u8]) -> Vec<u8> {
        let mut hasher = SipHasher24::new_with_keys(secret, 7);
        hasher.write(statement);
        hasher.finish().to_be_bytes().to_vec()
    }

    /// What a node shows that has this secret, in a cluster.
    pub fn shown(me: NodeId, secret: u64, cluster: u64) -> Vec<u8> {
        let sealed = [&me.to_bytes()[..], &secret.to_be_bytes()].concat();
        [&secret.to_be_bytes()[..], &Self::signature(cluster, &sealed)].concat()
    }

    /// The secret that is known here of a node.
    pub fn known(&self, node: NodeId) -> Option<u64> {
        lock(&self.others).get(&node).copied()
    }

    /// How many statements were signed at once, each time since the last call.
    pub fn take_signed(&self) -> Vec<usize> {
        std::mem::take(&mut lock(&self.counts).signed)
    }

    /// How many signatures were looked at since the last call.
    pub fn take_looks(&self) -> usize {
        std::mem::take(&mut lock(&self.counts).looks)
    }

    fn is(&self, secret: u64, statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
        lock(&self.counts).looks += 1;
        if is_same(&Self::signature(secret, statement), signature) { Ok(()) } else { Err(Disbelief::Forged) }
    }
}

impl Verify for TestKeys {
    fn sign(&self, statements: &[Vec<u8>]) -> Vec<Signature> {
        lock(&self.counts).signed.push(statements.len());
        let signatures = statements.iter().map(|statement| Self::signature(self.secret, statement));
        signatures.filter_map(|signature| Signature::new(signature).ok()).collect()
    }

    fn longest(&self) -> usize {
        8
    }

    fn verify(&self, owner: NodeId, statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
        match self.known(owner) {
            None if signature.is_empty() && self.takes_unsigned => Ok(()),
            _ if signature.is_empty() => Err(Disbelief::Unsigned),
            None => Err(Disbelief::Unvouched),
            Some(secret) => self.is(secret, statement, signature),
        }
    }

    fn voucher(&self) -> Option<Bytes> {
        Some(Self::shown(self.me, self.secret, self.cluster).into())
    }

    fn introduce(&self, owner: NodeId, voucher: &[u8], statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
        let secret = voucher.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).ok_or(Disbelief::Forged)?;
        if !is_same(voucher, &Self::shown(owner, secret, self.cluster)) {
            return Err(Disbelief::Forged);
        }
        self.is(secret, statement, signature)?;
        lock(&self.others).insert(owner, secret);
        Ok(())
    }

    fn forget(&self, owner: NodeId) {
        lock(&self.others).remove(&owner);
    }
}

/// Whether they are the same, by their hashes: a fuzzer that sees what is compared would find each signature so short.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let hashed = |bytes| TestKeys::signature(8, bytes);
    hashed(one) == hashed(other)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
