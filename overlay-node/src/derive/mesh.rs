//! The routing mesh: what is published at the node's own addresses, and the way back of those who come by another node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{IpFamily, Mac, Name, Port, Protocol};
use overlay_dns::{Endpoint, Zone};
use overlay_firewall::{Bind as HostBind, Gateway, Published};
use overlay_lb::{Arrivals, Bind, Ports, Service, State};
use overlay_link::{Marked, Routes};
use overlay_vxlan::Segment;

use super::container::Attachment;
use super::gateway::WayOut;
use super::lb::{self, Services};
use super::touched::Known;
use super::zone;
use crate::{Access, Knowledge, PlaceState, PublishMode, PublishedPort, Service as Record, Settings, mesh};

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
        let wanted = published(known, segment, zone);
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

/// The services that publish ports in the mesh, each with those of its endpoints that are on the network: by where their ports are found, and by
/// whom. One at all addresses for everybody has the service's name.
fn published(known: Known<'_>, segment: &Segment, zone: &Zone) -> BTreeMap<Name, Service> {
    let (named, mut all) = (zone::services(known.section), BTreeMap::new());
    let mut taken = BTreeSet::new(); // of two with one port, the first by name has it
    for (name, record) in &named {
        let balanced = Service { affinity: None, ..record.spec.balancing.sound(name).service([]) };
        let mut groups = BTreeMap::<_, Service>::new();
        for (port, number) in ports(known.knowledge, &record.ports, PublishMode::is_of_mesh) {
            if taken.insert((port.protocol, number)) {
                let group = (port.mode, port.source, bind(&port.access), &port.access.sources);
                let service = groups.remove(&group).unwrap_or_else(|| balanced.clone());
                groups.insert(group, service.port(port.protocol, number, port.target));
            }
        }
        for ((mode, source, bind, sources), service) in groups {
            let usual = (mode, source) == Default::default() && bind == Bind::Any && sources.is_empty();
            let Some(name) = (if usual { Some(name.clone()) } else { free(&service, &named, &all) }) else { continue };
            let here = |member: &&Endpoint| mode != PublishMode::Local || segment.ports.contains_key(&member.id);
            let service = Service { bind, sources: sources.clone(), masquerade: !source.is_kept(), ..service };
            let of = &record.spec.name.folded();
            all.insert(name, lb::with_replicas(service, zone.members(of).filter(here)));
        }
    }
    all
}

/// A name for a part of a service, after its first port, that neither a service nor another part has.
fn free(of: &Service, named: &BTreeMap<Name, &Arc<Record>>, parts: &BTreeMap<Name, Service>) -> Option<Name> {
    let Ports::Named(ports) = &of.ports else { return None };
    let (first, suffixes) = (ports.first()?, std::iter::once(String::new()).chain((1..).map(|it| format!("-{it}"))));
    let mut names = suffixes.map_while(|it| Name::new(&format!("part-{}-{}{it}", first.protocol, first.port)).ok());
    names.find(|name| !named.contains_key(name) && !parts.contains_key(name))
}

/// Where a port is found on the node.
fn bind(access: &Access) -> Bind {
    match access {
        Access { addresses, .. } if !addresses.is_empty() => Bind::Addresses(addresses.clone()),
        Access { interfaces, .. } if !interfaces.is_empty() => Bind::Interfaces(interfaces.clone()),
        _ => Bind::Any,
    }
}

/// The ports of some modes that this node publishes: those that have a number, make sense, are for it, and are not needed by it.
fn ports<'p>(
    knowledge: &Knowledge,
    all: &'p [PublishedPort],
    mode: impl Fn(PublishMode) -> bool,
) -> impl Iterator<Item = (&'p PublishedPort, Port)> {
    let of_mode = all.iter().filter(move |port| mode(port.mode));
    let here = of_mode.filter(|port| port.access.is_at(knowledge.me) && port.access.check().is_ok());
    let numbered = here.filter_map(|port| Some((port, port.published?)));
    numbered.filter(|(port, number)| kept(&knowledge.settings, port.protocol, *number).is_none())
}

/// Why the node itself needs a port, if it does: nobody may take its tunnels, its gossip, or the way to it away.
pub(crate) fn kept(settings: &Settings, protocol: Protocol, port: Port) -> Option<&'static str> {
    match () {
        () if port == settings.gossip_port && protocol != Protocol::Sctp => Some("it is the node's gossip port"),
        () if port == settings.vxlan_port && protocol == Protocol::Udp => Some("it is the node's VXLAN port"),
        () if port == settings.encrypted_port && protocol == Protocol::Udp => {
            Some("it is the node's port of encrypted networks")
        }
        () if settings.own_ports.contains(port) && protocol == Protocol::Udp => {
            Some("it is among the ports that encrypted networks have for their own")
        }
        () if settings.kept.contains(&(protocol, port)) => Some("the node keeps it for itself"),
        () => None,
    }
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

/// Puts the ports that containers of this node publish at it alone into the host's state. Of two with one port the first that comes has it.
pub(super) fn put_host_ports(
    state: &mut PlaceState,
    knowledge: &Knowledge,
    way: &WayOut,
    attachments: &[Attachment<'_>],
) {
    for attachment in attachments {
        let Some(service) = attachment.service else { continue };
        for (port, number) in ports(knowledge, &service.ports, |mode| mode == PublishMode::Host) {
            let (protocol, target) = (port.protocol, port.target.get());
            let name = |at| Name::new(&format!("host-{protocol}-{number}{}", suffix(at))).ok();
            if name(0).is_none_or(|first| state.firewall.published.contains_key(&first)) {
                continue;
            }
            let at = |published: Published, (own, _): &(IpNet, IpAddr)| published.to((own.addr(), target).into());
            let published = way.ends.iter().fold(Published::new(protocol, number), at);
            let published = Published { sources: port.access.sources.clone(), ..published };
            let is_found = |it: &Published| [IpFamily::V4, IpFamily::V6].iter().any(|of| it.target(*of).is_some());
            let places = host_binds(&port.access).into_iter().map(|bind| published.clone().at(bind)).filter(is_found);
            let named = places.enumerate().filter_map(|(at, published)| Some((name(at)?, published)));
            state.firewall.published.extend(named);
        }
    }
}

fn suffix(at: usize) -> String {
    if at == 0 { String::new() } else { format!("-{at}") }
}

/// Where a port is found on the node, one by one.
fn host_binds(access: &Access) -> Vec<HostBind> {
    let addresses = access.addresses.iter().map(|address| HostBind::Address(*address));
    let all: Vec<_> =
        addresses.chain(access.interfaces.iter().map(|interface| HostBind::Interface(*interface))).collect();
    if all.is_empty() { vec![HostBind::Any] } else { all }
}

/// Who comes to a container by a node's published port is answered through that node: its flows are marked, and marks have routes.
pub(super) fn back(
    (services, routes): (&mut State, &mut Routes),
    attachments: &[Attachment<'_>],
    way_out: Option<&WayOut>,
) {
    let on_mesh = attachments.iter().find_map(|attachment| Some((attachment, attachment.mesh?)));
    let on_mesh = on_mesh.filter(|(attachment, _)| !attachment.service.is_some_and(sees_nodes));
    let Some((attachment, mesh)) = on_mesh else { return };
    let interface = attachment.local.interface;
    let own = |family| own_address(attachment, family);
    let mut marks = BTreeMap::new();
    for ((mac, mark), addresses) in self::marks(mesh.nodes.keys()).into_iter().zip(mesh.nodes.values()) {
        let router =
            |family| addresses.iter().copied().find(|it| IpFamily::of(*it) == family).filter(|_| own(family).is_some());
        let v4 = router(IpFamily::V4).and_then(|it| if let IpAddr::V4(it) = it { Some(it) } else { None });
        let v6 = router(IpFamily::V6).and_then(|it| if let IpAddr::V6(it) = it { Some(it) } else { None });
        if v4.is_some() || v6.is_some() {
            marks.insert(mac, mark);
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

/// Whether all who come to a service's containers by the mesh come as nodes: so no way back is needed.
pub(super) fn sees_nodes(service: &Record) -> bool {
    let mut of_mesh = service.ports.iter().filter(|port| port.mode.is_of_mesh()).peekable();
    of_mesh.peek().is_some() && of_mesh.all(|port| !port.source.is_kept())
}

/// The marks of nodes, each its own: of two that would have one, the second has the next. So a node's standing flows lose their way back when another comes
/// whose mark it has, which is one in 2³⁰ for each two nodes.
fn marks<'m>(nodes: impl Iterator<Item = &'m Mac>) -> BTreeMap<Mac, u32> {
    let mut taken = BTreeSet::new();
    let own = |mac: &Mac| {
        let mut mark = mesh::mark(*mac);
        while !taken.insert(mark) {
            mark = mark % ((1 << 30) - 1) + 1;
        }
        (*mac, mark)
    };
    nodes.map(own).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.wrapping_mul(0x9e37_79b9).to_be_bytes(); // spread, as neighbours differ
        Mac::new([2, 0x42, a, b, c, d])
    }

    #[test]
    fn of_nodes_whose_marks_would_be_one_each_has_its_own_and_the_others_keep_theirs() {
        let mut first = BTreeMap::new();
        let twin = |number| Some((first.insert(mesh::mark(mac(number)), number)?, number));
        let (one, other) = (0..1 << 20).find_map(twin).unwrap();
        let all: Vec<Mac> = [7, one, other].map(mac).to_vec();
        let marks = marks(all.iter());
        assert_eq!((marks[&all[0]], marks[&all[1]]), (mesh::mark(all[0]), mesh::mark(all[1])));
        assert_eq!(marks.values().collect::<BTreeSet<_>>().len(), 3, "{marks:?}");
        assert!(marks.values().all(|mark| (1..1 << 30).contains(mark)), "{marks:?}");
    }
}
