//! The records of keys that nodes publish, on each encrypted network that they are on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use overlay_core::{Instant, NetworkId, NodeId};
use overlay_crypto::EpochRecords;
use overlay_gossip::{EntryKey, Gossip, Key, Sequence, TableId};

use super::super::Agent;
use crate::Place;

/// The table of a network's keys: one entry of each node that has an endpoint there and can encrypt.
pub(in super::super) const KEYS: TableId = TableId(2);

/// What others have published, and what this node has told them.
#[derive(Debug, Default)]
pub(in super::super) struct Offers {
    heard: BTreeMap<NetworkId, BTreeMap<NodeId, EpochRecords>>,
    told: BTreeMap<NetworkId, (EpochRecords, Sequence)>,
    /// Nodes that say their hosts do not hold what follows from what others publish.
    failing: BTreeMap<NetworkId, BTreeSet<NodeId>>,
    /// Where this node says so.
    told_failing: BTreeSet<NetworkId>,
}

impl Offers {
    /// Whether a node has published keys that are known here. O(networks).
    pub(in super::super) fn has_heard(&self, node: NodeId) -> bool {
        self.heard.values().any(|all| all.contains_key(&node))
    }

    /// The nodes that have not confirmed what was told last, or say that they could not act upon it.
    fn behind(&self, gossip: &Gossip) -> BTreeSet<NodeId> {
        let unconfirmed = self.told.iter().flat_map(|(network, (_, sequence))| gossip.behind(*network, *sequence));
        let failing = self.told.keys().filter_map(|network| self.failing.get(network)).flatten().copied();
        unconfirmed.chain(failing).collect()
    }

    /// A network is not followed any more: its entries are gone.
    fn forget(&mut self, network: NetworkId) {
        self.heard.remove(&network);
        self.told.remove(&network);
        self.failing.remove(&network);
        self.told_failing.remove(&network);
    }

    /// The latest of each of these nodes.
    fn latest(&self, of: &BTreeSet<NodeId>) -> BTreeMap<NodeId, EpochRecords> {
        let mut latest = BTreeMap::<NodeId, EpochRecords>::new();
        for (node, records) in self.heard.values().flatten().filter(|(node, _)| of.contains(node)) {
            let all = latest.entry(*node).or_insert(*records);
            // Of two networks one may be heard of later; what rotates has more to tell than what has not begun.
            if (all.current.epoch, all.next()) < (records.current.epoch, records.next()) {
                *all = *records;
            }
        }
        latest
    }
}

/// Whether it is a key that means something: what a node says under another is nothing.
fn is_key(key: &Key) -> bool {
    [RECORDS, FAILING].contains(&key.as_bytes())
}

/// Under this is what a node publishes of its keys.
const RECORDS: &[u8] = &[0];
/// There is something under this while its host does not hold what it should: what others publish is confirmed then, and not acted upon.
const FAILING: &[u8] = &[1];

fn entry(network: NetworkId, key: &[u8]) -> Option<EntryKey> {
    Some(EntryKey { network, table: KEYS, key: Key::new(key.to_vec()).ok()? })
}

impl Agent {
    /// A node says something on a network, or does no more.
    pub(in super::super) fn hear_offer(
        &mut self,
        network: NetworkId,
        owner: NodeId,
        (key, value): (&Key, Option<&[u8]>),
    ) {
        match key.as_bytes() {
            RECORDS => self.hear_records(network, owner, value),
            FAILING => self.hear_failing(network, owner, value.is_some()),
            _ => self.counts.malformed += 1,
        }
    }

    fn hear_failing(&mut self, network: NetworkId, owner: NodeId, fails: bool) {
        let all = self.offers.failing.entry(network).or_default();
        self.doubt_keys |= if fails { all.insert(owner) } else { all.remove(&owner) };
    }

    /// Nothing counts any more that a node said on a network.
    pub(in super::super) fn drop_offers(&mut self, network: NetworkId, owner: NodeId) {
        self.hear_records(network, owner, None);
        self.hear_failing(network, owner, false);
    }

    /// A node has published its keys on a network, or does no more. What cannot be read counts as not said.
    fn hear_records(&mut self, network: NetworkId, owner: NodeId, value: Option<&[u8]>) {
        if !self.knowledge.networks.contains_key(&network) {
            return;
        }
        let records = value.and_then(|value| EpochRecords::parse(value).ok());
        self.counts.malformed += u64::from(value.is_some() && records.is_none());
        let heard = self.offers.heard.entry(network).or_default();
        let _ = match records {
            Some(records) => heard.insert(owner, records),
            None => heard.remove(&owner),
        };
        self.doubt_records = true;
    }

    /// Reads all that is published on a network anew, or what one node has.
    pub(in super::super) fn read_records(&mut self, network: NetworkId, of: Option<NodeId>) {
        match of {
            None => {
                self.offers.heard.remove(&network);
                self.offers.failing.remove(&network);
            }
            Some(owner) => self.drop_offers(network, owner),
        }
        let me = self.knowledge.me;
        let entries = self.gossip.entries(network, KEYS);
        let entries =
            entries.filter(|(owner, key, ..)| *owner != me && of.is_none_or(|of| of == *owner) && is_key(key));
        let entries: Vec<_> = entries.map(|(owner, key, value, _)| (owner, key.clone(), value.clone())).collect();
        for (owner, key, value) in entries {
            self.hear_offer(network, owner, (&key, Some(&value)));
        }
        self.doubt_records = true;
    }

    /// Makes of all that was heard what is known of each node: once, however much that was. O(nodes x networks).
    pub(in super::super) fn settle_records(&mut self) {
        if std::mem::take(&mut self.doubt_records) {
            self.put_records();
        }
    }

    fn put_records(&mut self) {
        let mut records = self.offers.latest(&self.catalogue.nodes);
        let own = self.offers.told.values().map(|(records, _)| *records).max_by_key(|records| records.current.epoch);
        records.extend(own.map(|own| (self.knowledge.me, own)));
        if *self.knowledge.records != records {
            self.knowledge.records = Arc::new(records);
            self.changed = true;
        }
    }

    /// Publishes this node's keys on the encrypted networks that an endpoint is plugged into here, and there alone. Whether all of them took it: what gossip refuses nobody confirms.
    pub(super) fn tell_records(&mut self, records: Option<EpochRecords>, now: Instant) -> bool {
        let sections = self.knowledge.networks.iter().filter(|(_, section)| section.needs_protection());
        let wanted: BTreeMap<NetworkId, EpochRecords> = sections.filter_map(|(id, _)| Some((*id, records?))).collect();
        let over: Vec<NetworkId> = self.offers.told.keys().filter(|told| !wanted.contains_key(told)).copied().collect();
        let (mut is_other, mut is_told) = (!over.is_empty(), true);
        for network in over {
            self.offers.told.remove(&network);
            if let Some(entry) = entry(network, RECORDS) {
                let _ = self.gossip.remove(entry, now); // not subscribed any more means that it is gone already
            }
        }
        for (network, records) in wanted {
            if self.offers.told.get(&network).is_some_and(|(told, _)| *told == records) {
                continue;
            }
            is_other = true;
            let put = entry(network, RECORDS).map(|entry| self.gossip.put(entry, records.encode().into(), now));
            match put {
                Some(Ok(sequence)) => drop(self.offers.told.insert(network, (records, sequence))),
                _ => {
                    self.counts.unfollowed += 1;
                    is_told = false;
                }
            }
        }
        if is_other {
            self.put_records();
        }
        is_told
    }

    /// Says on each network that keys are published on whether the host fails, so that nobody takes for acted upon what is confirmed for it.
    pub(super) fn tell_failing(&mut self, now: Instant) {
        let fails = self.reports.fails(&Place::Host);
        let wanted: BTreeSet<NetworkId> = self.offers.told.keys().filter(|_| fails).copied().collect();
        for network in &wanted ^ &self.offers.told_failing {
            let Some(entry) = entry(network, FAILING) else { continue };
            if wanted.contains(&network) {
                if self.gossip.put(entry, Bytes::from_static(&[1]), now).is_ok() {
                    self.offers.told_failing.insert(network);
                }
            } else {
                let _ = self.gossip.remove(entry, now); // as above
                self.offers.told_failing.remove(&network);
            }
        }
    }

    /// A network is not followed any more.
    pub(in super::super) fn forget_records(&mut self, network: NetworkId) {
        self.offers.forget(network);
        self.doubt_records = true;
    }

    /// The cluster's live nodes that do not act yet upon what this node has published. Who is none of the cluster's is not waited for.
    pub(super) fn behind_with_records(&self) -> BTreeSet<NodeId> {
        &self.offers.behind(&self.gossip) & &self.catalogue.nodes
    }

    /// Whether all of them do.
    pub(super) fn all_have_confirmed_records(&self) -> bool {
        self.behind_with_records().is_empty()
    }
}
