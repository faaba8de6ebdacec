//! Values as text.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::nft::Verdict;
use crate::nft::value::Type;

/// A value of this type, as `nft` writes it; a number where it has no word for it.
pub(super) fn one(kind: Option<Type>, bytes: &[u8]) -> String {
    let Some(kind) = kind.filter(|kind| bytes.len() == kind.size()) else { return number(bytes) };
    match kind {
        Type::Ipv4 => {
            bytes.try_into().map_or_else(|_| number(bytes), |octets: [u8; 4]| Ipv4Addr::from(octets).to_string())
        }
        Type::Ipv6 => {
            bytes.try_into().map_or_else(|_| number(bytes), |octets: [u8; 16]| Ipv6Addr::from(octets).to_string())
        }
        Type::Mac => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
        Type::IfName => format!("\"{}\"", String::from_utf8_lossy(bytes).trim_end_matches('\0')),
        Type::Port => decimal(bytes),
        Type::Mark | Type::IfIndex => format!("{:#010x}", host(bytes)),
        Type::CtState => bits(host(bytes), &STATES),
        Type::CtStatus => bits(host(bytes), &STATUSES),
        _ => word(kind, bytes)
            .map_or_else(|| if kind.is_host_order() { host(bytes).to_string() } else { number(bytes) }, str::to_owned),
    }
}

fn word(kind: Type, bytes: &[u8]) -> Option<&'static str> {
    let value =
        if kind.is_host_order() { host(bytes) } else { bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)) };
    let words: &[(u32, &str)] = match kind {
        Type::NfProto => &[(2, "ipv4"), (10, "ipv6")],
        Type::EtherType => &[(0x0800, "ip"), (0x0806, "arp"), (0x86dd, "ip6")],
        Type::ArpOp => &[(1, "request"), (2, "reply")],
        Type::IpProtocol => &[(1, "icmp"), (6, "tcp"), (17, "udp"), (50, "esp"), (58, "ipv6-icmp"), (132, "sctp")],
        Type::Bool => &[(0, "missing"), (1, "exists")],
        Type::CtDirection => &[(0, "original"), (1, "reply")],
        Type::PacketType => &[(0, "host"), (1, "broadcast"), (2, "multicast"), (3, "other")],
        Type::AddressType => &[(1, "unicast"), (2, "local"), (3, "broadcast"), (4, "anycast"), (5, "multicast")],
        _ => &[],
    };
    words.iter().find(|(number, _)| *number == value).map(|(_, word)| *word)
}

/// Bits of these names, with commas between; a number if one has no name.
fn bits(value: u32, names: &[(u32, &str)]) -> String {
    let known = names.iter().fold(0, |known, (bit, _)| known | bit);
    if value == 0 || value & !known != 0 {
        return format!("{value:#x}");
    }
    names.iter().filter(|(bit, _)| value & bit != 0).map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

const STATES: [(u32, &str); 5] = [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
const STATUSES: [(u32, &str); 6] =
    [(1, "expected"), (2, "seen-reply"), (4, "assured"), (8, "confirmed"), (16, "snat"), (32, "dnat")];

fn host(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// In hexadecimal, most significant first.
pub(super) fn number(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let digits = digits.trim_start_matches('0');
    format!("0x{}", if digits.is_empty() { "0" } else { digits })
}

fn decimal(bytes: &[u8]) -> String {
    bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)).to_string()
}

/// The parts of a concatenation, each with its type.
fn parts<'a>(types: &'a [Type], bytes: &'a [u8]) -> impl Iterator<Item = (Type, &'a [u8])> {
    let mut start = 0;
    types.iter().map(move |kind| {
        let part = bytes.get(start..start + kind.size()).unwrap_or_default();
        start += kind.size().next_multiple_of(4);
        (*kind, part)
    })
}

pub(super) fn concatenated(types: &[Type], bytes: &[u8]) -> String {
    parts(types, bytes).map(|(kind, part)| one(Some(kind), part)).collect::<Vec<_>>().join(" . ")
}

/// Ranges, from the first half to the last.
pub(super) fn ranged(types: &[Type], bytes: &[u8]) -> String {
    let (low, high) = bytes.split_at(bytes.len() / 2);
    let ranges = parts(types, low).zip(parts(types, high)).map(|((kind, low), (_, high))| {
        let first = one(Some(kind), low);
        if low == high { first } else { format!("{first}-{}", one(Some(kind), high)) }
    });
    ranges.collect::<Vec<_>>().join(" . ")
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Continue => f.write_str("continue"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}
