//! What a node says by gossip is signed, by a key that its certificate vouches for.

use std::sync::Arc;

use bytes::Bytes;
use overlay_core::NodeId;
use overlay_crypto::gossip::{Signer, SignerKey};
use overlay_crypto::pki::Voucher;
use overlay_node::{Agent, Signing, Vouch};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::StartError;
use crate::chance::fill;
use crate::control::Credentials;
use crate::heart::News;

/// What of gossip a node did not take, since it was said in somebody's name who has not signed it: 0 but while nodes start, unless somebody lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedStatus {
    /// Entries that somebody else signed than their owner, or that were altered, or are of another network or start; so of what members say of themselves, and of
    /// certificates that do not count.
    pub forged: u64,
    /// Entries, and words of members on themselves, that are not signed.
    pub unsigned: u64,
    /// Entries of nodes that have shown no certificate yet.
    pub unvouched: u64,
    /// What came with forged ones, or after too many, and was left to be told by others.
    pub unverified: u64,
}

impl Vouch for Credentials {
    fn voucher(&self, key: SignerKey) -> Option<Bytes> {
        self.vouched(key)
    }

    fn key_of(&self, node: NodeId, voucher: &[u8]) -> Option<SignerKey> {
        self.believes(node, &Voucher::parse(voucher).ok()?)
    }
}

/// How a start of a node signs.
pub(crate) fn signing(credentials: &Credentials) -> Result<Signing, StartError> {
    let mut seed = Zeroizing::new([0; 32]);
    fill(seed.as_mut_slice()).map_err(StartError::Seed)?;
    let signer = Signer::from_seed(&seed);
    Ok(Signing::new(credentials.identity().cluster, signer, Arc::new(credentials.clone())))
}

/// Has the node show its next certificate whenever it has one.
pub(crate) async fn show(credentials: Credentials, news: mpsc::UnboundedSender<News>) {
    let mut shown = credentials.shown();
    while shown.changed().await.is_ok() {
        if news.send(News::Certificate).is_err() {
            return;
        }
    }
}

/// What was refused; `None` where gossip is not signed.
pub(crate) fn status(agent: &Agent) -> Option<SignedStatus> {
    let metrics = agent.metrics().gossip;
    let (members, entries) = (metrics.membership, metrics.tables.refused);
    agent.gossip().is_signed().then_some(SignedStatus {
        forged: members.forged + members.forged_leaves + entries.signature,
        unsigned: members.unsigned + entries.unsigned,
        unvouched: entries.unvouched,
        unverified: members.unverified + entries.unverified,
    })
}

/// What nodes say of endpoints that they were not given, in words; the first of them.
pub(crate) fn contested(agent: &Agent) -> Vec<String> {
    let told = agent.contested().take(CONTESTED);
    told.map(|(network, endpoint, node, why)| {
        format!(
            "node {} says that it has endpoint {} on network {}: {why}",
            node.short(),
            endpoint.short(),
            network.short()
        )
    })
    .collect()
}

/// So many are told.
const CONTESTED: usize = 64;
