//! Any service, and any packets to and from who serves: what leaves is what a balancer by itself makes of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Instant, Port, Protocol};
use overlay_datapath::{Buffer, Config, Datapath, Fate, Reason, Tables, Wanted};
use overlay_lb::{Affinity, Balancer, Condition, Replica, Scheduler, Service, State, Verdict, Weight};
use overlay_vxlan::{Packet, names};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::bytes::{End, builder, see, udp};
use crate::node::{NOW, VNI, datapath, end, end6, endpoint, mac, v4, v6, wanted};

const CLIENT: u8 = 1;

#[derive(Debug, Clone)]
enum Event {
    /// The client sends something to a port of the VIP.
    Asks(Said),
    /// One who may be a replica sends something to a port of the client's.
    Answers(u8, Said),
    Changes(State),
    Later(u64),
}

#[derive(Debug, Clone, Copy)]
struct Said {
    /// The client's port.
    port: u16,
    /// The other's.
    other: u16,
    kind: Kind,
    ipv6: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Udp,
    Syn,
    SynAck,
    Ack,
    Fin,
    Rst,
}

fn vip(ipv6: bool) -> IpAddr {
    if ipv6 { v6(100) } else { v4(100) }
}

/// A service of all four endpoints at most, the client among them.
fn states() -> impl Strategy<Value = State> {
    let replica = (1_u16..4, select(vec![Condition::Active, Condition::Active, Condition::Draining, Condition::Down]));
    let scheduler = select(Scheduler::ALL.to_vec());
    let affinity = prop::option::weighted(0.2, Just(Affinity { timeout: Duration::from_secs(60) }));
    (btree_map(1_u8..=4, replica, 0..=4), scheduler, affinity).prop_map(|(replicas, scheduler, affinity)| {
        let [served, target] = [80, 8_080].map(|port| Port::new(port).unwrap());
        let mut service = Service { scheduler, affinity, ..Service::new([vip(false), vip(true)]) };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            service = service.port(protocol, served, target);
        }
        let replica = |(number, (weight, condition)): (u8, (u16, Condition))| {
            let replica = Replica::new([v4(number), v6(number)]).weighing(Weight::new(weight).unwrap());
            (endpoint(number), replica.being(condition))
        };
        service.replicas = replicas.into_iter().map(replica).collect();
        State { services: [("web".parse().unwrap(), service)].into_iter().collect(), ..State::default() }
    })
}

fn said(other: Vec<u16>) -> impl Strategy<Value = Said> {
    let kinds = vec![Kind::Udp, Kind::Udp, Kind::Syn, Kind::SynAck, Kind::Ack, Kind::Ack, Kind::Fin, Kind::Rst];
    let parts = (select(vec![5_000_u16, 5_001, 5_002]), select(other), select(kinds), any::<bool>());
    parts.prop_map(|(port, other, kind, ipv6)| Said { port, other, kind, ipv6 })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => said(vec![80, 80, 80, 81]).prop_map(Event::Asks),
        8 => (1_u8..=4, said(vec![8_080, 8_080, 53])).prop_map(|(who, said)| Event::Answers(who, said)),
        1 => states().prop_map(Event::Changes),
        1 => (1_u64..400).prop_map(Event::Later),
    ];
    vec(event, 1..60)
}

impl Said {
    fn frame(self, from: End, to: End) -> Vec<u8> {
        let mut frame = Vec::new();
        let step = builder(from, to).tcp(from.port, to.port, 1_000, 1_000);
        let step = match self.kind {
            Kind::Udp => return udp(from, to, b"a datagram"),
            Kind::Syn => step.syn(),
            Kind::SynAck => step.syn().ack(2_000),
            Kind::Ack => step.ack(2_000),
            Kind::Fin => step.ack(2_000).fin(),
            Kind::Rst => step.rst(),
        };
        step.write(&mut frame, b"").unwrap();
        frame
    }

    fn asks(self) -> Vec<u8> {
        let own = if self.ipv6 { end6 } else { end };
        let to = End { mac: names::gateway_mac(VNI.try_into().unwrap()), address: vip(self.ipv6), port: self.other };
        self.frame(own(CLIENT, self.port), to)
    }

    fn answers(self, who: u8) -> Vec<u8> {
        let own = if self.ipv6 { end6 } else { end };
        self.frame(own(who, self.other), own(CLIENT, self.port))
    }
}

/// What comes of a frame: who gets what, or nobody.
type Came = Option<(u8, Vec<u8>)>;

/// Two nodes, and beside them a balancer as the client has one.
struct World {
    nodes: [Datapath; 2],
    model: Balancer,
    now: Instant,
}

impl World {
    fn new(state: &State) -> Self {
        // By the seed that the client's has, which is the datapath's and the endpoint's: so both draw the same ports for flows that would be alike.
        let mut model = Balancer::new(Config::default().balancer, [7 ^ CLIENT; 32], NOW);
        model.handle_state(Arc::new(state.clone()), NOW).unwrap();
        Self { nodes: [datapath(&reaching(state)), datapath(&wanted(2))], model, now: NOW }
    }

    fn change(&mut self, state: &State) {
        self.nodes[0].handle_tables(Arc::new(Tables::new(&reaching(state)).unwrap()), self.now);
        self.model.handle_state(Arc::new(state.clone()), self.now).unwrap();
        self.tick();
    }

    fn tick(&mut self) {
        self.nodes[0].handle_timeout(self.now);
        self.model.handle_timeout(self.now);
    }

    fn carried(&mut self, from: u8, frame: &[u8]) -> Came {
        let of = |number: u8| usize::from(number > 2);
        let mut batch = [Buffer::new(2_000)];
        batch[0].fill(frame).unwrap();
        self.nodes[of(from)].handle_frames(endpoint(from), &mut batch, self.now);
        self.end(of(from), batch)
    }

    /// What the client sends to itself: no bridge gives back what is none of a service's.
    fn carried_home(&mut self, frame: &[u8]) -> Came {
        let mut batch = [Buffer::new(2_000)];
        batch[0].fill(frame).unwrap();
        self.nodes[0].handle_frames(endpoint(CLIENT), &mut batch, self.now);
        if batch[0].fate() == Fate::Drop(Reason::NoStation) { None } else { self.end(0, batch) }
    }

    /// To the other node, if it goes there.
    fn end(&mut self, node: usize, mut batch: [Buffer; 1]) -> Came {
        if let Fate::Underlay { .. } = batch[0].fate() {
            let inner = Packet::parse_ip(batch[0].packet(), Port::VXLAN).unwrap().unwrap();
            see(inner.frame());
            self.nodes[1 - node].handle_packets(&mut batch, self.now);
        }
        match batch[0].fate() {
            Fate::Port(to) => {
                let who = (1..=4).find(|number| endpoint(*number) == to).unwrap();
                Some((who, batch[0].packet().to_vec()))
            }
            Fate::Drop(Reason::Service) => None,
            other => panic!("{other:?}"),
        }
    }

    /// What the balancer by itself makes of what the client sends.
    fn leaves(&mut self, frame: &[u8]) -> Came {
        let mut copy = frame.to_vec();
        let gateway = names::gateway_mac(VNI.try_into().unwrap());
        let to = match self.model.handle_frame(&mut copy, self.now) {
            Verdict::Forth { replica } => (1..=4).find(|number| [v4(*number), v6(*number)].contains(&replica.ip()))?,
            Verdict::Back => CLIENT,
            Verdict::Answer(answer) => return Some((CLIENT, answer.to_vec())),
            Verdict::Drop(_) | Verdict::Pass => return None,
        };
        copy[..6].copy_from_slice(&mac(to).octets());
        if to == CLIENT {
            copy[6..12].copy_from_slice(&gateway.octets());
        }
        Some((to, copy))
    }

    /// And of what comes to the client.
    fn arrives(&mut self, frame: &[u8]) -> Came {
        let mut copy = frame.to_vec();
        match self.model.handle_frame(&mut copy, self.now) {
            Verdict::Pass | Verdict::Back | Verdict::Forth { .. } => Some((CLIENT, copy)),
            Verdict::Answer(_) | Verdict::Drop(_) => None,
        }
    }

    /// What both have to send by themselves, as IP packets.
    fn stirs(&mut self) -> [Vec<Vec<u8>>; 2] {
        let (mut buffer, mut sent) = (Buffer::new(2_000), Vec::new());
        while self.nodes[0].poll_transmit(&mut buffer, self.now) {
            let skipped = if matches!(buffer.fate(), Fate::Underlay { .. }) { 20 + 8 + 8 + 14 } else { 14 };
            sent.push(buffer.packet()[skipped..].to_vec());
        }
        let model = std::iter::from_fn(|| self.model.poll_transmit()).collect();
        [sent, model]
    }
}

fn reaching(state: &State) -> Wanted {
    Wanted { services: [(endpoint(CLIENT), Arc::new(state.clone()))].into(), ..wanted(1) }
}

proptest! {
    #[test]
    fn what_a_client_and_those_who_serve_send_becomes_what_a_balancer_makes_of_it(first in states(), events in events()) {
        let mut world = World::new(&first);
        for event in events {
            let (found, expected) = match &event {
                Event::Asks(said) => (world.carried(CLIENT, &said.asks()), world.leaves(&said.asks())),
                Event::Answers(CLIENT, said) => {
                    let frame = said.answers(CLIENT);
                    (world.carried_home(&frame), world.leaves(&frame))
                }
                Event::Answers(who, said) => {
                    let frame = said.answers(*who);
                    (world.carried(*who, &frame), world.arrives(&frame))
                }
                Event::Changes(state) => {
                    world.change(state);
                    (None, None)
                }
                Event::Later(seconds) => {
                    world.now += Duration::from_secs(*seconds);
                    world.tick();
                    (None, None)
                }
            };
            if let Some((_, frame)) = &found {
                see(frame); // its checksums are right
            }
            prop_assert_eq!(&found, &expected, "{:?}", event);
            let [sent, model] = world.stirs();
            prop_assert_eq!(sent, model, "{:?}", event);
            if let Some(balancer) = world.nodes[0].balancer(endpoint(CLIENT)) {
                prop_assert_eq!(balancer.flows().len(), world.model.flows().len(), "{:?}", event);
            }
        }
    }
}
