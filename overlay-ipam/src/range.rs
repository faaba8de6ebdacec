//! Addresses from one to another.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::IpFamily;
use serde::{Deserialize, Serialize};

/// Addresses of one family from one to another, both included.
///
/// ```
/// use overlay_ipam::AddressRange;
///
/// let range = AddressRange::new([10, 0, 0, 10].into(), [10, 0, 0, 99].into())?;
/// assert!(range.contains([10, 0, 0, 99].into()));
/// assert_eq!(range.to_string(), "10.0.0.10-10.0.0.99");
/// assert_eq!(AddressRange::from("10.0.0.0/24".parse::<ipnet::IpNet>()?).last().to_string(), "10.0.0.255");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ends", into = "Ends")]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// The addresses from `first` to `last`.
    ///
    /// # Errors
    /// If they are of two families, or `last` is below `first`.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, AddressRangeError> {
        if IpFamily::of(first) != IpFamily::of(last) || last < first {
            return Err(AddressRangeError { first, last });
        }
        Ok(Self { first, last })
    }

    /// The lowest.
    pub const fn first(self) -> IpAddr {
        self.first
    }

    /// The highest.
    pub const fn last(self) -> IpAddr {
        self.last
    }

    /// The family of all of them.
    pub const fn family(self) -> IpFamily {
        IpFamily::of(self.first)
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: IpAddr) -> bool {
        self.family() == IpFamily::of(address) && self.first <= address && address <= self.last
    }

    /// Whether all of `other` is in it.
    pub fn covers(self, other: Self) -> bool {
        self.contains(other.first) && self.contains(other.last)
    }

    /// Whether they have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.family() == other.family() && self.first <= other.last && other.first <= self.last
    }

    /// How far the last is from the first: one less than there are addresses.
    #[inline]
    pub(crate) fn span(self) -> u128 {
        number(self.last) - number(self.first)
    }

    /// How far `address` is from the first; `None` if it is not one of them.
    #[inline]
    pub(crate) fn offset(self, address: IpAddr) -> Option<u128> {
        match (self.first, self.last, address) {
            (IpAddr::V4(first), IpAddr::V4(last), IpAddr::V4(address)) => {
                let (first, last, address) = (u32::from(first), u32::from(last), u32::from(address));
                (first <= address && address <= last).then(|| u128::from(address - first))
            }
            (IpAddr::V6(first), IpAddr::V6(last), IpAddr::V6(address)) => {
                let (first, last, address) = (u128::from(first), u128::from(last), u128::from(address));
                (first <= address && address <= last).then(|| address - first)
            }
            _ => None,
        }
    }

    /// How far the first and the last address that `part` has in common with it are from the first.
    #[inline]
    pub(crate) fn window(self, part: Self) -> Option<(u128, u128)> {
        if self.family() != part.family() {
            return None;
        }
        let base = number(self.first);
        let (first, last) = (base.max(number(part.first)), number(self.last).min(number(part.last)));
        (first <= last).then(|| (first - base, last - base))
    }

    /// The address `offset` from the first; the last for what lies beyond.
    #[inline]
    pub(crate) fn at(self, offset: u128) -> IpAddr {
        address(self.family(), number(self.first) + offset.min(self.span()))
    }
}

impl From<IpNet> for AddressRange {
    /// All addresses of a subnet, its host bits disregarded.
    fn from(net: IpNet) -> Self {
        Self { first: net.network(), last: net.broadcast() }
    }
}

impl From<IpAddr> for AddressRange {
    /// One address.
    fn from(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Two addresses that are no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a range is of one family and ends where it begins or above: {first} to {last} is none")]
pub struct AddressRangeError {
    /// The first address given.
    pub first: IpAddr,
    /// The last address given.
    pub last: IpAddr,
}

#[derive(Serialize, Deserialize)]
struct Ends {
    first: IpAddr,
    last: IpAddr,
}

impl TryFrom<Ends> for AddressRange {
    type Error = AddressRangeError;

    fn try_from(ends: Ends) -> Result<Self, AddressRangeError> {
        Self::new(ends.first, ends.last)
    }
}

impl From<AddressRange> for Ends {
    fn from(range: AddressRange) -> Self {
        Self { first: range.first, last: range.last }
    }
}

/// The address as a number.
#[inline]
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of a number; a number too large for IPv4 loses its high bits.
#[inline]
pub(crate) fn address(family: IpFamily, number: u128) -> IpAddr {
    match family {
        IpFamily::V4 => Ipv4Addr::from(number as u32).into(),
        IpFamily::V6 => Ipv6Addr::from(number).into(),
    }
}
