//! News: fresh changes, told in rounds and along with other datagrams.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_core::{Instant, NetworkId, NodeId};

use crate::tables::wire::{Change, Fresh, Group, Message};
use crate::tables::{EntryId, Tables};

impl Tables {
    /// Fills a datagram to another node with fresh changes, as one body of up to `budget` bytes, appended to `out`. Nothing, if
    /// there is nothing to tell.
    pub(crate) fn fill(&mut self, to: NodeId, budget: usize, out: &mut Vec<u8>, now: Instant) {
        self.sign_made(now);
        if self.fresh.is_empty() || budget < Change::lonely_len(16) {
            return;
        }
        if let Some(fresh) = self.news_for(to, budget, 1).pop() {
            Message::Fresh(fresh).encode(out);
        }
    }

    /// Has a change told, if it fits news; comparison comes for it in any case.
    pub(super) fn tell(&mut self, id: EntryId, relayed: bool, len: usize, now: Instant) {
        let (network, bytes) = (id.0, Change::lonely_len(len));
        self.fresh.remove(&id);
        let small = bytes <= self.config.datagram && self.fresh.push(id, relayed, bytes, self.config.fresh_bytes);
        if small {
            let soon = self.chance.within(FIRST_ROUND);
            self.round_due = Some(self.round_due.unwrap_or(now + soon));
        } else {
            self.counts.fresh_overflow += 1;
        }
        self.hurry(network, !small, now);
    }

    pub(super) fn tell_due(&mut self, now: Instant) {
        if self.round_due.is_none_or(|due| due > now) {
            return;
        }
        let networks: Vec<NetworkId> = self.fresh.networks().collect();
        let mut targets = BTreeSet::new();
        for network in networks {
            targets.extend(self.choose(network, self.config.fanout));
            if self.members.subscribers(network).is_empty() {
                self.fresh.forget(network, None); // comparison will tell whoever comes
            }
        }
        for to in targets {
            for fresh in self.news_for(to, self.config.datagram, self.config.round_datagrams) {
                self.outbox.push(to, &Message::Fresh(fresh), self.config.datagram);
            }
        }
        let pause = self.chance.around(self.config.gossip_interval);
        self.round_due = (!self.fresh.is_empty()).then_some(now + pause);
    }

    /// What to tell a node, in up to `most` messages of up to `budget` bytes; counted as told.
    fn news_for(&mut self, to: NodeId, budget: usize, most: usize) -> Vec<Fresh> {
        let mut messages = vec![Builder::default()];
        let (mut told, mut gone) = (Vec::new(), Vec::new());
        for id in self.fresh.iter() {
            let (network, owner, table, key) = id;
            if !self.members.subscribes(to, *network) {
                continue;
            }
            if *owner == to {
                told.push(id.clone()); // knows it; counted, since there may be nobody else
                continue;
            }
            let chain = self.replicas.get(network).and_then(|replica| replica.chain(*owner));
            let Some((chain, change)) = chain.and_then(|chain| Some((chain, chain.change(*table, key)?))) else {
                gone.push(id.clone());
                continue;
            };
            let head = (chain.incarnation, chain.stable);
            let change = match messages.last_mut().map(|last| last.add((*network, *owner), head, change, budget)) {
                None | Some(None) => {
                    told.push(id.clone());
                    continue;
                }
                Some(Some(change)) => change,
            };
            if messages.len() == most {
                break;
            }
            let mut next = Builder::default();
            if next.add((*network, *owner), head, change, budget).is_none() {
                told.push(id.clone());
                messages.push(next);
            }
        }
        gone.iter().for_each(|id| {
            self.fresh.remove(id);
        });
        for id in &told {
            let limit = self.tellings(id.0);
            self.fresh.told(id, limit);
        }
        messages.into_iter().filter(|message| !message.groups.is_empty()).map(Builder::fresh).collect()
    }

    /// How often each node tells a change.
    fn tellings(&self, network: NetworkId) -> u32 {
        let nodes = self.members.subscribers(network).len() + 1;
        (f64::from(self.config.retransmit_factor) * ((nodes + 1) as f64).log10()).ceil() as u32
    }
}

/// How long after a silence the first round is at most: changes made in one go are told together.
const FIRST_ROUND: Duration = Duration::from_millis(10);

/// A message that grows up to a size.
#[derive(Debug, Default)]
struct Builder {
    groups: BTreeMap<(NetworkId, NodeId), Group>,
    len: usize,
}

impl Builder {
    /// Adds a change, or gives it back if it does not fit.
    fn add(
        &mut self,
        (network, owner): (NetworkId, NodeId),
        (incarnation, stable): (u64, u64),
        change: Change,
        budget: usize,
    ) -> Option<Change> {
        let empty = Group { owner, incarnation, stable, changes: Vec::new() };
        // The number of changes may grow to two bytes: a change has five at least.
        let head = if self.groups.contains_key(&(network, owner)) { 0 } else { 16 + empty.encoded_len() + 1 };
        let len = self.len.max(1) + head + change.encoded_len();
        if len > budget {
            return Some(change);
        }
        self.len = len;
        self.groups.entry((network, owner)).or_insert(empty).changes.push(change);
        None
    }

    fn fresh(self) -> Fresh {
        Fresh { groups: self.groups.into_iter().map(|((network, _), group)| (network, group)).collect() }
    }
}
