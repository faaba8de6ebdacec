//! Packets that are about the rules of a state.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_core::testing::Dice;
use overlay_core::{IfName, Mac, Protocol};

use super::states::device;
use crate::{Bind, BridgePort, Content, Flow, Frame, Icmpv6, Ip, Packet, Pin, PolicyRule, Published, State, Transport};

/// The interface to the outside.
pub const LAN: &str = "eth0";
/// This machine's addresses there.
pub const HERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
/// A machine outside.
pub const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7))];
/// Another, in none of the subnets that allow-lists here have.
const STRANGER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 9))];

/// Packets for and against each rule of a state, each with what is known of its flow; chance decides the rest.
pub fn packets(state: &State, dice: &mut Dice) -> Vec<(Packet, Flow)> {
    let mut made = Made { dice, packets: Vec::new() };
    state.ports.iter().for_each(|(port, of)| made.port(state, *port, of));
    made.stranger(state);
    state.gateways.keys().for_each(|gateway| made.gateway(state, *gateway));
    state.published.values().for_each(|published| made.published(state, published));
    for (port, tunnel) in &state.tunnels {
        let networks: Vec<u32> = tunnel.encrypted.iter().map(|vni| vni.get()).chain([77]).collect();
        let members: Vec<IpAddr> = tunnel.members.iter().copied().collect();
        made.tunnel(port.get(), &networks, &members);
    }
    for limit in state.limits.values() {
        made.arrives(transport(limit.protocol, limit.port.get()));
    }
    if state.esp.is_some() {
        made.arrives(Transport::Esp);
    }
    made.policy(state);
    made.packets
}

struct Made<'d> {
    dice: &'d mut Dice,
    packets: Vec<(Packet, Flow)>,
}

impl Made<'_> {
    fn push(&mut self, packet: Packet) {
        let flow = match self.dice.below(12) {
            0 => Flow::Established,
            1 => Flow::Invalid,
            2 => Flow::Related,
            _ => Flow::New,
        };
        self.packets.push((packet, flow));
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.dice.below(of.len())).cloned()
    }

    /// From outside and from the machine itself, in both families.
    fn arrives(&mut self, transport: Transport) {
        for family in 0..2 {
            for from in [OUTSIDE[family], STRANGER[family]] {
                let Some(ip) = Ip::between(from, HERE[family], transport) else { continue };
                self.push(Packet::arriving(device(LAN), ip));
                self.push(Packet::leaving(None, ip));
            }
        }
    }

    fn port(&mut self, state: &State, port: IfName, of: &BridgePort) {
        let pin = match of {
            BridgePort::Pinned(pin) => pin.clone(),
            BridgePort::Trunk => Pin::new(Mac::from_ipv4([10, 0, 0, 99].into()), [[10, 0, 0, 99].into()]),
        };
        let others: Vec<IfName> = state.ports.keys().copied().filter(|other| *other != port).collect();
        let said = Said::of(&pin);
        for (content, times) in
            said.honest().into_iter().map(|it| (it, 3)).chain(said.lies().into_iter().map(|it| (it, 2)))
        {
            for time in 1..=times {
                let liar = time == times && self.dice.one_in(4);
                let source = if liar { Mac::from_ipv4([9, 9, 9, 9].into()) } else { pin.mac };
                let frame = Frame { port, out: self.pick(&others), source };
                self.push(Packet::bridged(device("br0"), frame, content));
            }
        }
    }

    fn stranger(&mut self, state: &State) {
        let (Some(address), true) =
            (state.policy.members.values().find_map(|it| it.addresses.first()), !state.ports.is_empty())
        else {
            return;
        };
        let frame = Frame { port: device("unlisted"), out: None, source: Mac::from_ipv4([10, 0, 0, 2].into()) };
        if let Some(ip) = Ip::between(*address, *address, Transport::tcp(1, 2)) {
            self.push(Packet::bridged(device("br0"), frame, Content::Ip(ip)));
        }
    }

    fn gateway(&mut self, state: &State, gateway: IfName) {
        let Some(of) = state.gateways.get(&gateway) else { return };
        let others: Vec<IfName> = state.gateways.keys().copied().collect();
        for net in &of.subnets {
            let family = usize::from(net.addr().is_ipv6());
            let endpoint = host(net, 2);
            let outside = OUTSIDE[family];
            for transport in [Transport::tcp(40_000, 443), Transport::udp(5353, 53), Transport::Other(1)] {
                let out = Ip::between(endpoint, outside, transport);
                let back = Ip::between(outside, endpoint, transport);
                let lies = Ip::between(STRANGER[family], outside, transport);
                let lan = device(LAN);
                for (from, to, ip) in [
                    (gateway, lan, out),
                    (gateway, lan, out),
                    (lan, gateway, back),
                    (gateway, lan, lies),
                    (lan, device("eth1"), out),
                ] {
                    ip.into_iter().for_each(|ip| self.push(Packet::passing(from, to, ip)));
                }
                let inside = Ip::between(endpoint, host(net, 3), transport);
                inside.into_iter().for_each(|ip| self.push(Packet::passing(gateway, gateway, ip)));
                self.between(state, (gateway, endpoint), &others, transport);
            }
            let tunnel = state.tunnels.keys().next().map(|port| Transport::udp(40_000, port.get()));
            let disguised = tunnel.and_then(|datagram| Ip::between(endpoint, outside, datagram));
            disguised.into_iter().for_each(|ip| self.push(Packet::passing(gateway, device(LAN), ip)));
            let loopback: IpAddr = if family == 0 { [127, 0, 0, 1].into() } else { Ipv6Addr::LOCALHOST.into() };
            for to in [loopback, HERE[family]] {
                let ip = Ip::between(endpoint, to, Transport::tcp(40_000, 22));
                ip.into_iter().for_each(|ip| self.push(Packet::arriving(gateway, ip)));
            }
        }
    }

    /// From one gateway to another: straight, and with an address that is behind neither.
    fn between(&mut self, state: &State, (from, source): (IfName, IpAddr), others: &[IfName], transport: Transport) {
        let Some(other) = self.pick(others) else { return };
        let nets = state.gateways.get(&other).map(|it| &it.subnets);
        let Some(net) = nets.into_iter().flatten().find(|net| net.addr().is_ipv4() == source.is_ipv4()) else { return };
        let destination = if self.dice.one_in(2) { host(net, 2) } else { OUTSIDE[usize::from(source.is_ipv6())] };
        if let Some(ip) = Ip::between(source, destination, transport) {
            self.push(Packet::passing(from, other, ip));
            self.push(Packet::passing(device("eth1"), other, Ip { ends: ip.ends, ..ip }));
        }
        // Routes may lead anywhere: what is not behind a gateway is not let in either.
        if let Some(ip) =
            Ip::between(OUTSIDE[usize::from(source.is_ipv6())], STRANGER[usize::from(source.is_ipv6())], transport)
        {
            self.push(Packet::passing(device(LAN), other, ip));
        }
    }

    fn published(&mut self, state: &State, published: &Published) {
        let asks = transport(published.protocol, published.port.get());
        for family in 0..2 {
            let here = match published.bind {
                Bind::Address(address) if address.is_ipv4() == (family == 0) => address,
                _ => HERE[family],
            };
            let gateways =
                state.gateways.iter().flat_map(|(device, of)| of.subnets.iter().map(|net| (*device, host(net, 3))));
            let inside = gateways.filter(|(_, address)| address.is_ipv4() == (family == 0));
            let clients =
                [(device(LAN), OUTSIDE[family]), (device("eth1"), OUTSIDE[family]), (device(LAN), STRANGER[family])];
            for (from, client) in clients.into_iter().chain(inside) {
                let Some(ip) = Ip::between(client, here, asks) else { continue };
                self.push(Packet::arriving(from, ip));
                let other = Ip::between(client, here, transport(published.protocol, 9)).unwrap_or(ip);
                self.push(Packet::arriving(from, other));
            }
            let own = Ip::between(here, here, asks);
            own.into_iter().for_each(|ip| self.push(Packet::leaving(None, ip)));
        }
    }

    fn tunnel(&mut self, port: u16, networks: &[u32], members: &[IpAddr]) {
        let sources: Vec<IpAddr> = members.iter().copied().chain(OUTSIDE).chain(STRANGER).collect();
        for vni in networks {
            for source in &sources {
                let here = HERE[usize::from(source.is_ipv6())];
                let transport = Transport::Udp { source: 50_000, destination: port, vni: *vni };
                let (comes, goes) = (Ip::between(*source, here, transport), Ip::between(here, *source, transport));
                let (Some(comes), Some(goes)) = (comes, goes) else { continue };
                for packet in [Packet::arriving(device(LAN), comes), Packet::leaving(Some(device(LAN)), goes)] {
                    self.push(packet);
                    self.push(packet.secured());
                }
                // Through this machine, between others: none of its business.
                self.push(Packet::passing(device(LAN), device("eth1"), comes));
            }
        }
    }

    fn policy(&mut self, state: &State) {
        let addresses: Vec<IpAddr> =
            state.policy.members.values().flat_map(|it| it.addresses.iter().copied()).collect();
        let of = |selector: &crate::Selector| -> Vec<IpAddr> {
            let members = state.policy.members.values().filter(|member| selector.selects(member));
            members.flat_map(|member| member.addresses.iter().copied()).collect()
        };
        for rule in state.policy.rules.values() {
            let (from, to) = (of(&rule.from), of(&rule.to));
            for transport in self.transports(rule) {
                let near = (self.pick(&from), self.pick(&to));
                let far = (self.pick(&addresses), self.pick(&addresses));
                for (from, to) in [near, far, (near.0, far.1)] {
                    self.inside(from, to, transport);
                }
            }
        }
        let loose = Transport::Tcp { source: 80, destination: 40_000, begins: false };
        let neighbours = Transport::Icmpv6(Icmpv6::Solicitation);
        for transport in [loose, neighbours, Transport::Other(47)] {
            let (from, to) = (self.pick(&addresses), self.pick(&addresses));
            self.inside(from, to, transport);
            self.inside(from, from.map(|from| OUTSIDE[usize::from(from.is_ipv6())]), transport);
        }
    }

    fn transports(&mut self, rule: &PolicyRule) -> Vec<Transport> {
        let ports = rule.ports.iter().flat_map(|ports| {
            let (first, last) = (ports.range.first().get(), ports.range.last().get());
            [first, last, last.saturating_add(1)].map(|port| transport(ports.protocol, port))
        });
        ports.chain([Transport::tcp(40_000, 80), Transport::udp(40_000, 53), Transport::Other(1)]).collect()
    }

    fn inside(&mut self, from: Option<IpAddr>, to: Option<IpAddr>, transport: Transport) {
        let ip = from.zip(to).and_then(|(from, to)| Ip::between(from, to, transport));
        let trunk =
            Frame { port: device("vx-1"), out: Some(device("p-2")), source: Mac::from_ipv4([10, 0, 0, 50].into()) };
        ip.into_iter().for_each(|ip| self.push(Packet::bridged(device("br0"), trunk, Content::Ip(ip))));
    }
}

/// What an endpoint may and may not say.
struct Said {
    mac: Mac,
    own4: Ipv4Addr,
    own6: Ipv6Addr,
    link_local: Ipv6Addr,
}

const FOREIGN4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);
const FOREIGN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xbad);
const TO4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const TO6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);

impl Said {
    fn of(pin: &Pin) -> Self {
        let own4 = pin.addresses.iter().find_map(|it| if let IpAddr::V4(it) = it { Some(*it) } else { None });
        let own6 = pin.addresses.iter().find_map(|it| if let IpAddr::V6(it) = it { Some(*it) } else { None });
        let link_local = pin.link_local();
        Self { mac: pin.mac, own4: own4.unwrap_or(FOREIGN4), own6: own6.unwrap_or(link_local), link_local }
    }

    fn honest(&self) -> Vec<Content> {
        let (asks, datagram) = (Transport::tcp(40_000, 80), Transport::udp(40_000, 53));
        let v4 = |transport| Content::Ip(Ip::v4(self.own4, TO4, transport));
        let v6 = |transport| Content::Ip(Ip::v6(self.own6, TO6, transport));
        let icmp = |source, message| Content::Ip(Ip::v6(source, TO6, Transport::Icmpv6(message)));
        let nobody = Ipv6Addr::UNSPECIFIED;
        let arp = |address, target| Content::Arp { sender: self.mac, address, target };
        vec![
            v4(asks),
            v4(datagram),
            v4(Transport::udp(68, 67)),
            v6(asks),
            v6(datagram),
            icmp(self.own6, Icmpv6::Other),
            icmp(self.link_local, Icmpv6::Other),
            icmp(self.own6, Icmpv6::Advertisement(self.own6)),
            icmp(self.own6, Icmpv6::Probe(TO6)),
            icmp(nobody, Icmpv6::Solicitation),
            icmp(nobody, Icmpv6::Probe(self.own6)),
            arp(self.own4, TO4),
            arp(self.own4, self.own4),
            arp(Ipv4Addr::UNSPECIFIED, self.own4),
        ]
    }

    fn lies(&self) -> Vec<Content> {
        let v4 = |source, transport| Content::Ip(Ip::v4(source, TO4, transport));
        let v6 = |source, transport| Content::Ip(Ip::v6(source, TO6, transport));
        let icmp = |source, message| Content::Ip(Ip::v6(source, TO6, Transport::Icmpv6(message)));
        let (nobody, asks) = (Ipv6Addr::UNSPECIFIED, Transport::tcp(40_000, 80));
        let arp = |sender, address, target| Content::Arp { sender, address, target };
        vec![
            v4(FOREIGN4, asks),
            v4(self.own4, Transport::udp(67, 68)),
            v4(self.own4, Transport::udp(1067, 68)),
            v4(self.own4, Transport::IcmpRouter),
            v6(FOREIGN6, asks),
            v6(self.own6, Transport::udp(547, 546)),
            v6(self.own6, Transport::udp(1547, 546)),
            v6(self.own6, Transport::Headless),
            icmp(self.own6, Icmpv6::Router),
            icmp(self.own6, Icmpv6::Advertisement(FOREIGN6)),
            icmp(self.own6, Icmpv6::Improper),
            icmp(FOREIGN6, Icmpv6::Improper),
            icmp(nobody, Icmpv6::Probe(FOREIGN6)),
            icmp(nobody, Icmpv6::Other),
            arp(self.mac, Ipv4Addr::UNSPECIFIED, FOREIGN4),
            arp(self.mac, FOREIGN4, TO4),
            arp(Mac::BROADCAST, self.own4, TO4),
            Content::Other,
        ]
    }
}

const fn transport(protocol: Protocol, port: u16) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::tcp(40_000, port),
        Protocol::Udp => Transport::udp(40_000, port),
        Protocol::Sctp => Transport::Sctp { source: 40_000, destination: port },
    }
}

/// The host of that number in a subnet.
pub(super) fn host(net: &ipnet::IpNet, number: u8) -> IpAddr {
    match net {
        ipnet::IpNet::V4(net) => Ipv4Addr::from(u32::from(net.network()) | u32::from(number)).into(),
        ipnet::IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()) | u128::from(number)).into(),
    }
}
