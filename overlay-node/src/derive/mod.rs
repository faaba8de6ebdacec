//! From what a node knows to what it should hold.

mod admission;
mod claim;
mod container;
mod deriver;
mod firewall;
mod footing;
mod free;
mod gateway;
mod lb;
mod local;
mod mesh;
mod part;
mod protection;
mod routes;
mod segment;
mod touched;
mod vxlan;
mod zone;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{EndpointId, Name, NetworkId};

pub use claim::Unfit;
pub use deriver::Deriver;

use admission::Admission;
use claim::{At, Claim};
use container::Attachment;
use footing::Footing;
use local::LocalPart;
pub(crate) use local::{device, holds};
pub(crate) use mesh::kept;
use part::Part;
use touched::Known;

use crate::{Desired, Knowledge, LocalEndpoint, Place, PlaceState, Section};

/// What a node that knows this should hold. Pure, and whole: O(n log n) for n endpoints.
///
/// A network is there while an endpoint is plugged in; so is the host's guard. Whatever other nodes say, every value in it
/// passes its [`State::check`](overlay_core::State::check), and addresses of endpoints that are plugged in here stay theirs: see
/// [`Unfit`] for what is left out.
pub fn derive(knowledge: &Knowledge) -> Desired {
    places(knowledge, &parts(knowledge))
}

/// What is derived of each network that should be here.
fn parts(knowledge: &Knowledge) -> BTreeMap<NetworkId, Part> {
    let derive = |section| Part::derive(Known { knowledge, section });
    knowledge.networks.iter().filter_map(|(id, section)| Some((*id, derive(section)?))).collect()
}

fn places(knowledge: &Knowledge, parts: &BTreeMap<NetworkId, Part>) -> Desired {
    let mut places = BTreeMap::new();
    let (attachments, bridged) = (container::attachments(knowledge, parts), bridged(parts));
    places.extend(host(knowledge, parts, &attachments).map(|state| (Place::Host, Arc::new(state))));
    let sandboxes = parts.iter().filter_map(|(id, part)| Some((Place::Network(*id), part.sandbox()?.clone())));
    places.extend(sandboxes);
    for (name, attachments) in attachments {
        let state = container::state(knowledge, &bridged, &name, &attachments);
        places.insert(Place::Container(name), Arc::new(state));
    }
    Desired { places }
}

/// The host is guarded while an endpoint is plugged in, be its network here or not. It has the bridges of networks, and what containers of
/// others leave by.
fn host(
    knowledge: &Knowledge,
    parts: &BTreeMap<NetworkId, Part>,
    attachments: &BTreeMap<Name, Vec<Attachment<'_>>>,
) -> Option<PlaceState> {
    let plugged = knowledge.networks.values().any(|section| !section.local.is_empty());
    let (crypto, firewall) = (|| protection::host(knowledge), || firewall::host(knowledge));
    let mut state = plugged.then(|| PlaceState { crypto: crypto(), firewall: firewall(), ..Default::default() })?;
    gateway::put(&mut state, knowledge, &bridged(parts), attachments);
    locals(parts).for_each(|part| part.put(&mut state));
    for (id, part) in parts {
        let known = knowledge.networks.get(id).map(|section| Known { knowledge, section });
        let meshed = known.zip(part.mesh());
        meshed.into_iter().for_each(|(known, mesh)| mesh::put(&mut state, known, mesh));
    }
    Some(state)
}

/// The subnets of the bridges that networks have here.
fn bridged(parts: &BTreeMap<NetworkId, Part>) -> Vec<IpNet> {
    locals(parts).flat_map(LocalPart::bridged).copied().collect()
}

fn locals(parts: &BTreeMap<NetworkId, Part>) -> impl Iterator<Item = &LocalPart> {
    parts.values().filter_map(Part::local)
}

/// Which endpoints that are plugged in here are in effect.
#[derive(Debug, Clone)]
pub(crate) struct Fitness(Result<BTreeMap<EndpointId, Unfit>, String>);

impl Fitness {
    /// O(endpoints here, and services).
    pub(crate) fn of(knowledge: &Knowledge, section: &Section) -> Self {
        let footing = Footing::of(knowledge, section).map_err(|unready| unready.to_string());
        Self(footing.map(|footing| Admission::local(section, &footing).unfit))
    }

    /// Whether one is, or why not.
    pub(crate) fn check(&self, id: EndpointId) -> Result<(), String> {
        let unfit = self.0.as_ref().map_err(Clone::clone)?;
        unfit.get(&id).map_or(Ok(()), |unfit| Err(unfit.to_string()))
    }
}

/// What a segment is to have for an endpoint here.
pub(crate) fn port(local: &LocalEndpoint) -> overlay_vxlan::LocalPort {
    vxlan::port(local)
}

/// Whether an endpoint elsewhere is in effect here with an address, or why not.
pub(crate) fn reaches(knowledge: &Knowledge, section: &Section, id: EndpointId, address: IpAddr) -> Result<(), String> {
    let footing = Footing::of(knowledge, section).map_err(|unready| unready.to_string())?;
    let admission = Admission::of(knowledge, section, &footing);
    let is_peer = |claim: &&Claim<'_>| matches!(claim.at, At::Vtep(_)) && claim.addresses.contains(&address);
    if admission.claim(id).filter(is_peer).is_some() {
        return Ok(());
    }
    Err(admission.unfit.get(&id).map_or_else(|| format!("it does not say that it has {address}"), ToString::to_string))
}

/// Whether an address can be a VTEP: one host's, and no link-local one, which would need an interface beside it.
pub(crate) fn is_vtep(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    overlay_core::is_host_address(address) && !link_local
}
