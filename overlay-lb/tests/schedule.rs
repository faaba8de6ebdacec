//! What the schedulers promise.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use overlay_core::EndpointId;
use overlay_core::testing::Dice;
use overlay_lb::{Clue, Maglev, Schedule, Scheduler, SmoothWeighted, TableSize, Weight};
use proptest::collection::vec;
use proptest::prelude::*;

fn id(seed: u64, number: u32) -> EndpointId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..12].copy_from_slice(&number.to_be_bytes());
    EndpointId::from_bytes(bytes)
}

fn equal(seed: u64, count: u32) -> Vec<(EndpointId, Weight)> {
    (0..count).map(|number| (id(seed, number), Weight::ONE)).collect()
}

fn counts(slots: &[u16], replicas: usize) -> Vec<usize> {
    let mut counts = vec![0; replicas];
    slots.iter().for_each(|at| counts[usize::from(*at)] += 1);
    counts
}

/// The share of slots that lead elsewhere once the replica at `gone` has gone.
fn moved(size: TableSize, replicas: &[(EndpointId, Weight)], gone: usize) -> f64 {
    let before = Maglev::new(size, replicas).unwrap();
    let mut rest = replicas.to_vec();
    rest.remove(gone);
    let after = Maglev::new(size, &rest).unwrap();
    let at = |slot: &u16| usize::from(*slot);
    let moved = before.slots().iter().zip(after.slots()).filter(|(a, b)| replicas[at(a)].0 != rest[at(b)].0).count();
    moved as f64 / f64::from(size.get())
}

/// What one that goes moves besides its own share: half a percent to one of all slots on average, and seldom several.
#[test]
fn one_that_goes_moves_little_more_than_its_own_on_average_and_never_much() {
    for counts in [2..=50, 51..=250, 251..=655] {
        let mut dice = Dice::new([*counts.start() as u8; 32]);
        let besides: Vec<f64> = (0..48)
            .map(|_| {
                let count = counts.start() + dice.below(counts.clone().count()) as u32;
                let replicas = equal(dice.below(usize::MAX) as u64, count);
                moved(TableSize::DEFAULT, &replicas, dice.below(count as usize)) - 1.0 / f64::from(count)
            })
            .collect();
        let mean = besides.iter().sum::<f64>() / besides.len() as f64;
        assert!(mean <= 0.011, "{mean} of {counts:?}");
        assert!(besides.iter().all(|it| (-0.001..=0.1).contains(it)), "{besides:?} of {counts:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8 + 1, ..ProptestConfig::default() })]

    /// The paper's rule: M > 100 N.
    #[test]
    fn maglevs_shares_differ_by_less_than_one_percent(seed: u64, count in 1_u32..=655) {
        let replicas = equal(seed, count);
        let table = Maglev::new(TableSize::DEFAULT, &replicas).unwrap();
        let even = 65_537.0 / f64::from(count);
        for share in counts(table.slots(), replicas.len()) {
            prop_assert!((share as f64 / even - 1.0).abs() <= 0.01, "{share} of {even}");
        }
    }

    #[test]
    fn maglev_gives_by_weight(seed: u64, weights in vec(1_u16..=20, 1..60)) {
        let replicas: Vec<_> = (0..).zip(&weights).map(|(at, w)| (id(seed, at), Weight::new(*w).unwrap())).collect();
        let table = Maglev::new(TableSize::DEFAULT, &replicas).unwrap();
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        for (count, weight) in counts(table.slots(), replicas.len()).into_iter().zip(&weights) {
            let due = 65_537.0 * f64::from(*weight) / total;
            prop_assert!((count as f64 - due).abs() <= 1.0 + due / 100.0, "{count}, {due} are due");
        }
    }

    #[test]
    fn smooth_weights_are_met_in_every_round_and_nobody_is_far_ahead(weights in vec(1_u16..=30, 1..20)) {
        let mut schedule = SmoothWeighted::new(weights.iter().map(|it| Weight::new(*it).unwrap()));
        let total: u32 = weights.iter().copied().map(u32::from).sum();
        let mut had = vec![0_u32; weights.len()];
        for pick in 1..=2 * total {
            had[schedule.pick().unwrap()] += 1;
            for (had, weight) in had.iter().zip(&weights) {
                let due = f64::from(pick) * f64::from(*weight) / f64::from(total);
                prop_assert!((f64::from(*had) - due).abs() <= weights.len() as f64, "{had} of {due}");
            }
            if pick % total == 0 {
                prop_assert!(had.iter().zip(&weights).all(|(had, weight)| *had == pick / total * u32::from(*weight)));
            }
        }
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_picked(
        replicas in vec((0_u32..50, 1_u16..9), 1..20), picks in 1_usize..40, weighted: bool,
    ) {
        let scheduler = if weighted { Scheduler::WeightedLeastConnection } else { Scheduler::LeastConnection };
        let of: Vec<_> = (0..).zip(&replicas).map(|(at, it)| (id(0, at), Weight::new(it.1).unwrap())).collect();
        let mut flows: Vec<u32> = replicas.iter().map(|it| it.0).collect();
        let mut schedule = Schedule::new(scheduler, &of, TableSize::SMALL).unwrap();
        for _ in 0..picks {
            let weight = |at: usize| if weighted { f64::from(of[at].1.get()) } else { 1.0 };
            let load = |at: usize| f64::from(flows[at] + 1) / weight(at);
            let pick = schedule.pick(Clue::default(), |at| flows[at]).unwrap();
            prop_assert!((0..of.len()).all(|other| load(pick) <= load(other) + 1e-9));
            flows[pick] += 1;
        }
    }

    #[test]
    fn what_hashes_goes_by_the_packet_alone(seed: u64, count in 1_u32..40, source: u64, flows in vec(any::<u64>(), 1..20)) {
        let replicas = equal(seed, count);
        let mut by_source = Schedule::new(Scheduler::SourceHash, &replicas, TableSize::SMALL).unwrap();
        let mut by_flow = Schedule::new(Scheduler::Maglev, &replicas, TableSize::SMALL).unwrap();
        let first = by_source.pick(Clue { source, flow: 0 }, |_| 0);
        for flow in flows {
            prop_assert_eq!(by_source.pick(Clue { source, flow }, |_| 0), first);
            let a = by_flow.pick(Clue { source, flow }, |_| 0);
            prop_assert_eq!(a, by_flow.pick(Clue { source: !source, flow }, |_| 9));
        }
    }
}

/// The paper's own example sizes, with the worst of several draws (§5.3: tables of 65,537 and 655,373, up to 1,000 backends).
#[test]
fn a_large_table_is_even_among_a_thousand() {
    let replicas = equal(1, 1000);
    let table = Maglev::new(TableSize::LARGE, &replicas).unwrap();
    let counts = counts(table.slots(), 1000);
    assert!(counts.iter().all(|it| (655..=656).contains(it)), "{:?}", (counts.iter().min(), counts.iter().max()));
    assert!(moved(TableSize::LARGE, &replicas, 500) <= 0.011);
}

#[test]
fn the_one_that_comes_back_has_its_slots_again() {
    let replicas = equal(7, 20);
    let table = Maglev::new(TableSize::DEFAULT, &replicas).unwrap();
    assert_eq!(Maglev::new(TableSize::DEFAULT, &replicas).unwrap(), table);
    assert_eq!(table.pick(0), Some(usize::from(table.slots()[0])));
    assert_eq!(table.pick(u64::MAX), table.slots().last().map(|at| usize::from(*at)));
}

#[test]
fn nobody_is_picked_among_none() {
    for scheduler in Scheduler::ALL {
        let mut schedule = Schedule::new(scheduler, &[], TableSize::SMALL).unwrap();
        assert_eq!(schedule.pick(Clue::default(), |_| 0), None, "{scheduler}");
    }
}

#[test]
fn round_robin_gives_everybody_one_in_turn_whatever_they_weigh() {
    let replicas = [(id(0, 0), Weight::new(9).unwrap()), (id(0, 1), Weight::ONE), (id(0, 2), Weight::ONE)];
    let mut schedule = Schedule::new(Scheduler::RoundRobin, &replicas, TableSize::SMALL).unwrap();
    let picks: Vec<_> = (0..6).filter_map(|_| schedule.pick(Clue::default(), |_| 0)).collect();
    assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_table_has_a_prime_number_of_slots_and_room_for_all() {
    for bad in [0, 1, 2, 250, 256, 65_536, 655_374, u32::MAX] {
        assert!(TableSize::new(bad).is_err(), "{bad}");
    }
    assert_eq!(TableSize::new(65_537), Ok(TableSize::DEFAULT));
    assert_eq!(TableSize::new(251).unwrap().get(), 251);
    let error = Maglev::new(TableSize::new(251).unwrap(), &equal(0, 252)).unwrap_err();
    assert_eq!(error.to_string(), "252 replicas, of which the table holds 251 at most");
}
