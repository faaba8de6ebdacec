//! From the area value to XFRM's objects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::{Owner, Port, Refusal};
use overlay_kernel::xfrm::{
    self, Action, Aead, Claim, Direction, Lifetimes, Mode, Policy, PolicyKey, Ports, Sa, Selector, Template,
};

use crate::{Cipher, Limits, Numbers, SaId, Spi, State, Tunnel, Usage};

/// What an owner's objects are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    reqid: u32,
    /// Of tunnels; guards have the next.
    priority: u32,
}

impl Mark {
    /// Bits of the owner's tag. Request ids are large ones, which nobody counts up to; priorities small ones, which count before
    /// those of others.
    pub(super) fn new(owner: &Owner) -> Self {
        let tag = owner.tag();
        Self { reqid: (tag as u32 & 0x7fff_ffff) | 1 << 30, priority: 2 + 2 * ((tag >> 32) as u32 % OWNERS) }
    }

    pub(super) const fn claim(self) -> Claim {
        Claim { reqids: (self.reqid, self.reqid), priorities: (self.priority, self.priority + 1) }
    }

    /// The objects that mean a state, which passed its check.
    pub(super) fn lower(self, state: &State) -> Result<xfrm::State, Refusal> {
        let sas = state.sas.iter().map(|(id, sa)| Ok((native_id(id), self.sa(id, sa)?)));
        let guards = state.ports.iter().flat_map(|port| self.guards(*port));
        let tunnels = state.tunnels.iter().flat_map(|(tunnel, lanes)| self.tunnel(*tunnel, lanes));
        Ok(xfrm::State { sas: sas.collect::<Result<_, _>>()?, policies: guards.chain(tunnels).collect() })
    }

    fn sa(self, id: &SaId, sa: &crate::Sa) -> Result<Sa, Refusal> {
        if sa.udp.is_some() {
            return Err(Refusal::new(format!("SA {id}"), "ESP in UDP", NO_UDP));
        }
        Ok(Sa {
            source: sa.source,
            reqid: self.reqid,
            mode: Mode::Transport,
            aead: aead(sa.key.cipher()),
            extended: sa.numbers == Numbers::Extended,
            window: sa.window.get(),
            lifetimes: sa.limits.map_or_else(Lifetimes::default, lifetimes),
            udp: None,
            selector: Some(selector(sa.source.into(), id.destination.into(), sa.port)),
            counted: 0,
            key: Some(sa.key.for_kernel()),
        })
    }

    /// Nothing to the port, in or out, from or to anywhere; and nothing from it, which nobody sends: so no ICMP error about what came to it,
    /// sealed maybe, quotes that in the clear.
    fn guards(self, port: Port) -> impl Iterator<Item = (PolicyKey, Policy)> {
        let all = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()].map(|any| (any, 0));
        let all = all.into_iter().filter_map(|(any, prefix)| IpNet::new(any, prefix).ok());
        let priority = self.priority + 1;
        let of = move |net| {
            let to = selector(net, net, port);
            let from = Selector { source_port: to.destination_port, destination_port: None, ..to };
            [(Direction::In, to), (Direction::Out, to), (Direction::Out, from)]
        };
        all.flat_map(of).map(move |(direction, selector)| {
            (PolicyKey { direction, selector }, Policy { priority, action: Action::Block })
        })
    }

    /// What a tunnel takes, and by which association each lane sends.
    fn tunnel(self, tunnel: Tunnel, lanes: &[Spi]) -> impl Iterator<Item = (PolicyKey, Policy)> {
        let Tunnel { port, local, peer } = tunnel;
        let takes = PolicyKey { direction: Direction::In, selector: selector(peer.into(), local.into(), port) };
        let sends = selector(local.into(), peer.into(), port);
        let mask = u16::try_from(lanes.len()).unwrap_or(0).saturating_sub(1);
        let lanes = lanes.iter().zip(0..).map(move |(spi, bits)| {
            let source_port = (mask > 0).then_some(Ports { bits, mask });
            let key = PolicyKey { direction: Direction::Out, selector: Selector { source_port, ..sends } };
            (key, self.by(local, peer, Some(spi.get())))
        });
        std::iter::once((takes, self.by(peer, local, None))).chain(lanes)
    }

    fn by(self, source: IpAddr, destination: IpAddr, spi: Option<u32>) -> Policy {
        let template = Template { source, destination, reqid: self.reqid, spi, mode: Mode::Transport };
        Policy { priority: self.priority, action: Action::Protect(vec![template]) }
    }
}

fn lifetimes(Limits { soft, hard }: Limits) -> Lifetimes {
    let of = |usage: Usage| xfrm::Limits { bytes: Some(usage.bytes), packets: Some(usage.packets), seconds: None };
    Lifetimes { soft: of(soft), hard: of(hard) }
}

pub(super) const fn native_id(id: &SaId) -> xfrm::SaId {
    xfrm::SaId { destination: id.destination, spi: id.spi.get() }
}

/// UDP to a port.
fn selector(source: IpNet, destination: IpNet, port: Port) -> Selector {
    Selector { source, destination, protocol: UDP, source_port: None, destination_port: Some(port.get().into()) }
}

pub(super) const fn aead(cipher: Cipher) -> Aead {
    match cipher {
        Cipher::Aes128Gcm => Aead::Aes128Gcm,
        Cipher::Aes256Gcm => Aead::Aes256Gcm,
        Cipher::ChaCha20Poly1305 => Aead::ChaCha20Poly1305,
    }
}

const UDP: u8 = 17;
const OWNERS: u32 = 1 << 14;
const NO_UDP: &str = "a kernel takes that only by a socket which somebody opens for it, and nothing here does yet; \
                      without NAT between the nodes, ESP needs no UDP";

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;
