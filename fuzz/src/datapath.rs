//! The user-space data plane: frames of any endpoint, and packets of anybody on the underlay.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{EndpointId, Instant, Mac, Mtu, NetworkId, Port, Protocol, Vni};
use overlay_crypto::{Cipher, Direction, Epoch, Epochs, Numbers, Sa, SaId, SaKey, Spi, Tunnel, WindowSize};
use overlay_datapath::offload::{Coalescer, Merging, Segments, VnetHeader};
use overlay_datapath::{Buffer, Config, Datapath, Fate, Rate, Sandbox, Tables, Wanted};
use overlay_firewall::{Action, BridgePort, Member, Pin, PolicyRule, Selector, Strangers};
use overlay_lb::{Replica, Service, State};
use overlay_vxlan::{Frame, LocalPort, Peer, PortEnd, Segment, Vtep, names};

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] =
    &[("datapath_frames", frames), ("datapath_offload", offload), ("datapath_packets", packets)];

/// A conversation: each frame has its length before it. Whatever an endpoint sends, it has one fate, which is counted; what leaves is from this node, for a
/// known one, and of a station that it is.
fn frames(bytes: &[u8]) {
    let Some(mut datapath) = datapath() else { return };
    for_each(bytes, |frame, now| {
        let mut batch = [Buffer::new(512)];
        if batch[0].fill(frame).is_err() {
            return;
        }
        let before = datapath.counts().clone();
        datapath.handle_frames(here(), &mut batch, now);
        assert_ne!(datapath.counts(), &before, "each fate is counted");
        match batch[0].fate() {
            Fate::Waiting => panic!("it has been seen"),
            Fate::Underlay { from, to } => leaves((from, to), batch[0].packet()),
            Fate::Port(to) => {
                assert!([here(), beside()].contains(&to));
                assert!(Frame::parse(batch[0].packet()).is_ok());
            }
            Fate::Copied | Fate::Drop(_) => {}
        }
        poll(&mut datapath, now);
    });
}

/// What a guest gave: frames, each with the header of a tap in front. What reads is written again and reads alike; a frame is cut into as many as is said, none
/// longer than is said; and what is put together of those can be cut again.
fn offload(bytes: &[u8]) {
    let mut coalescer = Coalescer::new(Merging::default());
    let mut cut_again = |header: VnetHeader, frame: &[u8]| {
        let again = Segments::new(header, frame);
        assert!(again.is_ok(), "{again:?}: {header:?}");
    };
    for_each(bytes, |given, _| {
        let Ok(header) = VnetHeader::read(given) else { return };
        let mut written = [0; VnetHeader::LEN];
        header.write(&mut written);
        assert_eq!(VnetHeader::read(&written), Ok(header));
        let Ok(segments) = Segments::new(header, &given[VnetHeader::LEN..]) else { return };
        assert!((1..=Segments::MOST).contains(&segments.len()));
        let mut frame = vec![0; segments.longest()];
        for at in 0..segments.len() {
            let Some(len) = segments.write(at, &mut frame) else { panic!("segment {at} of {segments:?}") };
            coalescer.push(&frame[..len], &mut cut_again);
        }
        assert_eq!(segments.write(segments.len(), &mut frame), None);
    });
    coalescer.flush(cut_again);
}

/// Packets of anybody on the underlay, in the clear and as if sealed: what is not dropped goes to endpoints here.
fn packets(bytes: &[u8]) {
    let Some(mut datapath) = datapath() else { return };
    for_each(bytes, |packet, now| {
        let mut batch = [Buffer::new(512)];
        if batch[0].fill(packet).is_err() {
            return;
        }
        datapath.handle_packets(&mut batch, now);
        match batch[0].fate() {
            Fate::Port(to) => {
                assert!([here(), beside()].contains(&to));
                assert!(batch[0].packet().len() <= packet.len());
            }
            Fate::Copied | Fate::Drop(_) => {}
            other => panic!("{other:?}"),
        }
        poll(&mut datapath, now);
    });
}

fn for_each(bytes: &[u8], mut then: impl FnMut(&[u8], Instant)) {
    let (mut rest, mut now) = (bytes, Instant::ZERO);
    while let [length, more @ ..] = rest {
        let (packet, after) = more.split_at(usize::from(*length).min(more.len()));
        (rest, now) = (after, now + Duration::from_millis(u64::from(*length) * 10));
        then(packet, now);
    }
}

fn poll(datapath: &mut Datapath, now: Instant) {
    datapath.handle_timeout(now);
    let mut buffer = Buffer::new(512);
    while datapath.poll_transmit(&mut buffer, now) {
        match buffer.fate() {
            Fate::Underlay { from, to } => leaves((from, to), buffer.packet()),
            Fate::Port(to) => assert!([here(), beside()].contains(&to)),
            other => panic!("{other:?}"),
        }
    }
    assert!(datapath.flows() <= 8);
}

/// What leaves is a whole packet; in the clear where the network is, and in ESP where it is encrypted.
fn leaves((from, to): (IpAddr, IpAddr), packet: &[u8]) {
    assert_eq!((from, to), (vtep(1), vtep(2)));
    let protocol = packet.get(9);
    match protocol {
        Some(17) => match overlay_vxlan::Packet::parse_ip(packet, Port::VXLAN) {
            Ok(Some(packet)) => assert!(is_here(packet.inner.ethernet.source())),
            other => panic!("{other:?}"),
        },
        _ => panic!("in the clear it is UDP: {protocol:?}"),
    }
}

/// An endpoint's, or a gateway's that routes for it.
fn is_here(mac: Mac) -> bool {
    let gateways = Vni::new(VNI).is_ok_and(|vni| names::gateway_mac(vni) == mac);
    gateways || (1..3).any(|number| self::mac(number) == mac)
}

const VNI: u32 = 4_096;

fn here() -> EndpointId {
    EndpointId::from_bytes([1; 16])
}

fn beside() -> EndpointId {
    EndpointId::from_bytes([2; 16])
}

fn mac(number: u8) -> Mac {
    Mac::from_ipv4([10, 0, 9, number].into())
}

fn vtep(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

fn addresses(number: u8) -> [IpAddr; 2] {
    [[10, 0, 9, number].into(), [0xfd00, 9, 0, 0, 0, 0, 0, u16::from(number)].into()]
}

/// Endpoints 1 and 2 here, 3 there; a policy, a service at 10.0.9.100, a gateway, floods, and another network's tunnels sealed.
fn datapath() -> Option<Datapath> {
    let rate = Rate { per_second: 10, burst: 4 };
    let balancer = overlay_lb::Config { flows: 8, sources: 4, ..overlay_lb::Config::default() };
    let mut datapath = Datapath::new(Config { flows: 8, floods: rate, errors: rate, balancer }, [1; 32], Instant::ZERO);
    let tables = Tables::new(&wanted()?).ok()?;
    datapath.handle_tables(Arc::new(tables), Instant::ZERO);
    Some(datapath)
}

fn wanted() -> Option<Wanted> {
    let vni = Vni::new(VNI).ok()?;
    let mut segment = Segment::new(Vtep::new(vtep(1)), Mtu::new(1_450).ok()?);
    segment.gateways.insert("10.0.9.254/24".parse().ok()?);
    segment.flood.insert(vtep(2));
    let mut sandbox = Sandbox::default();
    sandbox.firewall.strangers = Strangers::Drop;
    sandbox.firewall.ports.insert(names::tunnel(vni).ok()?, BridgePort::Trunk);
    for (number, endpoint) in [(1, here()), (2, beside())] {
        let interface = format!("tap{number}").parse().ok()?;
        let nets = [format!("10.0.9.{number}/24").parse().ok()?, format!("fd00:9::{number}/64").parse().ok()?];
        let port = LocalPort { mac: mac(number), addresses: nets.into(), end: PortEnd::Tap { interface } };
        segment.ports.insert(endpoint, port);
        sandbox.firewall.ports.insert(interface, BridgePort::Pinned(Pin::new(mac(number), addresses(number))));
    }
    segment.peers.insert(mac(3), Peer { vtep: vtep(2), addresses: addresses(3).into() });
    sandbox.vxlan.segments.insert(vni, segment);
    let policy = &mut sandbox.firewall.policy;
    policy.otherwise = Action::Deny;
    for number in 1..4_u8 {
        let labels = [("is".to_owned(), number.to_string())].into();
        let member = Member { addresses: addresses(number).into(), labels };
        policy.members.insert(EndpointId::from_bytes([number; 16]), member);
    }
    let from = Selector::labels([("is", "1")]);
    policy.rules.insert("one-asks-all".parse().ok()?, PolicyRule::allow(from, Selector::everyone()));

    let mut wanted = Wanted { networks: [(NetworkId::from_bytes([9; 16]), sandbox)].into(), ..Wanted::default() };
    wanted.services.insert(here(), Arc::new(services()?));
    let tunnel = overlay_firewall::Tunnel { members: [vtep(2)].into(), encrypted: [].into() };
    wanted.host.tunnels.insert(Port::VXLAN, tunnel);
    seal(&mut wanted)?;
    Some(wanted)
}

fn services() -> Option<State> {
    let ports = Port::new(80).ok().zip(Port::new(8_080).ok())?;
    let mut service = Service::new([[10, 0, 9, 100].into()]);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        service = service.port(protocol, ports.0, ports.1);
    }
    for number in 1..4_u8 {
        service.replicas.insert(EndpointId::from_bytes([number; 16]), Replica::new([addresses(number)[0]]));
    }
    Some(State { services: [("web".parse().ok()?, service)].into_iter().collect(), ..State::default() })
}

/// Another network's tunnel from the same node, in ESP with a key that corpora know.
fn seal(wanted: &mut Wanted) -> Option<()> {
    let port = Port::new(4_793).ok()?;
    wanted.crypto.ports.insert(port);
    let sa = Sa {
        direction: Direction::In,
        source: vtep(2),
        port,
        numbers: Numbers::Extended,
        window: WindowSize::default(),
        limits: None,
        udp: None,
        epochs: Epochs { sender: Epoch::FIRST, receiver: Epoch::FIRST },
        key: SaKey::new(Cipher::Aes256Gcm, &[2; 36]).ok()?,
    };
    wanted.crypto.add(SaId { destination: vtep(1), spi: Spi::new(0x1002).ok()? }, sa).ok()?;
    wanted.crypto.tunnels.insert(Tunnel { port, local: vtep(1), peer: vtep(2) }, Vec::new());
    Some(())
}
