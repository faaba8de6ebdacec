//! Certificates while everything goes wrong: no node that lives and is reached in time is ever without one that all others believe.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod identity_world;

use std::time::Duration;

use identity_world::{Counts, World};
use overlay_gossip::testing::seeds;

/// Seeds of a plain run. `.ci/run full` asks for more.
const SEEDS: u64 = 40;
/// Of the cluster's time: six lives of a certificate.
const CHAOS: Duration = Duration::from_secs(36 * 3600);
const CALM: Duration = Duration::from_secs(8 * 3600);

#[test]
fn no_node_is_left_without_a_certificate_that_all_believe_whatever_becomes_of_leaders_roots_roles_and_clocks() {
    let mut all = Counts::default();
    for seed in seeds(SEEDS) {
        let mut world = World::new(seed);
        world.run(CHAOS, true);
        world.run(CALM, false);
        world.check_at_rest();
        all.add(&world.counts);
    }
    println!("{all:?}");
    let happened = [
        ("renewals", all.renewals),
        ("rescues", all.rescues),
        ("roles changed", all.roles),
        ("removals", all.removals),
        ("refused after removal", all.refused),
        ("roots begun", all.begun),
        ("roots let go", all.roots),
        ("changes taken back", all.aborted),
        ("leaders lost", all.leaders),
        ("leaders that were deposed and asked all the same", all.deposed),
        ("requests or answers lost", all.lost),
        ("clocks that jumped", all.jumps),
        ("nodes cut off for longer than a certificate counts", all.outages),
        ("keys given to managers", all.given),
        ("pairs that believed each other", all.pairs),
    ];
    for (what, count) in happened {
        assert!(count > 0, "there were no {what}: {all:?}");
    }
}
