//! Proptest strategies for this crate's values (feature `testing`).

#![expect(clippy::expect_used, reason = "the texts are fixed")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::{EndpointId, IfName, Mac, Mtu, Name, NsId, NsKey};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::{Bridge, Inside, Macvlan, MacvlanMode, Marked, Port, Route, Routes, State};

/// States that pass their check, small and alike enough that two of them differ in every way a plan can meet.
pub fn state() -> impl Strategy<Value = State> {
    let containers = (1..=3).map(|number| NsKey {
        name: Name::new(&format!("c{number}")).expect("a short name"),
        id: NsId { device: 4, inode: number },
    });
    state_among(containers.collect(), true, IfName::new("parent").expect("a short name"))
}

/// States that a kernel can hold: all stations are in these containers, of which there must be one at least, or are taps if there can be some;
/// macvlans are on `parent`, which should have an MTU of 1,500 or more.
pub fn state_among(containers: Vec<NsKey>, taps: bool, parent: IfName) -> impl Strategy<Value = State> {
    let (bridges, macvlans) = (btree_map(1_u8..4, bridge(), 0..3), (any::<bool>(), vec(option::of(macvlan()), 3)));
    (bridges, macvlans).prop_map(move |(bridges, (passthru, macvlans))| {
        let container = |number: u8| containers[usize::from(number) % containers.len()].clone();
        let mut state = State::default();
        for (number, draw) in bridges {
            state.bridges.insert(name("lb", number), draw.bridge(number, taps, &container));
        }
        for (number, draw) in (1_u8..).zip(macvlans).filter_map(|(number, draw)| Some((number, draw?))) {
            if passthru && !state.macvlans.is_empty() {
                break;
            }
            let mode = if passthru { MacvlanMode::Passthru } else { draw.mode };
            let inside = Inside { namespace: container(number), interface: name("lan", number) };
            let mtu = if draw.small { Mtu::IPV6_MIN } else { Mtu::ETHERNET };
            let addresses = addresses(9, number, [draw.v4, draw.v6]);
            let macvlan = Macvlan { mode, mtu, addresses, ..Macvlan::new(parent, mac(9, number), inside) };
            state.macvlans.insert(EndpointId::from_bytes([number; 16]), macvlan);
        }
        state
    })
}

/// Routes of a container that has `lan1`, with 172.30.1.10/24 and fd00:0:0:1::a/64, and `lan2`, with the same of 2: few of each, so that they
/// differ in every way a plan can meet.
pub fn routes() -> impl Strategy<Value = Routes> {
    const TO: [&str; 5] = ["0.0.0.0/0", "10.7.0.0/24", "10.7.0.0/16", "::/0", "fd07::/64"];
    let route = || option::weighted(0.6, (1_u8..3, any::<bool>()));
    let marked = btree_map(1_u32..4, (1_u8..3, 1_u8..4), 0..3);
    (vec(route(), TO.len()), vec(route(), 4), marked).prop_map(|(to, from, marked)| {
        let all = TO.map(|to| to.parse::<IpNet>().expect("a subnet"));
        let to = all.into_iter().zip(to).filter_map(|(to, drawn)| Some((to, way(to.addr(), drawn?))));
        let own = (1..=2).flat_map(|lan| addresses(lan, 10, [true; 2])).map(|own| own.addr());
        let from = own.zip(from).filter_map(|(from, drawn)| Some((from, way(from, drawn?))));
        let marked = marked.into_iter().map(|(mark, (lan, families))| {
            let [v4, v6] = [families & 1 != 0, families & 2 != 0];
            let routers = addresses(lan, 1, [v4, v6]);
            let v4 = routers.iter().find_map(|it| if let IpAddr::V4(it) = it.addr() { Some(it) } else { None });
            let v6 = routers.iter().find_map(|it| if let IpAddr::V6(it) = it.addr() { Some(it) } else { None });
            (mark, Marked { interface: name("lan", lan), v4, v6 })
        });
        Routes { to: to.collect(), from: from.collect(), marked: marked.collect() }
    })
}

fn way(of: IpAddr, (lan, routed): (u8, bool)) -> Route {
    let router = addresses(lan, 1, [of.is_ipv4(), of.is_ipv6()]).first().map(IpNet::addr);
    Route { interface: name("lan", lan), via: router.filter(|_| routed) }
}

#[derive(Debug, Clone)]
struct BridgeDraw {
    mtu: Mtu,
    gateways: [bool; 2],
    isolated: bool,
    routed: bool,
    localnet: bool,
    other_mac: bool,
    ports: Vec<Option<(bool, bool, bool)>>,
}

impl BridgeDraw {
    fn bridge(self, number: u8, taps: bool, container: &impl Fn(u8) -> NsKey) -> Bridge {
        let Self { mtu, gateways, isolated, routed, localnet, other_mac, ports } = self;
        let v6 = mtu >= Mtu::IPV6_MIN;
        let families = |[v4, of_v6]: [bool; 2]| [v4, of_v6 && v6];
        let mut bridge =
            Bridge { isolated, routed, localnet, ..Bridge::new(mac(number, if other_mac { 200 } else { 100 }), mtu) };
        bridge.addresses = addresses(number, 1, families(gateways));
        for (port, (tap, v4, v6)) in (2_u8..).zip(ports).filter_map(|(port, draw)| Some((port, draw?))) {
            let interface = name("eth", 10 * number + port);
            let inside = (!taps || !tap).then(|| Inside { namespace: container(port), interface });
            let addresses = addresses(number, port, families([v4, v6]));
            bridge.ports.insert(name("lp", 10 * number + port), Port { mac: mac(number, port), addresses, inside });
        }
        bridge
    }
}

fn bridge() -> impl Strategy<Value = BridgeDraw> {
    // Around what IPv6 needs more often than chance would have it.
    let mtu = prop_oneof![1280_u32..1500, 1278_u32..1282, Just(68_u32)];
    let ports = vec(option::of(any::<(bool, bool, bool)>()), 4);
    (mtu, any::<[bool; 2]>(), any::<(bool, bool, bool, bool)>(), ports).prop_map(|(mtu, gateways, flags, ports)| {
        let (isolated, routed, localnet, other_mac) = flags;
        BridgeDraw {
            mtu: Mtu::new(mtu).unwrap_or(Mtu::ETHERNET),
            gateways,
            isolated,
            routed,
            localnet,
            other_mac,
            ports,
        }
    })
}

#[derive(Debug, Clone)]
struct MacvlanDraw {
    mode: MacvlanMode,
    small: bool,
    v4: bool,
    v6: bool,
}

fn macvlan() -> impl Strategy<Value = MacvlanDraw> {
    let modes = prop_oneof![Just(MacvlanMode::Bridge), Just(MacvlanMode::Vepa), Just(MacvlanMode::Private)];
    (modes, any::<(bool, bool, bool)>()).prop_map(|(mode, (small, v4, v6))| MacvlanDraw { mode, small, v4, v6 })
}

fn addresses(subnet: u8, host: u8, [v4, v6]: [bool; 2]) -> BTreeSet<IpNet> {
    let of_v4 = (IpAddr::from([172, 30, subnet, host]), 24);
    let of_v6 = (Ipv6Addr::new(0xfd00, 0, 0, subnet.into(), 0, 0, 0, host.into()).into(), 64);
    let nets = [(v4, of_v4), (v6, of_v6)].into_iter().filter(|(has, _)| *has);
    nets.map(|(_, (address, length))| IpNet::new(address, length).expect("a prefix of the family")).collect()
}

const fn mac(subnet: u8, host: u8) -> Mac {
    Mac::new([0x02, 0x42, 172, 30, subnet, host])
}

fn name(kind: &str, number: u8) -> IfName {
    IfName::new(&format!("{kind}{number}")).expect("a short name")
}
