//! Proptest strategies for native links (feature `testing`).

#![expect(clippy::expect_used, reason = "the texts and numbers are fixed")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{DontFragment, Encapsulation, IfName, IpFamily, Mac, Mtu, NsKey, Ttl, Vni};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::state::net;
use super::{
    BridgePort, Dev, Kind, Link, MAIN_TABLE, MacvlanMode, Route, RouteKey, Rule, Setting, Site, Solicit, State, Tap,
    Vxlan,
};

/// Which kinds of devices a kernel has that not every one does.
#[derive(Debug, Clone, Copy)]
pub struct Kinds {
    /// [`Kind::Dummy`].
    pub dummies: bool,
    /// [`Kind::Tap`].
    pub taps: bool,
}

impl Kinds {
    /// All of them.
    pub const ALL: Self = Self { dummies: true, taps: true };
}

/// States that pass their check and that a kernel with these kinds of devices can hold, small and alike enough that two of
/// them differ in every way a plan can meet. Veth pairs reach into the namespaces `far`, of which there must be one at least.
pub fn state(far: Vec<NsKey>, kinds: Kinds) -> impl Strategy<Value = State> {
    let bridges = [option::of((any::<bool>(), mtu())), option::of((any::<bool>(), mtu()))];
    let dummy = option::of(mtu()).prop_map(move |mtu| mtu.filter(|_| kinds.dummies));
    let tap =
        || option::of((tap(), mtu(), (0_usize..3, bridge_port()))).prop_map(move |tap| tap.filter(|_| kinds.taps));
    let taps = [tap(), tap()];
    let pairs = vec(option::of((0_usize..8, mtu(), bridge_port())), 3);
    let one = || option::of((1_u32..4, tunnel(), (mtu(), bridge_port())));
    let tunnels = [one(), one()];
    let macvlan = option::of(macvlan_mode());
    (bridges, (dummy, taps), pairs, tunnels, macvlan, vec(item(), 0..16)).prop_map(
        move |(bridges, (dummy, taps), pairs, tunnels, macvlan, items)| {
            let mut state = State::default();
            for (number, (snooping, mtu)) in (0..).zip(bridges).filter_map(|(n, b)| Some((n, b?))) {
                add(&mut state, home("br", number), Kind::Bridge { multicast_snooping: snooping }, mtu);
            }
            dummy.into_iter().for_each(|mtu| add(&mut state, home("du", 0), Kind::Dummy, mtu));
            for (number, (tap, mtu, (place, port))) in (0..).zip(taps).filter_map(|(n, tap)| Some((n, tap?))) {
                add(&mut state, home("ta", number), Kind::Tap(tap), mtu);
                plug(&mut state, &home("ta", number), place, port);
            }
            for (number, (place, mtu, port)) in (0..).zip(pairs).filter_map(|(n, pair)| Some((n, pair?))) {
                add_pair(&mut state, number, &far[place % far.len()], mtu);
                if number > 0 {
                    plug(&mut state, &home("ve", number), place, port);
                }
            }
            for (number, (vni, vxlan, (mtu, port))) in (0..).zip(tunnels).filter_map(|(n, it)| Some((n, it?))) {
                add_tunnel(&mut state, number, vni, (vxlan, mtu));
                plug(&mut state, &home("vx", number), vni as usize, port);
            }
            let parent = home("ve", 0); // no bridge's port: one device has one master
            if let Some(mode) = macvlan.filter(|_| state.links.contains_key(&parent)) {
                let mtu = state.links[&parent].mtu;
                add(&mut state, Dev::far(far[0].clone(), name("ma", 0)), Kind::Macvlan { parent, mode }, mtu);
            }
            items.into_iter().for_each(|item| dress(&mut state, item));
            state
        },
    )
}

/// A draw for one thing on a device: which device, what, which number, a variant.
type Item = (usize, u8, u8, bool);

fn item() -> impl Strategy<Value = Item> {
    (0_usize..64, 0_u8..8, 2_u8..8, any::<bool>())
}

fn dress(state: &mut State, (at, what, number, variant): Item) {
    let dev = match state.links.len() {
        0 => None,
        len => state.links.keys().nth(at % len).cloned(),
    };
    let v6 = |state: &State, dev: &Dev| variant && state.links[dev].mtu >= Mtu::IPV6_MIN;
    match (what, dev) {
        (0, _) => drop(state.settings.insert((Site::Home, Setting::Ipv6Forwarding), true)),
        (1, _) => drop(state.rules.insert(rule(number, variant))),
        (_, None) => {}
        (2, Some(dev)) => {
            let v6 = v6(state, &dev);
            let len = if v6 { 64 } else { 24 };
            state.addresses.insert((dev, inner(v6, number)), len + (at % 2) as u8);
        }
        (3, Some(dev)) => {
            let v6 = v6(state, &dev);
            let (key, route) = route(dev, number, v6);
            state.routes.insert(key, route);
        }
        (4, Some(dev)) => {
            let link = state.links.get_mut(&dev).expect("it was drawn from them");
            (link.ipv4_forwarding, link.ipv4_localnet) = (variant, number.is_multiple_of(3));
            link.accept_ra = number.is_multiple_of(2) && link.mtu >= Mtu::IPV6_MIN;
            if dev.site != Site::Home && variant {
                link.solicit = Solicit { interval: Duration::from_millis(20 * u64::from(number)), times: 20 };
            }
            let [a, b, c, d, _, f] = link.mac.octets();
            link.mac = Mac::new([a, b, c, d, 0x12, f]);
        }
        (7, Some(dev)) => station(state, &dev, number),
        (_, Some(dev)) => {
            let v6 = v6(state, &dev);
            entry(state, dev, number, v6);
        }
    }
}

/// Neighbour, forwarding entry or flood target on a VXLAN device.
fn entry(state: &mut State, dev: Dev, number: u8, v6: bool) {
    let Some(Kind::Vxlan(vxlan)) = state.links.get(&dev).map(|link| &link.kind) else { return };
    let vtep = outer(IpFamily::of(vxlan.local), number);
    match number % 3 {
        0 => drop(state.flood.insert((dev, vtep))),
        1 => drop(state.neighbours.insert((dev, inner(v6, number)), mac(0x20, number))),
        _ => drop(state.forwarding.insert((dev, mac(0x20, number % 4)), vtep)),
    }
}

/// A station behind a port of a bridge.
fn station(state: &mut State, dev: &Dev, number: u8) {
    let Some(port) = state.links.get(dev).and_then(|link| link.port) else { return };
    let bridge = Dev { site: dev.site.clone(), name: port.bridge };
    state.stations.insert((bridge, mac(0x20, number % 4)), dev.name);
}

fn rule(number: u8, variant: bool) -> Rule {
    let family = if variant { IpFamily::V6 } else { IpFamily::V4 };
    let host = inner(variant, number);
    Rule {
        site: Site::Home,
        family,
        priority: 1000 + u32::from(number),
        from: number.is_multiple_of(2).then(|| host.into()),
        to: number.is_multiple_of(3).then(|| host.into()),
        mark: number.is_multiple_of(4).then_some((0x10, 0xff)),
        incoming: number.is_multiple_of(5).then(|| name("br", 0)),
        table: 100,
    }
}

fn route(dev: Dev, number: u8, v6: bool) -> (RouteKey, Route) {
    let destination: IpNet = match v6 {
        true => net(Ipv6Addr::new(0x2001, 0xdb8, 0xd, number.into(), 0, 0, 0, 0).into(), 64),
        false => net([198, 51, 100, number * 16].into(), 28),
    };
    let gateway = number.is_multiple_of(2).then(|| if v6 { link_local(number) } else { inner(false, 200 + number) });
    let table = if number.is_multiple_of(3) { 100 } else { MAIN_TABLE };
    let whole = dev.site == Site::Home;
    let key = RouteKey { site: dev.site, table, destination, metric: u32::from(number) };
    let route = match number {
        7 if whole => Route::Unreachable,
        5 if whole => Route::Blackhole,
        _ => Route::Via { device: dev.name, gateway, source: None, onlink: gateway.is_some() },
    };
    (key, route)
}

fn add(state: &mut State, dev: Dev, kind: Kind, mtu: Mtu) {
    let number = dev.name.as_str().bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    let tag = if dev.site == Site::Home { 0x10 } else { 0x11 };
    state.links.insert(dev, Link::new(kind, mtu, mac(tag, number)));
}

fn add_pair(state: &mut State, number: u8, far: &NsKey, mtu: Mtu) {
    let (near, far) = (home("ve", number), Dev::far(far.clone(), name("eth", number)));
    add(state, near.clone(), Kind::Veth { peer: far.clone() }, mtu);
    add(state, far, Kind::Veth { peer: near }, mtu);
}

fn add_tunnel(state: &mut State, number: u8, vni: u32, (vxlan, mtu): (Vxlan, Mtu)) {
    let vni = Vni::new(vni).expect("it is small");
    let taken = state.links.values().any(|link| matches!(&link.kind, Kind::Vxlan(other) if other.vni == vni));
    let room = Encapsulation::vxlan(IpFamily::of(vxlan.local));
    let fits = |device: &IfName| {
        let most = state.links.get(&Dev::home(*device)).map(|link| room.inner_mtu(link.mtu));
        matches!(most, Some(Ok(most)) if mtu <= most)
    };
    let device = vxlan.device.filter(fits);
    if !taken {
        add(state, home("vx", number), Kind::Vxlan(Vxlan { vni, device, ..vxlan }), mtu);
    }
}

/// Makes a device a port of a bridge, if there is one of that number.
fn plug(state: &mut State, dev: &Dev, number: usize, port: BridgePort) {
    let bridge = name("br", (number % 3) as u8);
    if state.links.contains_key(&Dev::home(bridge))
        && let Some(link) = state.links.get_mut(dev)
    {
        link.port = Some(BridgePort { bridge, ..port });
    }
}

/// Around what IPv6 needs more often than chance would have it: below, a device has no IPv6.
fn mtu() -> impl Strategy<Value = Mtu> {
    let bytes = prop_oneof![Just(1500_u32), 1400_u32..1500, 1278_u32..1282, Just(68_u32)];
    bytes.prop_filter_map("in range", |mtu| Mtu::new(mtu).ok())
}

fn bridge_port() -> impl Strategy<Value = BridgePort> {
    any::<[bool; 4]>().prop_map(|[learning, flood, isolated, neigh_suppress]| BridgePort {
        learning,
        flood,
        isolated,
        neigh_suppress,
        ..BridgePort::new(name("br", 0))
    })
}

fn macvlan_mode() -> impl Strategy<Value = MacvlanMode> {
    prop_oneof![Just(MacvlanMode::Bridge), Just(MacvlanMode::Private), Just(MacvlanMode::Vepa)]
}

/// Of users and groups, root is there in every user namespace.
fn tap() -> impl Strategy<Value = Tap> {
    let root = || option::of(Just(0));
    (any::<bool>(), root(), root()).prop_map(|(multi_queue, owner, group)| Tap { multi_queue, owner, group })
}

fn tunnel() -> impl Strategy<Value = Vxlan> {
    let ttl = prop_oneof![Just(Ttl::Auto), Just(Ttl::Inherit), Just(Ttl::Hops(NonZeroU8::MAX))];
    let dont_fragment = prop_oneof![Just(DontFragment::Unset), Just(DontFragment::Set), Just(DontFragment::Inherit)];
    let device = option::of(Just(name("ve", 1)));
    (any::<[bool; 4]>(), ttl, dont_fragment, device).prop_map(
        |([v6, udp_checksum, learning, proxy], ttl, dont_fragment, device)| Vxlan {
            device,
            ttl,
            dont_fragment: if v6 { DontFragment::Unset } else { dont_fragment },
            udp_checksum,
            learning,
            proxy,
            ..Vxlan::new(Vni::MIN, Site::Home, outer(if v6 { IpFamily::V6 } else { IpFamily::V4 }, 1))
        },
    )
}

fn home(prefix: &str, number: u8) -> Dev {
    Dev::home(name(prefix, number))
}

fn name(prefix: &str, number: u8) -> IfName {
    IfName::new(&format!("{prefix}{number}")).expect("a short name")
}

const fn mac(tag: u8, number: u8) -> Mac {
    Mac::new([0x02, 0x42, 0, 0, tag, number])
}

fn outer(family: IpFamily, node: u8) -> IpAddr {
    match family {
        IpFamily::V4 => [192, 0, 2, node].into(),
        IpFamily::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, node.into()).into(),
    }
}

fn inner(v6: bool, host: u8) -> IpAddr {
    if v6 { Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into() } else { Ipv4Addr::new(10, 0, 9, host).into() }
}

fn link_local(host: u8) -> IpAddr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host.into()).into()
}
