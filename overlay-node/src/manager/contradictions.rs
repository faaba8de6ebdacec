//! Whether a catalogue agrees with itself: for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use bytes::Bytes;
use ipnet::IpNet;
use overlay_core::{Entry, Key, Mac, NetworkId, Protocol};
use overlay_ipam::LeaseOwner;

use super::Manager;
use super::orphans::object;
use super::ports::pages_of;
use crate::catalogue::record::{Held, Object};
use crate::{ControlError, Endpoint, Network, Node, Service};

/// What in a catalogue contradicts itself: two with one name, address, Ethernet address, VNI or port; an endpoint on a network that is
/// not there; a key that says what no object says, or does not say what one does. It looks at one revision, so there is
/// nothing at any time, whatever managers are in the middle of (feature `testing`).
///
/// # Errors
/// If the store cannot be read.
pub async fn contradictions(manager: &Manager) -> Result<Vec<String>, ControlError> {
    let keys = &manager.keys;
    let entries = manager.store.list(keys.root()).await?.entries;
    let mut there = There { manager, entries: entries.into_iter().collect(), found: Vec::new() };
    let networks: Vec<Held<Network>> = there.take();
    let services: Vec<Held<Service>> = there.take();
    let endpoints: Vec<Held<Endpoint>> = there.take();
    let nodes: Vec<Held<Node>> = there.take();
    let mut said: BTreeMap<Key, Bytes> = BTreeMap::new();
    let mut says = |key: Key, value: String| drop(said.insert(key, value.into()));
    for Network { id, spec, .. } in networks.iter().map(|held| &held.object) {
        says(keys.network_name(&spec.name), id.to_string());
        if spec.ingress {
            says(keys.ingress(), id.to_string());
        }
    }
    for Service { id, spec, .. } in services.iter().map(|held| &held.object) {
        says(keys.service_name(&spec.name), id.to_string());
        spec.networks.keys().for_each(|network| says(keys.used_by(*network, *id), String::new()));
        let ingress = networks.iter().find(|held| held.object.spec.ingress && spec.needs_ingress());
        ingress.into_iter().for_each(|held| says(keys.used_by(held.object.id, *id), String::new()));
    }
    for Endpoint { id, spec, mac, .. } in endpoints.iter().map(|held| &held.object) {
        says(keys.endpoint_of(*id), spec.network.to_string());
        says(keys.container(spec.node, &spec.container, spec.network), id.to_string());
        if *mac != Mac::ZERO {
            says(keys.mac(spec.network, *mac), id.to_string());
        }
        spec.service.into_iter().for_each(|service| says(keys.served_by(service, *id), spec.network.to_string()));
    }
    nodes.iter().for_each(|held| says(keys.node_name(&held.object.spec.name), held.object.id.to_string()));
    said.extend(pages_of(keys, services.iter().map(|held| &held.object)));
    there.compare(&said);
    there.references(&networks, &services, &endpoints, &nodes);
    there.duplicates(&networks, &services, &endpoints);
    Ok(there.found)
}

/// What is leased to nobody, and which object lacks a lease of what it has. There is neither when no manager is in the middle of
/// something and all is settled (feature `testing`).
///
/// # Errors
/// If the store cannot be read.
pub async fn leaks(manager: &Manager) -> Result<Vec<String>, ControlError> {
    let (mut had, mut has) = (numbers(manager).await?, BTreeSet::new());
    let failed = super::transaction::unreleased;
    let networks = manager.ipam.networks().await.map_err(failed)?;
    let mut subnets = BTreeMap::new();
    for (network, nets) in networks {
        for address in manager.leases_on(network).await? {
            had.insert((address.owner.clone(), on(network, address.ip())));
        }
        subnets.insert(network, nets.iter().map(|subnet| subnet.net()).collect::<Vec<IpNet>>());
    }
    let (mut living, mut pending) = (BTreeSet::new(), BTreeSet::new());
    let mut has_it = |owner: LeaseOwner, what: String| _ = has.insert((owner, what));
    let mut known = BTreeMap::new();
    for held in manager.readable::<Network>().await?.0 {
        let Network { id, subnets, vni, port, .. } = &held.object;
        pending.extend(held.is_pending().then(|| held.owner()));
        vni.iter().for_each(|vni| has_it(held.owner(), format!("VNI {vni}")));
        port.iter().for_each(|port| has_it(held.owner(), format!("tunnels' port {port}")));
        if !subnets.is_empty() {
            known.insert(*id, subnets.iter().map(|subnet| subnet.net()).collect());
        }
    }
    for held in manager.readable::<Endpoint>().await?.0 {
        let Endpoint { spec, addresses, .. } = &held.object;
        pending.extend(held.is_pending().then(|| held.owner()));
        addresses.iter().for_each(|address| has_it(held.owner(), on(spec.network, address.addr())));
    }
    for held in manager.readable::<Service>().await?.0 {
        living.insert(held.owner());
        pending.extend(held.is_pending().then(|| held.owner()));
        let ports = if held.object.is_allocated() { &held.object.ports[..] } else { &[] };
        for (port, wanted) in ports.iter().zip(&held.object.spec.ports) {
            let alone = port.mode.is_of_mesh() || wanted.published.is_none();
            let published = port.published.filter(|_| alone);
            published.into_iter().for_each(|number| has_it(held.owner(), format!("{number}/{}", port.protocol)));
        }
        for (network, vips) in &held.object.vips {
            vips.iter().for_each(|vip| has_it(held.owner(), on(*network, vip)));
        }
    }
    // A service may have drawn ports that it does not use, and what is not allocated yet have some of what it needs.
    let is_drawn = |(owner, what): &&(LeaseOwner, String)| living.contains(owner) && what.contains('/');
    let leaked = had.difference(&has).filter(|lease| !is_drawn(lease) && !pending.contains(&lease.0));
    let leaked = leaked.map(|(owner, what)| format!("{what} is leased to {owner}, who has it not"));
    let lacking = has.difference(&had).map(|(owner, what)| format!("{owner} has {what}, which is not leased to it"));
    let mut found: Vec<String> = leaked.chain(lacking).collect();
    if subnets != known {
        found.push(format!("subnets {subnets:?} are claimed, and {known:?} had"));
    }
    Ok(found)
}

/// Whose VNIs and ports there are.
async fn numbers(manager: &Manager) -> Result<BTreeSet<(LeaseOwner, String)>, ControlError> {
    let failed = super::transaction::unreleased;
    let mut had = BTreeSet::new();
    for vni in manager.vnis.leases().await.map_err(failed)? {
        had.insert((vni.owner, format!("VNI {}", vni.item)));
    }
    for port in manager.own_ports.leases(Protocol::Udp).await.map_err(failed)? {
        had.insert((port.owner, format!("tunnels' port {}", port.item)));
    }
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        for port in manager.ports.leases(protocol).await.map_err(failed)? {
            had.insert((whole(&port.owner), format!("{}/{protocol}", port.item)));
        }
    }
    Ok(had)
}

/// The service that a port's owner is of.
fn whole(owner: &LeaseOwner) -> LeaseOwner {
    let object = object(owner).and_then(|(_, whole)| LeaseOwner::new(whole).ok());
    object.unwrap_or_else(|| owner.clone())
}

fn on(network: NetworkId, address: impl Display) -> String {
    format!("{address} on {network}")
}

/// A catalogue's entries, less those that were found to be right.
struct There<'c> {
    manager: &'c Manager,
    entries: BTreeMap<Key, Entry>,
    found: Vec<String>,
}

impl There<'_> {
    fn take<T: Object>(&mut self) -> Vec<Held<T>> {
        let prefix = self.manager.keys.all(T::WHAT);
        let keys: Vec<Key> = self.entries.keys().filter(|key| prefix.contains(key)).cloned().collect();
        let mut all = Vec::new();
        for key in keys {
            let Some(entry) = self.entries.remove(&key) else { continue };
            match Held::<T>::decode(&self.manager.keys, &key, &entry) {
                Ok(held) => all.push(held),
                Err(flaw) => self.found.push(format!("{key}: {}", flaw.flaw)),
            }
        }
        for held in &all {
            let grave = self.manager.keys.gone(T::WHAT, held.object.id());
            if self.entries.contains_key(&grave) {
                self.found.push(format!("{grave}, which is there"));
            }
        }
        all
    }

    /// What the other keys say against what they should.
    fn compare(&mut self, said: &BTreeMap<Key, Bytes>) {
        let aside = |key: &Key| *key == self.manager.keys.founded() || self.manager.keys.all_gone().contains(key);
        for (key, entry) in self.entries.iter().filter(|(key, _)| !aside(key)) {
            if said.get(key) != Some(&entry.value) {
                self.found.push(format!("{key} is {:?}, and should be {:?}", entry.value, said.get(key)));
            }
        }
        let missing = said.iter().filter(|(key, _)| !self.entries.contains_key(*key));
        self.found.extend(missing.map(|(key, value)| format!("{key} should be {value:?}")));
    }

    fn references(
        &mut self,
        networks: &[Held<Network>],
        services: &[Held<Service>],
        endpoints: &[Held<Endpoint>],
        nodes: &[Held<Node>],
    ) {
        let networks: BTreeMap<_, _> = networks.iter().map(|held| (held.object.id, held)).collect();
        let services: BTreeSet<_> = services.iter().map(|held| held.object.id).collect();
        let nodes: BTreeSet<_> = nodes.iter().map(|held| held.object.id).collect();
        for Endpoint { id, spec, addresses, .. } in endpoints.iter().map(|held| &held.object) {
            match networks.get(&spec.network) {
                None => self.found.push(format!("endpoint {id} is on no network")),
                Some(network) if network.is_removing() || network.is_pending() => {
                    self.found.push(format!("endpoint {id} is on a network that is not allocated"));
                }
                Some(network) => {
                    let of = |address: &&IpNet| !network.object.subnets.iter().any(|of| of.net().contains(*address));
                    let strange = addresses.iter().filter(of);
                    self.found.extend(strange.map(|address| format!("endpoint {id} has {address}, of no subnet")));
                }
            }
            if !nodes.contains(&spec.node) || spec.service.is_some_and(|service| !services.contains(&service)) {
                self.found.push(format!("endpoint {id} is on no node, or serves no service"));
            }
        }
    }

    fn duplicates(&mut self, networks: &[Held<Network>], services: &[Held<Service>], endpoints: &[Held<Endpoint>]) {
        let networks = staying(networks);
        let mut seen = BTreeSet::new();
        let vnis = networks.iter().filter_map(|network| network.vni.map(|vni| format!("VNI {vni}")));
        let ports = networks.iter().filter_map(|network| network.port.map(|port| format!("tunnels' port {port}")));
        let of_endpoints = staying(endpoints)
            .into_iter()
            .flat_map(|endpoint| endpoint.addresses.iter().map(|address| on(endpoint.spec.network, address.addr())));
        let of_services = staying(services).into_iter().flat_map(|service| &service.vips);
        let of_services = of_services.flat_map(|(network, vips)| vips.iter().map(|vip| on(*network, vip)));
        let gateways = networks
            .iter()
            .flat_map(|network| network.subnets.iter().filter_map(|subnet| Some(on(network.id, subnet.gateway()?))));
        for what in vnis.chain(ports).chain(of_endpoints).chain(of_services).chain(gateways) {
            if !seen.insert(what.clone()) {
                self.found.push(format!("two have {what}"));
            }
        }
        let nets: Vec<IpNet> =
            networks.iter().flat_map(|network| &network.subnets).map(|subnet| subnet.net()).collect();
        for (at, net) in nets.iter().enumerate() {
            let overlaps = nets[at + 1..].iter().filter(|other| net.contains(*other) || other.contains(net));
            self.found.extend(overlaps.map(|other| format!("{net} overlaps {other}")));
        }
    }
}

/// Those that are not being removed: these say what they had.
fn staying<T: Object>(all: &[Held<T>]) -> Vec<&T> {
    all.iter().filter(|held| !held.is_removing()).map(|held| &held.object).collect()
}
