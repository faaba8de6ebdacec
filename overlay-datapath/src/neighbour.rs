//! ARP (RFC 826) and neighbour discovery (RFC 4861), answered where they are asked.

use std::net::{IpAddr, Ipv6Addr};

use overlay_core::Mac;
use overlay_firewall::{Content, Ends, Icmpv6, Transport};

use crate::content::Contents;
use crate::tables::{PortTable, Tables, whereabouts};
use crate::{Buffer, Reason, checksum};

/// The address that a frame asks for, if it asks; why it needs no answer, if it only tells.
pub(crate) fn asks_for(content: &Content, frame: &[u8]) -> Result<Option<IpAddr>, Reason> {
    match content {
        // An answer goes to whom it is for.
        Content::Arp { .. } if frame.get(20..22) != Some(&[0, 1]) => Ok(None),
        Content::Arp { address, target, .. } if address.is_unspecified() || address == target => Err(Reason::Settled),
        Content::Arp { target, .. } => Ok(Some((*target).into())),
        Content::Ip(ip) => match (ip.transport, ip.ends) {
            (Transport::Icmpv6(Icmpv6::Probe(_)), Ends::V6 { source, .. }) if source.is_unspecified() => {
                Err(Reason::Settled)
            }
            (Transport::Icmpv6(Icmpv6::Probe(target)), _) => Ok(Some(target.into())),
            (Transport::Icmpv6(Icmpv6::Solicitation), _) => Err(Reason::Settled),
            _ => Ok(None),
        },
        Content::Other => Ok(None),
    }
}

/// Answers a question for an address, in place. `Ok(false)`, and nothing changed, where it is none.
pub(crate) fn answer(
    tables: &Tables,
    port: &PortTable,
    contents: &Contents,
    buffer: &mut Buffer,
) -> Result<bool, Reason> {
    let Some(asked) = asks_for(&contents.content, buffer.packet())? else { return Ok(false) };
    let at = whereabouts(tables, port, asked)?;
    match (&contents.content, asked) {
        (Content::Ip(ip), IpAddr::V6(target)) => match ip.ends {
            Ends::V6 { source, .. } => advertisement(buffer, (target, at), source).ok_or(Reason::Room)?,
            Ends::V4 { .. } => return Ok(false),
        },
        _ => arp(buffer, at).ok_or(Reason::Malformed)?,
    }
    Ok(true)
}

/// The same frame as the answer that it asks for.
fn arp(buffer: &mut Buffer, at: Mac) -> Option<()> {
    buffer.truncate(ARP_END);
    let frame = buffer.packet_mut().first_chunk_mut::<ARP_END>()?;
    let asks: [u8; 10] = frame.get(22..)?.first_chunk().copied()?;
    let target: [u8; 4] = *frame.last_chunk()?;
    frame[..6].copy_from_slice(&asks[..6]);
    frame[6..12].copy_from_slice(&at.octets());
    frame[21] = 2;
    frame[22..28].copy_from_slice(&at.octets());
    frame[28..32].copy_from_slice(&target);
    frame[32..].copy_from_slice(&asks);
    Some(())
}

/// A neighbour advertisement in place of the solicitation (RFC 4861 §4.4), of the address itself.
fn advertisement(buffer: &mut Buffer, (target, at): (Ipv6Addr, Mac), to: Ipv6Addr) -> Option<()> {
    let start = buffer.range().start;
    buffer.set(start..start + ND_END)?;
    let asker: [u8; 6] = buffer.packet().get(6..12)?.first_chunk().copied()?;
    let frame = buffer.packet_mut().first_chunk_mut::<ND_END>()?;
    frame[..6].copy_from_slice(&asker);
    frame[6..12].copy_from_slice(&at.octets());
    frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame[22..38].copy_from_slice(&target.octets());
    frame[38..54].copy_from_slice(&to.octets());
    frame[54..62].copy_from_slice(&[136, 0, 0, 0, SOLICITED | OVERRIDE, 0, 0, 0]);
    frame[62..78].copy_from_slice(&target.octets());
    frame[78..80].copy_from_slice(&[2, 1]);
    frame[80..].copy_from_slice(&at.octets());
    let sum = checksum::sum(&frame[22..]) + 32 + 58;
    frame[56..58].copy_from_slice(&checksum::finish(sum).to_be_bytes());
    Some(())
}

const ARP_END: usize = 14 + 28;
const ND_END: usize = 14 + 40 + 32;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
