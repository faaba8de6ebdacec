//! The way in from the underlay.

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
    /// ESP, the host's firewall, VXLAN: then the buffer has the frame. Says which segment's it is.
    #[inline(always)]
    pub(super) fn unwrap<'t>(&mut self, tables: &'t Tables, buffer: &mut Buffer) -> Result<&'t SegmentTable, Reason> {
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
        let segment = decapsulate(tables, by, &inside, buffer)?;
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
        let way = Way { from: segment.tunnel, gate: &segment.gate, segment, station };
        self.forward(turn, &way, contents, buffer)
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

/// Takes the outer headers off, if the packet may have come as it did, and says which segment's it is.
#[inline(always)]
fn decapsulate<'t>(
    tables: &'t Tables,
    by: Option<SaId>,
    arrival: &Arrival,
    buffer: &mut Buffer,
) -> Result<&'t SegmentTable, Reason> {
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
    let (header, frame) = arrival.vxlan(buffer.packet()).ok_or(Reason::Malformed)?;
    let is_its = |segment: &&SegmentTable| {
        segment.vtep.port.get() == datagram.destination_port && segment.vtep.local == datagram.destination
    };
    let segment = tables.segment_of(header.vni).filter(is_its).ok_or(Reason::NoSegment)?;
    admitted(tables, (segment, by.is_some()), &datagram)?;
    let start = buffer.range().start;
    buffer.set(start + frame.start..start + frame.end).ok_or(Reason::Malformed)?;
    Ok(segment)
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
