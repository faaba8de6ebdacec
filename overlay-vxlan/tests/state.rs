//! The area value keeps the laws, and what makes no sense is refused by name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use overlay_core::testing::{Dice, laws};
use overlay_core::{EndpointId, IfName, Mac, Memory, Mtu, NsId, NsKey, ReconcileError, State as _, Vni, reconcile};
use overlay_vxlan::testing::{segment, state, vtep};
use overlay_vxlan::{IpNet, LocalPort, Peer, PortEnd, Segment, State, Vtep};
use proptest::prelude::*;

fn meddle(state: &mut State, dice: &mut Dice) {
    match state.segments.values_mut().next() {
        Some(segment) if dice.one_in(2) => segment.peers.clear(),
        Some(segment) => segment.ports.clear(),
        None => {}
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
    fn generated_segments_pass_the_check(segment in segment()) {
        let state = State { segments: [(Vni::MIN, segment)].into() };
        prop_assert_eq!(state.check(), Ok(()));
    }

    #[test]
    fn a_dry_run_tells_any_two_vteps_apart(from in vtep(), to in vtep()) {
        prop_assert_eq!(from.to_string() == to.to_string(), from == to);
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

const A: Mac = Mac::from_ipv4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn plain() -> Segment {
    Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1450).unwrap())
}

fn peer(vtep: impl Into<IpAddr>, addresses: &[IpAddr]) -> Peer {
    Peer { vtep: vtep.into(), addresses: addresses.iter().copied().collect() }
}

fn refusal(change: impl FnOnce(&mut Segment)) -> String {
    let mut segment = plain();
    change(&mut segment);
    let memory = Memory::default();
    let result = reconcile(&mut memory.clone(), &State { segments: [(Vni::MIN, segment)].into() });
    assert_eq!(memory.state(), State::default());
    match result {
        Err(ReconcileError::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_name_and_changes_nothing() {
    let v6: IpAddr = "2001:db8::2".parse().unwrap();
    let there: IpAddr = [192, 0, 2, 2].into();
    let taken: IpAddr = [10, 0, 0, 2].into();
    let port =
        |mac| LocalPort { mac, addresses: [].into(), end: PortEnd::Tap { interface: IfName::new("t").unwrap() } };

    let refused = refusal(|s| s.vtep.local = [0, 0, 0, 0].into());
    assert_eq!(refused, "segment 1: local address 0.0.0.0: a VTEP is one host's address");
    let refused = refusal(|s| drop(s.peers.insert(A, peer(v6, &[]))));
    assert_eq!(refused, "segment 1: VTEP 2001:db8::2: all VTEPs of a segment have the family of the local address");
    let refused = refusal(|s| s.flood.extend([IpAddr::from([192, 0, 2, 1])]));
    assert!(refused.contains("the node's own address"), "{refused}");
    let refused = refusal(|s| drop(s.peers.insert(A, peer([224, 0, 0, 1], &[]))));
    assert!(refused.contains("VTEP 224.0.0.1: a VTEP is one host's address"), "{refused}");
    let refused = refusal(|s| drop(s.peers.insert(Mac::BROADCAST, peer(there, &[]))));
    assert!(refused.contains("Ethernet address ff:ff:ff:ff:ff:ff"), "{refused}");
    let refused = refusal(|s| {
        s.peers.insert(A, peer(there, &[]));
        s.ports.insert(EndpointId::from_bytes([1; 16]), port(A));
    });
    assert!(refused.contains("02:42:0a:00:00:02: two endpoints have it"), "{refused}");
    let refused = refusal(|s| {
        s.gateways.insert("10.0.0.2/24".parse().unwrap());
        s.peers.insert(A, peer(there, &[taken]));
    });
    assert_eq!(refused, "segment 1: address 10.0.0.2: two endpoints have it; give each its own");
    let refused = refusal(|s| {
        s.mtu = Mtu::new(1279).unwrap();
        s.peers.insert(A, peer(there, &["fd00::2".parse().unwrap()]));
    });
    assert!(refused.contains("IPv6 needs 1280"), "{refused}");
}

#[test]
fn a_loopback_vtep_has_loopback_peers_only() {
    let local = |s: &mut Segment, peer_at: [u8; 4]| {
        s.vtep.local = [127, 0, 0, 1].into();
        s.peers.insert(A, peer(peer_at, &[]));
    };
    let refused = refusal(|s| local(s, [192, 0, 2, 2]));
    assert_eq!(refused, "segment 1: VTEP 192.0.2.2: no datagram goes there from a loopback address");
    let mut segment = plain();
    local(&mut segment, [127, 0, 0, 2]);
    assert_eq!(State { segments: [(Vni::MIN, segment)].into() }.check(), Ok(()));
}

#[test]
fn addresses_that_name_no_host_on_a_wire_are_refused() {
    let mapped: IpAddr = "::ffff:192.0.2.2".parse().unwrap();
    let there: IpAddr = [192, 0, 2, 2].into();
    let refused = refusal(|s| s.vtep.local = mapped);
    assert_eq!(refused, "segment 1: local address ::ffff:192.0.2.2: a VTEP is one host's address");
    let refused = refusal(|s| drop(s.peers.insert(A, peer(there, &["::ffff:10.0.0.2".parse().unwrap()]))));
    assert_eq!(refused, "segment 1: address ::ffff:10.0.0.2: an endpoint's is one host's");
    for loopback in ["127.0.0.9", "::1"] {
        let refused = refusal(|s| drop(s.peers.insert(A, peer(there, &[loopback.parse().unwrap()]))));
        assert_eq!(refused, format!("segment 1: address {loopback}: an endpoint's is one host's"));
    }
    // Linux makes no IPv4 route of it, so nothing would ever be sent, and of IPv6's one to everywhere.
    for everywhere in ["10.0.0.1/0", "fd00::1/0"] {
        let refused = refusal(|s| s.gateways.extend(everywhere.parse::<IpNet>().ok()));
        assert_eq!(
            refused,
            format!("segment 1: address {everywhere}: a prefix length of 0 leaves no subnet; give that of its subnet")
        );
    }
    for gateway in ["10.0.0.0/24", "10.0.0.255/24", "10.0.0.2/30", "10.0.0.1/31", "10.0.0.0/32", "fd00::/64"] {
        let mut segment = plain();
        segment.gateways.insert(gateway.parse().unwrap());
        let right = !matches!(gateway, "10.0.0.0/24" | "10.0.0.255/24");
        assert_eq!(State { segments: [(Vni::MIN, segment)].into() }.check().is_ok(), right, "{gateway}");
    }
}

#[test]
fn a_vtep_that_is_this_node_or_needs_an_interface_is_refused() {
    let refused = refusal(|s| s.flood.extend([IpAddr::from([127, 0, 0, 1])]));
    assert_eq!(refused, "segment 1: VTEP 127.0.0.1: this is the node's own address, so the endpoint belongs in ports");
    let local: IpAddr = "fe80::1".parse().unwrap();
    let refused = refusal(|s| s.vtep.local = local);
    assert_eq!(
        refused,
        "segment 1: local address fe80::1: a link-local address needs the interface it is at, in device"
    );
    let there: IpAddr = "fe80::2".parse().unwrap();
    let refused = refusal(|s| {
        s.vtep.local = "2001:db8::1".parse().unwrap();
        s.flood.insert(there);
    });
    assert!(refused.starts_with("segment 1: VTEP fe80::2: a link-local address needs"), "{refused}");

    let mut segment = plain();
    segment.vtep = Vtep { device: Some(IfName::new("eth0").unwrap()), ..Vtep::new(local) };
    segment.flood.insert(there);
    assert_eq!(State { segments: [(Vni::MIN, segment)].into() }.check(), Ok(()));
    let mut tried_out_on_one_machine = Segment::new(Vtep::new([127, 0, 0, 1].into()), Mtu::ETHERNET);
    tried_out_on_one_machine.flood.insert([127, 0, 0, 2].into());
    assert_eq!(State { segments: [(Vni::MIN, tried_out_on_one_machine)].into() }.check(), Ok(()));
}

#[test]
fn an_mtu_that_no_outer_packet_can_carry_is_refused() {
    for (local, most) in [("192.0.2.1", 65_485), ("2001:db8::1", 65_465)] {
        let state = |mtu| State {
            segments: [(Vni::MIN, Segment::new(Vtep::new(local.parse().unwrap()), Mtu::new(mtu).unwrap()))].into(),
        };
        assert_eq!(state(most).check(), Ok(()));
        let refused = state(most + 1).check().unwrap_err().to_string();
        assert_eq!(refused, format!("segment 1: mtu {}: with the outer headers no IP packet carries that", most + 1));
    }
}

#[test]
fn two_endpoints_cannot_be_plugged_in_as_one_interface() {
    let namespace = |name: &str, inode| NsKey { name: name.parse().unwrap(), id: NsId { device: 4, inode } };
    let interface = |name| IfName::new(name).unwrap();
    let tap = |name| PortEnd::Tap { interface: interface(name) };
    let veth = |container, inode, name| PortEnd::Namespace {
        namespace: namespace(container, inode),
        interface: interface(name),
    };
    let port = |number, end| {
        let port = LocalPort { mac: Mac::from_ipv4([10, 0, 0, number].into()), addresses: [].into(), end };
        (EndpointId::from_bytes([number; 16]), port)
    };
    let state = |ends: [PortEnd; 2], vnis: [u32; 2]| {
        let mut state = State::default();
        for ((end, vni), number) in ends.into_iter().zip(vnis).zip(1..) {
            let segment = state.segments.entry(Vni::new(vni).unwrap()).or_insert_with(plain);
            segment.ports.extend([port(number, end)]);
        }
        state
    };
    for (vnis, segment) in [([1, 1], 1), ([1, 2], 2)] {
        let refused = state([tap("t"), tap("t")], vnis).check().unwrap_err().to_string();
        assert_eq!(refused, format!("segment {segment}: tap t: another endpoint is plugged in there"));
        let renamed = state([veth("web", 7, "eth0"), veth("web-1", 7, "eth0")], vnis).check().unwrap_err().to_string();
        assert_eq!(renamed, format!("segment {segment}: eth0 in web-1: another endpoint is plugged in there"));
        for ends in [
            [tap("t"), tap("u")],
            [veth("web", 7, "eth0"), veth("web", 8, "eth0")],
            [tap("eth0"), veth("web", 7, "eth0")],
        ] {
            assert_eq!(state(ends, vnis).check(), Ok(()));
        }
    }
}

/// One endpoint, here and elsewhere.
fn moving() -> [Segment; 2] {
    let (mut here, mut gone) = (plain(), plain());
    let end = PortEnd::Tap { interface: IfName::new("t").unwrap() };
    here.ports.insert(EndpointId::from_bytes([1; 16]), LocalPort { mac: A, addresses: [].into(), end });
    gone.peers.insert(A, peer([192, 0, 2, 2], &[]));
    [here, gone]
}

fn one(segment: &Segment) -> State {
    State { segments: [(Vni::MIN, segment.clone())].into() }
}

#[test]
fn an_endpoint_moves_in_one_step() {
    let [here, gone] = moving();
    let steps = |from, to| one(from).plan(&one(to)).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        steps(&here, &gone),
        ["segment 1: unplug 02:42:0a:00:00:02, a peer at 192.0.2.2 from now on with no address"]
    );
    assert_eq!(
        steps(&gone, &here),
        ["segment 1: plug in 0250za67mbtg, tap t, as 02:42:0a:00:00:02, a peer no longer, with no address"]
    );
}

#[test]
fn a_station_that_somebody_put_both_here_and_elsewhere_is_where_it_should_be_after_the_next_plan() {
    let [here, gone] = moving();
    let both = Segment { peers: gone.peers.clone(), ..here.clone() };
    for wanted in [&here, &gone, &plain()] {
        let mut state = one(&both);
        for step in state.plan(&one(wanted)) {
            state.apply(&step);
        }
        assert_eq!(state, one(wanted));
    }
}

proptest! {
    #[test]
    fn whatever_moves_no_station_is_both_here_and_elsewhere_between_two_steps(mut from in state(), to in state()) {
        for step in from.plan(&to) {
            from.apply(&step);
            for (vni, segment) in &from.segments {
                let twice = segment.ports.values().find(|port| segment.peers.contains_key(&port.mac));
                prop_assert!(twice.is_none(), "segment {}, after {}: {:?}", vni, step, twice);
            }
        }
        prop_assert_eq!(from, to);
    }
}
