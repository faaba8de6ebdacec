//! The area value keeps the laws, and what makes no sense is refused by name.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use overlay_core::testing::{Dice, laws};
use overlay_core::{EndpointId, IfName, Mac, Memory, Mtu, NsId, NsKey, ReconcileError, State as _, reconcile};
use overlay_link::testing::{routes, state};
use overlay_link::{Bridge, Inside, IpNet, Macvlan, MacvlanMode, Port, Route, Routes, State};
use proptest::prelude::*;

fn meddle(state: &mut State, dice: &mut Dice) {
    match state.bridges.values_mut().next() {
        Some(bridge) if dice.one_in(2) => bridge.ports.clear(),
        Some(bridge) => bridge.addresses.clear(),
        None => state.macvlans.clear(),
    }
}

proptest! {
    #[test]
    fn states_keep_the_laws(from in state(), to in state()) {
        laws::state(&from, &to)?;
    }

    #[test]
    fn the_memory_backend_keeps_the_laws(desired in proptest::collection::vec(state(), 1..4), seed in any::<[u8; 32]>()) {
        laws::backend(&mut laws::InMemory::new(meddle), &desired, seed)?;
    }

    #[test]
    fn routes_keep_the_laws(from in routes(), to in routes(), seed in any::<[u8; 32]>()) {
        laws::state(&from, &to)?;
        let meddle = |routes: &mut Routes, dice: &mut Dice| if dice.one_in(2) { routes.from.clear() } else { routes.to.clear() };
        laws::backend(&mut laws::InMemory::new(meddle), &[from.clone(), to], seed)?;
        prop_assert_eq!(from.check(), Ok(()));
        let json = serde_json::to_string(&from).unwrap();
        prop_assert_eq!(serde_json::from_str::<Routes>(&json).unwrap(), from);
    }

    #[test]
    fn generated_states_pass_the_check(state in state()) {
        prop_assert_eq!(state.check(), Ok(()));
    }

    #[test]
    fn json_round_trips(state in state()) {
        let json = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
    }
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

const fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

fn inside(inode: u64, interface: &str) -> Inside {
    Inside {
        namespace: NsKey { name: "web".parse().unwrap(), id: NsId { device: 4, inode } },
        interface: name(interface),
    }
}

fn port(last: u8, addresses: &[&str], inside: Option<Inside>) -> Port {
    Port { mac: mac(last), addresses: addresses.iter().map(|it| it.parse::<IpNet>().unwrap()).collect(), inside }
}

fn whole() -> State {
    let mut bridge = Bridge::new(mac(1), Mtu::ETHERNET);
    bridge.addresses.insert("10.0.0.1/24".parse().unwrap());
    bridge.ports.insert(name("p1"), port(2, &["10.0.0.2/24"], Some(inside(1, "eth0"))));
    State { bridges: [(name("br0"), bridge)].into(), ..State::default() }
}

fn refusal(change: impl FnOnce(&mut State)) -> String {
    let mut state = whole();
    change(&mut state);
    let memory = Memory::default();
    let result = reconcile(&mut memory.clone(), &state);
    assert_eq!(memory.state(), State::default());
    match result {
        Err(ReconcileError::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

fn bridge(state: &mut State) -> &mut Bridge {
    state.bridges.values_mut().next().unwrap()
}

#[test]
fn what_makes_no_sense_is_refused_by_name_and_changes_nothing() {
    assert_eq!(whole().check(), Ok(()));
    let refused = refusal(|s| drop(bridge(s).ports.insert(name("p2"), port(2, &[], None))));
    assert_eq!(refused, "bridge br0: Ethernet address 02:00:00:00:00:02: two stations have it; give each its own");
    let refused = refusal(|s| drop(bridge(s).ports.insert(name("p2"), port(1, &[], None))));
    assert!(refused.contains("02:00:00:00:00:01: two stations have it"), "{refused}");
    let refused = refusal(|s| drop(bridge(s).ports.insert(name("p2"), port(3, &["10.0.0.1/24"], None))));
    assert_eq!(refused, "bridge br0: address 10.0.0.1: two stations have it; give each its own");
    let refused = refusal(|s| bridge(s).mac = Mac::BROADCAST);
    assert!(refused.contains("a station's is no group's and not zero"), "{refused}");
    for (address, reason) in [
        ("10.0.0.255/24", "it is the subnet's own or its broadcast address"),
        ("224.0.0.1/24", "a station's is one host's"),
        ("127.0.0.1/8", "a station's is one host's"),
        ("10.0.0.7/0", "a prefix length of 0 leaves no subnet; give that of its subnet"),
    ] {
        let refused = refusal(|s| bridge(s).addresses.extend(address.parse::<IpNet>().ok()));
        assert_eq!(refused, format!("bridge br0: address {address}: {reason}"));
    }
    let refused = refusal(|s| {
        bridge(s).mtu = Mtu::new(1279).unwrap();
        bridge(s).addresses.extend("fd00::1/64".parse::<IpNet>().ok());
    });
    assert_eq!(refused, "bridge br0: mtu 1279: IPv6 needs 1280 at least (RFC 8200 §5)");
}

#[test]
fn devices_and_interfaces_have_names_of_their_own() {
    let refused = refusal(|s| drop(bridge(s).ports.insert(name("br0"), port(3, &[], None))));
    assert_eq!(refused, "bridge br0: port br0: another device has this name; give the port another");
    let refused = refusal(|s| drop(s.bridges.insert(name("p1"), Bridge::new(mac(9), Mtu::ETHERNET))));
    assert!(refused.contains("port p1: another device has this name"), "{refused}");
    let refused = refusal(|s| drop(s.bridges.insert(name("lo"), Bridge::new(mac(9), Mtu::ETHERNET))));
    assert_eq!(refused, "bridge lo: this name: it is the loopback device's");
    let refused = refusal(|s| drop(bridge(s).ports.insert(name("p2"), port(3, &[], Some(inside(1, "eth0"))))));
    assert_eq!(refused, "bridge br0: eth0 in web: another interface has this name there");
    let refused = refusal(|s| {
        s.macvlans.insert(EndpointId::from_bytes([1; 16]), Macvlan::new(name("u0"), mac(4), inside(1, "eth0")));
    });
    assert!(refused.ends_with("eth0 in web: another interface has this name there"), "{refused}");
}

#[test]
fn two_bridges_have_no_subnet_in_common() {
    let refused = refusal(|s| {
        let mut other = Bridge::new(mac(9), Mtu::ETHERNET);
        other.addresses.insert("10.0.0.129/25".parse().unwrap());
        s.bridges.insert(name("br1"), other);
    });
    assert_eq!(refused, "bridge br1: subnet 10.0.0.128/25: it overlaps 10.0.0.0/24 of bridge br0");
    let mut state = whole();
    bridge(&mut state).addresses.insert("10.0.0.129/25".parse().unwrap()); // its own business
    assert_eq!(state.check(), Ok(()));
}

#[test]
fn the_macvlans_of_a_parent_are_stations_of_one_network() {
    let macvlan = |number: u8, mode, parent: &str, address: &str| {
        let inside = inside(number.into(), "lan0");
        let addresses = [address.parse::<IpNet>().unwrap()].into();
        let macvlan = Macvlan { mode, addresses, ..Macvlan::new(name(parent), mac(number), inside) };
        (EndpointId::from_bytes([number; 16]), macvlan)
    };
    let check = |macvlans: [(EndpointId, Macvlan); 2]| State { macvlans: macvlans.into(), ..State::default() }.check();
    let one = macvlan(1, MacvlanMode::Bridge, "u0", "192.0.2.1/24");
    for (other, reason) in [
        (macvlan(2, MacvlanMode::Vepa, "u0", "192.0.2.2/24"), None),
        (macvlan(2, MacvlanMode::Passthru, "u1", "192.0.2.1/24"), None),
        (macvlan(2, MacvlanMode::Vepa, "u0", "192.0.2.1/24"), Some("address 192.0.2.1: another macvlan")),
        (macvlan(2, MacvlanMode::Passthru, "u0", "192.0.2.2/24"), Some("parent u0: a macvlan in mode passthru is its")),
    ] {
        let checked = check([one.clone(), other]);
        match reason {
            None => assert_eq!(checked, Ok(())),
            Some(reason) => assert!(checked.unwrap_err().to_string().contains(reason), "{reason}"),
        }
    }
    let mut twice = macvlan(2, MacvlanMode::Bridge, "u0", "192.0.2.2/24");
    twice.1.mac = one.1.mac;
    assert!(check([one, twice]).unwrap_err().to_string().contains("another macvlan of the parent has it"));
}

#[test]
fn a_mode_is_read_as_it_is_written() {
    for mode in MacvlanMode::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    let refused = "l2".parse::<MacvlanMode>().unwrap_err().to_string();
    assert_eq!(refused, "macvlan mode: l2: there are bridge, vepa, private and passthru");
}

#[test]
fn routes_that_make_no_sense_are_refused_by_name() {
    let by = |via: &str| Route { interface: name("lan0"), via: Some(via.parse().unwrap()) };
    let to = |net: &str, via| Routes { to: [(net.parse().unwrap(), by(via))].into(), ..Routes::default() };
    let from = |own: &str, via| Routes { from: [(own.parse().unwrap(), by(via))].into(), ..Routes::default() };
    for (routes, text) in [
        (to("10.7.0.1/24", "10.0.0.1"), "route 10.7.0.1/24: host bits"),
        (to("10.7.0.0/24", "fd00::1"), "route of 10.7.0.0"),
        (from("fd00::2", "10.0.0.1"), "route of fd00::2"),
    ] {
        let refusal = routes.check().unwrap_err().to_string();
        assert!(refusal.contains(text), "{refusal}");
    }
}
