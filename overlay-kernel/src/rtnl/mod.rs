//! Messages of rtnetlink (rtnetlink(7), `linux/rtnetlink.h`), one file per family: what is asked and what is read.
//!
//! No meaning here, only numbers: names, owners and plans are the business of [`link`](crate::link).

pub(crate) mod address;
pub(crate) mod link;
pub(crate) mod link_request;
pub(crate) mod neighbour;
pub(crate) mod neighbour_table;
pub(crate) mod netns;
pub(crate) mod route;
pub(crate) mod rule;

use overlay_core::IpFamily;

/// What we write where the kernel keeps who made an address, route, rule or neighbour (`IFA_PROTO`, `rtm_protocol`,
/// `FRA_PROTOCOL`, `NDA_PROTOCOL`): a number that no routing daemon known to iproute2 has.
pub(crate) const PROTOCOL: u8 = 0x6f;

/// The same for routes that lead out of a namespace of somebody else's, by whichever of its devices.
pub(crate) const WAYS_PROTOCOL: u8 = 0x70;

/// The same for addresses that are a namespace's own without being on a device.
pub(crate) const LOCALS_PROTOCOL: u8 = 0x71;

/// The groups that tell of everything a native state holds (`RTNLGRP_…`): link, neighbour, then address, route and rule
/// of IPv4, of IPv6, and their settings per device.
pub(crate) const GROUPS: [u32; 10] = [1, 3, 5, 7, 8, 9, 11, 19, 24, 25];

pub(crate) const AF_UNSPEC: u8 = 0;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_BRIDGE: u8 = 7;
pub(crate) const AF_INET6: u8 = 10;

/// `AF_INET` or `AF_INET6`.
pub(crate) const fn af(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => AF_INET,
        IpFamily::V6 => AF_INET6,
    }
}
