//! What zones are built from: services and endpoints.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{AddressSet, EndpointId, Name, Port, Protocol};

use super::entry::Source;
use super::{Key, key, service_key};
use crate::{DnsName, Txt};

/// A service on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// Other names that mean the same; several services may share one, which then has the addresses of all.
    pub aliases: BTreeSet<Name>,
    /// What its names stand for.
    pub mode: Mode,
    /// Ports that have a name: `_http._tcp.web` is found by SRV (RFC 2782), and its endpoints each by `_http._tcp.tasks.web`.
    pub ports: BTreeMap<(Name, Protocol), Port>,
    /// Texts under its name and aliases.
    pub texts: BTreeSet<Txt>,
}

impl Service {
    /// A service without aliases, ports and texts.
    pub const fn new(name: Name, mode: Mode) -> Self {
        Self { name, aliases: BTreeSet::new(), mode, ports: BTreeMap::new(), texts: BTreeSet::new() }
    }
}

/// What a service's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// These virtual addresses, behind which the load is balanced (`vip`).
    Vip(BTreeSet<IpAddr>),
    /// The addresses of its endpoints, in a random order each time (`dnsrr`).
    RoundRobin,
}

/// An endpoint: a container's attachment to this network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id. The first 12 characters are a name, too.
    pub id: EndpointId,
    /// Its names in this network, none of them ending with the network's: the container's name, its host name, aliases,
    /// a task's `web.1.2q7…`. The first is what its addresses are called backwards. Endpoints may share names.
    pub names: Vec<DnsName>,
    /// Its addresses.
    pub addresses: AddressSet,
    /// The service it serves.
    pub service: Option<Name>,
    /// Whether it should be sent to.
    pub health: Health,
    /// Its share of its service's work, relative to the others': what SRV records say (RFC 2782), there 256 times as much as long as no endpoint of the
    /// service has more than 255, since balancers take weights of 16 bits down to 8. 1 is usual.
    pub weight: u16,
}

impl Endpoint {
    /// A healthy endpoint of no service, known by its id only.
    pub fn new(id: EndpointId, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            id,
            names: Vec::new(),
            addresses: addresses.into_iter().collect(),
            service: None,
            health: Health::Healthy,
            weight: 1,
        }
    }

    /// The name its addresses are called by.
    pub(super) fn first_name(&self) -> Cow<'_, DnsName> {
        self.names.first().map_or_else(|| Cow::Owned(short(self.id)), Cow::Borrowed)
    }
}

/// Whether an endpoint should be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It is, as far as anybody knows.
    Healthy,
    /// Its health check fails, its node is suspected, or it is not in effect there yet: it is given only where no healthy one is left.
    Suspect,
    /// It ends: it is never given, by no name. Its addresses are still called by its name.
    Draining,
}

/// All names that a service gives.
pub(super) fn service_names(service: &Service) -> BTreeSet<(Key, Source)> {
    let of: Arc<[u8]> = Arc::from(&service_key(&service.name)[..]);
    let mut names = BTreeSet::new();
    for name in std::iter::once(&service.name).chain(&service.aliases) {
        names.insert((service_key(name), Source::Service(of.clone())));
        names.insert((below(&[b"tasks"], name), Source::Tasks(of.clone())));
        for (port, protocol) in service.ports.keys() {
            names.insert((port_name(port, *protocol, name), Source::Port(of.clone())));
            names.insert((tasks_port_name(port, *protocol, name), Source::Port(of.clone())));
        }
    }
    if let Mode::Vip(vips) = &service.mode {
        names.extend(vips.iter().map(|vip| (super::address_key(*vip), Source::Vip(of.clone()))));
    }
    names
}

/// All names that an endpoint gives by itself.
pub(super) fn endpoint_names(endpoint: &Endpoint) -> BTreeSet<(Key, Source)> {
    own_names(endpoint).map(|name| (name, Source::Endpoint(endpoint.id))).collect()
}

/// What it is called itself, the same twice perhaps.
pub(super) fn own_names(endpoint: &Endpoint) -> impl Iterator<Item = Key> {
    endpoint.names.iter().map(key)
}

/// What it is found by without being called so: its id's beginning, and its addresses looked up backwards.
pub(super) fn innate_keys(endpoint: &Endpoint) -> impl Iterator<Item = Key> {
    let addresses = endpoint.addresses.iter().map(|address| super::address_key(*address));
    std::iter::once(short(endpoint.id).fold()).chain(addresses)
}

/// `_http._tcp.web`.
pub(super) fn port_name(port: &Name, protocol: Protocol, service: &Name) -> Key {
    below(&[format!("_{port}").as_bytes(), format!("_{protocol}").as_bytes()], service)
}

/// `_http._tcp.tasks.web`.
pub(super) fn tasks_port_name(port: &Name, protocol: Protocol, service: &Name) -> Key {
    below(&[format!("_{port}").as_bytes(), format!("_{protocol}").as_bytes(), b"tasks"], service)
}

/// Labels before a service's name; a port's name of 63 characters, which leaves no room for its `_`, gives no name
/// but the service's.
fn below(labels: &[&[u8]], service: &Name) -> Key {
    let labels = labels.iter().copied().chain([service.as_str().as_bytes()]);
    DnsName::from_labels(labels).map_or_else(|_| service_key(service), |name| name.fold())
}

/// The beginning of an id, a name that no other endpoint has.
pub(super) fn short(id: EndpointId) -> DnsName {
    DnsName::displayed(id.short()).unwrap_or_default()
}
