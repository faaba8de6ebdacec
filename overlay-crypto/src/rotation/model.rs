//! Nodes that rotate at once, with news that come late: what each seals with, the other opens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_core::Instant;
use overlay_core::testing::Dice;
use proptest::prelude::*;

use super::{Cause, Rotation, RotationConfig, RotationEvent, Stage};

/// An epoch of a node; later ones are greater, over restarts too.
type Epoch = u64;

/// What a node has published: the number of it, its present epoch, and the next or the previous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Published {
    start: u64,
    number: u64,
    current: Epoch,
    other: Option<Epoch>,
}

/// What is in effect at a node: by which epochs, the peer's and its own, it opens, and by which it seals to whom.
#[derive(Debug, Clone, Default)]
struct Places {
    stage: Option<Stage>,
    from: BTreeMap<usize, Published>,
    own: BTreeSet<Epoch>,
    seals: Epoch,
}

impl Places {
    fn opens(&self, (peer, theirs): (usize, Epoch), own: Epoch) -> bool {
        let knows = self.from.get(&peer).is_some_and(|known| known.current == theirs || known.other == Some(theirs));
        knows && self.own.contains(&own)
    }
}

struct Node {
    up: bool,
    rotation: Rotation,
    said: Published,
    /// The one that is made, and not yet published.
    next: Option<Epoch>,
    known: BTreeMap<usize, Published>,
    confirmed: BTreeMap<usize, (u64, u64)>,
    places: Places,
    /// What is being brought about, and whether something else is wanted since.
    round: Option<Places>,
    stale: bool,
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Rotate(usize),
    Look(usize),
    Acted {
        at: usize,
        start: u64,
    },
    /// To one start of a node: what was on its way to an earlier one is lost.
    News {
        from: usize,
        to: usize,
        start: u64,
        said: Published,
    },
    /// Who has just begun is told what is so by then.
    Asked {
        from: usize,
        to: usize,
    },
    Confirmed {
        from: usize,
        to: usize,
        word: (u64, u64),
        start: u64,
    },
    Crash(usize),
    Restart(usize),
}

struct World {
    now: Instant,
    dice: Dice,
    nodes: Vec<Node>,
    queue: BTreeMap<(Instant, u64), Happening>,
    numbered: u64,
    epochs: u64,
    ended: u64,
    left_behind: u64,
    checked: u64,
}

const CONFIG: RotationConfig = RotationConfig {
    interval: Duration::from_secs(20),
    limit: Duration::from_secs(30),
    rest: Duration::from_secs(2), // no packet is on its way in this model: it is what is in effect that counts
    usage: super::Usage { bytes: 300_000_000_000, packets: 200_000_000 },
};

impl World {
    fn new(seed: [u8; 32], nodes: usize) -> Self {
        let mut world = Self {
            now: Instant::ZERO,
            dice: Dice::new(seed),
            nodes: Vec::new(),
            queue: BTreeMap::new(),
            numbered: 0,
            epochs: 0,
            ended: 0,
            left_behind: 0,
            checked: 0,
        };
        for at in 0..nodes {
            let node = world.node(1);
            world.nodes.push(node);
            world.plan(Duration::ZERO, Happening::Look(at));
        }
        (0..nodes).for_each(|at| world.begin(at));
        world
    }

    fn node(&mut self, start: u64) -> Node {
        self.epochs += 1;
        let said = Published { start, number: 0, current: self.epochs, other: None };
        let rotation = Rotation::new(CONFIG, self.dice.seed(), self.now).unwrap();
        Node {
            up: true,
            rotation,
            said,
            next: None,
            known: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            places: Places::default(),
            round: None,
            stale: false,
        }
    }

    fn plan(&mut self, after: Duration, what: Happening) {
        self.numbered += 1;
        self.queue.insert((self.now + after, self.numbered), what);
    }

    /// Mostly soon, now and then late.
    fn delay(&mut self) -> Duration {
        let most = if self.dice.one_in(10) { 3000 } else { 200 };
        Duration::from_millis(1 + self.dice.below(most) as u64)
    }

    fn begin(&mut self, at: usize) {
        self.publish(at);
        for peer in 0..self.nodes.len() {
            if peer != at && self.nodes[peer].up {
                let delay = self.delay();
                self.plan(delay, Happening::Asked { from: peer, to: at });
            }
        }
        self.act(at);
    }

    fn publish(&mut self, at: usize) {
        self.nodes[at].said.number += 1;
        let said = self.nodes[at].said;
        for to in (0..self.nodes.len()).filter(|to| *to != at) {
            let delay = self.delay();
            let start = self.nodes[to].said.start;
            self.plan(delay, Happening::News { from: at, to, start, said });
        }
    }

    /// Brings about what is wanted, now or after the round that is under way.
    fn act(&mut self, at: usize) {
        let delay = self.delay();
        let node = &mut self.nodes[at];
        node.stale = true;
        if node.round.is_some() {
            return;
        }
        node.stale = false;
        let own = [Some(node.said.current), node.said.other, node.next].into_iter().flatten().collect();
        let (stage, from, seals) = (Some(node.rotation.stage()), node.known.clone(), node.said.current);
        node.round = Some(Places { stage, from, own, seals });
        let start = node.said.start;
        self.plan(delay, Happening::Acted { at, start });
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Rotate(at) if self.nodes[at].up => {
                let before = self.nodes[at].rotation.stage();
                self.nodes[at].rotation.rotate(Cause::Demand, self.now);
                self.follow(at, before);
            }
            Happening::Look(at) if self.nodes[at].up => {
                let before = self.nodes[at].rotation.stage();
                self.nodes[at].rotation.handle_timeout(self.now);
                self.follow(at, before);
                let next = self.nodes[at].rotation.poll_timeout();
                let after = next.map_or(Duration::from_millis(500), |next| next - self.now);
                self.plan(after.clamp(Duration::from_millis(1), Duration::from_millis(500)), Happening::Look(at));
            }
            Happening::Acted { at, start } if self.nodes[at].up && self.nodes[at].said.start == start => self.acted(at),
            Happening::Asked { from, to } if self.nodes[from].up && self.nodes[to].up => {
                let said = self.nodes[from].said;
                self.hear(from, to, said);
            }
            Happening::News { from, to, start, said } if self.nodes[to].up && self.nodes[to].said.start == start => {
                self.hear(from, to, said);
            }
            Happening::Confirmed { from, to, word, start }
                if self.nodes[to].up && self.nodes[to].said.start == word.0 =>
            {
                let is_new = self.nodes[to].confirmed.get(&from).is_none_or(|old| *old < (start, word.1));
                if is_new {
                    self.nodes[to].confirmed.insert(from, (start, word.1));
                }
                self.count(to);
            }
            Happening::Crash(at) => self.nodes[at].up = false,
            Happening::Restart(at) if !self.nodes[at].up => {
                let start = self.nodes[at].said.start + 1;
                self.nodes[at] = self.node(start);
                self.begin(at);
                self.plan(Duration::ZERO, Happening::Look(at));
            }
            _ => {}
        }
    }

    fn acted(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(places) = node.round.take() else { return };
        node.places = places;
        let (stage, start) = (node.rotation.stage(), node.said.start);
        let heard: Vec<_> = node.places.from.iter().map(|(peer, said)| (*peer, (said.start, said.number))).collect();
        let held =
            node.places.stage == Some(stage) && node.places.own.contains(&node.next.unwrap_or(node.said.current));
        if held {
            if let (Stage::Installing, Some(next)) = (stage, node.next.take()) {
                node.said.other = Some(next);
                self.publish(at);
            }
            self.nodes[at].rotation.handle_held(stage, self.now);
        }
        self.follow(at, stage);
        for (to, word) in heard {
            let delay = self.delay();
            self.plan(delay, Happening::Confirmed { from: at, to, word, start });
        }
        self.count(at);
        if self.nodes[at].stale {
            self.act(at);
        }
    }

    fn hear(&mut self, from: usize, to: usize, said: Published) {
        let known = &mut self.nodes[to].known;
        if known.get(&from).is_none_or(|old| (old.start, old.number) < (said.start, said.number)) {
            known.insert(from, said);
            self.act(to);
        }
    }

    /// Whether all that are there have confirmed.
    fn count(&mut self, at: usize) {
        let node = &self.nodes[at];
        let stage = node.rotation.stage();
        if node.next.is_some() || stage == Stage::Steady {
            return;
        }
        let all = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(peer, other)| *peer != at && other.up)
            .all(|(peer, other)| node.confirmed.get(&peer) == Some(&(other.said.start, node.said.number)));
        if all {
            self.nodes[at].rotation.handle_confirmed(stage, self.now);
            self.follow(at, stage);
        }
    }

    /// Does what follows from another stage.
    fn follow(&mut self, at: usize, before: Stage) {
        while let Some(event) = self.nodes[at].rotation.poll_event() {
            self.ended += u64::from(event == RotationEvent::Ended);
            self.left_behind += u64::from(matches!(event, RotationEvent::LeftBehind(_)));
            if let RotationEvent::Began(_) = event {
                self.epochs += 1;
                self.nodes[at].next = Some(self.epochs);
            }
            if event == RotationEvent::Ended {
                self.nodes[at].said.other = None;
                self.publish(at);
            }
        }
        let node = &mut self.nodes[at];
        let stage = node.rotation.stage();
        if stage == before {
            return;
        }
        if let (Stage::Promoted, Some(next)) = (stage, node.said.other) {
            node.said.other = Some(std::mem::replace(&mut node.said.current, next));
            self.publish(at);
        }
        self.act(at);
    }

    /// What each seals for each other with, the other opens, if they have heard of each other's present start.
    fn check(&mut self) {
        for (a, sender) in self.nodes.iter().enumerate() {
            for (b, receiver) in self.nodes.iter().enumerate() {
                let (Some(of_b), Some(of_a)) = (sender.places.from.get(&b), receiver.places.from.get(&a)) else {
                    continue;
                };
                let both =
                    sender.up && receiver.up && of_b.start == receiver.said.start && of_a.start == sender.said.start;
                if a == b || !both {
                    continue;
                }
                let opens = receiver.places.opens((a, sender.places.seals), of_b.current);
                let (seals, opened) = ((sender.places.seals, of_b.current), &receiver.places);
                assert!(opens, "{:?}: {a} seals for {b} with {seals:?}, which opens {opened:?}", self.now);
                self.checked += 1;
            }
        }
    }

    fn run(&mut self, until: Duration) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= Instant::ZERO + until) {
            self.now = entry.key().0;
            let what = entry.remove();
            self.happen(what);
            self.check();
        }
    }
}

/// Each crash is followed by a restart with another epoch: until both have heard of it, that pair has nothing, and nobody promises it.
fn chaos(seed: [u8; 32], crashes: usize) -> World {
    let mut world = World::new(seed, 4);
    for _ in 0..20 {
        let (at, after) = (world.dice.below(4), world.dice.below(60_000));
        world.plan(Duration::from_millis(after as u64), Happening::Rotate(at));
    }
    for _ in 0..crashes {
        let (at, after, down) = (world.dice.below(4), world.dice.below(60_000), world.dice.below(10_000));
        world.plan(Duration::from_millis(after as u64), Happening::Crash(at));
        world.plan(Duration::from_millis((after + down) as u64), Happening::Restart(at));
    }
    world.run(Duration::from_secs(120));
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whoever_rotates_and_whatever_comes_late_each_opens_what_the_others_seal(seed: [u8; 32]) {
        let world = chaos(seed, 0);
        prop_assert!(world.ended > 12 && world.checked > 10_000, "{} rotations, {} checks", world.ended, world.checked);
        prop_assert_eq!(world.left_behind, 0);
    }

    #[test]
    fn so_it_is_when_nodes_crash_in_any_stage_and_come_back(seed: [u8; 32]) {
        let world = chaos(seed, 8);
        prop_assert!(world.ended > 4 && world.checked > 5_000, "{} rotations, {} checks", world.ended, world.checked);
    }
}
