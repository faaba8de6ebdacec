//! Endpoints: attached, moved and detached.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_core::{Commit, EndpointId, IpFamily, Key, Mac, NetworkId, NodeId, Snapshot, Undecided, UnixTime};
use overlay_dns::Health;
use overlay_ipam::{AddressRequest, Lease};

use super::Manager;
use super::allocate::{Accepted, Claiming, Fate, Grave};
use super::transaction::{Decided, Trouble, id_in, in_doubt, not_found, refuse, unreleased, withdrawn};
use crate::catalogue::record::{Held, Kept, Object, encode_new};
use crate::{
    Condition, ControlError, Endpoint, EndpointSpec, Kind, Network, Node, Refused, RemoteEndpoint, Scope, Service,
    Stay, User, mesh,
};

impl EndpointSpec {
    /// Whether it makes sense by itself.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), Refused> {
        let mut families = BTreeSet::new();
        for address in &self.addresses {
            let family = IpFamily::of(*address);
            if !families.insert(family) {
                return Err(Refused::TwoAddresses { family });
            }
        }
        match self.mac {
            Some(mac) if !mac.is_station() => Err(Refused::NoStation { mac }),
            Some(mac) if is_a_segments(mac) => Err(Refused::MacReserved { mac }),
            _ => self.as_told().encode().map(drop).map_err(Refused::TooLong),
        }
    }

    /// As long as what its node will tell the others.
    fn as_told(&self) -> RemoteEndpoint {
        RemoteEndpoint {
            node: self.node,
            container: self.container.clone(),
            mac: Mac::ZERO,
            addresses: [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].into(),
            names: self.names.clone(),
            service: self.service,
            labels: self.labels.clone(),
            health: Health::Healthy,
            moves: 0,
            weight: self.weight,
        }
    }
}

/// The user of a network or service that an endpoint is.
pub(super) fn user(endpoint: &Endpoint) -> User {
    let Endpoint { id, spec, .. } = endpoint;
    User::Container { container: spec.container.clone(), node: spec.node, endpoint: *id }
}

impl Claiming for Endpoint {
    async fn allocate(manager: &Manager, held: &Held<Self>, now: UnixTime) -> Result<Self, Trouble> {
        manager.allocate_endpoint(held, now).await
    }

    async fn finish(manager: &Manager, held: &Held<Self>, now: UnixTime) -> Result<(), ControlError> {
        manager.finish_endpoint(held, now).await
    }
}

impl Manager {
    pub(super) async fn make_endpoint(
        &self,
        id: EndpointId,
        spec: EndpointSpec,
        now: UnixTime,
    ) -> Result<Endpoint, ControlError> {
        spec.check()?;
        let held = self.accept_on_networks(|snapshot| self.accept_endpoint(snapshot, id, &spec, now), now).await?;
        self.complete(held, now).await
    }

    fn accept_endpoint(
        &self,
        snapshot: &Snapshot,
        id: EndpointId,
        spec: &EndpointSpec,
        now: UnixTime,
    ) -> Decided<Accepted<Endpoint>> {
        let keys = &self.keys;
        let of = keys.endpoint_of(id);
        let record = keys.endpoint(spec.network, id);
        let container = keys.container(spec.node, &spec.container, spec.network);
        let gone = keys.gone(Endpoint::WHAT, id);
        let mut wanted = vec![of.clone(), record.clone(), container.clone(), gone];
        wanted.extend([keys.network(spec.network), keys.node(spec.node)]);
        wanted.extend(spec.mac.map(|mac| keys.mac(spec.network, mac)));
        if let Some(service) = spec.service {
            wanted.extend([keys.service(service), keys.served_by(service, id)]);
        }
        snapshot.need(&wanted)?;
        if snapshot.get(&of)?.is_some() {
            return match self.held::<Endpoint>(snapshot, &record)? {
                Some(held) if held.is_removing() => removing::<_, Endpoint>(id),
                Some(held) if is_same(&held.object.spec, spec) => Ok((Commit::new(), Accepted::Known(held))),
                _ => refuse(Refused::Differs { what: Endpoint::WHAT, id: id.to_string() }),
            };
        }
        let network = self.network_to_attach(snapshot, id, spec)?;
        self.node_to_use(snapshot, spec.node)?;
        if let Some(entry) = snapshot.get(&container)? {
            let endpoint = id_in(&container, &entry.value).map_err(Undecided::Refused)?;
            let (container, network) = (spec.container.clone(), network.spec.name);
            return refuse(Refused::AlreadyAttached { container, network, endpoint });
        }
        let mac = spec.mac.unwrap_or(Mac::ZERO);
        let endpoint = Endpoint {
            id,
            spec: spec.clone(),
            addresses: BTreeSet::new(),
            mac,
            moves: 0,
            created: now,
            condition: Condition::Accepted,
        };
        snapshot.get(&record)?;
        let commit = Commit::new().put(record, encode_new(&endpoint));
        let commit = commit.put(of, spec.network.to_string()).put(container, id.to_string());
        let mut commit = self.exhume::<Endpoint>(snapshot, commit, id)?;
        if let Some(service) = spec.service {
            let served = keys.served_by(service, id);
            snapshot.get(&served)?;
            commit = commit.put(served, spec.network.to_string());
        }
        if let Some(mac) = spec.mac {
            commit = self.take_mac(snapshot, commit, (spec.network, mac), id)?;
        }
        Ok((commit, Accepted::New(endpoint)))
    }

    /// The network that an endpoint is attached to, and the service it serves there: on the ingress network, one that publishes there.
    fn network_to_attach(
        &self,
        snapshot: &Snapshot,
        endpoint: EndpointId,
        spec: &EndpointSpec,
    ) -> Result<Network, Undecided<ControlError>> {
        let id = spec.network;
        let found = self.allocated_network(snapshot, id, &self.keys.network(id))?;
        let network = found.spec.name.clone();
        let ingress = found.spec.ingress;
        if ingress && endpoint == mesh::endpoint(id, spec.node) {
            return if spec.service.is_none() { Ok(found) } else { refuse(Refused::OnIngress { network }) };
        }
        if ingress && spec.service.is_none() {
            return refuse(Refused::OnIngress { network });
        }
        let kind = found.spec.kind;
        if matches!(kind, Kind::Host | Kind::None) {
            return refuse(Refused::NothingToAttach { network, kind });
        }
        let Some(service) = spec.service else {
            return match found.spec.attachable || kind.scope() == Scope::Local {
                true => Ok(found),
                false => refuse(Refused::NotAttachable { network }),
            };
        };
        match self.held::<Service>(snapshot, &self.keys.service(service))? {
            None => refuse(not_found::<Service>(service)),
            Some(of) if of.is_removing() => removing::<_, Service>(service),
            Some(of) if ingress && of.object.spec.needs_ingress() => Ok(found),
            Some(_) if ingress => refuse(Refused::OnIngress { network }),
            Some(of) if !of.object.spec.networks.contains_key(&id) => {
                refuse(Refused::ServiceElsewhere { service: of.object.spec.name, network })
            }
            Some(_) => Ok(found),
        }
    }

    /// That a node is there and stays.
    fn node_to_use(&self, snapshot: &Snapshot, id: NodeId) -> Result<(), Undecided<ControlError>> {
        match self.held::<Node>(snapshot, &self.keys.node(id))? {
            None => refuse(not_found::<Node>(id)),
            Some(held) if held.is_removing() => removing::<_, Node>(id),
            Some(_) => Ok(()),
        }
    }

    fn take_mac(
        &self,
        snapshot: &Snapshot,
        commit: Commit,
        (network, mac): (NetworkId, Mac),
        id: EndpointId,
    ) -> Result<Commit, Undecided<ControlError>> {
        let key = self.keys.mac(network, mac);
        match snapshot.get(&key)? {
            None => Ok(commit.put(key, id.to_string())),
            Some(entry) => {
                let endpoint = id_in(&key, &entry.value).map_err(Undecided::Refused)?;
                refuse(Refused::MacTaken { mac, endpoint })
            }
        }
    }

    /// Claims an accepted endpoint's addresses.
    pub(super) async fn allocate_endpoint(&self, held: &Held<Endpoint>, now: UnixTime) -> Result<Endpoint, Trouble> {
        let EndpointSpec { network, addresses, .. } = &held.object.spec;
        let Some(of) = self.load::<Network>(&self.keys.network(*network)).await? else {
            return Err(Trouble::Stuck(not_found::<Network>(*network).into()));
        };
        let requests = self.requests(held, &of.object, addresses);
        let mut leases = Vec::new();
        for answer in self.ipam.claim(*network, &requests, now).await? {
            leases.push(answer.map_err(|refusal| Trouble::Refused(Refused::Address(refusal)))?);
        }
        let key = held.object.key(&self.keys);
        let allocated = self.run(|snapshot| match self.fate(snapshot, &key, held)? {
            Fate::Taken(pending) => self.allocated_endpoint(snapshot, pending, &leases),
            Fate::Allocated(allocated) => Ok((Commit::new(), allocated.object)),
            Fate::Gone => refuse(withdrawn::<Endpoint>(&held.object.id)),
        });
        match allocated.await {
            Err(ControlError::Refused(refused)) => Err(Trouble::Stuck(refused.into())),
            allocated => Ok(allocated?),
        }
    }

    /// One address of each family that the network has, and of each that was asked for.
    fn requests(&self, held: &Held<Endpoint>, network: &Network, wanted: &BTreeSet<IpAddr>) -> Vec<AddressRequest> {
        let has = network.families();
        let this = |address: &IpAddr| AddressRequest::this(held.owner(), *address);
        let given = |family| wanted.iter().any(|address| IpFamily::of(*address) == family);
        let any = [(IpFamily::V4, has.v4), (IpFamily::V6, has.v6)].into_iter();
        let any = any.filter(|(family, has)| *has && !given(*family));
        let any = any.map(|(family, _)| AddressRequest::any(held.owner(), family));
        wanted.iter().map(this).chain(any).collect()
    }

    fn allocated_endpoint(&self, snapshot: &Snapshot, pending: Held<Endpoint>, leases: &[Lease]) -> Decided<Endpoint> {
        let key = pending.object.key(&self.keys);
        let mut allocated = pending.with(Condition::Allocated);
        allocated.leases = leases.iter().cloned().map(Kept::from).collect();
        let endpoint = &mut allocated.object;
        endpoint.addresses = leases.iter().map(|lease| lease.address).collect();
        let mut commit = Commit::new();
        if endpoint.spec.mac.is_none() {
            let (mac, taken) = self.free_mac(snapshot, endpoint)?;
            endpoint.mac = mac;
            commit = commit.put(taken, endpoint.id.to_string());
        }
        Ok((commit.put(key, allocated.encode()), allocated.object))
    }

    /// An Ethernet address that no other endpoint of the network has: of the IPv4 address unless somebody chose that, or of the
    /// id.
    fn free_mac(&self, snapshot: &Snapshot, endpoint: &Endpoint) -> Result<(Mac, Key), Undecided<ControlError>> {
        let of_address = endpoint.addresses.iter().find_map(|address| match address.addr() {
            IpAddr::V4(address) => Some(Mac::from_ipv4(address)),
            IpAddr::V6(_) => None,
        });
        let id = endpoint.id.to_bytes();
        let of_id = id
            .windows(6)
            .filter_map(|octets| octets.try_into().ok())
            .map(Mac::local)
            .filter(|mac| !is_a_segments(*mac));
        let mut taken = None;
        for mac in of_address.into_iter().chain(of_id) {
            let key = self.keys.mac(endpoint.spec.network, mac);
            match snapshot.get(&key)? {
                None => return Ok((mac, key)),
                Some(entry) => taken = Some((mac, id_in(&key, &entry.value).map_err(Undecided::Refused)?)),
            }
        }
        let (mac, endpoint) = taken.unwrap_or((Mac::ZERO, endpoint.id));
        refuse(Refused::MacTaken { mac, endpoint })
    }

    /// The endpoint of this id, whichever network it is on.
    pub(super) fn endpoint_by_id(
        &self,
        snapshot: &Snapshot,
        id: EndpointId,
    ) -> Result<Option<Held<Endpoint>>, Undecided<ControlError>> {
        let of = self.keys.endpoint_of(id);
        let Some(entry) = snapshot.get(&of)? else { return Ok(None) };
        let network = id_in(&of, &entry.value).map_err(Undecided::Refused)?;
        self.held(snapshot, &self.keys.endpoint(network, id))
    }

    /// Another node has the endpoint.
    pub(super) fn move_endpoint(&self, snapshot: &Snapshot, id: EndpointId, node: NodeId) -> Decided<Endpoint> {
        let Some(mut held) = self.endpoint_by_id(snapshot, id)? else { return refuse(not_found::<Endpoint>(id)) };
        if held.is_removing() {
            return removing::<_, Endpoint>(id);
        }
        if held.is_pending() {
            return refuse(Refused::NotAllocated { what: Endpoint::WHAT, id: id.to_string() });
        }
        if held.object.spec.node == node {
            return Ok((Commit::new(), held.object));
        }
        let of = held.object.spec.network;
        let of = self.allocated_network(snapshot, of, &self.keys.network(of))?;
        if mesh::is_part(&of, &held.object) {
            return refuse(Refused::OnIngress { network: of.spec.name });
        }
        self.node_to_use(snapshot, node)?;
        let EndpointSpec { network, container, node: former, .. } = held.object.spec.clone();
        let there = self.keys.container(node, &container, network);
        if let Some(entry) = snapshot.get(&there)? {
            let endpoint = id_in(&there, &entry.value).map_err(Undecided::Refused)?;
            let network = self.allocated_network(snapshot, network, &self.keys.network(network))?.spec.name;
            return refuse(Refused::AlreadyAttached { container, network, endpoint });
        }
        let here = self.keys.container(former, &container, network);
        let commit = self.delete_own(snapshot, Commit::new(), here, &id.to_string())?.put(there, id.to_string());
        held.object.spec.node = node;
        held.object.moves = held.object.moves.saturating_add(1);
        held.object.condition = Condition::Allocated;
        Ok((commit.put(held.object.key(&self.keys), held.encode()), held.object))
    }

    /// A node says what became of the endpoint there.
    pub(super) fn report_endpoint(
        &self,
        snapshot: &Snapshot,
        id: EndpointId,
        stay: Stay,
        result: &Result<(), String>,
    ) -> Decided<()> {
        let condition = match result {
            Ok(()) => Condition::Ready,
            Err(reason) => Condition::Failed { reason: reason[..reason.floor_char_boundary(REASON)].to_owned() },
        };
        let Some(held) = self.endpoint_by_id(snapshot, id)? else { return Ok((Commit::new(), ())) };
        let has = &held.object.condition;
        if held.object.stay() != stay || held.is_removing() || held.is_pending() || *has == condition {
            return Ok((Commit::new(), ()));
        }
        let key = held.object.key(&self.keys);
        Ok((Commit::new().put(key, held.with(condition).encode()), ()))
    }

    /// Ends an endpoint, if it is there: on this node, if one is given.
    pub(super) async fn unmake_endpoint(
        &self,
        id: EndpointId,
        on: Option<NodeId>,
        now: UnixTime,
    ) -> Result<Option<Endpoint>, ControlError> {
        let removing = self.run(|snapshot| match self.endpoint_by_id(snapshot, id)? {
            Some(held) if on.is_some_and(|node| node != held.object.spec.node) => Ok((Commit::new(), None)),
            Some(held) => self.begin_removal::<Endpoint>(snapshot, &held.object.key(&self.keys)),
            None => Ok((Commit::new(), None)),
        });
        let Some(held) = removing.await? else { return Ok(None) };
        self.finish_endpoint(&held, now).await.map_err(in_doubt)?;
        Ok(Some(held.object))
    }

    /// Gives back what an endpoint has that is being removed, and deletes it.
    pub(super) async fn finish_endpoint(&self, held: &Held<Endpoint>, now: UnixTime) -> Result<(), ControlError> {
        let leases = match held.leases.is_empty() {
            true => self.leases_of(held, held.object.spec.network).await?,
            false => held.leases.iter().map(|kept| kept.lease(held.owner())).collect(),
        };
        self.ipam.release(&leases, now).await.map_err(unreleased)?;
        self.run(|snapshot| self.delete_endpoint(snapshot, held, now)).await
    }

    fn delete_endpoint(&self, snapshot: &Snapshot, held: &Held<Endpoint>, now: UnixTime) -> Decided<()> {
        let Endpoint { id, spec, mac, .. } = &held.object;
        let keys = &self.keys;
        let Some(commit) = self.delete(snapshot, held)? else { return Ok((Commit::new(), ())) };
        let (own, network) = (id.to_string(), spec.network.to_string());
        let mut commit = self.delete_own(snapshot, commit, keys.endpoint_of(*id), &network)?;
        let container = keys.container(spec.node, &spec.container, spec.network);
        commit = self.delete_own(snapshot, commit, container, &own)?;
        commit = self.delete_own(snapshot, commit, keys.mac(spec.network, *mac), &own)?;
        if let Some(service) = spec.service {
            commit = self.delete_own(snapshot, commit, keys.served_by(service, *id), &network)?;
        }
        Ok((self.bury::<Endpoint>(snapshot, commit, (*id, Grave { at: now, spent: false }))?, ()))
    }
}

/// The most bytes that are kept of what a node says went wrong.
const REASON: usize = 1024;

/// Whether an Ethernet address is of those that segments' bridges and ports have.
const fn is_a_segments(mac: Mac) -> bool {
    matches!(mac.octets(), [0x02 | 0x06, 0x6f, 0x76, ..])
}

/// Whether one spec is the other but for the node, which changes as the endpoint moves.
fn is_same(spec: &EndpointSpec, other: &EndpointSpec) -> bool {
    *spec == EndpointSpec { node: spec.node, ..other.clone() }
}

pub(super) fn removing<U, T: Object>(id: T::Id) -> Result<U, Undecided<ControlError>> {
    refuse(Refused::Removing { what: T::WHAT, id: id.to_string() })
}
