//! Real packets between containers: who reaches whom, and what others see of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use overlay_core::{IpFamily, Mtu};
use overlay_datapath::Reason;
use overlay_fabric::{Captured, Cluster, ClusterConfig, Link, Unanswered};
use overlay_gossip::testing::Conditions;
use overlay_ipam::SubnetRequest;
use overlay_node::{Encryption, EndpointSpec, NetworkSpec, ServiceSpec};

const LIMIT: Duration = Duration::from_secs(30);
const SECRET: &[u8] = b"what nobody else is to read of it";

fn spec(name: &str) -> NetworkSpec {
    let subnets = vec![SubnetRequest::any(IpFamily::V4), SubnetRequest::this("fd00:9::/64".parse().unwrap())];
    NetworkSpec { attachable: true, subnets, ..NetworkSpec::overlay(name.parse().unwrap()) }
}

/// Two networks on three nodes: a, b and c on `front`, x and y on `back`, where a and x are on node 0, b and y on node 1.
fn cluster(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, 3);
    cluster.create_network(spec("front")).unwrap();
    let back = spec("back").subnets.into_iter().take(1).collect();
    cluster.create_network(NetworkSpec { subnets: back, ..spec("back") }).unwrap();
    for (name, node, network) in
        [("a", 0, "front"), ("b", 1, "front"), ("c", 0, "front"), ("x", 0, "back"), ("y", 1, "back")]
    {
        cluster.attach(name, node, network).unwrap();
    }
    settle(&mut cluster);
    cluster
}

fn settle(cluster: &mut Cluster) {
    cluster.settle(LIMIT).unwrap_or_else(|violation| panic!("{violation}"));
}

fn contains(packet: &Captured, secret: &[u8]) -> bool {
    packet.bytes.windows(secret.len()).any(|window| window == secret)
}

#[test]
fn containers_of_a_network_reach_each_other_by_ping_udp_and_tcp_on_one_node_and_across_with_their_own_addresses() {
    let mut cluster = cluster(60);
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "c")] {
        let own = cluster.container(to).resolve(from).unwrap();
        assert_eq!(own.len(), 2, "{own:?}");
        for address in cluster.container(from).resolve(to).unwrap() {
            let address_text = address.to_string();
            assert!(cluster.container(from).ping(&address_text).is_ok(), "{from} to {address}");
            let udp = cluster.container(from).udp(&address_text, b"datagram").unwrap();
            let tcp = cluster.container(from).tcp(&address_text, &vec![7; 60_000]).unwrap();
            for answer in [&udp, &tcp] {
                assert_eq!((&answer.by[..], answer.to), (to, address));
                assert!(own.contains(&answer.seen.ip()), "{to} saw {} of {from}", answer.seen);
            }
            assert_eq!((&udp.bytes[..], tcp.bytes.len()), (&b"datagram"[..], 60_000));
        }
    }
    assert!(cluster.underlay_counts().arrived > 100);
}

#[test]
fn a_vip_is_reached_and_answers_as_itself_by_replicas_on_other_nodes_that_see_who_asks() {
    let mut cluster = cluster(61);
    let front = cluster.network("front").unwrap().id;
    let web = cluster.create_service(ServiceSpec::new("web".parse().unwrap(), [front])).unwrap();
    for (node, name) in ["web-1", "web-2"].into_iter().enumerate() {
        let spec = EndpointSpec::new(front, name.parse().unwrap(), cluster.node_id(node + 1).unwrap());
        cluster.attach_as(node + 1, EndpointSpec { service: Some(web.id), ..spec }).unwrap();
    }
    settle(&mut cluster);
    let own = cluster.container("b").resolve("a").unwrap();
    for vip in cluster.container("a").resolve("web").unwrap() {
        let vip = vip.to_string();
        let answers: Vec<_> = (0..4).map(|_| cluster.container("a").tcp(&vip, SECRET).unwrap()).collect();
        let by = |name: &str| answers.iter().filter(|answer| answer.by == name).count();
        assert_eq!((by("web-1"), by("web-2")), (2, 2), "{answers:?}");
        assert!(answers.iter().all(|answer| own.contains(&answer.seen.ip())), "{answers:?}");
        assert!(cluster.container("a").udp(&vip, b"?").unwrap().by.starts_with("web-"));
    }
    cluster.stop("web-1").unwrap();
    settle(&mut cluster);
    let answers: Vec<_> = (0..4).map(|_| cluster.container("a").tcp("web", SECRET).unwrap().by).collect();
    assert!(answers.iter().all(|by| by == "web-2"), "{answers:?}");
}

#[test]
fn nothing_passes_between_networks_by_address_by_name_or_by_forged_frames() {
    let mut cluster = cluster(62);
    let theirs = cluster.container("x").resolve("y").unwrap()[0].to_string();
    assert!(cluster.container("x").ping(&theirs).is_ok());
    for to in [&theirs[..], "y"] {
        let patience = Duration::from_secs(2);
        let ping = cluster.container("a").patience(patience).ping(to);
        assert!(ping.is_err(), "{ping:?}");
        assert!(cluster.container("a").patience(patience).tcp(to, SECRET).is_err());
    }
    assert!(matches!(cluster.container("a").resolve("y"), Err(Unanswered::UnknownName(_))));
    // Whole frames of its own making: to y's Ethernet address as x, and as itself.
    let (x, y) = (Link::Container("x".parse().unwrap()), Link::Container("y".parse().unwrap()));
    cluster.capture(x.clone());
    cluster.capture(y.clone());
    assert!(cluster.container("x").udp("y", SECRET).is_ok());
    let came = |cluster: &Cluster| {
        let captured = cluster.captured().unwrap().packets().iter();
        captured.filter(|packet| packet.link == y && contains(packet, SECRET)).count()
    };
    let sent = cluster.captured().unwrap().packets().iter().find(|it| it.link == x && contains(it, SECRET)).unwrap();
    let (frame, mut own) = (sent.bytes.clone(), sent.bytes.clone());
    let endpoints = cluster.endpoints(cluster.network("front").unwrap().id).unwrap();
    let a = endpoints.iter().find(|it| it.spec.container.as_str() == "a").unwrap();
    own[6..12].copy_from_slice(&a.mac.octets());
    own[26..30].copy_from_slice(&a.addresses.iter().find_map(|net| addresses_v4(net.addr())).unwrap());
    let drops = |cluster: &Cluster| {
        let counts = cluster.packet_counts(0).unwrap();
        (counts.dropped(Reason::NoStation), counts.dropped(Reason::Spoofed))
    };
    let (before, had) = (drops(&cluster), came(&cluster));
    cluster.container("a").inject("front", &frame).unwrap();
    cluster.container("a").inject("front", &own).unwrap();
    cluster.run_for(Duration::from_secs(1));
    assert_eq!((drops(&cluster), came(&cluster)), ((before.0 + 1, before.1 + 1), had));
    // The same frame, from who may send it, arrives, and is answered.
    cluster.container("x").inject("back", &frame).unwrap();
    cluster.run_for(Duration::from_secs(1));
    assert!(came(&cluster) >= had + 2);
}

fn addresses_v4(address: IpAddr) -> Option<[u8; 4]> {
    if let IpAddr::V4(address) = address { Some(address.octets()) } else { None }
}

#[test]
fn of_an_encrypted_network_nothing_crosses_a_link_of_the_underlay_in_the_clear() {
    for (seed, encryption) in [(63, Encryption::Shared), (64, Encryption::Own)] {
        let mut cluster = cluster(seed);
        let spec = NetworkSpec { attachable: true, encryption, ..NetworkSpec::overlay("secret".parse().unwrap()) };
        cluster.create_network(spec).unwrap();
        cluster.attach("s", 0, "secret").unwrap();
        cluster.attach("t", 1, "secret").unwrap();
        (0..3).for_each(|node| cluster.capture(Link::Node(node)));
        cluster.capture(Link::Container("t".parse().unwrap()));
        // From the first moment on, before there are keys.
        let reached = (0..300).any(|_| {
            cluster.run_for(Duration::from_millis(20));
            cluster.container("s").patience(Duration::from_millis(100)).udp("t", SECRET).is_ok()
        });
        assert!(reached, "seed {seed}");
        settle(&mut cluster);
        assert!(cluster.container("t").tcp("s", SECRET).is_ok());
        let captured = cluster.captured().unwrap();
        let (inside, outside): (Vec<_>, Vec<_>) =
            captured.packets().iter().partition(|packet| matches!(packet.link, Link::Container(_)));
        assert!(inside.iter().filter(|packet| contains(packet, SECRET)).count() >= 2, "seed {seed}");
        assert!(outside.len() > 10, "seed {seed}");
        let clear = outside.iter().filter(|packet| contains(packet, SECRET)).count();
        assert_eq!(clear, 0, "seed {seed}");
        // The judge sees: what is not encrypted is found by the same search.
        assert!(cluster.container("a").udp("b", SECRET).is_ok());
        let found = cluster.captured().unwrap().packets().iter().filter(|it| matches!(it.link, Link::Node(_)));
        assert!(found.filter(|packet| contains(packet, SECRET)).count() >= 2, "seed {seed}");
    }
}

#[test]
fn a_packet_that_is_longer_than_the_networks_mtu_is_answered_and_one_longer_than_a_link_is_lost_without_a_word() {
    let mut cluster = cluster(65);
    let a = Link::Container("a".parse().unwrap());
    cluster.capture(a);
    assert!(cluster.container("a").size(1_422).ping("b").is_ok(), "1450 bytes with its headers");
    let bare = |packet: &Captured| packet.bytes.len() == 14 + 1_450;
    let mut frame = cluster.captured().unwrap().packets().iter().find(|it| bare(it)).unwrap().bytes.clone();
    frame.push(0);
    frame[16..18].copy_from_slice(&1_451_u16.to_be_bytes());
    let sum = u32::from(u16::from_be_bytes([frame[24], frame[25]])) + 0xffff - 1; // RFC 1624
    frame[24..26].copy_from_slice(&((sum % 0xffff) as u16).to_be_bytes());
    cluster.container("a").inject("front", &frame).unwrap();
    let last = &cluster.captured().unwrap().packets().last().unwrap().bytes;
    assert_eq!((last[34], last[35], &last[40..42]), (3, 4, &1_450_u16.to_be_bytes()[..]), "RFC 1191: {last:?}");
    cluster.narrow(1, Mtu::new(1_400).unwrap());
    let patience = Duration::from_secs(2);
    assert!(matches!(cluster.container("a").patience(patience).size(1_422).ping("b"), Err(Unanswered::Silent(_))));
    assert!(cluster.container("a").size(1_000).ping("b").is_ok());
    assert!(cluster.underlay_counts().too_big > 0);
}

#[test]
fn what_is_captured_is_read_by_tshark_and_says_what_passed() {
    let mut cluster = cluster(66);
    for link in [Link::Node(0), Link::Node(1), Link::Container("a".parse().unwrap())] {
        cluster.capture(link);
    }
    cluster.container("a").tcp("b", b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let file = std::env::temp_dir().join(format!("overlay-fabric-{}.pcapng", std::process::id()));
    std::fs::write(&file, cluster.captured().unwrap().pcapng()).unwrap();
    let fields = ["frame.interface_name", "vxlan.vni", "tcp.dstport", "frame.time_epoch"];
    let fields = fields.into_iter().flat_map(|it| ["-e", it]);
    let mut tshark = Command::new("tshark");
    let read = tshark.arg("-r").arg(&file).args(["-T", "fields", "-E", "separator=,"]).args(fields).output();
    std::fs::remove_file(&file).unwrap();
    let Ok(read) = read else {
        println!("SKIPPED: there is no tshark to read the capture");
        return;
    };
    let said = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(said.lines().count(), cluster.captured().unwrap().packets().len(), "{said}");
    let lines = |of: &str| said.lines().filter(|line| line.starts_with(of) && line.contains(",80,")).count();
    assert!(lines("node-0,6") >= 3 && lines("node-1,6") >= 3 && lines("a,,80") >= 3, "{said}");
    assert!(said.lines().all(|line| line.contains(",1767225")), "the date: {said}");
}

#[test]
fn what_a_run_sends_follows_from_its_seed_and_loss_is_outlived_by_tcp() {
    let run = |seed: u64| {
        let lossy = Conditions { loss: 0.05, duplication: 0.05, reordering: 0.05, ..Conditions::lan() };
        let mut cluster =
            Cluster::with(ClusterConfig { conditions: lossy, ..ClusterConfig::default() }, seed, 2).unwrap();
        cluster.create_network(spec("front")).unwrap();
        cluster.attach("a", 0, "front").unwrap();
        cluster.attach("b", 1, "front").unwrap();
        settle(&mut cluster);
        cluster.capture(Link::Node(0));
        let answer = cluster.container("a").patience(LIMIT).tcp("b", &vec![3; 100_000]).unwrap();
        assert_eq!(answer.bytes.len(), 100_000);
        assert!(cluster.underlay_counts().lost > 0, "seed {seed}");
        cluster.captured().unwrap().pcapng()
    };
    assert!(run(67) == run(67), "the same");
    assert!(run(67) != run(68), "not the same");
}

#[test]
fn nothing_passes_a_partition_and_what_is_moved_is_reached_again_with_the_address_that_it_has() {
    let mut cluster = cluster(69);
    assert!(cluster.container("a").ping("b").is_ok());
    let address = cluster.container("a").resolve("b").unwrap()[0].to_string();
    cluster.partition([1]);
    let silent = cluster.container("a").patience(Duration::from_secs(2)).ping(&address);
    assert!(matches!(silent, Err(Unanswered::Silent(_) | Unanswered::NoRoute(_))), "{silent:?}");
    assert!(cluster.underlay_counts().cut > 0);
    cluster.heal();
    cluster.power_off(1);
    cluster.relocate("b", 2).unwrap();
    settle(&mut cluster);
    assert_eq!(cluster.container("a").tcp("b", b"still").unwrap().by, "b");
    // Its agent may die: the data path stays, names do not.
    cluster.crash(0);
    let now = cluster.container("c").resolve("b");
    assert_eq!(now, Err(Unanswered::NoResolver));
    assert!(cluster.container("a").ping(&address).is_ok());
}
