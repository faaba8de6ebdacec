//! The way in from the underlay.

use std::ops::Range;

use overlay_crypto::{Datagram, SaId, Verdict};
use overlay_firewall::{Flow, Rule, Ruling};

use super::leave::is_here;
use super::{Datapath, Turn, Way};
use crate::buffer::Met;
use crate::content::Contents;
use crate::protection::{ESP, UDP};
use crate::tables::{SegmentTable, Tables};
use crate::tunnel::Arrival;
use crate::{Buffer, Reason, header};

impl Datapath {
    /// ESP, the host's firewall, VXLAN: then the buffer has the frame. Says which segment's it is; that of the packet before is found at once.
    #[inline(always)]
    pub(super) fn unwrap<'t>(
        &mut self,
        tables: &'t Tables,
        near: Option<&'t SegmentTable>,
        buffer: &mut Buffer,
    ) -> Result<&'t SegmentTable, Reason> {
        let packet = buffer.packet();
        let arrival = Arrival::read(packet).ok_or(Reason::Malformed)?;
        let is_near = near.is_some_and(|segment| segment.vtep.local == arrival.destination);
        if !is_near && !tables.is_vtep(arrival.destination) {
            return Err(Reason::NotOurs);
        }
        let datagram = match arrival.protocol {
            UDP => {
                Some(packet.get(..arrival.len).and_then(|packet| arrival.datagram(packet)).ok_or(Reason::Malformed)?)
            }
            ESP => None,
            _ => return Err(Reason::NotOurs),
        };
        let (segment, frame) =
            match datagram.filter(|datagram| !tables.esp_ports.contains_key(&datagram.destination_port)) {
                Some(datagram) => decapsulate((tables, near), (&arrival, &datagram), None, packet)?,
                None => self.open(tables, &arrival, buffer)?,
            };
        let start = buffer.range().start;
        buffer.set(start + frame.start..start + frame.end).ok_or(Reason::Malformed)?;
        if arrival.congested {
            tell_congestion(buffer)?;
        }
        Ok(segment)
    }

    /// Where what was unwrapped goes: to the endpoint.
    #[inline(always)]
    pub(super) fn arrive(
        &mut self,
        turn: Turn<'_>,
        segment: &SegmentTable,
        contents: &Contents,
        buffer: &mut Buffer,
    ) -> Result<Met, Reason> {
        let destination = contents.destination;
        if destination.is_multicast() {
            return self.flood(turn, (segment, None), buffer);
        }
        // What came from one node goes to no other.
        let station = segment.find(destination).filter(|station| is_here(station)).ok_or(Reason::NoStation)?;
        let way = Way { from: &segment.tunnel, gate: &segment.gate, segment, station };
        self.forward(turn, &way, contents, buffer)
    }

    /// Opens what came sealed; then the buffer has what was inside, in which the frame is there.
    #[inline(never)]
    fn open<'t>(&mut self, tables: &'t Tables, arrival: &Arrival, buffer: &mut Buffer) -> Result<Found<'t>, Reason> {
        if tables.esp_members.as_ref().is_some_and(|members| !members.contains(&arrival.source)) {
            return Err(Reason::Stranger);
        }
        buffer.truncate(arrival.len);
        let header_len = arrival.header_len;
        let at = if arrival.protocol == ESP { header_len } else { header_len + UDP_LEN };
        let id = self.protection.open(&tables.guards, arrival.destination, (header_len, at), buffer)?;
        let packet = buffer.packet();
        let inside = Arrival::read(packet).filter(|inside| inside.protocol == UDP).ok_or(Reason::Malformed)?;
        let datagram = inside.datagram(packet).ok_or(Reason::Malformed)?;
        decapsulate((tables, None), (&inside, &datagram), Some(id), packet)
    }
}

/// A segment, and where its frame is in a packet.
type Found<'t> = (&'t SegmentTable, Range<usize>);

/// Finds the frame in a packet, if that may have come as it did: by an association, or in the clear.
#[inline(always)]
fn decapsulate<'t>(
    (tables, near): (&'t Tables, Option<&'t SegmentTable>),
    (arrival, datagram): (&Arrival, &Datagram),
    by: Option<SaId>,
    packet: &[u8],
) -> Result<Found<'t>, Reason> {
    match by.map(|id| tables.guards.opened(&id, datagram)) {
        None if tables.guards.incoming(datagram) == Verdict::Pass => {}
        None => return Err(Reason::Clear),
        Some(Verdict::Pass) => {}
        Some(_) => return Err(Reason::NoTunnel),
    }
    let (header, frame) = arrival.vxlan(packet).ok_or(Reason::Malformed)?;
    let is_its = |segment: &&SegmentTable| {
        segment.vtep.port.get() == datagram.destination_port && segment.vtep.local == datagram.destination
    };
    let segment = near.filter(|segment| segment.vni == header.vni).or_else(|| tables.segment_of(header.vni));
    let segment = segment.filter(is_its).ok_or(Reason::NoSegment)?;
    admitted(tables, (segment, by.is_some()), datagram)?;
    Ok((segment, frame))
}

/// What the host's firewall says of a datagram.
#[inline(always)]
fn admitted(tables: &Tables, (segment, sealed): (&SegmentTable, bool), datagram: &Datagram) -> Result<(), Reason> {
    if segment.sealed && !sealed {
        return Err(Reason::Clear);
    }
    if sealed == segment.sealed && segment.senders.knows(datagram.source) {
        return Ok(());
    }
    judged(tables, (segment, sealed), datagram)
}

#[cold]
fn judged(tables: &Tables, (segment, sealed): (&SegmentTable, bool), datagram: &Datagram) -> Result<(), Reason> {
    let asked = segment.asked(datagram.source, datagram.source_port, sealed).ok_or(Reason::Malformed)?;
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

const UDP_LEN: usize = 8; // RFC 768
