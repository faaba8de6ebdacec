//! The node's gateway bridge, and the containers that reach the outside by it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IfName, IpFamily, Mtu, Name, NsId, NsKey};
use overlay_firewall::{BridgePort, Gateway, Pin};
use overlay_link::{Bridge, Inside, Port};

use super::container::Attachment;
use super::mesh;
use crate::knowledge::gateway::{bridge, bridge_mac, port, port_mac};
use crate::{GatewayBridge, GatewayPort, Kind, Knowledge, NetworkSpec, PlaceState};

/// A container's way to the outside.
#[derive(Debug, Clone)]
pub(super) struct WayOut {
    port: GatewayPort,
    namespace: NsKey,
    pub(super) interface: IfName,
    /// Its address of each family that it leaves by, and the gateway.
    pub(super) ends: Vec<(IpNet, IpAddr)>,
}

/// The families that a container may leave by are those of its overlays that are not internal. `None` if it has no port, or the bridge no such
/// subnet. `bridged` are the subnets of the node's other bridges.
pub(super) fn way_out(
    knowledge: &Knowledge,
    bridged: &[IpNet],
    name: &Name,
    attachments: &[Attachment<'_>],
) -> Option<WayOut> {
    let (settings, port) = (knowledge.settings.gateway?, *knowledge.gateway_ports.get(name)?);
    let is_open = |spec: &NetworkSpec| spec.kind == Kind::Overlay && !spec.internal;
    let open = attachments.iter().filter(|attachment| is_open(&attachment.network.spec));
    let addresses = open.flat_map(|attachment| &attachment.local.endpoint.addresses);
    let families: BTreeSet<_> = addresses.map(|own| IpFamily::of(own.addr())).collect();
    let mtu = mtu(knowledge)?;
    let families = families.into_iter().filter(|family| carries(mtu, *family));
    // Networks come first: one with the bridge's subnet has no way out, nor has any container of the node where another bridge has it.
    let own = attachments.iter().flat_map(|it| &it.network.subnets).map(|subnet| subnet.net().trunc());
    let own: Vec<IpNet> = own.chain(bridged.iter().copied()).collect();
    let is_free = |net: &IpNet| !own.iter().any(|own| own.contains(net) || net.contains(own));
    let ends: Vec<_> = families
        .filter_map(|family| Some((settings.address(family, port)?, settings.gateway(family)?)))
        .filter(|(_, gateway)| is_free(&gateway.trunc()))
        .map(|(own, gateway)| (own, gateway.addr()))
        .collect();
    let namespace = attachments.iter().find_map(|attachment| attachment.local.namespace.clone())?;
    let interface = IfName::new(GatewayBridge::INTERFACE).ok()?;
    (!ends.is_empty()).then_some(WayOut { port, namespace, interface, ends })
}

/// Puts the bridge, and what is allowed at it, into the host's state; nothing while nobody leaves by it.
pub(super) fn put(
    state: &mut PlaceState,
    knowledge: &Knowledge,
    bridged: &[IpNet],
    attachments: &BTreeMap<Name, Vec<Attachment<'_>>>,
) {
    let ways = attachments
        .iter()
        .filter_map(|(name, attachments)| Some((way_out(knowledge, bridged, name, attachments)?, attachments)));
    let ways: Vec<(WayOut, &Vec<Attachment<'_>>)> = ways.collect();
    let (Some(settings), Some(device), Some(mtu)) = (knowledge.settings.gateway, bridge(knowledge.me), mtu(knowledge))
    else {
        return;
    };
    if ways.is_empty() {
        return;
    }
    let mut local = Bridge::new(bridge_mac(knowledge.me), mtu).routed().isolated();
    let families = [IpFamily::V4, IpFamily::V6].into_iter().filter(|family| carries(mtu, *family));
    let is_free = |net: &IpNet| !bridged.iter().any(|other| other.contains(&net.trunc()) || net.contains(other));
    local.addresses = families.filter_map(|family| settings.gateway(family)).filter(is_free).collect();
    let mut taken = BTreeSet::<NsId>::new(); // containers that share a namespace share its interfaces
    let mut ways: Vec<_> = ways.into_iter().filter(|(way, _)| taken.insert(way.namespace.id)).collect();
    // Of two that publish one port at the host, the first that was there has it.
    ways.sort_by_key(|(_, attachments)| attachments.iter().map(|it| it.local.endpoint.created).min());
    for (way, attachments) in ways {
        mesh::put_host_ports(state, knowledge, &way, attachments);
        let Some(name) = port(knowledge.me, way.port) else { continue };
        let addresses: BTreeSet<IpNet> = way.ends.iter().map(|(own, _)| *own).collect();
        let pin = Pin::new(port_mac(way.port), addresses.iter().map(IpNet::addr)).isolated();
        state.firewall.ports.insert(name, BridgePort::Pinned(pin));
        let inside = Inside { namespace: way.namespace, interface: way.interface };
        local.ports.insert(name, Port { mac: port_mac(way.port), addresses, inside: Some(inside) });
    }
    // Who asks at 127.0.0.1 of the host is led there too, and the firewall lets nothing come back that began there.
    local.localnet = !state.firewall.published.is_empty();
    let subnets = local.addresses.iter().map(IpNet::trunc);
    state.firewall.gateways.insert(device, Gateway::new(subnets));
    state.link.bridges.insert(device, local);
}

/// IPv6 needs packets of 1,280 bytes (RFC 8200 §5).
fn carries(mtu: Mtu, family: IpFamily) -> bool {
    family == IpFamily::V4 || mtu >= Mtu::IPV6_MIN
}

/// Packets that leave are as large as the node's underlay takes them.
fn mtu(knowledge: &Knowledge) -> Option<Mtu> {
    knowledge.nodes.get(&knowledge.me).map(|facts| facts.mtu)
}
