//! The suite in memory: a balancer between a client and replicas that are played.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use etherparse::{IpHeaders, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};
use overlay_core::{Instant, IpFamily, Meter as _, Protocol};
use overlay_lb::{Balancer, Capabilities, Config, State, Verdict};

use crate::suite::{self, Answer, Ground, HERE, Held};

struct Played {
    balancer: Balancer,
    now: Instant,
    next: u16,
    held: Vec<(Protocol, SocketAddr, SocketAddr)>,
}

fn step(from: IpAddr, to: IpAddr) -> PacketBuilderStep<IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("of one family"),
    }
}

fn packet(protocol: Protocol, from: SocketAddr, to: SocketAddr, (syn, ack): (bool, bool)) -> Vec<u8> {
    let step = step(from.ip(), to.ip());
    let mut bytes = Vec::new();
    if protocol == Protocol::Udp {
        step.udp(from.port(), to.port()).write(&mut bytes, b"?").unwrap();
        return bytes;
    }
    let mut tcp = step.tcp(from.port(), to.port(), 1, 1000);
    tcp = if syn { tcp.syn() } else { tcp };
    tcp = if ack { tcp.ack(1) } else { tcp };
    tcp.write(&mut bytes, &[]).unwrap();
    bytes
}

fn ends(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let (from, to): (IpAddr, IpAddr) = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        other => panic!("{other:?}"),
    };
    let (a, b) = match sliced.transport.unwrap() {
        TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
        other => panic!("{other:?}"),
    };
    (SocketAddr::new(from, a), SocketAddr::new(to, b))
}

impl Played {
    /// Sends a packet and has the replica that gets it answer.
    fn converse(&mut self, (protocol, from, to): (Protocol, SocketAddr, SocketAddr), first: bool) -> Answer {
        let mut asks = packet(protocol, from, to, (first, !first));
        match self.balancer.handle_packet(&mut asks, self.now) {
            Verdict::Forth { replica } if replica.port() == 8080 => {
                let (seen, at) = ends(&asks);
                let mut answers = packet(protocol, at, seen, (first, true));
                assert_eq!(self.balancer.handle_packet(&mut answers, self.now), Verdict::Back);
                assert_eq!(ends(&answers), (to, from));
                Answer::From(replica.ip(), seen.ip())
            }
            Verdict::Forth { .. } | Verdict::Answer(_) => Answer::Refused,
            _ => Answer::Silence,
        }
    }
}

impl Ground for Played {
    fn capabilities(&self) -> Capabilities {
        Balancer::capabilities()
    }

    fn settle(&mut self, state: &State) {
        self.balancer.handle_state(Arc::new(state.clone()), self.now).unwrap();
        while self.balancer.poll_transmit().is_some() {}
    }

    fn open(&mut self, protocol: Protocol, to: SocketAddr) -> (Held, Answer) {
        let from = HERE[usize::from(IpFamily::of(to.ip()) == IpFamily::V6)].parse().unwrap();
        self.next += 1;
        let held = (protocol, SocketAddr::new(from, self.next), to);
        self.held.push(held);
        (self.held.len() - 1, self.converse(held, true))
    }

    fn ask(&mut self, held: Held) -> Answer {
        self.converse(self.held[held], false)
    }

    fn close(&mut self, held: Held) {
        let (protocol, from, to) = self.held[held];
        if protocol == Protocol::Tcp {
            let mut reset = Vec::new();
            step(from.ip(), to.ip()).tcp(from.port(), to.port(), 1, 1000).rst().write(&mut reset, &[]).unwrap();
            let _ = self.balancer.handle_packet(&mut reset, self.now);
        }
    }

    fn flows(&mut self, replica: IpAddr) -> u64 {
        self.balancer.read().unwrap().of_replica(replica)
    }

    fn pings(&mut self, to: IpAddr) -> bool {
        let from: IpAddr = HERE[usize::from(to.is_ipv6())].parse().unwrap();
        let mut bytes = Vec::new();
        match to {
            IpAddr::V4(_) => step(from, to).icmpv4_echo_request(1, 1).write(&mut bytes, &[]).unwrap(),
            IpAddr::V6(_) => step(from, to).icmpv6_echo_request(1, 1).write(&mut bytes, &[]).unwrap(),
        }
        matches!(self.balancer.handle_packet(&mut bytes, self.now), Verdict::Answer(_))
    }

    fn wait(&mut self, span: Duration) -> bool {
        let end = self.now + span;
        while let Some(due) = self.balancer.poll_timeout().filter(|due| *due <= end) {
            self.now = due;
            self.balancer.handle_timeout(due);
        }
        self.now = end;
        true
    }
}

#[test]
fn the_balancer_in_memory_does_what_it_says_it_can() {
    let balancer = Balancer::new(Config::default(), [4; 32], Instant::ZERO);
    suite::run(&mut Played { balancer, now: Instant::ZERO, next: 20_000, held: Vec::new() });
}
