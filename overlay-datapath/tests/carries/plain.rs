//! Networks in the clear.

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use overlay_core::{Mac, Mtu, NetworkId};
use overlay_datapath::{Buffer, Fate, Hop, Reason, Sandbox};
use overlay_vxlan::{LocalPort, PortEnd, Segment, Vtep, names};

use crate::bytes::{End, see, tcp, udp};
use crate::node::{NOW, VNI, cross, datapath, end, end6, endpoint, mac, nodes, send, take, v4, v6, vtep, wanted, with};

#[test]
fn a_frame_comes_to_the_other_node_as_it_was_sent() {
    let [mut one, mut two] = nodes();
    for (from, to) in [(end(1, 5_000), end(3, 53)), (end6(1, 5_000), end6(3, 53))] {
        let frame = udp(from, to, b"hello");
        assert_eq!(cross((&mut one, 1), &mut two, &frame), Ok((endpoint(3), frame)));
    }
    assert_eq!((one.counts().underlay, two.counts().ports), (2, 2));
}

#[test]
fn what_leaves_a_node_is_vxlan_to_a_stranger_too() {
    let [mut one, _] = nodes();
    let frame = udp(end(1, 5_000), end(3, 53), b"hello");
    let (fate, packet) = send(&mut one, 1, &frame);
    assert_eq!(fate, Fate::Underlay { from: vtep(1), to: vtep(2) });
    let read = PacketHeaders::from_ip_slice(&packet).unwrap();
    let (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(outer))) = (read.net, read.transport) else {
        panic!("no UDP in IPv4");
    };
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    assert_eq!((outer.destination_port, usize::from(outer.length)), (4_789, 8 + 8 + frame.len()));
    assert!(outer.source_port >= 49_152);
    assert_eq!(read.payload.slice(), [&[8, 0, 0, 0, 0, 0x10, 0, 0], &frame[..]].concat());
}

#[test]
fn endpoints_of_one_node_reach_each_other_without_the_underlay() {
    let [mut one, _] = nodes();
    let frame = udp(end(1, 5_000), end(2, 53), b"hello");
    assert_eq!(send(&mut one, 1, &frame), (Fate::Port(endpoint(2)), frame));
}

#[test]
fn who_pretends_to_be_another_is_not_heard() {
    let [mut one, _] = nodes();
    let other_address = End { mac: mac(1), ..end(2, 5_000) };
    let other_station = End { mac: mac(2), ..end(1, 5_000) };
    for from in [other_address, other_station] {
        assert_eq!(send(&mut one, 1, &udp(from, end(3, 53), b"")).0, Fate::Drop(Reason::Spoofed));
    }
    let offer = udp(end(1, 67), end(3, 68), b"an address for you");
    assert_eq!(send(&mut one, 1, &offer).0, Fate::Drop(Reason::Spoofed));
    assert_eq!(one.counts().dropped(Reason::Spoofed), 3);
}

#[test]
fn who_is_where_is_answered_on_the_node() {
    let [mut one, _] = nodes();
    let gateway = names::gateway_mac(VNI.try_into().unwrap());
    for (target, at) in [(2, mac(2)), (3, mac(3)), (254, gateway)] {
        let (fate, answer) = send(&mut one, 1, &arp(mac(1), [10, 0, 9, 1], [10, 0, 9, target]));
        assert_eq!(fate, Fate::Port(endpoint(1)));
        let expected = [
            &mac(1).octets()[..],
            &at.octets(),
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
            &at.octets(),
            &[10, 0, 9, target],
            &mac(1).octets(),
            &[10, 0, 9, 1],
        ];
        assert_eq!(answer, expected.concat());
    }
    for (target, reason) in [(77, Reason::NoRoute), (1, Reason::Settled)] {
        let asked = send(&mut one, 1, &arp(mac(1), [10, 0, 9, 1], [10, 0, 9, target]));
        assert_eq!(asked.0, Fate::Drop(reason));
    }
}

#[test]
fn neighbours_are_solicited_on_the_node() {
    let [mut one, _] = nodes();
    let (fate, answer) = send(&mut one, 1, &solicitation(1, 3));
    assert_eq!(fate, Fate::Port(endpoint(1)));
    let seen = see(&answer);
    assert_eq!((seen.source, seen.destination, seen.from.0, seen.to.0, seen.ttl), (mac(3), mac(1), v6(3), v6(1), 255));
    assert_eq!(answer[54], 136);
    assert_eq!(answer[80..], mac(3).octets());
    assert_eq!(send(&mut one, 1, &solicitation(1, 77)).0, Fate::Drop(Reason::NoRoute));
}

#[test]
fn a_sender_is_told_what_fits() {
    let [mut one, _] = nodes();
    for (from, to, kind) in [(end(1, 5_000), end(3, 53), 3), (end6(1, 5_000), end6(3, 53), 2)] {
        let mut frame = udp(from, to, &[0; 1_450]);
        if from.address.is_ipv4() {
            frame[20] |= 0x40; // DF
        }
        let (fate, answer) = send(&mut one, 1, &frame);
        assert_eq!(fate, Fate::Port(endpoint(1)));
        if kind == 3 {
            let packet = PacketHeaders::from_ethernet_slice(&answer).unwrap();
            let Some(TransportHeader::Icmpv4(icmp)) = packet.transport else { panic!("no ICMP") };
            assert_eq!(icmp.icmp_type.header_len(), 8);
            assert_eq!((&answer[34..36], &answer[40..42]), (&[3, 4][..], &1_450_u16.to_be_bytes()[..]));
            assert_eq!(see(&answer).from.0, v4(254));
            assert!(answer.len() <= 14 + 576);
        } else {
            assert_eq!((answer[54], &answer[58..62]), (2, &1_450_u32.to_be_bytes()[..]));
            assert_eq!((see(&answer).from.0, see(&answer).to.0), (v6(3), v6(1)));
            assert!(answer.len() <= 14 + 1_280);
        }
    }
    let fragmentable = udp(end(1, 5_000), end(3, 53), &[0; 1_450]);
    let mut fragmentable = fragmentable;
    fragmentable[20] &= !0x40;
    assert_eq!(send(&mut one, 1, &fragmentable).0, Fate::Drop(Reason::TooBig));
}

#[test]
fn segments_are_asked_for_no_larger_than_fits() {
    let [mut one, mut two] = nodes();
    for (from, to, most) in [(end(1, 5_000), end(3, 80), 1_410_u16), (end6(1, 5_000), end6(3, 80), 1_390)] {
        let (_, frame) = cross((&mut one, 1), &mut two, &tcp(from, to, true)).unwrap();
        let options = frame.len() - 4;
        assert_eq!(frame[options..], [&[2, 4], &most.to_be_bytes()[..]].concat());
        see(&frame); // its checksum is right
    }
}

#[test]
fn a_gateway_answers_an_echo() {
    let [mut one, _] = nodes();
    let gateway = names::gateway_mac(VNI.try_into().unwrap());
    let mut frame = Vec::new();
    let asks = etherparse::PacketBuilder::ethernet2(mac(1).octets(), gateway.octets());
    let asks = asks.ipv4([10, 0, 9, 1], [10, 0, 9, 254], 64).icmpv4_echo_request(7, 1);
    asks.write(&mut frame, b"are you there?").unwrap();
    let (fate, answer) = send(&mut one, 1, &frame);
    assert_eq!(fate, Fate::Port(endpoint(1)));
    let seen = see(&answer);
    assert_eq!((answer[34], seen.source, seen.from.0, seen.to.0), (0, gateway, v4(254), v4(1)));
}

#[test]
fn nothing_is_flooded_but_where_a_network_says_so() {
    let [mut one, _] = nodes();
    let frame = udp(end(1, 5_000), End { mac: Mac::BROADCAST, address: [10, 0, 9, 255].into(), port: 9 }, b"all");
    assert_eq!(send(&mut one, 1, &frame).0, Fate::Drop(Reason::Unflooded));

    let floods = |node: u8| {
        with(wanted(node), |sandbox| {
            sandbox.vxlan.segments.values_mut().for_each(|segment| {
                segment.flood.insert(vtep(3 - node));
            });
        })
    };
    let (mut one, mut two) = (datapath(&floods(1)), datapath(&floods(2)));
    assert_eq!(send(&mut one, 1, &frame).0, Fate::Copied);
    let (mut buffer, mut fates) = (Buffer::new(2_000), Vec::new());
    while one.poll_transmit(&mut buffer, NOW) {
        fates.push(buffer.fate());
        if let Fate::Underlay { .. } = buffer.fate() {
            assert_eq!(take(&mut two, buffer.packet()).0, Fate::Copied);
        }
    }
    assert_eq!(fates, [Fate::Port(endpoint(2)), Fate::Underlay { from: vtep(1), to: vtep(2) }]);
    let mut there = Vec::new();
    while two.poll_transmit(&mut buffer, NOW) {
        assert_eq!(buffer.packet(), frame);
        there.push(buffer.fate());
    }
    assert_eq!(there, [Fate::Port(endpoint(4)), Fate::Port(endpoint(3))], "and to no node");
}

#[test]
fn what_is_not_for_this_node_is_not_taken() {
    let [mut one, mut two] = nodes();
    let (_, packet) = send(&mut one, 1, &udp(end(1, 5_000), end(3, 53), b""));
    let mut reasons = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = packet.clone();
        change(&mut packet);
        mend(&mut packet);
        take(&mut two, &packet).0
    };
    assert_eq!(reasons(&|packet| packet[19] = 9), Fate::Drop(Reason::NotOurs));
    assert_eq!(reasons(&|packet| packet[33] = 9), Fate::Drop(Reason::NoSegment));
    assert_eq!(reasons(&|packet| packet[23] = 9), Fate::Drop(Reason::NoSegment), "another port");
    assert_eq!(reasons(&|packet| packet[36 + 5] = 9), Fate::Drop(Reason::NoStation));
    assert_eq!(reasons(&|packet| packet.truncate(40)), Fate::Drop(Reason::Malformed));
    assert_eq!(reasons(&|_| {}), Fate::Port(endpoint(3)));
}

#[test]
fn only_nodes_are_heard_where_the_host_says_who_they_are() {
    let [mut one, _] = nodes();
    let (_, packet) = send(&mut one, 1, &udp(end(1, 5_000), end(3, 53), b""));
    for (member, heard) in [(vtep(1), true), (vtep(7), false)] {
        let mut wanted = wanted(2);
        let tunnel = overlay_firewall::Tunnel { members: [member].into(), encrypted: [].into() };
        wanted.host.tunnels.insert(overlay_core::Port::VXLAN, tunnel);
        let fate = take(&mut datapath(&wanted), &packet).0;
        assert_eq!(fate, if heard { Fate::Port(endpoint(3)) } else { Fate::Drop(Reason::Stranger) });
    }
}

#[test]
fn a_packet_comes_where_it_would_alone_whatever_came_before_it() {
    let mut wanted = wanted(2);
    let tunnel = overlay_firewall::Tunnel { members: [vtep(1)].into(), encrypted: [].into() };
    wanted.host.tunnels.insert(overlay_core::Port::VXLAN, tunnel);
    let (vni, mut other) = ((VNI + 1).try_into().unwrap(), Segment::new(Vtep::new(vtep(7)), Mtu::new(1_450).unwrap()));
    let (interface, addresses) = ("tap13".parse().unwrap(), ["10.0.9.3/24".parse().unwrap()].into());
    other.ports.insert(endpoint(13), LocalPort { mac: mac(3), addresses, end: PortEnd::Tap { interface } });
    let mut sandbox = Sandbox::default();
    sandbox.vxlan.segments.insert(vni, other);
    wanted.networks.insert(NetworkId::from_bytes([8; 16]), sandbox);

    let (_, packet) = send(&mut nodes()[0], 1, &udp(end(1, 5_000), end(3, 53), b""));
    let made = |source: u8, destination: u8, vni: u8| {
        let mut packet = packet.clone();
        (packet[15], packet[19], packet[34]) = (source, destination, vni);
        mend(&mut packet);
        packet
    };
    let kinds: Vec<Vec<u8>> = [1, 8]
        .iter()
        .flat_map(|source| [2, 7, 9].map(|to| [0, 1, 2].map(|vni| made(*source, to, vni))))
        .flatten()
        .collect();
    let alone: Vec<_> = kinds.iter().map(|packet| take(&mut datapath(&wanted), packet)).collect();
    let fates: Vec<Fate> = alone.iter().map(|(fate, _)| *fate).collect();
    let drop = Fate::Drop;
    assert_eq!(fates[..3], [Fate::Port(endpoint(3)), drop(Reason::NoSegment), drop(Reason::NoSegment)]);
    assert_eq!(fates[3..6], [drop(Reason::NoSegment), Fate::Port(endpoint(13)), drop(Reason::NoSegment)]);
    assert_eq!(
        (fates[6], fates[9], fates[13]),
        (drop(Reason::NotOurs), drop(Reason::Stranger), drop(Reason::Stranger))
    );
    let mut together = datapath(&wanted);
    for first in 0..kinds.len() {
        for (at, second) in kinds.iter().enumerate() {
            let mut batch = vec![Buffer::new(2_000); 3];
            let packets = [&kinds[first], second, &kinds[first]];
            batch.iter_mut().zip(packets).for_each(|(buffer, packet)| buffer.fill(packet).unwrap());
            together.handle_packets(&mut batch, NOW);
            let met: Vec<Fate> = batch.iter().map(Buffer::fate).collect();
            assert_eq!(met, [fates[first], fates[at], fates[first]], "{first} {at}");
        }
    }
}

#[test]
fn a_trace_ends_where_the_frame_does() {
    let [mut one, _] = nodes();
    let stranger = End { mac: mac(77), ..end(77, 9) };
    for to in [end(2, 9), end(3, 9), stranger, end6(3, 9)] {
        let from = if to.address.is_ipv4() { end(1, 9) } else { end6(1, 9) };
        let frame = udp(from, to, b"x");
        let trace = one.trace(endpoint(1), &frame);
        let end = match send(&mut one, 1, &frame).0 {
            Fate::Port(endpoint) => Hop::Port(endpoint),
            Fate::Underlay { to, .. } => Hop::Node { vtep: to, sealed: false },
            Fate::Drop(reason) => Hop::Dropped(reason),
            other => panic!("{other:?}"),
        };
        assert_eq!(trace.end(), Some(&end), "{trace}");
    }
    let trace = one.trace(endpoint(1), &udp(end(1, 9), end(3, 9), b"x"));
    assert_eq!(trace.to_string(), "accept by otherwise\nto node 192.0.2.2\n");
}

/// Makes the checksum of a packet's header right.
fn mend(packet: &mut [u8]) {
    packet[10..12].copy_from_slice(&[0; 2]);
    let sum = packet[..20].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn arp(sender: Mac, address: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let asks =
        [&Mac::BROADCAST.octets()[..], &sender.octets(), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &sender.octets(), &address];
    [&asks.concat()[..], &[0; 6], &target].concat()
}

/// A neighbour solicitation (RFC 4861 §4.3).
fn solicitation(from: u8, target: u8) -> Vec<u8> {
    let octets = |number| match v6(number) {
        std::net::IpAddr::V6(address) => address.octets(),
        std::net::IpAddr::V4(_) => panic!("IPv6"),
    };
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, target];
    let body = [&octets(target)[..], &[1, 1], &mac(from).octets()].concat();
    let mut frame = Vec::new();
    let step = etherparse::PacketBuilder::ethernet2(mac(from).octets(), [0x33, 0x33, 0xff, 0, 0, target]);
    let step = step.ipv6(octets(from), group, 255).icmpv6_raw(135, 0, [0; 4]);
    step.write(&mut frame, &body).unwrap();
    frame
}

/// A network of two segments on one node: 1 and 2 in the first, 11 in the second, each with a gateway.
fn routed() -> overlay_datapath::Wanted {
    with(wanted(1), |sandbox| {
        let mut other = Segment::new(Vtep::new(vtep(1)), 1_450_u32.try_into().unwrap());
        other.gateways.insert("10.0.8.254/24".parse().unwrap());
        let there = overlay_vxlan::Peer { vtep: vtep(2), addresses: [[10, 0, 8, 11].into()].into() };
        other.peers.insert(mac(11), there);
        sandbox.vxlan.segments.insert((VNI + 1).try_into().unwrap(), other);
    })
}

#[test]
fn packets_go_from_one_segment_to_another_by_the_gateway() {
    let mut one = datapath(&routed());
    let gateway = names::gateway_mac(VNI.try_into().unwrap());
    let to = End { mac: gateway, address: [10, 0, 8, 11].into(), port: 53 };
    let (fate, packet) = send(&mut one, 1, &udp(end(1, 5_000), to, b"hello"));
    assert_eq!(fate, Fate::Underlay { from: vtep(1), to: vtep(2) });
    let seen = see(&packet[36..]);
    let from = names::gateway_mac((VNI + 1).try_into().unwrap());
    assert_eq!((seen.source, seen.destination, seen.ttl), (from, mac(11), 63));
    assert_eq!(packet[32..35], [0, 0x10, 1], "the other segment's number");

    let mut last = udp(end(1, 5_000), to, b"hello");
    last[22] = 1;
    last[24..26].copy_from_slice(&[0; 2]);
    let (fate, answer) = send(&mut one, 1, &last);
    assert_eq!((fate, &answer[34..36]), (Fate::Port(endpoint(1)), &[11, 0][..]), "time exceeded");
    assert_eq!(see(&answer).from.0, v4(254));

    let own_link = End { mac: gateway, ..end(2, 53) };
    assert_eq!(send(&mut one, 1, &udp(end(1, 5_000), own_link, b"")).0, Fate::Drop(Reason::NoRoute));
}
