//! `datapath`: packets through the user-space machine, ns for each, of random ones of 10,000 peers. Batches of 64 buffers; that they are
//! filled is not in the figure. A packet's size is that of its IP packet in the overlay.
//!
//! `machine-{encap,decap}-{64,1400}`: from a pinned port to VXLAN, and back, where the host hears members only; `machine-full-1400`: the way out with a policy
//! that follows flows, and to a service of 100 replicas, of 1,000 flows that stand; `machine-sealed-1400`: the way out in ESP, to
//! 1,000 peers; `line-load`: one load from as many lines of 64 bytes as there are peers, the least that a random one costs.
//! The yardsticks: a copy of the packet, and the AEAD alone, with as many keys.

use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use etherparse::PacketBuilder;
use overlay_bench::{Bench, Pace};
use overlay_core::{EndpointId, Instant, Mac, Mtu, NetworkId, Port, Protocol, Vni};
use overlay_crypto::{Cipher, Direction, Epoch, Epochs, Numbers, Sa, SaId, SaKey, Spi, Tunnel, WindowSize};
use overlay_datapath::{Buffer, Config, Datapath, Fate, Sandbox, Tables, Wanted};
use overlay_firewall::{Action, BridgePort, Member, Pin, PolicyRule, Selector, Strangers};
use overlay_lb::{Replica, Service, State};
use overlay_vxlan::{LocalPort, Peer, PortEnd, Segment, Vtep, names};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::crypto::now;
use crate::firewall::must;

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants("datapath") {
        return Ok(());
    }
    line_load(bench)?;
    for size in [64, 1_400] {
        encap(bench, size)?;
        decap(bench, size)?;
    }
    full(bench)?;
    sealed(bench)?;
    crate::datapath_fabric::run(bench)?;
    crate::datapath_offload::run(bench)?;
    crate::datapath_taps::run(bench)
}

/// How many packets a second leave a data plane and come by another, on one core.
pub(crate) fn alone(size: usize, pace: Pace) -> impl FnMut() -> f64 {
    let (mut out, mut leaving) = (datapath(&wanted(1)), Ring::new(size, frames(1, size)));
    let packets = frames(1, size).iter().map(|frame| arriving(0, frame)).collect();
    let (mut back, mut coming, round) = (datapath(&wanted(1)), Ring::new(size, packets), round(pace));
    move || {
        let leaves = leaving.measure(round, |batch| out.handle_frames(here(), batch, Instant::ZERO), is_underlay);
        let comes = coming.measure(round, |batch| back.handle_packets(batch, Instant::ZERO), is_port);
        1.0 / (leaves + comes)
    }
}

fn line_load(bench: &mut Bench<'_>) -> io::Result<()> {
    let lines: Vec<[u32; 16]> = (0..PEERS as u32).map(|number| [number; 16]).collect();
    let mut loaded = 0; // where the next is: so each load waits for the one before
    bench
        .figure("datapath/line-load", "ns")
        .each(|n| loaded = lines[random(n).wrapping_add(loaded) as usize % PEERS][0])
        .report()?;
    black_box(loaded);
    Ok(())
}

fn encap(bench: &mut Bench<'_>, size: usize) -> io::Result<()> {
    let (mut datapath, mut ring) = (datapath(&wanted(PEERS)), Ring::new(size, frames(PEERS, size)));
    figure(bench, format!("datapath/machine-encap-{size}"), size, move |round| {
        ring.measure(round, |batch| datapath.handle_frames(here(), batch, Instant::ZERO), is_underlay)
    })
}

fn decap(bench: &mut Bench<'_>, size: usize) -> io::Result<()> {
    let packets = frames(PEERS, size).into_iter().enumerate().map(|(number, frame)| arriving(number, &frame)).collect();
    let (mut datapath, mut ring) = (datapath(&wanted(PEERS)), Ring::new(size, packets));
    figure(bench, format!("datapath/machine-decap-{size}"), size, move |round| {
        ring.measure(round, |batch| datapath.handle_packets(batch, Instant::ZERO), is_port)
    })
}

fn full(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants("datapath/machine-full-1400") {
        return Ok(());
    }
    let wanted = with_policy(with_service(wanted(PEERS)));
    let mut datapath = datapath(&wanted);
    let flows = (0..FLOWS).map(|number| begin(&mut datapath, 10_000 + number as u16)).collect();
    let mut ring = Ring::new(SIZE, flows);
    figure(bench, "datapath/machine-full-1400".to_owned(), SIZE, move |round| {
        ring.measure(round, |batch| datapath.handle_frames(here(), batch, Instant::ZERO), is_underlay)
    })
}

fn sealed(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants("datapath/machine-sealed-1400") {
        return Ok(());
    }
    let (mut datapath, mut ring) = (datapath(&with_keys(wanted(TUNNELS))), Ring::new(SIZE, frames(TUNNELS, SIZE)));
    let (keys, mut bare) = (keys(), Ring::new(SIZE, frames(TUNNELS, SIZE)));
    let (mut copies, mut number) = (Ring::new(SIZE, frames(TUNNELS, SIZE)), 0_u64);
    let round = round(bench.pace());
    bench
        .figure("datapath/machine-sealed-1400", "ns")
        .measured(move || {
            ring.measure(round, |batch| datapath.handle_frames(here(), batch, Instant::ZERO), is_underlay)
        })
        .yardstick_measured("ring's AEAD alone", move || {
            let mut seal = |batch: &mut [Buffer]| {
                for buffer in batch {
                    number += 1;
                    let mut nonce = [0; 12];
                    nonce[4..].copy_from_slice(&number.to_be_bytes());
                    let key = &keys[random(number as usize) as usize % TUNNELS];
                    let text = &mut buffer.room()[..SIZE + 14];
                    let nonce = Nonce::assume_unique_for_key(nonce);
                    black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), text).is_ok());
                }
            };
            bare.measure(round, &mut seal, |_| true)
        })
        .yardstick_measured(MEMCPY, move || copies.measure(round, copy(SIZE), |_| true))
        .report()
}

fn figure(
    bench: &mut Bench<'_>,
    name: String,
    size: usize,
    mut subject: impl FnMut(Duration) -> f64,
) -> io::Result<()> {
    let round = round(bench.pace());
    let mut copies = Ring::new(size, frames(64, size));
    bench
        .figure(name, "ns")
        .measured(move || subject(round))
        .yardstick_measured(MEMCPY, move || copies.measure(round, copy(size), |_| true))
        .report()
}

/// Copies a frame of that size elsewhere.
fn copy(size: usize) -> impl FnMut(&mut [Buffer]) {
    let mut to = vec![0; size + 14];
    move |batch| {
        for buffer in batch {
            to.copy_from_slice(&black_box(&mut *buffer).room()[..size + 14]);
            black_box(&mut to);
        }
    }
}

/// A batch, and what it is filled with: the beginnings of packets, all of one length.
struct Ring {
    batch: Vec<Buffer>,
    heads: Vec<[u8; HEAD]>,
    len: usize,
    next: usize,
}

impl Ring {
    fn new(size: usize, packets: Vec<Vec<u8>>) -> Self {
        let len = packets[0].len();
        let head = |packet: Vec<u8>| std::array::from_fn(|at| packet.get(at).copied().unwrap_or_default());
        let batch = vec![Buffer::new(size + 200); BATCH];
        Self { batch, heads: packets.into_iter().map(head).collect(), len, next: 0 }
    }

    /// Seconds for each packet.
    fn measure(&mut self, round: Duration, mut work: impl FnMut(&mut [Buffer]), right: fn(Fate) -> bool) -> f64 {
        let (mut took, mut count) = (Duration::ZERO, 0_u32);
        while took < round {
            for buffer in &mut self.batch {
                self.next += 1;
                let head = &self.heads[random(self.next) as usize % self.heads.len()];
                let len = HEAD.min(self.len);
                buffer.room()[..len].copy_from_slice(&head[..len]);
                assert_eq!(buffer.filled(self.len), Ok(()));
            }
            let start = now();
            work(black_box(&mut self.batch));
            took += start.elapsed();
            count += BATCH as u32;
        }
        let wrong = self.batch.iter().find(|buffer| !right(buffer.fate()));
        assert!(wrong.is_none(), "{wrong:?}");
        took.as_secs_f64() / f64::from(count)
    }
}

const fn is_underlay(fate: Fate) -> bool {
    matches!(fate, Fate::Underlay { .. })
}

const fn is_port(fate: Fate) -> bool {
    matches!(fate, Fate::Port(_))
}

fn datapath(wanted: &Wanted) -> Datapath {
    let mut datapath = Datapath::new(Config::default(), [7; 32], Instant::ZERO);
    datapath.handle_tables(Arc::new(must(Tables::new(wanted).map_err(Into::into))), Instant::ZERO);
    datapath
}

fn here() -> EndpointId {
    EndpointId::from_bytes([1; 16])
}

fn peer(number: usize) -> (Mac, Ipv4Addr, Ipv4Addr) {
    let address = Ipv4Addr::from(0x0a10_0000 + number as u32);
    (Mac::from_ipv4(address), address, Ipv4Addr::from(0xc612_0000 + number as u32))
}

/// One endpoint here, and so many peers, each on a node of its own.
fn wanted(peers: usize) -> Wanted {
    let mut segment = Segment::new(Vtep::new(LOCAL.into()), must(Mtu::new(1_450).map_err(Into::into)));
    let interface = must("tap1".parse().map_err(|_| "a name".into()));
    let own = must("10.1.0.1/8".parse().map_err(|_| "a network".into()));
    segment.ports.insert(
        here(),
        LocalPort { mac: Mac::from_ipv4(OWN), addresses: [own].into(), end: PortEnd::Tap { interface } },
    );
    let mut wanted = Wanted::default();
    let tunnel = wanted.host.tunnels.entry(Port::VXLAN).or_default();
    for (mac, address, vtep) in (0..peers).map(peer) {
        segment.peers.insert(mac, Peer { vtep: vtep.into(), addresses: [address.into()].into() });
        tunnel.members.insert(vtep.into());
    }
    let mut sandbox = Sandbox::default();
    sandbox.firewall.strangers = Strangers::Drop;
    let pin = Pin::new(Mac::from_ipv4(OWN), [IpAddr::V4(OWN)]);
    sandbox.firewall.ports.insert(interface, BridgePort::Pinned(pin));
    sandbox.firewall.ports.insert(must(names::tunnel(vni()).map_err(|_| "a name".into())), BridgePort::Trunk);
    sandbox.vxlan.segments.insert(vni(), segment);
    wanted.networks.insert(NetworkId::from_bytes([9; 16]), sandbox);
    wanted
}

fn vni() -> Vni {
    must(Vni::new(4_096).map_err(Into::into))
}

/// UDP from here to each peer.
fn frames(peers: usize, size: usize) -> Vec<Vec<u8>> {
    let frame = |number: usize| {
        let (mac, address, _) = peer(number);
        udp((Mac::from_ipv4(OWN), OWN, 5_000), (mac, address, 53), size)
    };
    (0..peers).map(frame).collect()
}

type End = (Mac, Ipv4Addr, u16);

fn udp(from: End, to: End, size: usize) -> Vec<u8> {
    let step = PacketBuilder::ethernet2(from.0.octets(), to.0.octets());
    let step = step.ipv4(from.1.octets(), to.1.octets(), 64).udp(from.2, to.2);
    let mut frame = Vec::new();
    must(step.write(&mut frame, &vec![7; size - 28]).map_err(Into::into));
    frame
}

/// The answer to a frame, as it comes from a peer.
fn arriving(number: usize, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (to, from) = frame.split_at_mut(6);
    to.swap_with_slice(&mut from[..6]);
    let (from, to) = frame.split_at_mut(30);
    from[26..].swap_with_slice(&mut to[..4]);
    let datagram = [&[8, 0, 0, 0, 0, 0x10, 0, 0], &frame[..]].concat();
    let step =
        PacketBuilder::ipv4(peer(number).2.octets(), LOCAL.octets(), 64).udp(50_000 + (number % 10_000) as u16, 4_789);
    let mut packet = Vec::new();
    must(step.write(&mut packet, &datagram).map_err(Into::into));
    packet[26..28].fill(0); // no checksum, as nodes send
    packet
}

/// 100 of the peers serve at a VIP.
fn with_service(mut wanted: Wanted) -> Wanted {
    let port = |port| must(Port::new(port).map_err(Into::into));
    let mut service = Service::new([IpAddr::V4(VIP)]).port(Protocol::Udp, port(80), port(8_080));
    let replica =
        |number: usize| (EndpointId::from_bytes([100 + number as u8; 16]), Replica::new([peer(number * 100).1.into()]));
    service.replicas = (0..100).map(replica).collect();
    let name = must("web".parse().map_err(|_| "a name".into()));
    let state = State { services: [(name, service)].into_iter().collect(), ..State::default() };
    wanted.services.insert(here(), Arc::new(state));
    wanted
}

/// What is here may ask who serves, and nobody else anybody.
fn with_policy(mut wanted: Wanted) -> Wanted {
    for sandbox in wanted.networks.values_mut() {
        let policy = &mut sandbox.firewall.policy;
        policy.otherwise = Action::Deny;
        let member = |address: Ipv4Addr, is: &str| Member {
            addresses: [address.into()].into(),
            labels: [("is".to_owned(), is.to_owned())].into(),
        };
        policy.members.insert(here(), member(OWN, "client"));
        for number in 0..100 {
            policy
                .members
                .insert(EndpointId::from_bytes([100 + number as u8; 16]), member(peer(number * 100).1, "web"));
        }
        let of = |is: &str| Selector::labels([("is", is)]);
        let name = must("client-asks-web".parse().map_err(|_| "a name".into()));
        policy.rules.insert(name, PolicyRule::allow(of("client"), of("web")));
    }
    wanted
}

/// The frame of a flow that was answered.
fn begin(datapath: &mut Datapath, port: u16) -> Vec<u8> {
    let gateway = names::gateway_mac(vni());
    let frame = udp((Mac::from_ipv4(OWN), OWN, port), (gateway, VIP, 80), SIZE);
    let mut batch = [Buffer::new(2_000)];
    assert_eq!(batch[0].fill(&frame), Ok(()));
    datapath.handle_frames(here(), &mut batch, Instant::ZERO);
    let Fate::Underlay { to: IpAddr::V4(to), .. } = batch[0].fate() else { panic!("{:?}", batch[0].fate()) };
    let number = (u32::from(to) - 0xc612_0000) as usize;
    let (mac, address, _) = peer(number);
    let answer = udp((Mac::from_ipv4(OWN), OWN, port), (mac, address, 8_080), SIZE);
    let mut answer = arriving(number, &answer);
    answer[70..74].rotate_left(2); // its ports the other way round, too
    assert_eq!(batch[0].fill(&answer), Ok(()));
    datapath.handle_packets(&mut batch, Instant::ZERO);
    assert!(is_port(batch[0].fate()), "{:?}", batch[0].fate());
    frame
}

/// All tunnels are protected, each by a key of its own.
fn with_keys(mut wanted: Wanted) -> Wanted {
    wanted.crypto.ports.insert(Port::VXLAN);
    for number in 0..TUNNELS {
        let (destination, mut key) = (IpAddr::V4(peer(number).2), [7; 36]);
        key[..8].copy_from_slice(&number.to_be_bytes());
        let spi = must(Spi::new(0x1000 + number as u32).map_err(Into::into));
        let sa = Sa {
            direction: Direction::Out,
            source: LOCAL.into(),
            port: Port::VXLAN,
            numbers: Numbers::Extended,
            window: WindowSize::default(),
            limits: None,
            udp: None,
            epochs: Epochs { sender: Epoch::FIRST, receiver: Epoch::FIRST },
            key: must(SaKey::new(Cipher::Aes256Gcm, &key).map_err(Into::into)),
        };
        must(wanted.crypto.add(SaId { destination, spi }, sa).map_err(Into::into));
        wanted.crypto.tunnels.insert(Tunnel { port: Port::VXLAN, local: LOCAL.into(), peer: destination }, vec![spi]);
    }
    wanted
}

fn keys() -> Vec<LessSafeKey> {
    let key = |number: usize| {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        LessSafeKey::new(must(UnboundKey::new(&AES_256_GCM, &key).map_err(|_| "a key".into())))
    };
    (0..TUNNELS).map(key).collect()
}

fn round(pace: Pace) -> Duration {
    Duration::from_micros(if pace == Pace::Quick { 1_000 } else { 20_000 })
}

/// Spreads numbers, the same each time.
fn random(number: usize) -> u32 {
    ((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

const MEMCPY: &str = "memcpy";
const PEERS: usize = 10_000;
const TUNNELS: usize = 1_000;
const FLOWS: usize = 1_000;
const BATCH: usize = 64;
const SIZE: usize = 1_400;
const HEAD: usize = 128;
const OWN: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 255, 1);
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
