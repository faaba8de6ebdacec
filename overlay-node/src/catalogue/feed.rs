//! Changes of the catalogue as they come.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use overlay_core::{
    EndpointId, Entry, Key, KeyChange, Listing, NetworkId, NodeId, Prefix, Revision, ServiceId, Store, StoreError,
    Watch, WatchEvent,
};

use super::View;
use super::keys::{Keys, RootError};
use super::recent::Recent;
use super::record::{Flaw, Held, Object};
use crate::CatalogueChange;

/// Tells an agent's side what is in the catalogue, and then every change: once, in order, and without end.
///
/// What was missed (the store forgot its history, the connection was away for long) is found by reading all and telling what
/// differs from what was told before. Within a batch, nodes come before networks, these before services and these before endpoints; what goes, goes
/// the other way round.
///
/// ```
/// use std::sync::Arc;
/// use overlay_core::testing::block_on;
/// use overlay_core::{MemoryStore, NetworkId, NodeId, Prefix, UnixTime};
/// use overlay_node::{CatalogueChange, Control, Feed, Manager, NetworkSpec};
///
/// let store = Arc::new(MemoryStore::default());
/// let root = Prefix::new("cluster/")?;
/// let manager = Manager::new(store.clone(), &root, NodeId::from_bytes([1; 16]), [7; 32])?;
/// let mut feed = Feed::new(store, &root)?;
/// let id = NetworkId::from_bytes([2; 16]);
/// block_on(async {
///     manager.create_network(id, NetworkSpec::overlay("front".parse()?), UnixTime::EPOCH).await?;
///     let told = feed.next().await?;
///     assert!(matches!(&told[..], [CatalogueChange::Network(front)] if front.id == id));
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Feed {
    store: Arc<dyn Store>,
    keys: Keys,
    watch: Option<Box<dyn Watch>>,
    /// By which commit what was told was written, or what cannot be read.
    told: BTreeMap<Key, Revision>,
    /// The networks that endpoints were told to be on.
    on: BTreeMap<EndpointId, NetworkId>,
    unreadable: BTreeMap<Key, String>,
    /// Whether all is listed again before it goes on, since something of what is unreadable may count now.
    again: bool,
    /// What feeds beside this one have read.
    recent: Option<Recent>,
    /// As of when all was told by an earlier feed, if one goes on from there.
    after: Option<Revision>,
    /// As of when all was told.
    at: Revision,
}

impl Feed {
    /// A feed of the catalogue whose manager was made with this root.
    ///
    /// # Errors
    /// If the root is longer than 200 bytes.
    pub fn new(store: Arc<dyn Store>, root: &Prefix) -> Result<Self, RootError> {
        let keys = Keys::of(root)?;
        Ok(Self::of(store, keys, None))
    }

    /// Another feed of this catalogue, which tells from the beginning. What one of them has read lately, up to 1,024 records, others beside it
    /// need not: who serves a hundred nodes, or simulates them, reads each change once. A catalogue of more records each reads for itself at first.
    #[must_use]
    pub fn beside(&mut self) -> Self {
        let recent = self.recent.get_or_insert_default().clone();
        Self::of(Arc::clone(&self.store), self.keys.clone(), Some(recent))
    }

    /// As [`beside`](Self::beside), for somebody who was told all as of that [revision](Self::at): it tells what has changed since. What is gone is told whether or not
    /// it was there for him. Where the store has forgotten what was since, it begins anew, and [says so](Self::goes_on).
    #[must_use]
    pub fn beside_after(&mut self, revision: Revision) -> Self {
        Self { after: Some(revision), ..self.beside() }
    }

    /// As of which revision all was told.
    pub const fn at(&self) -> Revision {
        self.at
    }

    /// Whether it hears of every change from now on: once it has told what there was.
    pub const fn hears(&self) -> bool {
        self.watch.is_some()
    }

    /// Whether what it tells goes on from what an earlier feed has told; else, all is told first.
    pub const fn goes_on(&self) -> bool {
        self.after.is_some()
    }

    /// What a node needs of the catalogue as the store has it now, that watches nothing. Two reads, of what is attached there alone.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn view(&mut self, node: NodeId) -> Result<View, StoreError> {
        let text =
            |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.rsplit('/').next()?.parse().ok());
        let attached = self.store.list(&self.keys.containers(node)).await?.entries;
        let ingress = self.store.get(&self.keys.ingress()).await?;
        let attached = attached.iter().filter_map(|(key, _)| text(key.as_bytes()));
        Ok(View::of(attached.chain(ingress.and_then(|ingress| text(&ingress.value))).collect()))
    }

    fn of(store: Arc<dyn Store>, keys: Keys, recent: Option<Recent>) -> Self {
        let (told, on, unreadable) = Default::default();
        Self { store, keys, watch: None, told, on, unreadable, again: false, recent, after: None, at: Revision::ZERO }
    }

    /// The next changes, at least one; waits for them. The first are all that is there. May be dropped and called again: nothing
    /// is missed.
    ///
    /// # Errors
    /// If the store cannot be reached. Call again after a while.
    pub async fn next(&mut self) -> Result<Vec<CatalogueChange>, StoreError> {
        loop {
            let changes = self.advance().await?;
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// [`next`](Self::next) for who must know when nothing is to be told, too: the first call gives all that is there, though that be
    /// nothing; a later one waits for something to happen to the store, of which perhaps nothing is to be told.
    ///
    /// # Errors
    /// As there.
    pub async fn advance(&mut self) -> Result<Vec<CatalogueChange>, StoreError> {
        if std::mem::take(&mut self.again) {
            self.lose();
        }
        let Some(watch) = &mut self.watch else {
            return match self.after.filter(|_| self.at == Revision::ZERO) {
                Some(after) => self.go_on(after).await,
                None => self.list().await,
            };
        };
        match watch.next().await {
            Ok(WatchEvent::Changes { revision, changes }) => Ok(self.changed(revision, changes)),
            Ok(_) => Ok(self.lose()),
            Err(StoreError::Ahead { .. }) => {
                // The store was restored from an older copy: its revisions mean something else now.
                self.told.values_mut().for_each(|told| *told = Revision::ZERO);
                Ok(self.lose())
            }
            Err(error) => Err(error),
        }
    }

    /// Records that cannot be read, by key, and what is wrong with them: they were written by a later release, or by something
    /// else. What they were before stays as it was told. Of several records of one endpoint, on several networks, which no manager
    /// writes, all but the first count as such.
    pub const fn unreadable(&self) -> &BTreeMap<Key, String> {
        &self.unreadable
    }

    fn lose(&mut self) -> Vec<CatalogueChange> {
        self.watch = None;
        if self.after.take().is_some() {
            // It does not know what was told before it.
            (self.told, self.on, self.unreadable) = Default::default();
        }
        Vec::new()
    }

    async fn go_on(&mut self, after: Revision) -> Result<Vec<CatalogueChange>, StoreError> {
        match self.store.watch(self.keys.root(), after).await {
            Ok(watch) => {
                (self.watch, self.at) = (Some(watch), after);
                Ok(Vec::new())
            }
            Err(StoreError::Ahead { .. }) => Ok(self.lose()),
            Err(error) => Err(error),
        }
    }

    async fn list(&mut self) -> Result<Vec<CatalogueChange>, StoreError> {
        let Listing { at, entries } = self.store.list(self.keys.root()).await?;
        let watch = self.store.watch(self.keys.root(), at).await?;
        let there: BTreeMap<&Key, &Entry> = entries.iter().map(|(key, entry)| (key, entry)).collect();
        let goes: Vec<Key> = self.told.keys().filter(|key| !there.contains_key(key)).cloned().collect();
        let mut batch = Batch::default();
        self.unreadable.retain(|key, _| there.contains_key(key));
        for key in goes {
            self.tell(&mut batch, key, None);
        }
        for (key, entry) in entries {
            if self.told.get(&key) != Some(&entry.revision) {
                self.tell(&mut batch, key, Some(entry));
            }
        }
        (self.watch, self.at, self.again) = (Some(watch), at, false);
        Ok(batch.in_order())
    }

    fn changed(&mut self, revision: Revision, changes: Vec<KeyChange>) -> Vec<CatalogueChange> {
        let mut batch = Batch::default();
        for KeyChange { key, value } in changes {
            self.tell(&mut batch, key, value.map(|value| Entry { value, revision }));
        }
        self.at = revision;
        batch.in_order()
    }

    fn tell(&mut self, batch: &mut Batch, key: Key, entry: Option<Entry>) {
        let Some((kind, id)) = self.keys.kind(&key) else { return };
        let Some(entry) = entry else {
            self.unreadable.remove(&key);
            if self.told.remove(&key).is_some() || self.after.is_some() {
                batch.goes(kind, id);
                self.uncover(kind, id);
            }
            return;
        };
        let change = match kind {
            Kind::Node => self.read(&key, &entry, CatalogueChange::Node),
            Kind::Network => self.read(&key, &entry, CatalogueChange::Network),
            Kind::Service => self.read(&key, &entry, CatalogueChange::Service),
            Kind::Endpoint => self.read(&key, &entry, CatalogueChange::Endpoint),
        };
        match change.and_then(|change| self.alone(&key, change)) {
            Ok(change) => {
                self.unreadable.remove(&key);
                self.told.insert(key, entry.revision);
                batch.comes(kind, change);
            }
            Err(Flaw { key, flaw }) => drop(self.unreadable.insert(key, flaw)),
        }
    }

    /// An endpoint is on one network: of records that say otherwise, that of the first counts.
    fn alone(&mut self, key: &Key, change: CatalogueChange) -> Result<CatalogueChange, Flaw> {
        let CatalogueChange::Endpoint(endpoint) = &change else { return Ok(change) };
        let (id, network) = (endpoint.id, endpoint.spec.network);
        let flaw = |first: NetworkId| format!("endpoint {id} is on network {first}");
        match self.on.get(&id).copied() {
            Some(first) if first < network => return Err(Flaw { key: key.clone(), flaw: flaw(first) }),
            Some(other) if other > network => {
                let other = self.keys.endpoint(other, id);
                self.told.remove(&other);
                self.unreadable.insert(other, flaw(network));
            }
            _ => {}
        }
        self.on.insert(id, network);
        Ok(change)
    }

    /// An endpoint's record is gone: another that counted as unreadable for it is looked at again.
    fn uncover(&mut self, kind: Kind, id: [u8; 16]) {
        if kind == Kind::Endpoint {
            self.on.remove(&EndpointId::from_bytes(id));
            if self.unreadable.keys().any(|key| self.keys.kind(key) == Some((kind, id))) {
                self.again = true;
            }
        }
    }

    fn read<T: Object>(
        &self,
        key: &Key,
        entry: &Entry,
        said: impl FnOnce(Arc<T>) -> CatalogueChange,
    ) -> Result<CatalogueChange, Flaw> {
        let read = || Held::<T>::decode(&self.keys, key, entry).map(|held| said(Arc::new(held.object)));
        match &self.recent {
            Some(recent) => recent.or_read(key, &entry.value, read),
            None => read(),
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("told", &self.told.len())
            .field("unreadable", &self.unreadable)
            .finish_non_exhaustive()
    }
}

/// What agents are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Node,
    Network,
    Service,
    Endpoint,
}

#[derive(Default)]
struct Batch {
    goes: Vec<(Kind, CatalogueChange)>,
    comes: Vec<(Kind, CatalogueChange)>,
}

impl Batch {
    fn comes(&mut self, kind: Kind, change: CatalogueChange) {
        self.comes.push((kind, change));
    }

    fn goes(&mut self, kind: Kind, id: [u8; 16]) {
        let change = match kind {
            Kind::Node => CatalogueChange::NodeGone(NodeId::from_bytes(id)),
            Kind::Network => CatalogueChange::NetworkGone(NetworkId::from_bytes(id)),
            Kind::Service => CatalogueChange::ServiceGone(ServiceId::from_bytes(id)),
            Kind::Endpoint => CatalogueChange::EndpointGone(EndpointId::from_bytes(id)),
        };
        self.goes.push((kind, change));
    }

    fn in_order(mut self) -> Vec<CatalogueChange> {
        self.goes.sort_by_key(|(kind, _)| std::cmp::Reverse(*kind));
        self.comes.sort_by_key(|(kind, _)| *kind);
        self.goes.into_iter().chain(self.comes).map(|(_, change)| change).collect()
    }
}
