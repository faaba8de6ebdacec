//! Address sets, subnets and leases.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use overlay_bench::{Bench, Pace};
use overlay_core::testing::block_on;
use overlay_core::{IpFamily, MemoryStore, NetworkId, NodeId, Prefix, Store, UnixTime};
use overlay_ipam::{
    AddressRange, AddressRequest, AddressSet, Allocator, Config, IpNet, Ipam, Lease, LeaseOwner, Order, Pool, Subnet,
    SubnetRequest, Subnets,
};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    sets(bench)?;
    subnets(bench)?;
    leases(bench)?;
    crate::ipam_commits::run(bench)?;
    crate::ipam_durable::run(bench)
}

/// How many live addresses there are in the large cases.
pub(crate) const MILLION: u32 = 1 << 20;

fn sets(bench: &mut Bench<'_>) -> io::Result<()> {
    fill(bench, "ipam/set-fill-16", window("10.0.0.0/16", 1 << 16))?;
    fill(bench, "ipam/set-fill-8-1m", window("10.0.0.0/8", MILLION))?;
    let small = |share| (window("10.0.0.0/16", 1 << 16), share);
    let large = |share| (window("10.0.0.0/8", MILLION), share);
    churn(bench, "ipam/set-churn-16-50", small(0.5))?;
    churn(bench, "ipam/set-churn-16-90", small(0.9))?;
    churn(bench, "ipam/set-churn-16-99.9", small(0.999))?;
    churn(bench, "ipam/set-churn-8-1m-50", large(0.5))?;
    churn(bench, "ipam/set-churn-8-1m-90", large(0.9))?;
    churn(bench, "ipam/set-churn-8-1m-99.9", large(0.999))?;
    churn_v6(bench)?;
    let bytes = || {
        let mut set = AddressSet::new(net("10.0.0.0/8"));
        for _ in 0..(1_u32 << 24) / 10 * 9 {
            black_box(set.claim_next(Order::NextFit));
        }
        set.bytes()
    };
    bench.figure("ipam/set-bytes-8", "bytes").value(bytes() as f64).report()
}

/// A range of so many addresses at the beginning of a subnet.
fn window(subnet: &str, count: u32) -> (IpNet, AddressRange) {
    let subnet = net(subnet);
    let first = subnet.network();
    let IpAddr::V4(start) = first else { return (subnet, first.into()) };
    let last = Ipv4Addr::from(u32::from(start) + (count - 1));
    (subnet, AddressRange::new(first, last.into()).unwrap_or_else(|_| first.into()))
}

fn fill(bench: &mut Bench<'_>, name: &'static str, (subnet, within): (IpNet, AddressRange)) -> io::Result<()> {
    let count = count_of(within);
    let figure = bench.figure(name, "claims/s").rate(move || {
        let mut set = AddressSet::new(subnet);
        (0..count).filter(|_| black_box(set.claim_next_in(within, Order::NextFit)).is_some()).count() as u64
    });
    figure
        .yardstick_rate("flat bitmap", move || {
            let mut flat = Flat::new(count);
            (0..count).filter(|_| black_box(flat.claim()).is_some()).count() as u64
        })
        .report()
}

/// Releases an address drawn from the live ones, claims the next free one. Live addresses are kept as 4 bytes each, for
/// the set and for its yardstick: as `IpAddr` a million of them take 17 MB, and the draws, not the set, would be measured.
fn churn(
    bench: &mut Bench<'_>,
    name: &'static str,
    ((subnet, within), share): ((IpNet, AddressRange), f64),
) -> io::Result<()> {
    let count = count_of(within);
    let used = (f64::from(count) * share) as u32;
    let mut set = AddressSet::new(subnet);
    let mut live: Vec<u32> =
        (0..used).filter_map(|_| set.claim_next_in(within, Order::NextFit)).map(v4_number).collect();
    let mut flat = Flat::new(count);
    let mut flat_live: Vec<u32> = (0..used).filter_map(|_| flat.claim()).collect();
    let (mut dice, mut flat_dice) = (Dice(7), Dice(7));
    let figure = bench.figure(name, "pairs/s").rate(move || {
        for _ in 0..PAIRS {
            let slot = &mut live[dice.below(used) as usize];
            set.release(Ipv4Addr::from(*slot).into());
            if let Some(address) = set.claim_next_in(within, Order::NextFit) {
                *slot = v4_number(address);
            }
        }
        PAIRS
    });
    let pairs = if share > 0.99 { PAIRS / 16 } else { PAIRS };
    figure
        .yardstick_rate("flat bitmap", move || {
            for _ in 0..pairs {
                let slot = &mut flat_live[flat_dice.below(used) as usize];
                flat.release(*slot);
                if let Some(number) = flat.claim() {
                    *slot = number;
                }
            }
            pairs
        })
        .report()
}

fn v4_number(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(_) => 0,
    }
}

fn low_half(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(address) => u128::from(address) as u64,
    }
}

fn churn_v6(bench: &mut Bench<'_>) -> io::Result<()> {
    let mut set = AddressSet::new(net("fd00::/64"));
    let all: Vec<IpAddr> = (0..MILLION).filter_map(|_| set.claim_next(Order::NextFit)).collect();
    // As the low half of the address, 8 bytes each.
    let mut live: Vec<u64> = all.into_iter().map(low_half).collect();
    let high = u128::from(0xfd00_u16) << 112;
    let mut dice = Dice(7);
    let churn = move || {
        for _ in 0..PAIRS {
            let slot = &mut live[dice.below(MILLION) as usize];
            set.release(Ipv6Addr::from(high | u128::from(*slot)).into());
            if let Some(address) = set.claim_next(Order::NextFit) {
                *slot = low_half(address);
            }
        }
        PAIRS
    };
    bench.figure("ipam/set-churn-v6-64", "pairs/s").rate(churn).report()
}

fn subnets(bench: &mut Bench<'_>) -> io::Result<()> {
    let request = SubnetRequest::any(IpFamily::V4);
    let count = if bench.pace() == Pace::Quick { 5_000 } else { 50_000 };
    let filled = |count: u32| {
        let mut subnets = Subnets::new(Pool::global());
        let all: Vec<Subnet> = (0..count).filter_map(|n| subnets.claim(id(n), &request).ok()).collect();
        (subnets, all)
    };
    bench.figure("ipam/subnet-claim-50k", "claims/s").rate(|| filled(count).1.len() as u64).report()?;
    let (mut subnets, mut all) = filled(count);
    let mut dice = Dice(3);
    let churn = || {
        for _ in 0..10_000 {
            let at = dice.below(count);
            subnets.release(id(at), &all[at as usize]);
            if let Ok(subnet) = subnets.claim(id(at), &request) {
                all[at as usize] = subnet;
            }
        }
        10_000
    };
    bench.figure("ipam/subnet-churn-50k", "pairs/s").rate(churn).report()
}

fn leases(bench: &mut Bench<'_>) -> io::Result<()> {
    let quick = bench.pace() == Pace::Quick;
    let million = if quick { 60_000 } else { MILLION };
    let cases = [
        ("ipam/lease-churn-16-90", "ipam/lease-churn-16-90-batched", "10.0.0.0/16", 65_536),
        ("ipam/lease-churn-8-1m-90", "ipam/lease-churn-8-1m-90-batched", "10.0.0.0/8", million),
        ("ipam/lease-churn-v6-64-90", "ipam/lease-churn-v6-64-90-batched", "fd00::/64", million),
    ];
    for (single, batched, subnet, live) in cases {
        let live = live / 10 * 9;
        lease_churn(bench, single, (subnet, live), 1)?;
        lease_churn(bench, batched, (subnet, live), 512)?;
    }
    Ok(())
}

/// Releases a random lease and claims one for a new owner, in batches of `batch`.
fn lease_churn(bench: &mut Bench<'_>, name: &'static str, (subnet, count): (&str, u32), batch: u32) -> io::Result<()> {
    let mut world = Leases::new(Arc::new(MemoryStore::default()), subnet, count);
    let mut map = owners(count);
    let (mut dice, mut next) = (Dice(5), count);
    let rounds = 4096 / batch;
    let figure = bench.figure(name, "pairs/s").rate(move || world.churn(rounds, batch));
    figure.yardstick_rate("BTreeMap of owners", move || map_churn(&mut map, &mut dice, &mut next)).report()
}

/// Takes a random owner out of a map and puts in a new one, 4,096 times.
pub(crate) fn map_churn(map: &mut BTreeMap<[u8; 16], u32>, dice: &mut Dice, next: &mut u32) -> u64 {
    let count = map.len() as u32;
    for _ in 0..4096 {
        let at = u64::from(dice.below(count));
        if let Some((owner, _)) = map.range(key(at)..).next().map(|(owner, address)| (*owner, *address)) {
            map.remove(&owner);
        }
        *next += 1;
        map.insert(key((*next).into()), *next);
    }
    4096
}

/// An allocator with live leases of one network.
pub(crate) struct Leases {
    allocator: Allocator,
    family: IpFamily,
    live: Vec<Lease>,
    now: UnixTime,
    owners: u64,
    dice: Dice,
}

impl Leases {
    pub(crate) fn new(store: Arc<dyn Store>, subnet: &str, count: u32) -> Self {
        let request = SubnetRequest::this(net(subnet));
        let (root, node) = (Prefix::ALL, NodeId::from_bytes([1; 16]));
        let config = Config { rest: Duration::from_secs(10), skew: Duration::from_secs(1), ..Config::default() };
        let allocator = Allocator::new(store, &root, node, config, [1; 32]);
        let Ok(allocator) = allocator else { unreachable!("an empty root is short enough") };
        let now = UnixTime::from_millis(1_767_225_600_000);
        let claimed = block_on(allocator.claim_subnets(id(0), std::slice::from_ref(&request), now));
        assert!(claimed.is_ok(), "{claimed:?}");
        let family = request.family();
        let mut world = Self { allocator, family, live: Vec::new(), now, owners: 0, dice: Dice(9) };
        while (world.live.len() as u32) < count {
            let some = (count - world.live.len() as u32).min(4096);
            let claimed = world.claim(some);
            world.live.extend(claimed);
        }
        world
    }

    fn claim(&mut self, count: u32) -> Vec<Lease> {
        let requests: Vec<AddressRequest> = (0..count).map(|_| self.request()).collect();
        let answers = block_on(self.allocator.claim(id(0), &requests, self.now));
        let Ok(answers) = answers else { panic!("{answers:?}") };
        let granted: Vec<Lease> = answers.into_iter().filter_map(Result::ok).collect();
        assert_eq!(granted.len(), requests.len(), "the subnet ran out");
        granted
    }

    fn request(&mut self) -> AddressRequest {
        self.owners += 1;
        let Ok(owner) = LeaseOwner::new(key(self.owners)) else { unreachable!("16 bytes are an owner") };
        AddressRequest::any(owner, self.family)
    }

    /// So many rounds of `batch` pairs; a pair takes a millisecond of the records' time, so that some thousand rest.
    fn churn(&mut self, rounds: u32, batch: u32) -> u64 {
        for _ in 0..rounds {
            self.now = self.now + Duration::from_millis(batch.into()) * 5;
            let mut gone = Vec::with_capacity(batch as usize);
            for _ in 0..batch {
                let at = self.dice.below(self.live.len() as u32) as usize;
                gone.push(self.live.swap_remove(at));
            }
            let released = block_on(self.allocator.release(&gone, self.now));
            assert!(released.is_ok(), "{released:?}");
            let claimed = self.claim(batch);
            self.live.extend(claimed);
        }
        u64::from(rounds * batch)
    }
}

/// A bitmap that is searched word by word from where the last was found.
struct Flat {
    words: Vec<u64>,
    cursor: usize,
}

impl Flat {
    fn new(count: u32) -> Self {
        Self { words: vec![0; count as usize / 64], cursor: 0 }
    }

    fn claim(&mut self) -> Option<u32> {
        let len = self.words.len();
        let mask = u64::MAX << (self.cursor & 63);
        for step in 0..=len {
            let at = (self.cursor / 64 + step) % len;
            let free = !self.words[at] & if step == 0 { mask } else { u64::MAX };
            if free != 0 {
                let bit = free.trailing_zeros();
                self.words[at] |= 1 << bit;
                let found = at * 64 + bit as usize;
                self.cursor = (found + 1) % (len * 64);
                return Some(found as u32);
            }
        }
        None
    }

    fn release(&mut self, number: u32) {
        self.words[number as usize / 64] &= !(1 << (number % 64));
    }
}

/// The plainest generator that will do (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * u128::from(sides)) >> 64) as u32
    }
}

/// An owner that looks like an endpoint's id: spread over all there are.
pub(crate) fn key(number: u64) -> [u8; 16] {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&spread.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn owners(count: u32) -> BTreeMap<[u8; 16], u32> {
    (0..count).map(|number| (key(number.into()), number)).collect()
}

fn count_of(range: AddressRange) -> u32 {
    match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => u32::from(last) - u32::from(first) + 1,
        _ => 0,
    }
}

fn id(number: u32) -> NetworkId {
    NetworkId::from_bytes((u128::from(number) + 1).to_be_bytes())
}

fn net(text: &str) -> IpNet {
    match text.parse() {
        Ok(net) => net,
        Err(error) => panic!("{text}: {error}"),
    }
}

const PAIRS: u64 = 1 << 16;
