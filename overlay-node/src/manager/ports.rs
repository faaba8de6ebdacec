//! Published ports: which service has which.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(feature = "testing")]
use bytes::Bytes;
use overlay_core::{Commit, Key, Port, Protocol, ServiceId, Snapshot, Undecided};
use serde::{Deserialize, Serialize};

use super::Manager;
use super::transaction::{json, refuse};
#[cfg(feature = "testing")]
use crate::catalogue::keys::Keys;
use crate::catalogue::record::encode;
use crate::{ControlError, PublishMode, PublishedPort, Refused, Service};

/// Who has which of 256 ports of a protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    ports: BTreeMap<Port, Uses>,
}

/// Who publishes a port. In host mode several may, as long as no node has two of them: who places containers sees to that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Uses {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ingress: Option<ServiceId>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    host: BTreeSet<ServiceId>,
}

impl Uses {
    fn add(&mut self, service: ServiceId, mode: PublishMode) {
        match mode {
            PublishMode::Ingress | PublishMode::Local => self.ingress = Some(service),
            PublishMode::Host => _ = self.host.insert(service),
        }
    }

    /// What is in the way of a service that wants the port.
    fn conflict(&self, service: ServiceId, mode: PublishMode) -> Option<(ServiceId, PublishMode)> {
        let ingress = self.ingress.map(|other| (other, PublishMode::Ingress));
        let host = self.host.iter().map(|other| (*other, PublishMode::Host)).filter(|_| mode.is_of_mesh());
        ingress.into_iter().chain(host).find(|(other, _)| *other != service)
    }
}

/// The pages that these services make: for tests. Of two that have one port alone, the later is in them.
#[cfg(feature = "testing")]
pub(super) fn pages_of<'s>(keys: &Keys, services: impl Iterator<Item = &'s Service>) -> BTreeMap<Key, Bytes> {
    let mut pages: BTreeMap<Key, Page> = BTreeMap::new();
    for Service { id, ports, .. } in services {
        for port in ports {
            let Some(number) = port.published else { continue };
            let page = pages.entry(keys.ports(port.protocol, number)).or_default();
            page.ports.entry(number).or_default().add(*id, port.mode);
        }
    }
    pages.into_iter().map(|(key, page)| (key, encode(&page))).collect()
}

/// Pages as a decision changes them.
pub(super) struct Pages<'p> {
    manager: &'p Manager,
    snapshot: &'p Snapshot,
    pages: BTreeMap<Key, Page>,
}

impl<'p> Pages<'p> {
    pub(super) const fn new(manager: &'p Manager, snapshot: &'p Snapshot) -> Self {
        Self { manager, snapshot, pages: BTreeMap::new() }
    }

    /// Asks for the pages of all these ports at once.
    pub(super) fn need(&self, ports: &[PublishedPort]) -> Result<(), Undecided<ControlError>> {
        let numbered = ports.iter().filter_map(|port| Some((port.protocol, port.published?)));
        let keys: BTreeSet<Key> = numbered.map(|(protocol, port)| self.manager.keys.ports(protocol, port)).collect();
        Ok(self.snapshot.need(&keys)?)
    }

    /// What is in the way of a service that wants a port.
    pub(super) fn conflict(
        &mut self,
        service: ServiceId,
        port: &PublishedPort,
    ) -> Result<Option<(ServiceId, PublishMode)>, Undecided<ControlError>> {
        let Some(number) = port.published else { return Ok(None) };
        let uses = self.page(port.protocol, number)?.ports.get(&number);
        Ok(uses.and_then(|uses| uses.conflict(service, port.mode)))
    }

    /// The service has the port. Refused if another has it.
    pub(super) fn take(&mut self, service: ServiceId, port: &PublishedPort) -> Result<(), Undecided<ControlError>> {
        let Some(number) = port.published else { return Ok(()) };
        if let Some((id, mode)) = self.conflict(service, port)? {
            let holder = self.manager.held::<Service>(self.snapshot, &self.manager.keys.service(id))?;
            if let Some(holder) = holder {
                let service = holder.object.spec.name;
                return refuse(Refused::PortInUse { port: number, protocol: port.protocol, service, id, mode });
            }
        }
        self.page(port.protocol, number)?.ports.entry(number).or_default().add(service, port.mode);
        Ok(())
    }

    /// The service has the port no longer.
    pub(super) fn give(&mut self, service: ServiceId, port: &PublishedPort) -> Result<(), Undecided<ControlError>> {
        let Some(number) = port.published else { return Ok(()) };
        let page = self.page(port.protocol, number)?;
        if let Some(uses) = page.ports.get_mut(&number) {
            uses.ingress = uses.ingress.filter(|other| *other != service);
            uses.host.remove(&service);
            if *uses == Uses::default() {
                page.ports.remove(&number);
            }
        }
        Ok(())
    }

    /// Writes down what has changed.
    pub(super) fn write(self, mut commit: Commit) -> Commit {
        for (key, page) in self.pages {
            commit = match page.ports.is_empty() {
                true => commit.delete(key),
                false => commit.put(key, encode(&page)),
            };
        }
        commit
    }

    fn page(&mut self, protocol: Protocol, port: Port) -> Result<&mut Page, Undecided<ControlError>> {
        let key = self.manager.keys.ports(protocol, port);
        if !self.pages.contains_key(&key) {
            let page = match self.snapshot.get(&key)? {
                None => Page::default(),
                Some(entry) => json(&key, &entry.value).map_err(Undecided::Refused)?,
            };
            self.pages.insert(key.clone(), page);
        }
        Ok(self.pages.entry(key).or_default())
    }
}
