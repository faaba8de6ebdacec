//! Clusters to which everything happens that can, as a seed says, and what holds of them all the same.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod storm;

use std::time::Duration;

use overlay_fabric::Checked;
use overlay_gossip::testing::seeds;

use storm::{Seen, Storm};

/// Seeds of a plain run. `.ci/run full` asks for more.
const SEEDS: u64 = 40;

impl Seen {
    fn plus(mut self, other: Self) -> Self {
        self.checked = self.checked.plus(other.checked);
        self.chaos.iter_mut().zip(other.chaos).for_each(|(count, more)| *count += more);
        self
    }
}

fn run(seed: u64, seen: &mut Seen) {
    let mut storm = Storm::of(seed, |dice| 3 + dice.below(4));
    for _ in 0..60 {
        storm.strike(seen);
        let span = Duration::from_millis(storm.dice.below(1_000) as u64);
        storm.pass(span);
    }
    storm.calm();
    seen.checked = seen.checked.plus(storm.settled());
    storm.remove_all();
    let after = storm.settled();
    assert_eq!((after.endpoints, after.places), (0, 0), "seed {seed}: something is left");
    let left = storm.cluster.networks().unwrap();
    let left: Vec<_> = left.iter().filter(|network| !network.spec.is_predefined()).collect();
    assert!(matches!(left[..], [ingress] if ingress.spec.ingress), "seed {seed}: more than ingress is left: {left:?}");
    storm.tally(seen);
}

#[test]
fn whatever_happens_a_cluster_comes_to_be_as_it_should_and_was_never_open_where_it_should_not() {
    let part = |of: u64| {
        let mut seen = Seen::default();
        seeds(SEEDS).filter(|seed| seed % 2 == of).for_each(|seed| run(seed, &mut seen));
        seen
    };
    let (even, odd) = std::thread::scope(|scope| {
        let even = scope.spawn(|| part(0));
        (part(1), even.join().unwrap())
    });
    let seen = even.plus(odd);
    println!("{seen:?}");
    let Checked { endpoints, places, peers, entries, answered, refused } = seen.checked;
    let counts = [endpoints, places, peers, entries, answered, refused].map(|count| count as u64);
    assert!(counts.iter().chain(&seen.chaos).all(|count| *count > 0), "something never happened: {seen:?}");
}
