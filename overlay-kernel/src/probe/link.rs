//! Devices.

use overlay_core::BackendError;

use super::socket;
use crate::netlink::{Family, Flags, Requests};

/// Makes a device of `kind`; it goes with the namespace.
pub(super) fn make(kind: &str) -> Result<(), BackendError> {
    let new = Requests::one(RTM_NEWLINK, Flags::CREATE | Flags::EXCLUSIVE, |body| {
        body.raw(&[0; 16]).text(IFLA_IFNAME, &format!("p-{kind}"));
        if kind == "macvlan" {
            body.u32(IFLA_LINK, LOOPBACK);
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
    let made = socket(Family::Route)?.request(&new);
    made.map_err(|error| error.during(format!("create a {kind} device")))
}

pub(super) const LOOPBACK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_PORT: u16 = 15;
