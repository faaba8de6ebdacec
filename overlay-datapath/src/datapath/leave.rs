//! The way out of a port.

use std::net::IpAddr;

use overlay_core::{Instant, Mtu};
use overlay_firewall::Content;
use overlay_vxlan::Frame;

use super::serve::Served;
use super::{Datapath, Seen, Turn, Way};
use crate::buffer::Met;
use crate::content::Contents;
use crate::icmp::{self, Trouble};
use crate::tables::{At, PortTable, SegmentTable, Station};
use crate::{Buffer, Fate, Reason, header, neighbour};

impl Datapath {
    /// Anti-spoofing, questions for addresses, the MTU, services; then to where it goes.
    pub(super) fn leave(
        &mut self,
        turn: Turn<'_>,
        at: At<'_>,
        seen: &Seen<'_>,
        buffer: &mut Buffer,
    ) -> Result<Met, Reason> {
        let (Turn { tables, now }, contents) = (turn, seen.contents);
        let At { port, segment, .. } = at;
        if !at.admits(contents).ruling.passes() {
            return Err(Reason::Spoofed);
        }
        if neighbour::answer(tables, port, contents, buffer)? {
            return Ok(buffer.meet(Fate::Port(port.endpoint)));
        }
        let most = tables.most(at, contents);
        if exceeds(buffer, most) {
            return self.tell((segment, port), Trouble::TooBig(most), buffer, now);
        }
        if contents.synchronises {
            header::clamp(buffer.packet_mut(), segment.mtu);
        }
        let served = match port.services {
            None => Served::Nothing,
            Some(_) => self.serve(port, contents, buffer, now)?,
        };
        match served {
            Served::Answered => Ok(buffer.meet(Fate::Port(port.endpoint))),
            Served::Home => go_home(segment, port, buffer),
            Served::To(replica) if port.has(replica) => go_home(segment, port, buffer),
            Served::To(replica) => {
                let contents = contents.translated(buffer.packet())?;
                self.route(turn, at, (replica, &contents), buffer)
            }
            Served::Nothing => self.switch(turn, at, seen, buffer),
        }
    }

    /// By the Ethernet address that it is for.
    #[inline(always)]
    fn switch(&mut self, turn: Turn<'_>, at: At<'_>, seen: &Seen<'_>, buffer: &mut Buffer) -> Result<Met, Reason> {
        let (now, contents) = (turn.now, seen.contents);
        let At { port, segment, .. } = at;
        let destination = contents.destination;
        if destination.is_multicast() {
            return self.flood(turn, (segment, Some(port)), buffer);
        }
        if destination == port.mac {
            return Err(Reason::NoStation); // a bridge sends nothing back to where it came from
        }
        if destination != segment.gateway_mac {
            let station = seen.station.ok_or(Reason::NoStation)?;
            return self.forward(
                turn,
                &Way { from: &port.device, gate: &port.gate, segment, station },
                contents,
                buffer,
            );
        }
        let Content::Ip(ip) = &contents.content else { return Err(Reason::NoRoute) };
        let to = ip.destination();
        if segment.is_gateway(to) {
            let answers = match icmp::echo(buffer) {
                Some(()) => port.endpoint,
                None => segment.gateway.ok_or(Reason::NoRoute)?,
            };
            return Ok(buffer.meet(Fate::Port(answers)));
        }
        let holder = at.network.holder(port.segment, to).ok_or(Reason::NoRoute)?;
        if holder.segment == port.segment {
            return Err(Reason::NoRoute); // it is on the sender's own link, which asks for it there
        }
        if header::count_hop(buffer.packet_mut()).is_none() {
            return self.tell((segment, port), Trouble::Expired, buffer, now);
        }
        let contents = Contents::read(buffer.packet())?;
        self.route(turn, at, (to, &contents), buffer)
    }

    /// By the IP address that it is for, to whichever segment of the network has it.
    fn route(
        &mut self,
        turn: Turn<'_>,
        at: At<'_>,
        (to, contents): (IpAddr, &Contents),
        buffer: &mut Buffer,
    ) -> Result<Met, Reason> {
        let tables = turn.tables;
        let At { port, network, .. } = at;
        let holder = network.holder(port.segment, to).ok_or(Reason::NoRoute)?;
        let segment = tables.segments.get(holder.segment).ok_or(Reason::NoSegment)?;
        let way = Way { from: &port.device, gate: &port.gate, segment, station: &holder.station };
        self.police(turn, &way, contents, buffer)?; // while it is still from who sent it
        let from = (holder.segment != port.segment).then_some(segment.gateway_mac);
        header::address(buffer.packet_mut(), holder.mac, from).ok_or(Reason::Malformed)?;
        self.hand_over(turn, &way, contents, buffer)
    }

    /// Tells the endpoint why its packet goes no further.
    #[cold]
    fn tell(
        &mut self,
        (segment, port): (&SegmentTable, &PortTable),
        trouble: Trouble,
        buffer: &mut Buffer,
        now: Instant,
    ) -> Result<Met, Reason> {
        let reason = match trouble {
            Trouble::TooBig(_) => Reason::TooBig,
            Trouble::Expired => Reason::Expired,
        };
        if !self.error_rate.take(now) {
            return Err(reason);
        }
        let family = Frame::parse(buffer.packet()).ok().and_then(|frame| frame.ip).map(|ip| ip.source());
        let gateway = family.and_then(|address| segment.gateway_beside(address));
        icmp::tell(buffer, trouble, (segment.gateway_mac, gateway)).ok_or(reason)?;
        Ok(buffer.meet(Fate::Port(port.endpoint)))
    }
}

/// Back to the endpoint that sent it, which is itself the replica that it asks.
fn go_home(segment: &SegmentTable, port: &PortTable, buffer: &mut Buffer) -> Result<Met, Reason> {
    header::address(buffer.packet_mut(), port.mac, Some(segment.gateway_mac)).ok_or(Reason::Malformed)?;
    Ok(buffer.meet(Fate::Port(port.endpoint)))
}

/// Whether what a frame carries is longer than an MTU.
pub(crate) fn exceeds(buffer: &Buffer, mtu: Mtu) -> bool {
    buffer.len() > ETHERNET + mtu.get() as usize
}

/// Whether a station is at a port of this node.
pub(crate) const fn is_here(station: &Station) -> bool {
    matches!(station, Station::Port(_))
}

const ETHERNET: usize = 14;
