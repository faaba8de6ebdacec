//! The pure meaning of a state: what becomes of a packet.

mod index;
mod nets;
mod policy;
#[cfg(feature = "kernel")]
mod standing;
mod tunnel;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use overlay_core::{IfName, IpFamily, Name, Protocol};
use rustc_hash::FxBuildHasher;

pub use self::tunnel::TunnelGate;
use crate::judge::index::{GatewayEntry, Keeper, LimitEntry, Members, PinEntry, Place, Published, TunnelEntry};
use crate::judge::nets::Nets;
use crate::judge::policy::PolicyIndex;
use crate::{
    Bind, Content, Egress, Ends, Flow, Frame, Icmpv6, Ip, Packet, PinRule, Rule, Ruling, State, Transport, Verdict,
};

/// Who may speak at a port of a bridge, as a [`Judge`] knew it when it was [asked](Judge::gate). The default is for everybody.
#[derive(Debug, Clone, Default)]
pub struct Gate(Keeper);

/// A map that is only ever looked into. Its hash is not keyed: what is in it was configured, not sent by strangers.
type Map<K, V> = HashMap<K, V, FxBuildHasher>;

/// Says what becomes of packets under a [`State`], and by which rule: what every backend must do, and the user-space data
/// path and `explain` ask.
///
/// A verdict costs the same for one network or endpoint as for a hundred thousand; it grows with the rules of a policy and
/// with the number of *different* prefix lengths in subnets and allow-lists. Making a judge is O(n log n).
///
/// ```
/// use overlay_core::{Port, Protocol};
/// use overlay_firewall::{Flow, Gateway, Ip, Judge, Packet, Published, Ruling, State, Transport};
///
/// let mut host = State::default();
/// host.gateways.insert("ovgw0".parse()?, Gateway::new(["172.18.0.0/24".parse()?]));
/// let web = Published::new(Protocol::Tcp, Port::new(8080)?).to("172.18.0.5:80".parse()?);
/// host.published.insert("web".parse()?, web);
/// let judge = Judge::new(&host);
///
/// let (client, here, endpoint) = ([192, 0, 2, 7].into(), [192, 0, 2, 1].into(), [172, 18, 0, 5].into());
/// let asks = |to| Ip::v4(client, to, Transport::tcp(40_000, 8080));
/// let published = judge.judge(&Packet::arriving("eth0".parse()?, asks(here)), Flow::New);
/// assert_eq!(published.to_string(), "translate to 172.18.0.5:80 by published/web");
///
/// let routed = Packet::passing("eth0".parse()?, "ovgw0".parse()?, asks(endpoint));
/// assert_eq!(judge.judge(&routed, Flow::New).to_string(), "drop by gateway/ovgw0/route");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Judge {
    ports: Map<IfName, Gate>,
    strangers: Gate,
    /// Whether it says nothing of IP for this machine itself, as is so of a network's sandbox.
    is_bridge: bool,
    gateways: Map<IfName, GatewayEntry>,
    subnets: Nets<IfName>,
    places: Map<Place, Published>,
    local: Map<(IpFamily, Protocol, u16), usize>,
    #[cfg(feature = "kernel")]
    at_interfaces: Map<(IpFamily, Protocol, u16), Vec<Published>>,
    #[cfg(feature = "kernel")]
    targets: Map<(Protocol, std::net::SocketAddr), ()>,
    names: Vec<Name>,
    sources: Map<usize, Nets<()>>,
    tunnels: Map<u16, TunnelEntry>,
    esp: Option<Members>,
    limits: Map<(Protocol, u16), LimitEntry>,
    policy: Option<PolicyIndex>,
}

impl Judge {
    /// What becomes of a packet that belongs to such a flow.
    #[inline]
    pub fn judge(&self, packet: &Packet, flow: Flow) -> Verdict<'_> {
        let gate = packet.frame.map_or(&EVERYBODY, |frame| self.find(frame.port));
        self.judge_at(gate, packet, flow)
    }

    /// Who may speak at a port of a bridge: looked up once, for who asks of many packets.
    pub fn gate(&self, port: IfName) -> Gate {
        self.find(port).clone()
    }

    /// The same as [`judge`](Self::judge), of a packet that comes in at the port of that [gate](Self::gate).
    #[inline(always)]
    pub fn judge_at(&self, gate: &Gate, packet: &Packet, flow: Flow) -> Verdict<'_> {
        if let Some(frame) = packet.frame.as_ref().filter(|frame| frame.out.is_some()) {
            return self.judge_frame(gate, frame, &packet.content, flow);
        }
        let bridged = packet.frame.as_ref().and_then(|frame| self.bridge(gate, frame, &packet.content));
        if let Some(rule) = bridged {
            return Verdict::drop(rule);
        }
        let Content::Ip(ip) = &packet.content else { return Verdict::accept(Rule::Otherwise) };
        if self.is_bridge && packet.frame.is_some() && packet.to.is_none() {
            return Verdict::accept(Rule::Otherwise);
        }
        self.judge_ip(packet, ip, flow)
    }

    /// The same of a frame on its way from one port of a bridge to [another](Frame::out).
    #[inline(always)]
    pub fn judge_frame(&self, gate: &Gate, frame: &Frame, content: &Content, flow: Flow) -> Verdict<'_> {
        if let Some(rule) = self.bridge(gate, frame, content) {
            return Verdict::drop(rule);
        }
        match (content, &self.policy) {
            (Content::Ip(ip), Some(policy)) => policy.judge(ip, flow),
            _ => Verdict::accept(Rule::Otherwise),
        }
    }

    fn find(&self, port: IfName) -> &Gate {
        self.ports.get(&port).unwrap_or(&self.strangers)
    }

    /// What is no frame's way from one port of a bridge to another.
    #[inline(never)]
    fn judge_ip(&self, packet: &Packet, ip: &Ip, flow: Flow) -> Verdict<'_> {
        let lies = packet.from.and_then(|from| self.raw(from, ip));
        if let Some(rule) = lies {
            return Verdict::drop(rule);
        }
        match (packet.from, packet.to) {
            (Some(from), Some(to)) => self.forward(from, to, ip, flow),
            (from, None) => self.translate(from, ip, flow).unwrap_or_else(|| self.input(packet, ip)),
            (None, Some(_)) => self.cleartext(packet, ip).unwrap_or(Verdict::accept(Rule::Otherwise)),
        }
    }

    /// The audited rules of the policy that such a packet is counted at: those that would decide, were they meant.
    pub fn audited(&self, packet: &Packet, flow: Flow) -> impl Iterator<Item = &Name> {
        let ip = match (&packet.content, packet.from, packet.to) {
            (Content::Ip(ip), Some(_), Some(_)) if self.judge_reaches_policy(packet) => Some(*ip),
            _ => None,
        };
        let policy = self.policy.as_ref().zip(ip);
        policy.into_iter().flat_map(move |(policy, ip)| policy.audited(ip, flow))
    }

    fn judge_reaches_policy(&self, packet: &Packet) -> bool {
        let Content::Ip(ip) = &packet.content else { return false };
        let bridged = packet.frame.is_some_and(|frame| frame.out.is_some());
        let bridge = |frame: &Frame| self.bridge(self.find(frame.port), frame, &packet.content);
        packet.frame.as_ref().and_then(bridge).is_none()
            && (bridged || packet.from.and_then(|from| self.raw(from, ip)).is_none())
    }

    /// At a bridge's port: whoever is behind it is who he says.
    #[inline(always)]
    fn bridge(&self, gate: &Gate, frame: &Frame, content: &Content) -> Option<Rule<'_>> {
        let port = frame.port;
        let pin = match &gate.0 {
            Keeper::Open => return None,
            Keeper::Closed => return Some(Rule::Stranger(port)),
            Keeper::Pinned(pin) => pin,
        };
        if let Some(broken) = broken(pin, frame, content) {
            return Some(Rule::Pin(port, broken));
        }
        let isolates = |out: &IfName| {
            pin.isolated && matches!(self.ports.get(out), Some(Gate(Keeper::Pinned(other))) if other.isolated)
        };
        frame.out.filter(isolates).map(|_| Rule::Isolated(port))
    }

    /// Before anything is known of flows: nobody lies about which side he is on, nor reaches in but by a translation.
    fn raw(&self, from: IfName, ip: &Ip) -> Option<Rule<'_>> {
        if from.is_loopback() {
            return None;
        }
        let (source, destination) = (ip.source(), ip.destination());
        let gateway = self.gateways.contains_key(&from);
        if destination.is_loopback() {
            if gateway {
                return Some(Rule::Loopback(from));
            }
            if let Some(at) = ip.transport.port().and_then(|(of, port)| self.local.get(&(ip.family(), of, port))) {
                return self.names.get(*at).map(Rule::Local);
            }
        }
        if self.gateways.is_empty() {
            return None;
        }
        match self.subnets.find(source) {
            Some(behind) if *behind != from => return Some(Rule::Source(*behind)),
            None if gateway && !is_unsettled(source) => return Some(Rule::Source(from)),
            _ => {}
        }
        self.subnets.find(destination).filter(|behind| **behind != from).map(|behind| Rule::Route(*behind))
    }

    /// A first packet for a published port of this machine.
    fn translate(&self, from: Option<IfName>, ip: &Ip, flow: Flow) -> Option<Verdict<'_>> {
        if self.places.is_empty() || flow != Flow::New {
            return None;
        }
        let (protocol, port) = ip.transport.port()?;
        let family = ip.family();
        let at = |bind| self.places.get(&Place::new(bind, family, protocol, port));
        let found = at(Bind::Address(ip.destination())).or_else(|| match Bind::is_near(ip.destination()) {
            true => None,
            false => from.and_then(|from| at(Bind::Interface(from))).or_else(|| at(Bind::Any)),
        })?;
        let name = self.names.get(found.at)?;
        if found.restricted && from.is_some() && !self.admits(found.at, ip.source()) {
            return Some(Verdict::drop(Rule::Sources(name)));
        }
        Some(Verdict { ruling: Ruling::Translate(found.target), rule: Rule::Published(name) })
    }

    /// Whether a source may ask at a port that is not for all.
    fn admits(&self, at: usize, source: IpAddr) -> bool {
        self.sources.get(&at).is_some_and(|sources| sources.find(source).is_some())
    }

    /// For this machine itself.
    fn input(&self, packet: &Packet, ip: &Ip) -> Verdict<'_> {
        if let Some(verdict) = self.cleartext(packet, ip) {
            return verdict;
        }
        let source = ip.source();
        match ip.transport {
            Transport::Udp { destination, .. } => {
                if let Some(tunnel) = self.tunnels.get(&destination)
                    && !tunnel.members.has(source)
                {
                    return Verdict::drop(Rule::Members(tunnel.port));
                }
            }
            Transport::Esp if self.esp.as_ref().is_some_and(|members| !members.has(source)) => {
                return Verdict::drop(Rule::Esp);
            }
            _ => {}
        }
        let limit = ip.transport.port().and_then(|key| self.limits.get(&key));
        match limit.filter(|limit| !limit.members.has(source)) {
            Some(limit) => Verdict::accept(Rule::Limit(&limit.name)),
            None => Verdict::accept(Rule::Otherwise),
        }
    }

    /// A datagram of an encrypted network that is in cleartext, coming or going.
    fn cleartext(&self, packet: &Packet, ip: &Ip) -> Option<Verdict<'_>> {
        let Transport::Udp { destination, vni, .. } = ip.transport else { return None };
        let tunnel = self.tunnels.get(&destination)?;
        let clear = !packet.secured && tunnel.encrypted.contains_key(&vni);
        clear.then_some(Verdict::drop(Rule::Cleartext(tunnel.port)))
    }

    /// Through this place.
    fn forward(&self, from: IfName, to: IfName, ip: &Ip, flow: Flow) -> Verdict<'_> {
        if let Some(policy) = &self.policy {
            return policy.judge(ip, flow);
        }
        if let Transport::Udp { destination, .. } = ip.transport
            && let Some(tunnel) = self.tunnels.get(&destination).filter(|_| self.gateways.contains_key(&from))
        {
            return Verdict::drop(Rule::Endpoint(tunnel.port));
        }
        if matches!(flow, Flow::Established | Flow::Related) {
            return Verdict::accept(Rule::Known);
        }
        let (enters, leaves) = (self.gateways.get(&to), self.gateways.get(&from));
        match (enters, leaves) {
            (Some(gateway), Some(_)) if from == to && gateway.together => Verdict::accept(Rule::Within(to)),
            (Some(_), Some(_)) => Verdict::drop(Rule::Between(to)),
            (Some(_), None) => Verdict::drop(Rule::Ingress(to)),
            (None, Some(_)) if flow == Flow::Invalid => Verdict::drop(Rule::Invalid),
            (None, Some(gateway)) => match gateway.egress {
                Egress::Internal => Verdict::drop(Rule::Internal(from)),
                Egress::Masquerade => Verdict { ruling: Ruling::Masquerade, rule: Rule::Egress(from) },
            },
            (None, None) => Verdict::accept(Rule::Otherwise),
        }
    }
}

/// What of its pin a frame breaks.
#[inline(always)]
fn broken(pin: &PinEntry, frame: &Frame, content: &Content) -> Option<PinRule> {
    if frame.source != pin.mac {
        return Some(PinRule::Mac);
    }
    match content {
        Content::Ip(ip) => broken_by_ip(pin, ip),
        Content::Arp { sender, address, target } => {
            let about = if address.is_unspecified() { target } else { address };
            (*sender != pin.mac || !pin.has_v4(*about)).then_some(PinRule::Arp)
        }
        Content::Other => Some(PinRule::EtherType),
    }
}

#[inline(always)]
fn broken_by_ip(pin: &PinEntry, ip: &Ip) -> Option<PinRule> {
    match (ip.ends, ip.transport) {
        (Ends::V4 { .. }, Transport::IcmpRouter) => Some(PinRule::Router),
        (Ends::V4 { source, .. }, _) if !pin.has_v4(source) => Some(PinRule::Ipv4),
        (Ends::V4 { .. }, Transport::Udp { source: 67, .. } | Transport::Udp { destination: 68, .. }) => {
            Some(PinRule::Dhcp)
        }
        (Ends::V4 { .. }, _) => None,
        (Ends::V6 { source, .. }, Transport::Icmpv6(message)) => broken_by_icmpv6(pin, source, message),
        (Ends::V6 { source, .. }, _) if !pin.has_v6(source) => Some(PinRule::Ipv6),
        (Ends::V6 { .. }, Transport::Udp { source: 547, .. } | Transport::Udp { destination: 546, .. }) => {
            Some(PinRule::Dhcp)
        }
        (Ends::V6 { .. }, Transport::Headless) => Some(PinRule::Fragment),
        (Ends::V6 { .. }, _) => None,
    }
}

fn broken_by_icmpv6(pin: &PinEntry, source: Ipv6Addr, message: Icmpv6) -> Option<PinRule> {
    let own = |address: Ipv6Addr| pin.has_v6(address);
    match message {
        Icmpv6::Router => Some(PinRule::Router),
        Icmpv6::Probe(target) if source.is_unspecified() => (!own(target)).then_some(PinRule::Neighbour),
        _ if !own(source) && !source.is_unspecified() => Some(PinRule::Ipv6),
        Icmpv6::Improper => Some(PinRule::Neighbour),
        Icmpv6::Solicitation => None,
        _ if source.is_unspecified() => Some(PinRule::Ipv6),
        Icmpv6::Advertisement(target) if !own(target) => Some(PinRule::Neighbour),
        _ => None,
    }
}

/// Whether an endpoint may have such an address without being given it: while it has none yet, and on its own link.
const fn is_unsettled(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_unspecified(),
        IpAddr::V6(address) => address.is_unspecified() || address.is_unicast_link_local(),
    }
}

const EVERYBODY: Gate = Gate(Keeper::Open);

impl From<&State> for Judge {
    fn from(state: &State) -> Self {
        Self::new(state)
    }
}
