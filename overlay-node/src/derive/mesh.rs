//! The routing mesh: what is published at the node's own addresses, and the way back of those who come by another node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IpFamily, Mac, Name, Port, Protocol};
use overlay_dns::Zone;
use overlay_firewall::{Gateway, Published};
use overlay_lb::{Arrivals, Service, State};
use overlay_link::{Marked, Routes};
use overlay_vxlan::Segment;

use super::container::Attachment;
use super::gateway::WayOut;
use super::lb::{self, Services};
use super::touched::Known;
use super::zone;
use crate::{Knowledge, PlaceState, PublishMode, PublishedPort, mesh};

/// What is derived of an ingress network besides its segment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Mesh {
    /// The nodes' own endpoints, by their Ethernet addresses.
    nodes: BTreeMap<Mac, BTreeSet<IpAddr>>,
    /// What is published there.
    services: Services,
}

impl Mesh {
    /// What is so now; what of `before` did not change is kept. O(nodes, and replicas of published services).
    pub(super) fn of(known: Known<'_>, segment: &Segment, zone: &Zone, before: Option<Self>) -> Option<Self> {
        if !known.section.network.spec.ingress {
            return None;
        }
        let mut services = before.unwrap_or_default().services;
        let wanted = published(known, zone);
        let gone: Vec<Name> = services.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        gone.iter().for_each(|name| drop(services.remove(name)));
        for (name, service) in wanted {
            if services.get(&name) != Some(&service) {
                services.insert(name, service);
            }
        }
        Some(Self { nodes: nodes(known, segment), services })
    }
}

/// The nodes' endpoints that are in effect here.
fn nodes(known: Known<'_>, segment: &Segment) -> BTreeMap<Mac, BTreeSet<IpAddr>> {
    let (network, section) = (known.section.network.id, known.section);
    let all = known.knowledge.nodes.keys().filter_map(|node| {
        let id = mesh::endpoint(network, *node);
        if let Some(port) = segment.ports.get(&id) {
            return Some((port.mac, port.addresses.iter().map(IpNet::addr).collect()));
        }
        let remote = section.remote.get(&id).filter(|remote| remote.node == *node)?;
        let its = |address: &IpAddr| remote.addresses.contains(address);
        let peer = segment.peers.get(&remote.mac).filter(|peer| peer.addresses.iter().all(its))?;
        Some((remote.mac, peer.addresses.iter().copied().collect()))
    });
    all.collect()
}

/// The services that publish a port in the mesh, each with those of its endpoints that are on the network.
fn published(known: Known<'_>, zone: &Zone) -> BTreeMap<Name, Service> {
    let mut taken = BTreeSet::new(); // of two with one port, the first by name has it
    let services = zone::services(known.section).into_iter().filter_map(|(name, service)| {
        let ports = ports(&service.ports, PublishMode::Ingress).filter(|(protocol, port, _)| {
            !is_ours(known.knowledge, *protocol, *port) && taken.insert((*protocol, *port))
        });
        let balanced = Service { affinity: None, ..service.spec.balancing.sound(&name).service([]) };
        let published = ports.fold(balanced, |service, (protocol, port, target)| service.port(protocol, port, target));
        if published.ports == overlay_lb::Ports::All {
            return None;
        }
        Some((name.clone(), lb::with_replicas(published, zone, &name)))
    });
    services.collect()
}

/// The ports of a mode that have a number: what clients ask for, and the container's.
fn ports(all: &[PublishedPort], mode: PublishMode) -> impl Iterator<Item = (Protocol, Port, Port)> {
    let of_mode = all.iter().filter(move |port| port.mode == mode);
    of_mode.filter_map(|port| Some((port.protocol, port.published?, port.target)))
}

/// Whether the node itself needs a port: nobody may take its tunnels and gossip away.
fn is_ours(knowledge: &Knowledge, protocol: Protocol, port: Port) -> bool {
    let settings = &knowledge.settings;
    port == settings.gossip_port && protocol != Protocol::Sctp
        || port == settings.vxlan_port && protocol == Protocol::Udp
}

/// Puts what the node itself publishes into the host's state, unless its subnets are behind another gateway of the host.
pub(super) fn put(state: &mut PlaceState, known: Known<'_>, (segment, mesh): (&Segment, &Mesh)) {
    let (network, me) = (&known.section.network, known.knowledge.me);
    let here = segment.ports.contains_key(&mesh::endpoint(network.id, me));
    let Some(device) = mesh::interface(network.id, me).filter(|_| here) else { return };
    let subnets: BTreeSet<IpNet> = network.subnets.iter().map(|subnet| subnet.net().trunc()).collect();
    let overlaps = |net: &IpNet| subnets.iter().any(|own| own.contains(net) || net.contains(own));
    if state.firewall.gateways.values().flat_map(|gateway| &gateway.subnets).any(overlaps) {
        return;
    }
    state.firewall.gateways.insert(device, Gateway::new(subnets).internal().balanced());
    if state.lb.services.is_empty() {
        state.lb.services = mesh.services.clone();
    }
}

/// Puts the ports that containers of this node publish at it alone into the host's state. Of two with one port the first by name has it.
pub(super) fn put_host_ports(
    state: &mut PlaceState,
    knowledge: &Knowledge,
    way: &WayOut,
    attachments: &[Attachment<'_>],
) {
    for attachment in attachments {
        let Some(service) = attachment.service else { continue };
        for (protocol, port, target) in ports(&service.ports, PublishMode::Host) {
            let Ok(name) = Name::new(&format!("host-{protocol}-{port}")) else { continue };
            if is_ours(knowledge, protocol, port) || state.firewall.published.contains_key(&name) {
                continue;
            }
            let at = |published: Published, (own, _): &(IpNet, IpAddr)| published.to((own.addr(), target.get()).into());
            let published = way.ends.iter().fold(Published::new(protocol, port), at);
            state.firewall.published.insert(name, published);
        }
    }
}

/// Who comes to a container by a node's published port is answered through that node: its flows are marked, and marks have routes.
pub(super) fn back(
    (services, routes): (&mut State, &mut Routes),
    attachments: &[Attachment<'_>],
    way_out: Option<&WayOut>,
) {
    let on_mesh = attachments.iter().find_map(|attachment| Some((attachment, attachment.mesh?)));
    let Some((attachment, mesh)) = on_mesh else { return };
    let interface = attachment.local.interface;
    let own = |family| own_address(attachment, family);
    let (mut marks, mut taken) = (BTreeMap::new(), BTreeSet::new());
    for (mac, addresses) in &mesh.nodes {
        let router =
            |family| addresses.iter().copied().find(|it| IpFamily::of(*it) == family).filter(|_| own(family).is_some());
        let v4 = router(IpFamily::V4).and_then(|it| if let IpAddr::V4(it) = it { Some(it) } else { None });
        let v6 = router(IpFamily::V6).and_then(|it| if let IpAddr::V6(it) = it { Some(it) } else { None });
        let mut mark = mesh::mark(*mac);
        while !taken.insert(mark) {
            mark = mark % ((1 << 30) - 1) + 1; // of two with one mark, the second has the next
        }
        if v4.is_some() || v6.is_some() {
            marks.insert(*mac, mark);
            routes.marked.insert(mark, Marked { interface, v4, v6 });
        }
    }
    let answers = [IpFamily::V4, IpFamily::V6].into_iter().filter_map(|family| {
        let at = own(family)?;
        let from = answering(routes, attachments, way_out, family).filter(|from| *from != at)?;
        Some((at, from))
    });
    services.arrivals = Some(Arrivals { interface, marks, answers: answers.collect(), inside: inside(attachments) });
}

/// Where nobody is who comes by another node: the container's other networks, but physical ones, which have clients too, and its own addresses.
fn inside(attachments: &[Attachment<'_>]) -> BTreeSet<IpNet> {
    let others = attachments.iter().filter(|attachment| attachment.mesh.is_none() && attachment.macvlan.is_none());
    let subnets = others.flat_map(|attachment| &attachment.network.subnets).map(|subnet| subnet.net().trunc());
    let own = attachments.iter().flat_map(|attachment| &attachment.local.endpoint.addresses).map(IpNet::addr);
    subnets.chain(own.map(IpNet::from)).filter(|net| net.prefix_len() > 0).collect()
}

/// The address that a container answers strangers from by itself: its own at its default way.
fn answering(
    routes: &Routes,
    attachments: &[Attachment<'_>],
    way_out: Option<&WayOut>,
    family: IpFamily,
) -> Option<IpAddr> {
    let by_default = |(to, _): &(&IpNet, _)| to.prefix_len() == 0 && IpFamily::of(to.addr()) == family;
    let (_, default) = routes.to.iter().find(by_default)?;
    let outside = way_out.filter(|way| way.interface == default.interface);
    if let Some(way) = outside {
        return way.ends.iter().map(|(own, _)| own.addr()).find(|own| IpFamily::of(*own) == family);
    }
    let attachment = attachments.iter().find(|attachment| attachment.local.interface == default.interface)?;
    own_address(attachment, family)
}

fn own_address(attachment: &Attachment<'_>, family: IpFamily) -> Option<IpAddr> {
    attachment.local.endpoint.addresses.iter().map(IpNet::addr).find(|own| IpFamily::of(*own) == family)
}
