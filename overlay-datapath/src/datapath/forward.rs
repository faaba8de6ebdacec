//! From where it is known whose a frame is: the policy, then to the endpoint or the node.

use overlay_core::IfName;
use overlay_firewall::{Content, Frame as At, Packet};
use overlay_vxlan::Frame;

use super::leave::exceeds;
use super::{Datapath, Turn};
use crate::content::Contents;
use crate::tables::{SegmentTable, Station, Tables};
use crate::track::Passage;
use crate::{Buffer, Fate, Reason, header, tunnel};

impl Datapath {
    /// From a device of a segment's bridge to a station, if the network's policy lets it.
    pub(super) fn forward(
        &mut self,
        turn: Turn<'_>,
        (from, segment): (IfName, &SegmentTable),
        station: Station,
        buffer: &mut Buffer,
    ) -> Result<Fate, Reason> {
        self.police(turn, (from, segment), station, buffer)?;
        self.hand_over(turn, segment, station, buffer)
    }

    /// Asks the policy.
    pub(super) fn police(
        &mut self,
        turn: Turn<'_>,
        (from, segment): (IfName, &SegmentTable),
        station: Station,
        buffer: &Buffer,
    ) -> Result<(), Reason> {
        let Turn { tables, now } = turn;
        let network = tables.network(segment).ok_or(Reason::NoSegment)?;
        if !network.polices {
            return Ok(());
        }
        let bytes = buffer.packet();
        let frame = Frame::parse(bytes).map_err(|_| Reason::Malformed)?;
        let contents = Contents::of(&frame, bytes);
        let Content::Ip(ip) = contents.content else { return Ok(()) };
        if contents.fragment && network.follows {
            return Err(Reason::Fragment);
        }
        let packet = passage(tables, (from, segment), station, &frame, contents.content);
        if !network.follows {
            let passes = network.judge.judge(&packet, overlay_firewall::Flow::New).ruling.passes();
            return if passes { Ok(()) } else { Err(Reason::Policy) };
        }
        let passage =
            Passage { network: segment.network, table: network, revision: self.revision, packet: &packet, ip };
        self.tracker.pass(&passage, &frame, bytes, now)
    }

    /// To an endpoint here, or to the node of one elsewhere.
    pub(super) fn hand_over(
        &mut self,
        turn: Turn<'_>,
        segment: &SegmentTable,
        station: Station,
        buffer: &mut Buffer,
    ) -> Result<Fate, Reason> {
        let tables = turn.tables;
        if exceeds(buffer, segment.mtu) {
            return Err(Reason::TooBig);
        }
        let to = match station {
            Station::Port(at) => return self.deliver(turn, at, buffer),
            Station::Vtep(to) => to,
        };
        self.identification = self.identification.wrapping_add(1);
        let source_port = tunnel::encapsulate(segment, to, (self.spread, self.identification), buffer)?;
        if let Some(id) = tunnel::protected(tables, segment, (to, source_port))? {
            self.protection.seal(&id, buffer, segment.vtep.underlay().header_len())?;
            self.counts.sealed += 1;
        }
        Ok(Fate::Underlay { from: segment.vtep.local, to })
    }

    /// To an endpoint here, as an answer of a service's if it is one.
    fn deliver(&mut self, turn: Turn<'_>, at: usize, buffer: &mut Buffer) -> Result<Fate, Reason> {
        let Turn { tables, now } = turn;
        let port = tables.ports.get(at).ok_or(Reason::NoPort)?;
        let (segment, _) = tables.at(port).ok_or(Reason::NoPort)?;
        let frame = Frame::parse(buffer.packet()).map_err(|_| Reason::Malformed)?;
        let contents = Contents::of(&frame, buffer.packet());
        self.serve_back(port, &contents, buffer, now)?;
        if contents.synchronises {
            header::clamp(buffer.packet_mut(), segment.mtu);
        }
        Ok(Fate::Port(port.endpoint))
    }
}

/// A frame between two devices of a bridge, as the firewall sees it.
pub(crate) fn passage(
    tables: &Tables,
    (from, segment): (IfName, &SegmentTable),
    station: Station,
    frame: &Frame<'_>,
    content: Content,
) -> Packet {
    let out = match station {
        Station::Port(at) => tables.ports.get(at).map_or(segment.tunnel, |port| port.device),
        Station::Vtep(_) => segment.tunnel,
    };
    let frame = At { port: from, out: Some(out), source: frame.ethernet.source() };
    Packet::bridged(segment.bridge, frame, content)
}
