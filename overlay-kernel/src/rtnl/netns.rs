//! Numbers that one namespace has for others (`linux/net_namespace.h`).

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{Flags, Malformed, Message, Requests};

use super::AF_UNSPEC;

/// Asks which number a namespace has here.
pub(crate) fn number(netns: BorrowedFd<'_>) -> Requests {
    Requests::one(RTM_GETNSID, Flags::NONE, |body| {
        body.raw(&[AF_UNSPEC, 0, 0, 0]).u32(NETNSA_FD, netns.as_raw_fd().cast_unsigned());
    })
}

/// Reads the number; nothing if the namespace has none here, as nothing of it was ever seen from here.
pub(crate) fn parse(message: &Message<'_>) -> Result<Option<i32>, Malformed> {
    if message.kind != RTM_NEWNSID {
        return Ok(None);
    }
    let number = message.attributes(4)?.find(NETNSA_NSID)?.map(|number| number.u32()).transpose()?;
    Ok(number.map(u32::cast_signed).filter(|number| *number >= 0))
}

const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
