//! Translation of addresses and ports.

use overlay_core::{IpFamily, Protocol};

use super::checksum::{Delta, crc32c};
use super::view::{Content, View};
use crate::flow::Tuple;

/// Makes an IP packet one that goes from and to where `tuple` says: addresses and ports are replaced in place, and checksums mended
/// by what changed (RFC 1624), so that a packet that was damaged before stays damaged. Only SCTP's, over all of a packet, is
/// made anew, and only if a port changes; a packet whose checksum was wrong stays wrong.
///
/// ```
/// use overlay_core::Protocol;
/// use overlay_lb::{Tuple, translate};
///
/// let mut datagram = [
///     69, 0, 0, 30, 0, 1, 64, 0, 64, 17, 0x26, 0xa8, 10, 0, 0, 1, 10, 0, 0, 9, // IPv4
///     0x9c, 0x40, 0, 53, 0, 10, 0x00, 0x00, 1, 2, // UDP, from 40000 to 53
/// ];
/// translate(&mut datagram, &Tuple::new(Protocol::Udp, "10.0.0.1:40000".parse()?, "10.0.0.2:5353".parse()?))?;
/// assert_eq!(datagram[16..24], [10, 0, 0, 2, 0x9c, 0x40, 0x14, 0xe9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Untranslatable`] if it is no whole packet of that protocol and family; it is unchanged then.
pub fn translate(ip: &mut [u8], tuple: &Tuple) -> Result<(), Untranslatable> {
    match View::read(ip) {
        Some(view) if matches!(view.content, Content::Segment(segment) if segment.protocol == tuple.protocol) => {
            let is_v4 = |address: u128| address >> 32 == MAPPED;
            let v4 = view.family == IpFamily::V4;
            if is_v4(tuple.from) != v4 || is_v4(tuple.to) != v4 {
                return Err(Untranslatable);
            }
            rewrite(ip, &view, tuple);
            Ok(())
        }
        _ => Err(Untranslatable),
    }
}

/// What is no whole packet of the protocol and family that it is to be translated in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("that is no whole packet of this protocol and family of addresses")]
pub struct Untranslatable;

/// The same for a packet that was read already, of that protocol and family.
#[inline(always)]
pub(crate) fn rewrite(ip: &mut [u8], view: &View, tuple: &Tuple) {
    let Some(ip) = ip.get_mut(..view.end) else { return };
    let (head, rest) = ip.split_at_mut(view.at);
    let addresses = readdress(head, view.family, tuple);
    if view.family == IpFamily::V4 {
        addresses.mend(head, V4_CHECKSUM);
    }
    if tuple.protocol == Protocol::Sctp {
        return rewrite_sctp(rest, tuple);
    }
    let delta = addresses.and(report(rest, tuple));
    match tuple.protocol {
        Protocol::Udp => mend_udp(rest, delta),
        _ => drop(delta.mend(rest, TCP_CHECKSUM)),
    }
}

/// Replaces both addresses of an IP header.
#[inline(always)]
pub(super) fn readdress(head: &mut [u8], family: IpFamily, tuple: &Tuple) -> Delta {
    match family {
        IpFamily::V4 => {
            let (from, to) = (tuple.from as u32, tuple.to as u32);
            let new = (u64::from(from) << 32 | u64::from(to)).to_be_bytes();
            head.get_mut(12..20).map_or_else(Delta::default, |old| Delta::replace(old, &new))
        }
        IpFamily::V6 => {
            let mut put = |at: usize, new: u128| {
                let old = head.get_mut(at..at + 16);
                old.map_or_else(Delta::default, |old| Delta::replace(old, &new.to_be_bytes()))
            };
            put(8, tuple.from).and(put(24, tuple.to))
        }
    }
}

/// Replaces both ports of a transport header.
#[inline(always)]
pub(super) fn report(rest: &mut [u8], tuple: &Tuple) -> Delta {
    let new = (u32::from(tuple.from_port) << 16 | u32::from(tuple.to_port)).to_be_bytes();
    rest.get_mut(..4).map_or_else(Delta::default, |old| Delta::replace(old, &new))
}

/// UDP's checksum: 0 is none, and one that comes to 0 is written as its other zero (RFC 768).
#[inline(always)]
fn mend_udp(rest: &mut [u8], delta: Delta) {
    if rest.get(6..8).is_some_and(|field| *field != [0, 0]) {
        delta.mend(rest, UDP_CHECKSUM);
        rest.get_mut(6..8).filter(|field| **field == [0, 0]).into_iter().for_each(|field| field.fill(0xff));
    }
}

/// SCTP's checksum covers no addresses.
#[inline(never)]
fn rewrite_sctp(rest: &mut [u8], tuple: &Tuple) {
    let before = rest.first_chunk::<4>().copied();
    let was_right = sctp_is_right(rest);
    report(rest, tuple);
    if was_right && before != rest.first_chunk().copied() {
        renew_sctp(rest);
    }
}

fn sctp_is_right(rest: &[u8]) -> bool {
    let (Some(head), Some(field), Some(chunks)) = (rest.get(..8), rest.get(8..12), rest.get(12..)) else {
        return false;
    };
    crc32c([head, &[0; 4], chunks])[..] == *field
}

fn renew_sctp(rest: &mut [u8]) {
    let (Some(head), Some(chunks)) = (rest.get(..8), rest.get(12..)) else { return };
    let crc = crc32c([head, &[0; 4], chunks]);
    rest.get_mut(8..12).into_iter().for_each(|field| field.copy_from_slice(&crc));
}

pub(super) const MAPPED: u128 = 0xffff;
pub(super) const V4_CHECKSUM: usize = 10;
pub(super) const TCP_CHECKSUM: usize = 16;
pub(super) const UDP_CHECKSUM: usize = 6;
