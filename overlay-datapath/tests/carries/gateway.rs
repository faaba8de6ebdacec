//! What is plugged in as a segment's gateway.

use overlay_core::EndpointId;
use overlay_datapath::{Buffer, Datapath, Fate, Reason, Tables, Wanted};
use overlay_vxlan::names;

use crate::bytes::{End, tcp, udp};
use crate::node::{NOW, VNI, datapath, end, end6, endpoint, mac, send, take, v4, wanted, with};

const GATEWAY: EndpointId = EndpointId::from_bytes([0xfe; 16]);

/// Node 1 with a gateway plugged in, of both families.
fn guided() -> Wanted {
    let mut wanted = with(wanted(1), |sandbox| {
        sandbox.vxlan.segments.values_mut().for_each(|segment| {
            segment.gateways.insert("fd00:9::fe/64".parse().unwrap());
        });
    });
    wanted.gateways.insert(VNI.try_into().unwrap(), GATEWAY);
    wanted
}

fn gateway(port: u16) -> [End; 2] {
    let mac = names::gateway_mac(VNI.try_into().unwrap());
    let v6: std::net::IpAddr = "fd00:9::fe".parse().unwrap();
    [End { mac, address: v4(254), port }, End { mac, address: v6, port }]
}

fn from_gateway(datapath: &mut Datapath, frame: &[u8]) -> Fate {
    let mut batch = [Buffer::new(2_000)];
    batch[0].fill(frame).unwrap();
    datapath.handle_frames(GATEWAY, &mut batch, NOW);
    batch[0].fate()
}

#[test]
fn a_guest_asks_its_gateway_and_is_answered() {
    let mut node = datapath(&guided());
    for (guest, gateway) in [end(1, 5_000), end6(1, 5_000)].into_iter().zip(gateway(53)) {
        for (asks, answers) in [
            (udp(guest, gateway, b"where is db?"), udp(gateway, guest, b"there")),
            (tcp(guest, gateway, true), tcp(gateway, guest, false)),
        ] {
            assert_eq!(send(&mut node, 1, &asks).0, Fate::Port(GATEWAY));
            assert_eq!(from_gateway(&mut node, &answers), Fate::Port(endpoint(1)));
        }
    }
}

#[test]
fn without_one_what_is_for_the_gateway_goes_nowhere() {
    let mut node = datapath(&wanted(1));
    let asks = udp(end(1, 5_000), gateway(53)[0], b"where is db?");
    assert_eq!(send(&mut node, 1, &asks).0, Fate::Drop(Reason::NoRoute));
    assert_eq!(from_gateway(&mut node, &asks), Fate::Drop(Reason::NoPort));
}

#[test]
fn a_gateway_speaks_for_itself_and_to_who_is_here() {
    let mut node = datapath(&guided());
    let [own, own6] = gateway(53);
    for (from, to, reason) in [
        (End { address: v4(2), ..own }, end(1, 9), Reason::Spoofed),
        (End { mac: mac(2), ..own }, end(1, 9), Reason::Spoofed),
        (End { address: end6(2, 9).address, ..own6 }, end6(1, 9), Reason::Spoofed),
        (own, end(3, 9), Reason::NoStation),  // at the other node
        (own, end(77, 9), Reason::NoStation), // nowhere
    ] {
        assert_eq!(from_gateway(&mut node, &udp(from, to, b"")), Fate::Drop(reason), "{from:?} to {to:?}");
    }
    assert_eq!(from_gateway(&mut node, &udp(own, end(1, 9), &[0; 1_451])), Fate::Drop(Reason::TooBig));
}

#[test]
fn a_gateway_asks_where_a_guest_is_and_nobody_reaches_it_from_elsewhere() {
    let mut node = datapath(&guided());
    let own = gateway(53)[0];
    let asks = [
        &[0xff; 6][..],
        &own.mac.octets(),
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &own.mac.octets(),
        &[10, 0, 9, 254, 0, 0, 0, 0, 0, 0, 10, 0, 9, 1],
    ]
    .concat();
    let mut batch = [Buffer::new(2_000)];
    batch[0].fill(&asks).unwrap();
    node.handle_frames(GATEWAY, &mut batch, NOW);
    assert_eq!(batch[0].fate(), Fate::Port(GATEWAY));
    assert_eq!(batch[0].packet()[22..32], [&mac(1).octets()[..], &[10, 0, 9, 1]].concat());

    // Another node's endpoint that says the gateway's Ethernet address.
    let mut other = datapath(&wanted(2));
    let mut frame = udp(end(3, 9), end(1, 53), b"");
    let (_, mut packet) = send(&mut other, 3, &frame);
    frame[..6].copy_from_slice(&own.mac.octets());
    let at = packet.len() - frame.len();
    packet[at..].copy_from_slice(&frame);
    assert_eq!(take(&mut node, &packet).0, Fate::Drop(Reason::NoStation));
}

#[test]
fn a_gateway_that_makes_no_sense_is_refused_by_name() {
    let refused = |change: fn(&mut Wanted)| {
        let mut wanted = guided();
        change(&mut wanted);
        Tables::new(&wanted).unwrap_err().to_string()
    };
    let of_nothing = refused(|wanted| {
        wanted.gateways.insert(77.try_into().unwrap(), EndpointId::from_bytes([1; 16]));
    });
    assert!(of_nothing.contains("no such segment"), "{of_nothing}");
    let of_network = refused(|wanted| {
        wanted.gateways.insert(VNI.try_into().unwrap(), endpoint(1));
    });
    assert!(of_network.contains("an endpoint of a network"), "{of_network}");
}
