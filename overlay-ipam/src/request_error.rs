//! What can be wrong with a request.

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::IpFamily;
use serde::{Deserialize, Serialize};

use crate::AddressRange;
use crate::word::{self, Word};

/// What is wrong with a request for subnets: the caller's mistake. Nothing was claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RequestError {
    /// Bits below the prefix are set.
    #[error("{what} {given} has host bits: it should be {should}")]
    HostBits {
        /// `subnet` or `range`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// What was given.
        given: IpNet,
        /// What it should be.
        should: IpNet,
    },
    /// A size that no subnet of a pool can have.
    #[error("a prefix of {family} is /{shortest} to /{longest} long, not /{found}")]
    PrefixLen {
        /// The family.
        family: IpFamily,
        /// The length given.
        found: u8,
        /// The shortest there may be.
        shortest: u8,
        /// The longest there may be.
        longest: u8,
    },
    /// Something that lies in no subnet of the request.
    #[error("no matching subnet for {what} {address}: give the subnet it is of")]
    NoSubnetFor {
        /// `range`, `gateway` or `auxiliary address`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// The address, or the range's first.
        address: IpAddr,
    },
    /// Something that makes sense only with a static subnet.
    #[error("{what} needs a subnet that is given, not any")]
    NeedsSubnet {
        /// What needs it.
        #[serde(deserialize_with = "word::read")]
        what: Word,
    },
    /// IPv6 where IPv4 is, or the other way round.
    #[error("{what} {range} is not of the family of subnet {subnet}")]
    WrongFamily {
        /// What it is.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// The address or range.
        range: AddressRange,
        /// The subnet.
        subnet: IpNet,
    },
    /// Not of the subnet.
    #[error("{what} {range} is not of subnet {subnet}")]
    Outside {
        /// What it is.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// The address or range.
        range: AddressRange,
        /// The subnet.
        subnet: IpNet,
    },
    /// A range larger than its subnet.
    #[error("{what} {range} is larger than its subnet {subnet}")]
    Larger {
        /// What it is.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// The range.
        range: AddressRange,
        /// The subnet.
        subnet: IpNet,
    },
    /// An address that no host can have: the subnet's own, its broadcast or anycast address.
    #[error("{what} {address} is an address that no host of {subnet} can have")]
    NoHost {
        /// What it is.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// Two routers for one subnet.
    #[error("two gateways, {first} and {second}, for subnet {subnet}: give one")]
    TwoGateways {
        /// One.
        first: IpAddr,
        /// The other.
        second: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// Two ranges for one subnet.
    #[error("two ranges, {first} and {second}, for subnet {subnet}: give one")]
    TwoRanges {
        /// One.
        first: AddressRange,
        /// The other.
        second: AddressRange,
        /// The subnet.
        subnet: IpNet,
    },
    /// The ranges of VIPs and endpoints have addresses in common.
    #[error(
        "the ranges {first} and {second} of subnet {subnet} overlap: VIPs and endpoints need their own, or share one"
    )]
    RangesOverlap {
        /// The endpoints'.
        first: AddressRange,
        /// The VIPs'.
        second: AddressRange,
        /// The subnet.
        subnet: IpNet,
    },
    /// One address for two.
    #[error("{address} is given to both {first} and {second}")]
    Twice {
        /// The address.
        address: IpAddr,
        /// `gateway`, or an auxiliary address's name.
        first: String,
        /// An auxiliary address's name.
        second: String,
    },
    /// Two subnets of one network have addresses in common.
    #[error("subnets {first} and {second} of one network overlap")]
    Overlap {
        /// One.
        first: IpNet,
        /// The other.
        second: IpNet,
    },
    /// Addresses that no network can have: loopback, multicast, link-local and the like.
    #[error("subnet {subnet} overlaps {reserved}, which no network can have (RFC 6890)")]
    Unusable {
        /// The subnet.
        subnet: IpNet,
        /// What it overlaps.
        reserved: IpNet,
    },
    /// Gateway and auxiliary addresses take all there is.
    #[error("subnet {subnet} has no address left for an endpoint")]
    NoRoom {
        /// The subnet.
        subnet: IpNet,
    },
    /// More subnets than a network can have.
    #[error("a network has at most {most} subnets, not {found}")]
    TooMany {
        /// How many were given.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// More auxiliary addresses than a subnet can have.
    #[error("subnet {subnet} has at most {most} auxiliary addresses, not {found}: leave a range out instead")]
    TooManyAuxiliary {
        /// The subnet.
        subnet: IpNet,
        /// How many were given.
        found: usize,
        /// How many there may be.
        most: usize,
    },
}
