//! One frame on the wire, byte by byte.

use std::net::IpAddr;

use overlay_core::{Mac, Port, PortRange};
use overlay_node::Place;
use overlay_vxlan::{Addresses, Flow, Outer, Packet};

use crate::Outcome;
use crate::session::Session;

/// Sends a frame from web to db: what host-1 holds decides where to, what host-2 holds whether it arrives.
pub(crate) fn show(session: &mut Session) -> Outcome {
    let observed = session.cluster.observe();
    let network = session.cluster.network("customoverlay")?;
    let place = Place::Network(network.id);
    let segment = |host: usize| {
        let held = observed.nodes.get(host)?.places.get(&place)?;
        held.vxlan.segments.get(&network.vni?)
    };
    let (here, there) = (segment(0).ok_or("host-1 has no segment")?, segment(1).ok_or("host-2 has no segment")?);
    let web = here.ports.values().next().ok_or("host-1 has no port")?.mac;
    let (db, peer) = here.peers.iter().next().ok_or("host-1 knows of nobody")?;
    let frame = frame(web, *db);

    let (IpAddr::V4(source), IpAddr::V4(destination)) = (here.vtep.local, peer.vtep) else {
        return Err("the underlay is IPv4".into());
    };
    let vni = network.vni.ok_or("the network has no VNI")?;
    let source_port = PortRange::DYNAMIC.pick(Flow::of(&frame).hash(7));
    let outer = Outer::new(Addresses::V4 { source, destination }, source_port, vni);
    let mut packet = vec![0; outer.header_len()];
    outer.prepend(&mut packet, frame.len())?;
    packet.extend(&frame);

    session.typed(2, &format!("tcpdump -x -i eth0 udp port {}", Port::VXLAN));
    let received = Packet::parse_ip(&packet, Port::VXLAN)?.ok_or("not for VXLAN's port")?;
    let inside = received.inner.payload.escape_ascii();
    session.shown(&format!(
        "{source} > {destination}: VXLAN, vni {}: \"{inside}\"\n{}",
        received.header.vni,
        hex(&packet)
    ));
    let station = received.inner.ethernet.destination();
    session.check("a frame goes to the host that db is on", received.ip.destination() == there.vtep.local);
    session.check("it comes out as it went in", received.frame() == frame);
    session.check("and there is a port for it", there.ports.values().any(|port| port.mac == station));
    Ok(())
}

fn frame(from: Mac, to: Mac) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to.octets());
    frame.extend(from.octets());
    frame.extend(0x88b5_u16.to_be_bytes()); // an EtherType for experiments (IEEE 802)
    frame.extend(b"hello, db");
    frame
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
    bytes.chunks(16).map(|chunk| format!("  {}", line(chunk).trim_end())).collect::<Vec<_>>().join("\n")
}
