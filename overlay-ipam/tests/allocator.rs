//! One manager and its store: what is promised for subnets and addresses, one by one.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::testing::block_on;
use overlay_core::{Commit, IpFamily, MemoryStore, NetworkId, NodeId, Prefix, Protocol, Store, UnixTime, Vni};
use overlay_ipam::{
    AddressRequest, Allocator, ClaimError, ClaimRefusal, Config, Ipam, IpamError, LeaseOwner, PickOrder, Ports,
    Release, Reserved, SubnetError, SubnetRequest, Use, Vnis,
};

const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);

fn allocator(store: &MemoryStore, manager: u8) -> Allocator {
    let config = Config { rest: Duration::from_secs(60), skew: Duration::from_secs(5), ..Config::default() };
    let node = NodeId::from_bytes([manager; 16]);
    Allocator::new(Arc::new(store.clone()), &Prefix::new("ipam/").unwrap(), node, config, [0; 32]).unwrap()
}

fn network(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 16])
}

fn this(text: &str) -> SubnetRequest {
    SubnetRequest::this(text.parse().unwrap())
}

fn owner(text: &str) -> LeaseOwner {
    text.parse().unwrap()
}

fn any(text: &str) -> AddressRequest {
    AddressRequest::any(owner(text), IpFamily::V4)
}

fn exactly(text: &str, address: &str) -> AddressRequest {
    AddressRequest::this(owner(text), address.parse().unwrap())
}

fn refusal(answer: Result<overlay_ipam::Lease, ClaimError>) -> ClaimRefusal {
    match answer {
        Err(ClaimError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn managers_see_each_others_subnets_and_refuse_to_overlap_them() {
    let store = MemoryStore::default();
    let (a, b) = (allocator(&store, 1), allocator(&store, 2));
    let dynamic = [SubnetRequest::any(IpFamily::V4)];
    for number in 0..40_u8 {
        let manager = if number.is_multiple_of(2) { &a } else { &b };
        let subnets = block_on(manager.claim_subnets(network(number), &dynamic, NOW)).unwrap();
        assert_eq!(subnets[0].to_string(), format!("10.0.{number}.0/24"));
    }
    let refused = block_on(b.claim_subnets(network(99), &[this("10.0.7.128/25")], NOW));
    assert!(
        matches!(refused, Err(IpamError::Subnet(SubnetError::Overlaps { network: in_the_way, .. })) if in_the_way == network(7))
    );
    block_on(a.release_subnets(network(7), NOW)).unwrap();
    assert!(block_on(b.claim_subnets(network(99), &[this("10.0.7.128/25")], NOW)).is_ok());

    // A manager that was away for longer than changes are remembered, and one that begins anew.
    for number in 100..150 {
        block_on(b.claim_subnets(network(number), &dynamic, NOW)).unwrap();
    }
    let all = block_on(a.networks()).unwrap();
    assert_eq!(all, block_on(allocator(&store, 3).networks()).unwrap());
    assert_eq!(all.len(), 90);
}

#[test]
fn what_nodes_report_is_left_out_by_all_managers() {
    let store = MemoryStore::default();
    let (a, b) = (allocator(&store, 1), allocator(&store, 2));
    block_on(b.networks()).unwrap();
    let node = NodeId::from_bytes([7; 16]);
    block_on(a.report(node, &["10.0.0.0/23".parse().unwrap()])).unwrap();
    let claim = |manager: &Allocator, number| {
        block_on(manager.claim_subnets(network(number), &[SubnetRequest::any(IpFamily::V4)], NOW)).unwrap()[0]
            .to_string()
    };
    assert_eq!(claim(&b, 1), "10.0.2.0/24");
    block_on(a.report(node, &[])).unwrap();
    assert_eq!(claim(&b, 2), "10.0.0.0/24");
}

#[test]
fn a_network_grows_by_a_second_subnet_and_claims_go_on_there() {
    let store = MemoryStore::default();
    let (a, b) = (allocator(&store, 1), allocator(&store, 2));
    let small = [this("10.9.0.0/29")];
    block_on(a.claim_subnets(network(1), &small, NOW)).unwrap();
    let claim = |manager: &Allocator, name: &str| block_on(manager.claim_one(network(1), any(name), NOW));
    let names = ["a", "b", "c", "d", "e"];
    let addresses: Vec<IpAddr> = names.iter().map(|name| claim(&b, name).unwrap().ip()).collect();
    assert_eq!(addresses.first().unwrap().to_string(), "10.9.0.2", "the gateway has the first");
    let full = refusal(claim(&b, "f"));
    assert_eq!(full.to_string(), "10.9.0.0/29 is exhausted: 5 in use, 0 resting");
    let usage = block_on(b.usage(network(1), NOW)).unwrap();
    assert!(usage[0].warning && usage[0].usage.is_exhausted() && usage[0].usage.capacity == 5);

    let grown = [this("10.9.0.0/29"), this("10.9.1.0/29")];
    block_on(a.claim_subnets(network(1), &grown, NOW)).unwrap();
    assert_eq!(claim(&b, "f").unwrap().ip().to_string(), "10.9.1.2");
    assert_eq!(claim(&a, "a").unwrap().ip(), addresses[0], "who has one keeps it");
    assert_eq!(
        block_on(b.claim_subnets(network(1), &small, NOW)).unwrap().len(),
        2,
        "a late repetition changes nothing"
    );
    let other = block_on(a.claim_subnets(network(1), &[this("10.8.0.0/29")], NOW));
    assert!(matches!(other, Err(IpamError::Mismatch { number: 0, .. })));
}

#[test]
fn specific_addresses_are_leased_unless_taken_resting_or_reserved() {
    let store = MemoryStore::default();
    let manager = allocator(&store, 1);
    let subnets = [SubnetRequest {
        auxiliary: [("nas".parse().unwrap(), "10.9.0.9".parse().unwrap())].into(),
        ..this("10.9.0.0/24")
    }];
    block_on(manager.claim_subnets(network(1), &subnets, NOW)).unwrap();
    let claim = |name: &str, address: &str, now| block_on(manager.claim_one(network(1), exactly(name, address), now));
    let lease = claim("a", "10.9.0.7", NOW).unwrap();
    assert_eq!(claim("a", "10.9.0.7", NOW).unwrap(), lease);
    assert!(matches!(refusal(claim("b", "10.9.0.7", NOW)), ClaimRefusal::Taken { .. }));
    assert!(matches!(refusal(claim("a", "10.9.0.8", NOW)), ClaimRefusal::Other { .. }));
    for (address, why) in [
        ("10.9.0.0", Reserved::Network),
        ("10.9.0.1", Reserved::Gateway),
        ("10.9.0.9", Reserved::Auxiliary),
        ("10.9.0.255", Reserved::Broadcast),
        ("10.9.1.0", Reserved::Outside),
    ] {
        assert!(matches!(refusal(claim("b", address, NOW)), ClaimRefusal::Reserved { why: said, .. } if said == why));
    }
    assert!(matches!(refusal(claim("b", "fd00::1", NOW)), ClaimRefusal::NoSubnet { family: IpFamily::V6 }));
    block_on(manager.release(&[lease], NOW)).unwrap();
    let until = NOW + Duration::from_secs(65);
    assert!(matches!(refusal(claim("b", "10.9.0.7", NOW)), ClaimRefusal::Resting { until: said, .. } if said == until));
    assert_eq!(claim("b", "10.9.0.7", until).unwrap().generation, 2);
}

#[test]
fn random_addresses_are_spread_over_a_64_and_found_at_once() {
    let store = MemoryStore::default();
    let config = Config { order: PickOrder::Random, ..Config::default() };
    let (root, node) = (Prefix::new("ipam/").unwrap(), NodeId::from_bytes([1; 16]));
    let manager = Allocator::new(Arc::new(store), &root, node, config, [4; 32]).unwrap();
    block_on(manager.claim_subnets(network(1), &[this("fd00::/64")], NOW)).unwrap();
    let requests: Vec<_> = (0..64).map(|n| AddressRequest::any(owner(&n.to_string()), IpFamily::V6)).collect();
    let leases = block_on(manager.claim(network(1), &requests, NOW)).unwrap();
    let parts = leases.into_iter().map(|lease| match lease.unwrap().ip() {
        IpAddr::V6(address) => address.segments()[4] >> 12,
        IpAddr::V4(_) => panic!("IPv6 was asked for"),
    });
    let parts: BTreeSet<u16> = parts.collect();
    assert!(parts.len() > 10, "64 leases in {} of 16 parts", parts.len());
}

#[test]
fn vips_and_endpoints_keep_to_their_ranges() {
    let store = MemoryStore::default();
    let manager = allocator(&store, 1);
    let subnet = SubnetRequest {
        vips: Some("10.9.0.64/30".parse::<overlay_ipam::IpNet>().unwrap().into()),
        ..this("10.9.0.0/24")
    };
    block_on(manager.claim_subnets(network(1), &[subnet], NOW)).unwrap();
    let claim = |number: usize, purpose| {
        let request = AddressRequest { purpose, ..any(&number.to_string()) };
        block_on(manager.claim_one(network(1), request, NOW))
    };
    for number in 0..4 {
        assert_eq!(claim(number, Use::Vip).unwrap().ip().to_string(), format!("10.9.0.{}", 64 + number));
    }
    assert!(matches!(refusal(claim(4, Use::Vip)), ClaimRefusal::Exhausted { in_use: 4, resting: 0, .. }));
    for number in 10..10 + 249 {
        let address = claim(number, Use::Endpoint).unwrap().ip().to_string();
        assert!(!["10.9.0.64", "10.9.0.65", "10.9.0.66", "10.9.0.67"].contains(&&*address));
    }
    assert!(matches!(refusal(claim(999, Use::Endpoint)), ClaimRefusal::Exhausted { in_use: 249, .. }));
}

#[test]
fn a_restarted_or_another_manager_goes_on_where_the_last_was() {
    let store = MemoryStore::default();
    block_on(allocator(&store, 1).claim_subnets(network(1), &[this("10.9.0.0/24")], NOW)).unwrap();
    let mut seen = BTreeSet::new();
    for number in 0..50 {
        let manager = allocator(&store, 1); // begins anew for each
        let lease = block_on(manager.claim_one(network(1), any(&number.to_string()), NOW)).unwrap();
        block_on(manager.release(std::slice::from_ref(&lease), NOW)).unwrap();
        assert!(seen.insert(lease.ip()), "{lease} was used at once again");
    }
}

#[test]
fn a_released_network_leaves_nothing_behind() {
    let store = MemoryStore::default();
    let manager = allocator(&store, 1);
    let before = store.len();
    for _ in 0..3 {
        block_on(manager.claim_subnets(network(1), &[this("10.9.0.0/24"), this("fd00::/64")], NOW)).unwrap();
        let lease = block_on(manager.claim_one(network(1), any("a"), NOW)).unwrap();
        let still = block_on(manager.release_subnets(network(1), NOW));
        assert!(matches!(still, Err(IpamError::InUse { leases: 1, .. })));
        assert_eq!(block_on(manager.release(std::slice::from_ref(&lease), NOW)).unwrap(), [Release::Done]);
        block_on(manager.release_subnets(network(1), NOW)).unwrap();
        assert_eq!(store.len(), before + 1, "only how often the space changed");
        assert_eq!(block_on(manager.release(&[lease], NOW)).unwrap(), [Release::Gone]);
    }
}

#[test]
fn damaged_and_foreign_records_are_named_and_nothing_panics() {
    let store = MemoryStore::default();
    let manager = allocator(&store, 1);
    block_on(manager.claim_subnets(network(1), &[this("10.9.0.0/24")], NOW)).unwrap();
    block_on(manager.claim_one(network(1), any("a"), NOW)).unwrap();
    let listing = block_on(store.list(&Prefix::ALL)).unwrap();
    let mut refused = 0;
    for (key, entry) in &listing.entries {
        for record in [&b""[..], &[0xff], &[1], &[1; 100], &entry.value[..entry.value.len() - 1]] {
            block_on(store.commit(Commit::new().put(key.clone(), record.to_vec()))).unwrap();
            let fresh = allocator(&store, 2);
            let errors = [
                block_on(fresh.claim(network(1), &[any("a"), any("b")], NOW)).err(),
                block_on(fresh.claim_subnets(network(2), &[SubnetRequest::any(IpFamily::V4)], NOW)).err(),
                block_on(fresh.leases(network(1))).err(),
            ];
            refused += errors
                .iter()
                .flatten()
                .filter(|error| matches!(error, IpamError::Corrupt { key: named, .. } if named == key))
                .count();
            let current = block_on(store.list(&Prefix::ALL)).unwrap();
            let back = current.entries.iter().fold(Commit::new(), |commit, (key, _)| {
                match listing.entries.iter().any(|(of, _)| of == key) {
                    true => commit,
                    false => commit.delete(key.clone()),
                }
            });
            let back =
                listing.entries.iter().fold(back, |commit, (key, entry)| commit.put(key.clone(), entry.value.clone()));
            block_on(store.commit(back)).unwrap();
        }
    }
    assert!(refused > 12, "{refused}");
}

#[test]
fn a_network_whose_subnets_cannot_be_is_damaged() {
    let v4 = |first: [u8; 4], len: u8| [&[4][..], &[0; 12], &first, &[len, 0, 0, 0, 0, 0, 0]].concat();
    let record =
        |subnets: &[Vec<u8>]| [&[1][..], &[0, 0, 0, 0, 0, 0, 0, 1, subnets.len() as u8], &subnets.concat()].concat();
    let whole = [&[6][..], &[0; 16], &[0, 0, 0, 0, 0, 0, 0]].concat();
    let many: Vec<Vec<u8>> = (0..255).map(|number| v4([10, 9, number, 0], 24)).collect();
    let good = record(&[v4([10, 9, 0, 0], 24), v4([10, 9, 1, 0], 24)]);
    let bad = [
        record(&many),
        record(&[v4([10, 9, 0, 0], 16), v4([10, 9, 1, 0], 24)]),
        record(&[whole]),
        record(&[v4([0; 4], 0)]),
    ];
    let claim = |record: Vec<u8>, family| {
        let store = MemoryStore::default();
        let key = Prefix::new("ipam/sn").unwrap().key([1; 16]).unwrap();
        block_on(store.commit(Commit::new().put(key, record))).unwrap();
        block_on(allocator(&store, 1).claim_one(network(1), AddressRequest::any(owner("a"), family), NOW))
    };
    assert!(claim(good, IpFamily::V4).is_ok());
    for record in bad {
        for family in [IpFamily::V4, IpFamily::V6] {
            let answer = claim(record.clone(), family);
            assert!(matches!(answer, Err(ClaimError::Failed(IpamError::Corrupt { .. }))), "{answer:?}");
        }
    }
    for net in ["0.0.0.0/0", "::/0"] {
        let refused = block_on(allocator(&MemoryStore::default(), 1).claim_subnets(network(1), &[this(net)], NOW));
        assert!(matches!(refused, Err(IpamError::Subnet(SubnetError::Request(_)))), "{refused:?}");
    }
}

#[test]
fn owners_with_long_keys_and_far_ends_of_the_address_space_work() {
    let store = MemoryStore::default();
    let manager = allocator(&store, 1);
    let far = ["fdff:ffff:ffff:ffff:ffff:ffff:ffff:fff8/125", "223.255.255.248/29", "1000::/4"];
    block_on(manager.claim_subnets(network(1), &far.map(this), NOW)).unwrap();
    let long = |number: u8| LeaseOwner::new([number; 256]).unwrap();
    for (number, family) in [(1, IpFamily::V6), (2, IpFamily::V4)] {
        let lease = block_on(manager.claim_one(network(1), AddressRequest::any(long(number), family), NOW)).unwrap();
        assert_eq!(lease.owner, long(number));
    }
    let last = "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let lease = block_on(manager.claim_one(network(1), exactly("end", last), NOW)).unwrap();
    assert_eq!(lease.ip().to_string(), last);
    for time in [UnixTime::EPOCH, UnixTime::from_millis(u64::MAX), UnixTime::EPOCH] {
        block_on(manager.release(std::slice::from_ref(&lease), time)).unwrap();
        let _ = block_on(manager.claim_one(network(1), exactly("end", last), time));
    }
}

#[test]
fn many_callers_of_one_manager_get_subnets_and_addresses_at_once_and_give_them_back() {
    let folder = std::env::temp_dir().join(format!("overlay-ipam-callers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let store: Arc<dyn Store> = Arc::new(overlay_store::RedbStore::open(folder.join("catalogue")).unwrap());
    let node = NodeId::from_bytes([1; 16]);
    let manager = Allocator::new(store, &Prefix::ALL, node, Config::default(), [0; 32]).unwrap();
    let shared = network(200);
    block_on(manager.claim_subnets(shared, &[this("10.200.0.0/16")], NOW)).unwrap();
    let work = |number: u8| {
        let subnets = [SubnetRequest::any(IpFamily::V4)];
        let subnet = block_on(manager.claim_subnets(network(number), &subnets, NOW)).unwrap().remove(0).net();
        let lease = block_on(manager.claim_one(shared, any(&format!("n{number}")), NOW)).unwrap();
        let ip = lease.ip();
        if number.is_multiple_of(2) {
            assert_eq!(block_on(manager.release(&[lease], NOW)).unwrap(), [Release::Done]);
            block_on(manager.release_subnets(network(number), NOW)).unwrap();
        }
        (subnet, ip)
    };
    let done: Vec<(overlay_ipam::IpNet, IpAddr)> = std::thread::scope(|scope| {
        let (work, numbers) = (&work, 0..64);
        #[expect(clippy::needless_collect, reason = "all begin before the first is waited for")]
        let callers: Vec<_> = numbers.map(|number| scope.spawn(move || work(number))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(done.iter().map(|(_, ip)| ip).collect::<BTreeSet<_>>().len(), 64, "each has its own, or rests");
    let networks = block_on(manager.networks()).unwrap();
    assert_eq!(networks.len(), 33);
    let subnets: BTreeSet<_> = networks.iter().map(|(_, subnets)| subnets[0].net()).collect();
    assert_eq!(subnets.len(), 33, "no two have the same");
    assert_eq!(block_on(manager.leases(shared)).unwrap().len(), 32);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn many_callers_of_one_manager_get_vnis_and_ports_at_once_and_none_is_refused_for_the_others() {
    let folder = std::env::temp_dir().join(format!("overlay-ipam-numbers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let store: Arc<dyn Store> = Arc::new(overlay_store::RedbStore::open(folder.join("catalogue")).unwrap());
    let node = NodeId::from_bytes([1; 16]);
    let vnis = Vnis::new(Arc::clone(&store), &Prefix::new("vni/").unwrap(), node, Duration::from_secs(60)).unwrap();
    let ports = Ports::new(store, &Prefix::new("port/").unwrap(), node, Duration::ZERO).unwrap();
    let claim = |number: u8| {
        let owner = owner(&format!("n{number}"));
        let vni = block_on(vnis.claim(&owner, None, NOW)).unwrap();
        let port = block_on(ports.claim(Protocol::Tcp, &owner, None, NOW)).unwrap();
        let again = block_on(vnis.claim(&owner, None, NOW)).unwrap();
        assert_eq!(again, vni);
        if number.is_multiple_of(2) {
            assert_eq!(block_on(ports.release(Protocol::Tcp, &port, NOW)).unwrap(), Release::Done);
        }
        vni.item
    };
    let claimed: Vec<Vni> = std::thread::scope(|scope| {
        let claim = &claim;
        #[expect(clippy::needless_collect, reason = "all begin before the first is waited for")]
        let callers: Vec<_> = (0..64).map(|number| scope.spawn(move || claim(number))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), 64, "each has its own");
    assert_eq!(block_on(vnis.usage(NOW)).unwrap().in_use, 64);
    assert_eq!(block_on(ports.leases(Protocol::Tcp)).unwrap().len(), 32);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn vnis_rest_too_and_chosen_ones_may_be_below_the_range() {
    let node = NodeId::from_bytes([1; 16]);
    let vnis = Vnis::new(Arc::new(MemoryStore::default()), &Prefix::ALL, node, Duration::from_secs(60)).unwrap();
    let low = block_on(vnis.claim(&owner("low"), Some(Vni::MIN), NOW)).unwrap();
    let high = block_on(vnis.claim(&owner("high"), Some(Vni::MAX), NOW)).unwrap();
    assert_eq!((low.item, high.item), (Vni::MIN, Vni::MAX));
    let first = block_on(vnis.claim(&owner("a"), None, NOW)).unwrap();
    assert_eq!(block_on(vnis.release(&first, NOW)).unwrap(), Release::Done);
    assert_eq!(block_on(vnis.release(&first, NOW)).unwrap(), Release::Gone);
    assert_ne!(block_on(vnis.claim(&owner("b"), None, NOW)).unwrap().item, first.item);
    assert_eq!(block_on(vnis.leases()).unwrap().len(), 3);
    assert_eq!(block_on(vnis.usage(NOW)).unwrap().in_use, 2, "of those that are handed out");
}
