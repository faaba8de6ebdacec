//! States by chance.

#![expect(clippy::expect_used, reason = "the texts are fixed")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use overlay_core::testing::any;
use overlay_core::{EndpointId, IfName, Mac, Name, Port, PortRange, Protocol, State as _, Vni};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::packets::{HERE, LAN, OUTSIDE};
use crate::{
    Action, Bind, BridgePort, Egress, Gateway, IpNet, Limit, Member, Mode, Pin, PolicyRule, Ports, Published, Selector,
    State, Strangers, Tunnel,
};

/// States of any place that pass their check, small and alike enough that two of them differ in every way a plan can meet.
pub fn state() -> impl Strategy<Value = State> {
    prop_oneof![3 => host(), 3 => sandbox(), 1 => Just(State::default())]
}

/// States of hosts: up to three gateways with pinned ports, published ports of all kinds, guards.
pub fn host() -> impl Strategy<Value = State> {
    let gateways = btree_map(0_u8..3, any::<[bool; 3]>(), 0..4);
    let published = vec((published(), any::<Index>()), 0..8);
    let tunnels = btree_map(select(&[4789_u16, 4790]), tunnel(), 0..3);
    let guards = (proptest::option::of(members()), btree_map(select(&["gossip", "control"]), limit(), 0..3));
    let flags = any::<[bool; 2]>();
    (gateways, published, tunnels, guards, flags).prop_map(|(gateways, published, tunnels, guards, [pinned, admin])| {
        let mut state = State { admin, ..State::default() };
        for (number, [internal, together, balanced]) in gateways {
            gateway(&mut state, number, internal, (pinned, together));
            let made = state.gateways.get_mut(&device(&format!("ovgw{number}")));
            made.into_iter().for_each(|gateway| gateway.balanced = balanced);
        }
        for (published, at) in published {
            publish(&mut state, published, at);
        }
        state.tunnels = tunnels.into_iter().map(|(port, tunnel)| (self::port(port), tunnel)).collect();
        state.esp = guards.0;
        state.limits = guards.1.into_iter().map(|(name, limit)| (self::name(name), limit)).collect();
        if let Some(control) = state.limits.get_mut("control") {
            control.port = Port::CONTROL;
        }
        state
    })
}

/// States of sandboxes: pinned ports and a trunk, members with labels here and elsewhere, up to five rules.
pub fn sandbox() -> impl Strategy<Value = State> {
    let members = btree_map(2_u8..10, (any::<bool>(), any::<bool>(), vec(any::<bool>(), 4)), 0..8);
    let rules = btree_map(select(&["a", "b", "c", "d", "e"]), rule(), 0..5);
    (members, rules, any::<bool>(), any::<bool>()).prop_map(|(members, rules, deny, strict)| {
        let mut state = State { strangers: if strict { Strangers::Drop } else { Strangers::Pass }, ..State::default() };
        state.ports.insert(device("vx-1"), BridgePort::Trunk);
        for (number, (here, v6, labels)) in members {
            member(&mut state, number, (here, v6, &labels));
        }
        state.policy.otherwise = if deny { Action::Deny } else { Action::Allow };
        state.policy.rules = rules.into_iter().map(|(text, rule)| (name(text), rule)).collect();
        state
    })
}

fn gateway(state: &mut State, number: u8, internal: bool, (pinned, together): (bool, bool)) {
    let subnets = [format!("172.18.{number}.0/24"), format!("fd00:18:{number}::/64")];
    let gateway = Gateway::new(subnets.iter().map(|net| net.parse().expect("a subnet")));
    let egress = if internal { Egress::Internal } else { Egress::Masquerade };
    state.gateways.insert(device(&format!("ovgw{number}")), Gateway { egress, together, ..gateway });
    for host in 2..if pinned { 4 } else { 2 } {
        let pin = Pin::new(Mac::from_ipv4([172, 18, number, host].into()), behind(number, host)).isolated();
        state.ports.insert(device(&format!("g{number}-{host}")), BridgePort::Pinned(pin));
    }
}

/// The addresses of an endpoint behind a gateway.
fn behind(gateway: u8, host: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0x18, gateway.into(), 0, 0, 0, 0, host.into());
    [Ipv4Addr::new(172, 18, gateway, host).into(), v6.into()]
}

/// Publishes what the check lets pass, behind one of the gateways.
fn publish(state: &mut State, mut published: Published, at: Index) {
    let number = at.index(3) as u8;
    for (address, port) in
        behind(number, 2 + at.index(2) as u8).into_iter().zip([published.v4.is_some(), published.v6.is_some()])
    {
        if port {
            published = published.to(SocketAddr::new(address, 80));
        }
    }
    let with = |published| {
        let mut state = state.clone();
        state.published.insert(name(&format!("p{}", state.published.len())), published);
        state.check().is_ok().then_some(state)
    };
    if let Some(with) = with(published) {
        *state = with;
    }
}

fn published() -> impl Strategy<Value = Published> {
    let [here4, here6] = HERE;
    let binds = [
        Bind::Any,
        Bind::Any,
        Bind::Address(here4),
        Bind::Address(here6),
        Bind::Address([127, 0, 0, 1].into()),
        Bind::Interface(device(LAN)),
    ];
    let nets = ["198.51.100.0/25", "198.51.100.64/26", "2001:db8:1::/48", "172.18.0.0/16"];
    let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().expect("a subnet")).collect();
    let sources = subsequence(nets, 0..3);
    let [v4, v6] = behind(0, 2);
    (any::protocol(), select(&[80_u16, 443, 8080]), select(binds.to_vec()), sources, 1..4).prop_map(
        move |(protocol, port, bind, sources, targets)| {
            let mut published = Published::new(protocol, self::port(port)).at(bind);
            published.sources = sources.into_iter().collect();
            let wanted = [(targets & 1 != 0, v4), (targets & 2 != 0, v6)];
            wanted
                .into_iter()
                .filter(|(wanted, _)| *wanted)
                .fold(published, |it, (_, to)| it.to(SocketAddr::new(to, 80)))
        },
    )
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    (members(), btree_set(1_u32..4, 0..3)).prop_map(|(members, encrypted)| Tunnel {
        members,
        encrypted: encrypted.into_iter().filter_map(|vni| Vni::new(vni).ok()).collect(),
    })
}

fn members() -> impl Strategy<Value = BTreeSet<IpAddr>> {
    let [v4, v6] = OUTSIDE;
    let more: [IpAddr; 2] = [[198, 51, 100, 8].into(), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 8).into()];
    subsequence(vec![v4, v6, more[0], more[1]], 0..4).prop_map(|members| members.into_iter().collect())
}

fn limit() -> impl Strategy<Value = Limit> {
    (any::protocol(), members()).prop_map(|(protocol, members)| Limit {
        protocol,
        port: Port::GOSSIP,
        members,
        per_second: NonZeroU32::MIN.saturating_add(999),
        burst: 1000,
    })
}

fn member(state: &mut State, number: u8, (here, v6, labels): (bool, bool, &[bool])) {
    let v6 = v6.then(|| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into());
    let addresses: BTreeSet<IpAddr> = [Ipv4Addr::new(10, 0, 0, number).into()].into_iter().chain(v6).collect();
    if here {
        let pin = Pin::new(Mac::from_ipv4([10, 0, 0, number].into()), addresses.clone());
        state.ports.insert(device(&format!("p-{number}")), BridgePort::Pinned(pin));
    }
    let app = if labels[0] { "web" } else { "db" };
    let tier = labels[1].then(|| ("tier".to_owned(), "front".to_owned()));
    let labels = [("app".to_owned(), app.to_owned())].into_iter().chain(tier).collect();
    state.policy.members.insert(EndpointId::from_bytes([number; 16]), Member { addresses, labels });
}

fn rule() -> impl Strategy<Value = PolicyRule> {
    let selectors = [
        Selector::everyone(),
        Selector::labels([("app", "web")]),
        Selector::labels([("app", "db")]),
        Selector::labels([("app", "web"), ("tier", "front")]),
    ];
    let range = PortRange::new(port(8000), port(8099)).expect("a range");
    let ports = vec![
        Ports::one(Protocol::Tcp, port(80)),
        Ports::one(Protocol::Udp, port(53)),
        Ports { protocol: Protocol::Tcp, range },
    ];
    let selector = select(selectors.to_vec());
    (0_u16..3, selector.clone(), selector, subsequence(ports, 0..3), any::<[bool; 2]>()).prop_map(
        |(order, from, to, ports, [deny, audit])| PolicyRule {
            order,
            from,
            to,
            ports: ports.into_iter().collect(),
            action: if deny { Action::Deny } else { Action::Allow },
            mode: if audit { Mode::Audit } else { Mode::Enforce },
        },
    )
}

pub(super) fn device(text: &str) -> IfName {
    IfName::new(text).expect("a short name")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a short name")
}

fn port(port: u16) -> Port {
    Port::new(port).expect("not 0")
}
