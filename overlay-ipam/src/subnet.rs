//! One subnet of a network.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IpFamily, Name};
use serde::{Deserialize, Serialize};

use crate::AddressRange;
use crate::range::{address, number};

/// A subnet that a network has, and what of it may be claimed for what. Made of a [`SubnetRequest`](crate::SubnetRequest).
///
/// Never claimed are its network and broadcast address (IPv4 up to /30), its subnet-router anycast address (IPv6 up to
/// /126, RFC 4291 §2.6.1), its gateway and its auxiliary addresses. Prefixes of /31 and /32 (RFC 3021), /127 (RFC
/// 6164) and /128 are used whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub(crate) net: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) endpoints: Option<AddressRange>,
    pub(crate) vips: Option<AddressRange>,
    pub(crate) auxiliary: BTreeMap<Name, IpAddr>,
    pub(crate) kind: SubnetKind,
}

/// Whose addresses a subnet's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubnetKind {
    /// The network's own: nobody else may have them.
    #[default]
    Own,
    /// The physical network's, which endpoints join (macvlan): claimed only inside the range given, and not checked against what hosts
    /// occupy. Several networks may share such a subnet with ranges that do not overlap.
    External,
}

/// What an address is claimed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// An endpoint, a node, or anything else that is reached itself.
    #[default]
    Endpoint,
    /// A service's virtual address.
    Vip,
}

impl Subnet {
    /// Its addresses and prefix length.
    pub const fn net(&self) -> IpNet {
        self.net
    }

    /// Its router, if it has one.
    pub const fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// Addresses in use by others, by name.
    pub const fn auxiliary(&self) -> &BTreeMap<Name, IpAddr> {
        &self.auxiliary
    }

    /// Whose addresses they are.
    pub const fn kind(&self) -> SubnetKind {
        self.kind
    }

    /// The family of its addresses.
    pub fn family(&self) -> IpFamily {
        IpFamily::of(self.net.addr())
    }

    /// All addresses that a host may have.
    pub fn hosts(&self) -> AddressRange {
        hosts(self.net)
    }

    /// Where dynamic claims for `purpose` are made: one range, or two around that of the VIPs. A *specific* address may be
    /// any of the subnet's that is not reserved, but in an external subnet must be in these too.
    pub fn ranges(&self, purpose: Use) -> Vec<AddressRange> {
        match (purpose, self.vips) {
            (Use::Vip, Some(vips)) => vec![vips],
            (Use::Endpoint, Some(vips)) if self.endpoints.is_none() => without(self.hosts(), vips),
            _ => vec![self.endpoints.unwrap_or_else(|| self.hosts())],
        }
    }

    /// Why `address` can never be claimed here; `None` if it can.
    pub fn reserved(&self, address: IpAddr) -> Option<Reserved> {
        if !self.net.contains(&address) {
            return Some(Reserved::Outside);
        }
        if self.gateway == Some(address) {
            return Some(Reserved::Gateway);
        }
        if self.auxiliary.values().any(|auxiliary| *auxiliary == address) {
            return Some(Reserved::Auxiliary);
        }
        let spare = self.net.max_prefix_len() - self.net.prefix_len();
        match self.family() {
            family if spare > 1 && address == self.net.network() => Some(match family {
                IpFamily::V4 => Reserved::Network,
                IpFamily::V6 => Reserved::Anycast,
            }),
            IpFamily::V4 if spare > 1 && address == self.net.broadcast() => Some(Reserved::Broadcast),
            _ if self.kind == SubnetKind::External && !self.is_in_a_range(address) => Some(Reserved::OutOfRange),
            _ => None,
        }
    }

    fn is_in_a_range(&self, address: IpAddr) -> bool {
        let mut ranges = self.ranges(Use::Endpoint).into_iter().chain(self.ranges(Use::Vip));
        ranges.any(|range| range.contains(address))
    }

    /// The addresses that only this network may use, on this subnet or another that overlaps it.
    pub(crate) fn extent(&self) -> AddressRange {
        match self.kind {
            SubnetKind::Own => self.net.into(),
            SubnetKind::External => {
                let endpoints = self.endpoints.unwrap_or_else(|| self.hosts());
                let vips = self.vips.unwrap_or(endpoints);
                let first = endpoints.first().min(vips.first());
                let last = endpoints.last().max(vips.last());
                AddressRange::new(first, last).unwrap_or(endpoints)
            }
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.net.fmt(f)
    }
}

/// Why an address of a subnet is never claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reserved {
    /// It is none of the subnet's.
    Outside,
    /// It is the subnet's own (RFC 1122 §3.2.1.3).
    Network,
    /// It reaches all hosts of the subnet (RFC 919 §7).
    Broadcast,
    /// It reaches any router of the subnet (RFC 4291 §2.6.1).
    Anycast,
    /// It is the gateway's.
    Gateway,
    /// It is an auxiliary address: somebody else's.
    Auxiliary,
    /// It is not of the part that we may use of an external subnet.
    OutOfRange,
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "is in no subnet of the network: choose one that is, or leave it open",
            Self::Network => "is the subnet's own address",
            Self::Broadcast => "is the subnet's broadcast address",
            Self::Anycast => "is the subnet-router anycast address",
            Self::Gateway => "is the gateway's",
            Self::Auxiliary => "is an auxiliary address, somebody else's",
            Self::OutOfRange => "is not of the part of the external subnet that may be used",
        })
    }
}

/// All addresses of a subnet that a host may have.
pub(crate) fn hosts(net: IpNet) -> AddressRange {
    let family = IpFamily::of(net.addr());
    let spare = net.max_prefix_len() - net.prefix_len();
    let (first, last) = (number(net.network()), number(net.broadcast()));
    let (first, last) = match (spare, family) {
        (0 | 1, _) => (first, last),
        (_, IpFamily::V4) => (first + 1, last - 1),
        (_, IpFamily::V6) => (first + 1, last),
    };
    AddressRange::new(address(family, first), address(family, last)).unwrap_or_else(|_| net.into())
}

/// What is left of `range` around `hole`.
fn without(range: AddressRange, hole: AddressRange) -> Vec<AddressRange> {
    let family = range.family();
    let (first, last) = (number(range.first()), number(range.last()));
    let below = number(hole.first()).checked_sub(1).filter(|end| *end >= first && hole.first() > range.first());
    let above = number(hole.last()).checked_add(1).filter(|start| *start <= last);
    let below = below.map(|end| (first, end));
    let above = above.map(|start| (start.max(first), last));
    let parts = below.into_iter().chain(above);
    parts.filter_map(|(a, b)| AddressRange::new(address(family, a), address(family, b)).ok()).collect()
}
