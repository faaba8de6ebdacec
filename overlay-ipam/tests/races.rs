//! What happens between two steps of a call, made to happen.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use overlay_core::testing::block_on;
use overlay_core::{
    Commit, CommitError, IpFamily, Key, Limits, Listing, MemoryStore, NetworkId, NodeId, Prefix, Reading, Revision,
    Store, StoreError, UnixTime, Watch,
};
use overlay_ipam::{AddressRequest, Allocator, Config, Ipam, IpamError, Lease, Release, SubnetRequest};

const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);
const NETWORK: NetworkId = NetworkId::from_bytes([1; 16]);

/// A store of which a test says what comes before the next commit or listing, and what becomes of commits.
#[derive(Clone)]
struct Staged {
    inner: MemoryStore,
    plan: Arc<Mutex<Plan>>,
}

type Scene = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Plan {
    before_commit: Option<Scene>,
    /// After so many listings.
    after_listing: Option<(usize, Scene)>,
    /// The next commit loses its answer and is kept, and then nothing answers.
    cuts: bool,
    is_cut: bool,
    kept: Option<Commit>,
    /// The next commit is done, and loses its answer.
    loses: bool,
}

impl Staged {
    fn on(inner: &MemoryStore) -> Self {
        Self { inner: inner.clone(), plan: Arc::default() }
    }

    fn plan(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.plan.lock().unwrap());
    }

    fn manager(&self, number: u8) -> Allocator {
        let node = NodeId::from_bytes([number; 16]);
        Allocator::new(Arc::new(self.clone()), &Prefix::ALL, node, Config::default(), [number; 32]).unwrap()
    }

    fn answers(&self) -> Result<(), StoreError> {
        match self.plan.lock().unwrap().is_cut {
            true => Err(gone()),
            false => Ok(()),
        }
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable { doing: "anything", source: "the way is cut".into() }
}

#[async_trait]
impl Store for Staged {
    async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        self.answers()?;
        self.inner.read(keys).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.answers()?;
        let listing = self.inner.list(prefix).await;
        let mut plan = self.plan.lock().unwrap();
        let scene = match plan.after_listing.take() {
            Some((0, scene)) => Some(scene),
            Some((left, scene)) => {
                plan.after_listing = Some((left - 1, scene));
                None
            }
            None => None,
        };
        drop(plan);
        scene.into_iter().for_each(|scene| scene());
        listing
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        self.answers()?;
        let scene = self.plan.lock().unwrap().before_commit.take();
        scene.into_iter().for_each(|scene| scene());
        let (cuts, loses) = {
            let mut plan = self.plan.lock().unwrap();
            (std::mem::take(&mut plan.cuts), std::mem::take(&mut plan.loses))
        };
        if cuts {
            self.plan(|plan| (plan.is_cut, plan.kept) = (true, Some(commit)));
            return Err(CommitError::Ambiguous(gone()));
        }
        let done = self.inner.commit_now(commit)?;
        if loses { Err(CommitError::Ambiguous(gone())) } else { Ok(done) }
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix, from).await
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

fn any(owner: &str) -> AddressRequest {
    AddressRequest::any(owner.parse().unwrap(), IpFamily::V4)
}

/// Two managers, each with a way of its own to one store, in which the network has a /16.
fn two() -> (MemoryStore, [Staged; 2], [Allocator; 2]) {
    let memory = MemoryStore::default();
    let ways = [Staged::on(&memory), Staged::on(&memory)];
    let managers = [ways[0].manager(1), ways[1].manager(2)];
    let subnet = [SubnetRequest::this("10.9.0.0/16".parse().unwrap())];
    for manager in &managers {
        block_on(manager.claim_subnets(NETWORK, &subnet, NOW)).unwrap();
    }
    (memory, ways, managers)
}

fn claim(manager: &Allocator, owner: &str) -> Lease {
    block_on(manager.claim_one(NETWORK, any(owner), NOW)).unwrap()
}

fn release(manager: &Allocator, lease: &Lease) -> Release {
    block_on(manager.release(std::slice::from_ref(lease), NOW)).unwrap().remove(0)
}

#[test]
fn a_claim_that_comes_late_after_its_owner_has_released_fences_the_repeated_release() {
    let (memory, [first_way, _], [first, second]) = two();
    claim(&first, "holds a block"); // so that the two claims below are in two blocks: in one, either would undo the other
    first_way.plan(|plan| plan.cuts = true);
    let lost = block_on(first.claim_one(NETWORK, any("a"), NOW));
    assert!(matches!(lost, Err(overlay_ipam::ClaimError::Failed(IpamError::InDoubt(_)))), "{lost:?}");

    let lease = claim(&second, "a");
    assert_eq!(release(&second, &lease), Release::Done);
    let late = first_way.plan.lock().unwrap().kept.take().unwrap();
    memory.commit_now(late).unwrap();

    let Release::Fenced { generation } = release(&second, &lease) else { panic!("the late lease is another") };
    let held = block_on(second.leases(NETWORK)).unwrap();
    let of_a: Vec<&Lease> = held.iter().filter(|held| held.owner == lease.owner).collect();
    assert_eq!(of_a.len(), 1, "one owner, one lease");
    assert_eq!(of_a[0].generation, generation);
    assert_ne!(of_a[0].ip(), lease.ip());
    assert_eq!(claim(&second, "a"), *of_a[0], "claiming again finds it");
    let living = BTreeSet::from(["holds a block".parse().unwrap()]);
    let audit = block_on(second.audit(NETWORK, &living)).unwrap();
    assert_eq!(audit.leaked, [of_a[0].clone()], "an audit finds what nobody knows of");
    assert_eq!(block_on(second.reclaim(NETWORK, &audit, NOW)).unwrap(), 1);
    assert_eq!(release(&second, &lease), Release::Gone);
}

#[test]
fn of_two_managers_that_release_a_lease_at_once_one_has_done_it() {
    let (_, [first_way, _], [first, second]) = two();
    let (lease, second) = (claim(&first, "a"), Arc::new(second));
    let (other, theirs) = (Arc::clone(&second), lease.clone());
    first_way.plan(|plan| {
        plan.before_commit = Some(Box::new(move || assert_eq!(release(&other, &theirs), Release::Done)));
    });
    assert_eq!(release(&first, &lease), Release::Gone, "the other was faster, and nothing was lost");
}

#[test]
fn a_release_whose_answer_was_lost_is_done_by_it() {
    let (_, [way, _], [manager, _]) = two();
    let lease = claim(&manager, "a");
    way.plan(|plan| plan.loses = true);
    assert_eq!(release(&manager, &lease), Release::Done);
    assert_eq!(release(&manager, &lease), Release::Gone);
}

#[test]
fn what_is_claimed_and_released_during_an_audit_is_no_contradiction() {
    for listings in 0..8 {
        let (_, [way, _], [manager, second]) = two();
        let (old, second) = (claim(&second, "old"), Arc::new(second));
        let scene = move || {
            claim(&second, "new");
            assert_eq!(release(&second, &old), Release::Done);
        };
        way.plan(|plan| plan.after_listing = Some((listings, Box::new(scene))));
        let living = ["old", "new"].map(|owner| owner.parse().unwrap()).into();
        let audit = block_on(manager.audit(NETWORK, &living)).unwrap();
        assert!(audit.lost.is_empty() && audit.unbacked.is_empty(), "after {listings} listings: {audit:?}");
    }
}
