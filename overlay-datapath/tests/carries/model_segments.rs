//! Any networks on two nodes, and any frames: who gets a frame is what the value says, and whole.

use std::collections::BTreeSet;
use std::net::IpAddr;

use overlay_core::{Mtu, NetworkId, Vni};
use overlay_datapath::{Datapath, Fate, Reason, Sandbox, Wanted};
use overlay_firewall::{BridgePort, Pin, Strangers};
use overlay_vxlan::{LocalPort, Packet, Peer, PortEnd, Segment, Vtep, names};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::bytes::{End, see, udp};
use crate::node::{datapath, endpoint, mac, send, take, vtep};

/// Endpoints of this number are at most there.
const MOST: u8 = 6;
const NETWORKS: [(u32, u8); 2] = [(4_096, 9), (70_000, 10)];

/// Where an endpoint is, or what is said of it.
#[derive(Debug, Clone, Copy)]
struct Lives {
    network: usize,
    /// 1 or 2.
    node: u8,
    /// Whether it is there; else the other node is told of it still.
    there: bool,
    /// Whether the other node has been told of it.
    known: bool,
}

/// Two nodes' networks.
#[derive(Debug, Clone)]
struct World {
    lives: Vec<Lives>,
    mtus: [u32; 2],
}

/// A frame of an endpoint's, each part as that of an endpoint of some number: its own, or not.
#[derive(Debug, Clone, Copy)]
struct Sent {
    by: u8,
    source: u8,
    from: u8,
    destination: u8,
    to: u8,
    ipv6: bool,
    /// Bytes of the IP packet beyond the MTU of the sender's network.
    beyond: i32,
}

fn worlds() -> impl Strategy<Value = World> {
    let lives = (0_usize..2, 1_u8..=2, prop::bool::weighted(0.85), prop::bool::weighted(0.85));
    let lives = lives.prop_map(|(network, node, there, known)| Lives { network, node, there, known });
    let mtu = select(vec![1_280_u32, 1_400, 1_450]);
    (vec(lives, usize::from(MOST)), [mtu.clone(), mtu]).prop_map(|(lives, mtus)| World { lives, mtus })
}

fn sent() -> impl Strategy<Value = Sent> {
    let number = || 1..=MOST;
    let own = || prop_oneof![9 => Just(None), 1 => number().prop_map(Some)];
    let beyond = select(vec![-1_000, -1, 0, 1]);
    (number(), own(), own(), (1..=MOST + 1, own()), (any::<bool>(), beyond)).prop_map(
        |(by, source, from, (destination, to), (ipv6, beyond))| {
            let [source, from] = [source, from].map(|it| it.unwrap_or(by));
            Sent { by, source, from, destination, to: to.unwrap_or(destination), ipv6, beyond }
        },
    )
}

impl World {
    fn of(&self, number: u8) -> Option<Lives> {
        self.lives.get(usize::from(number) - 1).copied()
    }

    fn address(&self, number: u8, ipv6: bool) -> IpAddr {
        let part = NETWORKS[self.of(number).map_or(0, |lives| lives.network)].1;
        match ipv6 {
            false => [10, 0, part, number].into(),
            true => [0xfd00, part.into(), 0, 0, 0, 0, 0, number.into()].into(),
        }
    }

    fn wanted(&self, node: u8) -> Wanted {
        let mut wanted = Wanted::default();
        for (at, (vni, part)) in NETWORKS.into_iter().enumerate() {
            let vni = Vni::new(vni).unwrap();
            let mut segment = Segment::new(Vtep::new(vtep(node)), Mtu::new(self.mtus[at]).unwrap());
            let mut sandbox = Sandbox::default();
            sandbox.firewall.strangers = Strangers::Drop;
            sandbox.firewall.ports.insert(names::tunnel(vni).unwrap(), BridgePort::Trunk);
            for number in (1..=MOST).filter(|number| self.of(*number).is_some_and(|it| it.network == at)) {
                let lives = self.lives[usize::from(number) - 1];
                let addresses = [false, true].map(|ipv6| self.address(number, ipv6));
                if lives.node == node && lives.there {
                    let interface = format!("tap{number}").parse().unwrap();
                    let nets = addresses.map(|it| format!("{it}/{}", if it.is_ipv4() { 24 } else { 64 }));
                    let local = LocalPort {
                        mac: mac(number),
                        addresses: nets.iter().map(|net| net.parse().unwrap()).collect(),
                        end: PortEnd::Tap { interface },
                    };
                    segment.ports.insert(endpoint(number), local);
                    let pin = BridgePort::Pinned(Pin::new(mac(number), addresses));
                    sandbox.firewall.ports.insert(interface, pin);
                } else if lives.node != node && lives.known {
                    let peer = Peer { vtep: vtep(lives.node), addresses: addresses.into() };
                    segment.peers.insert(mac(number), peer);
                }
            }
            sandbox.vxlan.segments.insert(vni, segment);
            wanted.networks.insert(NetworkId::from_bytes([part; 16]), sandbox);
        }
        wanted
    }

    fn frame(&self, sent: Sent) -> Vec<u8> {
        let from = End { mac: mac(sent.source), address: self.address(sent.from, sent.ipv6), port: 5_000 };
        let to = End { mac: mac(sent.destination), address: self.address(sent.to, sent.ipv6), port: 53 };
        let mtu = self.mtus[self.of(sent.by).map_or(0, |lives| lives.network)];
        let length = mtu.saturating_add_signed(sent.beyond) as usize - if sent.ipv6 { 48 } else { 28 };
        udp(from, to, &vec![7; length])
    }

    /// What ought to become of it: who gets it, or why nobody does.
    fn expected(&self, sent: Sent) -> Result<u8, Reason> {
        let own = self.of(sent.by).filter(|own| own.there).ok_or(Reason::NoPort)?;
        if (sent.source, self.address(sent.from, sent.ipv6)) != (sent.by, self.address(sent.by, sent.ipv6)) {
            return Err(Reason::Spoofed);
        }
        if sent.beyond > 0 {
            return Ok(sent.by); // who is told
        }
        let there = self.of(sent.destination).filter(|it| it.network == own.network && sent.destination != sent.by);
        let is_told = |it: &Lives| if it.node == own.node { it.there } else { it.known && it.there };
        there.filter(is_told).map(|_| sent.destination).ok_or(Reason::NoStation)
    }
}

/// What becomes of it: who gets what, or why nobody does.
fn found(nodes: &mut [Datapath; 2], world: &World, sent: Sent) -> Result<(u8, Vec<u8>), Reason> {
    let node = usize::from(world.of(sent.by).map_or(1, |own| own.node) - 1);
    let (mut fate, mut bytes) = send(&mut nodes[node], sent.by, &world.frame(sent));
    if let Fate::Underlay { from, to } = fate {
        assert_eq!((from, to), (vtep(node as u8 + 1), vtep(2 - node as u8)));
        let vni = Packet::parse_ip(&bytes, overlay_core::Port::VXLAN).unwrap().unwrap().header.vni;
        assert_eq!(vni.get(), NETWORKS[world.of(sent.by).unwrap().network].0);
        (fate, bytes) = take(&mut nodes[1 - node], &bytes);
    }
    match fate {
        Fate::Port(to) => Ok(((1..=MOST).find(|number| endpoint(*number) == to).unwrap(), bytes)),
        Fate::Drop(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_frame_comes_whole_to_whom_the_value_says_and_to_nobody_else(world in worlds(), all in vec(sent(), 1..30)) {
        let mut nodes = [1, 2].map(|node| datapath(&world.wanted(node)));
        let mut reasons = BTreeSet::new();
        for sent in all {
            let found = found(&mut nodes, &world, sent);
            prop_assert_eq!(found.as_ref().map(|(to, _)| *to).map_err(|reason| *reason), world.expected(sent), "{:?}", sent);
            match found {
                Ok((_, frame)) if sent.beyond > 0 => {
                    let seen = see(&frame); // its checksums are right
                    let fits = (world.mtus[world.of(sent.by).unwrap().network] as u16).to_be_bytes();
                    let told = if sent.ipv6 { &frame[60..62] } else { &frame[40..42] };
                    prop_assert_eq!((seen.destination, told), (mac(sent.by), &fits[..]));
                }
                Ok((_, frame)) => prop_assert_eq!(frame, world.frame(sent)),
                Err(reason) => drop(reasons.insert(reason)),
            }
        }
        let dropped = |reason| nodes.iter().any(|node| node.counts().dropped(reason) > 0);
        prop_assert!(reasons.into_iter().all(dropped), "each is counted");
    }
}
