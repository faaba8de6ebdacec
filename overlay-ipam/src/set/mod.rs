//! Sets of addresses: which of a range are taken, and which is the next free one.

mod dense;
pub(crate) mod numbers;
mod sparse;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::AddressRange;
use numbers::Numbers;

/// Which addresses of a range are taken: a 64-ary hierarchical bitmap, for IPv4 and IPv6 of any prefix length.
///
/// The next free address is found in O(log₆₄ n) however full the set is. Up to 2²⁴ addresses take a bit each and 1.6 %
/// more (2.13 MB for a /8); larger ranges take memory only for what is taken: 528 bytes for a page of 4,096
/// addresses, less for a page that has only a few.
///
/// ```
/// use overlay_ipam::{AddressSet, Order};
///
/// let mut set = AddressSet::new("10.0.0.0/29".parse::<ipnet::IpNet>()?);
/// assert!(set.claim([10, 0, 0, 0].into()));
/// let first = set.claim_next(Order::NextFit).ok_or("full")?;
/// set.release(first);
/// let second = set.claim_next(Order::NextFit).ok_or("full")?; // not the one just given back
/// assert_eq!((first.to_string(), second.to_string()), ("10.0.0.1".to_owned(), "10.0.0.2".to_owned()));
/// assert_eq!(set.claim_next(Order::Lowest), Some(first));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct AddressSet {
    range: AddressRange,
    span: u128,
    numbers: Numbers,
    len: u128,
    cursor: u128,
}

impl AddressSet {
    /// A set of addresses of `range`, none taken.
    pub fn new(range: impl Into<AddressRange>) -> Self {
        let range = range.into();
        let span = range.span();
        Self { range, span, numbers: Numbers::new(span), len: 0, cursor: 0 }
    }

    /// The addresses it is about.
    pub const fn range(&self) -> AddressRange {
        self.range
    }

    /// Takes `address`. False if it is taken already or not of the range.
    #[inline]
    pub fn claim(&mut self, address: IpAddr) -> bool {
        let new = self.range.offset(address).is_some_and(|offset| self.numbers.insert(offset));
        self.len += u128::from(new);
        new
    }

    /// Takes a free address; `None` if there is none.
    #[inline]
    pub fn claim_next(&mut self, order: Order) -> Option<IpAddr> {
        self.take((0, self.span), order)
    }

    /// Takes a free address of `within`; `None` if there is none.
    #[inline]
    pub fn claim_next_in(&mut self, within: AddressRange, order: Order) -> Option<IpAddr> {
        let window = self.range.window(within)?;
        self.take(window, order)
    }

    /// Gives `address` back. False if it was not taken.
    #[inline]
    pub fn release(&mut self, address: IpAddr) -> bool {
        let was = self.range.offset(address).is_some_and(|offset| self.numbers.remove(offset));
        self.len -= u128::from(was);
        was
    }

    /// Whether `address` is taken.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.range.offset(address).is_some_and(|offset| self.numbers.contains(offset))
    }

    /// The first free address from `from` on.
    pub fn next_free(&self, from: IpAddr) -> Option<IpAddr> {
        let free = self.numbers.next_free(self.range.offset(from)?)?;
        Some(self.range.at(free))
    }

    /// All that are taken, from the lowest on.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let after = |used: &u128| used.checked_add(1).and_then(|from| self.numbers.next_used(from));
        std::iter::successors(self.numbers.next_used(0), after).map(|offset| self.range.at(offset))
    }

    /// How many are taken.
    pub const fn len(&self) -> u128 {
        self.len
    }

    /// Whether none is.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where [`Order::NextFit`] goes on: keep it with the set, so that a restart does not begin at the lowest again.
    pub fn cursor(&self) -> IpAddr {
        self.range.at(self.cursor)
    }

    /// Lets [`Order::NextFit`] go on at `address`; without effect if that is not of the range.
    pub fn set_cursor(&mut self, address: IpAddr) {
        self.cursor = self.range.offset(address).unwrap_or(self.cursor);
    }

    /// Bytes of memory it takes, about.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.numbers.bytes()
    }

    #[inline]
    fn take(&mut self, window: (u128, u128), order: Order) -> Option<IpAddr> {
        let from = match order {
            Order::NextFit => self.cursor,
            Order::Lowest => window.0,
            Order::Random(draw) => draw.between(window),
        };
        let free = self.numbers.take_around(window, from)?;
        self.len += 1;
        if order == Order::NextFit {
            self.cursor = if free == self.span { 0 } else { free + 1 };
        }
        Some(self.range.at(free))
    }
}

/// Which of the free addresses is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The one after the last that was taken, around: what is given back is used again last.
    #[default]
    NextFit,
    /// The lowest.
    Lowest,
    /// The one at or after a place drawn at random.
    Random(Draw),
}

/// A place drawn from a seed: 128 bits that choose it.
///
/// ```
/// use overlay_ipam::Draw;
///
/// assert_eq!(Draw::new([7; 32], 3), Draw::new([7; 32], 3));
/// assert_ne!(Draw::new([7; 32], 3), Draw::new([7; 32], 4));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Draw(u128);

impl Draw {
    /// The draw number `number` of a seed: the same always and everywhere. Spread evenly, not secret.
    pub fn new(seed: [u8; 32], number: u64) -> Self {
        let (halves, _) = seed.as_chunks::<16>();
        let state = halves.iter().fold(u128::from(number), |state, half| {
            let mixed = state ^ u128::from_le_bytes(*half);
            u128::from(mix((mixed >> 64) as u64 ^ mix(mixed as u64))) << 64 | u128::from(mix(mixed as u64))
        });
        Self(state)
    }

    /// One of the numbers from the first to the last.
    pub(crate) fn between(self, (first, last): (u128, u128)) -> u128 {
        match (last - first).checked_add(1) {
            Some(count) => first + self.0 % count,
            None => self.0,
        }
    }
}

/// Sebastiano Vigna's splitmix64: every bit of the result depends on every bit given.
const fn mix(bits: u64) -> u64 {
    let mut z = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
