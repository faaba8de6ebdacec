//! Many names at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::{Sets, Source};
use super::knowledge::{endpoint_mentions, service_names};
use super::trie::{Item, Trie, sorted};
use super::{Group, Key, compile, service_key};
use crate::{Endpoint, Policy, Service, Zone};
use overlay_core::{EndpointId, Name};

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
        let endpoints = endpoints.into_iter().map(|endpoint| (endpoint.id, Arc::new(endpoint)));
        let endpoints: BTreeMap<EndpointId, Arc<Endpoint>> = endpoints.collect();
        let groups = groups(services, &endpoints);
        let of_endpoints = endpoints.values().flat_map(|endpoint| endpoint_mentions(endpoint));
        let of_services = groups.values().filter_map(|group| group.service.as_ref()).flat_map(service_names);
        let mentions = sorted(of_endpoints.chain(of_services).map(|(key, source)| Item::new(key, source)));
        let mut zone = Self::new(network, policy);
        let endpoints =
            endpoints.into_iter().map(|(id, endpoint)| Item::new(Key::from_slice(&id.to_bytes()), endpoint));
        zone.endpoints = Trie::of(sorted(endpoints));
        zone.services = Trie::of(sorted(groups.into_iter().map(|(key, group)| Item::new(key, Arc::new(group)))));
        zone.put_names(&mentions);
        zone
    }

    /// Puts all names, each with who gives it, into a zone that has none.
    fn put_names(&mut self, mentions: &[Item<Source>]) {
        let (mut given_by, mut names) = (Vec::with_capacity(mentions.len()), Vec::with_capacity(mentions.len()));
        for alike in mentions.chunk_by(|one, next| one.key == next.key) {
            let Some(Item { key, .. }) = alike.first() else { continue };
            let mut sources: Vec<Source> = alike.iter().map(|item| item.value.clone()).collect();
            sources.sort();
            sources.dedup();
            let sets: Sets = compile::sets(self, key, &sources);
            self.ambiguous += usize::from(self.is_ambiguous(key));
            names.push(Item::new(key.clone(), sets));
            given_by.push(Item::new(key.clone(), sources.into()));
        }
        (self.names, self.given_by) = (Trie::of(names), Trie::of(given_by));
    }
}

/// Services with their endpoints, by what they are found by.
fn groups(
    services: impl IntoIterator<Item = Service>,
    endpoints: &BTreeMap<EndpointId, Arc<Endpoint>>,
) -> BTreeMap<Key, Group> {
    let mut groups = BTreeMap::<Key, Group>::new();
    for service in services {
        let key = service_key(&service.name);
        groups.entry(key).or_default().service = Some(service);
    }
    for (id, endpoint) in endpoints {
        if let Some(service) = &endpoint.service {
            groups.entry(service_key(service)).or_default().members.insert(*id, Arc::clone(endpoint));
        }
    }
    groups
}
