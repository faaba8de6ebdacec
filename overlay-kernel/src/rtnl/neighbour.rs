//! Neighbour entries, and forwarding entries of VXLAN devices and bridges (`struct ndmsg`, `linux/neighbour.h`).

use std::net::IpAddr;

use overlay_core::{IpFamily, Mac};

use crate::netlink::{Body, Flags, Malformed, Message, Requests};

use super::{AF_BRIDGE, AF_UNSPEC, PROTOCOL, af};

/// An entry that lives until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    /// A neighbour that we made: which station has an address.
    Neighbour { index: u32, address: IpAddr, mac: Mac },
    /// A VXLAN device's entry: behind which VTEP a station is, and by which interface of the underlay that is reached.
    Forwarding { index: u32, mac: Mac, vtep: IpAddr, via: Option<u32> },
    /// A bridge's entry: behind which of its ports a station is.
    Station { port: u32, mac: Mac },
    /// A bridge's entry for an address of its own or of one of its ports, the device.
    Own { device: u32, mac: Mac },
}

/// Asks for all neighbours of both families.
pub(crate) fn dump() -> Requests {
    Requests::one(RTM_GETNEIGH, Flags::NONE, |body| {
        body.raw(&head(AF_UNSPEC, 0, 0, 0));
    })
}

/// Asks for the forwarding entries of a device, and for those of its bridge that lead to it.
pub(crate) fn dump_forwarding(index: u32) -> Requests {
    Requests::one(RTM_GETNEIGH, Flags::NONE, |body| {
        body.raw(&head(AF_BRIDGE, index, 0, 0));
    })
}

/// Reads a permanent entry that we made, or that a VXLAN device or a bridge has; nothing for others. A bridge has each
/// of its entries once more for every VLAN of the port: those come and go with the one that has none.
pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Found>, Malformed> {
    if message.kind != RTM_NEWNEIGH {
        return Ok(None);
    }
    let [family, _, _, _, a, b, c, d, e, f, flags, _] = message.head::<HEAD>()?;
    let state = u16::from_ne_bytes([e, f]);
    if state & (NUD_PERMANENT | NUD_NOARP) == 0 {
        return Ok(None);
    }
    let (mut address, mut mac, mut via) = (None, None, None);
    let (mut ours, mut whole) = (false, true);
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            NDA_DST => address = Some(attribute.ip()?),
            NDA_LLADDR => mac = attribute.array().ok().map(Mac::new),
            NDA_PROTOCOL => ours = attribute.u8()? == PROTOCOL,
            NDA_VLAN => whole = false,
            NDA_IFINDEX => via = Some(attribute.u32()?),
            _ => {}
        }
    }
    let index = u32::from_ne_bytes([a, b, c, d]);
    let permanent = state & NUD_PERMANENT != 0;
    Ok(match (address, mac) {
        (None, Some(mac)) if family == AF_BRIDGE && flags & NTF_SELF == 0 && !permanent && whole => {
            Some(Found::Station { port: index, mac })
        }
        (None, Some(mac)) if family == AF_BRIDGE && flags & NTF_SELF == 0 && whole => {
            Some(Found::Own { device: index, mac })
        }
        _ if !permanent => None,
        (Some(vtep), Some(mac)) if family == AF_BRIDGE && flags & NTF_SELF != 0 => {
            Some(Found::Forwarding { index, mac, vtep, via })
        }
        (Some(address), Some(mac)) if family != AF_BRIDGE && ours => Some(Found::Neighbour { index, address, mac }),
        _ => None,
    })
}

/// What a notice says of an entry of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Notice {
    /// A forwarding entry is new or replaced.
    Put(Mac, IpAddr),
    /// A forwarding entry is gone.
    Removed(Mac),
    /// A VTEP gets frames for all no more.
    NoFlood(IpAddr),
    /// A station is behind a port of a bridge.
    Placed(Mac),
    /// A station is behind a port no more.
    Displaced(Mac),
    /// A bridge has no entry for an address of its own any more.
    Disowned,
    /// Nothing to a state: a bridge learned or forgot a station; the kernel met or forgot a neighbour; or an entry without
    /// its VTEP, which Linux 6.1 tells after the same one with it.
    Idle,
    /// A neighbour changed that says who made it, as all of ours do.
    Neighbour,
}

/// Reads what a notice says, and of which device; nothing for notices of other things.
pub(crate) fn notice(message: &Message<'_>) -> Result<Option<(u32, Notice)>, Malformed> {
    if !matches!(message.kind, RTM_NEWNEIGH | RTM_DELNEIGH) {
        return Ok(None);
    }
    let [family, _, _, _, a, b, c, d, e, f, flags, _] = message.head::<HEAD>()?;
    let (mut vtep, mut mac, mut made, mut whole) = (None, Mac::ZERO, false, true);
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            NDA_DST => vtep = Some(attribute.ip()?),
            NDA_LLADDR => mac = attribute.array().map(Mac::new).unwrap_or(Mac::ZERO),
            NDA_PROTOCOL => made = true,
            NDA_VLAN => whole = false,
            _ => {}
        }
    }
    let notice = match (message.kind, vtep) {
        _ if family != AF_BRIDGE && made => Notice::Neighbour,
        _ if family != AF_BRIDGE => Notice::Idle,
        (kind, _) if flags & NTF_SELF == 0 => match u16::from_ne_bytes([e, f]) & (NUD_PERMANENT | NUD_NOARP) {
            NUD_NOARP if whole && kind == RTM_NEWNEIGH => Notice::Placed(mac),
            NUD_NOARP if whole => Notice::Displaced(mac),
            NUD_PERMANENT if whole && kind == RTM_DELNEIGH => Notice::Disowned,
            _ => Notice::Idle,
        },
        (RTM_NEWNEIGH, Some(vtep)) => Notice::Put(mac, vtep),
        (_, Some(vtep)) if mac == Mac::ZERO => Notice::NoFlood(vtep),
        (_, None) if message.kind == RTM_NEWNEIGH || mac == Mac::ZERO => Notice::Idle,
        _ => Notice::Removed(mac),
    };
    Ok(Some((u32::from_ne_bytes([a, b, c, d]), notice)))
}

/// Sets or replaces a neighbour.
pub(crate) fn put(requests: &mut Requests, index: u32, address: IpAddr, mac: Mac) {
    requests.add(RTM_NEWNEIGH, Flags::CREATE | Flags::REPLACE, |body| {
        body.raw(&head(af(IpFamily::of(address)), index, NUD_PERMANENT, 0))
            .ip(NDA_DST, address)
            .attribute(NDA_LLADDR, &mac.octets())
            .u8(NDA_PROTOCOL, PROTOCOL);
    });
}

/// Removes a neighbour.
pub(crate) fn remove(requests: &mut Requests, index: u32, address: IpAddr) {
    requests.add(RTM_DELNEIGH, Flags::NONE, |body| {
        body.raw(&head(af(IpFamily::of(address)), index, 0, 0)).ip(NDA_DST, address);
    });
}

/// Where a VXLAN device's datagrams go, and the index of the interface they leave by; by the routes where `None`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Toward {
    pub(crate) vtep: IpAddr,
    pub(crate) via: Option<u32>,
}

/// Sets or replaces the VTEP a station is behind.
pub(crate) fn put_forwarding(requests: &mut Requests, index: u32, mac: Mac, to: Toward) {
    requests.add(RTM_NEWNEIGH, Flags::CREATE | Flags::REPLACE, |body| forwarding(body, index, mac, Some(to)));
}

/// Removes a station.
pub(crate) fn remove_forwarding(requests: &mut Requests, index: u32, mac: Mac) {
    requests.add(RTM_DELNEIGH, Flags::NONE, |body| forwarding(body, index, mac, None));
}

/// Adds a VTEP to those that frames for all and for unknown stations go to.
pub(crate) fn add_flood(requests: &mut Requests, index: u32, to: Toward) {
    requests.add(RTM_NEWNEIGH, Flags::CREATE | Flags::APPEND, |body| forwarding(body, index, Mac::ZERO, Some(to)));
}

/// Takes a VTEP from those.
pub(crate) fn remove_flood(requests: &mut Requests, index: u32, to: Toward) {
    requests.add(RTM_DELNEIGH, Flags::NONE, |body| forwarding(body, index, Mac::ZERO, Some(to)));
}

/// Sets or replaces the port of its bridge that a station is behind.
pub(crate) fn put_station(requests: &mut Requests, port: u32, mac: Mac) {
    requests.add(RTM_NEWNEIGH, Flags::CREATE | Flags::REPLACE, |body| station(body, port, mac));
}

/// Takes a station from behind a port.
pub(crate) fn remove_station(requests: &mut Requests, port: u32, mac: Mac) {
    requests.add(RTM_DELNEIGH, Flags::NONE, |body| station(body, port, mac));
}

/// Sets the entry for a bridge's own address.
pub(crate) fn put_own(bridge: u32, mac: Mac) -> Requests {
    Requests::one(RTM_NEWNEIGH, Flags::CREATE | Flags::REPLACE, |body| {
        body.raw(&head(AF_BRIDGE, bridge, NUD_PERMANENT, NTF_SELF)).attribute(NDA_LLADDR, &mac.octets());
    })
}

fn station(body: &mut Body<'_>, port: u32, mac: Mac) {
    body.raw(&head(AF_BRIDGE, port, NUD_NOARP, NTF_MASTER)).attribute(NDA_LLADDR, &mac.octets());
}

fn forwarding(body: &mut Body<'_>, index: u32, mac: Mac, to: Option<Toward>) {
    body.raw(&head(AF_BRIDGE, index, NUD_PERMANENT | NUD_NOARP, NTF_SELF)).attribute(NDA_LLADDR, &mac.octets());
    if let Some(to) = to {
        body.ip(NDA_DST, to.vtep);
        if let Some(via) = to.via {
            body.u32(NDA_IFINDEX, via);
        }
    }
}

fn head(family: u8, index: u32, state: u16, flags: u8) -> [u8; HEAD] {
    let ([a, b, c, d], [e, f]) = (index.to_ne_bytes(), state.to_ne_bytes());
    [family, 0, 0, 0, a, b, c, d, e, f, flags, 0]
}

const HEAD: usize = 12;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_IFINDEX: u16 = 8;
const NDA_PROTOCOL: u16 = 12;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const NTF_MASTER: u8 = 0x04;
