//! A ground that differs from another in what a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay_core::{BackendError, IfName, Name, NsKey};
use overlay_crypto::{SaId, Usage};
use overlay_dns::Listen;
use overlay_kernel::Namespace;
use overlay_kernel::netlink::Notices;
use overlay_node::{Break, Place, PlaceState, PlaceTables, Places};

use crate::packets::CarrierCounts;
use crate::{FlowMeter, Ground, Hindrances, Source};

/// A ground that passes everything on to another, but for what is said to be otherwise.
#[derive(Clone)]
pub struct Altered<G> {
    ground: G,
    host: Option<Arc<Namespace>>,
    tables: Tables,
    entry: Entry,
    interfaces: Option<Interfaces>,
}

type Tables = Arc<dyn Fn(&Place, PlaceTables) -> PlaceTables + Send + Sync>;
type Entry = Arc<dyn Fn(&Name) -> Result<(), BackendError> + Send + Sync>;
type Interfaces = Arc<dyn Fn(&Name) -> BTreeSet<IfName> + Send + Sync>;

impl<G: Ground> Altered<G> {
    /// The same as that ground, so far.
    pub fn new(ground: G) -> Self {
        Self {
            host: ground.host(),
            ground,
            tables: Arc::new(|_, it| it),
            entry: Arc::new(|_| Ok(())),
            interfaces: None,
        }
    }

    /// The ground that it passes everything on to.
    pub const fn ground(&self) -> &G {
        &self.ground
    }

    /// The host is that namespace, or the process's own.
    #[must_use]
    pub fn with_host(self, host: Option<Arc<Namespace>>) -> Self {
        Self { host, ..self }
    }

    /// Places that are opened have the tables that are made of theirs.
    #[must_use]
    pub fn with_tables(self, tables: impl Fn(&Place, PlaceTables) -> PlaceTables + Send + Sync + 'static) -> Self {
        Self { tables: Arc::new(tables), ..self }
    }

    /// Containers are entered where that lets them be.
    #[must_use]
    pub fn with_entry(self, entry: impl Fn(&Name) -> Result<(), BackendError> + Send + Sync + 'static) -> Self {
        Self { entry: Arc::new(entry), ..self }
    }

    /// Containers have these interfaces.
    #[must_use]
    pub fn with_interfaces(self, interfaces: impl Fn(&Name) -> BTreeSet<IfName> + Send + Sync + 'static) -> Self {
        Self { interfaces: Some(Arc::new(interfaces)), ..self }
    }
}

impl<G: Ground> Places for Altered<G> {
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError> {
        Ok((self.tables)(place, self.ground.open(place)?))
    }

    fn protects(&self) -> Result<(), String> {
        self.ground.protects()
    }

    fn close(&mut self, place: &Place) -> Result<(), BackendError> {
        self.ground.close(place)
    }

    fn list(&mut self) -> Result<Vec<Place>, BackendError> {
        self.ground.list()
    }
}

impl<G: Ground> Ground for Altered<G> {
    fn host(&self) -> Option<Arc<Namespace>> {
        self.host.clone()
    }

    fn enter(&mut self, container: &Name, source: &Source) -> Result<Option<NsKey>, BackendError> {
        (self.entry)(container)?;
        self.ground.enter(container, source)
    }

    fn leave(&mut self, container: &Name) {
        self.ground.leave(container);
    }

    fn is_there(&self, source: &Source, key: &NsKey) -> bool {
        self.ground.is_there(source, key)
    }

    fn interfaces(&mut self, container: &Name) -> Result<BTreeSet<IfName>, BackendError> {
        self.interfaces.as_ref().map_or_else(|| self.ground.interfaces(container), |told| Ok(told(container)))
    }

    fn balancer(&self, place: &Place) -> Option<String> {
        self.ground.balancer(place)
    }

    fn needs_keys(&self) -> bool {
        self.ground.needs_keys()
    }

    fn carried(&self) -> Option<CarrierCounts> {
        self.ground.carried()
    }

    fn usage(&mut self) -> Result<BTreeMap<SaId, Usage>, BackendError> {
        self.ground.usage()
    }

    fn flows(&mut self, container: &Name, at: BTreeSet<IpAddr>) -> Result<Option<FlowMeter>, BackendError> {
        self.ground.flows(container, at)
    }

    fn listen(&mut self, place: &Place, at: &[SocketAddr]) -> Result<Listen, BackendError> {
        self.ground.listen(place, at)
    }

    fn obstacles(&mut self, state: &PlaceState) -> Result<Vec<Break>, BackendError> {
        self.ground.obstacles(state)
    }

    fn hindrances(&mut self, state: &PlaceState) -> Result<Hindrances, BackendError> {
        self.ground.hindrances(state)
    }

    fn hints(&mut self, place: &Place) -> Result<Vec<Notices>, BackendError> {
        self.ground.hints(place)
    }
}

impl<G: fmt::Debug> fmt::Debug for Altered<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Altered").field(&self.ground).finish()
    }
}
