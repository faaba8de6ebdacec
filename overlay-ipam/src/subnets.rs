//! All subnets of an address space.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

use ipnet::IpNet;
use overlay_core::{IpFamily, NetworkId};
use serde::{Deserialize, Serialize};

use crate::range::{address, number};
use crate::request::overlap;
use crate::set::numbers::Numbers;
use crate::{AddressRange, Occupant, Occupation, Pool, RequestError, Subnet, SubnetKind, SubnetRequest, Wanted};

/// Which subnets of an address space are whose: the same CIDR may be in two spaces, and never overlaps another in one.
///
/// A subnet of a pool's size is claimed in O(log n), the lowest free one of the first pool that has one; of another size
/// in O(n). Pure and in memory; [`Allocator`](crate::Allocator) keeps one in a store.
///
/// ```
/// use overlay_core::{IpFamily, NetworkId};
/// use overlay_ipam::{Pool, SubnetRequest, Subnets};
///
/// let (front, back) = (NetworkId::from_bytes([1; 16]), NetworkId::from_bytes([2; 16]));
/// let mut subnets = Subnets::new(Pool::global());
/// let subnet = subnets.claim(front, &SubnetRequest::any(IpFamily::V4))?;
/// assert_eq!(subnet.to_string(), "10.0.0.0/24");
///
/// let refused = subnets.claim(back, &SubnetRequest::this("10.0.0.0/16".parse()?)).unwrap_err();
/// assert_eq!(refused.to_string(), format!("10.0.0.0/16 overlaps 10.0.0.0/24 of network {front}"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Subnets {
    pools: Vec<Units>,
    /// What networks alone may use, by family and first address.
    taken: BTreeMap<(IpFamily, u128), Taken>,
    /// External subnets whole, as no own subnet may overlap them: few.
    external: Vec<(IpNet, NetworkId)>,
    occupied: Occupations,
}

/// Addresses of one network.
#[derive(Debug, Clone, Copy)]
struct Taken {
    last: u128,
    net: IpNet,
    network: NetworkId,
    kind: SubnetKind,
}

impl Subnets {
    /// No subnets; dynamic ones will be taken from `pools`, from the first that has one free.
    pub fn new(pools: impl IntoIterator<Item = Pool>) -> Self {
        let pools = pools.into_iter().map(Units::new).collect();
        Self { pools, taken: BTreeMap::new(), external: Vec::new(), occupied: Occupations::default() }
    }

    /// Leaves these out from now on. Subnets that are claimed already stay.
    pub fn set_occupied(&mut self, occupied: impl IntoIterator<Item = Occupation>) {
        self.occupied = Occupations::new(occupied);
    }

    /// Claims a subnet for `network`.
    ///
    /// # Errors
    /// What is wrong with the request, or in the way. Nothing was claimed.
    pub fn claim(&mut self, network: NetworkId, request: &SubnetRequest) -> Result<Subnet, SubnetError> {
        let subnet = self.find(request)?;
        self.take(network, &subnet);
        Ok(subnet)
    }

    /// Claims for `network` all that is requested, or nothing.
    ///
    /// # Errors
    /// The first thing that is wrong or in the way.
    pub fn claim_all(&mut self, network: NetworkId, requests: &[SubnetRequest]) -> Result<Vec<Subnet>, SubnetError> {
        crate::request::check(requests)?;
        let mut claimed: Vec<Subnet> = Vec::with_capacity(requests.len());
        // Static ones first, so that no dynamic one is put where a later static one has to be.
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|at| requests[*at].net().is_none());
        let mut placed = vec![None; requests.len()];
        for at in order {
            match self.claim(network, &requests[at]) {
                Ok(subnet) => {
                    claimed.push(subnet.clone());
                    placed[at] = Some(subnet);
                }
                Err(error) => {
                    claimed.iter().for_each(|subnet| self.release(network, subnet));
                    return Err(error);
                }
            }
        }
        Ok(placed.into_iter().flatten().collect())
    }

    /// Gives a subnet of `network` back; without effect if the network does not have it.
    pub fn release(&mut self, network: NetworkId, subnet: &Subnet) {
        let extent = subnet.extent();
        let key = (extent.family(), number(extent.first()));
        if self.taken.get(&key).is_some_and(|taken| taken.network == network && taken.net == subnet.net) {
            self.taken.remove(&key);
            self.external.retain(|of| *of != (subnet.net, network));
            self.note(extent);
        }
    }

    /// Whose subnet `address` is of.
    pub fn owner(&self, address: IpAddr) -> Option<(IpNet, NetworkId)> {
        let taken = self.overlapping(address.into())?;
        Some((taken.net, taken.network))
    }

    /// How many subnets there are.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The pools, and how many of each one's subnets are taken at least in part.
    pub fn pools(&self) -> impl Iterator<Item = (Pool, u128)> {
        self.pools.iter().map(|units| (units.pool, units.used(self)))
    }

    /// Takes what was claimed before: read from a store.
    pub(crate) fn take(&mut self, network: NetworkId, subnet: &Subnet) {
        let extent = subnet.extent();
        let (first, last) = (number(extent.first()), number(extent.last()));
        let taken = Taken { last, net: subnet.net, network, kind: subnet.kind };
        self.taken.insert((extent.family(), first), taken);
        if subnet.kind == SubnetKind::External {
            self.external.push((subnet.net, network));
        }
        self.note(extent);
    }

    /// The subnet that a request would get.
    pub(crate) fn find(&self, request: &SubnetRequest) -> Result<Subnet, SubnetError> {
        request.check()?;
        match request.wanted {
            Wanted::This(net) => self.this(net, request),
            Wanted::Any { family, prefix_len } => self.any(family, prefix_len, request),
        }
    }

    fn this(&self, net: IpNet, request: &SubnetRequest) -> Result<Subnet, SubnetError> {
        let subnet = request.place(net)?;
        let in_the_way = |other: IpNet, network| SubnetError::Overlaps { net, other, network };
        if let Some(taken) = self.in_the_way(&subnet) {
            return Err(in_the_way(taken.net, taken.network));
        }
        if request.kind == SubnetKind::External || request.even_if_occupied {
            return Ok(subnet);
        }
        match self.occupied.overlapping(net.into()) {
            Some(Occupation { net: other, by }) => Err(SubnetError::Occupied { net, other, by }),
            None => Ok(subnet),
        }
    }

    fn in_the_way(&self, subnet: &Subnet) -> Option<Taken> {
        let extent = subnet.extent();
        if let Some(taken) = self.overlapping(extent) {
            return Some(taken);
        }
        match subnet.kind {
            SubnetKind::Own => self.external_over(subnet.net),
            SubnetKind::External => {
                let net = AddressRange::from(subnet.net);
                self.within(net).find(|taken| taken.kind == SubnetKind::Own).copied()
            }
        }
    }

    fn external_over(&self, net: IpNet) -> Option<Taken> {
        let (other, network) = self.external.iter().find(|(other, _)| overlap(*other, net))?;
        Some(Taken { last: number(other.broadcast()), net: *other, network: *network, kind: SubnetKind::External })
    }

    fn any(&self, family: IpFamily, len: Option<u8>, request: &SubnetRequest) -> Result<Subnet, SubnetError> {
        let fitting = |units: &&Units| {
            let large_enough = len.is_none_or(|len| len >= units.pool.range().prefix_len());
            units.pool.family() == family && large_enough
        };
        let found = self.pools.iter().filter(fitting).find_map(|units| {
            let len = len.unwrap_or_else(|| units.pool.subnet_len());
            units.free(self, len)
        });
        match found {
            Some(net) => Ok(request.place(net)?),
            None if !self.pools.iter().any(|units| units.pool.family() == family) => {
                Err(SubnetError::NoPool { family })
            }
            None => Err(SubnetError::Exhausted { family, len, subnets: self.len() }),
        }
    }

    /// The last address of something in `range` that rules an own subnet there out.
    fn obstacle(&self, range: AddressRange, net: IpNet) -> Option<u128> {
        let taken = self.overlapping(range).map(|taken| taken.last);
        let occupied = || self.occupied.overlapping(range).map(|of| number(of.net.broadcast()));
        let external = || self.external_over(net).map(|taken| taken.last);
        taken.or_else(occupied).or_else(external)
    }

    /// One of the taken that have an address in common with `range`.
    fn overlapping(&self, range: AddressRange) -> Option<Taken> {
        let (family, first, last) = (range.family(), number(range.first()), number(range.last()));
        let (_, below) = self.taken.range((family, 0)..=(family, last)).next_back()?;
        (below.last >= first).then_some(*below)
    }

    fn within(&self, range: AddressRange) -> impl Iterator<Item = &Taken> {
        let (family, first, last) = (range.family(), number(range.first()), number(range.last()));
        let before = self.taken.range((family, 0)..(family, first)).next_back().filter(move |(_, at)| at.last >= first);
        let inside = self.taken.range((Bound::Included((family, first)), Bound::Included((family, last))));
        before.into_iter().chain(inside).map(|(_, taken)| taken)
    }

    /// Lets the pools know that something about these addresses has changed.
    fn note(&mut self, extent: AddressRange) {
        let mut pools = std::mem::take(&mut self.pools);
        pools.iter_mut().for_each(|units| units.note(self, extent));
        self.pools = pools;
    }
}

/// A pool, and which of its subnets are surely not free.
///
/// What covers many subnets at once is not marked; a subnet found free here is looked up in what is taken, and the search goes
/// on behind what is there.
#[derive(Debug, Clone)]
struct Units {
    pool: Pool,
    marked: Numbers,
}

/// Something that covers more units than this is not marked.
const MARKED: u128 = 1024;

impl Units {
    fn new(pool: Pool) -> Self {
        Self { pool, marked: Numbers::new(pool.subnets() - 1) }
    }

    /// A free subnet with a prefix of `len` bits, the lowest.
    fn free(&self, subnets: &Subnets, len: u8) -> Option<IpNet> {
        let range = AddressRange::from(self.pool.range());
        let family = self.pool.family();
        let size = 1_u128.checked_shl(u32::from(self.pool.range().max_prefix_len() - len))?;
        let mut at = number(range.first());
        loop {
            at = self.skip(at, len)?;
            let last = at.checked_add(size - 1).filter(|last| *last <= number(range.last()))?;
            let candidate = AddressRange::new(address(family, at), address(family, last)).ok()?;
            let net = IpNet::new(candidate.first(), len).ok()?;
            let Some(end) = subnets.obstacle(candidate, net) else { return Some(net) };
            at = end.max(last).checked_add(1)?.checked_next_multiple_of(size)?;
        }
    }

    /// The first unit from `at` on that is not marked; for other sizes than the pool's, `at` itself.
    fn skip(&self, at: u128, len: u8) -> Option<u128> {
        if len != self.pool.subnet_len() {
            return Some(at);
        }
        let (first, shift) = self.first_and_shift();
        let free = self.marked.next_free(at.checked_sub(first)? >> shift)?;
        Some(first + (free << shift))
    }

    fn note(&mut self, subnets: &Subnets, extent: AddressRange) {
        let range = AddressRange::from(self.pool.range());
        if !range.overlaps(extent) {
            return;
        }
        let (first, shift) = self.first_and_shift();
        let from = (number(extent.first().max(range.first())) - first) >> shift;
        let to = (number(extent.last().min(range.last())) - first) >> shift;
        if to - from >= MARKED {
            return;
        }
        for unit in from..=to {
            let start = first + (unit << shift);
            let end = start + ((1 << shift) - 1);
            let family = self.pool.family();
            let unit_range = AddressRange::new(address(family, start), address(family, end));
            match unit_range.is_ok_and(|range| subnets.overlapping(range).is_some()) {
                true => self.marked.insert(unit),
                false => self.marked.remove(unit),
            };
        }
    }

    /// How many of its subnets are taken at least in part.
    fn used(&self, subnets: &Subnets) -> u128 {
        let range = AddressRange::from(self.pool.range());
        let (first, shift) = self.first_and_shift();
        let mut next = 0;
        let mut used = 0;
        for taken in subnets.within(range) {
            let from = (number(taken.net.network()).max(first) - first) >> shift;
            let to = (taken.last.min(number(range.last())) - first) >> shift;
            let from = from.max(next);
            used += (to + 1).saturating_sub(from);
            next = to + 1;
        }
        used
    }

    fn first_and_shift(&self) -> (u128, u32) {
        let range = self.pool.range();
        (number(range.network()), u32::from(range.max_prefix_len() - self.pool.subnet_len()))
    }
}

/// What is occupied, by family and first address; nested ones are merged into what holds them.
#[derive(Debug, Clone, Default)]
struct Occupations(BTreeMap<(IpFamily, u128), Occupation>);

impl Occupations {
    fn new(occupied: impl IntoIterator<Item = Occupation>) -> Self {
        let mut all: Vec<_> = occupied.into_iter().collect();
        all.sort_by_key(|of| of.net.prefix_len());
        let mut merged = Self::default();
        for of in all {
            // Prefixes either nest or are apart, and the larger came first. One of length 0 is a default route: it says nothing.
            if of.net.prefix_len() > 0 && merged.overlapping(of.net.into()).is_none() {
                merged.0.insert((IpFamily::of(of.net.addr()), number(of.net.network())), of);
            }
        }
        merged
    }

    fn overlapping(&self, range: AddressRange) -> Option<Occupation> {
        let (family, first, last) = (range.family(), number(range.first()), number(range.last()));
        let (_, below) = self.0.range((family, 0)..=(family, last)).next_back()?;
        (number(below.net.broadcast()) >= first).then_some(*below)
    }
}

/// Why a subnet could not be claimed. Nothing was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubnetError {
    /// The request makes no sense.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Another network has some of it.
    #[error("{net} overlaps {other} of network {network}")]
    Overlaps {
        /// The subnet wanted.
        net: IpNet,
        /// The one in the way.
        other: IpNet,
        /// Whose it is.
        network: NetworkId,
    },
    /// Somebody else uses some of it.
    #[error("{net} overlaps {other}, in use by {by}: choose another, or claim it even if occupied")]
    Occupied {
        /// The subnet wanted.
        net: IpNet,
        /// What is in the way.
        other: IpNet,
        /// What has it.
        by: Occupant,
    },
    /// No pool has one free: give a subnet, or configure another pool.
    #[error("all {family} pools are used up ({subnets} subnets claimed{})", size(*len))]
    Exhausted {
        /// The family wanted.
        family: IpFamily,
        /// The prefix length wanted, if any was.
        len: Option<u8>,
        /// How many subnets are claimed in the space.
        subnets: usize,
    },
    /// There are no pools of this family: configure one.
    #[error("there is no pool of {family} addresses: configure one, or give a subnet")]
    NoPool {
        /// The family wanted.
        family: IpFamily,
    },
}

fn size(len: Option<u8>) -> String {
    len.map(|len| format!(", no room for a /{len}")).unwrap_or_default()
}
