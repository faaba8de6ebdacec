//! Devices.

use overlay_core::{BackendError, ErrorKind, IfName};

use super::socket;
use crate::netlink::{Family, Flags, Requests, Socket};
use crate::tap::NewTap;

/// Makes a device of `kind`; it goes with the namespace.
pub(super) fn make(kind: &str) -> Result<(), BackendError> {
    let mut socket = socket(Family::Route)?;
    let parent = if kind == "macvlan" { Some(parent(&mut socket)?) } else { None };
    let new = Requests::one(RTM_NEWLINK, Flags::CREATE | Flags::EXCLUSIVE, |body| {
        body.raw(&[0; 16]).text(IFLA_IFNAME, &format!("p-{kind}"));
        if let Some(parent) = parent {
            body.u32(IFLA_LINK, parent);
        }
        body.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, kind);
            if kind == "vxlan" {
                info.nest(IFLA_INFO_DATA, |data| {
                    data.u32(IFLA_VXLAN_ID, 1).be16(IFLA_VXLAN_PORT, 4789);
                });
            }
        });
    });
    socket.request(&new).map_err(|error| error.during(format!("create a {kind} device")))
}

/// Makes a tap, which goes at once.
pub(super) fn make_tap() -> Result<(), BackendError> {
    let name =
        IfName::new("p-tap").map_err(|error| BackendError::new(ErrorKind::Invalid, "name a tap").caused_by(error))?;
    NewTap::create(name, false).map(drop)
}

/// A device made before this, for one that sits on another.
fn parent(socket: &mut Socket) -> Result<u32, BackendError> {
    let all = Requests::one(RTM_GETLINK, Flags::NONE, |body| {
        body.raw(&[0; 16]);
    });
    let found = socket.dump(&all, |link| {
        let [_, _, _, _, a, b, c, d, ..] = link.head::<16>()?;
        let index = u32::from_ne_bytes([a, b, c, d]);
        Ok((index != LOOPBACK).then_some(index))
    });
    let found = found.map_err(|error| error.during("list devices"))?;
    found.first().copied().ok_or_else(|| BackendError::new(ErrorKind::Unsupported, "find a device to put another on"))
}

const LOOPBACK: u32 = 1;
const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_PORT: u16 = 15;
