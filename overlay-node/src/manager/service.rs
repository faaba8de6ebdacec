//! Services: created and removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_core::{
    Commit, Compare, IpFamily, Key, NetworkId, Protocol, ServiceId, Snapshot, Transaction, Undecided, UnixTime,
};
use overlay_ipam::{AddressRequest, ClaimError, Lease, LeaseOwner, Use};

use super::Manager;
use super::allocate::{Accepted, Claiming, Fate, Grave, Usable};
use super::endpoint::{removing, user};
use super::ports::Pages;
use super::transaction::{Decided, Trouble, id_in, in_doubt, not_found, refuse, unreleased, withdrawn};
use crate::catalogue::keys::Keys;
use crate::catalogue::record::{Held, Kept, Object, encode_new, owner};
use crate::{
    Access, AccessError, Condition, ControlError, Endpoint, EndpointMode, Network, NetworkSpec, PublishMode,
    PublishedPort, Refused, Scope, Service, ServiceSpec, User,
};

/// The most networks and published ports of a service: what any store takes in one commit.
const NETWORKS: usize = 32;
const PORTS: usize = 1000;
const PAGES: usize = 64;
const PLACES: usize = 4096;

/// How often another port is drawn for one that turned out to be published at hosts.
const DRAWS: usize = 64;

impl ServiceSpec {
    /// Whether it makes sense by itself.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), Refused> {
        let numbered = self.ports.iter().filter_map(|port| Some((port.published?.get() >> 8, port.protocol)));
        let pages = numbered.collect::<BTreeSet<_>>().len();
        let said = |Access { addresses, interfaces, nodes, sources }: &Access| {
            addresses.len() + interfaces.len() + nodes.len() + sources.len()
        };
        let places = self.ports.iter().map(|port| said(&port.access)).sum();
        let sizes = [
            ("places and sources of published ports", places, PLACES),
            ("networks", self.networks.len(), NETWORKS),
            ("published ports", self.ports.len(), PORTS),
            ("groups of 256 published ports", pages, PAGES),
        ];
        if let Some((what, found, most)) = sizes.into_iter().find(|(_, found, most)| found > most) {
            return Err(Refused::TooMany { what, found, most });
        }
        if self.mode == EndpointMode::RoundRobin && self.needs_ingress() {
            return Err(Refused::IngressWithRoundRobin);
        }
        if self.mode == EndpointMode::RoundRobin && !self.balancing.is_usual() {
            return Err(Refused::BalancingWithRoundRobin);
        }
        self.balancing.check(&self.name)?;
        if self.needs_ingress() && self.balancing.affinity.is_some() {
            let reason = "the routing mesh brings no client back: publish the port in mode host, or leave affinity out"
                .to_owned();
            let wanted = "affinity with a port published in mode ingress".to_owned();
            return Err(Refused::Balancing { service: self.name.clone(), wanted, reason });
        }
        for port in &self.ports {
            let refused = |error: AccessError| {
                let (target, protocol, reason) = (port.target, port.protocol, error.to_string());
                Refused::Access { target, protocol, reason }
            };
            port.check().map_err(refused)?;
        }
        let mut seen = BTreeSet::new();
        let numbered = self.ports.iter().filter_map(|port| Some((port.published?, port.protocol)));
        for (port, protocol) in numbered {
            if !seen.insert((port, protocol)) {
                return Err(Refused::DuplicatePort { port, protocol });
            }
        }
        self.names_of_ports()
    }

    /// By a port's name SRV finds one port of the containers.
    fn names_of_ports(&self) -> Result<(), Refused> {
        let mut named = BTreeMap::new();
        for PublishedPort { name, protocol, target, .. } in &self.ports {
            let Some(name) = name else { continue };
            let first = *named.entry((name, *protocol)).or_insert(*target);
            if first != *target {
                let (name, protocol, targets) = (name.clone(), *protocol, [first, *target]);
                return Err(Refused::DuplicatePortName { name, protocol, targets });
            }
        }
        Ok(())
    }

    /// Whether ports are published in the routing mesh.
    pub(super) fn needs_ingress(&self) -> bool {
        self.ports.iter().any(|port| port.mode.is_of_mesh())
    }
}

impl Claiming for Service {
    async fn allocate(manager: &Manager, held: &Held<Self>, now: UnixTime) -> Result<Self, Trouble> {
        manager.allocate_service(held, now).await
    }

    async fn finish(manager: &Manager, held: &Held<Self>, now: UnixTime) -> Result<(), ControlError> {
        manager.finish_service(held, now).await
    }
}

impl Usable for Service {
    fn key_of(keys: &Keys, id: ServiceId) -> Key {
        keys.service(id)
    }

    async fn unused(manager: &Manager, id: ServiceId, now: UnixTime) -> Result<Vec<Compare>, ControlError> {
        manager.service_unserved(id, now).await
    }
}

impl Manager {
    pub(super) async fn make_service(
        &self,
        id: ServiceId,
        spec: ServiceSpec,
        now: UnixTime,
    ) -> Result<Service, ControlError> {
        spec.check()?;
        spec.balancing.permit(&spec.name, &self.balancers)?;
        let mut numbered = spec.ports.iter().filter_map(|port| Some((port.protocol, port.published?)));
        if let Some((protocol, port)) = numbered.find(|(protocol, port)| self.keeps(*protocol, *port)) {
            return Err(Refused::PortKept { port, protocol }.into());
        }
        let held = self.accept_on_networks(|snapshot| self.accept_service(snapshot, id, &spec, now), now).await?;
        self.complete(held, now).await
    }

    fn accept_service(
        &self,
        snapshot: &Snapshot,
        id: ServiceId,
        spec: &ServiceSpec,
        now: UnixTime,
    ) -> Decided<Accepted<Service>> {
        let keys = &self.keys;
        let (key, name, gone) = (keys.service(id), keys.service_name(&spec.name), keys.gone(Service::WHAT, id));
        snapshot.need([&key, &name, &gone])?;
        if let Some(held) = self.held::<Service>(snapshot, &key)? {
            return match () {
                () if held.is_removing() => removing::<_, Service>(id),
                () if held.object.spec != *spec => refuse(Refused::Differs { what: Service::WHAT, id: id.to_string() }),
                () => Ok((Commit::new(), Accepted::Known(held))),
            };
        }
        if let Some(entry) = snapshot.get(&name)? {
            let id = String::from_utf8_lossy(&entry.value).into_owned();
            return refuse(Refused::NameTaken { what: Service::WHAT, name: spec.name.clone(), id });
        }
        let service = Service {
            id,
            spec: spec.clone(),
            vips: BTreeMap::new(),
            ports: spec.ports.clone(),
            created: now,
            condition: Condition::Accepted,
        };
        let commit = Commit::new().put(key, encode_new(&service)).put(name, id.to_string());
        let mut commit = self.exhume::<Service>(snapshot, commit, id)?;
        for network in self.networks_to_use(snapshot, spec)? {
            let used = keys.used_by(network, id);
            snapshot.get(&used)?;
            commit = commit.put(used, "");
        }
        let mut pages = Pages::new(self, snapshot);
        pages.need(&spec.ports)?;
        for port in &spec.ports {
            pages.take(id, port)?;
        }
        Ok((pages.write(commit), Accepted::New(service)))
    }

    /// The networks that a service uses: its own, and ingress for its ports.
    fn networks_to_use(
        &self,
        snapshot: &Snapshot,
        spec: &ServiceSpec,
    ) -> Result<Vec<NetworkId>, Undecided<ControlError>> {
        let records: Vec<Key> = spec.networks.keys().map(|id| self.keys.network(*id)).collect();
        let ingress = self.keys.ingress();
        snapshot.need(records.iter().chain([&ingress]))?;
        for (id, key) in spec.networks.keys().zip(&records) {
            let NetworkSpec { name: network, ingress, kind, .. } = self.allocated_network(snapshot, *id, key)?.spec;
            if ingress {
                return refuse(Refused::ServiceOnIngress { network });
            }
            if kind.scope() == Scope::Local {
                return refuse(Refused::ServiceOnLocal { network, kind });
            }
        }
        let mut used: Vec<NetworkId> = spec.networks.keys().copied().collect();
        if spec.needs_ingress() {
            let Some(entry) = snapshot.get(&ingress)? else { return refuse(Refused::NoIngress) };
            let id = id_in(&ingress, &entry.value).map_err(Undecided::Refused)?;
            match self.allocated_network(snapshot, id, &self.keys.network(id)) {
                Err(Undecided::Refused(ControlError::Refused(Refused::Removing { .. }))) => {
                    return refuse(Refused::NoIngress);
                }
                network => network?,
            };
            used.push(id);
        }
        Ok(used)
    }

    /// A network that has what it needs, and stays.
    pub(super) fn allocated_network(
        &self,
        snapshot: &Snapshot,
        id: NetworkId,
        key: &Key,
    ) -> Result<Network, Undecided<ControlError>> {
        let Some(held) = self.held::<Network>(snapshot, key)? else { return refuse(not_found::<Network>(id)) };
        match &held.object.condition {
            Condition::Removing => removing::<_, Network>(id),
            Condition::Accepted => refuse(Refused::NotAllocated { what: Network::WHAT, id: id.to_string() }),
            Condition::Failed { reason } => {
                refuse(Refused::NetworkFailed { network: held.object.spec.name, reason: reason.clone() })
            }
            Condition::Allocated | Condition::Ready => Ok(held.object),
        }
    }

    /// Claims an accepted service's VIPs and ports.
    pub(super) async fn allocate_service(&self, held: &Held<Service>, now: UnixTime) -> Result<Service, Trouble> {
        let mut leases = Vec::new();
        for network in self.vip_networks(&held.object.spec).await? {
            leases.extend(self.claim_vips(held, network, now).await?);
        }
        let mut draws = vec![0; held.object.spec.ports.len()];
        for _ in 0..DRAWS {
            let ports = self.claim_ports(held, &draws, now).await?;
            let allocated = self.run(|snapshot| self.allocated_service(snapshot, held, &leases, &ports)).await;
            match allocated {
                Ok(Allocated::Service(service)) => return Ok(*service),
                Ok(Allocated::Conflicts(at)) => at.into_iter().for_each(|at| draws[at] += 1),
                Err(ControlError::Refused(refused)) => return Err(Trouble::Stuck(refused.into())),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Trouble::Stuck(in_doubt(ControlError::Contended { attempts: DRAWS as u32 })))
    }

    /// The networks on which a service has a VIP.
    async fn vip_networks(&self, spec: &ServiceSpec) -> Result<Vec<NetworkId>, ControlError> {
        if spec.mode == EndpointMode::RoundRobin {
            return Ok(Vec::new());
        }
        let mut networks: Vec<NetworkId> = spec.networks.keys().copied().collect();
        if spec.needs_ingress() {
            let ingress = self.keys.ingress();
            if let Some(entry) = self.store.get(&ingress).await? {
                networks.push(id_in(&ingress, &entry.value)?);
            }
        }
        Ok(networks)
    }

    async fn claim_vips(&self, held: &Held<Service>, network: NetworkId, now: UnixTime) -> Result<Vec<Lease>, Trouble> {
        let Some(of) = self.load::<Network>(&self.keys.network(network)).await? else {
            return Err(Trouble::Stuck(not_found::<Network>(network).into()));
        };
        let has = of.object.families();
        let families = [(IpFamily::V4, has.v4), (IpFamily::V6, has.v6)].into_iter().filter(|(_, has)| *has);
        let request = |(family, _)| AddressRequest { purpose: Use::Vip, ..AddressRequest::any(held.owner(), family) };
        let requests: Vec<AddressRequest> = families.map(request).collect();
        let answers = self.ipam.claim(network, &requests, now).await?.into_iter();
        answers.map(|answer| answer.map_err(|refusal| Trouble::Refused(Refused::Address(refusal)))).collect()
    }

    /// The service's ports with a number each. Those that are published at hosts by number are nobody's alone.
    async fn claim_ports(
        &self,
        held: &Held<Service>,
        draws: &[usize],
        now: UnixTime,
    ) -> Result<Vec<PublishedPort>, Trouble> {
        let mut ports = held.object.spec.ports.clone();
        for (at, (port, draw)) in ports.iter_mut().zip(draws).enumerate() {
            if port.mode == PublishMode::Host && port.published.is_some() {
                continue;
            }
            let owner = port_owner(held, &format!("{}/{at}/{draw}", port.protocol));
            match self.ports.claim(port.protocol, &owner, port.published, now).await {
                Ok(lease) => port.published = Some(lease.item),
                Err(ClaimError::Refused(refusal)) => return Err(Trouble::Refused(Refused::Port(refusal))),
                Err(ClaimError::Failed(error)) => return Err(error.into()),
            }
        }
        Ok(ports)
    }

    fn allocated_service(
        &self,
        snapshot: &Snapshot,
        held: &Held<Service>,
        leases: &[Lease],
        ports: &[PublishedPort],
    ) -> Decided<Allocated> {
        let key = held.object.key(&self.keys);
        let pending = match self.fate(snapshot, &key, held)? {
            Fate::Taken(pending) => pending,
            Fate::Allocated(allocated) => {
                return Ok((Commit::new(), Allocated::Service(Box::new(allocated.object))));
            }
            Fate::Gone => return refuse(withdrawn::<Service>(&held.object.id)),
        };
        let mut pages = Pages::new(self, snapshot);
        pages.need(ports)?;
        let mut conflicts = Vec::new();
        for (at, (port, wanted)) in ports.iter().zip(&held.object.spec.ports).enumerate() {
            let drawn = port.published.filter(|_| wanted.published.is_none());
            let is_kept = drawn.is_some_and(|number| self.keeps(port.protocol, number));
            match pages.conflict(held.object.id, port)? {
                None if !is_kept => pages.take(held.object.id, port)?,
                _ => conflicts.push(at),
            }
        }
        if !conflicts.is_empty() {
            return Ok((Commit::new(), Allocated::Conflicts(conflicts)));
        }
        let mut allocated = pending.with(Condition::Allocated);
        allocated.leases = leases.iter().cloned().map(Kept::from).collect();
        let mut vips: BTreeMap<NetworkId, BTreeSet<IpAddr>> = BTreeMap::new();
        for lease in leases {
            vips.entry(lease.network).or_default().insert(lease.ip());
        }
        (allocated.object.vips, allocated.object.ports) = (vips, ports.to_vec());
        let commit = pages.write(Commit::new()).put(key, allocated.encode());
        Ok((commit, Allocated::Service(Box::new(allocated.object))))
    }

    /// What says that no endpoint serves a service; refused if one does.
    async fn service_unserved(&self, id: ServiceId, now: UnixTime) -> Result<Vec<Compare>, ControlError> {
        let prefix = self.keys.servers(id);
        for _ in 0..Transaction::ATTEMPTS {
            let listing = self.store.list(&prefix).await?;
            let Some((key, entry)) = listing.entries.first() else {
                return Ok(vec![Compare::Prefix { prefix, revision: listing.at }]);
            };
            let endpoint = self.keys.endpoint(id_in(key, &entry.value)?, self.id_after(&prefix, key)?);
            let Some(held) = self.load::<Endpoint>(&endpoint).await? else { continue };
            if held.is_removing() {
                self.finish_endpoint(&held, now).await?;
                continue;
            }
            let Some(service) = self.load::<Service>(&self.keys.service(id)).await? else {
                return Err(not_found::<Service>(id).into());
            };
            return Err(Refused::ServiceInUse { service: service.object.spec.name, user: user(&held.object) }.into());
        }
        Err(ControlError::Contended { attempts: Transaction::ATTEMPTS })
    }

    /// The service that a key says uses a network; `None` if it has gone by now.
    pub(super) async fn service_using(
        &self,
        network: NetworkId,
        key: &Key,
        now: UnixTime,
    ) -> Result<Option<User>, ControlError> {
        let id = self.id_after(&self.keys.users(network), key)?;
        let Some(held) = self.load::<Service>(&self.keys.service(id)).await? else { return Ok(None) };
        if held.is_removing() {
            self.finish_service(&held, now).await?;
            return Ok(None);
        }
        Ok(Some(User::Service { name: held.object.spec.name, id }))
    }

    /// Gives back what a service has that is being removed, and deletes it.
    pub(super) async fn finish_service(&self, held: &Held<Service>, now: UnixTime) -> Result<(), ControlError> {
        let mut leases: Vec<Lease> = held.leases.iter().map(|kept| kept.lease(held.owner())).collect();
        if leases.is_empty() {
            for network in self.vip_networks(&held.object.spec).await? {
                leases.extend(self.leases_of(held, network).await?);
            }
        }
        self.ipam.release(&leases, now).await.map_err(unreleased)?;
        let protocols: BTreeSet<Protocol> = held.object.ports.iter().map(|port| port.protocol).collect();
        let owners = port_owner(held, "");
        for protocol in protocols {
            let ports = self.ports.leases(protocol).await.map_err(unreleased)?;
            for lease in ports.iter().filter(|lease| lease.owner.as_bytes().starts_with(owners.as_bytes())) {
                self.ports.release(protocol, lease, now).await.map_err(unreleased)?;
            }
        }
        self.run(|snapshot| self.delete_service(snapshot, held, now)).await
    }

    fn delete_service(&self, snapshot: &Snapshot, held: &Held<Service>, now: UnixTime) -> Decided<()> {
        let Service { id, spec, ports, .. } = &held.object;
        let keys = &self.keys;
        let Some(commit) = self.delete(snapshot, held)? else { return Ok((Commit::new(), ())) };
        let mut commit = self.delete_own(snapshot, commit, keys.service_name(&spec.name), &id.to_string())?;
        let mut used: Vec<Key> = spec.networks.keys().map(|network| keys.used_by(*network, *id)).collect();
        if let Some(entry) = snapshot.get(&keys.ingress())? {
            let ingress = id_in(&keys.ingress(), &entry.value).map_err(Undecided::Refused)?;
            used.push(keys.used_by(ingress, *id));
        }
        snapshot.need(&used)?;
        for key in used {
            commit = self.delete_own(snapshot, commit, key, "")?;
        }
        let mut pages = Pages::new(self, snapshot);
        pages.need(ports)?;
        for port in ports {
            pages.give(*id, port)?;
        }
        commit = pages.write(commit);
        Ok((self.bury::<Service>(snapshot, commit, (*id, Grave { at: now, spent: false }))?, ()))
    }
}

/// What an attempt at the last step of a service's allocation came to.
enum Allocated {
    Service(Box<Service>),
    /// These of its ports turned out to be published at hosts.
    Conflicts(Vec<usize>),
}

/// A port's owner: all those of a service begin alike.
fn port_owner(held: &Held<Service>, rest: &str) -> LeaseOwner {
    owner(format!("{}/{rest}", held.owner()))
}
