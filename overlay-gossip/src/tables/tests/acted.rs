//! Watermarks of those who confirm what they have acted upon.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_core::{Instant, NetworkId};

use super::pump::{Pump, STORM, key, network, node_id};
use super::runs::turn;
use crate::tables::TablesConfig;
use crate::{Heard, Sequence};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Never, as long as a test takes.
const LATE: Duration = Duration::from_secs(10_000);

fn config(act_within: Duration) -> TablesConfig {
    TablesConfig { act_within: Some(act_within), hide_after: SECOND / 2, ..TablesConfig::default() }
}

/// Whose, in which network, in which life of both and which subscription.
type Whose = (usize, NetworkId, [u64; 3]);

/// Those who use the nodes: each looks at what its node has heard, and has acted upon it some time later.
#[derive(Default)]
struct Users {
    looked: BTreeMap<usize, (Instant, u64, Heard, BTreeMap<Whose, u64>)>,
    acted: BTreeMap<usize, BTreeMap<Whose, u64>>,
}

impl Users {
    /// All that are not at it look, and will have acted within `span`.
    fn look(&mut self, pump: &mut Pump, span: Duration) {
        for node in 0..pump.nodes.len() {
            let (heard, life) = (pump.nodes[node].tables.heard(), pump.nodes[node].incarnation);
            if pump.nodes[node].up && !self.looked.contains_key(&node) {
                let seen = shown(pump, node);
                let due = pump.now + pump.chance.within(span);
                self.looked.insert(node, (due, life, heard, seen));
            }
        }
    }

    /// What is due is done.
    fn act(&mut self, pump: &mut Pump) {
        let due: Vec<usize> = self.looked.iter().filter(|(_, it)| it.0 <= pump.now).map(|(node, _)| *node).collect();
        for node in due {
            let (_, life, heard, seen) = self.looked.remove(&node).unwrap();
            if pump.nodes[node].up && pump.nodes[node].incarnation == life {
                pump.acted(node, heard);
                let acted = self.acted.entry(node).or_default();
                for (whose, through) in seen {
                    let known = acted.entry(whose).or_default();
                    *known = through.max(*known);
                }
            }
        }
    }

    /// No watermark is ahead of what somebody who counts has acted upon; how many there were to judge.
    fn check(&self, pump: &Pump) -> usize {
        let mut judged = 0;
        for at in (0..pump.nodes.len()).filter(|at| pump.nodes[*at].up) {
            for (network, mark, other) in pump.counted(at) {
                let acted = self.acted.get(&other).and_then(|acted| acted.get(&whose(pump, other, at, network)));
                let acted = acted.copied().unwrap_or(0).max(pump.base(other, at, network));
                assert!(mark.0 <= acted, "watermark {mark} of node {at}, node {other} has acted through {acted}");
                judged += usize::from(mark.0 > 0);
            }
        }
        judged
    }
}

fn whose(pump: &Pump, node: usize, owner: usize, network: NetworkId) -> Whose {
    let subscription = pump.nodes[node].tables.subscription(node_id(node), network).map_or(0, |(number, _)| number);
    (owner, network, [pump.nodes[owner].incarnation, pump.nodes[node].incarnation, subscription])
}

fn shown(pump: &Pump, node: usize) -> BTreeMap<Whose, u64> {
    let owners = || (0..pump.nodes.len()).filter(|owner| *owner != node);
    let all = [1, 2].into_iter().flat_map(|net| owners().map(move |owner| (owner, network(net))));
    all.map(|(owner, net)| (whose(pump, node, owner, net), pump.shown(node, owner, net))).collect()
}

fn behind(pump: &Pump, sequence: Sequence) -> Vec<usize> {
    let behind: Vec<_> = pump.nodes[0].tables.behind(network(1), sequence).collect();
    (0..pump.nodes.len()).filter(|node| behind.contains(&node_id(*node))).collect()
}

#[test]
fn in_any_story_no_watermark_is_ahead_of_what_was_acted_upon_and_all_come_to_their_ends() {
    let mut judged = 0;
    for seed in 0..12 {
        let mut pump = Pump::with_nodes(seed, &config(LATE), 3 + (seed % 4) as usize);
        let mut users = Users::default();
        pump.weather = STORM;
        let calm = |pump: &mut Pump| {
            pump.heal();
            (0..pump.nodes.len()).filter(|node| !pump.nodes[*node].up).collect::<Vec<_>>()
        };
        for step in 0..60 * 20 {
            if step % 20 == 0 && step < 40 * 20 {
                turn(&mut pump);
            }
            if step == 40 * 20 {
                calm(&mut pump).into_iter().for_each(|node| pump.restart(node));
            }
            users.look(&mut pump, 600 * MILLI);
            pump.run(25 * MILLI);
            judged += users.check(&pump);
            users.act(&mut pump);
        }
        for node in &pump.nodes {
            let metrics = node.tables.metrics();
            assert_eq!((metrics.watermark_lag, metrics.unacted), (0, 0), "seed {seed}");
        }
    }
    assert!(judged > 20_000, "too little happened: {judged}");
}

#[test]
fn a_watermark_follows_within_a_second_where_everybody_changes_something_all_the_time_and_acts_within_200_ms() {
    let mut pump = Pump::with_nodes(17, &config(LATE), 4);
    let (mut users, mut made) = (Users::default(), BTreeMap::new());
    pump.run(2 * SECOND);
    for step in 0..20 * 20 {
        let sequence = pump.put(step % 4, network(1), &key("k"), step.to_string());
        made.insert(step, sequence);
        for _ in 0..5 {
            users.look(&mut pump, 200 * MILLI);
            pump.run(10 * MILLI);
            users.check(&pump);
            users.act(&mut pump);
        }
        if let Some(earlier) = step.checked_sub(20) {
            let mark = pump.nodes[earlier % 4].tables.watermark(network(1)).unwrap();
            assert!(mark >= made[&earlier], "in step {step} it is at {mark}, and was to be at {}", made[&earlier]);
        }
    }
}

#[test]
fn each_change_waits_for_who_has_yet_to_act_upon_it_and_not_for_long() {
    let mut pump = Pump::with_nodes(16, &config(8 * SECOND), 3);
    pump.run(2 * SECOND);
    let first = pump.put(0, network(1), &key("web"), "1");
    pump.run(4 * SECOND); // comparisons find it equal, reminders come
    let heard = [1, 2].map(|node| pump.nodes[node].tables.heard());
    let second = pump.put(0, network(1), &key("web"), "2");
    pump.run(SECOND);
    assert!(pump.is_equal(network(1)));
    assert_eq!((behind(&pump, first), behind(&pump, second)), (vec![1, 2], vec![1, 2]));
    pump.acted(1, heard[0]);
    pump.run(SECOND);
    assert_eq!((behind(&pump, first), behind(&pump, second)), (vec![2], vec![1, 2]));
    let all = pump.nodes[1].tables.heard();
    pump.acted(1, all);
    pump.run(SECOND);
    assert_eq!((behind(&pump, first), behind(&pump, second)), (vec![2], vec![2]));
    pump.run(2 * SECOND); // nine after the first
    assert_eq!((behind(&pump, first), behind(&pump, second)), (vec![], vec![2]), "each has its own time");
    pump.run(4 * SECOND);
    assert_eq!(behind(&pump, second), []);
    assert_eq!(pump.nodes[0].tables.watermark(network(1)), Some(second));
    assert_eq!(pump.nodes[0].tables.metrics().refused.confirmation, 0);
}

#[test]
fn what_waits_of_one_owner_keeps_nobody_elses_word_back_in_no_network() {
    let mut pump = Pump::with_nodes(18, &config(LATE), 3);
    pump.run(2 * SECOND);
    (0..3).for_each(|node| pump.subscribe(node, network(2)));
    let acts = |pump: &mut Pump| {
        pump.run(SECOND);
        for node in [0, 1] {
            let heard = pump.nodes[node].tables.heard();
            pump.acted(node, heard);
        }
        pump.run(SECOND);
    };
    let waits = pump.put(0, network(1), &key("a"), "1");
    acts(&mut pump);
    // Node 2 has not acted upon that, and acts upon what comes now just as little; but it may say so of what was there before.
    assert_eq!(behind(&pump, waits), [2]);
    let through = |pump: &Pump, node: usize, net| pump.nodes[node].tables.watermark(network(net)).unwrap().0;
    assert_eq!([through(&pump, 1, 1), through(&pump, 0, 2), through(&pump, 0, 1)], [0, 0, 0]);
    let heard = pump.nodes[2].tables.heard();
    let other = pump.put(1, network(1), &key("b"), "1");
    acts(&mut pump);
    pump.acted(2, heard);
    pump.run(SECOND);
    assert_eq!((behind(&pump, waits), through(&pump, 1, 1)), (vec![], 0), "the later one of node 1 waits still");
    let heard = pump.nodes[2].tables.heard();
    pump.put(0, network(2), &key("c"), "1");
    acts(&mut pump);
    pump.acted(2, heard);
    pump.run(SECOND);
    assert_eq!((through(&pump, 1, 1), through(&pump, 0, 2)), (other.0, 0));
}

#[test]
fn who_comes_back_into_sight_is_acted_upon_anew_before_it_is_told_anything() {
    let mut pump = Pump::with_nodes(19, &config(LATE), 3);
    let everybody = |pump: &mut Pump| {
        for node in 0..3 {
            let heard = pump.nodes[node].tables.heard();
            pump.acted(node, heard);
        }
    };
    let first = pump.put(0, network(1), &key("a"), "1");
    pump.run(2 * SECOND);
    everybody(&mut pump);
    pump.run(2 * SECOND);
    assert_eq!(behind(&pump, first), []);
    pump.cut(&[0], 1);
    pump.run(5 * SECOND);
    let hidden = pump.nodes[1].tables.members.is_hidden(node_id(0));
    pump.heal();
    pump.run(2 * SECOND);
    assert!(hidden && behind(&pump, first) == [1, 2], "they have yet to show it again");
    everybody(&mut pump);
    pump.run(2 * SECOND);
    assert_eq!(behind(&pump, first), []);
}
