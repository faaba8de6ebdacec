//! Packets that are about the rules, sent through real namespaces: the kernel does with each what the judge says.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use overlay_core::testing::{Dice, Kernel, kernel_test};
use overlay_core::{EndpointId, IfName, Mac, Meter as _, reconcile};
use overlay_firewall::testing::{HERE, LAN, host, judge_by_list, packets, sandbox};
use overlay_firewall::{
    BridgePort, Content, Ends, Firewall, Flow, Frame, Icmpv6, Ip, Judge, Member, Mode, Packet, PolicyRule, Ruling,
    Selector, State, Transport, Verdict,
};
use overlay_kernel::Namespace;
use overlay_kernel::conntrack::Conntrack;
use overlay_kernel::testing::judge;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use serde_json::Value;

use crate::conformance::owner;
use crate::wire::{Wire, arp_id, frame, mac_of};

/// A place with devices, each of which has its other end outside, where frames are sent by.
pub(crate) struct World {
    pub(crate) place: Namespace,
    pub(crate) wires: BTreeMap<IfName, Wire>,
    macs: BTreeMap<IfName, Mac>,
    sandboxed: bool,
}

/// What nf_tables' own tool sees, first and last: which packets came, and which got through and how.
const PROBE: &str = include_str!("probe.nft");

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

impl World {
    /// A host with two interfaces and three gateways; each gateway's bridge has a port that is never listed.
    fn host() -> Self {
        let mut world = Self::new(false);
        world.script(
            "for key in all default; do echo 0 > /proc/sys/net/ipv4/conf/$key/rp_filter; done
             echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             for s in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 > $s; done
             ip link set lo up
             nft 'add table netdev own'",
        );
        for device in [LAN, "eth1"] {
            world.device(device, "");
        }
        for gateway in 0..3 {
            let bridge = format!("ovgw{gateway}");
            world.script(&format!(
                "ip link add {bridge} type bridge mcast_snooping 0; ip link set {bridge} up
                 ip addr add 172.18.{gateway}.1/24 dev {bridge}; ip addr add fd00:18:{gateway}::1/64 dev {bridge} nodad
                 ip route add 100.64.{gateway}.0/24 dev {bridge}; ip route add 2001:db8:64:{gateway}::/64 dev {bridge}"
            ));
            for port in [format!("g{gateway}-2"), format!("g{gateway}-3"), format!("gx-{gateway}")] {
                world.device(&port, &bridge);
            }
            world.macs.insert(name(&bridge), mac_of(&world.place, &name(&bridge)));
            for host in 2..4 {
                let mac = Mac::from_ipv4([172, 18, gateway, host].into());
                world.script(&format!(
                    "ip neigh add 172.18.{gateway}.{host} lladdr {mac} dev {bridge} nud permanent
                     ip neigh add fd00:18:{gateway}::{host} lladdr {mac} dev {bridge} nud permanent
                     bridge fdb add {mac} dev g{gateway}-{host} master static"
                ));
            }
        }
        let [here4, here6] = HERE;
        world.script(&format!(
            "ip addr add {here4}/24 dev {LAN}; ip addr add {here6}/64 dev {LAN} nodad
             ip addr add 192.0.3.1/24 dev eth1; ip addr add 2001:db8:3::1/64 dev eth1 nodad
             ip neigh add 192.0.2.254 lladdr 02:00:00:00:00:fe dev {LAN} nud permanent
             ip neigh add 2001:db8::fe lladdr 02:00:00:00:00:fe dev {LAN} nud permanent
             ip neigh add 192.0.3.254 lladdr 02:00:00:00:00:fe dev eth1 nud permanent
             ip neigh add 2001:db8:3::fe lladdr 02:00:00:00:00:fe dev eth1 nud permanent
             ip route add default via 192.0.2.254; ip route add default via 2001:db8::fe
             ip route add 203.0.113.0/24 via 192.0.3.254; ip route add 2001:db8:2::/48 via 2001:db8:3::fe
             for s in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $s; done
             for s in /proc/sys/net/ipv4/conf/*/route_localnet; do echo 1 > $s; done"
        ));
        world
    }

    /// A sandbox with a bridge, ports for all endpoints, a trunk, and one port that is never listed.
    pub(crate) fn sandbox() -> Self {
        let mut world = Self::new(true);
        world.script("ip link set lo up; ip link add br0 type bridge mcast_snooping 0; ip link set br0 up");
        for number in 2..10 {
            world.device(&format!("p-{number}"), "br0");
            let mac = Mac::from_ipv4([10, 0, 0, number].into());
            world.script(&format!("bridge fdb add {mac} dev p-{number} master static"));
        }
        world.device("vx-1", "br0");
        world.device("unlisted", "br0");
        world.script(&format!("bridge fdb add {} dev vx-1 master static", Mac::from_ipv4([10, 0, 0, 99].into())));
        world
    }

    fn new(sandboxed: bool) -> Self {
        let place = Namespace::create().unwrap();
        // What the kernel itself sends, an ICMP error say, has no label that could be one of ours by chance.
        judge(&place, "sh", &["-c", "echo 0 > /proc/sys/net/ipv6/auto_flowlabels"]);
        Self { place, wires: BTreeMap::new(), macs: BTreeMap::new(), sandboxed }
    }

    fn script(&self, text: &str) {
        judge(&self.place, "sh", &["-ec", text]);
    }

    /// A device, on a bridge or by itself; frames are sent into it by its other end.
    fn device(&mut self, device: &str, bridge: &str) {
        let master = if bridge.is_empty() {
            String::new()
        } else {
            format!("ip link set {device} master {bridge}; bridge link set dev {device} learning off")
        };
        self.script(&format!(
            "ip link add {device} type veth peer name w-{device}; {master}
             echo 1 > /proc/sys/net/ipv6/conf/w-{device}/disable_ipv6
             ip link set w-{device} arp off; ip link set {device} up; ip link set w-{device} up"
        ));
        self.wires.insert(name(device), Wire::open(&self.place, &format!("w-{device}")));
        self.macs.insert(name(device), mac_of(&self.place, &name(device)));
    }

    pub(crate) fn open(&self) -> Firewall {
        let open = if self.sandboxed { Firewall::of_sandbox } else { Firewall::of_host };
        open(&owner(), self.place.try_clone().unwrap()).unwrap()
    }

    /// What a packet of the generator is here: where the routes lead it, who is behind the port it leaves by. Nothing for
    /// packets that no wire could carry here, or that the kernel drops by itself.
    fn real(&self, packet: &Packet, id: u16) -> Option<Packet> {
        let mut packet = Packet { secured: false, ..*packet };
        if let Content::Ip(ip) = &mut packet.content {
            ip.transport = match numbered(ip.transport, id) {
                Transport::Other(1) if ip.source().is_ipv6() => Transport::Icmpv6(Icmpv6::Other), // IPv4's is none there
                Transport::Icmpv6(_) if ip.source().is_ipv4() => Transport::Other(1),
                other => other,
            };
        }
        if let Some(frame) = packet.frame {
            let same = |out: &IfName| !out.as_str().starts_with('g') || out.as_str()[..2] == frame.port.as_str()[..2];
            let out = frame.out.filter(|out| self.wires.contains_key(out) && *out != frame.port && same(out));
            // A policy's flows are of whole packets: what is no part of one goes no further.
            let whole = !matches!(packet.content, Content::Ip(Ip { transport: Transport::Headless, .. }));
            let known = self.wires.contains_key(&frame.port) && (whole || frame.port != name("vx-1"));
            packet.frame = Some(Frame {
                out: Some(match (out, frame.port.as_str().strip_prefix('g')) {
                    (_, Some(rest)) if id.is_multiple_of(2) => name(&format!("gx-{}", &rest[..1])), // not isolated
                    (out, _) => out.unwrap_or_else(|| self.other(frame.port)),
                }),
                ..frame
            });
            return known.then_some(packet);
        }
        let Content::Ip(ip) = &mut packet.content else { return None };
        let from = packet.from?;
        if let (Some(to), LAN) = (packet.to, from.as_str())
            && let Some(number) = to.as_str().strip_prefix("ovgw")
        {
            *ip = beyond(*ip, number.parse().unwrap());
        }
        let ip = *ip;
        let (source, destination) = (ip.source(), ip.destination());
        let odd = |address: IpAddr| match address {
            IpAddr::V4(address) => address.is_unspecified(),
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_loopback() || address.is_unspecified(),
        };
        let own = |address: IpAddr| HERE.contains(&address) || gateway_number(address, 1).is_some();
        if odd(source) || odd(destination) || own(source) || source.is_loopback() || !self.macs.contains_key(&from) {
            return None;
        }
        packet.to = match destination {
            _ if own(destination) || destination.is_loopback() => None,
            _ => Some(route(destination)),
        };
        Some(packet)
    }

    /// Another port of the same bridge.
    fn other(&self, port: IfName) -> IfName {
        let alike =
            |it: &&IfName| **it != port && it.as_str()[..2] == port.as_str()[..2] && !it.as_str().starts_with("gx");
        self.wires.keys().find(alike).copied().unwrap_or_else(|| name("p-2"))
    }

    /// Sends a packet to where it comes in.
    fn send(&self, packet: &Packet, flow: Flow, id: u16) {
        let (port, macs) = match (packet.frame, packet.from) {
            (Some(frame), _) => (frame.port, (self.behind(frame.out.unwrap()), frame.source)),
            (None, Some(from)) => {
                let port = from.as_str().strip_prefix("ovgw").map_or(from, |number| name(&format!("gx-{number}")));
                (port, (self.macs[&from], Mac::new([2, 0, 0, 0, 0, 0xaa])))
            }
            (None, None) => unreachable!("nothing is sent by this machine"),
        };
        self.wires[&port].send(&frame(macs, &packet.content, flow, id));
    }

    /// The station behind a port.
    fn behind(&self, port: IfName) -> Mac {
        let text = port.as_str();
        let number = |at: usize| text.split('-').nth(at).and_then(|it| it.parse().ok()).unwrap_or(99);
        match text.as_bytes()[0] {
            b'g' => Mac::from_ipv4([172, 18, text.as_bytes()[1] - b'0', number(1)].into()),
            b'p' => Mac::from_ipv4([10, 0, 0, number(1)].into()),
            _ => Mac::from_ipv4([10, 0, 0, 99].into()),
        }
    }
}

/// With a port of its own, so that it is a flow of its own; ports that rules are about stay.
fn numbered(transport: Transport, id: u16) -> Transport {
    match transport {
        Transport::Tcp { destination, begins, .. } => Transport::Tcp { source: id, destination, begins },
        Transport::Udp { source: source @ (67 | 547), .. } => Transport::Udp { source, destination: id, vni: 0 },
        Transport::Udp { destination: destination @ (68 | 546), .. } => Transport::udp(id, destination),
        Transport::Udp { destination, vni, .. } => Transport::Udp { source: id, destination, vni },
        Transport::Sctp { destination, .. } => Transport::Sctp { source: id, destination },
        other => other,
    }
}

/// Which gateway's host of that number an address is.
fn gateway_number(address: IpAddr, host: u16) -> Option<u8> {
    (0..3).find(|number| {
        let v6 = Ipv6Addr::new(0xfd00, 0x18, u16::from(*number), 0, 0, 0, 0, host);
        address == IpAddr::from([172, 18, *number, host as u8]) || address == IpAddr::from(v6)
    })
}

/// The same to an address that is routed to a gateway without being behind it.
fn beyond(ip: Ip, gateway: u8) -> Ip {
    match ip.ends {
        Ends::V4 { source, .. } => Ip::v4(source, [100, 64, gateway, 9].into(), ip.transport),
        Ends::V6 { source, .. } => {
            Ip::v6(source, Ipv6Addr::new(0x2001, 0xdb8, 0x64, gateway.into(), 0, 0, 0, 9), ip.transport)
        }
    }
}

fn route(destination: IpAddr) -> IfName {
    let gateway = (2..4).find_map(|host| gateway_number(destination, host));
    match (gateway, destination) {
        (Some(number), _) => name(&format!("ovgw{number}")),
        (None, IpAddr::V4(address)) if address.octets()[0] == 100 => name(&format!("ovgw{}", address.octets()[2])),
        (None, IpAddr::V6(address)) if address.segments()[2] == 0x64 => name(&format!("ovgw{}", address.segments()[3])),
        (None, IpAddr::V4(address)) if address.octets()[0] == 203 => name("eth1"),
        (None, IpAddr::V6(address)) if address.segments()[2] == 2 => name("eth1"),
        _ => name(LAN),
    }
}

/// What the kernel did with packets, by id.
#[derive(Debug, Default)]
struct Seen {
    came: BTreeSet<u16>,
    bridged: BTreeSet<u16>,
    taken: BTreeSet<u16>,
    sent: BTreeMap<u16, (IpAddr, IpAddr, u16)>,
}

impl Seen {
    fn of(world: &World) -> Self {
        let text = judge(&world.place, "nft", &["-j", "-n", "list", "sets"]);
        let all: Value = serde_json::from_str(&text).unwrap();
        let mut seen = Self::default();
        for set in all["nftables"].as_array().unwrap().iter().filter_map(|it| it.get("set")) {
            let bridge = match (set["table"].as_str(), set["family"].as_str()) {
                (Some("probe"), family) => family == Some("bridge"),
                _ => continue,
            };
            for element in set["elem"].as_array().into_iter().flatten() {
                seen.add((bridge, set["name"].as_str().unwrap()), element);
            }
        }
        seen
    }

    fn add(&mut self, (bridge, set): (bool, &str), element: &Value) {
        let id = |value: &Value| match value {
            Value::String(station) => station.parse::<Mac>().map(arp_id).unwrap(),
            value => u16::try_from(value.as_u64().unwrap()).unwrap_or(0), // the kernel's own labels are longer
        };
        let concatenated = || {
            let parts = element["concat"].as_array().unwrap();
            let address = |at: usize| parts[at].as_str().unwrap().parse().unwrap();
            (id(&parts[0]), (address(1), address(2), parts[3].as_u64().unwrap_or(0) as u16))
        };
        match set {
            "came4" | "came6" | "camearp" => drop(self.came.insert(id(element))),
            "in4" | "in6" => drop(self.taken.insert(id(element))),
            "out4" | "out6" if !bridge => drop(self.sent.insert(concatenated().0, concatenated().1)),
            "out4" | "out6" | "outarp" => drop(self.bridged.insert(id(element))),
            _ => {}
        }
    }

    /// Whether a packet fared as the verdict says.
    fn agrees(&self, packet: &Packet, verdict: Verdict<'_>, id: u16) -> bool {
        let Content::Ip(ip) = packet.content else { return self.bridged.contains(&id) == verdict.ruling.passes() };
        if packet.frame.is_some() {
            return self.bridged.contains(&id) == verdict.ruling.passes();
        }
        let sent = self.sent.get(&id);
        let same = (ip.source(), ip.destination());
        match (verdict.ruling, packet.to) {
            (Ruling::Drop, _) => sent.is_none() && !self.taken.contains(&id),
            (Ruling::Accept, None) => self.taken.contains(&id) && sent.is_none(),
            (Ruling::Accept, Some(_)) => sent.is_some_and(|(from, to, _)| (*from, *to) == same),
            (Ruling::Translate(target), _) => {
                sent.is_some_and(|(_, to, port)| (*to, *port) == (target.ip(), target.port()))
            }
            (Ruling::Masquerade, _) => sent.is_some_and(|(from, to, _)| *from != same.0 && *to == same.1),
        }
    }
}

/// What was put to the test, by rule, and how many of all passed.
#[derive(Debug, Default)]
struct Total {
    rules: BTreeMap<String, usize>,
    passed: usize,
    all: usize,
}

/// Sends what is about the rules of a state, and holds what happens against both judges.
fn compare(world: &World, state: &State, seed: [u8; 32], total: &mut Total) -> Result<(), TestCaseError> {
    reconcile(&mut world.open(), state).unwrap();
    judge(
        &world.place,
        "sh",
        &["-c", "nft delete table inet probe 2>/dev/null; nft delete table bridge probe 2>/dev/null; true"],
    );
    judge(&world.place, "nft", &[PROBE]);
    Conntrack::open(&world.place).unwrap().cut(|_| true).unwrap();
    let judge = Judge::new(state);
    let mut sent = Vec::new();
    for (packet, flow) in packets(state, &mut Dice::new(seed)) {
        let id = 1000 + sent.len() as u16;
        let Some(packet) = world.real(&packet, id) else { continue };
        let flow = fresh(&packet, flow);
        world.send(&packet, flow, id);
        sent.push((id, packet, flow));
    }
    let mut seen = Seen::of(world);
    for _ in 0..50 {
        // Others go unseen by the probe, and come with the rest.
        let came = |(id, packet, _): &(u16, Packet, Flow)| packet.content == Content::Other || seen.came.contains(id);
        if sent.iter().all(came) {
            break;
        }
        seen = Seen::of(world);
    }
    for (id, packet, flow) in sent.iter().filter(|(_, packet, _)| packet.content != Content::Other) {
        let verdict = judge.judge(packet, *flow);
        prop_assert_eq!(verdict, judge_by_list(state, packet, *flow));
        prop_assert!(seen.came.contains(id), "{} did not come: {:?}", id, packet);
        prop_assert!(
            seen.agrees(packet, verdict, *id),
            "{}, but the kernel: {:?} bridged {} taken {} of {:?} {:?}",
            verdict,
            seen.sent.get(id),
            seen.bridged.contains(id),
            seen.taken.contains(id),
            packet,
            flow
        );
        *total.rules.entry(kind(&verdict)).or_default() += 1;
        total.passed += usize::from(verdict.ruling.passes());
        total.all += 1;
    }
    Ok(())
}

/// What is known of the flow of a packet that nothing preceded.
fn fresh(packet: &Packet, flow: Flow) -> Flow {
    match (&packet.content, flow) {
        (Content::Ip(Ip { transport: Transport::Tcp { .. }, .. }), Flow::Invalid) => Flow::Invalid,
        (Content::Ip(Ip { transport: Transport::IcmpRouter, .. }), _) => Flow::Invalid, // it begins none
        _ => Flow::New,
    }
}

fn kind(verdict: &Verdict<'_>) -> String {
    let text = verdict.rule.to_string();
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        ["port" | "gateway" | "tunnel" | "published", _, what] => format!("{}/{what}", parts[0]),
        ["published" | "limit", _] => parts[0].to_owned(),
        ["policy", "rule", _] => "policy/rule".to_owned(),
        _ => text,
    }
}

fn parity(world: &World, states: BoxedStrategy<State>, cases: u32, expected: &[&str]) {
    let mut config = ProptestConfig { failure_persistence: None, max_shrink_iters: 32, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let total = RefCell::new(Total::default());
    let outcome = TestRunner::new(config)
        .run(&(states, any::<[u8; 32]>()), |(state, seed)| compare(world, &state, seed, &mut total.borrow_mut()));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => panic!("{reason}\n{input:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let total = total.into_inner();
    println!("{} of {} packets pass: {:#?}", total.passed, total.all, total.rules);
    if config_cases() < cases {
        return; // too few to meet all
    }
    assert_eq!(total.rules.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected.iter().copied().collect());
    assert!((30..=70).contains(&(100 * total.passed / total.all)), "{} of {}", total.passed, total.all);
}

/// How many states are tried.
fn config_cases() -> u32 {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default().cases,
        None => u32::MAX,
    }
}

#[test]
fn a_host_does_with_packets_what_the_judge_says() {
    kernel_test(Kernel::Host, "firewall::a_host_does_with_packets_what_the_judge_says", || {
        parity(&World::host(), host().boxed(), 32, HOST);
    });
}

#[test]
fn a_sandbox_does_with_packets_what_the_judge_says() {
    kernel_test(Kernel::Host, "firewall::a_sandbox_does_with_packets_what_the_judge_says", || {
        parity(&World::sandbox(), sandbox().boxed(), 32, SANDBOX);
    });
}

const HOST: &[&str] = &[
    "esp/members",
    "flow/invalid",
    "gateway/between",
    "gateway/egress",
    "gateway/ingress",
    "gateway/internal",
    "gateway/loopback",
    "gateway/route",
    "gateway/source",
    "gateway/within",
    "limit",
    "otherwise",
    "port/arp",
    "port/dhcp",
    "port/fragment",
    "port/ipv4",
    "port/ipv6",
    "port/isolated",
    "port/mac",
    "port/neighbour",
    "port/router",
    "published",
    "published/local",
    "published/sources",
    "tunnel/cleartext",
    "tunnel/endpoint",
    "tunnel/members",
];
const SANDBOX: &[&str] = &[
    "flow/invalid",
    "otherwise",
    "policy/neighbours",
    "policy/otherwise",
    "policy/rule",
    "policy/unbegun",
    "port/arp",
    "port/dhcp",
    "port/fragment",
    "port/ipv4",
    "port/ipv6",
    "port/mac",
    "port/neighbour",
    "port/router",
    "port/stranger",
];

#[test]
fn a_port_that_is_pinned_speaks_ip_and_arp_alone() {
    kernel_test(Kernel::Host, "firewall::a_port_that_is_pinned_speaks_ip_and_arp_alone", || {
        let world = World::sandbox();
        let mut state = State::default();
        let mac = Mac::from_ipv4([10, 0, 0, 2].into());
        let pin = overlay_firewall::Pin::new(mac, [[10, 0, 0, 2].into()]);
        state.ports.insert(name("p-2"), BridgePort::Pinned(pin));
        let frame = Frame { port: name("p-2"), out: Some(name("p-3")), source: mac };
        let packet = Packet::bridged(name("br0"), frame, Content::Other);
        let seen = "add table netdev seen; add chain netdev seen c { type filter hook ingress device w-p-3 priority 0; }; \
                    add rule netdev seen c ether type 0x88b5 counter";
        judge(&world.place, "nft", &[seen]);
        let passed = || judge(&world.place, "nft", &["list", "table", "netdev", "seen"]);
        for (state, passes) in [(&State::default(), true), (&state, false)] {
            reconcile(&mut world.open(), state).unwrap();
            let before = passed();
            world.send(&packet, Flow::New, 1);
            world.send(&packet, Flow::New, 2);
            let judged = Judge::new(state).judge(&packet, Flow::New).ruling.passes();
            assert_eq!((passed() != before, judged), (passes, passes));
        }
    });
}

#[test]
fn what_is_pinned_hides_nothing_behind_a_vlans_tag() {
    kernel_test(Kernel::Host, "firewall::what_is_pinned_hides_nothing_behind_a_tag", || {
        let world = World::sandbox();
        let mac = Mac::from_ipv4([10, 0, 0, 2].into());
        let mut state = State::default();
        let pin = overlay_firewall::Pin::new(mac, [[10, 0, 0, 2].into()]);
        state.ports.insert(name("p-2"), BridgePort::Pinned(pin));
        let seen = format!(
            "add table netdev seen; add chain netdev seen c {{ type filter hook ingress device w-p-3 priority 0; }}; \
             add rule netdev seen c ether saddr {mac} counter" // the bridge speaks for itself now and then
        );
        judge(&world.place, "nft", &[&seen]);
        let passed = || judge(&world.place, "nft", &["list", "table", "netdev", "seen"]);
        let lie = Content::Ip(Ip::v4([10, 0, 0, 9].into(), [10, 0, 0, 3].into(), Transport::tcp(1, 80)));
        let frame = frame((world.behind(name("p-3")), mac), &lie, Flow::New, 1);
        let tagged = |tags: &[[u8; 4]]| [&frame[..12], &tags.concat(), &frame[12..]].concat();
        let (vlan, service, priority) = ([0x81, 0, 0, 5], [0x88, 0xa8, 0, 5], [0x81, 0, 0xe0, 0]);
        for tags in [&[][..], &[vlan], &[priority], &[service, vlan], &[vlan, vlan]] {
            for (state, passes) in [(&State::default(), true), (&state, false)] {
                reconcile(&mut world.open(), state).unwrap();
                let before = passed();
                world.wires[&name("p-2")].send(&tagged(tags));
                assert_eq!(passed() != before, passes, "{tags:x?}");
            }
        }
    });
}

#[test]
fn an_audited_rule_counts_and_drops_nothing() {
    kernel_test(Kernel::Host, "firewall::an_audited_rule_counts_and_drops_nothing", || {
        let world = World::sandbox();
        let mut state = State::default();
        for number in 2..4 {
            let member = Member { addresses: [[10, 0, 0, number].into()].into(), ..Member::default() };
            state.policy.members.insert(EndpointId::from_bytes([number; 16]), member);
        }
        let deny = PolicyRule::deny(Selector::everyone(), Selector::everyone());
        state.policy.rules.insert("watched".parse().unwrap(), PolicyRule { mode: Mode::Audit, ..deny });
        let mut firewall = world.open();
        reconcile(&mut firewall, &state).unwrap();
        let mac = Mac::from_ipv4([10, 0, 0, 2].into());
        let frame = Frame { port: name("p-2"), out: Some(name("p-3")), source: mac };
        for port in 1..4 {
            let ip = Ip::v4([10, 0, 0, 2].into(), [10, 0, 0, 3].into(), Transport::tcp(port, 80));
            world.send(&Packet::bridged(name("br0"), frame, Content::Ip(ip)), Flow::New, port);
        }
        let counts = firewall.read().unwrap();
        assert_eq!((counts["policy/rule/watched"].packets, counts["policy/otherwise"].packets), (3, 3));
    });
}
