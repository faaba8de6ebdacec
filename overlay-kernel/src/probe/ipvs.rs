//! IPVS: a virtual service.

use overlay_core::{BackendError, ErrorKind};

use super::socket;
use crate::netlink::{Family, Flags, GenericFamily};

/// Makes a service; it goes with the namespace.
pub(super) fn serve() -> Result<(), BackendError> {
    let mut socket = socket(Family::Generic)?;
    let family = GenericFamily::find(&mut socket, "IPVS").map_err(|error| error.during("find IPVS"))?;
    let family = family.ok_or_else(|| BackendError::new(ErrorKind::Unsupported, "find IPVS in this kernel"))?;
    let new = family.request(NEW_SERVICE, Flags::NONE, |body| {
        body.nest(SERVICE, |service| {
            service.u16(ADDRESS_FAMILY, AF_INET).u16(PROTOCOL, IPPROTO_TCP);
            service.attribute(ADDRESS, &[127, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).be16(PORT, 9);
            service.text(SCHEDULER, "rr").attribute(FLAGS, &[0, 0, 0, 0, 255, 255, 255, 255]);
            service.u32(TIMEOUT, 0).u32(NETMASK, u32::MAX);
        });
    });
    socket.request(&new).map_err(|error| error.during("create an IPVS service"))
}

const AF_INET: u16 = 2;
const IPPROTO_TCP: u16 = 6;

// linux/ip_vs.h
const NEW_SERVICE: u8 = 1;
const SERVICE: u16 = 1;
const ADDRESS_FAMILY: u16 = 1;
const PROTOCOL: u16 = 2;
const ADDRESS: u16 = 3;
const PORT: u16 = 4;
const SCHEDULER: u16 = 6;
const FLAGS: u16 = 7;
const TIMEOUT: u16 = 8;
const NETMASK: u16 = 9;
