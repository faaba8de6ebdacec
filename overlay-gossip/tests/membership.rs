//! Membership through all kinds of misfortune: whatever happened, once it is over everybody knows exactly who is there.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use overlay_core::NodeId;
use overlay_core::testing::Dice;
use overlay_gossip::testing::{Conditions, Net, TestKeys, seeds};
use overlay_gossip::{Config, Event, Gossip, Metadata, Protocol, Standing};

/// What the runs have met, all together: a suite in which nothing happens proves nothing.
#[derive(Debug, Default)]
struct Met {
    crashes: u64,
    restarts: u64,
    partitions: u64,
    pauses: u64,
    leaves: u64,
    suspicions: u64,
    refutations: u64,
    suspensions: u64,
    returns: u64,
    syncs: u64,
    mismatches: u64,
    late: u64,
    proofs_asked: u64,
    forged: u64,
}

/// One run: a cluster, what was done to it, and what has been seen of it.
struct Run {
    net: Net<Gossip>,
    config: Config,
    /// Whether members sign what they say of themselves.
    signed: bool,
    dice: Dice,
    incarnations: Vec<u64>,
    left: Vec<bool>,
    /// The greatest incarnation that each node has seen of each.
    seen: BTreeMap<(usize, NodeId), u64>,
}

/// The settings of one start of a node.
fn of_start(config: &Config, signed: bool, (node, incarnation): (usize, u64)) -> Config {
    if signed { TestKeys::of_start(config, node, incarnation) } else { config.clone() }
}

impl Run {
    fn new(config: Config, signed: bool, seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut dice = Dice::new(bytes);
        let conditions = Conditions {
            loss: dice.below(20) as f64 / 100.0,
            duplication: dice.below(10) as f64 / 100.0,
            reordering: dice.below(20) as f64 / 100.0,
            ..Conditions::lan()
        };
        let mut net = Net::new(conditions, seed);
        let size = 4 + dice.below(9);
        for node in 0..size {
            net.add_gossip(&of_start(&config, signed, (node, 1)));
        }
        net.join_all();
        Self { net, config, signed, dice, incarnations: vec![1; size], left: vec![false; size], seen: BTreeMap::new() }
    }

    fn misfortunes(&mut self, met: &mut Met) {
        for _ in 0..12 {
            let node = self.dice.below(self.net.len());
            match self.dice.below(7) {
                0 => met.crashes += u64::from(self.net.crash(node).is_some()),
                1 | 2 => self.restart(node, met),
                3 => {
                    let half = (0..self.net.len()).filter(|_| self.dice.one_in(3)).collect::<Vec<_>>();
                    self.net.isolate(half);
                    met.partitions += 1;
                }
                4 => self.net.heal(),
                5 => {
                    self.net.pause(node, Duration::from_millis(self.dice.below(9_000) as u64));
                    met.pauses += 1;
                }
                _ if node > 2 && self.net.machine(node).is_some() => {
                    self.net.with(node, |gossip, now| gossip.leave(now));
                    self.left[node] = true;
                    met.leaves += 1;
                }
                _ => {}
            }
            let span = Duration::from_millis(self.dice.below(8_000) as u64);
            self.run_for(span);
        }
    }

    fn restart(&mut self, node: usize, met: &mut Met) {
        self.count(node, met);
        self.net.crash(node);
        self.incarnations[node] += 1;
        self.left[node] = false;
        self.seen.retain(|(observer, _), _| *observer != node); // it remembers nothing
        let seeds: Vec<usize> = (0..self.net.len()).filter(|_| self.dice.one_in(2)).chain([0, 1]).collect();
        let config = of_start(&self.config, self.signed, (node, self.incarnations[node]));
        self.net.restart_gossip(node, &config, self.incarnations[node], &seeds);
        met.restarts += 1;
    }

    /// Lets time pass, and looks every second whether anybody goes back to an earlier start of a node.
    fn run_for(&mut self, span: Duration) {
        let mut rest = span;
        while !rest.is_zero() {
            let step = rest.min(Duration::from_secs(1));
            self.net.run_for(step);
            rest -= step;
            let machines = (0..self.net.len()).filter_map(|node| Some((node, self.net.machine(node)?)));
            for (node, gossip) in machines {
                for (member, _) in gossip.members() {
                    let seen = self.seen.entry((node, member.id)).or_default();
                    assert!(member.incarnation >= *seen, "{node} went back on {}, {:?}", member.id, self.net);
                    *seen = member.incarnation;
                }
            }
        }
    }

    /// Everything is well again: whoever is still crashed starts anew.
    fn recover(&mut self, met: &mut Met) {
        self.net.heal();
        self.net.conditions = Conditions { loss: self.net.conditions.loss.min(0.1), ..self.net.conditions.clone() };
        for node in 0..self.net.len() {
            if self.net.machine(node).is_none() && !self.left[node] {
                self.restart(node, met);
            }
        }
    }

    fn there(&self) -> Vec<usize> {
        self.net.running().filter(|node| !self.left[*node]).collect()
    }

    fn agrees(&self) -> bool {
        let there = self.there();
        let ids: Vec<NodeId> = there.iter().map(|node| Net::<Gossip>::node_id(*node)).collect();
        there.iter().all(|node| {
            let gossip = self.net.machine(*node).unwrap();
            let of = |standings: &[Standing]| {
                let members = gossip.members().filter(|(_, standing)| standings.contains(standing));
                members.map(|(member, _)| member.id).collect::<Vec<_>>()
            };
            let mut expected: Vec<NodeId> = ids.iter().copied().filter(|id| *id != gossip.me().id).collect();
            expected.sort();
            of(&[Standing::Alive, Standing::Suspected]) == expected
        })
    }

    fn count(&self, node: usize, met: &mut Met) {
        let Some(gossip) = self.net.machine(node) else { return };
        let metrics = gossip.metrics().membership;
        met.suspicions += metrics.suspicions;
        met.refutations += metrics.refutations;
        met.syncs += metrics.syncs;
        met.mismatches += metrics.digest_mismatches;
        met.late += metrics.late;
        met.proofs_asked += metrics.proofs_asked;
        met.forged += metrics.forged + metrics.unsigned + metrics.unverified;
    }

    /// What nobody may need much of once all is quiet.
    fn assert_bounded(&self) {
        for node in self.there() {
            let metrics = self.net.machine(node).unwrap().metrics();
            let membership = metrics.membership;
            let members = membership.alive + membership.suspected + membership.suspended + membership.left;
            assert!(members < self.net.len(), "{node} knows {members} others, {:?}", self.net);
            assert!(membership.news <= self.net.len(), "{node}: {membership:?}, {:?}", self.net);
            assert!(membership.claims <= self.net.len(), "{node}: {membership:?}, {:?}", self.net);
            assert_eq!((metrics.transmits, metrics.events), (0, 0));
            assert!(self.net.sent(node).longest_datagram <= self.config.datagram_budget, "{:?}", self.net);
        }
    }
}

fn everybody_finds_everybody(protocol: Protocol, signed: bool, runs: Range<u64>) -> Met {
    let mut met = Met::default();
    for seed in runs {
        let config = Config { membership: protocol, ..Config::lan() };
        let mut run = Run::new(config, signed, seed);
        run.misfortunes(&mut met);
        run.recover(&mut met);
        let mut waited = 0;
        while !run.agrees() {
            assert!(waited < 120, "{:?}: no agreement 2 minutes after all was well, {}", run.net, views(&run));
            run.run_for(Duration::from_secs(1));
            waited += 1;
        }
        run.run_for(Duration::from_secs(20));
        run.assert_bounded();
        for (_, _, event) in run.net.take_events() {
            met.suspensions += u64::from(matches!(event, Event::Suspended(_)));
            met.returns += u64::from(matches!(event, Event::Up(_)));
        }
        (0..run.net.len()).for_each(|node| run.count(node, &mut met));
    }
    met
}

fn views(run: &Run) -> String {
    let view = |node: usize| {
        let gossip = run.net.machine(node).unwrap();
        let number = |id| (0..run.net.len()).find(|node| Net::<Gossip>::node_id(*node) == id);
        let others: Vec<_> = gossip.members().map(|(member, standing)| (number(member.id), standing)).collect();
        format!("\n{node}: {others:?}")
    };
    run.there().into_iter().map(view).collect()
}

#[test]
fn everybody_knows_exactly_who_is_there_once_misfortune_is_over() {
    let met = everybody_finds_everybody(Protocol::Swim, false, seeds(40));
    let Met { crashes, restarts, partitions, pauses, leaves, suspicions, refutations, suspensions, returns, .. } = met;
    for count in [crashes, restarts, partitions, pauses, leaves, suspicions, refutations, suspensions, returns] {
        assert!(count > 0, "{met:?}");
    }
    assert!(met.syncs > 0 && met.mismatches > 0 && met.late > 0, "{met:?}");
}

#[test]
fn where_members_sign_everybody_knows_exactly_who_is_there_too() {
    let met = everybody_finds_everybody(Protocol::Swim, true, seeds(40));
    let Met { crashes, restarts, partitions, leaves, suspensions, returns, proofs_asked, forged, .. } = met;
    for count in [crashes, restarts, partitions, leaves, suspensions, returns, proofs_asked] {
        assert!(count > 0, "{met:?}");
    }
    assert_eq!(forged, 0, "{met:?}");
}

#[test]
fn with_foca_everybody_knows_exactly_who_is_there_too() {
    let met = everybody_finds_everybody(Protocol::Foca, false, 0..seeds(10).end.min(200));
    assert!(met.crashes > 0 && met.partitions > 0 && met.leaves > 0 && met.suspensions > 0 && met.syncs > 0, "{met:?}");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let bytes = |signed, seed| {
        let mut run = Run::new(Config::lan(), signed, seed);
        run.misfortunes(&mut Met::default());
        (0..run.net.len())
            .map(|node| (run.net.sent(node).bytes, run.net.machine(node).map(Gossip::metrics)))
            .collect::<Vec<_>>()
    };
    for signed in [false, true] {
        assert_eq!(bytes(signed, 7), bytes(signed, 7));
        assert_ne!(bytes(signed, 7), bytes(signed, 8));
    }
}

#[test]
fn all_restart_at_once_and_find_each_other_at_their_last_addresses() {
    for protocol in [Protocol::Swim, Protocol::Foca] {
        let config = Config { membership: protocol, ..Config::lan() };
        let mut net: Net<Gossip> = Net::new(Conditions { loss: 0.1, ..Conditions::lan() }, 7);
        for _ in 0..6 {
            net.add_gossip(&config);
        }
        net.join_all();
        assert!(net.run_until(Duration::from_secs(60), Net::is_complete).is_some(), "{net:?}");
        let peers: Vec<usize> = (0..6).collect();
        for node in &peers {
            net.crash(*node);
        }
        for node in &peers {
            net.restart_gossip(*node, &config, 2, &peers);
        }
        assert!(net.run_until(Duration::from_secs(60), Net::is_complete).is_some(), "{protocol:?} {net:?}");
        for node in net.running() {
            assert!(net.machine(node).unwrap().members().all(|(member, _)| member.incarnation == 2), "{protocol:?}");
        }
    }
}

#[test]
fn a_list_that_is_full_refuses_newcomers_and_counts_them() {
    let config = Config { member_limit: 5, ..Config::lan() };
    let mut net: Net<Gossip> = Net::new(Conditions::lan(), 7);
    for _ in 0..9 {
        net.add_gossip(&config);
    }
    net.join_all();
    net.run_for(Duration::from_secs(20));
    let metrics: Vec<_> = net.running().map(|node| net.machine(node).unwrap().metrics().membership).collect();
    assert!(metrics.iter().all(|metrics| metrics.alive + metrics.suspected + metrics.suspended + metrics.left <= 4));
    assert!(metrics.iter().any(|metrics| metrics.refused_full > 0));
}

#[test]
fn who_leaves_stays_gone_whatever_it_still_has_to_tell_of_itself() {
    for protocol in [Protocol::Swim, Protocol::Foca] {
        let config = Config { membership: protocol, ..Config::lan() };
        let mut net: Net<Gossip> = Net::new(Conditions::lan(), 7);
        for _ in 0..4 {
            net.add_gossip(&config);
        }
        net.join_all();
        assert!(net.run_until(Duration::from_secs(60), Net::is_complete).is_some(), "{net:?}");
        net.with(3, |gossip, now| gossip.leave(now));
        net.run_for(Duration::from_millis(50));
        net.with(3, |gossip, now| gossip.set_metadata(Metadata::new("late").unwrap(), now));
        net.run_for(Duration::from_secs(30));
        for node in 0..3 {
            let standing = net.machine(node).unwrap().member(Net::<Gossip>::node_id(3)).unwrap().1;
            assert_eq!(standing, Standing::Left, "{protocol:?} {node} {net:?}");
        }
    }
}

#[test]
fn a_newcomer_asks_one_of_its_seeds_for_everything_although_all_answer() {
    let mut net: Net<Gossip> = Net::new(Conditions::lan(), 7);
    for _ in 0..12 {
        net.add_gossip(&Config::lan());
    }
    net.join_all();
    net.run_for(Duration::from_secs(10));
    let replies =
        |net: &Net<Gossip>| (0..12).map(|node| net.machine(node).unwrap().metrics().sent.syncs.messages).sum::<u64>();
    let before = replies(&net);
    let newcomer = net.add_gossip(&Config::lan());
    let seeds: Vec<_> = (0..12).map(Net::<Gossip>::address).collect();
    net.with(newcomer, |gossip, now| gossip.join(&seeds, now));
    net.run_for(Duration::from_millis(300));
    assert_eq!(net.machine(newcomer).unwrap().live(), 12);
    assert_eq!(replies(&net) - before, 1, "{net:?}");
}
