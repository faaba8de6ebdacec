//! From where it is known whose a frame is: the policy, then to the endpoint or the node.

use overlay_core::IfName;
use overlay_firewall::{Content, Frame as At, Gate, Packet};

use super::leave::exceeds;
use super::{Datapath, Turn};
use crate::buffer::Met;
use crate::content::Contents;
use crate::tables::{NetworkTable, SegmentTable, Station, Tables};
use crate::track::Passage;
use crate::{Buffer, Fate, Reason, header, tunnel};

/// From a device of a segment's bridge to a station.
#[derive(Clone, Copy)]
pub(crate) struct Way<'t> {
    pub(crate) from: &'t IfName,
    /// What the network's firewall says of who speaks there.
    pub(crate) gate: &'t Gate,
    pub(crate) segment: &'t SegmentTable,
    pub(crate) station: &'t Station,
}

impl Datapath {
    /// To a station, if the network's policy lets it.
    #[inline(always)]
    pub(super) fn forward(
        &mut self,
        turn: Turn<'_>,
        way: &Way<'_>,
        contents: &Contents,
        buffer: &mut Buffer,
    ) -> Result<Met, Reason> {
        self.police(turn, way, contents, buffer)?;
        self.hand_over(turn, way, contents, buffer)
    }

    /// Asks the policy.
    #[inline(always)]
    pub(super) fn police(
        &mut self,
        turn: Turn<'_>,
        way: &Way<'_>,
        contents: &Contents,
        buffer: &Buffer,
    ) -> Result<(), Reason> {
        match turn.tables.network(way.segment) {
            None => Err(Reason::NoSegment),
            Some(network) if !network.polices => Ok(()),
            Some(network) => self.ask(turn, (way, network), contents, buffer),
        }
    }

    fn ask(
        &mut self,
        turn: Turn<'_>,
        (way, network): (&Way<'_>, &NetworkTable),
        contents: &Contents,
        buffer: &Buffer,
    ) -> Result<(), Reason> {
        let Turn { tables, now } = turn;
        let Content::Ip(ip) = &contents.content else { return Ok(()) };
        if contents.fragment && network.follows {
            return Err(Reason::Fragment);
        }
        let passage = Passage {
            table: network,
            revision: self.revision,
            way,
            frame: crossing(tables, way, contents),
            contents,
            ip,
        };
        match network.follows {
            true => {
                let passed = self.tracker.pass(&passage, buffer, now);
                self.counts.displaced = self.tracker.displaced();
                passed
            }
            false => passage.permits(overlay_firewall::Flow::New),
        }
    }

    /// To an endpoint here, or to the node of one elsewhere.
    #[inline(always)]
    pub(super) fn hand_over(
        &mut self,
        turn: Turn<'_>,
        way: &Way<'_>,
        contents: &Contents,
        buffer: &mut Buffer,
    ) -> Result<Met, Reason> {
        let (tables, segment) = (turn.tables, way.segment);
        if exceeds(buffer, segment.mtu) {
            return Err(Reason::TooBig);
        }
        let to = match *way.station {
            Station::Port(at) => return self.deliver(turn, at, contents, buffer),
            Station::Vtep(to) => to,
        };
        self.identification = self.identification.wrapping_add(1);
        let drawn = (self.spread, self.identification);
        let source_port = tunnel::encapsulate(segment, to, drawn, contents, buffer)?;
        if let Some(id) = tunnel::protected(tables, segment, (to, source_port))? {
            self.protection.seal(&id, buffer, segment.vtep.underlay().header_len())?;
            self.counts.sealed += 1;
        }
        Ok(buffer.meet(Fate::Underlay { from: segment.vtep.local, to }))
    }

    /// To an endpoint here, as an answer of a service's if it is one.
    pub(super) fn deliver(
        &mut self,
        turn: Turn<'_>,
        at: usize,
        contents: &Contents,
        buffer: &mut Buffer,
    ) -> Result<Met, Reason> {
        let Turn { tables, now } = turn;
        let port = tables.ports.get(at).ok_or(Reason::NoPort)?;
        let segment = tables.segments.get(port.segment).ok_or(Reason::NoSegment)?;
        if port.services.is_some() {
            self.serve_back(port, contents, buffer, now)?;
        }
        if contents.synchronises {
            header::clamp(buffer.packet_mut(), segment.mtu);
        }
        Ok(buffer.meet(Fate::Port(port.endpoint)))
    }
}

/// A frame between two devices of a bridge, and what is in it, as the firewall sees them.
pub(crate) fn passage(tables: &Tables, way: &Way<'_>, contents: &Contents) -> Packet {
    Packet::bridged(way.segment.bridge, crossing(tables, way, contents), contents.content)
}

#[inline(always)]
fn crossing(tables: &Tables, way: &Way<'_>, contents: &Contents) -> At {
    let segment = way.segment;
    let out = match *way.station {
        Station::Port(at) => tables.ports.get(at).map_or(&segment.tunnel, |port| &port.device),
        Station::Vtep(_) => &segment.tunnel,
    };
    At { port: *way.from, out: Some(*out), source: contents.source }
}
