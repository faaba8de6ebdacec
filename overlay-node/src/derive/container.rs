//! A container, with all its endpoints.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{EndpointId, Name, NetworkId};
use overlay_dns::{View, Zone};
use overlay_link::Macvlan;

use super::lb::{self, Services};
use super::mesh::Mesh;
use super::part::Part;
use super::{firewall, gateway, routes};
use crate::{Kind, Knowledge, LocalEndpoint, Network, PlaceState, Service, mesh};

/// A container's part of one network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attachment<'p> {
    pub(super) network: &'p Network,
    pub(super) local: &'p LocalEndpoint,
    pub(super) zone: &'p Zone,
    /// The network's virtual services, if it has such.
    pub(super) services: Option<&'p Services>,
    /// Their VIPs, in order.
    pub(super) vips: &'p [IpAddr],
    /// What more there is of the network, if it is the ingress network.
    pub(super) mesh: Option<&'p Mesh>,
    /// The service that the container serves there.
    pub(super) service: Option<&'p Service>,
    /// Its interface on the physical network, if that is what the network is.
    pub(super) macvlan: Option<(EndpointId, &'p Macvlan)>,
}

impl<'p> Attachment<'p> {
    /// The first is the one that names are looked up in first, and that gives the default route.
    fn rank(&self) -> (Reverse<i32>, &'p Name, NetworkId) {
        (Reverse(self.local.endpoint.spec.priority), &self.network.spec.name, self.network.id)
    }
}

/// What the namespaces of containers are plugged into, of what is in effect, the first network first. O(n log n) for n endpoints here.
pub(super) fn attachments<'p>(
    knowledge: &'p Knowledge,
    parts: &'p BTreeMap<NetworkId, Part>,
) -> BTreeMap<Name, Vec<Attachment<'p>>> {
    let mut all = BTreeMap::<Name, Vec<Attachment<'p>>>::new();
    for (id, part) in parts {
        let Some(section) = knowledge.networks.get(id) else { continue };
        let plugged = part.ports().filter_map(|id| Some((id, section.local.get(&id)?)));
        let plugged =
            plugged.filter(|(_, local)| local.namespace.is_some() && !mesh::is_part(&section.network, &local.endpoint));
        for (id, local) in plugged {
            let macvlan = part.local().and_then(|part| Some((id, part.macvlan(id)?)));
            let service = local.endpoint.spec.service.and_then(|service| section.services.get(&service));
            let (services, vips, mesh) = (part.services(), part.vips(), part.mesh().map(|(_, mesh)| mesh));
            let service = service.map(|service| &**service);
            let network = &section.network;
            let attachment = Attachment { network, local, zone: part.zone(), services, vips, mesh, service, macvlan };
            all.entry(local.endpoint.spec.container.clone()).or_default().push(attachment);
        }
    }
    all.values_mut().for_each(|attachments| attachments.sort_by(|a, b| a.rank().cmp(&b.rank())));
    all
}

/// Its way to the resolver, its interfaces on physical networks, its routes, and the names that it sees.
/// `bridged` are the subnets of the node's bridges that networks have.
pub(super) fn state(
    knowledge: &Knowledge,
    bridged: &[IpNet],
    name: &Name,
    attachments: &[Attachment<'_>],
) -> PlaceState {
    let way_out = gateway::way_out(knowledge, bridged, name, attachments);
    let (mut services, mut routes) = (lb::state(attachments), routes::routes(attachments, way_out.as_ref()));
    super::mesh::back((&mut services, &mut routes), attachments, way_out.as_ref());
    let named = attachments.iter().filter(|attachment| !attachment.network.spec.ingress);
    let overlays = attachments.iter().filter(|attachment| attachment.network.spec.kind == Kind::Overlay);
    PlaceState {
        link: overlay_link::State { macvlans: macvlans(attachments), ..Default::default() },
        firewall: firewall::container(knowledge),
        lb: services,
        routes,
        view: view(knowledge, named.map(|attachment| attachment.zone)),
        within: overlays.map(|attachment| attachment.network.id).collect(),
        ..PlaceState::default()
    }
}

/// Each at an interface of its own.
fn macvlans(attachments: &[Attachment<'_>]) -> BTreeMap<EndpointId, Macvlan> {
    let mut taken = BTreeSet::new();
    let all = attachments.iter().filter_map(|attachment| attachment.macvlan);
    let own = all.filter(|(_, macvlan)| taken.insert((macvlan.inside.namespace.id, macvlan.inside.interface)));
    own.map(|(id, macvlan)| (id, macvlan.clone())).collect()
}

/// The names of these networks.
pub(super) fn view<'z>(knowledge: &Knowledge, zones: impl IntoIterator<Item = &'z Zone>) -> View {
    View { networks: zones.into_iter().cloned().collect(), suffixes: knowledge.settings.suffixes.clone() }
}
