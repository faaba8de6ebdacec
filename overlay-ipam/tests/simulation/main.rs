//! Three managers at once, on a store that fails in every way, with crashes and restarts: no address is leased twice, none is
//! lost, none is leased again before it has rested, and nobody releases what is not theirs.
//!
//! `OVERLAY_IPAM_OPERATIONS` says how many operations (40,000; CI does a million), `OVERLAY_IPAM_SEED` where to begin.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use overlay_core::testing::{Dice, Executor, FlakyStore, block_on};
use overlay_core::{IpFamily, Limits, MemoryStore, NetworkId, NodeId, Prefix, UnixTime};
use overlay_ipam::{
    AddressRequest, Allocator, ClaimRefusal, Config, Ipam, IpamError, Lease, LeaseOwner, PickOrder, Release,
    SubnetRequest, Use,
};

mod counts;

use counts::Counts;

const MANAGERS: usize = 3;
const TASKS: usize = 3; // of each manager
const STEPS: usize = 120; // of each task
const OWNERS: usize = 130;
const REST: Duration = Duration::from_secs(20);
const SKEW: Duration = Duration::from_secs(2);

#[test]
fn no_address_is_leased_twice_and_none_is_lost() {
    let (wanted, first) = (setting("OVERLAY_IPAM_OPERATIONS", 40_000), setting("OVERLAY_IPAM_SEED", 0));
    let mut total = Counts::default();
    let mut seed = first;
    while total.operations < wanted {
        let counts = std::panic::catch_unwind(|| run(seed))
            .unwrap_or_else(|_| panic!("OVERLAY_IPAM_SEED={seed} OVERLAY_IPAM_OPERATIONS=1 repeats this"));
        total.add(&counts);
        seed += 1;
    }
    println!("{} seeds from {first}: {total:?}", seed - first);
    assert!(total.all_happened(), "something never happened: {total:?}");
}

/// What is known of an owner from outside.
#[derive(Debug, Clone, Default)]
enum Known {
    #[default]
    Nothing,
    Has(Lease),
    /// A claim whose end is not known.
    Claiming,
    /// A release whose end is not known.
    Releasing(Lease),
}

struct World {
    store: FlakyStore<MemoryStore>,
    /// Sees the store as it is, without faults.
    truth: Allocator,
    managers: Vec<Rc<Allocator>>,
    config: Config,
    network: NetworkId,
    owners: BTreeMap<LeaseOwner, Known>,
    busy: BTreeSet<LeaseOwner>,
    /// Whose claim was cut short or lost once: it may still be done, late. Audits find what nobody knows of.
    doubtful: BTreeSet<LeaseOwner>,
    /// Who surely has an address.
    holders: BTreeMap<IpAddr, LeaseOwner>,
    /// When the release of an address began.
    freed: BTreeMap<IpAddr, Duration>,
    /// Leases that were released for sure.
    old: Vec<Lease>,
    /// True time since the beginning.
    time: Duration,
    dice: Dice,
    counts: Counts,
}

type Shared = Rc<RefCell<World>>;

fn run(seed: u64) -> Counts {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut dice = Dice::new(bytes);
    let memory = MemoryStore::default();
    let limits = Limits { operations: 24, value: 4096, commit: 1 << 16 }; // small, so that batches are split
    let memory = if dice.one_in(2) { memory.with_limits(limits) } else { memory };
    let store = FlakyStore::new(memory.clone(), Dice::new(dice.seed()), 0);
    let orders = [PickOrder::NextFit, PickOrder::NextFit, PickOrder::Lowest, PickOrder::Random];
    let config = Config { rest: REST, skew: SKEW, order: orders[dice.below(4)], ..Config::default() };
    let network = NetworkId::from_bytes([9; 16]);
    let root = Prefix::new("ipam/").unwrap();
    let truth = Allocator::new(Arc::new(memory.clone()), &root, NodeId::from_bytes([88; 16]), config.clone(), [0; 32]);
    let mut world = World {
        store,
        truth: truth.unwrap(),
        managers: Vec::new(),
        config,
        network,
        owners: owners(),
        busy: BTreeSet::new(),
        doubtful: BTreeSet::new(),
        holders: BTreeMap::new(),
        freed: BTreeMap::new(),
        old: Vec::new(),
        time: Duration::from_secs(1_000),
        dice,
        counts: Counts::default(),
    };
    world.managers = (0..MANAGERS).map(|number| Rc::new(world.manager(number))).collect();
    let net = |text: &str| SubnetRequest::this(text.parse().unwrap());
    let subnets = match world.dice.below(3) {
        0 => vec![net("10.1.0.0/26"), net("fd00::/64")],
        1 => vec![net("10.1.0.0/27"), net("10.2.0.0/27"), net("fd00::/121")], // grown by a second
        _ => vec![
            SubnetRequest {
                vips: Some("10.1.0.64/26".parse::<overlay_ipam::IpNet>().unwrap().into()),
                ..net("10.1.0.0/25")
            },
            net("fd00::/120"),
        ],
    };
    block_on(world.managers[0].claim_subnets(network, &subnets, UnixTime::EPOCH)).unwrap();
    let executor_seed = world.dice.seed();
    world.store.storm(12);
    let world = Rc::new(RefCell::new(world));
    let mut executor = Executor::new(executor_seed);
    for manager in 0..MANAGERS {
        for _ in 0..TASKS {
            let world = Rc::clone(&world);
            executor.spawn(async move {
                for _ in 0..STEPS {
                    step(&world, manager).await;
                }
            });
        }
    }
    executor.run().unwrap();
    drop(executor);
    let world = Rc::into_inner(world).unwrap().into_inner();
    settle(world, &memory)
}

impl World {
    fn manager(&mut self, number: usize) -> Allocator {
        let (store, root) = (Arc::new(self.store.clone()), Prefix::new("ipam/").unwrap());
        let node = NodeId::from_bytes([number as u8 + 1; 16]);
        Allocator::new(store, &root, node, self.config.clone(), self.dice.seed()).unwrap()
    }

    /// The date by a manager's clock: no two differ by more than the skew.
    fn now(&mut self, manager: usize) -> UnixTime {
        self.time += Duration::from_millis(self.dice.below(150) as u64);
        UnixTime::EPOCH + self.time + SKEW * manager as u32 / (MANAGERS as u32 - 1)
    }

    fn draw_owner(&mut self) -> Option<LeaseOwner> {
        let at = self.dice.below(OWNERS);
        let owner = self.owners.keys().nth(at)?.clone();
        self.busy.insert(owner.clone()).then_some(owner)
    }

    fn request(&mut self, owner: &LeaseOwner) -> AddressRequest {
        let family = family_of(owner);
        let purpose = if self.dice.one_in(4) { Use::Vip } else { Use::Endpoint };
        let address = match (self.dice.below(8), self.holders.keys().next()) {
            (0, _) if family == IpFamily::V4 => Some([10, 1, 0, 2 + self.dice.below(28) as u8].into()),
            (1, Some(held)) if IpFamily::of(*held) == family => Some(*held),
            _ => None,
        };
        let address = address.filter(|_| matches!(self.owners.get(owner), Some(Known::Nothing)));
        AddressRequest { owner: owner.clone(), family, purpose, address }
    }

    /// A lease was granted: nobody else may have the address, and it must have rested.
    fn granted(&mut self, request: &AddressRequest, lease: &Lease) {
        assert_eq!((&lease.owner, IpFamily::of(lease.ip())), (&request.owner, request.family));
        assert!(request.address.is_none_or(|wanted| wanted == lease.ip()));
        let before = self.owners.insert(request.owner.clone(), Known::Has(lease.clone()));
        match before {
            Some(Known::Has(had)) => {
                assert_eq!(had, *lease, "the same owner claims again");
                self.counts.again += 1;
                return;
            }
            Some(Known::Releasing(_)) => panic!("{request:?}: not claimed before the release is decided"),
            _ => {}
        }
        self.counts.granted += 1;
        let holder = self.holders.insert(lease.ip(), request.owner.clone());
        assert_eq!(holder, None, "{lease} was leased twice");
        if let Some(freed) = self.freed.remove(&lease.ip()) {
            assert!(self.time >= freed + REST, "{lease} rested {:?} only", self.time - freed);
            self.counts.reused += 1;
        }
    }

    /// A release was refused for a later lease: that one the store holds, it alone, and from now on it may not be lost.
    fn overtaken(&mut self, released: &Lease, generation: u64) {
        let leases = block_on(self.truth.leases(self.network)).unwrap();
        let of_owner = leases
            .into_iter()
            .filter(|lease| lease.owner == released.owner && IpFamily::of(lease.ip()) == IpFamily::of(released.ip()));
        let of_owner: Vec<Lease> = of_owner.collect();
        let [later] = &of_owner[..] else { panic!("{released} is fenced by {of_owner:?}") };
        assert_eq!(later.generation, generation, "{released} is fenced by another lease than {later}");
        assert_ne!(later, released, "a lease fences itself");
        self.counts.overtaken += 1;
        self.old.push(released.clone());
        self.owners.insert(released.owner.clone(), Known::Claiming);
        let request = AddressRequest::any(released.owner.clone(), IpFamily::of(later.ip()));
        self.granted(&request, later);
    }

    fn refused(&mut self, request: &AddressRequest, refusal: &ClaimRefusal) {
        match refusal {
            ClaimRefusal::Exhausted { in_use, resting, .. } => {
                assert!(*in_use > 0 || *resting > 0);
                self.counts.exhausted += 1;
            }
            ClaimRefusal::Taken { .. } | ClaimRefusal::Resting { .. } => self.counts.taken += 1,
            // An address wanted by an owner whose former claim was done after all.
            ClaimRefusal::Other { .. } | ClaimRefusal::Reserved { .. } => {}
            other => panic!("{request:?}: {other}"),
        }
        if let Some(known @ Known::Claiming) = self.owners.get_mut(&request.owner) {
            *known = Known::Nothing;
        }
    }
}

async fn step(world: &Shared, manager: usize) {
    let draw = {
        let mut world = world.borrow_mut();
        world.counts.operations += 1;
        world.dice.below(40)
    };
    match draw {
        0 => restart(world, manager),
        1..4 => release_old(world, manager).await,
        5 => look(world),
        4 => race(world, manager).await,
        _ => work(world, manager).await,
    }
}

/// What the store holds at this moment: what is surely had is there, and no address twice.
fn look(world: &Shared) {
    let mut world = world.borrow_mut();
    let leases = block_on(world.truth.leases(world.network)).unwrap();
    let addresses: BTreeSet<IpAddr> = leases.iter().map(Lease::ip).collect();
    assert_eq!(addresses.len(), leases.len(), "an address is leased twice");
    let by_owner: BTreeMap<&LeaseOwner, &Lease> = leases.iter().map(|lease| (&lease.owner, lease)).collect();
    for (owner, known) in world.owners.iter().filter(|(owner, _)| !world.busy.contains(*owner)) {
        match known {
            Known::Has(lease) => assert_eq!(by_owner.get(owner), Some(&lease), "a lease was lost"),
            Known::Nothing if world.doubtful.contains(owner) => {}
            Known::Nothing => assert_eq!(by_owner.get(owner), None, "a lease that nobody knows of"),
            Known::Claiming | Known::Releasing(_) => {}
        }
    }
    world.counts.looks += 1;
}

/// A manager's process begins anew: it knows nothing.
fn restart(world: &Shared, manager: usize) {
    let mut world = world.borrow_mut();
    let fresh = Rc::new(world.manager(manager));
    world.managers[manager] = fresh;
    world.counts.restarts += 1;
}

/// Claims for who has nothing, or has; releases what is had.
async fn work(world: &Shared, manager: usize) {
    let (mut claims, mut releases) = (Vec::new(), Vec::new());
    let (allocator, now, network, polls) = {
        let mut world = world.borrow_mut();
        let batch = if world.dice.one_in(3) { 1 + world.dice.below(16) } else { 1 };
        for _ in 0..batch {
            let Some(owner) = world.draw_owner() else { continue };
            let releases_it = world.dice.one_in(2);
            match world.owners[&owner].clone() {
                Known::Has(lease) if releases_it => releases.push(lease),
                Known::Releasing(lease) => releases.push(lease),
                _ => claims.push(world.request(&owner)),
            }
        }
        let now = world.now(manager);
        let polls = if world.dice.one_in(12) { world.dice.below(12) } else { usize::MAX };
        world.counts.operations += (claims.len() + releases.len()).saturating_sub(1) as u64;
        (Rc::clone(&world.managers[manager]), now, world.network, polls)
    };
    if !releases.is_empty() {
        release(world, &allocator, &releases, (now, polls)).await;
    }
    if !claims.is_empty() {
        claim(world, &allocator, (network, &claims), (now, polls)).await;
    }
    let mut world = world.borrow_mut();
    let done = claims.iter().map(|request| &request.owner).chain(releases.iter().map(|lease| &lease.owner));
    done.for_each(|owner| {
        world.busy.remove(owner);
    });
    if polls != usize::MAX {
        let fresh = Rc::new(world.manager(manager)); // it crashed
        world.managers[manager] = fresh;
        world.counts.crashes += 1;
    }
}

async fn claim(
    world: &Shared,
    allocator: &Allocator,
    (network, requests): (NetworkId, &[AddressRequest]),
    (now, polls): (UnixTime, usize),
) {
    let answers = crash_after(polls, allocator.claim(network, requests, now)).await;
    let mut world = world.borrow_mut();
    let world = &mut *world;
    let Some(Ok(answers)) = unless_store_trouble(answers) else {
        for request in requests {
            world.counts.unsure += 1;
            world.doubtful.insert(request.owner.clone());
            if let Some(known @ Known::Nothing) = world.owners.get_mut(&request.owner) {
                *known = Known::Claiming;
            }
        }
        return;
    };
    for (request, answer) in requests.iter().zip(&answers) {
        match answer {
            Ok(lease) => world.granted(request, lease),
            Err(refusal) => world.refused(request, refusal),
        }
    }
}

async fn release(world: &Shared, allocator: &Allocator, leases: &[Lease], (now, polls): (UnixTime, usize)) {
    {
        let mut world = world.borrow_mut();
        for lease in leases {
            if let Some(Known::Has(_)) = world.owners.get(&lease.owner) {
                let holder = world.holders.remove(&lease.ip());
                assert_eq!(holder.as_ref(), Some(&lease.owner));
                let time = world.time;
                world.freed.insert(lease.ip(), time);
            }
        }
    }
    let answers = unless_store_trouble(crash_after(polls, allocator.release(leases, now)).await);
    let mut world = world.borrow_mut();
    for (at, lease) in leases.iter().enumerate() {
        let before = world.owners[&lease.owner].clone();
        let Some(Ok(answers)) = &answers else {
            world.counts.unsure += 1;
            world.owners.insert(lease.owner.clone(), Known::Releasing(lease.clone()));
            continue;
        };
        match (answers[at], before) {
            (Release::Done, _) => world.counts.released += 1,
            // One that is had can be gone too, if whoever did the work for several callers crashed; that nothing else
            // takes leases away, `look` shows.
            (Release::Gone, _) => world.counts.gone += 1,
            // The work was done by who crashed, and then a claim that was cut short came late: the owner has that now.
            (Release::Fenced { generation }, _) if world.doubtful.contains(&lease.owner) => {
                world.overtaken(lease, generation);
                continue;
            }
            (other, before) => panic!("release of {lease}, {before:?}: {other:?}"),
        }
        world.owners.insert(lease.owner.clone(), Known::Nothing);
        world.old.push(lease.clone());
    }
}

/// Who was released cannot release again, whoever has the address now.
async fn release_old(world: &Shared, manager: usize) {
    let (allocator, now, lease) = {
        let mut world = world.borrow_mut();
        let old = world.old.len();
        let at = world.dice.below(old);
        let Some(lease) = world.old.get(at).cloned() else { return };
        (Rc::clone(&world.managers[manager]), world.now(manager), lease)
    };
    let answer = unless_store_trouble(Some(allocator.release(std::slice::from_ref(&lease), now).await));
    let mut world = world.borrow_mut();
    match answer {
        Some(Ok(answers)) if matches!(answers[..], [Release::Fenced { .. }]) => world.counts.fenced += 1,
        Some(Ok(answers)) => assert_eq!(answers, [Release::Gone], "{lease} was released before"),
        _ => {}
    }
}

/// Two managers claim for one owner at once: both get the same.
async fn race(world: &Shared, manager: usize) {
    let (pair, now, network, owner, request) = {
        let mut world = world.borrow_mut();
        let Some(owner) = world.draw_owner() else { return };
        if matches!(world.owners[&owner], Known::Releasing(_)) {
            world.busy.remove(&owner);
            return;
        }
        let other = (manager + 1) % MANAGERS;
        let pair = [Rc::clone(&world.managers[manager]), Rc::clone(&world.managers[other])];
        let request = AddressRequest::any(owner.clone(), family_of(&owner));
        (pair, world.now(manager), world.network, owner, request)
    };
    let requests = std::slice::from_ref(&request);
    let (first, second) = both(pair[0].claim(network, requests, now), pair[1].claim(network, requests, now)).await;
    let mut world = world.borrow_mut();
    world.busy.remove(&owner);
    let mut leases = Vec::new();
    for answer in [first, second] {
        match unless_store_trouble(Some(answer)) {
            Some(Ok(answers)) => match &answers[0] {
                Ok(lease) => leases.push(lease.clone()),
                Err(refusal) => world.refused(&request, refusal),
            },
            _ => {
                world.doubtful.insert(owner.clone());
                if let Some(known @ Known::Nothing) = world.owners.get_mut(&owner) {
                    *known = Known::Claiming;
                }
            }
        }
    }
    if let Some(lease) = leases.first() {
        world.granted(&request, lease);
    }
    if let [first, second] = &leases[..] {
        assert_eq!(first, second, "one owner was given two addresses");
        world.counts.raced += 1;
    }
}

/// No more faults: everything is as it is known, what is left of crashes is found and taken back.
fn settle(mut world: World, memory: &MemoryStore) -> Counts {
    world.store.calm();
    let root = Prefix::new("ipam/").unwrap();
    block_on(overlay_core::Store::get(&world.store, &root.key("late").unwrap())).unwrap(); // late commits arrive
    let (node, config) = (NodeId::from_bytes([77; 16]), world.config.clone());
    let fresh = Allocator::new(Arc::new(memory.clone()), &root, node, config, [0; 32]).unwrap();
    let known = |known: &Known| matches!(known, Known::Has(_));
    let living: BTreeSet<LeaseOwner> =
        world.owners.iter().filter(|(_, of)| known(of)).map(|(owner, _)| owner.clone()).collect();

    let leases = block_on(fresh.leases(world.network)).unwrap();
    let addresses: BTreeSet<IpAddr> = leases.iter().map(Lease::ip).collect();
    assert_eq!(addresses.len(), leases.len(), "an address is leased twice");
    let by_owner: BTreeMap<&LeaseOwner, &Lease> = leases.iter().map(|lease| (&lease.owner, lease)).collect();
    for (owner, known) in &world.owners {
        match known {
            Known::Has(lease) => assert_eq!(by_owner.get(owner), Some(&lease), "a lease was lost"),
            Known::Nothing if world.doubtful.contains(owner) => {}
            Known::Nothing => assert_eq!(by_owner.get(owner), None, "a lease that nobody knows of"),
            Known::Claiming | Known::Releasing(_) => {}
        }
    }
    let audit = block_on(fresh.audit(world.network, &living)).unwrap();
    assert!(audit.lost.is_empty() && audit.unbacked.is_empty(), "{audit:?}");
    assert_eq!((audit.living, audit.living + audit.leaked.len()), (living.len(), leases.len()));
    world.counts.leaked = audit.leaked.len() as u64;
    let now = UnixTime::EPOCH + world.time + 2 * SKEW;
    assert_eq!(block_on(fresh.reclaim(world.network, &audit, now)).unwrap(), audit.leaked.len());
    assert!(block_on(fresh.audit(world.network, &living)).unwrap().is_clean());

    let usage = block_on(fresh.usage(world.network, now)).unwrap();
    let in_use: u128 = usage.iter().map(|of| of.usage.in_use).sum();
    assert_eq!(in_use, living.len() as u128);
    let awake = block_on(fresh.usage(world.network, now + 4 * REST)).unwrap();
    assert!(awake.iter().all(|of| of.usage.resting == 0), "what rests wakes");
    world.counts.stores = world.store.injected();
    world.counts
}

fn owners() -> BTreeMap<LeaseOwner, Known> {
    (0..OWNERS).map(|number| (LeaseOwner::new([number as u8, 7]).unwrap(), Known::Nothing)).collect()
}

fn family_of(owner: &LeaseOwner) -> IpFamily {
    if owner.as_bytes()[0].is_multiple_of(3) { IpFamily::V6 } else { IpFamily::V4 }
}

/// What the store is to blame for; anything else is a mistake of ours.
fn unless_store_trouble<T>(answer: Option<Result<T, IpamError>>) -> Option<Result<T, IpamError>> {
    match &answer {
        Some(Err(IpamError::Store(_) | IpamError::InDoubt(_) | IpamError::Contended { .. })) | None | Some(Ok(_)) => {
            answer
        }
        Some(Err(other)) => panic!("{other}"),
    }
}

/// Polls so many times, then drops the future: the process is gone in the midst of it.
async fn crash_after<T>(mut polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match polls.checked_sub(1) {
        None => Poll::Ready(None),
        Some(left) => {
            polls = left;
            future.as_mut().poll(context).map(Some)
        }
    })
    .await
}

async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut a, mut b) = (None, None);
    poll_fn(|context| {
        if a.is_none() {
            a = ready(first.as_mut().poll(context));
        }
        if b.is_none() {
            b = ready(second.as_mut().poll(context));
        }
        if a.is_some() && b.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (a.unwrap(), b.unwrap())
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[allow(clippy::disallowed_methods, reason = "how long to try is told by the environment")]
fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
