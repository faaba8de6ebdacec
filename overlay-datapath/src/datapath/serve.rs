//! Virtual services, at the port of the client.

use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{EndpointId, Instant};
use overlay_firewall::Content;
use overlay_lb::{Balancer, Verdict};

use super::{Datapath, Turn, Way};
use crate::buffer::Met;
use crate::content::{Contents, IPV4, IPV6};
use crate::tables::{At, PortTable};
use crate::{Buffer, Fate, Reason};

/// An endpoint as a client of services.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) balancer: Balancer,
    /// What it balances by.
    state: Option<Arc<overlay_lb::State>>,
    /// The tables that it was last held to.
    revision: u64,
}

/// What a client's balancer made of a packet that the client sends.
pub(super) enum Served {
    /// It is for no service.
    Nothing,
    /// It goes to a replica.
    To(IpAddr),
    /// It is an answer of the client's to itself.
    Home,
    /// The buffer has an answer.
    Answered,
}

impl Datapath {
    /// Translates what an endpoint sends to a service.
    #[inline(always)]
    pub(super) fn serve(
        &mut self,
        port: &PortTable,
        contents: &Contents,
        buffer: &mut Buffer,
        now: Instant,
    ) -> Result<Served, Reason> {
        let Content::Ip(_) = &contents.content else { return Ok(Served::Nothing) };
        let Some(client) = self.client(port, now)? else { return Ok(Served::Nothing) };
        let served = match client.balancer.handle_frame(buffer.packet_mut(), now) {
            Verdict::Pass => Ok(Served::Nothing),
            Verdict::Forth { replica } => Ok(Served::To(replica.ip())),
            Verdict::Back => Ok(Served::Home),
            Verdict::Drop(overlay_lb::Reason::Fragment) => Err(Reason::Fragment),
            Verdict::Drop(overlay_lb::Reason::Full) => Err(Reason::Full),
            Verdict::Drop(_) => Err(Reason::Service),
            Verdict::Answer(answer) => buffer.fill(answer).map(|()| Served::Answered).map_err(|_| Reason::Room),
        };
        let due = client.balancer.poll_timeout();
        self.expect(due);
        served
    }

    /// Translates what comes back from a replica, or tells of one; what is for another than the endpoint itself is none of its flows'.
    pub(super) fn serve_back(
        &mut self,
        port: &PortTable,
        contents: &Contents,
        buffer: &mut Buffer,
        now: Instant,
    ) -> Result<(), Reason> {
        match &contents.content {
            Content::Ip(ip) if port.has(ip.destination()) => {}
            Content::Ip(ip) if port.is_vip(ip.destination()) => return Err(Reason::NoRoute),
            _ => return Ok(()),
        }
        let Some(client) = self.client(port, now)? else { return Ok(()) };
        let served = match client.balancer.handle_frame(buffer.packet_mut(), now) {
            Verdict::Pass | Verdict::Back | Verdict::Forth { .. } => Ok(()),
            Verdict::Answer(_) | Verdict::Drop(_) => Err(Reason::Service),
        };
        let due = client.balancer.poll_timeout();
        self.expect(due);
        served
    }

    /// A client wants its timeout then.
    fn expect(&mut self, due: Option<Instant>) {
        if let Some(due) = due {
            self.due = Some(self.due.map_or(due, |earliest| earliest.min(due)));
        }
    }

    /// Ends flows, by what a balancer has to send: to its client, or as from it.
    pub(super) fn stir(&mut self, turn: Turn<'_>, buffer: &mut Buffer) -> Option<Result<Met, Reason>> {
        while let Some(endpoint) = self.stirring.first().copied() {
            match self.clients.get_mut(&endpoint).and_then(|client| client.balancer.poll_transmit()) {
                Some(packet) => return Some(self.send_stirring(turn, endpoint, &packet, buffer)),
                None => self.stirring.remove(&endpoint),
            };
        }
        None
    }

    fn send_stirring(
        &mut self,
        turn: Turn<'_>,
        endpoint: EndpointId,
        packet: &[u8],
        buffer: &mut Buffer,
    ) -> Result<Met, Reason> {
        let tables = turn.tables;
        let (_, port) = tables.port(endpoint).ok_or(Reason::NoPort)?;
        let At { segment, network, .. } = tables.at(port).ok_or(Reason::NoPort)?;
        let (ethertype, to) = destination(packet).ok_or(Reason::Malformed)?;
        let (home, mac) = match port.has(to) {
            true => (true, port.mac),
            false => (false, network.holder(port.segment, to).ok_or(Reason::NoRoute)?.mac),
        };
        let from = if home { segment.gateway_mac } else { port.mac };
        let room = buffer.room().get_mut(..14 + packet.len()).ok_or(Reason::Room)?;
        let (head, body) = room.split_at_mut(14);
        head[..6].copy_from_slice(&mac.octets());
        head[6..12].copy_from_slice(&from.octets());
        head[12..].copy_from_slice(&ethertype.to_be_bytes());
        body.copy_from_slice(packet);
        buffer.filled(14 + packet.len()).map_err(|_| Reason::Room)?;
        if home {
            return Ok(buffer.meet(Fate::Port(endpoint)));
        }
        let holder = network.holder(port.segment, to).ok_or(Reason::NoRoute)?;
        let (segment, station) = (tables.segments.get(holder.segment).ok_or(Reason::NoSegment)?, &holder.station);
        let contents = Contents::read(buffer.packet())?;
        self.hand_over(turn, &Way { from: &port.device, gate: &port.gate, segment, station }, &contents, buffer)
    }

    /// Holds the flows of all clients to the tables that there are now.
    pub(super) fn revalidate(&mut self, now: Instant) {
        let tables = Arc::clone(&self.tables);
        let endpoints: Vec<EndpointId> = self.clients.keys().copied().collect();
        for (_, port) in endpoints.iter().filter_map(|endpoint| tables.port(*endpoint)) {
            let _ = self.client(port, now); // its next packet is refused as this is
        }
    }

    /// The client at a port, held to the tables that there are now; none where it reaches no services.
    fn client(&mut self, port: &PortTable, now: Instant) -> Result<Option<&mut Client>, Reason> {
        let Some(services) = &port.services else { return Ok(None) };
        let (config, revision, seed) = (self.config.balancer, self.revision, &self.seed);
        let client = self.clients.entry(port.endpoint).or_insert_with(|| Client {
            balancer: Balancer::new(config, seed_of(seed, port.endpoint), now),
            state: None,
            revision: 0,
        });
        if client.revision != revision {
            let same = client.state.as_ref().is_some_and(|state| Arc::ptr_eq(state, services));
            if !same {
                client.balancer.handle_state(Arc::clone(services), now).map_err(|_| Reason::Service)?;
                client.state = Some(Arc::clone(services));
                self.stirring.insert(port.endpoint); // the flows that have no place any more
            }
            client.revision = revision;
        }
        Ok(Some(client))
    }
}

/// Each endpoint's balancer has a seed of its own; whom they choose by a hash, they choose alike.
fn seed_of(seed: &[u8; 32], endpoint: EndpointId) -> [u8; 32] {
    let mut seed = *seed;
    seed.iter_mut().zip(endpoint.to_bytes().into_iter().cycle()).for_each(|(byte, of)| *byte ^= of);
    seed
}

/// What an IP packet is in Ethernet, and where it goes.
fn destination(packet: &[u8]) -> Option<(u16, IpAddr)> {
    match packet.first()? >> 4 {
        4 => Some((IPV4, IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?))),
        6 => Some((IPV6, IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?))),
        _ => None,
    }
}
