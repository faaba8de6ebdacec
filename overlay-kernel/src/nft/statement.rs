//! What a rule can do besides comparing.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Value;

/// How a translation chooses among ports and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NatFlags {
    /// A client keeps its address.
    pub persistent: bool,
    /// Ports are drawn by a hash.
    pub random: bool,
    /// Ports are drawn at random: two containers of one source port do not race for it.
    pub fully_random: bool,
}

/// What a packet can be translated to by a map: an address, or an address and a port.
pub trait NatTarget: Value {
    #[doc(hidden)]
    const IPV6: bool;
    #[doc(hidden)]
    const PORT: bool;
}

impl NatTarget for Ipv4Addr {
    const IPV6: bool = false;
    const PORT: bool = false;
}

impl NatTarget for Ipv6Addr {
    const IPV6: bool = true;
    const PORT: bool = false;
}

impl NatTarget for (Ipv4Addr, u16) {
    const IPV6: bool = false;
    const PORT: bool = true;
}

impl NatTarget for (Ipv6Addr, u16) {
    const IPV6: bool = true;
    const PORT: bool = true;
}

/// How a sender is told that its packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// A TCP reset. Only after TCP was checked for.
    TcpReset,
    /// An ICMP or ICMPv6 error: in `inet`, `bridge` and `netdev`.
    Unreachable(Unreachable),
    /// A "destination unreachable" with this code: in `ip` of ICMP (RFC 792), in `ip6` of ICMPv6 (RFC 4443 §3.1).
    Icmp(u8),
}

/// Why, in the words of both ICMPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// There is no route.
    NoRoute = 0,
    /// Nobody listens at the port.
    Port = 1,
    /// The host is not there.
    Host = 2,
    /// It is forbidden.
    Prohibited = 3,
}

/// A token bucket: matches while there are tokens, or, if `over`, while there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Tokens that come in per unit of time, 1 at least: packets, or bytes.
    pub rate: u64,
    /// The unit of time.
    pub per: Per,
    /// Tokens that the full bucket has besides, 1 at least for packets.
    pub burst: u32,
    /// Whether tokens are bytes.
    pub bytes: bool,
    /// Whether it matches what is beyond the limit instead of what is within.
    pub over: bool,
}

impl Limit {
    /// `rate` packets per second, in bursts of at most `burst`.
    pub const fn packets(rate: u64, burst: u32) -> Self {
        Self { rate, per: Per::Second, burst, bytes: false, over: false }
    }

    /// What is beyond it.
    #[must_use]
    pub const fn exceeded(self) -> Self {
        Self { over: true, ..self }
    }
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Per {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
    /// 86,400 s.
    Day,
}

impl Per {
    pub(super) const ALL: [(Self, u64, &'static str); 4] = [
        (Self::Second, 1, "second"),
        (Self::Minute, 60, "minute"),
        (Self::Hour, 3600, "hour"),
        (Self::Day, 86_400, "day"),
    ];
}

/// A note of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Log {
    /// What it begins with: at most 127 bytes, none of them `"` or a control character.
    pub prefix: Box<str>,
    /// Who gets it.
    pub to: LogTo,
}

/// Who gets a note of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogTo {
    /// The kernel's log, at this level: 0 (emergency) to 7 (debug). Containers' namespaces are silent there unless
    /// `net.netfilter.nf_log_all_netns` is set.
    Kernel(u8),
    /// Who listens to this group of nflog; of the packet, at most so many bytes, all of it for 0.
    Group {
        /// The group's number.
        group: u16,
        /// How many bytes of the packet.
        bytes: u32,
    },
}
