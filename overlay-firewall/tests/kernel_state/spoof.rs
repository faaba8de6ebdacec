//! Whatever comes in at a pinned port, by every header there is: frame by frame, written by hand.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Mac, reconcile};
use overlay_firewall::{BridgePort, Pin, State};
use overlay_kernel::testing::judge;

use crate::parity::{World, name};

const OWN: [u8; 6] = [0x02, 0x42, 10, 0, 0, 2];
const OTHER: [u8; 6] = [0x02, 0x42, 10, 0, 0, 3];
const OWN4: [u8; 4] = [10, 0, 0, 2];
const OTHER4: [u8; 4] = [10, 0, 0, 9];
const OWN6: [u8; 16] = v6(2);
const OTHER6: [u8; 16] = v6(9);
const NOBODY6: [u8; 16] = [0; 16];

const fn v6(last: u8) -> [u8; 16] {
    let mut address = [0; 16];
    address[0] = 0xfd;
    address[15] = last;
    address
}

fn ethernet(kind: u16, body: &[u8]) -> Vec<u8> {
    [&OTHER[..], &OWN, &kind.to_be_bytes(), body].concat()
}

/// An ARP packet about these addresses.
fn arp(operation: u8, (mac, from): ([u8; 6], [u8; 4]), to: [u8; 4]) -> Vec<u8> {
    ethernet(0x0806, &[&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac, &from, &[0; 6], &to, &[0; 18]].concat())
}

fn v4(source: [u8; 4], protocol: u8, body: &[u8]) -> Vec<u8> {
    let len = (20 + body.len()) as u16;
    let head = [&[0x45, 0][..], &len.to_be_bytes(), &[0, 1, 0, 0, 64, protocol, 0, 0], &source, &[10, 0, 0, 3]];
    ethernet(0x0800, &[&head.concat(), body].concat())
}

fn ipv6(source: [u8; 16], next: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u16).to_be_bytes();
    ethernet(0x86dd, &[&[0x60, 0, 0, 0][..], &len, &[next, 255], &source, &v6(3), body].concat())
}

fn icmp(source: [u8; 16], message: &[u8]) -> Vec<u8> {
    ipv6(source, 58, message)
}

/// A message of neighbour discovery about a target, with these options.
fn neighbour(kind: u8, target: [u8; 16], options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0x60, 0, 0, 0][..], &target, options].concat()
}

/// The option that tells a link-layer address (RFC 4861, section 4.6.1).
fn station(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

fn udp(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes(), [0, 16], [0, 0], [0; 2], [0; 2], [0; 2], [0; 2]].concat()
}

/// A fragment header (RFC 8200, section 4.5).
fn fragment(next: u8, offset: u16, more: bool) -> Vec<u8> {
    [&[next, 0][..], &(offset | u16::from(more)).to_be_bytes(), &[0, 0, 0, 1]].concat()
}

/// Options for the destination, or hop by hop: padding.
const fn padding(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

const NONCE: [u8; 8] = [14, 1, 1, 2, 3, 4, 5, 6];
const ROUTER: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];

/// What an honest endpoint says.
fn honest() -> Vec<(&'static str, Vec<u8>)> {
    let own = |kind, options: &[u8]| icmp(OWN6, &neighbour(kind, OWN6, options));
    vec![
        ("an ARP request", arp(1, (OWN, OWN4), OTHER4)),
        ("an ARP reply", arp(2, (OWN, OWN4), OTHER4)),
        ("an ARP announcement", arp(1, (OWN, OWN4), OWN4)),
        ("an ARP probe", arp(1, (OWN, [0; 4]), OWN4)),
        ("IPv4", v4(OWN4, 6, &[0; 20])),
        ("an IPv4 ping", v4(OWN4, 1, &[8, 0, 0, 0, 0, 1, 0, 1])),
        ("asking for a DHCP server", v4(OWN4, 17, &udp(68, 67))),
        ("asking for a DHCPv6 server", ipv6(OWN6, 17, &udp(546, 547))),
        ("IPv6", ipv6(OWN6, 6, &[0; 20])),
        ("a ping", icmp(OWN6, &[128, 0, 0, 0, 0, 0, 0, 1])),
        ("a solicitation", icmp(OWN6, &neighbour(135, OTHER6, &station(1, OWN)))),
        ("a solicitation that names no station", icmp(OWN6, &neighbour(135, OTHER6, &[]))),
        ("a probe", icmp(NOBODY6, &neighbour(135, OWN6, &[]))),
        ("a probe with a nonce", icmp(NOBODY6, &neighbour(135, OWN6, &NONCE))),
        ("an advertisement", own(136, &station(2, OWN))),
        ("an advertisement that names no station", own(136, &[])),
        ("a router's solicitation", icmp(OWN6, &[&[133, 0, 0, 0, 0, 0, 0, 0][..], &station(1, OWN)].concat())),
        ("a router's solicitation from nobody", icmp(NOBODY6, &[133, 0, 0, 0, 0, 0, 0, 0])),
        (
            "groups, behind a hop-by-hop header",
            ipv6(OWN6, 0, &[&padding(58)[..], &[143, 0, 0, 0, 0, 0, 0, 0]].concat()),
        ),
        ("a first fragment", ipv6(OWN6, 44, &[&fragment(58, 0, true)[..], &[128, 0, 0, 0, 0, 0, 0, 1]].concat())),
        ("a later fragment", ipv6(OWN6, 44, &[&fragment(58, 8, false)[..], &[0; 8]].concat())),
        ("a later fragment of UDP", ipv6(OWN6, 44, &[&fragment(17, 16, true)[..], &[0; 8]].concat())),
        ("an unknown protocol", ipv6(OWN6, 253, &[0; 8])),
    ]
}

/// What nobody may say there in ARP and IPv4.
fn lies() -> Vec<(&'static str, Vec<u8>)> {
    let form = |at: usize, byte: u8| {
        let mut frame = arp(1, (OWN, OWN4), OTHER4);
        frame[14 + at] = byte;
        frame
    };
    vec![
        ("ARP for another", arp(2, (OWN, OTHER4), OWN4)),
        ("ARP announcing another's address", arp(1, (OWN, OTHER4), OTHER4)),
        ("ARP with another's station", arp(2, (OTHER, OWN4), OTHER4)),
        ("an ARP probe for another's address", arp(1, (OWN, [0; 4]), OTHER4)),
        ("ARP of other hardware", form(1, 6)),
        ("ARP of another protocol", form(3, 6)),
        ("ARP with longer stations", form(4, 8)),
        ("ARP with longer addresses", form(5, 16)),
        ("reverse ARP", ethernet(0x8035, &[0; 46])),
        ("another's IPv4", v4(OTHER4, 6, &[0; 20])),
        ("no IPv4 address", v4([0; 4], 17, &udp(68, 67))),
        ("a DHCP server", v4(OWN4, 17, &udp(67, 68))),
        ("a DHCP server at another port", v4(OWN4, 17, &udp(1067, 68))),
        ("a DHCP relay", v4(OWN4, 17, &udp(67, 67))),
        ("a router by ICMP", v4(OWN4, 1, &[9, 0, 0, 0, 1, 2, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0])),
        ("a redirect by ICMP", v4(OWN4, 1, &[5, 1, 0, 0, 10, 0, 0, 2, 0, 0, 0, 0])),
        ("a tag of priority", [&ethernet(0x8100, &[0xe0, 0])[..], &v4(OTHER4, 6, &[0; 20])[12..]].concat()),
    ]
}

/// The same in IPv6.
fn lies6() -> Vec<(&'static str, Vec<u8>)> {
    let own = |kind, options: &[u8]| icmp(OWN6, &neighbour(kind, OWN6, options));
    let behind = |next, head: &[u8], body: &[u8]| ipv6(OWN6, next, &[head, body].concat());
    let advertisement = neighbour(136, OWN6, &[]);
    vec![
        ("another's IPv6", ipv6(OTHER6, 6, &[0; 20])),
        ("another's IPv6 behind a header", ipv6(OTHER6, 60, &[&padding(6)[..], &[0; 20]].concat())),
        ("no IPv6 address", ipv6(NOBODY6, 17, &udp(1, 2))),
        ("a DHCPv6 server", ipv6(OWN6, 17, &udp(547, 546))),
        ("a DHCPv6 server at another port", ipv6(OWN6, 17, &udp(1547, 546))),
        ("a DHCPv6 server behind a header", behind(60, &padding(17), &udp(1547, 546))),
        ("a router", icmp(OWN6, &ROUTER)),
        ("a router behind a header", behind(0, &padding(58), &ROUTER)),
        ("a router in a fragment", behind(44, &fragment(58, 0, false), &ROUTER)),
        ("a router in a first fragment", behind(44, &fragment(58, 0, true), &ROUTER[..8])),
        ("a redirect", icmp(OWN6, &[&neighbour(137, OWN6, &[])[..], &OTHER6].concat())),
        ("the head of nothing", behind(44, &fragment(60, 0, true), &padding(58))),
        (
            "the head of nothing behind a header",
            behind(0, &[padding(44), *fragment(60, 0, true).first_chunk().unwrap()].concat(), &padding(17)),
        ),
        ("an advertisement for another", icmp(OWN6, &neighbour(136, OTHER6, &station(2, OWN)))),
        ("a probe for another's address", icmp(NOBODY6, &neighbour(135, OTHER6, &[]))),
        (
            "a probe in a fragment",
            ipv6(NOBODY6, 44, &[&fragment(58, 0, true)[..], &neighbour(135, OTHER6, &[])[..8]].concat()),
        ),
        ("an advertisement with another's station", own(136, &station(2, OTHER))),
        ("an advertisement with a second option", own(136, &[NONCE.to_vec(), station(2, OTHER)].concat())),
        ("an advertisement with two stations", own(136, &[station(2, OWN), station(2, OTHER)].concat())),
        ("an advertisement with a long option", own(136, &[&[2, 2][..], &OWN, &[0; 8]].concat())),
        ("an advertisement in a fragment", behind(44, &fragment(58, 0, true), &advertisement[..8])),
        ("an advertisement behind a header", behind(60, &padding(58), &advertisement)),
        ("a solicitation with another's station", icmp(OWN6, &neighbour(135, OTHER6, &station(1, OTHER)))),
        ("a solicitation with a second option", own(135, &[NONCE.to_vec(), station(1, OTHER)].concat())),
        (
            "a router's solicitation with another's station",
            icmp(OWN6, &[&[133, 0, 0, 0, 0, 0, 0, 0][..], &station(1, OTHER)].concat()),
        ),
        (
            "a router's solicitation with a second option",
            icmp(OWN6, &[&[133, 0, 0, 0, 0, 0, 0, 0][..], &station(1, OWN), &station(1, OTHER)].concat()),
        ),
        ("a group's report for a router's group from another", icmp(OTHER6, &[131, 0, 0, 0, 0, 0, 0, 0])),
    ]
}

#[test]
fn a_pinned_port_passes_for_nobody_else_by_any_header() {
    kernel_test(Kernel::Host, "firewall::a_pinned_port_passes_for_nobody_else_by_any_header", || {
        let world = World::sandbox();
        let mac = Mac::new(OWN);
        let pin = Pin::new(mac, [OWN4.into(), OWN6.into()]);
        let port = |of| State { ports: [(name("p-2"), of)].into_iter().collect(), ..State::default() };
        let (trusted, pinned) = (port(BridgePort::Trunk), port(BridgePort::Pinned(pin)));
        let seen = format!(
            "add table netdev seen; add chain netdev seen c {{ type filter hook ingress device w-p-3 priority 0; }}; \
             add rule netdev seen c ether saddr {mac} counter"
        );
        judge(&world.place, "nft", &[&seen]);
        let passes = |frame: &[u8]| {
            let passed = || judge(&world.place, "nft", &["list", "table", "netdev", "seen"]);
            let before = passed();
            world.wires[&name("p-2")].send(frame);
            passed() != before
        };
        let mut wrong = Vec::new();
        for (frames, allowed) in [(honest(), true), ([lies(), lies6()].concat(), false)] {
            reconcile(&mut world.open(), &trusted).unwrap();
            for (what, frame) in &frames {
                assert!(passes(frame), "{what}, from whom all is taken");
            }
            reconcile(&mut world.open(), &pinned).unwrap();
            wrong.extend(frames.iter().filter(|(_, frame)| passes(frame) != allowed).map(|(what, _)| *what));
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}
