//! Many names at once.

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::sync::Arc;

use super::entry::{By, Named, Source};
use super::knowledge::{own_names, reverse_names, service_names};
use super::trie::{Entry, Trie};
use super::{Group, Key, compile, service_key};
use crate::{Endpoint, Policy, Service, Zone};
use overlay_core::Name;

impl Zone {
    /// The zone that these services and endpoints make, put one after the other, at a fraction of what that costs.
    ///
    /// ```
    /// use overlay_core::EndpointId;
    /// use overlay_dns::{Endpoint, Policy, Zone};
    ///
    /// let endpoint = Endpoint::new(EndpointId::from_bytes([7; 16]), [[10, 0, 9, 3].into()]);
    /// let mut zone = Zone::new("front".parse()?, Policy::default());
    /// zone.put_endpoint(endpoint.clone());
    /// assert_eq!(Zone::of("front".parse()?, Policy::default(), [], [endpoint]), zone);
    /// # Ok::<(), overlay_core::NameError>(())
    /// ```
    pub fn of(
        network: Name,
        policy: Policy,
        services: impl IntoIterator<Item = Service>,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Self {
        let endpoints = last_of_each(endpoints);
        let mut zone = Self::new(network, policy);
        let entry = |endpoint: &Arc<Endpoint>| Entry::new(&endpoint.id.to_bytes(), Arc::clone(endpoint));
        zone.endpoints = distinct(endpoints.iter().map(entry).collect());
        let groups = groups(services, &endpoints).into_iter();
        let groups: Vec<_> = groups.map(|(key, group)| (key, Arc::new(group))).collect();
        zone.services = distinct(groups.iter().map(|(key, group)| Entry::new(key, Arc::clone(group))).collect());
        let mut names = Vec::with_capacity(6 * endpoints.len() + 6 * groups.len());
        endpoints.iter().for_each(|endpoint| zone.name_endpoint(endpoint, &mut names));
        let services = groups.iter().filter_map(|(_, group)| group.service.as_ref());
        names.extend(services.flat_map(service_names).map(|(key, source)| {
            let sets = compile::sets(&zone, &key, from_ref(&source));
            Entry::new(&key, Named { sets, by: By::One(source) })
        }));
        zone.names = Trie::of(names, |key, given| zone.merge(key, given));
        zone.ambiguous = zone.names.keys().filter(|key| zone.is_ambiguous(key)).count();
        zone
    }

    /// The names of an endpoint, as if nobody else gave any of them.
    fn name_endpoint(&self, endpoint: &Endpoint, names: &mut Vec<Entry<Named>>) {
        let id = endpoint.id.to_bytes();
        let named = Named { sets: compile::named(self, endpoint), by: By::One(Source::Endpoint(id)) };
        names.extend(own_names(endpoint).map(|key| Entry::new(&key, named.clone())));
        let called = Named { sets: compile::called(self, endpoint), by: By::One(Source::Address(id)) };
        names.extend(reverse_names(endpoint).map(|key| Entry::new(&key, called.clone())));
    }

    /// What a name stands for that several give.
    fn merge(&self, key: &[u8], mut given: Vec<Named>) -> Option<Named> {
        let sources = given.iter().flat_map(|named| named.by.as_slice()).cloned().collect();
        match By::all(sources)? {
            By::One(_) => given.pop(),
            by @ By::Several(_) => Some(Named { sets: compile::sets(self, key, by.as_slice()), by }),
        }
    }
}

/// Endpoints in the order of their ids; of several that have one, the last.
fn last_of_each(endpoints: impl IntoIterator<Item = Endpoint>) -> Vec<Arc<Endpoint>> {
    let mut endpoints: Vec<_> = endpoints.into_iter().map(Arc::new).collect();
    endpoints.sort_by_key(|endpoint| endpoint.id);
    endpoints.dedup_by(|next, kept| {
        let same = next.id == kept.id;
        if same {
            std::mem::swap(next, kept);
        }
        same
    });
    endpoints
}

/// Of entries whose keys differ.
fn distinct<V: Clone>(entries: Vec<Entry<V>>) -> Trie<V> {
    Trie::of(entries, |_, mut values| values.pop())
}

/// Services with their endpoints, by what they are found by.
fn groups(services: impl IntoIterator<Item = Service>, endpoints: &[Arc<Endpoint>]) -> BTreeMap<Key, Group> {
    let mut groups = BTreeMap::<Key, Group>::new();
    for service in services {
        let key = service_key(&service.name);
        groups.entry(key).or_default().service = Some(service);
    }
    for endpoint in endpoints {
        if let Some(service) = &endpoint.service {
            let group = groups.entry(service_key(service)).or_default();
            group.members.insert(endpoint.id, Arc::clone(endpoint));
        }
    }
    groups
}
