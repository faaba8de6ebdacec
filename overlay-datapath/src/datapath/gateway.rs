//! The way out of what is plugged in as a gateway.

use overlay_core::EndpointId;
use overlay_firewall::Content;

use super::leave::exceeds;
use super::{Datapath, Turn};
use crate::buffer::Met;
use crate::content::Contents;
use crate::tables::{PortTable, SegmentTable, Station};
use crate::{Buffer, Fate, Reason, neighbour};

impl Datapath {
    /// From the gateway itself to endpoints here, and to nobody else.
    pub(super) fn leave_gateway(
        &mut self,
        turn: Turn<'_>,
        from: EndpointId,
        buffer: &mut Buffer,
    ) -> Result<Met, Reason> {
        let (port, segment) = turn.tables.gateway(from).ok_or(Reason::NoPort)?;
        let contents = Contents::read(buffer.packet())?;
        if !is_its_own(port, segment, &contents) {
            return Err(Reason::Spoofed);
        }
        if neighbour::answer(turn.tables, port, &contents, buffer)? {
            return Ok(buffer.meet(Fate::Port(from)));
        }
        if exceeds(buffer, segment.mtu) {
            return Err(Reason::TooBig);
        }
        match segment.find(contents.destination) {
            Some(Station::Port(at)) => self.deliver(turn, *at, &contents, buffer),
            Some(Station::Vtep(_)) | None => Err(Reason::NoStation),
        }
    }
}

/// Whether a gateway speaks for itself.
fn is_its_own(port: &PortTable, segment: &SegmentTable, contents: &Contents) -> bool {
    contents.source == segment.gateway_mac
        && match &contents.content {
            Content::Ip(ip) => port.has(ip.source()),
            Content::Arp { sender, address, .. } => *sender == segment.gateway_mac && port.has((*address).into()),
            Content::Other => false,
        }
}
