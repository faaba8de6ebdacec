//! What a judge looks into, made from a state.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use overlay_core::{IfName, IpFamily, Mac, Name, Port, Protocol};

use super::policy::PolicyIndex;
use super::{Gate, Judge, Map};
use crate::{Bind, BridgePort, Egress, Pin, State, Strangers};

/// Who lets frames in at a port.
#[derive(Debug, Clone, Default)]
pub(super) enum Keeper {
    #[default]
    Open,
    Closed,
    Pinned(PinEntry),
}

/// A pinned port.
#[derive(Debug, Clone)]
pub(super) struct PinEntry {
    pub(super) mac: Mac,
    pub(super) isolated: bool,
    link_local: Ipv6Addr,
    v4: Box<[Ipv4Addr]>,
    v6: Box<[Ipv6Addr]>,
}

impl Gate {
    fn of(port: &BridgePort) -> Self {
        match port {
            BridgePort::Pinned(pin) => Self(Keeper::Pinned(PinEntry::of(pin))),
            BridgePort::Trunk => Self(Keeper::Open),
        }
    }
}

impl PinEntry {
    fn of(pin: &Pin) -> Self {
        let (mac, isolated, link_local) = (pin.mac, pin.isolated, pin.link_local());
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in &pin.addresses {
            match *address {
                IpAddr::V4(address) => v4.push(address),
                IpAddr::V6(address) => v6.push(address),
            }
        }
        Self { mac, isolated, link_local, v4: v4.into(), v6: v6.into() }
    }

    #[inline]
    pub(super) fn has_v4(&self, address: Ipv4Addr) -> bool {
        self.v4.contains(&address)
    }

    #[inline]
    pub(super) fn has_v6(&self, address: Ipv6Addr) -> bool {
        self.v6.contains(&address) || address == self.link_local
    }
}

#[derive(Debug, Clone)]
pub(super) struct GatewayEntry {
    pub(super) egress: Egress,
    pub(super) together: bool,
}

/// Where a port is published, as a key that is quickly hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    bits: u128,
    rest: u64,
}

impl Place {
    pub(super) fn new(bind: Bind, family: IpFamily, protocol: Protocol, port: u16) -> Self {
        let (kind, bits) = match bind {
            Bind::Any => (0, 0),
            Bind::Address(IpAddr::V4(address)) => (1, u32::from(address).into()),
            Bind::Address(IpAddr::V6(address)) => (1, u128::from(address)),
            Bind::Interface(interface) => (2, bits_of(interface)),
        };
        let family = u64::from(family == IpFamily::V6);
        Self { bits, rest: kind << 32 | family << 24 | u64::from(protocol.number()) << 16 | u64::from(port) }
    }
}

/// The bytes of a name, which are 15 at most.
fn bits_of(interface: IfName) -> u128 {
    interface.as_str().bytes().fold(0, |bits, byte| bits << 8 | u128::from(byte))
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    pub(super) target: SocketAddr,
    /// Index of the name and the sources.
    pub(super) at: usize,
    /// Whether not all sources may ask.
    pub(super) restricted: bool,
}

/// Addresses, as numbers: those hash faster.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    v4: Map<u32, ()>,
    v6: Map<u128, ()>,
}

impl Members {
    fn new(members: &BTreeSet<IpAddr>) -> Self {
        let mut of = Self::default();
        for member in members {
            match *member {
                IpAddr::V4(member) => drop(of.v4.insert(member.into(), ())),
                IpAddr::V6(member) => drop(of.v6.insert(member.into(), ())),
            }
        }
        of
    }

    #[inline]
    pub(super) fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains_key(&address.into()),
            IpAddr::V6(address) => self.v6.contains_key(&address.into()),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct TunnelEntry {
    pub(super) port: Port,
    pub(super) members: Arc<Members>,
    /// Whether no member is behind a gateway.
    pub(super) outside: bool,
    pub(super) encrypted: Map<u32, ()>,
}

#[derive(Debug, Clone)]
pub(super) struct LimitEntry {
    pub(super) name: Name,
    pub(super) members: Members,
}

impl Judge {
    /// A judge for a state that passes its [check](overlay_core::State::check).
    pub fn new(state: &State) -> Self {
        let strangers = Gate(match state.strangers {
            Strangers::Pass => Keeper::Open,
            Strangers::Drop => Keeper::Closed,
        });
        let mut judge = Self { strangers, ..Self::default() };
        judge.ports = state.ports.iter().map(|(device, port)| (*device, Gate::of(port))).collect();
        for (device, gateway) in &state.gateways {
            judge.gateways.insert(*device, GatewayEntry { egress: gateway.egress, together: gateway.together });
            gateway.subnets.iter().for_each(|subnet| judge.subnets.insert(*subnet, *device));
        }
        for (name, published) in &state.published {
            judge.publish(name, published);
        }
        for (port, tunnel) in &state.tunnels {
            let encrypted = tunnel.encrypted.iter().map(|vni| (vni.get(), ())).collect();
            let members = Arc::new(Members::new(&tunnel.members));
            let outside = tunnel.members.iter().all(|member| judge.subnets.find(*member).is_none());
            let entry = TunnelEntry { port: *port, members, outside, encrypted };
            judge.tunnels.insert(port.get(), entry);
        }
        judge.esp = state.esp.as_ref().map(Members::new);
        for (name, limit) in &state.limits {
            let entry = LimitEntry { name: name.clone(), members: Members::new(&limit.members) };
            judge.limits.insert((limit.protocol, limit.port.get()), entry);
        }
        judge.is_bridge = judge.gateways.is_empty()
            && (judge.names.is_empty() && judge.tunnels.is_empty())
            && (judge.limits.is_empty() && judge.esp.is_none());
        judge.policy = state.policy.is_active().then(|| PolicyIndex::new(&state.policy));
        judge
    }

    fn publish(&mut self, name: &Name, published: &crate::Published) {
        let at = self.names.len();
        let (protocol, port, bind) = (published.protocol, published.port.get(), published.bind);
        let restricted = !published.sources.is_empty();
        for family in [IpFamily::V4, IpFamily::V6] {
            let Some(target) = published.target(family) else { continue };
            let found = Published { target, at, restricted };
            self.places.insert(Place::new(bind, family, protocol, port), found);
            #[cfg(feature = "kernel")]
            {
                self.targets.insert((protocol, target), ());
                if matches!(bind, Bind::Interface(_)) {
                    self.at_interfaces.entry((family, protocol, port)).or_default().push(found);
                }
            }
            if bind.is_loopback() {
                self.local.entry((family, protocol, port)).or_insert(at);
            }
        }
        self.names.push(name.clone());
        for net in &published.sources {
            self.sources.entry(at).or_default().insert(*net, ());
        }
    }
}
