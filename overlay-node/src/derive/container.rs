//! A container, with all its endpoints.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use overlay_core::{Name, NetworkId};
use overlay_dns::{View, Zone};

use super::part::Part;
use super::{firewall, gateway, routes};
use crate::{Knowledge, LocalEndpoint, Network, PlaceState};

/// A container's part of one network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attachment<'p> {
    pub(super) network: &'p Network,
    pub(super) local: &'p LocalEndpoint,
    pub(super) zone: &'p Zone,
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
        let ports = part.state.vxlan.segments.values().flat_map(|segment| segment.ports.keys());
        let plugged = ports.filter_map(|id| section.local.get(id)).filter(|local| local.namespace.is_some());
        for local in plugged {
            let attachment = Attachment { network: &section.network, local, zone: &part.zone };
            all.entry(local.endpoint.spec.container.clone()).or_default().push(attachment);
        }
    }
    all.values_mut().for_each(|attachments| attachments.sort_by(|a, b| a.rank().cmp(&b.rank())));
    all
}

/// Its way to the resolver, its routes, and the names that it sees.
pub(super) fn state(knowledge: &Knowledge, name: &Name, attachments: &[Attachment<'_>]) -> PlaceState {
    PlaceState {
        firewall: firewall::container(knowledge),
        routes: routes::routes(attachments, gateway::way_out(knowledge, name, attachments).as_ref()),
        view: view(knowledge, attachments.iter().map(|attachment| attachment.zone)),
        within: attachments.iter().map(|attachment| attachment.network.id).collect(),
        ..PlaceState::default()
    }
}

/// The names of these networks.
pub(super) fn view<'z>(knowledge: &Knowledge, zones: impl IntoIterator<Item = &'z Zone>) -> View {
    View { networks: zones.into_iter().cloned().collect(), suffixes: knowledge.settings.suffixes.clone() }
}
