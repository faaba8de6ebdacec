//! Networks that each node has for itself: bridges, and interfaces on physical networks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{EndpointId, IfName, Mac, NetworkId, NodeId, NsId};
use overlay_dns::Zone;
use overlay_firewall::{BridgePort, Gateway};
use overlay_link::{Bridge, Inside, Macvlan, Port};
use overlay_vxlan::names;

use super::admission::Admission;
use super::claim::{At, Claim, gateways};
use super::footing::{Footing, Ground};
use super::touched::Known;
use super::{firewall, zone};
use crate::{Kind, LocalEndpoint, Place, PlaceState, Section};

/// What is derived of a network that each node has for itself.
#[derive(Debug, Clone)]
pub(super) struct LocalPart {
    pub(super) zone: Zone,
    /// The endpoints here that are in effect.
    pub(super) ports: Vec<EndpointId>,
    pub(super) unfit: usize,
    carrier: Carrier,
}

/// What carries it.
#[derive(Debug, Clone)]
enum Carrier {
    /// A bridge of the host, and what is allowed at it.
    Bridge { device: IfName, bridge: Bridge, gateway: Gateway, pins: BTreeMap<IfName, BridgePort> },
    /// Interfaces of containers.
    Macvlans(BTreeMap<EndpointId, Macvlan>),
}

impl LocalPart {
    /// Whole each time: O(n log n) for n endpoints. `None` if nothing of it should be here.
    pub(super) fn derive(known: Known<'_>, footing: Footing) -> Option<Self> {
        let admission = match footing.ground {
            Ground::Bridge => Admission::local(known.section, &footing), // what is elsewhere is on another bridge
            _ => Admission::of(known.knowledge, known.section, &footing),
        };
        let carrier = match footing.ground {
            Ground::Segment(_) => return None,
            Ground::Bridge => bridge(known, &footing, &admission)?,
            Ground::Macvlan { parent, mode, .. } => {
                let macvlans = admission.ports.iter().filter_map(|(id, local, claim)| {
                    let own = Macvlan::new(parent, claim.mac, inside(local)?);
                    let addresses = local.endpoint.addresses.clone();
                    Some((*id, Macvlan { mode, mtu: footing.mtu, addresses, ..own }))
                });
                Carrier::Macvlans(macvlans.collect())
            }
        };
        let ports: Vec<EndpointId> = admission.ports.iter().map(|(id, ..)| *id).collect();
        let (zone, unfit) = (zone::zone(known.section, &admission), admission.unfit.len());
        (!ports.is_empty()).then_some(Self { zone, ports, unfit, carrier })
    }

    /// The subnets of its bridge; none if it has none.
    pub(super) fn bridged(&self) -> impl Iterator<Item = &IpNet> {
        let gateway = match &self.carrier {
            Carrier::Bridge { gateway, .. } => Some(gateway),
            Carrier::Macvlans(_) => None,
        };
        gateway.into_iter().flat_map(|gateway| &gateway.subnets)
    }

    /// Puts its bridge, and what is allowed at it, into the host's state, unless another bridge there has its name or its subnets; of its ports,
    /// those that nobody else is plugged in at.
    pub(super) fn put(&self, state: &mut PlaceState) {
        let Carrier::Bridge { device, bridge, gateway, pins } = &self.carrier else { return };
        let overlap = |net: &IpNet| gateway.subnets.iter().any(|own| own.contains(net) || net.contains(own));
        let taken = state.firewall.gateways.values().flat_map(|gateway| &gateway.subnets).any(overlap);
        if taken || state.link.bridges.contains_key(device) || state.firewall.ports.contains_key(device) {
            return;
        }
        let mut bridge = bridge.clone();
        let ends = insides(state);
        let is_free = |port: &Port| port.inside.as_ref().is_none_or(|inside| !ends.contains(&end(inside)));
        bridge.ports.retain(|name, port| is_free(port) && !state.firewall.ports.contains_key(name));
        let pins = pins.iter().filter(|(name, _)| bridge.ports.contains_key(name));
        state.firewall.ports.extend(pins.map(|(name, pin)| (*name, pin.clone())));
        state.firewall.gateways.insert(*device, gateway.clone());
        state.link.bridges.insert(*device, bridge);
    }

    /// The interface that an endpoint has on the physical network, if that is what carries it.
    pub(super) fn macvlan(&self, endpoint: EndpointId) -> Option<&Macvlan> {
        match &self.carrier {
            Carrier::Bridge { .. } => None,
            Carrier::Macvlans(macvlans) => macvlans.get(&endpoint),
        }
    }
}

fn bridge(known: Known<'_>, footing: &Footing, admission: &Admission<'_>) -> Option<Carrier> {
    let Section { network, .. } = known.section;
    let device = device(known.knowledge.me, network.id)?;
    let mut bridge = Bridge::new(mac(network.id), footing.mtu);
    (bridge.addresses, bridge.routed) = (gateways(known.section), !network.spec.internal);
    bridge.ports = admission.ports.iter().filter_map(port).collect();
    let subnets = network.subnets.iter().map(|subnet| subnet.net().trunc());
    let gateway = Gateway::new(subnets).together();
    let gateway = if network.spec.internal { gateway.internal() } else { gateway };
    let pinned = |(_, _, claim): &(_, _, Claim<'_>)| match claim.at {
        At::Port { device, .. } => Some((device, firewall::pinned(claim))),
        At::Vtep(_) => None,
    };
    let pins = admission.ports.iter().filter_map(pinned).collect();
    Some(Carrier::Bridge { device, bridge, gateway, pins })
}

fn port((_, local, claim): &(EndpointId, &LocalEndpoint, Claim<'_>)) -> Option<(IfName, Port)> {
    let At::Port { device, .. } = claim.at else { return None };
    let addresses = local.endpoint.addresses.clone();
    Some((device, Port { mac: claim.mac, addresses, inside: Some(inside(local)?) }))
}

fn inside(local: &LocalEndpoint) -> Option<Inside> {
    Some(Inside { namespace: local.namespace.clone()?, interface: local.interface })
}

/// Where the host's bridges have containers' interfaces.
fn insides(state: &PlaceState) -> BTreeSet<(NsId, IfName)> {
    let ports = state.link.bridges.values().flat_map(|bridge| bridge.ports.values());
    ports.filter_map(|port| port.inside.as_ref()).map(end).collect()
}

const fn end(inside: &Inside) -> (NsId, IfName) {
    (inside.namespace.id, inside.interface)
}

/// Which place an endpoint of a network that each node has for itself is plugged in at, and whether that holds it.
pub(crate) fn holds(
    section: &Section,
    me: NodeId,
    (id, local): (EndpointId, &LocalEndpoint),
    held: impl Fn(&Place) -> Option<Arc<PlaceState>>,
) -> (Place, bool) {
    let (mac, addresses) = (local.endpoint.mac, &local.endpoint.addresses);
    if section.network.spec.kind == Kind::Bridge {
        let held = held(&Place::Host).zip(device(me, section.network.id)).zip(names::port(id).ok());
        let port = held.and_then(|((state, bridge), port)| state.link.bridges.get(&bridge)?.ports.get(&port).cloned());
        let is_it = |port: Port| port.mac == mac && port.addresses == *addresses && port.inside == inside(local);
        return (Place::Host, port.is_some_and(is_it));
    }
    let place = Place::Container(local.endpoint.spec.container.clone());
    let macvlan = held(&place).and_then(|state| state.link.macvlans.get(&id).cloned());
    let is_it = |own: Macvlan| own.mac == mac && own.addresses == *addresses && Some(own.inside) == inside(local);
    let holds = macvlan.is_some_and(is_it);
    (place, holds)
}

/// What a network's bridge is called: `b`, and the first 7 characters of the node and of the network, so that nodes of one machine do not share it.
pub(crate) fn device(node: NodeId, network: NetworkId) -> Option<IfName> {
    let (node, network) = (node.short().to_string(), network.short().to_string());
    IfName::new(&format!("b{}{}", node.get(..7)?, network.get(..7)?)).ok()
}

/// The bridge's Ethernet address, one that no endpoint may have.
fn mac(network: NetworkId) -> Mac {
    let [a, b, c, ..] = network.to_bytes();
    Mac::new([0x02, 0x6f, 0x76, a, b, c])
}
