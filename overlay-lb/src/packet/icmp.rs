//! ICMP errors about packets of flows (RFC 5508 §4 for NATs; RFC 4443 §2.4).

use overlay_core::{IpFamily, Protocol};

use super::checksum::Delta;
use super::nat::{MAPPED, TCP_CHECKSUM, UDP_CHECKSUM, V4_CHECKSUM, readdress, report};
use super::view::View;
use crate::flow::Tuple;

/// What an ICMP error says of the packet that it is about: as that went when the error's sender saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quote {
    /// Where its IP header begins, in the error's packet.
    at: usize,
    /// Where its transport header begins.
    transport: usize,
    pub(crate) tuple: Tuple,
}

impl Quote {
    /// Reads what an error quotes; nothing if that is of no protocol with ports, a later fragment, or too short.
    pub(crate) fn read(ip: &[u8], view: &View, at: usize) -> Option<Self> {
        let quoted = ip.get(at..view.end)?;
        let (length, protocol) = match view.family {
            IpFamily::V4 => {
                let head: &[u8; 20] = quoted.first_chunk()?;
                let later = u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0;
                let length = usize::from(head[0] & 15) * 4;
                (head[0] >> 4 == 4 && !later && length >= 20).then_some((length, head[9]))?
            }
            IpFamily::V6 => {
                let head: &[u8; 40] = quoted.first_chunk()?;
                (head[0] >> 4 == 6).then_some((40, head[6]))?
            }
        };
        let protocol = Protocol::from_number(protocol)?;
        let ports: &[u8; 4] = quoted.get(length..)?.first_chunk()?;
        let from_port = u16::from_be_bytes([ports[0], ports[1]]);
        let to_port = u16::from_be_bytes([ports[2], ports[3]]);
        let (from, to) = addresses(quoted, view.family)?;
        Some(Self { at, transport: at + length, tuple: Tuple { from, to, from_port, to_port, protocol } })
    }

    /// Makes the error one about a packet that went as `about` says, sent from and to where `ends` says.
    pub(crate) fn rewrite(&self, ip: &mut [u8], view: &View, about: &Tuple, ends: &Tuple) {
        let Some(ip) = ip.get_mut(..view.end) else { return };
        let (head, message) = ip.split_at_mut(view.at);
        let mut delta = readdress(head, view.family, ends);
        if view.family == IpFamily::V4 {
            delta.mend(head, V4_CHECKSUM);
            delta = Delta::default(); // ICMP's checksum does not cover addresses, ICMPv6's does
        }
        delta.and(self.requote(message, view, about)).mend(message, ICMP_CHECKSUM);
    }

    /// Changes what is quoted: addresses, ports, and as much of its checksums as is quoted.
    fn requote(&self, message: &mut [u8], view: &View, about: &Tuple) -> Delta {
        let Some(quoted) = message.get_mut(self.at - view.at..) else { return Delta::default() };
        let (head, rest) = quoted.split_at_mut(self.transport - self.at);
        let addresses = readdress(head, view.family, about);
        let own = match view.family {
            IpFamily::V4 => addresses.mend(head, V4_CHECKSUM),
            IpFamily::V6 => Delta::default(),
        };
        let ports = report(rest, about);
        let of_both = addresses.and(ports);
        let field = match about.protocol {
            Protocol::Tcp => of_both.mend(rest, TCP_CHECKSUM),
            Protocol::Udp if rest.get(6..8).is_some_and(|field| *field != [0, 0]) => of_both.mend(rest, UDP_CHECKSUM),
            Protocol::Udp | Protocol::Sctp => Delta::default(),
        };
        of_both.and(own).and(field)
    }
}

fn addresses(head: &[u8], family: IpFamily) -> Option<(u128, u128)> {
    match family {
        IpFamily::V4 => {
            let bytes: &[u8; 8] = head.get(12..20)?.first_chunk()?;
            let both = u64::from_be_bytes(*bytes);
            let wide = |address: u64| u128::from(address) | MAPPED << 32;
            Some((wide(both >> 32), wide(both & 0xffff_ffff)))
        }
        IpFamily::V6 => {
            let from = u128::from_be_bytes(*head.get(8..24)?.first_chunk()?);
            let to = u128::from_be_bytes(*head.get(24..40)?.first_chunk()?);
            Some((from, to))
        }
    }
}

pub(super) const ICMP_CHECKSUM: usize = 2;
