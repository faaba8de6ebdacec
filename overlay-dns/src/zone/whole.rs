//! Many names at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_core::{EndpointId, Name};
use smallvec::SmallVec;

use super::entry::Source;
use super::knowledge::{endpoint_mentions, service_names};
use super::trie::{Entry, Trie, sorted};
use super::{Group, Key, Named, compile, service_key};
use crate::{Endpoint, Policy, Service, Zone};

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
        let mut mentions: Vec<(Key, Source)> = Vec::with_capacity(endpoints.len() * 6 + groups.len() * 6);
        mentions.extend(endpoints.values().flat_map(|endpoint| endpoint_mentions(endpoint)));
        mentions.extend(groups.values().filter_map(|group| group.service.as_ref()).flat_map(service_names));
        let mut zone = Self::new(network, policy);
        zone.endpoints = Trie::of(sorted(endpoints.into_iter().map(|(id, endpoint)| (id.to_bytes(), endpoint))));
        zone.services = Trie::of(sorted(groups.into_iter().map(|(key, group)| (key, Arc::new(group)))));
        zone.put_names(sorted(mentions));
        zone
    }

    /// Puts all names, each with who gives it, into a zone that has none.
    fn put_names(&mut self, mentions: Vec<(u64, Entry<Source>)>) {
        let mut names = Vec::with_capacity(mentions.len());
        let mut mentions = mentions.into_iter().peekable();
        while let Some((hash, Entry { key, value })) = mentions.next() {
            let mut given_by = SmallVec::<[Source; 1]>::from_iter([value]);
            while let Some((_, other)) = mentions.next_if(|(_, other)| other.key == key) {
                given_by.push(other.value);
            }
            given_by.sort();
            given_by.dedup();
            self.ambiguous += usize::from(self.is_ambiguous(&key));
            let sets = compile::sets(self, &key, &given_by);
            names.push((hash, Entry { key, value: Named { sets, given_by } }));
        }
        self.names = Trie::of(names);
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
