//! From what a node knows to what it should hold.

mod admission;
mod container;
mod deriver;
mod firewall;
mod footing;
mod routes;
mod vxlan;
mod zone;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use container::Attachment;
use overlay_core::{EndpointId, Name, NetworkId};
use overlay_dns::Zone;

pub use admission::Unfit;
pub use deriver::Deriver;

use admission::Admission;
use footing::Footing;

use crate::{Desired, Knowledge, Place, PlaceState, Section};

/// What a node that knows this should hold. Pure, and whole: O(n log n) for n endpoints.
///
/// A network is there while an endpoint is plugged in; so is the host's guard. Whatever other nodes say, every value in it
/// passes its [`State::check`](overlay_core::State::check), and addresses of endpoints that are plugged in here stay theirs: see
/// [`Unfit`](crate::Unfit) for what is left out.
pub fn derive(knowledge: &Knowledge) -> Desired {
    let mut places = BTreeMap::new();
    if knowledge.networks.values().any(|section| !section.local.is_empty()) {
        let firewall = firewall::host(knowledge);
        places.insert(Place::Host, Arc::new(PlaceState { firewall, ..PlaceState::default() }));
    }
    let parts: BTreeMap<_, _> =
        knowledge.networks.iter().filter_map(|(id, section)| Some((*id, Part::derive(knowledge, section)?))).collect();
    for (id, part) in &parts {
        places.insert(Place::Network(*id), Arc::new(part.sandbox(knowledge)));
    }
    for (name, attachments) in attachments(&parts) {
        places.insert(Place::Container(name), Arc::new(container::state(knowledge, &attachments)));
    }
    Desired { places }
}

/// What is derived of one network.
struct Part<'k> {
    section: &'k Section,
    footing: Footing,
    admission: Admission<'k>,
    zone: Zone,
}

impl<'k> Part<'k> {
    /// `None` for a network that should not be here.
    fn derive(knowledge: &'k Knowledge, section: &'k Section) -> Option<Self> {
        let footing = Footing::of(knowledge, section).ok()?;
        let admission = Admission::of(knowledge, section, &footing);
        if admission.ports.is_empty() {
            return None;
        }
        let zone = zone::zone(knowledge, section, &admission);
        Some(Self { section, footing, admission, zone })
    }

    fn sandbox(&self, knowledge: &Knowledge) -> PlaceState {
        let machines = self.admission.ports.values().any(|port| port.local.namespace.is_none());
        PlaceState {
            vxlan: vxlan::state(knowledge, self.section, &self.footing, &self.admission),
            firewall: firewall::sandbox(&self.footing, &self.admission),
            view: if machines { container::view(knowledge, [&self.zone]) } else { Default::default() },
            ..PlaceState::default()
        }
    }
}

/// By container, what its namespace is plugged into.
fn attachments<'p>(parts: &'p BTreeMap<NetworkId, Part<'_>>) -> BTreeMap<Name, Vec<Attachment<'p>>> {
    let mut all = BTreeMap::<Name, Vec<Attachment<'p>>>::new();
    for part in parts.values() {
        for port in part.admission.ports.values().filter(|port| port.local.namespace.is_some()) {
            let container = port.local.endpoint.spec.container.clone();
            let attachment = Attachment { network: &part.section.network, local: port.local, zone: &part.zone };
            all.entry(container).or_default().push(attachment);
        }
    }
    all
}

/// Whether an endpoint that is plugged in here is in effect, or why not.
pub(crate) fn fits(knowledge: &Knowledge, section: &Section, id: EndpointId) -> Result<(), String> {
    let footing = Footing::of(knowledge, section).map_err(|unready| unready.to_string())?;
    match admission::local(section, &footing).unfit.get(&id) {
        Some(unfit) => Err(unfit.to_string()),
        None => Ok(()),
    }
}

/// Whether an address can be a VTEP: one host's, and no link-local one, which would need an interface beside it.
pub(crate) fn is_vtep(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    admission::is_host(address) && !link_local
}
