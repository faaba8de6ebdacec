//! `datapath`: packets in user space, by a machine on one core. `datapath/machine-encap-{64,1400}`: a frame of that many bytes from an endpoint here to one of 10,000 on 1,000
//! nodes, at random, made a VXLAN packet; `machine-decap-…` the same in the other direction. The bytes are there before: no copy is in the figure, and the yardstick is
//! one. `machine-full-1400`: with the sender pinned, a policy that follows the flow, and a virtual service whose flow is known, 1,000 flows at random;
//! `machine-sealed-1400`: that on an encrypted network, held to the AEAD by itself plus `full`. `machine-opened-1400`: back from there. `datapath/split-1400` and `datapath/gather-1400`: a frame of 64 KiB cut
//! into segments and gathered again, each segment.

#![expect(clippy::expect_used, reason = "a benchmark that cannot run ends")]

use std::hint::black_box;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant as Clock;

use etherparse::PacketBuilder;
use overlay_bench::{Bench, Pace};
use overlay_core::{EndpointId, Instant, Mac, Mtu, NetworkId, Port, Protocol, Vni};
use overlay_crypto::{Cipher, Direction, Epoch, Epochs, Numbers, Sa, SaId, SaKey, Spi, Tunnel, WindowSize};
use overlay_datapath::offload::{Checksum, Coalescer, Gso, GsoKind, Merging, Segments, VnetHeader};
use overlay_datapath::{Buffer, Config, Datapath, Fate, Sandbox, Tables, Wanted};
use overlay_firewall::{Action, BridgePort, Member, Pin, PolicyRule, Selector, Strangers};
use overlay_lb::{Replica, Service, State};
use overlay_vxlan::{LocalPort, Peer, PortEnd, Segment, Vtep, names};

use crate::crypto::Bare;

const NOW: Instant = Instant::ZERO;
const PEERS: u32 = 10_000;
const NODES: u32 = 1_000;
const FLOWS: u16 = 1_000;
/// Packets of a batch, made before each measurement of one.
const BATCH: usize = 64;
const SMALL: usize = 64;
const LARGE: usize = 1_400;
const ESP_PORT: u16 = 4_793;

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    plain(bench)?;
    full(bench)?;
    sealed(bench)?;
    offloads(bench)
}

/// The one endpoint of a node: the client, or the replica that it asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Replica,
}

const CLIENT: u32 = 0x0a14_0002;
const VIP: u32 = 0x0a14_00ff;
/// The first of those that are elsewhere.
const FIRST: u32 = 0x0a0a_0001;

fn endpoint(address: u32) -> EndpointId {
    EndpointId::from_bytes(u128::from(address).to_be_bytes())
}

fn mac(address: u32) -> Mac {
    Mac::from_ipv4(address.into())
}

fn ip(address: u32) -> IpAddr {
    std::net::Ipv4Addr::from(address).into()
}

/// Where the endpoint `number` of the many is.
fn node(number: u32) -> IpAddr {
    ip(0xc000_0200 + number % NODES)
}

fn vni() -> Vni {
    Vni::new(4_096).expect("a VNI")
}

/// A node with one endpoint: the client, or the first of the many, to whom all the others are elsewhere.
fn wanted(of: Side, count: u32) -> Wanted {
    let here = if of == Side::Client { CLIENT } else { FIRST };
    let mut segment = Segment::new(
        Vtep::new(if of == Side::Client { ip(0xc612_0001) } else { node(0) }),
        Mtu::new(1_500).expect("an MTU"),
    );
    let interface = "tap0".parse().expect("a name");
    let addresses = [ipnet::IpNet::new(ip(here), 8).expect("a prefix")].into();
    segment.ports.insert(endpoint(here), LocalPort { mac: mac(here), addresses, end: PortEnd::Tap { interface } });
    let mut sandbox = Sandbox::default();
    if of == Side::Client {
        for number in 0..count {
            let address = FIRST + number;
            segment.peers.insert(mac(address), Peer { vtep: node(number), addresses: [ip(address)].into() });
        }
    } else {
        segment.peers.insert(mac(CLIENT), Peer { vtep: ip(0xc612_0001), addresses: [ip(CLIENT)].into() });
    }
    sandbox.firewall.ports.insert(names::tunnel(vni()).expect("a name"), BridgePort::Trunk);
    sandbox.firewall.ports.insert(interface, BridgePort::Trunk);
    sandbox.vxlan.segments.insert(vni(), segment);
    Wanted { networks: [(NetworkId::from_bytes([9; 16]), sandbox)].into(), ..Wanted::default() }
}

/// With all that a frame can meet.
fn guarded(of: Side) -> Wanted {
    let mut wanted = wanted(of, 1);
    let here = if of == Side::Client { CLIENT } else { FIRST };
    for sandbox in wanted.networks.values_mut() {
        sandbox.firewall.strangers = Strangers::Drop;
        let interface = "tap0".parse().expect("a name");
        sandbox.firewall.ports.insert(interface, BridgePort::Pinned(Pin::new(mac(here), [ip(here)])));
        let policy = &mut sandbox.firewall.policy;
        policy.otherwise = Action::Deny;
        for (address, is) in [(CLIENT, "client"), (FIRST, "replica")] {
            let labels = [("is".to_owned(), is.to_owned())].into();
            policy.members.insert(endpoint(address), Member { addresses: [ip(address)].into(), labels });
        }
        let rule = PolicyRule::allow(Selector::labels([("is", "client")]), Selector::labels([("is", "replica")]));
        policy.rules.insert("ask".parse().expect("a name"), rule);
    }
    if of == Side::Client {
        let port = |number| Port::new(number).expect("a port");
        let mut service = Service::new([ip(VIP)]).port(Protocol::Udp, port(80), port(8_080));
        service.replicas = [(endpoint(FIRST), Replica::new([ip(FIRST)]))].into();
        let services = [("web".parse().expect("a name"), service)].into_iter().collect();
        wanted.services.insert(endpoint(CLIENT), Arc::new(State { services, ..State::default() }));
    }
    wanted
}

/// The same, encrypted.
fn encrypted(of: Side) -> Wanted {
    let (mut wanted, port) = (guarded(of), Port::new(ESP_PORT).expect("a port"));
    for segment in wanted.networks.values_mut().flat_map(|sandbox| sandbox.vxlan.segments.values_mut()) {
        segment.vtep.port = port;
    }
    wanted.crypto.ports.insert(port);
    let ends = [ip(0xc612_0001), node(0)];
    let [local, peer] = if of == Side::Client { ends } else { [ends[1], ends[0]] };
    for (direction, source, destination) in [(Direction::In, peer, local), (Direction::Out, local, peer)] {
        let from = if source == ends[0] { 1 } else { 2 };
        let epochs = Epochs { sender: Epoch::FIRST, receiver: Epoch::FIRST };
        let key = SaKey::new(Cipher::Aes256Gcm, &[from; 36]).expect("a key");
        let (numbers, window) = (Numbers::Extended, WindowSize::default());
        let sa = Sa { direction, source, port, numbers, window, udp: None, limits: None, epochs, key };
        let id = SaId { destination, spi: Spi::new(0x1000 + u32::from(from)).expect("an SPI") };
        wanted.crypto.add(id, sa).expect("it is new");
    }
    let own = if of == Side::Client { 1 } else { 2 };
    wanted.crypto.tunnels.insert(Tunnel { port, local, peer }, vec![Spi::new(0x1000 + own).expect("an SPI")]);
    wanted
}

fn datapath(wanted: &Wanted) -> Datapath {
    let mut datapath = Datapath::new(Config::default(), [7; 32], NOW);
    datapath.handle_tables(Arc::new(Tables::new(wanted).expect("it is right")), NOW);
    datapath
}

/// A frame of so many bytes.
fn frame(to: (Mac, u32, u16), from_port: u16, len: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(mac(CLIENT).octets(), to.0.octets());
    let builder = builder.ipv4(CLIENT.to_be_bytes(), to.1.to_be_bytes(), 64).udp(from_port, to.2);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![0x5a; len - 42]).expect("it fits");
    bytes
}

/// Seconds for one packet: batch after batch, each made before the clock is looked at.
fn each(
    pace: Pace,
    buffers: &mut [Buffer],
    mut fill: impl FnMut(usize, &mut Buffer),
    mut work: impl FnMut(&mut [Buffer]),
) -> f64 {
    let rounds = if pace == Pace::Quick { 20 } else { 400 };
    let (mut seconds, mut count) = (0.0, 0);
    for _ in 0..rounds {
        for buffer in &mut *buffers {
            fill(count, buffer);
            count += 1;
        }
        let start = Clock::now();
        work(buffers);
        seconds += start.elapsed().as_secs_f64();
    }
    seconds / count as f64
}

fn buffers() -> Vec<Buffer> {
    vec![Buffer::new(2_000); BATCH]
}

fn random(n: usize) -> u32 {
    let n = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
}

/// The copy that is in no figure.
fn copy(pace: Pace, len: usize) -> f64 {
    let (from, mut to) = (vec![7; BATCH * 2_048], vec![0; BATCH * 2_048]);
    let rounds = if pace == Pace::Quick { 100 } else { 4_000 };
    let start = Clock::now();
    for _ in 0..rounds {
        for at in (0..BATCH).map(|at| at * 2_048) {
            black_box(&mut to[at..at + len]).copy_from_slice(black_box(&from[at..at + len]));
        }
    }
    start.elapsed().as_secs_f64() / f64::from(rounds) / BATCH as f64
}

fn plain(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants("datapath/machine-encap") && !bench.wants("datapath/machine-decap") {
        return Ok(());
    }
    let pace = bench.pace();
    let mut out = datapath(&wanted(Side::Client, PEERS));
    // Everybody asks one endpoint here, from wherever they are.
    let mut back = datapath(&wanted(Side::Client, PEERS));
    for len in [SMALL, LARGE] {
        let frames: Vec<_> =
            (0..PEERS).map(|number| frame((mac(FIRST + number), FIRST + number, 80), number as u16, len)).collect();
        let packets: Vec<_> = (0..PEERS).map(|number| arriving(number, len)).collect();
        let [mut one, mut two] = [buffers(), buffers()];
        bench
            .figure(format!("datapath/machine-encap-{len}"), "ns")
            .measured(|| {
                let fill = |n, buffer: &mut Buffer| buffer.fill(&frames[(random(n) % PEERS) as usize]).expect("room");
                each(pace, &mut one, fill, |batch| {
                    out.handle_frames(endpoint(CLIENT), batch, NOW);
                    assert!(matches!(batch[0].fate(), Fate::Underlay { .. }));
                })
            })
            .yardstick_measured("memcpy of the packet", || copy(pace, len))
            .report()?;
        bench
            .figure(format!("datapath/machine-decap-{len}"), "ns")
            .measured(|| {
                let fill = |n, buffer: &mut Buffer| buffer.fill(&packets[(random(n) % PEERS) as usize]).expect("room");
                each(pace, &mut two, fill, |batch| {
                    back.handle_packets(batch, NOW);
                    assert_eq!(batch[0].fate(), Fate::Port(endpoint(CLIENT)));
                })
            })
            .yardstick_measured("memcpy of the packet", || copy(pace, len))
            .report()?;
    }
    Ok(())
}

/// A packet as it comes from the node of the endpoint `number`.
fn arriving(number: u32, len: usize) -> Vec<u8> {
    let from = FIRST + number;
    let builder = PacketBuilder::ethernet2(mac(from).octets(), mac(CLIENT).octets());
    let builder = builder.ipv4(from.to_be_bytes(), CLIENT.to_be_bytes(), 64).udp(80, 1_000);
    let mut inner = Vec::new();
    builder.write(&mut inner, &vec![0x5a; len - 42]).expect("it fits");
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (node(number), ip(0xc612_0001)) else { return Vec::new() };
    let addresses = overlay_vxlan::Addresses::V4 { source, destination };
    let outer =
        overlay_vxlan::Outer::new(addresses, Port::new(50_000 + number as u16 % 10_000).expect("a port"), vni());
    let mut bytes = vec![0; 64];
    let start = outer.prepend(&mut bytes, inner.len()).expect("room");
    bytes.drain(..start);
    bytes.extend(inner);
    bytes
}

/// Frames to the service, of all flows.
fn asking() -> Vec<Vec<u8>> {
    let gateway = names::gateway_mac(vni());
    (0..FLOWS).map(|flow| frame((gateway, VIP, 80), 10_000 + flow, LARGE)).collect()
}

fn full(bench: &mut Bench<'_>) -> io::Result<()> {
    let (pace, frames, mut batch) = (bench.pace(), asking(), buffers());
    let mut out = datapath(&guarded(Side::Client));
    bench
        .figure("datapath/machine-full-1400", "ns")
        .measured(|| pass(pace, &frames, &mut batch, &mut out))
        .yardstick_measured("memcpy of the packet", || copy(pace, LARGE))
        .report()
}

fn pass(pace: Pace, frames: &[Vec<u8>], batch: &mut [Buffer], out: &mut Datapath) -> f64 {
    let fill = |n, buffer: &mut Buffer| buffer.fill(&frames[random(n) as usize % frames.len()]).expect("room");
    each(pace, batch, fill, |batch| {
        out.handle_frames(endpoint(CLIENT), batch, NOW);
        assert!(matches!(batch[0].fate(), Fate::Underlay { .. }), "{:?}", batch[0].fate());
    })
}

fn sealed(bench: &mut Bench<'_>) -> io::Result<()> {
    let (pace, frames) = (bench.pace(), asking());
    let mut batches = [(); 3].map(|()| buffers());
    let [one, two, three] = &mut batches;
    let (mut out, mut clear) = (datapath(&encrypted(Side::Client)), datapath(&guarded(Side::Client)));
    let mut bare = Bare::alone(Cipher::Aes256Gcm);
    bench
        .figure("datapath/machine-sealed-1400", "ns")
        .measured(|| pass(pace, &frames, one, &mut out))
        .yardstick_measured("ring's AEAD alone, and machine-full", || {
            let fill = |n: usize, buffer: &mut Buffer| buffer.fill(&frames[n % frames.len()]).expect("room");
            let alone = each(pace, three, fill, |batch| {
                batch.iter_mut().for_each(|buffer| bare.seal(black_box(buffer.room()), LARGE + 16));
            });
            alone + pass(pace, &frames, two, &mut clear)
        })
        .report()?;
    let (mut sender, mut receiver) = (datapath(&encrypted(Side::Client)), datapath(&encrypted(Side::Replica)));
    let mut made = Buffer::new(2_000);
    bench
        .figure("datapath/machine-opened-1400", "ns")
        .measured(|| {
            let fill = |n: usize, buffer: &mut Buffer| {
                made.fill(&frames[random(n) as usize % frames.len()]).expect("room");
                sender.handle_frames(endpoint(CLIENT), std::slice::from_mut(&mut made), NOW);
                buffer.fill(made.packet()).expect("room");
            };
            each(pace, one, fill, |batch| {
                receiver.handle_packets(batch, NOW);
                assert_eq!(batch[0].fate(), Fate::Port(endpoint(FIRST)));
            })
        })
        .report()
}

fn offloads(bench: &mut Bench<'_>) -> io::Result<()> {
    const COUNT: usize = 46;
    let size = LARGE - 54;
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(CLIENT.to_be_bytes(), FIRST.to_be_bytes(), 64);
    let mut whole = Vec::new();
    builder.tcp(40_000, 80, 1, 512).ack(1).write(&mut whole, &vec![0x5a; size * COUNT]).expect("it fits");
    let gso = Gso { kind: GsoKind::TcpV4, size: size as u16, header_len: 54, congestion: false };
    let header = VnetHeader { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) };
    let mut pieces = vec![vec![0; LARGE]; COUNT];
    let cut = |pieces: &mut [Vec<u8>]| {
        let segments = Segments::new(header, black_box(&whole)).expect("it is right");
        for (at, piece) in pieces.iter_mut().enumerate() {
            assert_eq!(segments.write(at, piece), Some(LARGE));
        }
    };
    cut(&mut pieces);
    let (pace, arrived) = (bench.pace(), pieces.clone());
    let timed = |work: &mut dyn FnMut()| {
        let rounds = if pace == Pace::Quick { 10 } else { 200 };
        let start = Clock::now();
        (0..rounds).for_each(|_| work());
        start.elapsed().as_secs_f64() / f64::from(rounds) / COUNT as f64
    };
    bench
        .figure("datapath/split-1400", "ns")
        .measured(|| timed(&mut || cut(&mut pieces)))
        .yardstick_measured("memcpy of the packet", || copy(pace, LARGE))
        .report()?;
    let mut coalescer = Coalescer::new(Merging::default());
    bench
        .figure("datapath/gather-1400", "ns")
        .measured(|| {
            timed(&mut || {
                let mut given = 0;
                arrived.iter().for_each(|piece| coalescer.push(piece, |_, _| given += 1));
                coalescer.flush(|_, _| given += 1);
                assert_eq!(given, 1);
            })
        })
        .yardstick_measured("memcpy of the packet", || copy(pace, LARGE))
        .report()
}
