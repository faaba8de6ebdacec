//! For tests of stores and of other allocators (feature `testing`).

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use overlay_core::testing::Dice;
use overlay_core::{IpFamily, NetworkId, NodeId, Prefix, Store, UnixTime};
use proptest::prelude::*;

use crate::ledger::block::Block;
use crate::ledger::record::{Held, Holds};
use crate::{
    AddressRange, AddressRequest, Allocator, Config, Ipam, IpamError, Lease, LeaseOwner, Release, SubnetRequest,
};

/// Ranges of addresses of both families, from one address to all there are.
pub fn address_range() -> impl Strategy<Value = AddressRange> {
    let v4 = any::<[u32; 2]>().prop_map(|[a, b]| (IpFamily::V4, a.min(b).into(), a.max(b).into()));
    let v6 = any::<[u128; 2]>().prop_map(|[a, b]| (IpFamily::V6, a.min(b), a.max(b)));
    let of = |(family, first, last)| {
        AddressRange::new(crate::range::address(family, first), crate::range::address(family, last)).ok()
    };
    prop_oneof![v4, v6].prop_filter_map("a range", of)
}

/// Lets a manager on each of `stores`, handles on one store, claim and release at the same time, and gives how many
/// claims were made. The stores must not fail; under `root` nothing may be.
///
/// # Panics
/// If an address is leased twice, lost, or not what its owner was told.
pub async fn managers_agree(stores: Vec<Arc<dyn Store>>, root: &Prefix, rounds: u32) -> u64 {
    let network = NetworkId::from_bytes([3; 16]);
    let config = Config { rest: Duration::from_secs(5), skew: Duration::from_secs(1), ..Config::default() };
    let managers = stores.into_iter().zip(1_u8..).map(|(store, number)| {
        let manager = NodeId::from_bytes([number; 16]);
        Allocator::new(store, root, manager, config.clone(), [number; 32])
    });
    let Ok(managers) = managers.collect::<Result<Vec<_>, _>>() else { panic!("the root is too long") };
    let subnets = ["10.3.0.0/22", "fd00:3::/64"].map(|text| text.parse().map(SubnetRequest::this));
    let subnets: Vec<SubnetRequest> = subnets.into_iter().flatten().collect();
    assert!(managers.len() > 1 && subnets.len() == 2, "two managers at least");

    let work = managers.iter().zip(0_u8..).map(|(manager, number)| {
        let subnets = &subnets;
        async move { work(manager, network, subnets, (number, rounds)).await }
    });
    let held = all(work.collect()).await;
    let claims = held.iter().map(|(claims, _)| claims).sum();
    let had: Vec<Lease> = held.into_iter().flat_map(|(_, leases)| leases).collect();

    let owners: BTreeSet<LeaseOwner> = had.iter().map(|lease| lease.owner.clone()).collect();
    let addresses: BTreeSet<_> = had.iter().map(Lease::ip).collect();
    assert_eq!(addresses.len(), had.len(), "an address was leased twice");
    let audit = managers[0].audit(network, &owners).await;
    assert!(audit.as_ref().is_ok_and(|audit| audit.is_clean() && audit.living == had.len()), "{audit:?}");
    claims
}

/// Again where others were faster too often, which changes nothing. It may happen to one of many calls; that it happens to
/// one call time and again is a mistake.
macro_rules! at_last {
    ($call:expr) => {{
        let mut answer = $call.await;
        for _ in 0..AGAIN {
            if !matches!(answer, Err(IpamError::Contended { .. })) {
                break;
            }
            answer = $call.await;
        }
        answer
    }};
}

/// How often a call that was [`Contended`](IpamError::Contended) is made again.
const AGAIN: usize = 3;

async fn work(
    manager: &Allocator,
    network: NetworkId,
    subnets: &[SubnetRequest],
    (number, rounds): (u8, u32),
) -> (u64, Vec<Lease>) {
    let mut now = UnixTime::from_millis(1_767_225_600_000);
    let claimed = manager.claim_subnets(network, subnets, now).await;
    assert!(claimed.is_ok(), "{claimed:?}");
    let mut dice = Dice::new([number; 32]);
    let (mut claims, mut made) = (0, 0_u32);
    let mut held: BTreeMap<LeaseOwner, Lease> = BTreeMap::new();
    for _ in 0..rounds {
        now = now + Duration::from_millis(500);
        let requests: Vec<AddressRequest> = (0..1 + dice.below(20))
            .filter_map(|_| {
                made += 1;
                let owner = LeaseOwner::new([&[number][..], &made.to_be_bytes()].concat()).ok()?;
                let family = if dice.one_in(3) { IpFamily::V6 } else { IpFamily::V4 };
                Some(AddressRequest::any(owner, family))
            })
            .collect();
        let answers = at_last!(manager.claim(network, &requests, now));
        let Ok(answers) = answers else { panic!("{answers:?}") };
        for lease in answers.into_iter().flatten() {
            claims += 1;
            held.insert(lease.owner.clone(), lease);
        }
        let back: Vec<Lease> = held.values().filter(|_| dice.one_in(3)).cloned().collect();
        let released = at_last!(manager.release(&back, now));
        assert!(released.as_ref().is_ok_and(|all| all.iter().all(|of| *of == Release::Done)), "{released:?}");
        back.iter().for_each(|lease| {
            held.remove(&lease.owner);
        });
        let again = at_last!(manager.release(&back, now));
        assert!(again.as_ref().is_ok_and(|all| all.iter().all(|of| *of == Release::Gone)), "{again:?}");
    }
    (claims, held.into_values().collect())
}

/// Awaits all of them at once.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs).filter(|(_, output)| output.is_none()) {
            if let Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// Reads any bytes as every record there is, and writes what they mean again: for fuzzing.
///
/// # Panics
/// If what was read is not read again from what is written.
pub fn reread_records(bytes: &[u8]) {
    for size in [1, 64, 100, 2048] {
        if let Ok(block) = Block::parse(bytes, size) {
            assert_eq!(Block::parse(&block.encode(), size), Ok(block));
        }
    }
    if let Ok(held) = Held::parse(bytes) {
        assert_eq!(Held::parse(&held.encode()), Ok(held));
    }
    if let Ok(holds) = Holds::parse(bytes) {
        assert_eq!(Holds::parse(&holds.encode()), Ok(holds));
    }
    crate::allocator::record::reread(bytes);
}
