//! What nodes say of the keys of gossip, in a network that all of them are on.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use overlay_core::{Instant, NetworkId, NodeId};
use overlay_crypto::PublicKey;
use overlay_crypto::gossip::{Generation, SuccessionRecord, WrappedKey};
use overlay_gossip::{EntryKey, Key, Standing, TableEvent, TableId};

use super::turn::Others;
use crate::agent::{Agent, AgentEvent};

/// The network that every node of a cluster with sealed gossip is on: no catalogue has it.
pub(in super::super) const CLUSTER: NetworkId = NetworkId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// Its table of keys: under [`RECORD`] what a node says of its own, under the id of another what it has wrapped for that.
const SEALS: TableId = TableId(1);

const RECORD: &[u8] = &[0];

/// What this node has told there.
#[derive(Debug, Default)]
pub(in super::super) struct Told {
    record: Option<SuccessionRecord>,
    wrapped: BTreeMap<NodeId, (PublicKey, Generation)>,
}

impl Agent {
    /// Takes what is told of that network.
    pub(in super::super) fn take_seals(&mut self, event: TableEvent) {
        match event {
            TableEvent::Put { owner, table: SEALS, key, value, .. } => self.hear_of_seal(owner, &key, &value),
            TableEvent::Dropped { owner, .. } => {
                self.seal.iter_mut().for_each(|seal| drop(seal.records.remove(&owner)));
            }
            TableEvent::Restored { .. } | TableEvent::Reread { .. } => self.hear_of_seals(),
            _ => {}
        }
        self.doubt_seal();
    }

    fn hear_of_seals(&mut self) {
        let entries = self.gossip.entries(CLUSTER, SEALS);
        let entries: Vec<_> = entries.map(|(owner, key, value, _)| (owner, key.clone(), value.clone())).collect();
        entries.iter().for_each(|(owner, key, value)| self.hear_of_seal(*owner, key, value));
    }

    pub(in super::super) fn doubt_seal(&mut self) {
        self.seal.iter_mut().for_each(|seal| seal.is_doubted = true);
    }

    fn hear_of_seal(&mut self, owner: NodeId, key: &Key, value: &Bytes) {
        let me = self.knowledge.me;
        let address = self.gossip.member(owner).map(|(member, _)| member.address);
        let Some(seal) = self.seal.as_mut().filter(|_| owner != me) else { return };
        // Who is left out has no say in which key is next, although it can be heard until the old one is refused: only whether it was given that.
        let has_say = !seal.keys.without().contains(&owner);
        let is_read = if key.as_bytes() == RECORD {
            let record = SuccessionRecord::parse(value);
            record.map(|record| {
                if has_say {
                    seal.keys.hear(&record);
                }
                drop(seal.records.insert(owner, record));
                if let Some(address) = address.filter(|_| seal.can_follow(owner, seal.keys.primary().id)) {
                    seal.behind.follows(address);
                }
            })
        } else if key.as_bytes() == me.to_bytes() && has_say {
            WrappedKey::parse(value).map(|wrapped| {
                // What was wrapped for an earlier start of this node is nothing to it; who wrapped it will see.
                if let Ok(key) = seal.recipient.open(&wrapped) {
                    let _ = seal.keys.take(key, wrapped.generation());
                }
            })
        } else {
            Ok(())
        };
        self.counts.malformed += u64::from(is_read.is_err());
    }

    /// Goes on with the keys of gossip, if something is to be done.
    pub(in super::super) fn settle_seal(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let Some(mut seal) = self.seal.take_if(|seal| is_due(seal.poll_timeout())) else { return };
        (seal.is_doubted, seal.looked_at) = (false, now);
        let me = self.knowledge.me;
        let others = self.others();
        let left_out = seal.keys.without().clone();
        // What one says whom the catalogue does not tell of yet counts once it does.
        seal.records
            .retain(|node, _| self.gossip.member(*node).is_some_and(|(_, standing)| standing != Standing::Left));
        let behind = seal.turn(me, &others, now);
        let are_let_in = left_out.iter().any(|node| !seal.keys.without().contains(node));
        if !behind.is_empty() {
            self.events.push_back(AgentEvent::LeftBehind { nodes: behind });
        }
        if seal.asked.1.as_ref() != Some(&seal.keys) {
            seal.asked = (seal.asked.0 + 1, Some(seal.keys.clone()));
            self.events.push_back(AgentEvent::GossipKeys { version: seal.asked.0 });
        }
        let record = seal.kept.as_ref().map(|kept| kept.record(seal.recipient.public()));
        self.tell_record(record, now);
        let lacks = seal.lacks(me, &others);
        self.tell_wrapped(&lacks, |to, what| seal.wrap(to, what), now);
        self.seal = Some(seal);
        if are_let_in {
            self.hear_of_seals(); // what they said before
            self.doubt_seal();
        }
    }

    /// Of the nodes that gossip tells of those that are the cluster's, by its catalogue: who is none has no turn, is no part of a majority, is waited for by nobody and given no key. Until the catalogue
    /// tells of this node, all are taken for such.
    pub(super) fn others(&self) -> Others {
        let nodes = &self.catalogue.nodes;
        let is_known = nodes.contains(&self.knowledge.me);
        let mut others = Others::default();
        for (member, standing) in self.gossip.members() {
            if is_known && !nodes.contains(&member.id) {
                continue;
            }
            if matches!(standing, Standing::Alive | Standing::Suspected) {
                others.live.insert(member.id);
            }
            if standing != Standing::Left {
                others.there.insert(member.id);
            }
        }
        others
    }

    fn tell_record(&mut self, record: Option<SuccessionRecord>, now: Instant) {
        let Some(record) = record.filter(|record| self.seals_told.record.as_ref() != Some(record)) else { return };
        let _ = self.gossip.subscribe(CLUSTER, now); // nothing happens if it is
        if let Some(at) = at(RECORD)
            && self.gossip.put(at, record.encode().into(), now).is_ok()
        {
            self.seals_told.record = Some(record);
        }
    }

    fn tell_wrapped(
        &mut self,
        lacks: &BTreeMap<NodeId, (PublicKey, Generation)>,
        mut wrap: impl FnMut(NodeId, (PublicKey, Generation)) -> Option<WrappedKey>,
        now: Instant,
    ) {
        let told = &mut self.seals_told.wrapped;
        let over: BTreeSet<NodeId> = told.keys().filter(|node| !lacks.contains_key(node)).copied().collect();
        for node in over {
            told.remove(&node);
            if let Some(at) = at(&node.to_bytes()) {
                let _ = self.gossip.remove(at, now);
            }
        }
        for (node, what) in lacks {
            if told.get(node) == Some(what) {
                continue;
            }
            let Some((at, wrapped)) = at(&node.to_bytes()).zip(wrap(*node, *what)) else { continue };
            if self.gossip.put(at, Bytes::copy_from_slice(&wrapped.encode()), now).is_ok() {
                told.insert(*node, *what);
            }
        }
    }
}

fn at(key: &[u8]) -> Option<EntryKey> {
    Some(EntryKey { network: CLUSTER, table: SEALS, key: Key::new(key.to_vec()).ok()? })
}
