//! Derives again and again, and keeps what did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay_core::{Change, Name, NetworkId, keyed_diff};

use super::part::Part;
use super::touched::Known;
use super::{bridged, container, host, parts, places};
use crate::{Desired, Kind, Knowledge, Place, PlaceState, Section};

/// Derives what a changing knowledge means: at each time the same as [`derive`](crate::derive()), and the same `Arc` of each place
/// that did not change.
///
/// It keeps what it was given and gave last. What it costs: O(1) if nothing changed; if endpoints did, O(log n) for each, and a copy of
/// the tables of their network, and of the small value of each container here that sees the network. A network whose options changed,
/// or where two say they have one address, is derived anew but for its names.
#[derive(Debug, Clone, Default)]
pub struct Deriver {
    last: Option<Last>,
}

#[derive(Debug, Clone)]
struct Last {
    knowledge: Knowledge,
    parts: BTreeMap<NetworkId, Part>,
    desired: Arc<Desired>,
}

impl Deriver {
    /// As [`derive`](crate::derive()).
    pub fn derive(&mut self, knowledge: &Knowledge) -> Arc<Desired> {
        let last = match self.last.take() {
            Some(last) if (last.knowledge.me, &last.knowledge.settings) == (knowledge.me, &knowledge.settings) => {
                last.again(knowledge)
            }
            other => Last::anew(knowledge, other.as_ref().map(|last| &*last.desired)),
        };
        let desired = last.desired.clone();
        self.last = Some(last);
        desired
    }

    /// How many endpoints were left out, whole or in part: see [`Unfit`](crate::Unfit).
    pub fn unfit(&self) -> usize {
        self.last.iter().flat_map(|last| last.parts.values()).map(Part::unfit).sum()
    }
}

impl Last {
    fn anew(knowledge: &Knowledge, before: Option<&Desired>) -> Self {
        let parts = parts(knowledge);
        let mut desired = places(knowledge, &parts);
        for (place, state) in before.into_iter().flat_map(|before| &before.places) {
            desired.places.entry(place.clone()).and_modify(|new| keep(new, state));
        }
        Self { knowledge: knowledge.clone(), parts, desired: Arc::new(desired) }
    }

    fn again(mut self, new: &Knowledge) -> Self {
        let nodes = Arc::ptr_eq(&self.knowledge.nodes, &new.nodes) || self.knowledge.nodes == new.nodes;
        let all = self.knowledge.networks.keys().chain(new.networks.keys());
        let same = |id: &&NetworkId| same(self.knowledge.networks.get(*id), new.networks.get(*id));
        let mut touched: BTreeSet<NetworkId> = all.filter(|id| !(nodes && same(id))).copied().collect();
        touched.extend(readied(&self.knowledge, new));
        touched.extend(on_one_parent(&self.knowledge, new, &touched));
        let moved = gateway_moves(&self.knowledge, new);
        let keyed = self.knowledge.protection != new.protection;
        if touched.is_empty() && moved.is_empty() && !keyed {
            return self;
        }
        let here = nodes && !keyed && moved.is_empty() && touched.iter().all(|id| same_here(&self.knowledge, new, id));
        let mut places = self.desired.places.clone();
        let mut containers = moved;
        let before = bridged(&self.parts);
        for id in touched {
            self.derive_network(id, new, &mut places, &mut containers);
        }
        let (mut attachments, bridged) = (container::attachments(new, &self.parts), bridged(&self.parts));
        if bridged != before {
            containers.extend(attachments.keys().cloned()); // any of them may leave otherwise
        }
        if !here {
            put(&mut places, Place::Host, host(new, &self.parts, &attachments));
        }
        for name in containers {
            let state =
                attachments.remove(&name).map(|attachments| container::state(new, &bridged, &name, &attachments));
            put(&mut places, Place::Container(name), state);
        }
        let same = |(one, other): (&Arc<PlaceState>, &Arc<PlaceState>)| Arc::ptr_eq(one, other);
        if !places.keys().eq(self.desired.places.keys()) || !places.values().zip(self.desired.places.values()).all(same)
        {
            self.desired = Arc::new(Desired { places });
        }
        self.knowledge = new.clone();
        self
    }

    /// Derives one network anew where it changed, and names the containers that this may matter to.
    fn derive_network(
        &mut self,
        id: NetworkId,
        new: &Knowledge,
        places: &mut BTreeMap<Place, Arc<PlaceState>>,
        containers: &mut BTreeSet<Name>,
    ) {
        let (old, section) = (self.knowledge.networks.get(&id), new.networks.get(&id));
        let was = self.parts.remove(&id);
        let is = match (was, old, section) {
            (Some(part), Some(old), Some(section)) => {
                part.derive_again(Known { knowledge: &self.knowledge, section: old }, Known { knowledge: new, section })
            }
            (_, _, Some(section)) => Part::derive(Known { knowledge: new, section }),
            (_, _, None) => None,
        };
        match is.as_ref().and_then(Part::sandbox) {
            Some(sandbox) => drop(places.insert(Place::Network(id), sandbox.clone())),
            None => drop(places.remove(&Place::Network(id))),
        }
        let local = old.into_iter().chain(section).flat_map(|section| section.local.values());
        containers.extend(local.map(|local| local.endpoint.spec.container.clone()));
        self.parts.extend(is.map(|part| (id, part)));
    }
}

/// The networks that can be here now, or cannot any more, as the node encrypts or does not.
fn readied(old: &Knowledge, new: &Knowledge) -> Vec<NetworkId> {
    if old.protection.lacking().is_some() == new.protection.lacking().is_some() {
        return Vec::new();
    }
    new.networks.iter().filter(|(_, section)| section.is_encrypted()).map(|(id, _)| *id).collect()
}

/// If one of these networks is on physical networks, all that are: those of one parent depend on each other.
fn on_one_parent(old: &Knowledge, new: &Knowledge, of: &BTreeSet<NetworkId>) -> Vec<NetworkId> {
    let macvlan = |section: &&Arc<Section>| matches!(section.network.spec.kind, Kind::Macvlan { .. });
    let is =
        |id: &NetworkId| [old, new].iter().filter_map(|known| known.networks.get(id)).any(|section| macvlan(&section));
    if !of.iter().any(is) {
        return Vec::new();
    }
    new.networks.iter().filter(|(_, section)| macvlan(section)).map(|(id, _)| *id).collect()
}

/// Whether of a network all is the same that what is here depends on: the host has nothing of what other nodes say, but of the ingress network.
fn same_here(old: &Knowledge, new: &Knowledge, id: &NetworkId) -> bool {
    let (Some(old), Some(new)) = (old.networks.get(id), new.networks.get(id)) else { return false };
    !new.network.spec.ingress && old.network == new.network && old.local == new.local && old.services == new.services
}

/// The containers that have another port of the gateway bridge than before.
fn gateway_moves(old: &Knowledge, new: &Knowledge) -> BTreeSet<Name> {
    let changes = keyed_diff(&old.gateway_ports, &new.gateway_ports).map(|change| match change {
        Change::Add(name, _) | Change::Replace(name, ..) | Change::Remove(name, _) => name.clone(),
    });
    changes.collect()
}

fn same(old: Option<&Arc<Section>>, new: Option<&Arc<Section>>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (old, new) => old.is_none() && new.is_none(),
    }
}

/// The state that was there, if it is as it should be.
fn keep(new: &mut Arc<PlaceState>, old: &Arc<PlaceState>) {
    if *new == *old {
        *new = old.clone();
    }
}

fn put(places: &mut BTreeMap<Place, Arc<PlaceState>>, place: Place, state: Option<PlaceState>) {
    match state {
        Some(state) if places.get(&place).is_some_and(|held| **held == state) => {}
        Some(state) => drop(places.insert(place, Arc::new(state))),
        None => drop(places.remove(&place)),
    }
}
