//! Nodes of a network of two, with an endpoint or two each.

use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{EndpointId, Instant, Mac, Mtu, NetworkId, Vni};
use overlay_datapath::{Buffer, Config, Datapath, Fate, Reason, Sandbox, Tables, Wanted};
use overlay_firewall::{BridgePort, Pin, Strangers};
use overlay_vxlan::{LocalPort, Peer, PortEnd, Segment, Vtep, names};

use crate::bytes::End;

pub(crate) const VNI: u32 = 4_096;
pub(crate) const NOW: Instant = Instant::ZERO;

/// The endpoint of a number: 1 and 2 are on the first node, 3 and 4 on the second.
pub(crate) fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

pub(crate) fn mac(number: u8) -> Mac {
    Mac::from_ipv4([10, 0, 9, number].into())
}

pub(crate) fn v4(number: u8) -> IpAddr {
    [10, 0, 9, number].into()
}

pub(crate) fn v6(number: u8) -> IpAddr {
    [0xfd00, 9, 0, 0, 0, 0, 0, u16::from(number)].into()
}

pub(crate) fn end(number: u8, port: u16) -> End {
    End { mac: mac(number), address: v4(number), port }
}

pub(crate) fn end6(number: u8, port: u16) -> End {
    End { mac: mac(number), address: v6(number), port }
}

pub(crate) fn vtep(node: u8) -> IpAddr {
    [192, 0, 2, node].into()
}

/// What node 1 or 2 should hold: endpoints pinned, nothing encrypted, a gateway, no policy.
pub(crate) fn wanted(node: u8) -> Wanted {
    let vni = Vni::new(VNI).unwrap();
    let mut segment = Segment::new(Vtep::new(vtep(node)), Mtu::new(1_450).unwrap());
    segment.gateways.insert("10.0.9.254/24".parse().unwrap());
    let mut sandbox = Sandbox::default();
    sandbox.firewall.strangers = Strangers::Drop;
    sandbox.firewall.ports.insert(names::tunnel(vni).unwrap(), BridgePort::Trunk);
    for number in 1..=4_u8 {
        let of = number.div_ceil(2);
        if of == node {
            let interface = format!("tap{number}").parse().unwrap();
            let addresses = [format!("{}/24", v4(number)), format!("{}/64", v6(number))];
            let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
            segment
                .ports
                .insert(endpoint(number), LocalPort { mac: mac(number), addresses, end: PortEnd::Tap { interface } });
            let pin = Pin::new(mac(number), [v4(number), v6(number)]);
            sandbox.firewall.ports.insert(interface, BridgePort::Pinned(pin));
        } else {
            let addresses = [v4(number), v6(number)].into();
            segment.peers.insert(mac(number), Peer { vtep: vtep(of), addresses });
        }
    }
    sandbox.vxlan.segments.insert(vni, segment);
    Wanted { networks: [(NetworkId::from_bytes([9; 16]), sandbox)].into(), ..Wanted::default() }
}

/// Changes the one sandbox.
pub(crate) fn with(mut wanted: Wanted, change: impl FnOnce(&mut Sandbox)) -> Wanted {
    change(wanted.networks.values_mut().next().unwrap());
    wanted
}

/// A datapath for what is wanted.
pub(crate) fn datapath(wanted: &Wanted) -> Datapath {
    let mut datapath = Datapath::new(Config::default(), [7; 32], NOW);
    datapath.handle_tables(Arc::new(Tables::new(wanted).unwrap()), NOW);
    datapath
}

/// Both nodes.
pub(crate) fn nodes() -> [Datapath; 2] {
    [datapath(&wanted(1)), datapath(&wanted(2))]
}

/// What becomes of a frame of an endpoint's.
pub(crate) fn send(datapath: &mut Datapath, from: u8, frame: &[u8]) -> (Fate, Vec<u8>) {
    let mut batch = [Buffer::new(2_000)];
    batch[0].fill(frame).unwrap();
    datapath.handle_frames(endpoint(from), &mut batch, NOW);
    (batch[0].fate(), batch[0].packet().to_vec())
}

/// What becomes of a packet of the underlay.
pub(crate) fn take(datapath: &mut Datapath, packet: &[u8]) -> (Fate, Vec<u8>) {
    let mut batch = [Buffer::new(2_000)];
    batch[0].fill(packet).unwrap();
    datapath.handle_packets(&mut batch, NOW);
    (batch[0].fate(), batch[0].packet().to_vec())
}

/// From an endpoint of one node to one of the other's: the frame as it arrives.
pub(crate) fn cross(
    (one, from): (&mut Datapath, u8),
    to: &mut Datapath,
    frame: &[u8],
) -> Result<(EndpointId, Vec<u8>), Reason> {
    let (fate, packet) = send(one, from, frame);
    match fate {
        Fate::Underlay { .. } => {}
        Fate::Drop(reason) => return Err(reason),
        other => panic!("{other:?}"),
    }
    match take(to, &packet) {
        (Fate::Port(endpoint), frame) => Ok((endpoint, frame)),
        (Fate::Drop(reason), _) => Err(reason),
        (other, _) => panic!("{other:?}"),
    }
}
