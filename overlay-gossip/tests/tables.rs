//! Tables through all kinds of misfortune, whole machines with membership beneath: once it is over, everybody has what each
//! owner has, and nothing else; and the watermark never said more than was true.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use overlay_core::testing::Dice;
use overlay_core::{NetworkId, NodeId};
use overlay_gossip::testing::{Conditions, Net, TestKeys, seeds};
use overlay_gossip::{Config, EntryKey, Event, Gossip, Key, Sequence, Standing, TableEvent, TableId, TablesConfig};

const NETWORKS: [NetworkId; 2] = [NetworkId::from_bytes([8; 16]), NetworkId::from_bytes([9; 16])];
const TABLE: TableId = TableId(3);

/// What the runs have met, all together.
#[derive(Debug, Default)]
struct Met {
    puts: u64,
    removes: u64,
    large: u64,
    restarts: u64,
    partitions: u64,
    subscriptions: u64,
    hidden: u64,
    restored: u64,
    watermarks: u64,
    confirmed: u64,
    mismatches: u64,
    collected: u64,
    refused: u64,
}

/// What an owner has, by network and key: the truth that all have to come to.
type Truth = BTreeMap<(NetworkId, Key), Bytes>;

/// Owner, its incarnation, network and key.
type Changed = (usize, u64, NetworkId, Key);

struct Run {
    net: Net<Gossip>,
    config: Config,
    /// Whether all is signed: with every other seed.
    signed: bool,
    dice: Dice,
    incarnations: Vec<u64>,
    truth: Vec<Truth>,
    /// Of each owner's start, network and key: the number of the last change, and the value it left.
    changes: BTreeMap<Changed, (Sequence, Option<Bytes>)>,
    /// Who has subscribed to a network anew and may not have all of an owner's changes yet, which the owner may not know yet.
    behind: BTreeSet<(usize, usize, NetworkId)>,
    value: u64,
}

/// The settings of one start of a node.
fn of_start(config: &Config, signed: bool, (node, incarnation): (usize, u64)) -> Config {
    if signed { TestKeys::of_start(config, node, incarnation) } else { config.clone() }
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut dice = Dice::new(bytes);
        let conditions = Conditions {
            loss: dice.below(20) as f64 / 100.0,
            duplication: dice.below(10) as f64 / 100.0,
            reordering: dice.below(20) as f64 / 100.0,
            ..Conditions::lan()
        };
        let tables = TablesConfig { tombstone_cap: Duration::from_secs(600), ..TablesConfig::default() };
        let config = Config { seal_overhead: 29, tables, ..Config::lan() };
        let mut net = Net::new(conditions, seed);
        let size = 3 + dice.below(5);
        let signed = seed % 2 == 1;
        for node in 0..size {
            net.add_gossip(&of_start(&config, signed, (node, 1)));
            subscribe_all(&mut net, node);
        }
        net.join_all();
        let truth = vec![Truth::new(); size];
        Self {
            net,
            config,
            signed,
            dice,
            incarnations: vec![1; size],
            truth,
            changes: BTreeMap::new(),
            behind: BTreeSet::new(),
            value: 0,
        }
    }

    fn misfortunes(&mut self, met: &mut Met) {
        for _ in 0..40 {
            let node = self.dice.below(self.net.len());
            match self.dice.below(16) {
                0 => {
                    self.restart(node);
                    met.restarts += 1;
                }
                1 => {
                    let cut = (0..self.net.len()).filter(|_| self.dice.one_in(3)).collect::<Vec<_>>();
                    self.net.isolate(cut);
                    met.partitions += 1;
                }
                2 | 3 => self.net.heal(),
                4 => self.net.pause(node, Duration::from_millis(self.dice.below(9_000) as u64)),
                5 => {
                    self.resubscribe(node);
                    met.subscriptions += 1;
                }
                6..=8 => self.remove(node, met),
                _ => self.put(node, met),
            }
            let span = Duration::from_millis(self.dice.below(3_000) as u64);
            self.run_for(span, met);
        }
    }

    /// A node forgets everything: what it had is nobody's any more.
    fn restart(&mut self, node: usize) {
        self.net.crash(node);
        self.incarnations[node] += 1;
        self.truth[node].clear();
        let seeds: Vec<usize> = (0..self.net.len()).filter(|other| *other != node).collect();
        let config = of_start(&self.config, self.signed, (node, self.incarnations[node]));
        self.net.restart_gossip(node, &config, self.incarnations[node], &seeds);
        subscribe_all(&mut self.net, node);
    }

    /// Leaves a network and comes back, without its entries.
    fn resubscribe(&mut self, node: usize) {
        let network = NETWORKS[self.dice.below(2)];
        self.net.with(node, |gossip, now| gossip.unsubscribe(network, now));
        self.truth[node].retain(|(of, _), _| *of != network);
        self.changes.retain(|(of, _, other, _), _| (*of, *other) != (node, network));
        let span = Duration::from_millis(self.dice.below(2_000) as u64);
        self.net.run_for(span);
        self.behind.extend((0..self.net.len()).map(|owner| (node, owner, network)));
        self.net.with(node, |gossip, now| gossip.subscribe(network, now)).unwrap().unwrap();
    }

    fn put(&mut self, node: usize, met: &mut Met) {
        let burst = if self.dice.one_in(4) { 200 } else { 3 };
        for _ in 0..=self.dice.below(burst) {
            let at = self.at();
            let len = if self.dice.one_in(100) { 30_000 + self.dice.below(35_000) } else { self.dice.below(100) };
            met.large += u64::from(len > 1_400);
            self.value += 1;
            let value: Bytes = [&self.value.to_be_bytes()[..], &vec![7; len]].concat().into();
            let sequence =
                self.net.with(node, |gossip, now| gossip.put(at.clone(), value.clone(), now)).unwrap().unwrap();
            self.truth[node].insert((at.network, at.key.clone()), value.clone());
            self.note(node, at, sequence, Some(value));
            met.puts += 1;
        }
    }

    fn remove(&mut self, node: usize, met: &mut Met) {
        for _ in 0..=self.dice.below(20) {
            let at = self.at();
            let removed = self.net.with(node, |gossip, now| gossip.remove(at.clone(), now)).unwrap().unwrap();
            let was = self.truth[node].remove(&(at.network, at.key.clone()));
            assert_eq!(removed.is_some(), was.is_some(), "{:?}", self.net);
            if let Some(sequence) = removed {
                self.note(node, at, sequence, None);
                met.removes += 1;
            }
        }
    }

    fn note(&mut self, node: usize, at: EntryKey, sequence: Sequence, value: Option<Bytes>) {
        self.changes.insert((node, self.incarnations[node], at.network, at.key), (sequence, value));
    }

    fn at(&mut self) -> EntryKey {
        let network = NETWORKS[self.dice.below(2)];
        EntryKey { network, table: TABLE, key: Key::new(vec![self.dice.below(50) as u8; 3]).unwrap() }
    }

    fn run_for(&mut self, span: Duration, met: &mut Met) {
        let mut rest = span;
        while !rest.is_zero() {
            let step = rest.min(Duration::from_millis(500));
            self.net.run_for(step);
            rest -= step;
            self.catch_up();
            self.assert_watermarks(met);
        }
    }

    fn catch_up(&mut self) {
        let behind = std::mem::take(&mut self.behind);
        let lacks = |(node, owner, network): &(usize, usize, NetworkId)| {
            let of = |at: &Changed| at.0 == *owner && at.2 == *network;
            self.changes.iter().filter(|(at, _)| of(at)).any(|((.., key), (_, value))| {
                let at = EntryKey { network: *network, table: TABLE, key: key.clone() };
                let Some(gossip) = self.net.machine(*node) else { return true };
                gossip.get(Net::<Gossip>::node_id(*owner), &at) != value.as_ref()
            })
        };
        self.behind = behind.into_iter().filter(lacks).collect();
    }

    /// What the watermark says is confirmed is there, at everybody whom the owner takes for a live subscriber.
    fn assert_watermarks(&self, met: &mut Met) {
        for ((owner, incarnation, network, key), (sequence, value)) in &self.changes {
            let current = self.incarnations[*owner] == *incarnation;
            let Some(gossip) = self.net.machine(*owner).filter(|_| current) else { continue };
            if gossip.watermark(*network).is_none_or(|mark| mark < *sequence) {
                continue;
            }
            let id = gossip.me().id;
            let at = EntryKey { network: *network, table: TABLE, key: key.clone() };
            for subscriber in gossip.subscribers(*network) {
                let node = (0..self.net.len()).find(|node| Net::<Gossip>::node_id(*node) == *subscriber).unwrap();
                let other = self.net.machine(node).unwrap();
                let knows = gossip.member(*subscriber).is_some_and(|(m, _)| m.incarnation == self.incarnations[node]);
                let sees = other.member(id).is_some_and(|(m, standing)| {
                    m.incarnation == *incarnation && matches!(standing, Standing::Alive | Standing::Suspected)
                });
                let behind = self.behind.contains(&(node, *owner, *network));
                if knows && sees && !behind && other.subscribers(*network).contains(&id) {
                    assert_eq!(
                        other.get(id, &at),
                        value.as_ref(),
                        "{node} lacks what {owner} has for confirmed, {:?}",
                        self.net
                    );
                    met.confirmed += 1;
                }
            }
        }
    }

    /// How the views differ from the truth; none if all is well.
    fn difference(&self) -> Option<String> {
        for node in 0..self.net.len() {
            let gossip = self.net.machine(node).unwrap();
            let mut seen = vec![Truth::new(); self.net.len()];
            for network in NETWORKS {
                for (owner, key, value, _) in gossip.entries(network, TABLE) {
                    let owner = (0..self.net.len()).find(|node| Net::<Gossip>::node_id(*node) == owner).unwrap();
                    seen[owner].insert((network, key.clone()), value.clone());
                }
            }
            for (owner, (seen, truth)) in seen.iter().zip(&self.truth).enumerate() {
                if seen != truth {
                    return Some(format!("{node} has {} entries of {owner}'s {}", seen.len(), truth.len()));
                }
            }
        }
        None
    }

    /// Whether everybody's watermark is at its last change.
    fn is_confirmed(&self) -> bool {
        self.net.running().all(|node| self.net.machine(node).unwrap().metrics().tables.watermark_lag == 0)
    }
}

fn subscribe_all(net: &mut Net<Gossip>, node: usize) {
    for network in NETWORKS {
        net.with(node, |gossip, now| gossip.subscribe(network, now)).unwrap().unwrap();
    }
}

#[test]
fn everybody_has_what_each_owner_has_once_misfortune_is_over() {
    let mut met = Met::default();
    for seed in seeds(40) {
        let mut run = Run::new(seed);
        run.misfortunes(&mut met);
        run.net.heal();
        let mut waited = 0;
        while run.difference().is_some() || !run.is_confirmed() {
            let lags: Vec<_> =
                run.net.running().map(|n| run.net.machine(n).unwrap().metrics().tables.watermark_lag).collect();
            assert!(waited < 120, "{:?}: 2 minutes after: {:?}, lags {lags:?}", run.net, run.difference());
            run.run_for(Duration::from_secs(1), &mut met);
            waited += 1;
        }
        run.run_for(Duration::from_secs(20), &mut met);
        assert_eq!(run.difference(), None, "{:?}", run.net);
        for node in 0..run.net.len() {
            let metrics = run.net.machine(node).unwrap().metrics();
            let tables = metrics.tables;
            assert_eq!((metrics.transmits, metrics.events, tables.transmits, tables.events), (0, 0, 0, 0));
            assert_eq!((tables.fresh, tables.pulls), (0, 0), "{:?}", run.net);
            assert!(tables.entries <= (50 * 2 + 2) * run.net.len(), "{tables:?}, {:?}", run.net);
            assert!(run.net.sent(node).longest_datagram <= run.config.datagram_budget - 29, "{:?}", run.net);
            met.mismatches += tables.mismatches;
            met.collected += tables.collected;
            met.refused += tables.refused.past_incarnation + tables.refused.own_name + tables.refused.stranger;
        }
        for (_, _, event) in run.net.take_events() {
            met.hidden += u64::from(matches!(event, Event::Table(TableEvent::Hidden { .. })));
            met.restored += u64::from(matches!(event, Event::Table(TableEvent::Restored { .. })));
            met.watermarks += u64::from(matches!(event, Event::Table(TableEvent::Watermark { .. })));
        }
    }
    let Met { puts, removes, large, restarts, partitions, subscriptions, hidden, restored, watermarks, .. } = met;
    for count in [puts, removes, large, restarts, partitions, subscriptions, hidden, restored, watermarks] {
        assert!(count > 0, "{met:?}");
    }
    assert!(met.confirmed > 0 && met.mismatches > 0 && met.collected > 0 && met.refused > 0, "{met:?}");
}

#[test]
fn an_entry_of_a_failed_node_is_hidden_and_back_without_a_transfer() {
    let config = Config::lan();
    let mut net: Net<Gossip> = Net::new(Conditions::lan(), 7);
    for node in 0..4 {
        net.add_gossip(&config);
        subscribe_all(&mut net, node);
    }
    net.join_all();
    let at = EntryKey { network: NETWORKS[0], table: TABLE, key: Key::new("a").unwrap() };
    let owner: NodeId = Net::<Gossip>::node_id(3);
    let value = Bytes::from(vec![7; 20_000]);
    net.run_for(Duration::from_secs(2));
    net.with(3, |gossip, now| gossip.put(at.clone(), value.clone(), now)).unwrap().unwrap();
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.machine(0).unwrap().get(owner, &at), Some(&value));

    net.isolate([3]);
    net.run_for(Duration::from_secs(30));
    assert_eq!(net.machine(0).unwrap().member(owner).unwrap().1, Standing::Suspended);
    assert_eq!(net.machine(0).unwrap().get(owner, &at), None);

    let received = |net: &Net<Gossip>| net.machine(0).unwrap().metrics().received.stream_bytes;
    let before = received(&net);
    net.heal();
    net.run_for(Duration::from_secs(3));
    assert_eq!(net.machine(0).unwrap().get(owner, &at), Some(&value));
    assert!(received(&net) - before < 10_000, "the entry was not sent again");
}

#[test]
fn over_a_wide_area_answers_are_waited_for() {
    let latency = Duration::from_millis(190)..Duration::from_millis(200);
    let mut net: Net<Gossip> = Net::new(Conditions { latency, loss: 0.1, ..Conditions::wan() }, 7);
    for node in 0..4 {
        net.add_gossip(&Config::wan());
        subscribe_all(&mut net, node);
    }
    net.join_all();
    assert!(net.run_until(Duration::from_secs(60), Net::is_complete).is_some(), "{net:?}");
    for number in 0..1_000_u16 {
        let key = Key::new(number.to_be_bytes().to_vec()).unwrap();
        let at = EntryKey { network: NETWORKS[0], table: TABLE, key };
        net.with(0, |gossip, now| gossip.put(at, vec![7; 1_000].into(), now)).unwrap().unwrap();
    }
    let has_all = |gossip: &Gossip| gossip.entries(NETWORKS[0], TABLE).count() == 1_000;
    let all = |net: &Net<Gossip>| net.running().all(|node| net.machine(node).is_some_and(has_all));
    assert!(net.run_until(Duration::from_secs(60), all).is_some(), "{net:?}");
    let lost: u64 = net.running().map(|node| net.machine(node).unwrap().metrics().tables.pulls_lost).sum();
    assert_eq!(lost, 0, "answers that came too late");
}
