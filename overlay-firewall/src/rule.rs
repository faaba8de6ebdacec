//! Rules by their stable ids, and verdicts.

use std::fmt;
use std::net::SocketAddr;

use overlay_core::{IfName, Name, Port};

/// What becomes of a packet, and by which rule.
///
/// ```
/// use overlay_firewall::{Rule, Ruling, Verdict};
///
/// let verdict = Verdict { ruling: Ruling::Drop, rule: Rule::Ingress("ovgw0".parse()?) };
/// assert_eq!(verdict.to_string(), "drop by gateway/ovgw0/ingress");
/// # Ok::<(), overlay_core::IfNameError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'s> {
    /// What becomes of it.
    pub ruling: Ruling,
    /// The rule that says so.
    pub rule: Rule<'s>,
}

impl<'s> Verdict<'s> {
    pub(crate) const fn accept(rule: Rule<'s>) -> Self {
        Self { ruling: Ruling::Accept, rule }
    }

    pub(crate) const fn drop(rule: Rule<'s>) -> Self {
        Self { ruling: Ruling::Drop, rule }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ruling {
    /// It passes as it is.
    Accept,
    /// It passes, to here, and the packets of its flow after it; replies come from where it was sent to.
    Translate(SocketAddr),
    /// It passes with the address of the device it leaves by as its source, and the packets of its flow after it.
    Masquerade,
    /// It is gone.
    Drop,
}

impl Ruling {
    /// Whether the packet gets anywhere.
    pub const fn passes(self) -> bool {
        !matches!(self, Self::Drop)
    }
}

/// A rule by its stable id, which its text is: the same in every log, count and dry run for as long as the object exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule<'s> {
    /// No rule is about this packet.
    Otherwise,
    /// It belongs to a flow that was let begin, or tells of one.
    Known,
    /// It fits into no flow, and comes from or goes to one of ours.
    Invalid,
    /// The port is not listed.
    Stranger(IfName),
    /// It breaks a port's pin.
    Pin(IfName, PinRule),
    /// It would go from one isolated port to another.
    Isolated(IfName),
    /// It is for a loopback address, and from a gateway's device.
    Loopback(IfName),
    /// It lies about which side of this gateway it is from.
    Source(IfName),
    /// It was routed straight to an address behind this gateway.
    Route(IfName),
    /// It goes between endpoints behind this gateway, which reach each other.
    Within(IfName),
    /// It would go from a gateway to this one.
    Between(IfName),
    /// It would come in by this gateway, unpublished.
    Ingress(IfName),
    /// It would go out, and the network is internal.
    Internal(IfName),
    /// It goes out by this gateway.
    Egress(IfName),
    /// It is for a published port.
    Published(&'s Name),
    /// It is for a published port, and not from one of its sources.
    Sources(&'s Name),
    /// It is for a port that is published for this machine alone.
    Local(&'s Name),
    /// It is for a tunnel's port, and not from a member.
    Members(Port),
    /// It is for a tunnel's port elsewhere, and from an endpoint: masqueraded, it would pass for a member's.
    Endpoint(Port),
    /// It is of an encrypted network, and in cleartext.
    Cleartext(Port),
    /// It is ESP, and not from a member.
    Esp,
    /// It is for a guarded port; it passes, but no faster than the guard allows.
    Limit(&'s Name),
    /// It is neighbour discovery, which a policy leaves alone.
    Neighbours,
    /// It is in the middle of a TCP connection that nobody saw begin.
    Unbegun,
    /// A rule of the policy decides.
    Policy(&'s Name),
    /// The policy decides, by what it says of flows that no rule is about.
    PolicyOtherwise,
}

/// What a port is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PinRule {
    /// Its Ethernet address.
    Mac,
    /// The senders it may name in ARP.
    Arp,
    /// Its IPv4 addresses.
    Ipv4,
    /// Its IPv6 addresses.
    Ipv6,
    /// The targets it may advertise and probe for, and its Ethernet address in neighbour discovery.
    Neighbour,
    /// It is no router.
    Router,
    /// It is no DHCP server.
    Dhcp,
    /// It sends no first fragment that hides what it is of.
    Fragment,
    /// It speaks IP and ARP.
    EtherType,
}

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Otherwise => f.write_str("otherwise"),
            Self::Known => f.write_str("flow/known"),
            Self::Invalid => f.write_str("flow/invalid"),
            Self::Stranger(port) => write!(f, "port/{port}/stranger"),
            Self::Pin(port, rule) => write!(f, "port/{port}/{rule}"),
            Self::Isolated(port) => write!(f, "port/{port}/isolated"),
            Self::Loopback(gateway) => write!(f, "gateway/{gateway}/loopback"),
            Self::Source(gateway) => write!(f, "gateway/{gateway}/source"),
            Self::Route(gateway) => write!(f, "gateway/{gateway}/route"),
            Self::Within(gateway) => write!(f, "gateway/{gateway}/within"),
            Self::Between(gateway) => write!(f, "gateway/{gateway}/between"),
            Self::Ingress(gateway) => write!(f, "gateway/{gateway}/ingress"),
            Self::Internal(gateway) => write!(f, "gateway/{gateway}/internal"),
            Self::Egress(gateway) => write!(f, "gateway/{gateway}/egress"),
            Self::Published(name) => write!(f, "published/{name}"),
            Self::Sources(name) => write!(f, "published/{name}/sources"),
            Self::Local(name) => write!(f, "published/{name}/local"),
            Self::Members(port) => write!(f, "tunnel/{port}/members"),
            Self::Endpoint(port) => write!(f, "tunnel/{port}/endpoint"),
            Self::Cleartext(port) => write!(f, "tunnel/{port}/cleartext"),
            Self::Esp => f.write_str("esp/members"),
            Self::Limit(name) => write!(f, "limit/{name}"),
            Self::Neighbours => f.write_str("policy/neighbours"),
            Self::Unbegun => f.write_str("policy/unbegun"),
            Self::Policy(name) => write!(f, "policy/rule/{name}"),
            Self::PolicyOtherwise => f.write_str("policy/otherwise"),
        }
    }
}

impl fmt::Display for PinRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mac => "mac",
            Self::Arp => "arp",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Neighbour => "neighbour",
            Self::Router => "router",
            Self::Dhcp => "dhcp",
            Self::Fragment => "fragment",
            Self::EtherType => "ethertype",
        })
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ruling {
            Ruling::Accept => f.write_str("accept")?,
            Ruling::Translate(target) => write!(f, "translate to {target}")?,
            Ruling::Masquerade => f.write_str("masquerade")?,
            Ruling::Drop => f.write_str("drop")?,
        }
        write!(f, " by {}", self.rule)
    }
}
