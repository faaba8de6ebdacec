//! Many names at once.

use std::cell::Cell;
use std::sync::Arc;

use super::entry::{By, Named, Source};
use super::innate::{self, Bearers, ByAddress, ById};
use super::knowledge::{own_names, service_names};
use super::trie::{Draft, Trie};
use super::{Group, compile, service_key};
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
        (zone.endpoints, zone.addresses) = (by_id(&endpoints), by_address(&endpoints));
        zone.services = groups(&services.into_iter().collect::<Vec<_>>(), &endpoints);
        (zone.names, zone.ambiguous) = zone.all_names(&endpoints);
        zone
    }

    /// And how many of them are ambiguous.
    fn all_names(&self, endpoints: &[Arc<Endpoint>]) -> (Trie<Named>, usize) {
        let services = self.services.values().filter_map(|group| group.service.as_ref());
        let of_services: Vec<_> = services.flat_map(service_names).collect();
        let count = 3 * endpoints.len() + of_services.len();
        let mut names = Draft::with_capacity(count, 16 * count);
        for endpoint in endpoints {
            own_names(endpoint).for_each(|key| names.say(&key, Giver::Endpoint(endpoint)));
        }
        of_services.iter().for_each(|(key, source)| names.say(key, Giver::Service(source)));
        let ambiguous = Cell::new(0);
        let names = Trie::of(names, |key, first, others| {
            ambiguous.set(ambiguous.get() + usize::from(self.is_ambiguous(key)));
            self.named(key, first, others)
        });
        (names, ambiguous.get())
    }

    /// What a name stands for that these give. Most are given by one endpoint.
    fn named(&self, key: &[u8], first: Giver<'_>, others: &[Giver<'_>]) -> Named {
        let by = By::all(first.source(), others.iter().map(Giver::source));
        let sets = match first {
            Giver::Endpoint(endpoint) if others.is_empty() && !self.is_innate(key) => compile::named(self, endpoint),
            _ => compile::sets(self, key, by.as_slice()),
        };
        Named { sets, by }
    }
}

/// Who gives a name.
#[derive(Debug, Clone, Copy)]
enum Giver<'z> {
    /// As one of its own.
    Endpoint(&'z Endpoint),
    Service(&'z Source),
}

impl Giver<'_> {
    fn source(&self) -> Source {
        match self {
            Self::Endpoint(endpoint) => Source::Endpoint(endpoint.id),
            Self::Service(source) => Source::clone(source),
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

fn by_id(endpoints: &[Arc<Endpoint>]) -> Trie<Bearers, ById> {
    let mut draft = Draft::with_capacity(endpoints.len(), 8 * endpoints.len());
    endpoints.iter().for_each(|endpoint| draft.say(&innate::by_id(endpoint.id), endpoint));
    Trie::of(draft, |_, first, others| bearers(first, others))
}

fn by_address(endpoints: &[Arc<Endpoint>]) -> Trie<Bearers, ByAddress> {
    let mut draft = Draft::with_capacity(2 * endpoints.len(), 34 * endpoints.len());
    for endpoint in endpoints {
        endpoint.addresses.iter().for_each(|address| draft.say(&innate::by_address(*address), endpoint));
    }
    Trie::of(draft, |_, first, others| bearers(first, others))
}

/// They come in the order of their ids.
fn bearers(first: &Arc<Endpoint>, others: &[&Arc<Endpoint>]) -> Bearers {
    match others {
        [] => Bearers::from_buf([Arc::clone(first)]),
        _ => std::iter::once(first).chain(others.iter().copied()).cloned().collect(),
    }
}

/// Services with their endpoints, which are given in the order of ids, by what they are found by; of several services that are
/// called the same, the last.
fn groups(services: &[Service], endpoints: &[Arc<Endpoint>]) -> Trie<Arc<Group>> {
    let count = services.len() + endpoints.len();
    let mut draft = Draft::with_capacity(count, 16 * count);
    services.iter().for_each(|service| draft.say(&service_key(&service.name), Of::Service(service)));
    for endpoint in endpoints {
        if let Some(service) = &endpoint.service {
            draft.say(&service_key(service), Of::Member(endpoint));
        }
    }
    Trie::of(draft, |_, first, others| Arc::new(group(first, others)))
}

/// Who is of a group.
#[derive(Debug, Clone, Copy)]
enum Of<'z> {
    Service(&'z Service),
    Member(&'z Arc<Endpoint>),
}

fn group<'z>(first: Of<'z>, others: &[Of<'z>]) -> Group {
    let mut group = Group::default();
    for of in std::iter::once(&first).chain(others) {
        match of {
            Of::Service(service) => group.service = Some(Service::clone(service)),
            Of::Member(member) => group.members.push(Arc::clone(member)),
        }
    }
    group
}
