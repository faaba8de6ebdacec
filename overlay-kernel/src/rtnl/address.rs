//! Addresses (`struct ifaddrmsg`, `linux/if_addr.h`).

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::IpFamily;

use crate::netlink::{Flags, Malformed, Message, Requests};

use super::{AF_UNSPEC, PROTOCOL, af};

/// An address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) index: u32,
    pub(crate) address: IpAddr,
    pub(crate) prefix_len: u8,
    /// Whether we made it.
    pub(crate) ours: bool,
    /// Whether the kernel made it from the device's Ethernet address.
    pub(crate) kernels: bool,
}

/// Asks for all addresses of both families.
pub(crate) fn dump() -> Requests {
    Requests::one(RTM_GETADDR, Flags::NONE, |body| {
        body.raw(&[AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0]);
    })
}

/// Reads an address; nothing for other messages.
pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Found>, Malformed> {
    if message.kind != RTM_NEWADDR {
        return Ok(None);
    }
    let [_, prefix_len, _, _, a, b, c, d] = message.head::<HEAD>()?;
    let (mut address, mut local, mut protocol) = (None, None, 0);
    for attribute in message.attributes(HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            IFA_ADDRESS => address = Some(attribute.ip()?),
            IFA_LOCAL => local = Some(attribute.ip()?),
            IFA_PROTO => protocol = attribute.u8()?,
            _ => {}
        }
    }
    let index = u32::from_ne_bytes([a, b, c, d]);
    let (ours, kernels) = (protocol == PROTOCOL, protocol == IFAPROT_KERNEL_LL);
    Ok(local.or(address).map(|address| Found { index, address, prefix_len, ours, kernels }))
}

/// Gives a device an address, without duplicate detection.
pub(crate) fn put(requests: &mut Requests, index: u32, net: IpNet) {
    requests.add(RTM_NEWADDR, Flags::CREATE | Flags::REPLACE, |body| {
        body.raw(&head(index, net)).ip(IFA_LOCAL, net.addr()).ip(IFA_ADDRESS, net.addr());
        if let IpNet::V4(net) = net
            && net.prefix_len() < 31
        {
            body.ip(IFA_BROADCAST, net.broadcast().into());
        }
        body.u32(IFA_FLAGS, if net.addr().is_ipv6() { IFA_F_NODAD } else { 0 }).u8(IFA_PROTO, PROTOCOL);
    });
}

/// Takes an address from a device.
pub(crate) fn remove(requests: &mut Requests, index: u32, net: IpNet) {
    requests.add(RTM_DELADDR, Flags::NONE, |body| {
        body.raw(&head(index, net)).ip(IFA_LOCAL, net.addr()).ip(IFA_ADDRESS, net.addr());
    });
}

fn head(index: u32, net: IpNet) -> [u8; HEAD] {
    let [a, b, c, d] = index.to_ne_bytes();
    [af(IpFamily::of(net.addr())), net.prefix_len(), 0, scope(net.addr()), a, b, c, d]
}

/// Link-local addresses are valid on the link only.
const fn scope(address: IpAddr) -> u8 {
    match address {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    }
}

const HEAD: usize = 8;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
const IFA_F_NODAD: u32 = 0x02;
const IFAPROT_KERNEL_LL: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
