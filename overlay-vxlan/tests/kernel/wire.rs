//! What is on the wire between the hosts, as each setting of a VTEP has it.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU8;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{DontFragment, IpFamily, Mac, Port, PortRange, Ttl};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_vxlan::{Ip, Packet, Segment, Vtep};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Lab, addresses, lost, vni};
use crate::{HERE, NONE_LOST, THERE};

/// All frames that pass a namespace's interfaces.
struct Ear(Socket);

impl Ear {
    fn open(namespace: &Namespace) -> Self {
        const ETH_P_ALL: u16 = 0x0003; // linux/if_ether.h
        let all = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = namespace.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(all))).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    fn heard(mut self) -> Vec<Vec<u8>> {
        let (mut frames, mut buffer) = (Vec::new(), vec![0; 65_536]);
        loop {
            match self.0.read(&mut buffer) {
                Ok(len) => frames.push(buffer[..len].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return frames,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The VXLAN packets among frames, each with our VNI and whole.
fn packets(frames: &[Vec<u8>], port: Port) -> Vec<Packet<'_>> {
    let packets: Vec<_> = frames.iter().filter_map(|frame| Packet::parse(frame, port).unwrap()).collect();
    assert!(packets.iter().all(|packet| packet.header.vni == vni(9)), "{packets:?}");
    packets
}

/// What host 0 hears while container 0 pings container 1 with `options`, which loses nothing.
fn heard(lab: &Lab, options: &[&str]) -> Vec<Vec<u8>> {
    let ear = Ear::open(&lab.hosts[0].namespace);
    for to in addresses(9, 11) {
        let options = [&["-c", "5", "-i", "0.01"], options].concat();
        assert_eq!(lost(&lab.ping(0, to.addr(), &options)), "0% packet loss", "{to} {options:?}");
    }
    ear.heard()
}

fn special(segment: &mut Segment) {
    segment.vtep = Vtep {
        device: Some("u0".parse().unwrap()),
        port: Port::new(8472).unwrap(),
        source_ports: PortRange::new(Port::new(50_000).unwrap(), Port::new(50_003).unwrap()).unwrap(),
        ttl: NonZeroU8::new(7).map_or(Ttl::Auto, Ttl::Hops),
        dont_fragment: DontFragment::Set,
        udp_checksum: true,
        ..segment.vtep
    };
}

fn usual(segment: &mut Segment) {
    segment.vtep = Vtep::new(segment.vtep.local);
}

fn inherited(segment: &mut Segment) {
    segment.vtep = Vtep { ttl: Ttl::Inherit, dont_fragment: DontFragment::Inherit, ..Vtep::new(segment.vtep.local) };
}

#[test]
fn what_a_vtep_says_is_on_the_wire() {
    kernel_test(Kernel::Host, "vxlan::what_a_vtep_says_is_on_the_wire", || {
        for underlay in [IpFamily::V4, IpFamily::V6] {
            let mut lab = Lab::new(underlay, 2);
            // One after the other: a changed VTEP is another device, and the traffic goes on by it.
            lab.shape = special;
            lab.settle(&[HERE, THERE]);
            let frames = heard(&lab, &[]);
            let found = packets(&frames, Port::new(8472).unwrap());
            assert!(found.len() >= 20, "{}", found.len());
            for packet in found {
                assert_eq!((packet.ip.ttl(), packet.ip.family()), (7, underlay));
                assert!((50_000..=50_003).contains(&packet.udp.source()), "{}", packet.udp.source());
                assert!(packet.udp.checksum() != 0);
                assert!(matches!(packet.ip, Ip::V6(_)) || is_unfragmentable(&packet));
            }
            lab.shape = usual;
            lab.settle(&[HERE, THERE]);
            let frames = heard(&lab, &[]);
            let found = packets(&frames, Port::VXLAN);
            assert!(found.len() >= 20, "{}", found.len());
            for packet in found {
                assert_eq!((packet.ip.ttl(), packet.udp.checksum()), (64, 0));
                assert!(packet.udp.source() >= 49_152 && !is_unfragmentable(&packet), "{packet:?}");
            }
        }
    });
}

#[test]
fn a_vtep_that_inherits_does_as_the_inner_packet() {
    kernel_test(Kernel::Host, "vxlan::a_vtep_that_inherits_does_as_the_inner_packet", || {
        let mut lab = Lab::new(IpFamily::V4, 2);
        lab.shape = inherited;
        lab.settle(&[HERE, THERE]);
        for (options, unfragmentable) in [(["-t", "33", "-M", "do"], true), (["-t", "34", "-M", "dont"], false)] {
            let frames = heard(&lab, &options);
            let ttl = options[1].parse().unwrap();
            let requests: Vec<_> =
                packets(&frames, Port::VXLAN).into_iter().filter(|packet| packet.ip.ttl() == ttl).collect();
            assert_eq!(requests.len(), 10, "{options:?}");
            let over_v4 = requests.iter().filter(|packet| packet.inner.ip.is_some_and(|ip| matches!(ip, Ip::V4(_))));
            assert!(over_v4.clone().count() == 5 && over_v4.clone().all(|it| is_unfragmentable(it) == unfragmentable));
        }
    });
}

/// Two cables, and routes that prefer the second: the device decides all the same.
#[test]
fn datagrams_leave_by_the_device_of_the_vtep() {
    kernel_test(Kernel::Host, "vxlan::datagrams_leave_by_the_device_of_the_vtep", || {
        let mut lab = Lab::new(IpFamily::V4, 2);
        second_cable(&lab);
        for (host, other) in lab.hosts.iter().zip(["192.0.2.2/32", "192.0.2.1/32"]) {
            judge(&host.namespace, "ip", &["route", "add", other, "dev", "u1"]);
        }
        let by_u1 = |lab: &Lab| {
            let frames = heard(lab, &[]);
            let found = packets(&frames, Port::VXLAN);
            let second = Mac::new([2, 0, 0, 0, 2, 0]);
            let macs = found.iter().filter_map(|packet| packet.ethernet.as_ref());
            let sent = macs.filter(|it| it.source().octets()[..4] == [2, 0, 0, 0]);
            let by_u1 = sent.clone().filter(|it| it.source() == second || it.destination() == second).count();
            (sent.count(), by_u1)
        };
        lab.settle(&[HERE, THERE]);
        let (all, second) = by_u1(&lab);
        assert!(all >= 20 && all == second, "by the routes: {second} of {all}");
        lab.shape = |segment| segment.vtep.device = Some("u0".parse().unwrap());
        lab.settle(&[HERE, THERE]);
        let (all, second) = by_u1(&lab);
        assert!(all >= 20 && second == 0, "by the device: {second} of {all}");
        let entries = judge(&lab.homes[0], "bridge", &["fdb", "show", "dev", "vx-4105"]);
        assert!(entries.contains("via ifindex 770"), "{entries}");
        let links = judge(&lab.homes[0], "ip", &["link"]);
        assert!(!links.contains("770: ") && !links.contains("in-770"), "the stand-in stayed: {links}");
        // By hand, by another way: that is seen and put right.
        judge(
            &lab.homes[0],
            "sh",
            &["-c", "bridge fdb replace 02:42:0a:00:09:0b dev vx-4105 dst 192.0.2.2 self permanent"],
        );
        assert!(by_u1(&lab).1 > 0);
        assert!(!lab.settle(&[HERE, THERE]).iter().all(|plan| plan.is_empty()));
        assert_eq!(by_u1(&lab).1, 0);
    });
}

fn second_cable(lab: &Lab) {
    let paths = lab.paths();
    let there = paths.split(' ').nth(3).unwrap();
    let add = format!(
        "ip link add u1 address 02:00:00:00:02:00 type veth peer name u1 address 02:00:00:00:02:01 netns {there}"
    );
    judge(&lab.hosts[0].namespace, "sh", &["-c", &add]);
    for host in &lab.hosts {
        judge(&host.namespace, "ip", &["link", "set", "u1", "up"]);
    }
}

#[test]
fn link_local_vteps_reach_each_other_by_their_device() {
    kernel_test(Kernel::Host, "vxlan::link_local_vteps_reach_each_other_by_their_device", || {
        let mut lab = Lab::new(IpFamily::V6, 2);
        for host in [0, 1] {
            let address = format!("fe80::{}/64", host + 1);
            judge(&lab.hosts[host].namespace, "ip", &["addr", "add", &address, "dev", "u0", "nodad"]);
        }
        second_cable(&lab); // so that an address alone does not say which way
        for host in &lab.hosts {
            judge(&host.namespace, "ip", &["route", "add", "fe80::/64", "dev", "u1", "metric", "1"]);
        }
        lab.shape = |segment| {
            let link_local = |vtep: IpAddr| match vtep {
                IpAddr::V6(vtep) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, vtep.segments()[7]).into(),
                IpAddr::V4(_) => vtep,
            };
            segment.vtep = Vtep { device: Some("u0".parse().unwrap()), ..segment.vtep };
            segment.vtep.local = link_local(segment.vtep.local);
            segment.peers.values_mut().for_each(|peer| peer.vtep = link_local(peer.vtep));
        };
        lab.settle(&[HERE, THERE]);
        assert_eq!(lab.lost(0, 1, 9), NONE_LOST);
    });
}

#[test]
fn broadcasts_reach_other_hosts_only_where_flooding_was_opted_in() {
    kernel_test(Kernel::Host, "vxlan::broadcasts_reach_other_hosts_only_where_opted_in", || {
        for underlay in [IpFamily::V4, IpFamily::V6] {
            let mut lab = Lab::new(underlay, 3);
            let answering = "echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts";
            for container in &lab.containers {
                judge(&container.namespace, "sh", &["-c", answering]);
            }
            let shapes: [fn(&mut Segment); 3] = [|_| {}, flooded, |_| {}];
            for (shape, opted_in) in shapes.into_iter().zip([false, true, false]) {
                lab.shape = shape;
                lab.settle(&[HERE, THERE, HERE]);
                let ear = Ear::open(&lab.hosts[0].namespace);
                let v4 = lab.ping(0, [10, 0, 9, 255].into(), &["-b", "-c", "2", "-i", "0.2", "-W", "1"]);
                let v6 = lab.ping_text(0, "ff02::1%eth1", &["-c", "2", "-i", "0.2", "-W", "1"]);
                // Those at home hear it either way.
                assert!(v4.contains("from 10.0.9.12"), "{v4}");
                assert_eq!(v4.contains("from 10.0.9.11"), opted_in, "{v4}");
                assert_eq!(v6.contains(&link_local_of(&lab, 1)), opted_in, "{v6}");
                let frames = ear.heard();
                let to_all = |packet: &&Packet<'_>| !packet.inner.ethernet.destination().is_station();
                assert_eq!(packets(&frames, Port::VXLAN).iter().any(|packet| to_all(&packet)), opted_in);
                assert_eq!(lab.lost(0, 1, 9), NONE_LOST);
            }
        }
    });
}

/// Frames for all go to the VTEPs of all peers.
fn flooded(segment: &mut Segment) {
    segment.flood = segment.peers.values().map(|peer| peer.vtep).collect();
}

fn link_local_of(lab: &Lab, container: usize) -> String {
    let shown = judge(&lab.containers[container].namespace, "ip", &["-6", "-o", "addr", "show", "scope", "link"]);
    let address = shown.split("inet6 ").nth(1).and_then(|rest| rest.split('/').next());
    address.unwrap().to_owned()
}

fn is_unfragmentable(packet: &Packet<'_>) -> bool {
    matches!(packet.ip, Ip::V4(ip) if ip.is_unfragmentable())
}
