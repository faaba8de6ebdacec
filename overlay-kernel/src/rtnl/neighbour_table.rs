//! How a device asks for neighbours (`struct ndtmsg`, `linux/neighbour.h`).

use std::time::Duration;

use overlay_core::IpFamily;

use crate::link::Solicit;
use crate::netlink::{Flags, Malformed, Message, Requests};

use super::{AF_INET, AF_INET6, AF_UNSPEC, af};

/// How a device asks for neighbours of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) index: u32,
    pub(crate) family: IpFamily,
    pub(crate) solicit: Solicit,
}

/// Asks how all devices of a namespace do it.
pub(crate) fn dump() -> Requests {
    Requests::one(RTM_GETNEIGHTBL, Flags::NONE, |body| {
        body.raw(&[AF_UNSPEC, 0, 0, 0]);
    })
}

/// Reads how a device does it; nothing for a table itself.
pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Found>, Malformed> {
    if message.kind != RTM_NEWNEIGHTBL {
        return Ok(None);
    }
    let family = match message.head::<HEAD>()? {
        [AF_INET, ..] => IpFamily::V4,
        [AF_INET6, ..] => IpFamily::V6,
        _ => return Ok(None),
    };
    let Some(parameters) = message.attributes(HEAD)?.find(NDTA_PARMS)? else { return Ok(None) };
    let (mut device, mut solicit) = (None, Solicit::UNEVEN);
    for attribute in parameters.nested() {
        let attribute = attribute?;
        match attribute.kind {
            NDTPA_IFINDEX => device = Some(attribute.u32()?),
            NDTPA_RETRANS_TIME => solicit.interval = Duration::from_millis(attribute.u64()?),
            NDTPA_MCAST_PROBES => solicit.times = attribute.u32()?,
            _ => {}
        }
    }
    Ok(device.map(|index| Found { index, family, solicit }))
}

/// Has a device do it so.
pub(crate) fn set(index: u32, family: IpFamily, solicit: Solicit) -> Requests {
    Requests::one(RTM_SETNEIGHTBL, Flags::NONE, |body| {
        let table = match family {
            IpFamily::V4 => "arp_cache",
            IpFamily::V6 => "ndisc_cache",
        };
        body.raw(&[af(family), 0, 0, 0]).text(NDTA_NAME, table).nest(NDTA_PARMS, |body| {
            body.u32(NDTPA_IFINDEX, index)
                .u64(NDTPA_RETRANS_TIME, u64::try_from(solicit.interval.as_millis()).unwrap_or(u64::MAX))
                .u32(NDTPA_MCAST_PROBES, solicit.times);
        });
    })
}

const HEAD: usize = 4;
const RTM_NEWNEIGHTBL: u16 = 64;
const RTM_GETNEIGHTBL: u16 = 66;
const RTM_SETNEIGHTBL: u16 = 67;
const NDTA_NAME: u16 = 1;
const NDTA_PARMS: u16 = 6;
const NDTPA_IFINDEX: u16 = 1;
const NDTPA_RETRANS_TIME: u16 = 5;
const NDTPA_MCAST_PROBES: u16 = 11;
