//! Three managers at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::testing::{Dice, Executor, FlakyStore, Injected, block_on};
use overlay_core::{MemoryStore, Name, Store, UnixTime};
use overlay_node::testing::{contradictions, leaks};
use overlay_node::{
    Control, ControlError, EndpointMode, EndpointSpec, Manager, NetworkSpec, PublishMode, Refused, ServiceSpec,
};

use crate::cluster::{self, NOW, endpoint, manager, network, node, root, service, tcp};
use crate::{ids, remove_all, seeded, settle, sound};

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

/// Seeds: 40, or a quarter of the cases of property tests where somebody asks for more of these.
fn seeds() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "the long form of CI asks for more by the environment")]
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse::<u32>().ok());
    cases.map_or(40, |cases| 40.max(cases / 4))
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
