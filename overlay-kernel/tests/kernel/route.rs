//! As much of rtnetlink as these tests need.

use std::net::{IpAddr, Ipv4Addr};

use overlay_kernel::Namespace;
use overlay_kernel::netlink::{Body, Family, Flags, NetlinkError, Requests, Socket};

pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const DEL_LINK: u16 = 17;
pub(crate) const GET_LINK: u16 = 18;
pub(crate) const NEW_ADDRESS: u16 = 20;
pub(crate) const DEL_ADDRESS: u16 = 21;
pub(crate) const NEW_ROUTE: u16 = 24;
pub(crate) const DEL_ROUTE: u16 = 25;
pub(crate) const NEW_NEIGHBOUR: u16 = 28;
pub(crate) const DEL_NEIGHBOUR: u16 = 29;
pub(crate) const GET_NEIGHBOUR: u16 = 30;
pub(crate) const NEW_RULE: u16 = 32;
pub(crate) const DEL_RULE: u16 = 33;
pub(crate) const NEW: Flags = Flags(Flags::CREATE.0 | Flags::EXCLUSIVE.0);

pub(crate) fn socket(namespace: &Namespace) -> Socket {
    namespace.netlink(Family::Route).unwrap()
}

/// A new device that is down: one that is up goes on telling of itself, its carrier and its own addresses.
pub(crate) fn device(name: &str, kind: &str) -> Requests {
    Requests::one(NEW_LINK, NEW, |body| {
        link(body, 0, false).text(3, name).nest(18, |info| {
            info.text(1, kind);
            if kind == "vxlan" {
                info.nest(2, |data| {
                    data.u32(1, 42).u8(7, 0).be16(15, 4789); // no learning
                });
            }
        });
    })
}

/// `struct ifinfomsg`.
pub(crate) fn link<'a, 'b>(body: &'a mut Body<'b>, index: u32, up: bool) -> &'a mut Body<'b> {
    let up = u32::from(up).to_ne_bytes();
    body.raw(&[0; 4]).raw(&index.to_ne_bytes()).raw(&up).raw(&up)
}

pub(crate) fn up(index: u32) -> Requests {
    Requests::one(NEW_LINK, Flags::NONE, |body| {
        link(body, index, true);
    })
}

pub(crate) fn index(socket: &mut Socket, name: &str) -> Result<u32, NetlinkError> {
    let get = Requests::one(GET_LINK, Flags::NONE, |body| {
        link(body, 0, false).text(3, name);
    });
    let found = socket.ask(&get, |message| {
        let [_, _, _, _, a, b, c, d] = message.head()?;
        Ok(Some(u32::from_ne_bytes([a, b, c, d])))
    })?;
    Ok(found[0])
}

pub(crate) fn address(kind: u16, index: u32, address: IpAddr, prefix: u8) -> Requests {
    Requests::one(kind, if kind == NEW_ADDRESS { NEW } else { Flags::NONE }, |body| {
        let family = if address.is_ipv4() { 2 } else { 10 };
        body.raw(&[family, prefix, 0x02, 0]).raw(&index.to_ne_bytes()).ip(2, address).ip(1, address); // no DAD
    })
}

pub(crate) fn route(kind: u16, index: u32, destination: Ipv4Addr, prefix: u8) -> Requests {
    Requests::one(kind, if kind == NEW_ROUTE { NEW } else { Flags::NONE }, |body| {
        body.raw(&[2, prefix, 0, 0, 254, 4, 253, 1]).raw(&[0; 4]); // main, static, link, unicast
        body.ip(1, destination.into()).u32(4, index);
    })
}

pub(crate) fn rule(kind: u16, priority: u32) -> Requests {
    Requests::one(kind, if kind == NEW_RULE { NEW } else { Flags::NONE }, |body| {
        body.raw(&[2, 0, 0, 0, 254, 0, 0, 1]).raw(&[0; 4]).u32(6, priority); // lookup main
    })
}

/// A permanent neighbour (IPv4), or a forwarding entry of a VXLAN device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbour {
    pub(crate) index: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) ip: Ipv4Addr,
    pub(crate) forwarding: bool,
}

impl Neighbour {
    pub(crate) fn numbered(index: u32, number: u32, forwarding: bool) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        Self { index, mac: [2, 0, a, b, c, d], ip: Ipv4Addr::from(0x0a40_0000 + number), forwarding }
    }

    pub(crate) fn add(self, requests: &mut Requests, kind: u16, flags: Flags) {
        requests.add(kind, flags, |body| {
            let (family, flags, state) = if self.forwarding { (7, 2, 0xc0_u16) } else { (2, 0, 0x80) };
            body.raw(&[family, 0, 0, 0]).raw(&self.index.to_ne_bytes());
            body.raw(&state.to_ne_bytes()).raw(&[flags, 0]).attribute(2, &self.mac).ip(1, self.ip.into());
        });
    }

    pub(crate) fn one(self, kind: u16, flags: Flags) -> Requests {
        let mut requests = Requests::default();
        self.add(&mut requests, kind, flags);
        requests
    }
}

/// A dump of neighbours of a family: 2 for IPv4, 7 for forwarding entries.
pub(crate) fn neighbours(family: u8) -> Requests {
    Requests::one(GET_NEIGHBOUR, Flags::NONE, |body| {
        body.raw(&[family, 0, 0, 0]).raw(&[0; 8]);
    })
}
