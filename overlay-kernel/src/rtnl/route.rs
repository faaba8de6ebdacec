//! Routes (`struct rtmsg`, `linux/rtnetlink.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::IpFamily;

use crate::netlink::{Body, Flags, Malformed, Message, Requests};

use super::{AF_INET, AF_INET6, af};

/// A route, but for who made it (`rtm_protocol`): its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) table: u32,
    pub(crate) destination: IpNet,
    pub(crate) metric: u32,
    pub(crate) target: Target,
}

/// Where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Device { index: u32, gateway: Option<IpAddr>, source: Option<IpAddr>, onlink: bool },
    Blackhole,
    Unreachable,
}

/// Asks for all routes of a family that carry the mark `protocol`.
pub(crate) fn dump(family: IpFamily, protocol: u8) -> Requests {
    Requests::one(RTM_GETROUTE, Flags::NONE, |body| {
        body.raw(&[af(family), 0, 0, 0, 0, protocol, 0, 0, 0, 0, 0, 0]);
    })
}

/// Reads a route with the mark `ours`; nothing for others.
pub(crate) fn parse(message: &Message<'_>, ours: u8) -> Result<Option<Found>, Malformed> {
    if message.kind != RTM_NEWROUTE {
        return Ok(None);
    }
    let [family, prefix_len, _, _, table, protocol, _, kind, a, b, c, d] = message.head::<HEAD>()?;
    if protocol != ours {
        return Ok(None);
    }
    let mut destination = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return Ok(None),
    };
    let onlink = u32::from_ne_bytes([a, b, c, d]) & RTNH_F_ONLINK != 0;
    let (mut table, mut metric) = (u32::from(table), 0);
    let (mut index, mut gateway, mut source) = (None, None, None);
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            RTA_DST => destination = attribute.ip()?,
            RTA_OIF => index = Some(attribute.u32()?),
            RTA_GATEWAY => gateway = Some(attribute.ip()?),
            RTA_PRIORITY => metric = attribute.u32()?,
            RTA_PREFSRC => source = Some(attribute.ip()?),
            RTA_TABLE => table = attribute.u32()?,
            _ => {}
        }
    }
    let target = match (kind, index) {
        (RTN_UNICAST, Some(index)) => Target::Device { index, gateway, source, onlink },
        (RTN_BLACKHOLE, _) => Target::Blackhole,
        (RTN_UNREACHABLE, _) => Target::Unreachable,
        _ => return Ok(None),
    };
    let destination =
        IpNet::new(destination, prefix_len).map_err(|_| Malformed::new("a route's prefix longer than its address"))?;
    Ok(Some(Found { table, destination, metric, target }))
}

/// A route to the machine itself (`RTN_LOCAL`) for one address, by the loopback device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) address: IpAddr,
    /// Where packets to it come from, if they have no source yet.
    pub(crate) source: Option<IpAddr>,
}

/// Reads a route to one address of the machine itself with the mark `ours`; nothing for others.
pub(crate) fn parse_local(message: &Message<'_>, ours: u8) -> Result<Option<Local>, Malformed> {
    if message.kind != RTM_NEWROUTE {
        return Ok(None);
    }
    let [_, prefix_len, _, _, table, protocol, _, kind, ..] = message.head::<HEAD>()?;
    let (mut address, mut source, mut table) = (None, None, u32::from(table));
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            RTA_DST => address = Some(attribute.ip()?),
            RTA_PREFSRC => source = Some(attribute.ip()?),
            RTA_TABLE => table = attribute.u32()?,
            _ => {}
        }
    }
    let is_ours = (protocol, kind, table) == (ours, RTN_LOCAL, RT_TABLE_LOCAL);
    let whole = |address: &IpAddr| prefix_len == if address.is_ipv4() { 32 } else { 128 };
    Ok(address.filter(|address| is_ours && whole(address)).map(|address| Local { address, source }))
}

/// Adds a route to one address of the machine itself; refused if there is one to it in that table, whoever's it is.
pub(crate) fn add_local(local: &Local, protocol: u8) -> Requests {
    put_local(local, protocol, Flags::EXCLUSIVE)
}

/// Sets such a route in place of the one with this key.
pub(crate) fn replace_local(local: &Local, protocol: u8) -> Requests {
    put_local(local, protocol, Flags::REPLACE)
}

fn put_local(local: &Local, protocol: u8, how: Flags) -> Requests {
    Requests::one(RTM_NEWROUTE, Flags::CREATE | how, |body| {
        let body = local_head(body, local.address, (RTN_LOCAL, RT_SCOPE_HOST, protocol)).u32(RTA_OIF, LOOPBACK);
        if let Some(source) = local.source {
            body.ip(RTA_PREFSRC, source);
        }
    })
}

/// Removes such a route with the mark `protocol`.
pub(crate) fn remove_local(address: IpAddr, protocol: u8) -> Requests {
    Requests::one(RTM_DELROUTE, Flags::NONE, |body| {
        local_head(body, address, (RTN_LOCAL, RT_SCOPE_NOWHERE, protocol));
    })
}

fn local_head<'a, 'b>(
    body: &'a mut Body<'b>,
    address: IpAddr,
    (kind, scope, protocol): (u8, u8, u8),
) -> &'a mut Body<'b> {
    let length = if address.is_ipv4() { 32 } else { 128 };
    body.raw(&[af(IpFamily::of(address)), length, 0, 0, 0, protocol, scope, kind, 0, 0, 0, 0])
        .ip(RTA_DST, address)
        .u32(RTA_TABLE, RT_TABLE_LOCAL)
        .u32(RTA_PRIORITY, LOCAL_METRIC)
}

/// Asks by which route something for an address leaves; refused where none leads there.
pub(crate) fn lookup(address: IpAddr) -> Requests {
    let length = if address.is_ipv4() { 32 } else { 128 };
    Requests::one(RTM_GETROUTE, Flags::NONE, |body| {
        body.raw(&[af(IpFamily::of(address)), length, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).ip(RTA_DST, address);
    })
}

/// Asks for all routes of a family, whoever made them. The kernel that knows no strict requests tells them all anyway.
pub(crate) fn dump_all(family: IpFamily) -> Requests {
    Requests::one(RTM_GETROUTE, Flags::NONE, |body| {
        body.raw(&[af(family), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    })
}

/// Reads where any route leads: to hosts elsewhere. Nothing for default routes and those of the machine itself.
pub(crate) fn parse_any(message: &Message<'_>) -> Result<Option<IpNet>, Malformed> {
    if message.kind != RTM_NEWROUTE {
        return Ok(None);
    }
    let [_, prefix_len, _, _, table, _, _, kind, ..] = message.head::<HEAD>()?;
    let mut destination = None;
    let mut table = u32::from(table);
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            RTA_DST => destination = Some(attribute.ip()?),
            RTA_TABLE => table = attribute.u32()?,
            _ => {}
        }
    }
    let Some(destination) = destination.filter(|_| kind == RTN_UNICAST && table != RT_TABLE_LOCAL && prefix_len > 0)
    else {
        return Ok(None);
    };
    let link_local = matches!(destination, IpAddr::V6(address) if address.is_unicast_link_local());
    if destination.is_multicast() || destination.is_loopback() || link_local {
        return Ok(None);
    }
    let net = IpNet::new(destination, prefix_len);
    net.map(Some).map_err(|_| Malformed::new("a route's prefix longer than its address"))
}

/// Reads by which devices a default route of the main table leaves; nothing for other routes.
pub(crate) fn parse_way_out(message: &Message<'_>) -> Result<Option<Vec<u32>>, Malformed> {
    if message.kind != RTM_NEWROUTE {
        return Ok(None);
    }
    let [_, prefix_len, _, _, table, _, _, kind, ..] = message.head::<HEAD>()?;
    if (prefix_len, table, kind) != (0, RT_TABLE_MAIN, RTN_UNICAST) {
        return Ok(None);
    }
    let mut devices = Vec::new();
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            RTA_OIF => devices.push(attribute.u32()?),
            RTA_MULTIPATH => devices.extend(next_hops(attribute.value)),
            _ => {}
        }
    }
    Ok(Some(devices))
}

/// The devices of several next hops (`struct rtnexthop`), each of which says its own length.
fn next_hops(mut bytes: &[u8]) -> Vec<u32> {
    let mut devices = Vec::new();
    while let [a, b, _, _, c, d, e, f, ..] = *bytes {
        devices.push(u32::from_ne_bytes([c, d, e, f]));
        let length = usize::from(u16::from_ne_bytes([a, b])).next_multiple_of(4).max(8);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    devices
}

/// Whether a notice is of a route that the kernel made or removed itself, along with an address.
pub(crate) fn is_kernels(message: &Message<'_>) -> bool {
    let kernels = |head: [u8; HEAD]| head[5] == RTPROT_KERNEL;
    matches!(message.kind, RTM_NEWROUTE | RTM_DELROUTE) && message.head().is_ok_and(kernels)
}

/// Adds a route; refused if there is one with this key, whoever's it is.
pub(crate) fn add(route: &Found, protocol: u8) -> Requests {
    Requests::one(RTM_NEWROUTE, Flags::CREATE | Flags::EXCLUSIVE, |body| write(body, route, protocol))
}

/// Sets a route in place of the one with this key.
pub(crate) fn replace(route: &Found, protocol: u8) -> Requests {
    Requests::one(RTM_NEWROUTE, Flags::CREATE | Flags::REPLACE, |body| write(body, route, protocol))
}

fn write(body: &mut Body<'_>, route: &Found, protocol: u8) {
    let (kind, scope, onlink) = match route.target {
        Target::Device { gateway, onlink, .. } => (RTN_UNICAST, scope(route, gateway), onlink),
        Target::Blackhole => (RTN_BLACKHOLE, RT_SCOPE_UNIVERSE, false),
        Target::Unreachable => (RTN_UNREACHABLE, RT_SCOPE_UNIVERSE, false),
    };
    body.raw(&head(route, (kind, scope, protocol), onlink))
        .ip(RTA_DST, route.destination.addr())
        .u32(RTA_TABLE, route.table)
        .u32(RTA_PRIORITY, route.metric);
    if let Target::Device { index, gateway, source, .. } = route.target {
        body.u32(RTA_OIF, index);
        if let Some(gateway) = gateway {
            body.ip(RTA_GATEWAY, gateway);
        }
        if let Some(source) = source {
            body.ip(RTA_PREFSRC, source);
        }
    }
}

/// Removes the route of ours with this key.
pub(crate) fn remove(requests: &mut Requests, (table, destination, metric): (u32, IpNet, u32), protocol: u8) {
    let route = Found { table, destination, metric, target: Target::Blackhole };
    requests.add(RTM_DELROUTE, Flags::NONE, |body| {
        body.raw(&head(&route, (RTN_UNSPEC, RT_SCOPE_NOWHERE, protocol), false))
            .ip(RTA_DST, destination.addr())
            .u32(RTA_TABLE, table)
            .u32(RTA_PRIORITY, metric);
    });
}

/// IPv4 tells routes to the link itself by their scope; IPv6 has none.
const fn scope(route: &Found, gateway: Option<IpAddr>) -> u8 {
    if matches!(route.destination, IpNet::V4(_)) && gateway.is_none() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE }
}

fn head(route: &Found, (kind, scope, protocol): (u8, u8, u8), onlink: bool) -> [u8; HEAD] {
    let family = af(IpFamily::of(route.destination.addr()));
    let [a, b, c, d] = if onlink { RTNH_F_ONLINK.to_ne_bytes() } else { [0; 4] };
    [family, route.destination.prefix_len(), 0, 0, 0, protocol, scope, kind, a, b, c, d]
}

const HEAD: usize = 12;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_MULTIPATH: u16 = 9;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTPROT_KERNEL: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u32 = 255;
const RTN_UNSPEC: u8 = 0;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_HOST: u8 = 254;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTNH_F_ONLINK: u32 = 4;
const LOOPBACK: u32 = 1; // of every namespace
const LOCAL_METRIC: u32 = 1024;
