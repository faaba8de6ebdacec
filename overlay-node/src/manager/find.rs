//! What is called how, and how it is on the whole.

use std::str::FromStr;

use overlay_core::{IdPrefix, Key, Name, NetworkId, NodeId, Prefix, ServiceId};
use overlay_ipam::Lease;

use super::Manager;
use super::transaction::id_in;
use crate::catalogue::keys::Keys;
use crate::catalogue::record::{Held, Object};
use crate::{Condition, ControlError, Endpoint, Network, Node, Reference, Refused, Service};

/// An object that has a name.
pub(super) trait Named: Object<Id: FromStr> {
    fn name(&self) -> &Name;
    fn key_of(keys: &Keys, id: Self::Id) -> Key;
    fn key_of_name(keys: &Keys, name: &Name) -> Key;
}

macro_rules! named {
    ($object:ident, $id:ident, $key:ident, $key_of_name:ident) => {
        impl Named for $object {
            fn name(&self) -> &Name {
                &self.spec.name
            }

            fn key_of(keys: &Keys, id: $id) -> Key {
                keys.$key(id)
            }

            fn key_of_name(keys: &Keys, name: &Name) -> Key {
                keys.$key_of_name(name)
            }
        }
    };
}

named!(Network, NetworkId, network, network_name);
named!(Service, ServiceId, service, service_name);
named!(Node, NodeId, node, node_name);

impl Manager {
    /// What is called so: by its name, its id, or the beginning of its id.
    pub(super) async fn find<T: Named>(&self, reference: &Reference) -> Result<Held<T>, ControlError> {
        let (text, keys) = (reference.as_str(), &self.keys);
        if let Some(held) = self.find_by_name(text).await? {
            return Ok(held);
        }
        let refused = match text.parse::<IdPrefix>() {
            Err(_) => None,
            Ok(_) => {
                let found = self.all(&keys.beginning(T::WHAT, text)).await?;
                let matches = found.len();
                match found.into_iter().next() {
                    Some(held) if matches == 1 => return Ok(held),
                    first => first.map(|_| matches),
                }
            }
        };
        let (what, reference) = (T::WHAT, text.to_owned());
        Err(match refused {
            Some(matches) => Refused::Ambiguous { what, reference, matches },
            None => Refused::NotFound { what, reference },
        }
        .into())
    }

    async fn find_by_name<T: Named>(&self, text: &str) -> Result<Option<Held<T>>, ControlError> {
        let Ok(name) = text.parse::<Name>() else { return Ok(None) };
        let key = T::key_of_name(&self.keys, &name);
        let Some(entry) = self.store.get(&key).await? else { return Ok(None) };
        let id = id_in(&key, &entry.value)?;
        self.load(&T::key_of(&self.keys, id)).await
    }

    /// All objects of a kind, in the order of their names.
    pub(super) async fn by_name<T: Named>(&self) -> Result<Vec<T>, ControlError> {
        let held = self.all::<T>(&self.keys.all(T::WHAT)).await?;
        let mut all: Vec<T> = held.into_iter().map(|held| held.object).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(all)
    }

    /// The endpoints of a network.
    pub(super) async fn endpoints_of(&self, network: NetworkId) -> Result<Vec<Endpoint>, ControlError> {
        let held = self.all::<Endpoint>(&self.keys.endpoints(network)).await?;
        Ok(held.into_iter().map(|held| held.object).collect())
    }

    /// The endpoints of a service.
    pub(super) async fn endpoints_serving(&self, service: ServiceId) -> Result<Vec<Endpoint>, ControlError> {
        let prefix = self.keys.servers(service);
        let mut keys = Vec::new();
        for (key, entry) in self.store.list(&prefix).await?.entries {
            keys.push(self.keys.endpoint(id_in(&key, &entry.value)?, self.id_after(&prefix, &key)?));
        }
        let entries = self.store.read(&keys).await?.entries;
        let found = keys.iter().zip(&entries).filter_map(|(key, entry)| Some((key, entry.as_ref()?)));
        let endpoints = found.map(|(key, entry)| Ok(Held::decode(&self.keys, key, entry)?.object));
        endpoints.collect()
    }

    /// The id at the end of a key.
    pub(super) fn id_after<I: FromStr>(&self, prefix: &Prefix, key: &Key) -> Result<I, ControlError> {
        id_in(key, key.strip(prefix).unwrap_or_default())
    }

    /// The leases of an object's addresses on a network, if it has any.
    pub(super) async fn leases_of<T: Object>(
        &self,
        held: &Held<T>,
        network: NetworkId,
    ) -> Result<Vec<Lease>, ControlError> {
        let owner = held.owner();
        Ok(self.leases_on(network).await?.into_iter().filter(|lease| lease.owner == owner).collect())
    }
}

/// How a network or service is that has these endpoints: ready once all of them are, failed if one is.
pub(super) fn overall(condition: &Condition, endpoints: &[Endpoint]) -> Condition {
    if *condition != Condition::Allocated {
        return condition.clone();
    }
    let failed = endpoints.iter().find_map(|endpoint| match &endpoint.condition {
        Condition::Failed { reason } => Some((endpoint, reason)),
        _ => None,
    });
    match failed {
        Some((Endpoint { spec, .. }, reason)) => {
            let reason = format!("container {} on node {}: {reason}", spec.container, spec.node.short());
            Condition::Failed { reason }
        }
        None if endpoints.iter().all(|endpoint| endpoint.condition == Condition::Ready) => Condition::Ready,
        None => Condition::Allocated,
    }
}
