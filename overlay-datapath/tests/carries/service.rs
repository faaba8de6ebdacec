//! Virtual services, balanced at the client's port.

use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{EndpointId, Port, Protocol};
use overlay_datapath::{Buffer, Fate, Hop, Tables, Wanted};
use overlay_lb::{Replica, Service, State};
use overlay_vxlan::names;

use crate::bytes::{End, see, tcp, udp};
use crate::node::{NOW, VNI, cross, datapath, end, endpoint, mac, send, take, v4, wanted};

fn vip() -> IpAddr {
    v4(100)
}

/// As a client sends to the VIP: to the gateway's Ethernet address, where the node says that it is.
fn at_vip(port: u16) -> End {
    End { mac: names::gateway_mac(VNI.try_into().unwrap()), address: vip(), port }
}

/// Endpoint 1 reaches a service at its VIP, port 80, with replicas at port 8080.
fn reaches(replicas: &[u8]) -> Wanted {
    let ports = [80, 8_080].map(|port| Port::new(port).unwrap());
    let mut service = Service::new([vip()]);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        service = service.port(protocol, ports[0], ports[1]);
    }
    service.replicas = replicas.iter().map(|number| (endpoint(*number), Replica::new([v4(*number)]))).collect();
    let state = State { services: [("web".parse().unwrap(), service)].into_iter().collect(), ..State::default() };
    Wanted { services: [(endpoint(1), Arc::new(state))].into(), ..wanted(1) }
}

#[test]
fn a_client_talks_to_the_vip_and_a_replica_sees_the_client() {
    let (mut one, mut two) = (datapath(&reaches(&[3])), datapath(&wanted(2)));
    for frame in [udp as fn(End, End, &[u8]) -> Vec<u8>, |from, to, _| tcp(from, to, true)] {
        let asks = frame(end(1, 5_000), at_vip(80), b"hello");
        let (at, seen) = cross((&mut one, 1), &mut two, &asks).unwrap();
        let seen = see(&seen);
        assert_eq!((at, seen.from, seen.to, seen.destination), (endpoint(3), (v4(1), 5_000), (v4(3), 8_080), mac(3)));
        assert_eq!(seen.ttl, 64, "a service is no router");

        let answers = frame(end(3, 8_080), end(1, 5_000), b"hello yourself");
        let (at, seen) = cross((&mut two, 3), &mut one, &answers).unwrap();
        assert_eq!((at, see(&seen).from, see(&seen).to), (endpoint(1), (vip(), 80), (v4(1), 5_000)));
    }
    assert_eq!(one.balancer(endpoint(1)).unwrap().flows().len(), 2);
}

#[test]
fn replicas_here_and_elsewhere_share_the_flows() {
    let mut one = datapath(&reaches(&[2, 3]));
    let mut fates = [0; 2];
    for port in 0..10 {
        match send(&mut one, 1, &udp(end(1, 5_000 + port), at_vip(80), b"")).0 {
            Fate::Port(to) if to == endpoint(2) => fates[0] += 1,
            Fate::Underlay { .. } => fates[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fates, [5, 5]);
}

#[test]
fn a_replica_that_goes_is_left_and_both_ends_are_told() {
    let (mut one, mut two) = (datapath(&reaches(&[3])), datapath(&wanted(2)));
    let asks = tcp(end(1, 5_000), at_vip(80), true);
    cross((&mut one, 1), &mut two, &asks).unwrap();
    cross((&mut two, 3), &mut one, &tcp(end(3, 8_080), end(1, 5_000), false)).unwrap();
    cross((&mut one, 1), &mut two, &tcp(end(1, 5_000), at_vip(80), false)).unwrap();

    one.handle_tables(Arc::new(Tables::new(&reaches(&[2])).unwrap()), NOW);
    assert_eq!(one.poll_timeout(), Some(NOW), "flows are looked at soon");
    one.handle_timeout(NOW);
    let (mut buffer, mut told) = (Buffer::new(2_000), Vec::<EndpointId>::new());
    while one.poll_transmit(&mut buffer, NOW) {
        match buffer.fate() {
            Fate::Port(to) => told.push(to),
            Fate::Underlay { .. } => match take(&mut two, buffer.packet()).0 {
                Fate::Port(to) => told.push(to),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    told.sort_unstable();
    assert_eq!(told, [endpoint(1), endpoint(3)]);
    assert_eq!(send(&mut one, 1, &udp(end(1, 6_000), at_vip(80), b"")).0, Fate::Port(endpoint(2)));
}

#[test]
fn what_nobody_serves_is_refused_at_once() {
    let mut one = datapath(&reaches(&[3]));
    let (fate, reset) = send(&mut one, 1, &tcp(end(1, 5_000), at_vip(81), true));
    assert_eq!(fate, Fate::Port(endpoint(1)));
    let seen = see(&reset);
    assert_eq!((seen.from, seen.to, seen.destination), ((vip(), 81), (v4(1), 5_000), mac(1)));
}

#[test]
fn a_trace_names_the_service() {
    let one = datapath(&reaches(&[3]));
    let trace = one.trace(endpoint(1), &udp(end(1, 5_000), at_vip(80), b""));
    assert_eq!(trace.end(), Some(&Hop::Service("web".parse().unwrap())));
}
