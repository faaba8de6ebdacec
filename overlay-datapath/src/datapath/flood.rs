//! Frames for all or many, copied to each at this end of the tunnels.

use std::net::IpAddr;

use overlay_core::{EndpointId, Vni};

use super::{Datapath, Turn, Way};
use crate::buffer::Met;
use crate::content::Contents;
use crate::tables::{PortTable, SegmentTable, Station};
use crate::{Buffer, Fate, Reason};

/// A frame that goes to several, and those to whom it is still to go.
#[derive(Debug)]
pub(super) struct Flood {
    frame: Box<[u8]>,
    vni: Vni,
    /// Whose it is: none of it comes back.
    from: Option<EndpointId>,
    ports: Vec<EndpointId>,
    vteps: Vec<IpAddr>,
}

impl Datapath {
    /// Keeps a copy for each who is to have one: of a frame that an endpoint sent, the others here and all nodes; of one that came from another
    /// node, the endpoints here. Where a network floods to nobody, its broadcasts go nowhere.
    pub(super) fn flood(
        &mut self,
        turn: Turn<'_>,
        (segment, from): (&SegmentTable, Option<&PortTable>),
        buffer: &mut Buffer,
    ) -> Result<Met, Reason> {
        let Turn { tables, now } = turn;
        if segment.flood.is_empty() {
            return Err(Reason::Unflooded);
        }
        if self.floods.len() >= MOST || !self.flood_rate.take(now) {
            return Err(Reason::FloodRate);
        }
        let from_here = from.map(|port| port.endpoint);
        let others = segment.ports.iter().filter_map(|at| tables.ports.get(*at)).map(|port| port.endpoint);
        self.floods.push_back(Flood {
            frame: buffer.packet().into(),
            vni: segment.vni,
            from: from_here,
            ports: others.filter(|other| Some(*other) != from_here).collect(),
            vteps: if from.is_some() { segment.flood.to_vec() } else { Vec::new() },
        });
        Ok(buffer.meet(Fate::Copied))
    }

    /// The next copy; the policy is asked about each.
    pub(super) fn copy(&mut self, turn: Turn<'_>, buffer: &mut Buffer) -> Option<Result<Met, Reason>> {
        let tables = turn.tables;
        loop {
            let flood = self.floods.front_mut()?;
            let port = flood.ports.pop();
            let vtep = if port.is_none() { flood.vteps.pop() } else { None };
            if port.is_none() && vtep.is_none() {
                self.floods.pop_front();
                continue;
            }
            let filled = buffer.fill(&flood.frame).map_err(|_| Reason::Room);
            let (vni, from) = (flood.vni, flood.from);
            let to =
                port.map_or_else(|| vtep.map(Station::Vtep), |to| tables.port(to).map(|(at, _)| Station::Port(at)));
            let copied = filled.and_then(|()| self.copy_to(turn, (vni, from), to, buffer));
            return Some(copied);
        }
    }

    fn copy_to(
        &mut self,
        turn: Turn<'_>,
        (vni, from): (Vni, Option<EndpointId>),
        to: Option<Station>,
        buffer: &mut Buffer,
    ) -> Result<Met, Reason> {
        let tables = turn.tables;
        let segment = tables.segment_of(vni).ok_or(Reason::NoSegment)?;
        let (from, gate) = match from {
            None => (&segment.tunnel, &segment.gate),
            Some(endpoint) => {
                let (_, port) = tables.port(endpoint).ok_or(Reason::NoPort)?;
                (&port.device, &port.gate)
            }
        };
        let (station, contents) = (to.ok_or(Reason::NoPort)?, Contents::read(buffer.packet())?);
        self.forward(turn, &Way { from, gate, segment, station: &station }, &contents, buffer)
    }
}

/// Frames that wait to be copied, at most.
const MOST: usize = 64;
