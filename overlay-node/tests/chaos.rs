//! Managers on a store that fails, at once and one after the other's death: nothing is had twice, nothing is lost, nobody was told
//! what is not so.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

mod cluster;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Last, Mortal, NOW, endpoint, manager, network, node, root, service, tcp};
use overlay_core::testing::{Dice, Executor, FlakyStore, Injected, block_on, yield_now};
use overlay_core::{MemoryStore, Name, Store, UnixTime};
use overlay_ipam::SubnetRequest;
use overlay_node::testing::{contradictions, leaks};
use overlay_node::{
    Condition, Control, ControlError, EndpointMode, EndpointSpec, Manager, NetworkSpec, PublishMode, Reference,
    Refused, ServiceSpec,
};

/// What the managers of a run share, and what an observer saw.
struct World {
    observer: Manager,
    /// Ids that nobody else uses, of what was refused: nothing is kept of it.
    refused: RefCell<BTreeSet<String>>,
    fresh: Cell<u8>,
    /// Ids for whose removal somebody has called.
    removals: RefCell<BTreeSet<String>>,
    done: RefCell<Tally>,
}

/// What happened, so that a run that tried nothing is noticed.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    made: u32,
    refused: u32,
    in_doubt: u32,
    removed: u32,
    in_use: u32,
}

/// Seeds: a few in CI, more where somebody says so.
fn seeds() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "tests may read the environment")]
    std::env::var("OVERLAY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40)
}

#[test]
fn three_managers_on_a_flaky_store_make_nothing_twice_and_leave_nothing_behind() {
    let (mut tally, mut injected) = (Tally::default(), Injected::default());
    for seed in 0..seeds() {
        println!("seed {seed}");
        let (done, faults) = run(seed);
        tally.made += done.made;
        tally.refused += done.refused;
        tally.in_doubt += done.in_doubt;
        tally.removed += done.removed;
        tally.in_use += done.in_use;
        injected.lost_answers += faults.lost_answers;
        injected.late_done += faults.late_done;
    }
    println!("{tally:?} {injected:?}");
    let enough = |count: u32| count > seeds();
    assert!(
        enough(tally.made) && enough(tally.refused) && enough(tally.in_doubt) && enough(tally.removed),
        "{tally:?}"
    );
    assert!(tally.in_use > 0 && injected.lost_answers > 0 && injected.late_done > 0, "{tally:?} {injected:?}");
}

fn run(seed: u32) -> (Tally, Injected) {
    let mut dice = seeded(seed);
    let memory = MemoryStore::default();
    let store = FlakyStore::new(memory.clone(), Dice::new(dice.seed()), 12);
    let observer = manager(Arc::new(memory.clone()), 9);
    let world = Rc::new(World {
        observer,
        refused: RefCell::default(),
        fresh: Cell::new(100),
        removals: RefCell::default(),
        done: RefCell::default(),
    });
    let mut executor = Executor::new(dice.seed());
    for number in 1..=3 {
        let (world, manager) = (Rc::clone(&world), manager(Arc::new(store.clone()), number));
        let skew = Duration::from_secs(u64::from(number));
        executor.spawn(work(world, manager, Dice::new(dice.seed()), NOW + skew));
    }
    executor.run().unwrap();
    store.calm();
    let manager = manager(Arc::new(store.clone()), 4);
    block_on(async {
        store.get(&root().key("x").unwrap()).await.unwrap(); // what is late arrives
        settle(&manager, NOW + Duration::from_secs(1700)).await;
        sound(&manager).await;
        assert_eq!(leaks(&manager).await.unwrap(), [""; 0]);
        let kept: Vec<String> = ids(&manager).await.intersection(&world.refused.borrow()).cloned().collect();
        assert_eq!(kept, [""; 0], "it was refused");
        remove_all(&manager).await;
        let later = NOW + Duration::from_secs(7200);
        settle(&manager, later).await;
        assert_eq!(leaks(&manager).await.unwrap(), [""; 0]);
        let left = memory.list(&root().join("catalogue/").unwrap()).await.unwrap().entries;
        let left: Vec<String> = left.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(left, [""; 0]);
    });
    (*world.done.borrow(), store.injected())
}

fn seeded(seed: u32) -> Dice {
    Dice::new(std::array::from_fn(|at| seed.to_be_bytes()[at % 4]))
}

/// Until nothing is half-done any more.
async fn settle(manager: &Manager, now: UnixTime) {
    for _ in 0..10 {
        let settled = manager.settle(now).await.unwrap();
        if settled.allocated + settled.failed + settled.removed + settled.reclaimed == 0 && settled.troubles.is_empty()
        {
            return;
        }
        if settled.allocated + settled.removed + settled.reclaimed == 0 && settled.troubles.is_empty() {
            return; // what has failed still does
        }
    }
    panic!("{:?}", manager.settle(now).await);
}

async fn sound(manager: &Manager) {
    assert_eq!(contradictions(manager).await.unwrap(), [""; 0]);
}

async fn ids(manager: &Manager) -> BTreeSet<String> {
    let mut ids: BTreeSet<String> = manager.services().await.unwrap().iter().map(|of| of.id.to_string()).collect();
    for network in manager.networks().await.unwrap() {
        ids.insert(network.id.to_string());
        ids.extend(manager.endpoints(network.id).await.unwrap().iter().map(|of| of.id.to_string()));
    }
    ids
}

async fn remove_all(manager: &Manager) {
    for network in manager.networks().await.unwrap() {
        for endpoint in manager.endpoints(network.id).await.unwrap() {
            manager.detach(endpoint.id, NOW).await.unwrap();
        }
    }
    for service in manager.services().await.unwrap() {
        manager.remove_service(&service.id.into(), NOW).await.unwrap();
    }
    for network in manager.networks().await.unwrap() {
        manager.remove_network(&network.id.into(), NOW).await.unwrap();
    }
    for node in manager.nodes().await.unwrap() {
        manager.remove_node(&node.id.into(), NOW).await.unwrap();
    }
}

/// One manager's life: calls of every kind about few objects, so that they meet.
async fn work(world: Rc<World>, manager: Manager, mut dice: Dice, mut now: UnixTime) {
    for _ in 0..40 {
        one_call(&world, &manager, &mut dice, now).await;
        now = now + Duration::from_secs(40); // what was given back may be had again
        let found = block_on(contradictions(&world.observer)).unwrap();
        assert_eq!(found, [""; 0]);
    }
}

async fn one_call(world: &World, manager: &Manager, dice: &mut Dice, now: UnixTime) {
    let id = dice.below(4) as u8;
    let call = dice.below(14);
    let id = match call {
        0..=6 if dice.one_in(3) => {
            world.fresh.set(world.fresh.get() + 1);
            world.fresh.get()
        }
        _ => id,
    };
    match call {
        0..=2 => create_network(world, manager, dice, (id, now)).await,
        3 => create_service(world, manager, dice, (id, now)).await,
        4..=6 => attach(world, manager, dice, (id, now)).await,
        7 => drop(manager.add_node(node(id % 2), cluster::node_spec(["a", "b"][usize::from(id % 2)]), now).await),
        8 => {
            world.removals.borrow_mut().insert(network(id).to_string());
            ended(world, &manager.remove_network(&network(id).into(), now).await.map(drop));
        }
        9 => {
            world.removals.borrow_mut().insert(service(id).to_string());
            ended(world, &manager.remove_service(&service(id).into(), now).await.map(drop));
        }
        10 => {
            world.removals.borrow_mut().insert(endpoint(id).to_string());
            ended(world, &manager.detach(endpoint(id), now).await.map(drop));
        }
        11 => drop(manager.relocate(endpoint(id), node(dice.below(2) as u8), now).await),
        12 if dice.one_in(4) => {
            let on_it = (0..4).map(|id| endpoint(id).to_string());
            world.removals.borrow_mut().extend(on_it);
            ended(world, &manager.remove_node(&node(id % 2).into(), now).await.map(drop));
        }
        _ => drop(manager.settle(now).await),
    }
}

fn ended(world: &World, result: &Result<(), ControlError>) {
    let mut done = world.done.borrow_mut();
    match result {
        Ok(()) => done.removed += 1,
        Err(ControlError::Refused(
            Refused::NetworkInUse { .. } | Refused::ServiceInUse { .. } | Refused::IngressInUse { .. },
        )) => {
            done.in_use += 1;
        }
        Err(ControlError::InDoubt(_)) => done.in_doubt += 1,
        Err(_) => {}
    }
}

/// Whether `what` was made: it is there, allocated, unless somebody has called for its removal.
fn made<T>(
    world: &World,
    (id, number): (&str, u8),
    result: Result<T, ControlError>,
    there: impl FnOnce(&Manager) -> Option<T>,
) where
    T: PartialEq + std::fmt::Debug,
{
    let is_fresh = number > 100;
    let mut done = world.done.borrow_mut();
    match result {
        Ok(told) => {
            done.made += 1;
            let is = there(&world.observer);
            assert!(is == Some(told) || world.removals.borrow().contains(id), "told to be, and is {is:?}");
        }
        Err(ControlError::Refused(_)) => {
            done.refused += 1;
            if is_fresh {
                world.refused.borrow_mut().insert(id.to_owned());
            }
        }
        Err(ControlError::InDoubt(_)) => done.in_doubt += 1,
        Err(_) => {}
    }
}

async fn create_network(world: &World, manager: &Manager, dice: &mut Dice, (id, now): (u8, UnixTime)) {
    let name: Name = ["front", "back", "ingress"][dice.below(3)].parse().unwrap();
    let spec = NetworkSpec {
        ingress: name.as_str() == "ingress",
        attachable: name.as_str() != "ingress",
        subnets: cluster::subnets(dice),
        vni: dice.one_in(3).then(|| cluster::vni(5000)),
        ..NetworkSpec::overlay(name)
    };
    let result = manager.create_network(network(id), spec, now).await;
    let identity = |of: overlay_node::Network| (of.spec, of.subnets, of.vni);
    let there = |observer: &Manager| block_on(observer.network(&network(id).into())).ok().map(identity);
    made(world, (&network(id).to_string(), id), result.map(identity), there);
}

async fn create_service(world: &World, manager: &Manager, dice: &mut Dice, (id, now): (u8, UnixTime)) {
    let name: Name = ["web", "db"][dice.below(2)].parse().unwrap();
    let networks = (0..4).filter(|_| dice.one_in(3)).map(network);
    let mut spec = ServiceSpec::new(name, networks.collect::<Vec<_>>());
    for target in [80, 90] {
        let mode = if dice.one_in(3) { PublishMode::Host } else { PublishMode::Ingress };
        let published = dice.one_in(2).then_some([8080, 30_000][dice.below(2)]);
        if dice.one_in(2) {
            spec.ports.push(tcp(published, target, mode));
        }
    }
    if dice.one_in(4) {
        spec.mode = EndpointMode::RoundRobin;
    }
    let result = manager.create_service(service(id), spec, now).await;
    let identity = |of: overlay_node::Service| (of.spec, of.vips, of.ports);
    let there = |observer: &Manager| block_on(observer.service(&service(id).into())).ok().map(identity);
    made(world, (&service(id).to_string(), id), result.map(identity), there);
}

async fn attach(world: &World, manager: &Manager, dice: &mut Dice, (id, now): (u8, UnixTime)) {
    let container: Name = ["c1", "c2"][dice.below(2)].parse().unwrap();
    let mut spec = EndpointSpec::new(network(dice.below(4) as u8), container, node(dice.below(2) as u8));
    if dice.one_in(4) {
        spec.service = Some(service(dice.below(4) as u8));
    }
    if dice.one_in(4) {
        spec.addresses = [[10, 7, 0, 7].into()].into();
    }
    if dice.one_in(4) {
        spec.mac = Some(cluster::mac(dice.below(2) as u8));
    }
    let result = manager.attach(endpoint(id), spec, now).await;
    let identity = |of: overlay_node::Endpoint| (of.id, of.addresses, of.mac);
    let there = |observer: &Manager| block_on(observer.endpoint(endpoint(id))).ok().flatten().map(identity);
    made(world, (&endpoint(id).to_string(), id), result.map(identity), there);
}

/// What is done to a cluster that has all that it needs.
type Call = fn(&Manager) -> Result<(), ControlError>;

/// Each call, what must be there when it succeeded, and what takes it back.
const CALLS: [(&str, Call); 8] = [
    ("create a network", |manager| block_on(manager.create_network(network(5), front("new"), NOW)).map(drop)),
    ("remove a network", |manager| block_on(manager.remove_network(&"unused".into(), NOW)).map(drop)),
    ("create a service", |manager| {
        let mut spec = ServiceSpec::new("new".parse().unwrap(), [network(1)]);
        spec.ports = vec![tcp(Some(80), 80, PublishMode::Ingress), tcp(None, 90, PublishMode::Ingress)];
        block_on(manager.create_service(service(5), spec, NOW)).map(drop)
    }),
    ("remove a service", |manager| block_on(manager.remove_service(&"idle".into(), NOW)).map(drop)),
    ("attach", |manager| {
        let spec = EndpointSpec::new(network(1), "new".parse().unwrap(), node(1));
        block_on(manager.attach(endpoint(5), spec, NOW)).map(drop)
    }),
    ("detach", |manager| block_on(manager.detach(endpoint(1), NOW)).map(drop)),
    ("relocate", |manager| block_on(manager.relocate(endpoint(1), node(2), NOW)).map(drop)),
    ("remove a node", |manager| block_on(manager.remove_node(&node(1).into(), NOW)).map(drop)),
];

/// Calls that are refused, if they are not cut short, after something was written down.
const REFUSED: [(&str, Call); 3] = [
    ("create a network whose VNI is taken", |manager| {
        let taken = block_on(manager.network(&"front".into()))?.vni;
        refused(block_on(manager.create_network(network(5), NetworkSpec { vni: taken, ..front("new") }, NOW)))
    }),
    ("create a network whose subnet is taken", |manager| {
        let taken = block_on(manager.network(&"front".into()))?.subnets[0].net();
        let spec = NetworkSpec { subnets: vec![SubnetRequest::this(taken)], ..front("new") };
        refused(block_on(manager.create_network(network(5), spec, NOW)))
    }),
    ("attach at the gateway's address", |manager| {
        let gateway = block_on(manager.network(&"front".into()))?.subnets[0].gateway();
        let spec = EndpointSpec::new(network(1), "new".parse().unwrap(), node(1));
        let spec = EndpointSpec { addresses: gateway.into_iter().collect(), ..spec };
        refused(block_on(manager.attach(endpoint(5), spec, NOW)))
    }),
];

fn refused<T: std::fmt::Debug>(result: Result<T, ControlError>) -> Result<(), ControlError> {
    match result {
        Err(ControlError::Refused(_)) => Ok(()),
        other => other.map(drop),
    }
}

fn front(name: &str) -> NetworkSpec {
    NetworkSpec { attachable: true, ..NetworkSpec::overlay(name.parse().unwrap()) }
}

/// A cluster with an ingress network, two others, a service that nobody serves, and two containers on one network.
fn prepared(memory: &MemoryStore) {
    let manager = manager(Arc::new(memory.clone()), 1);
    block_on(async {
        manager.found_cluster(network(0), NOW).await.unwrap();
        manager.create_network(network(1), front("front"), NOW).await.unwrap();
        manager.create_network(network(2), front("unused"), NOW).await.unwrap();
        manager.add_node(node(1), cluster::node_spec("a"), NOW).await.unwrap();
        manager.add_node(node(2), cluster::node_spec("b"), NOW).await.unwrap();
        let mut idle = ServiceSpec::new("idle".parse().unwrap(), [network(1)]);
        idle.ports = vec![tcp(Some(81), 80, PublishMode::Ingress)];
        manager.create_service(service(1), idle, NOW).await.unwrap();
        for (number, name) in [(1, "one"), (2, "two")] {
            let spec = EndpointSpec::new(network(1), name.parse().unwrap(), node(1));
            manager.attach(endpoint(number), spec, NOW).await.unwrap();
        }
    });
}

#[test]
fn a_manager_that_dies_at_any_commit_leaves_what_another_settles_or_finishes() {
    for (what, call) in CALLS {
        for last in [Last::Lost, Last::Done] {
            let deaths = (0..40).take_while(|commits| dies_and_is_settled(what, call, *commits, last)).count();
            assert!((1..40).contains(&deaths), "{what} made {deaths} commits");
        }
    }
}

/// Whether it died before it was through.
fn dies_and_is_settled(what: &str, call: Call, commits: usize, last: Last) -> bool {
    let memory = MemoryStore::default();
    prepared(&memory);
    let mortal = Mortal::new(memory.clone(), commits, last);
    let told = call(&manager(Arc::new(mortal.clone()), 1));
    let other = manager(Arc::new(memory), 2);
    let context = format!("{what}, dead after {commits} commits, the last is {last:?}: {told:?}");
    assert!(told.is_ok() != mortal.is_dead(), "{context}");
    block_on(async {
        sound(&other).await;
        settled_and_tight(&other, &context).await;
        for network in other.networks().await.unwrap() {
            assert_eq!(network.condition, Condition::Allocated, "{context}");
        }
    });
    // The same call by another manager comes to an end, and changes nothing that is there already.
    let again = call(&other);
    let gone = matches!(&again, Err(ControlError::Refused(Refused::NotFound { .. })));
    assert!(again.is_ok() || gone && what.starts_with("remove"), "{context}: {again:?}");
    block_on(async {
        settled_and_tight(&other, &context).await;
        remove_all(&other).await;
        settled_and_tight(&other, &context).await;
    });
    mortal.is_dead()
}

async fn settled_and_tight(manager: &Manager, context: &str) {
    settle(manager, NOW).await;
    sound(manager).await;
    assert_eq!(leaks(manager).await.unwrap(), [""; 0], "{context}");
}

#[test]
fn a_dead_managers_last_commit_may_come_whenever_it_likes() {
    let mut came = [0; 3];
    for (what, call) in CALLS.into_iter().chain(REFUSED) {
        for (when, came) in came.iter_mut().enumerate() {
            let done = (0..40).map_while(|commits| comes_late(what, call, commits, when));
            *came += done.filter(|done| *done).count();
        }
    }
    assert!(came.iter().all(|came| *came > 0), "{came:?}");
}

/// Whether the last commit was done: when all was settled, when all was removed after that, or after it was made and removed once
/// more. `None` if nobody died.
fn comes_late(what: &str, call: Call, commits: usize, when: usize) -> Option<bool> {
    let memory = MemoryStore::default();
    prepared(&memory);
    let mortal = Mortal::new(memory.clone(), commits, Last::Late);
    let told = call(&manager(Arc::new(mortal.clone()), 1));
    if !mortal.is_dead() {
        return None;
    }
    let other = manager(Arc::new(memory), 2);
    let context = format!("{what}, dead after {commits} commits, the last is late, {when}: {told:?}");
    let there = block_on(async {
        if when < 2 {
            settle(&other, NOW).await;
        }
        if when > 0 {
            let _ = call(&other);
            remove_all(&other).await;
        }
        ids(&other).await
    });
    let done = mortal.arrive();
    block_on(async {
        sound(&other).await;
        settled_and_tight(&other, &context).await;
        if when > 0 {
            assert_eq!(ids(&other).await, there, "{context}");
        }
        remove_all(&other).await;
        settled_and_tight(&other, &context).await;
    });
    Some(done)
}

#[test]
fn what_is_claimed_anew_is_not_taken_back_with_what_was_lost() {
    let lost = (0..500).filter(|seed| claims_anew_while_settling(*seed)).count();
    assert!(lost > 0);
}

/// An endpoint's claim comes late, after it was detached; it is attached anew while another manager settles. Whether the claim came.
fn claims_anew_while_settling(seed: u32) -> bool {
    let memory = MemoryStore::default();
    prepared(&memory);
    let attach = CALLS[4].1;
    let mortal = Mortal::new(memory.clone(), 1, Last::Late); // the commit after the one that writes it down
    let _ = attach(&manager(Arc::new(mortal.clone()), 1));
    let other = manager(Arc::new(memory.clone()), 2);
    let _ = block_on(other.detach(endpoint(5), NOW)).unwrap();
    let came = mortal.arrive();
    let mut dice = seeded(seed);
    let store = FlakyStore::new(memory, Dice::new(dice.seed()), 0);
    store.storm(10_000); // stalls, and hardly a failure
    let mut executor = Executor::new(dice.seed());
    let (first, second) = (manager(Arc::new(store.clone()), 3), manager(Arc::new(store.clone()), 4));
    let before = dice.below(80);
    executor.spawn(async move {
        for _ in 0..before {
            yield_now().await;
        }
        let spec = EndpointSpec::new(network(1), "new".parse().unwrap(), node(1));
        let _ = first.attach(endpoint(5), spec, NOW).await;
    });
    executor.spawn(async move { drop(second.settle(NOW).await) });
    executor.run().unwrap();
    store.calm();
    block_on(settled_and_tight(&other, &format!("seed {seed}")));
    came
}

#[test]
fn what_one_manager_gives_back_is_not_what_another_has_just_allocated() {
    let (mut allocated, mut refused) = (0, 0);
    for seed in 0..200 {
        let memory = MemoryStore::default();
        prepared(&memory);
        let other = manager(Arc::new(memory.clone()), 2);
        let both = vec![
            SubnetRequest::this("10.7.0.0/24".parse().unwrap()),
            SubnetRequest::this("fd00:8::/64".parse().unwrap()),
        ];
        let spec = NetworkSpec { subnets: both, ..front("both") };
        let at = |name: &str| {
            let spec = EndpointSpec::new(network(3), name.parse().unwrap(), node(1));
            EndpointSpec { addresses: [[10, 7, 0, 7].into()].into(), ..spec }
        };
        block_on(async {
            other.create_network(network(3), spec, NOW).await.unwrap();
            other.attach(endpoint(6), at("former"), NOW).await.unwrap();
            other.detach(endpoint(6), NOW).await.unwrap(); // its address rests
        });
        let mut dice = Dice::new([seed; 32]);
        let store = FlakyStore::new(memory, Dice::new(dice.seed()), 0);
        store.storm(10_000);
        let mut executor = Executor::new(dice.seed());
        let (first, second) = (manager(Arc::new(store.clone()), 3), manager(Arc::new(store.clone()), 4));
        let attaching = executor.spawn(async move { first.attach(endpoint(5), at("new"), NOW).await });
        executor.spawn(async move {
            for _ in 0..3 {
                drop(second.settle(NOW + Duration::from_secs(300)).await); // to this one it has rested
            }
        });
        executor.run().unwrap();
        store.calm();
        block_on(async {
            let there = other.endpoint(endpoint(5)).await.unwrap();
            match attaching.take().unwrap() {
                Ok(told) => {
                    allocated += 1;
                    assert_eq!(there, Some(told));
                }
                Err(ControlError::Refused(_)) => {
                    refused += 1;
                    assert_eq!(there, None);
                }
                Err(error) => println!("seed {seed}: {error}"),
            }
            settled_and_tight(&other, &format!("seed {seed}")).await;
        });
    }
    assert!(allocated > 0 && refused > 0, "{allocated} {refused}");
}

#[test]
fn a_cluster_is_founded_once_whoever_does_it() {
    for seed in 0..50 {
        let memory = MemoryStore::default();
        let mut dice = seeded(seed);
        let store = FlakyStore::new(memory.clone(), Dice::new(dice.seed()), 20);
        let mut executor = Executor::new(dice.seed());
        for number in 1..=3 {
            let manager = manager(Arc::new(store.clone()), number);
            executor.spawn(async move {
                while let Err(error) = manager.found_cluster(network(number), NOW).await {
                    assert!(error.refusal().is_none(), "seed {seed}: {error}");
                }
            });
        }
        executor.run().unwrap();
        store.calm();
        let other = manager(Arc::new(memory), 4);
        block_on(async {
            settled_and_tight(&other, &format!("seed {seed}")).await;
            let networks = other.networks().await.unwrap();
            assert!(networks.len() == 1 && networks[0].spec.ingress, "seed {seed}: {networks:?}");
        });
    }
}

#[test]
fn an_attachment_and_a_removal_that_race_never_leave_an_endpoint_without_its_network() {
    let (mut attached, mut removed) = (0, 0);
    for seed in 0..100 {
        let memory = MemoryStore::default();
        prepared(&memory);
        let mut dice = Dice::new([seed; 32]);
        let store = FlakyStore::new(memory.clone(), Dice::new(dice.seed()), 0);
        store.storm(1000); // stalls, and hardly a failure
        let mut executor = Executor::new(dice.seed());
        let (first, second) = (manager(Arc::new(store.clone()), 1), manager(Arc::new(store.clone()), 2));
        let attaching = executor.spawn(async move {
            let spec = EndpointSpec::new(network(2), "new".parse().unwrap(), node(1));
            first.attach(endpoint(5), spec, NOW).await
        });
        let removing =
            executor.spawn(async move { second.remove_network(&Reference::from("unused"), NOW).await.map(drop) });
        executor.run().unwrap();
        let (attaching, removing) = (attaching.take().unwrap(), removing.take().unwrap());
        attached += u32::from(attaching.is_ok());
        removed += u32::from(removing.is_ok());
        assert!(!(attaching.is_ok() && removing.is_ok()), "seed {seed}: {attaching:?} {removing:?}");
        store.calm();
        let other = manager(Arc::new(memory), 3);
        block_on(async {
            sound(&other).await;
            settle(&other, NOW).await;
            assert_eq!(leaks(&other).await.unwrap(), [""; 0], "seed {seed}");
        });
    }
    assert!(attached > 0 && removed > 0, "{attached} {removed}");
}
