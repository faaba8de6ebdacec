use overlay_core::Phase::{Build, Close, Dismantle, Guard, Open, Unguard};
use overlay_core::testing::Dice;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn network(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 16])
}

fn container(number: usize) -> Place {
    Place::Container(format!("c{number}").parse().unwrap())
}

fn phases() -> impl Strategy<Value = BTreeSet<Phase>> {
    btree_set(select(&Phase::ALL[..]), 0..=6)
}

/// A host, up to four sandboxes and up to six containers, any of which may not be in the round.
fn rounds() -> impl Strategy<Value = BTreeMap<Place, Work>> {
    let host = proptest::option::of(phases());
    let networks = vec(proptest::option::of(phases()), 0..=4);
    let containers = vec((phases(), btree_set(0..5_u8, 0..3)), 0..=6);
    (host, networks, containers).prop_map(|(host, networks, containers)| {
        let host = host.map(|phases| (Place::Host, Work::of(phases)));
        let networks = networks.into_iter().enumerate().filter_map(|(number, phases)| {
            phases.map(|phases| (Place::Network(network(number as u8)), Work::of(phases)))
        });
        let containers = containers.into_iter().enumerate().map(|(number, (phases, within))| {
            (container(number), Work { phases, within: within.into_iter().map(network).collect() })
        });
        host.into_iter().chain(networks).chain(containers).collect()
    })
}

/// What happened in a round: what started and ended, in order, and how far each place got.
struct Run {
    log: Vec<(Place, Phase, What)>,
    given_up: BTreeSet<Place>,
    ends: BTreeMap<Place, Progress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Started,
    Completed,
    Failed,
}

/// Starts and ends jobs in an order that the seed decides, several at once; one in `rate` fails, none for 0.
fn run(work: &BTreeMap<Place, Work>, seed: [u8; 32], rate: usize) -> Run {
    let mut dice = Dice::new(seed);
    let mut round = Schedule::new(work.clone());
    let mut given_up = BTreeSet::new();
    for place in work.keys().filter(|_| rate > 0 && dice.one_in(4 * rate)).cloned().collect::<Vec<_>>() {
        round.give_up(&place);
        given_up.insert(place);
    }
    let (mut running, mut log) = (Vec::<Job>::new(), Vec::new());
    while !round.is_over() {
        if round.ready().len() > 0 && (running.is_empty() || dice.one_in(2)) {
            let place = round.ready().nth(dice.below(round.ready().len())).cloned().unwrap();
            let job = round.start(&place).unwrap();
            log.push((job.place.clone(), job.phase, What::Started));
            running.push(job);
            continue;
        }
        let job = running.swap_remove(dice.below(running.len()));
        let fails = rate > 0 && dice.one_in(rate);
        log.push((job.place.clone(), job.phase, if fails { What::Failed } else { What::Completed }));
        if fails { round.fail(job) } else { round.complete(job) }
    }
    let ends = round.progress().map(|(place, end)| (place.clone(), end)).collect();
    Run { log, given_up, ends }
}

impl Run {
    fn at(&self, place: &Place, phase: Phase, what: What) -> Option<usize> {
        self.log.iter().position(|entry| *entry == (place.clone(), phase, what))
    }

    /// Whether this phase, if there was to be one, was in effect before that happened.
    fn before(&self, work: &BTreeMap<Place, Work>, (place, phase): (&Place, Phase), at: usize) -> bool {
        if self.given_up.contains(place) {
            return false;
        }
        let to_do = work.get(place).is_some_and(|work| work.phases.contains(&phase));
        !to_do || self.at(place, phase, What::Completed).is_some_and(|done| done < at)
    }
}

/// By the definition, not by the code: the host is around all, a sandbox around the containers on its network.
fn is_around(outer: &Place, inner: &Place, work: &Work) -> bool {
    match (outer, inner) {
        (Place::Host, inner) => *inner != Place::Host,
        (Place::Network(network), Place::Container(_)) => work.within.contains(network),
        _ => false,
    }
}

proptest! {
    #[test]
    fn no_place_opens_before_the_guards_around_it(work in rounds(), seed: [u8; 32], rate in 0..6_usize) {
        let run = run(&work, seed, rate);
        for (at, (place, _, _)) in run.log.iter().enumerate().filter(|(_, it)| (it.1, it.2) == (Open, What::Started)) {
            for parent in work.keys().filter(|parent| is_around(parent, place, &work[place])) {
                prop_assert!(run.before(&work, (parent, Guard), at), "{place} opened before {parent} was guarded");
            }
        }
    }

    #[test]
    fn a_place_opens_after_those_around_it_that_open(work in rounds(), seed: [u8; 32], rate in 0..6_usize) {
        let run = run(&work, seed, rate);
        for (at, (place, _, _)) in run.log.iter().enumerate().filter(|(_, it)| (it.1, it.2) == (Open, What::Started)) {
            let around = work.keys().filter(|parent| is_around(parent, place, &work[place]));
            for parent in around.filter(|parent| run.at(parent, Open, What::Completed).is_some()) {
                prop_assert!(run.before(&work, (parent, Open), at), "{place} opened before {parent} did");
            }
        }
    }

    #[test]
    fn no_guard_goes_before_what_is_to_go_inside_has_gone(work in rounds(), seed: [u8; 32], rate in 0..6_usize) {
        let run = run(&work, seed, rate);
        for (at, (place, _, _)) in run.log.iter().enumerate().filter(|(_, it)| (it.1, it.2) == (Unguard, What::Started)) {
            for child in work.keys().filter(|child| is_around(place, child, &work[*child])) {
                let gone = [Build, Close, Dismantle].into_iter().all(|phase| run.before(&work, (child, phase), at));
                prop_assert!(gone, "{place} unguarded before {child} was built anew, closed and dismantled");
            }
        }
    }

    #[test]
    fn a_places_phases_run_in_order_each_once_and_none_after_one_that_failed(
        work in rounds(), seed: [u8; 32], rate in 0..6_usize,
    ) {
        let run = run(&work, seed, rate);
        for (place, work) in &work {
            let of: Vec<_> = run.log.iter().filter(|(at, _, _)| at == place).collect();
            let started: Vec<Phase> = of.iter().filter(|it| it.2 == What::Started).map(|it| it.1).collect();
            prop_assert!(started.iter().is_sorted_by(|a, b| a < b), "{place}: {started:?}");
            prop_assert!(started.iter().eq(work.phases.iter().take(started.len())), "{place}: {started:?}");
            prop_assert!(of.chunks(2).all(|pair| pair[0].2 == What::Started && pair[1].2 != What::Started));
            let failed = of.iter().position(|it| it.2 == What::Failed);
            prop_assert!(failed.is_none_or(|at| at + 1 == of.len()), "{place} went on after it had failed");
        }
    }

    #[test]
    fn without_failures_every_place_reaches_its_end(work in rounds(), seed: [u8; 32]) {
        let run = run(&work, seed, 0);
        prop_assert!(run.ends.values().all(|end| *end == Progress::Done), "{:?}", run.ends);
        let wanted: usize = work.values().map(|work| work.phases.len()).sum();
        prop_assert_eq!(run.log.len(), 2 * wanted);
    }

    #[test]
    fn what_failed_stops_only_what_waits_for_it(work in rounds(), seed: [u8; 32], rate in 1..6_usize) {
        let run = run(&work, seed, rate);
        for (place, end) in &run.ends {
            match end {
                Progress::Done => {}
                Progress::Failed(phase) => {
                    let failed = run.at(place, *phase, What::Failed).is_some();
                    prop_assert!(failed || run.given_up.contains(place), "{place}: {end}");
                }
                Progress::Stopped { before: Open, by } => {
                    prop_assert!(is_around(by, place, &work[place]), "{place}: {end}");
                    let unguarded = !run.before(&work, (by, Guard), usize::MAX);
                    prop_assert!(unguarded && matches!(run.ends[by], Progress::Failed(_)), "{place}: {end}");
                }
                Progress::Stopped { before: Unguard, by } => {
                    prop_assert!(is_around(place, by, &work[by]), "{place}: {end}");
                    let gone = [Build, Close, Dismantle].into_iter().all(|phase| run.before(&work, (by, phase), usize::MAX));
                    prop_assert!(!gone && run.ends[by] != Progress::Done, "{place}: {end}");
                }
                _ => prop_assert!(false, "{place} has no end: {end}"),
            }
        }
    }

    #[test]
    fn a_job_of_another_round_changes_nothing(work in rounds(), seed: [u8; 32]) {
        let mut dice = Dice::new(seed);
        let mut round = Schedule::new(work.clone());
        let before: Vec<_> = round.progress().map(|(place, end)| (place.clone(), end)).collect();
        for place in work.keys() {
            let foreign = Job { place: place.clone(), phase: Phase::ALL[dice.below(6)] };
            if dice.one_in(2) { round.complete(foreign) } else { round.fail(foreign) }
        }
        let after: Vec<_> = round.progress().map(|(place, end)| (place.clone(), end)).collect();
        prop_assert_eq!(before, after);
    }
}

#[test]
fn a_failed_guard_keeps_what_is_inside_shut() {
    let (front, web) = (Place::Network(network(1)), container(1));
    let within = BTreeSet::from([network(1)]);
    let mut round = Schedule::new([
        (front.clone(), Work::of([Guard, Build, Unguard])),
        (web.clone(), Work { within, ..Work::of([Build, Open, Close]) }),
    ]);
    let guard = round.start(&front).unwrap();
    round.fail(guard);
    let build = round.start(&web).unwrap();
    round.complete(build); // what is built behind no guard is not reachable yet
    assert!(round.is_over());
    let ends: Vec<String> = round.progress().map(|(place, end)| format!("{place}: {end}")).collect();
    let short = network(1).short();
    assert_eq!(
        ends,
        [format!("network {short}: guard failed"), format!("container c1: stopped before open by network {short}")]
    );
}

#[test]
fn a_place_is_given_up_only_before_it_began() {
    let mut round = Schedule::new([(Place::Host, Work::of([Guard, Build])), (container(1), Work::of([Open]))]);
    let guard = round.start(&Place::Host).unwrap();
    round.give_up(&Place::Host);
    round.complete(guard);
    assert!(round.ready().eq([&Place::Host, &container(1)]));
    round.give_up(&Place::Host);
    assert!(round.ready().eq([&Place::Host, &container(1)]));
}

#[test]
fn a_guard_stays_until_what_it_guards_was_replaced() {
    // A device at another port is built in place of the one that the old guard is for.
    let front = Place::Network(network(1));
    let mut round =
        Schedule::new([(Place::Host, Work::of([Guard, Unguard])), (front.clone(), Work::of([Build, Open]))]);
    let guard = round.start(&Place::Host).unwrap();
    round.complete(guard);
    assert!(round.ready().eq([&front]), "the host waits");
    let build = round.start(&front).unwrap();
    round.complete(build);
    assert!(round.ready().eq([&Place::Host, &front]));
}
