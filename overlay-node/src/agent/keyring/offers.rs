//! The records of keys that nodes publish, on each encrypted network that they are on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay_core::{Instant, NetworkId, NodeId};
use overlay_crypto::EpochRecords;
use overlay_gossip::{EntryKey, Gossip, Key, Sequence, TableId};

use super::super::Agent;

/// The table of a network's keys: one entry of each node that has an endpoint there and can encrypt.
pub(in super::super) const KEYS: TableId = TableId(2);

/// What others have published, and what this node has told them.
#[derive(Debug, Default)]
pub(in super::super) struct Offers {
    heard: BTreeMap<NetworkId, BTreeMap<NodeId, EpochRecords>>,
    told: BTreeMap<NetworkId, (EpochRecords, Sequence)>,
}

impl Offers {
    /// The nodes that have not confirmed what was told last.
    fn behind(&self, gossip: &Gossip) -> BTreeSet<NodeId> {
        self.told.iter().flat_map(|(network, (_, sequence))| gossip.behind(*network, *sequence)).collect()
    }

    /// A network is not followed any more: its entries are gone.
    fn forget(&mut self, network: NetworkId) {
        self.heard.remove(&network);
        self.told.remove(&network);
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

/// An entry's key there: each node has one.
fn key() -> Option<Key> {
    Key::new(KEY.to_vec()).ok()
}

/// Whether it is that: what a node says under another is nothing.
pub(in super::super) fn is_key(key: &Key) -> bool {
    key.as_bytes() == KEY
}

const KEY: &[u8] = &[0];

impl Agent {
    /// A node has published its keys on a network, or does no more. What cannot be read counts as not said.
    pub(in super::super) fn hear_records(&mut self, network: NetworkId, owner: NodeId, value: Option<&[u8]>) {
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
            None => drop(self.offers.heard.remove(&network)),
            Some(owner) => {
                self.offers.heard.entry(network).or_default().remove(&owner);
            }
        }
        let me = self.knowledge.me;
        let entries = self.gossip.entries(network, KEYS);
        let entries =
            entries.filter(|(owner, key, ..)| *owner != me && of.is_none_or(|of| of == *owner) && is_key(key));
        let entries: Vec<_> = entries.map(|(owner, _, value, _)| (owner, value.clone())).collect();
        for (owner, value) in entries {
            self.hear_records(network, owner, Some(&value));
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
        let Some(key) = key() else { return false };
        let entry = |network| EntryKey { network, table: KEYS, key: key.clone() };
        let over: Vec<NetworkId> = self.offers.told.keys().filter(|told| !wanted.contains_key(told)).copied().collect();
        let (mut is_other, mut is_told) = (!over.is_empty(), true);
        for network in over {
            self.offers.told.remove(&network);
            let _ = self.gossip.remove(entry(network), now); // not subscribed any more means that it is gone already
        }
        for (network, records) in wanted {
            if self.offers.told.get(&network).is_some_and(|(told, _)| *told == records) {
                continue;
            }
            is_other = true;
            match self.gossip.put(entry(network), records.encode().into(), now) {
                Ok(sequence) => drop(self.offers.told.insert(network, (records, sequence))),
                Err(_) => {
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
