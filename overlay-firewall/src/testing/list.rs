//! The naive judge: all rules of a state as one list, asked from the top.

use std::net::IpAddr;

use overlay_core::{IfName, Name, Port};

use crate::{
    Action, Bind, BridgePort, Content, Egress, Flow, Frame, Gateway, Icmpv6, Ip, Limit, Mode, Packet, Pin, PinRule,
    PolicyRule, Published, Rule, Ruling, State, Strangers, Transport, Tunnel, Verdict,
};

/// What [`Judge::judge`](crate::Judge::judge) must say, by a list of all rules of the state and O(n) in them.
///
/// It shares no code with the judge but the types, and looks nothing up: each object of the state is a few entries of
/// the list, and the first that matches decides.
pub fn judge_by_list<'s>(state: &'s State, packet: &Packet, flow: Flow) -> Verdict<'s> {
    let mut list = List { state, packet, flow, first: None };
    list.bridge();
    if !matches!(packet.content, Content::Ip(_)) {
        list.entry(true, Ruling::Accept, Rule::Otherwise);
    }
    if packet.frame.is_none_or(|frame| frame.out.is_none()) {
        list.raw();
        list.published();
        list.guards();
        list.policy();
        list.gateways();
    }
    list.policy();
    list.first.unwrap_or(Verdict { ruling: Ruling::Accept, rule: Rule::Otherwise })
}

struct List<'s, 'p> {
    state: &'s State,
    packet: &'p Packet,
    flow: Flow,
    first: Option<Verdict<'s>>,
}

impl<'s> List<'s, '_> {
    fn entry(&mut self, matches: bool, ruling: Ruling, rule: Rule<'s>) {
        if matches && self.first.is_none() {
            self.first = Some(Verdict { ruling, rule });
        }
    }

    fn forbid(&mut self, matches: bool, rule: Rule<'s>) {
        self.entry(matches, Ruling::Drop, rule);
    }

    fn ip(&self) -> Option<Ip> {
        match self.packet.content {
            Content::Ip(ip) => Some(ip),
            _ => None,
        }
    }

    fn bridge(&mut self) {
        let Some(frame) = self.packet.frame else { return };
        let listed = self.state.ports.keys().any(|port| *port == frame.port);
        self.forbid(!listed && self.state.strangers == Strangers::Drop, Rule::Stranger(frame.port));
        let pins = self.state.ports.iter().filter_map(|(port, of)| match of {
            BridgePort::Pinned(pin) => Some((*port, pin)),
            BridgePort::Trunk => None,
        });
        let pins: Vec<(IfName, &Pin)> = pins.collect();
        for (port, pin) in &pins {
            if *port == frame.port {
                self.pin(&frame, *port, pin);
            }
        }
        for (port, _) in pins.iter().filter(|(_, pin)| pin.isolated) {
            for (out, _) in pins.iter().filter(|(_, pin)| pin.isolated) {
                self.forbid(*port == frame.port && Some(*out) == frame.out, Rule::Isolated(*port));
            }
        }
    }

    fn pin(&mut self, frame: &Frame, port: IfName, pin: &Pin) {
        let own = |address: IpAddr| pin.addresses.contains(&address) || address == IpAddr::V6(pin.link_local());
        self.forbid(frame.source != pin.mac, Rule::Pin(port, PinRule::Mac));
        if let Content::Arp { sender, address, target } = self.packet.content {
            self.forbid(sender != pin.mac, Rule::Pin(port, PinRule::Arp));
            self.forbid(!own(address.into()) && !address.is_unspecified(), Rule::Pin(port, PinRule::Arp));
            self.forbid(address.is_unspecified() && !own(target.into()), Rule::Pin(port, PinRule::Arp));
        }
        self.forbid(self.packet.content == Content::Other, Rule::Pin(port, PinRule::EtherType));
        let Some(ip) = self.ip() else { return };
        let v6 = ip.source().is_ipv6();
        let icmp = match ip.transport {
            Transport::Icmpv6(message) if v6 => Some(message),
            _ => None,
        };
        let router = icmp == Some(Icmpv6::Router) || !v6 && ip.transport == Transport::IcmpRouter;
        self.forbid(router, Rule::Pin(port, PinRule::Router));
        self.forbid(!v6 && !own(ip.source()), Rule::Pin(port, PinRule::Ipv4));
        let begins = matches!(icmp, Some(Icmpv6::Solicitation | Icmpv6::Probe(_)));
        let nameless = ip.source().is_unspecified() && begins;
        if let Some(Icmpv6::Probe(target)) = icmp {
            self.forbid(ip.source().is_unspecified() && !own(target.into()), Rule::Pin(port, PinRule::Neighbour));
        }
        let improper = icmp == Some(Icmpv6::Improper);
        self.forbid(improper && ip.source().is_unspecified(), Rule::Pin(port, PinRule::Neighbour));
        self.forbid(v6 && !own(ip.source()) && !nameless, Rule::Pin(port, PinRule::Ipv6));
        self.forbid(improper, Rule::Pin(port, PinRule::Neighbour));
        if let Some(Icmpv6::Advertisement(target)) = icmp {
            self.forbid(!own(target.into()), Rule::Pin(port, PinRule::Neighbour));
        }
        if let Transport::Udp { source, destination, .. } = ip.transport {
            let (server, client) = if v6 { (547, 546) } else { (67, 68) };
            self.forbid(source == server || destination == client, Rule::Pin(port, PinRule::Dhcp));
        }
        self.forbid(v6 && ip.transport == Transport::Headless, Rule::Pin(port, PinRule::Fragment));
    }

    fn raw(&mut self) {
        let (Some(from), Some(ip)) = (self.packet.from, self.ip()) else { return };
        if from.as_str() == "lo" {
            return;
        }
        let state = self.state;
        let behind = |gateway: &Gateway, address| gateway.subnets.iter().any(|net| net.contains(&address));
        for device in state.gateways.keys() {
            self.forbid(*device == from && ip.destination().is_loopback(), Rule::Loopback(*device));
        }
        for (name, published) in &state.published {
            if let Bind::Address(address) = published.bind
                && address.is_loopback()
                && address.is_ipv4() == ip.destination().is_ipv4()
            {
                self.forbid(ip.destination().is_loopback() && is_for(published, &ip), Rule::Local(name));
            }
        }
        for (device, gateway) in &state.gateways {
            self.forbid(*device != from && behind(gateway, ip.source()), Rule::Source(*device));
        }
        let settled = match ip.source() {
            IpAddr::V4(source) => !source.is_unspecified(),
            IpAddr::V6(source) => !source.is_unspecified() && source.segments()[0] & 0xffc0 != 0xfe80,
        };
        for (device, gateway) in &state.gateways {
            self.forbid(*device == from && settled && !behind(gateway, ip.source()), Rule::Source(*device));
        }
        for (device, gateway) in &state.gateways {
            self.forbid(*device != from && behind(gateway, ip.destination()), Rule::Route(*device));
        }
    }

    fn published(&mut self) {
        let (None, Some(ip), Flow::New) = (self.packet.to, self.ip(), self.flow) else { return };
        let from = self.packet.from;
        for round in 0..3 {
            for (name, published) in &self.state.published {
                let found = match (round, published.bind) {
                    (0, Bind::Address(address)) => address == ip.destination(),
                    (1, Bind::Interface(interface)) => Some(interface) == from && !is_near(ip.destination()),
                    (2, Bind::Any) => !is_near(ip.destination()),
                    _ => false,
                };
                let target =
                    if ip.source().is_ipv4() { published.v4.map(Into::into) } else { published.v6.map(Into::into) };
                let Some(target) = target.filter(|_| found && is_for(published, &ip)) else { continue };
                let admitted =
                    published.sources.is_empty() || published.sources.iter().any(|net| net.contains(&ip.source()));
                self.forbid(from.is_some() && !admitted, Rule::Sources(name));
                self.entry(true, Ruling::Translate(target), Rule::Published(name));
            }
        }
    }

    fn guards(&mut self) {
        let Some(ip) = self.ip() else { return };
        let (comes, goes) = (self.packet.to.is_none(), self.packet.from.is_none());
        for (port, tunnel) in &self.state.tunnels {
            self.tunnel(&ip, (*port, tunnel), comes, comes || goes);
        }
        if let Some(members) = &self.state.esp {
            self.forbid(comes && ip.transport == Transport::Esp && !members.contains(&ip.source()), Rule::Esp);
        }
        for (name, limit) in &self.state.limits {
            self.limit(&ip, name, limit, comes);
        }
    }

    fn tunnel(&mut self, ip: &Ip, (port, tunnel): (Port, &Tunnel), comes: bool, ours: bool) {
        let Transport::Udp { destination, vni, .. } = ip.transport else { return };
        let here = destination == port.get();
        let encrypted = tunnel.encrypted.iter().any(|network| network.get() == vni);
        self.forbid(here && ours && encrypted && !self.packet.secured, Rule::Cleartext(port));
        self.forbid(here && comes && !tunnel.members.contains(&ip.source()), Rule::Members(port));
    }

    fn limit(&mut self, ip: &Ip, name: &'s Name, limit: &'s Limit, comes: bool) {
        let here = ip.transport.port() == Some((limit.protocol, limit.port.get()));
        self.entry(comes && here && !limit.members.contains(&ip.source()), Ruling::Accept, Rule::Limit(name));
    }

    fn policy(&mut self) {
        let (Some(_), Some(_), Some(ip)) = (self.packet.from, self.packet.to, self.ip()) else { return };
        let policy = &self.state.policy;
        if policy.rules.is_empty() && policy.otherwise == Action::Allow {
            return;
        }
        let neighbours = matches!(ip.transport, Transport::Icmpv6(message) if message != Icmpv6::Other);
        self.entry(matches!(self.flow, Flow::Established | Flow::Related), Ruling::Accept, Rule::Known);
        self.entry(neighbours && ip.source().is_ipv6(), Ruling::Accept, Rule::Neighbours);
        self.forbid(self.flow == Flow::Invalid, Rule::Invalid);
        self.forbid(matches!(ip.transport, Transport::Tcp { begins: false, .. }), Rule::Unbegun);
        let mut rules: Vec<(u16, &Name, &PolicyRule)> =
            policy.rules.iter().map(|(name, rule)| (rule.order, name, rule)).collect();
        rules.sort_by_key(|(order, name, _)| (*order, *name));
        for (_, name, rule) in rules {
            let speaks = rule.mode == Mode::Enforce && self.selects(rule, &ip);
            self.entry(speaks && rule.action == Action::Allow, Ruling::Accept, Rule::Policy(name));
            self.forbid(speaks && rule.action == Action::Deny, Rule::Policy(name));
        }
        self.entry(policy.otherwise == Action::Allow, Ruling::Accept, Rule::PolicyOtherwise);
        self.forbid(policy.otherwise == Action::Deny, Rule::PolicyOtherwise);
    }

    fn selects(&self, rule: &PolicyRule, ip: &Ip) -> bool {
        let member = |address| self.state.policy.members.values().find(|member| member.addresses.contains(&address));
        let ports = |(of, port): (_, u16)| {
            rule.ports.iter().any(|ports| {
                ports.protocol == of && ports.range.first().get() <= port && port <= ports.range.last().get()
            })
        };
        member(ip.source()).is_some_and(|member| rule.from.selects(member))
            && member(ip.destination()).is_some_and(|member| rule.to.selects(member))
            && (rule.ports.is_empty() || ip.transport.port().is_some_and(ports))
    }

    fn gateways(&mut self) {
        let (Some(from), Some(to), Some(ip)) = (self.packet.from, self.packet.to, self.ip()) else { return };
        let inside = self.state.gateways.keys().any(|device| *device == from);
        for port in self.state.tunnels.keys() {
            let datagram = matches!(ip.transport, Transport::Udp { destination, .. } if destination == port.get());
            self.forbid(inside && datagram, Rule::Endpoint(*port));
        }
        self.entry(matches!(self.flow, Flow::Established | Flow::Related), Ruling::Accept, Rule::Known);
        let state = self.state;
        for (device, gateway) in state.gateways.iter().filter(|(device, _)| **device == to) {
            self.entry(from == to && gateway.together, Ruling::Accept, Rule::Within(*device));
            self.forbid(inside, Rule::Between(*device));
            self.forbid(true, Rule::Ingress(*device));
        }
        for (device, gateway) in state.gateways.iter().filter(|(device, _)| **device == from) {
            self.forbid(self.flow == Flow::Invalid, Rule::Invalid);
            self.forbid(gateway.egress == Egress::Internal, Rule::Internal(*device));
            self.entry(true, Ruling::Masquerade, Rule::Egress(*device));
        }
    }
}

fn is_for(published: &Published, ip: &Ip) -> bool {
    ip.transport.port() == Some((published.protocol, published.port.get()))
}

/// IPv6's loopback address, and those of a link.
fn is_near(address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return false };
    address.to_bits() == 1 || address.segments()[0] & 0xffc0 == 0xfe80
}
