//! The way in from the underlay.

use overlay_crypto::{Datagram, SaId, Verdict};
use overlay_firewall::{Flow, Ip, Packet as Asked, Rule, Ruling, Transport};
use overlay_vxlan::Packet;

use super::leave::is_here;
use super::{Datapath, Turn, Way};
use crate::buffer::Met;
use crate::content::Contents;
use crate::protection::{ESP, UDP};
use crate::tables::{SegmentTable, Tables};
use crate::tunnel::{Arrival, port_of};
use crate::{Buffer, Reason, header};

impl Datapath {
    /// ESP, the host's firewall, VXLAN; then to the endpoint.
    pub(super) fn arrive(&mut self, turn: Turn<'_>, buffer: &mut Buffer) -> Result<Met, Reason> {
        let tables = turn.tables;
        let arrival = Arrival::read(buffer.packet()).ok_or(Reason::Malformed)?;
        if !tables.is_vtep(arrival.destination) {
            return Err(Reason::NotOurs);
        }
        buffer.truncate(arrival.len);
        let by = self.open(tables, &arrival, buffer)?;
        let inside = match by {
            None => arrival,
            Some(_) => Arrival::read(buffer.packet()).ok_or(Reason::Malformed)?,
        };
        let (segment, contents) = decapsulate(tables, by, &inside, buffer)?;
        if arrival.congested {
            tell_congestion(buffer)?;
        }
        let contents = contents?;
        let destination = contents.destination;
        if destination.is_multicast() {
            return self.flood(turn, (segment, None), buffer);
        }
        // What came from one node goes to no other.
        let station = segment.find(destination).filter(|station| is_here(station)).ok_or(Reason::NoStation)?;
        self.forward(turn, &Way { from: segment.tunnel, segment, station }, &contents, buffer)
    }

    /// Opens what came sealed, and says by which association.
    #[inline(always)]
    fn open(&mut self, tables: &Tables, arrival: &Arrival, buffer: &mut Buffer) -> Result<Option<SaId>, Reason> {
        let header_len = arrival.header_len;
        let at = match arrival.protocol {
            ESP => header_len,
            UDP => {
                let datagram = arrival.datagram(buffer.packet()).ok_or(Reason::Malformed)?;
                if !tables.esp_ports.contains_key(&datagram.destination_port) {
                    return Ok(None);
                }
                header_len + 8
            }
            _ => return Err(Reason::NotOurs),
        };
        if tables.esp_members.as_ref().is_some_and(|members| !members.contains(&arrival.source)) {
            return Err(Reason::Stranger);
        }
        let id = self.protection.open(&tables.guards, arrival.destination, (header_len, at), buffer)?;
        Ok(Some(id))
    }
}

/// Takes the outer headers off, if the packet may have come as it did, and says which segment's it is, and what it has inside.
#[inline(always)]
fn decapsulate<'t>(
    tables: &'t Tables,
    by: Option<SaId>,
    arrival: &Arrival,
    buffer: &mut Buffer,
) -> Result<(&'t SegmentTable, Result<Contents, Reason>), Reason> {
    if arrival.protocol != UDP {
        return Err(Reason::Malformed);
    }
    let datagram = arrival.datagram(buffer.packet()).ok_or(Reason::Malformed)?;
    match by.map(|id| tables.guards.opened(&id, &datagram)) {
        None if tables.guards.incoming(&datagram) == Verdict::Pass => {}
        None => return Err(Reason::Clear),
        Some(Verdict::Pass) => {}
        Some(_) => return Err(Reason::NoTunnel),
    }
    let packet = Packet::parse_ip(buffer.packet(), port_of(&datagram)?).map_err(|_| Reason::Malformed)?;
    let packet = packet.ok_or(Reason::NotOurs)?;
    if packet.udp.checksum() != 0 {
        packet.verify_udp().map_err(|_| Reason::Malformed)?;
    }
    let is_its = |segment: &&SegmentTable| {
        segment.vtep.port.get() == datagram.destination_port && segment.vtep.local == datagram.destination
    };
    let segment = tables.segment_of(packet.header.vni).filter(is_its).ok_or(Reason::NoSegment)?;
    admitted(tables, (segment, by.is_some()), &datagram)?;
    let (at, len) = (arrival.header_len + HEADERS, packet.frame().len());
    let contents = Contents::of(&packet.inner, packet.frame());
    let start = buffer.range().start + at;
    buffer.set(start..start + len).ok_or(Reason::Malformed)?;
    Ok((segment, contents))
}

/// What the host's firewall says of a datagram.
#[inline(always)]
fn admitted(tables: &Tables, (segment, sealed): (&SegmentTable, bool), datagram: &Datagram) -> Result<(), Reason> {
    if segment.sealed && !sealed {
        return Err(Reason::Clear);
    }
    let Datagram { source_port, destination_port, .. } = *datagram;
    let transport = Transport::Udp { source: source_port, destination: destination_port, vni: segment.vni.get() };
    let ip = Ip::between(datagram.source, datagram.destination, transport).ok_or(Reason::Malformed)?;
    let asked = Asked::arriving(segment.vtep.device.unwrap_or(segment.bridge), ip);
    let asked = if sealed { asked.secured() } else { asked };
    let verdict = tables.host.judge(&asked, Flow::New);
    match (verdict.ruling, verdict.rule) {
        (Ruling::Accept, _) => Ok(()),
        (_, Rule::Cleartext(_)) => Err(Reason::Clear),
        _ => Err(Reason::Stranger),
    }
}

/// Tells the frame's receiver of congestion; a frame that is no IP has nobody to tell.
fn tell_congestion(buffer: &mut Buffer) -> Result<(), Reason> {
    let is_ip = overlay_vxlan::Frame::parse(buffer.packet()).is_ok_and(|frame| frame.ip.is_some());
    match header::mark_congestion(buffer.packet_mut()) {
        None if is_ip => Err(Reason::Congested),
        _ => Ok(()),
    }
}

const HEADERS: usize = 8 + overlay_vxlan::Header::LEN;
