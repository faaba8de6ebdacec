//! Which tunnels are protected, found at once: what [`State`] says of datagrams, as indices.

use std::net::IpAddr;

use overlay_crypto::{Datagram, Direction, Lanes, Reason, SaId, Spi, State, Tunnel, Verdict};

use crate::tables::Map;

/// The index of a state: it says what the state says, without a search.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guards {
    ports: Map<u16, ()>,
    tunnels: Map<Way, Option<Senders>>,
    incoming: Map<SaId, Agreed>,
}

/// A tunnel: its port, and its two ends, this node's first.
type Way = (u16, u128, u128);

/// What a tunnel sends by, lane by lane: none where the association is not there.
#[derive(Debug, Clone)]
struct Senders {
    lanes: Lanes,
    by: Box<[Option<SaId>]>,
}

/// What an association may carry here.
#[derive(Debug, Clone, Copy)]
struct Agreed {
    source: IpAddr,
    port: u16,
    tunnel: bool,
}

impl Guards {
    /// O(n) for n associations and tunnels.
    pub(crate) fn new(state: &State) -> Self {
        let ports = state.ports.iter().map(|port| (port.get(), ())).collect();
        let tunnels = state.tunnels.iter().map(|(tunnel, spis)| (way(tunnel), senders(state, tunnel, spis))).collect();
        let incoming = state.sas.iter().filter(|(_, sa)| sa.direction == Direction::In).map(|(id, sa)| {
            let tunnel = Tunnel { port: sa.port, local: id.destination, peer: sa.source };
            let tunnel = state.tunnels.contains_key(&tunnel);
            (*id, Agreed { source: sa.source, port: sa.port.get(), tunnel })
        });
        Self { ports, tunnels, incoming: incoming.collect() }
    }

    /// As [`State::outgoing`].
    pub(crate) fn outgoing(&self, datagram: &Datagram) -> Verdict {
        if self.ports.is_empty() {
            return Verdict::Pass;
        }
        if !self.ports.contains_key(&datagram.destination_port) {
            let is_guarded = self.ports.contains_key(&datagram.source_port);
            return if is_guarded { Verdict::Drop(Reason::NoTunnel) } else { Verdict::Pass };
        }
        let way = (datagram.destination_port, wide(datagram.source), wide(datagram.destination));
        let Some(senders) = self.tunnels.get(&way) else { return Verdict::Drop(Reason::NoTunnel) };
        match senders.as_ref().and_then(|senders| senders.of(datagram.source_port)) {
            Some(id) => Verdict::Seal(id),
            None => Verdict::Drop(Reason::NoAssociation),
        }
    }

    /// As [`State::incoming`].
    pub(crate) fn incoming(&self, datagram: &Datagram) -> Verdict {
        match !self.ports.is_empty() && self.ports.contains_key(&datagram.destination_port) {
            false => Verdict::Pass,
            true => Verdict::Drop(Reason::Clear),
        }
    }

    /// As [`State::sealed`].
    pub(crate) fn sealed(&self, destination: IpAddr, spi: Spi) -> Verdict {
        let id = SaId { destination, spi };
        match self.incoming.contains_key(&id) {
            true => Verdict::Open(id),
            false => Verdict::Drop(Reason::ForeignSpi),
        }
    }

    /// As [`State::opened`].
    pub(crate) fn opened(&self, id: &SaId, inside: &Datagram) -> Verdict {
        let Some(agreed) = self.incoming.get(id) else { return Verdict::Drop(Reason::ForeignSpi) };
        let as_agreed = inside.source == agreed.source
            && inside.destination == id.destination
            && inside.destination_port == agreed.port;
        match (as_agreed, agreed.tunnel) {
            (false, _) => Verdict::Drop(Reason::OfAnother),
            (true, false) => Verdict::Drop(Reason::NoTunnel),
            (true, true) => Verdict::Pass,
        }
    }
}

impl Senders {
    fn of(&self, source_port: u16) -> Option<SaId> {
        *self.by.get(usize::from(self.lanes.of_source_port(source_port).get()))?
    }
}

fn senders(state: &State, tunnel: &Tunnel, spis: &[Spi]) -> Option<Senders> {
    let lanes = Lanes::new(spis.len()).ok()?;
    let by = spis.iter().map(|spi| {
        let id = SaId { destination: tunnel.peer, spi: *spi };
        let sa = state.sas.get(&id)?;
        (sa.direction == Direction::Out && sa.port == tunnel.port && sa.source == tunnel.local).then_some(id)
    });
    Some(Senders { lanes, by: by.collect() })
}

fn way(tunnel: &Tunnel) -> Way {
    (tunnel.port.get(), wide(tunnel.local), wide(tunnel.peer))
}

/// An address as a number: that of IPv4 as IPv6 has it mapped, which no tunnel's end is.
fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use overlay_crypto::{Datagram, SaId, testing};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_index_says_what_the_state_says(state in testing::state(), by in any::<prop::sample::Index>(), port in any::<u16>(), turned: bool) {
            let guards = Guards::new(&state);
            let named: Vec<(SaId, IpAddr, u16)> =
                state.sas.iter().map(|(id, sa)| (*id, sa.source, sa.port.get())).collect();
            let strangers = [([192, 0, 2, 77].into(), [192, 0, 2, 78].into(), 9)];
            let of_sas = named.iter().map(|(id, source, port)| (*source, id.destination, *port));
            let of_tunnels = state.tunnels.keys().map(|tunnel| (tunnel.local, tunnel.peer, tunnel.port.get()));
            let ways: Vec<(IpAddr, IpAddr, u16)> = of_sas.chain(of_tunnels).chain(strangers).collect();
            for (from, to, destination_port) in ways {
                let (source, destination) = if turned { (to, from) } else { (from, to) };
                for source_port in [port, destination_port] {
                    let datagram = Datagram { source, destination, source_port, destination_port };
                    prop_assert_eq!(guards.outgoing(&datagram), state.outgoing(&datagram));
                    prop_assert_eq!(guards.incoming(&datagram), state.incoming(&datagram));
                    if !named.is_empty() {
                        let (id, ..) = by.get(&named);
                        prop_assert_eq!(guards.opened(id, &datagram), state.opened(id, &datagram));
                        prop_assert_eq!(guards.sealed(destination, id.spi), state.sealed(destination, id.spi));
                    }
                }
            }
        }
    }
}
