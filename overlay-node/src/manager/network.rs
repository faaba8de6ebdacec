//! Networks: created and removed.

use overlay_core::{
    Commit, Compare, IpFamily, Key, Listing, Mtu, NetworkId, Port, Prefix, Protocol, Snapshot, Transaction, Undecided,
    UnixTime, Vni,
};
use overlay_ipam::{ClaimError, IpamError, Subnet, SubnetKind};

use super::Manager;
use super::allocate::{Accepted, Claiming, Fate, Grave, Usable};
use super::endpoint::user;
use super::predefined::refuse_predefined;
use super::transaction::{Decided, Trouble, id_in, not_found, refuse, unreleased, withdrawn};
use crate::catalogue::keys::Keys;
use crate::catalogue::record::{Held, Object, encode_new};
use crate::{
    Condition, ControlError, Encryption, Endpoint, Kind, Network, NetworkSpec, Reference, Refused, Scope, User, mesh,
};

impl NetworkSpec {
    /// Whether it makes sense by itself.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), Refused> {
        refuse_predefined(&self.name)?;
        if matches!(self.kind, Kind::Host | Kind::None) {
            return Err(Refused::OnePerNode { kind: self.kind });
        }
        self.check_options()
    }

    fn check_options(&self) -> Result<(), Refused> {
        if self.ingress && self.attachable {
            return Err(Refused::IngressAttachable);
        }
        if self.ingress && self.internal {
            return Err(Refused::IngressInternal);
        }
        self.check_kind()?;
        let has_v6 = self.requests().iter().any(|request| request.family() == IpFamily::V6);
        match self.mtu.filter(|mtu| has_v6 && *mtu < Mtu::IPV6_MIN) {
            Some(mtu) => Err(Refused::MtuBelowIpv6 { mtu }),
            None => Ok(()),
        }
    }

    /// Whether networks of its kind have what it asks for.
    fn check_kind(&self) -> Result<(), Refused> {
        let local = self.kind.scope() == Scope::Local;
        let physical = matches!(self.kind, Kind::Macvlan { .. });
        let external = self.subnets.iter().any(|subnet| subnet.kind == SubnetKind::External);
        let lacks = [
            ("ingress", local && self.ingress),
            ("encrypted", local && self.encryption.is_some()),
            ("VNI", local && self.vni.is_some()),
            ("internal", physical && self.internal),
            ("external subnets", !physical && external),
        ];
        match lacks.into_iter().find(|(_, asked)| *asked) {
            Some((option, _)) => Err(Refused::KindLacks { kind: self.kind, option }),
            None if physical && self.subnets.is_empty() => Err(Refused::PhysicalSubnet),
            None => Ok(()),
        }
    }

    /// Whether both mean the same.
    fn asks_the_same(&self, other: &Self) -> bool {
        self.requests() == other.requests() && *self == Self { subnets: self.subnets.clone(), ..other.clone() }
    }
}

impl Claiming for Network {
    async fn allocate(manager: &Manager, held: &Held<Self>, now: UnixTime) -> Result<Self, Trouble> {
        manager.allocate_network(held, now).await
    }

    async fn finish(manager: &Manager, held: &Held<Self>, now: UnixTime) -> Result<(), ControlError> {
        manager.finish_network(held, now).await
    }

    /// Where its subnets were refused nothing was claimed of them, so its id is not spent.
    async fn withdraw(
        manager: &Manager,
        held: &Held<Self>,
        refused: &Refused,
        now: UnixTime,
    ) -> Result<(), ControlError> {
        if matches!(refused, Refused::Spent { .. }) {
            return manager.finish_network(held, now).await;
        }
        manager.release_numbers(held, now).await?;
        manager.run(|snapshot| manager.delete_network(snapshot, held, Grave { at: now, spent: false })).await
    }
}

impl Usable for Network {
    fn key_of(keys: &Keys, id: NetworkId) -> Key {
        keys.network(id)
    }

    async fn unused(manager: &Manager, id: NetworkId, now: UnixTime) -> Result<Vec<Compare>, ControlError> {
        manager.network_unused(id, now).await
    }
}

impl Manager {
    pub(super) async fn make_network(
        &self,
        id: NetworkId,
        spec: NetworkSpec,
        now: UnixTime,
    ) -> Result<Network, ControlError> {
        spec.check()?;
        if spec.encryption == Encryption::Own {
            self.check_own_ports()?;
        }
        self.make_checked_network(id, spec, now).await
    }

    pub(super) async fn make_checked_network(
        &self,
        id: NetworkId,
        spec: NetworkSpec,
        now: UnixTime,
    ) -> Result<Network, ControlError> {
        let held = self.accept(|snapshot| self.accept_network(snapshot, id, &spec, now)).await?;
        self.complete(held, now).await
    }

    /// Writes down what uses networks. One that is not allocated yet is helped to be: a manager may have died at it.
    pub(super) async fn accept_on_networks<T: Object>(
        &self,
        mut decide: impl FnMut(&Snapshot) -> Decided<Accepted<T>> + Send,
        now: UnixTime,
    ) -> Result<Held<T>, ControlError> {
        for _ in 0..Transaction::ATTEMPTS {
            let waits_for = match self.accept(&mut decide).await {
                Err(ControlError::Refused(Refused::NotAllocated { what: Network::WHAT, id })) => id,
                accepted => return accepted,
            };
            let held = self.find::<Network>(&Reference::from(waits_for.as_str())).await?;
            match self.allocate_network(&held, now).await {
                Ok(_) => {}
                Err(Trouble::Refused(refused)) => self.fail(&held, &refused).await?,
                Err(Trouble::Stuck(error)) => return Err(error),
            }
        }
        Err(ControlError::Contended { attempts: Transaction::ATTEMPTS })
    }

    fn accept_network(
        &self,
        snapshot: &Snapshot,
        id: NetworkId,
        spec: &NetworkSpec,
        now: UnixTime,
    ) -> Decided<Accepted<Network>> {
        let keys = &self.keys;
        let (key, name, ingress) = (keys.network(id), keys.network_name(&spec.name), keys.ingress());
        let gone = keys.gone(Network::WHAT, id);
        snapshot.need([&key, &name, &ingress, &gone])?;
        if let Some(held) = self.held::<Network>(snapshot, &key)? {
            return match () {
                () if held.is_removing() => refuse(Refused::Removing { what: Network::WHAT, id: id.to_string() }),
                () if !held.object.spec.asks_the_same(spec) => {
                    refuse(Refused::Differs { what: Network::WHAT, id: id.to_string() })
                }
                () => Ok((Commit::new(), Accepted::Known(held))),
            };
        }
        let commit = self.exhume::<Network>(snapshot, Commit::new(), id)?;
        if spec.ingress
            && let Some(entry) = snapshot.get(&ingress)?
        {
            let id = id_in(&ingress, &entry.value).map_err(Undecided::Refused)?;
            return refuse(Refused::IngressPresent { id });
        }
        if let Some(entry) = snapshot.get(&name)? {
            let id = String::from_utf8_lossy(&entry.value).into_owned();
            return refuse(Refused::NameTaken { what: Network::WHAT, name: spec.name.clone(), id });
        }
        let network = Network {
            id,
            spec: spec.clone(),
            subnets: Vec::new(),
            vni: None,
            port: None,
            created: now,
            condition: Condition::Accepted,
        };
        let commit = commit.put(key, encode_new(&network)).put(name, id.to_string());
        match spec.ingress {
            true => Ok((commit.put(ingress, id.to_string()), Accepted::New(network))),
            false => Ok((commit, Accepted::New(network))),
        }
    }

    /// Claims what an accepted network needs. The VNI and the port come first: they can be given back without harm to anybody else's claim of
    /// the same network, and where the subnets are refused nothing was claimed of them.
    pub(super) async fn allocate_network(&self, held: &Held<Network>, now: UnixTime) -> Result<Network, Trouble> {
        let id = &held.object.id;
        let vni = self.claim_vni(held, now).await?;
        let port = self.claim_own_port(held, now).await?;
        let subnets = self.claim_subnets(&held.object, now).await?;
        let key = self.keys.network(*id);
        let allocated = self.run(|snapshot| match self.fate(snapshot, &key, held)? {
            Fate::Taken(pending) => {
                let mut allocated = pending.with(Condition::Allocated);
                allocated.object.subnets.clone_from(&subnets);
                (allocated.object.vni, allocated.object.port) = (vni, port);
                Ok((Commit::new().put(key.clone(), allocated.encode()), allocated.object))
            }
            Fate::Allocated(allocated) => Ok((Commit::new(), allocated.object)),
            Fate::Gone => refuse(withdrawn::<Network>(id)),
        });
        match allocated.await {
            Err(ControlError::Refused(refused @ Refused::Withdrawn { .. })) => Err(Trouble::Stuck(refused.into())),
            allocated => Ok(allocated?),
        }
    }

    /// The VNI of an overlay; others have none.
    async fn claim_vni(&self, held: &Held<Network>, now: UnixTime) -> Result<Option<Vni>, Trouble> {
        if held.object.spec.kind != Kind::Overlay {
            return Ok(None);
        }
        match self.vnis.claim(&held.owner(), held.object.spec.vni, now).await {
            Ok(lease) => Ok(Some(lease.item)),
            Err(ClaimError::Refused(refusal)) => Err(Trouble::Refused(Refused::Vni(refusal))),
            Err(ClaimError::Failed(error)) => Err(error.into()),
        }
    }

    /// The port of an overlay that asks for one of its own.
    async fn claim_own_port(&self, held: &Held<Network>, now: UnixTime) -> Result<Option<Port>, Trouble> {
        let NetworkSpec { kind, encryption, .. } = held.object.spec;
        if (kind, encryption) != (Kind::Overlay, Encryption::Own) {
            return Ok(None);
        }
        match self.own_ports.claim(Protocol::Udp, &held.owner(), None, now).await {
            Ok(lease) => Ok(Some(lease.item)),
            Err(ClaimError::Refused(refusal)) => Err(Trouble::Refused(Refused::OwnPort(refusal))),
            Err(ClaimError::Failed(error)) => Err(error.into()),
        }
    }

    async fn claim_subnets(&self, network: &Network, now: UnixTime) -> Result<Vec<Subnet>, Trouble> {
        let requests = network.spec.requests();
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        match self.ipam.claim_subnets(network.id, &requests, now).await {
            // A claim for an earlier network of this id came late.
            Err(IpamError::Mismatch { .. }) => {
                Err(Trouble::Refused(Refused::Spent { what: Network::WHAT, id: network.id.to_string() }))
            }
            subnets => Ok(subnets?),
        }
    }

    /// What says that nobody uses a network; refused if somebody does. Those that are being removed are helped to go.
    async fn network_unused(&self, id: NetworkId, now: UnixTime) -> Result<Vec<Compare>, ControlError> {
        let [services, endpoints] = [self.keys.users(id), self.keys.endpoints(id)];
        for _ in 0..Transaction::ATTEMPTS {
            let (of_services, of_endpoints) = (self.store.list(&services).await?, self.store.list(&endpoints).await?);
            let first = |listing: &Listing| listing.entries.first().map(|(key, _)| key.clone());
            let user = match (first(&of_services), first(&of_endpoints)) {
                (Some(key), _) => self.service_using(id, &key, now).await?,
                (None, Some(key)) if self.is_of_mesh(&key).await? => {
                    self.leave_mesh(id, now).await?;
                    None
                }
                (None, Some(key)) => self.endpoint_using(&key, now).await?,
                (None, None) => {
                    let none = |prefix: &Prefix, revision| Compare::Prefix { prefix: prefix.clone(), revision };
                    return Ok(vec![none(&services, of_services.at), none(&endpoints, of_endpoints.at)]);
                }
            };
            if let Some(user) = user {
                return Err(self.network_in_use(id, user).await?.into());
            }
        }
        Err(ControlError::Contended { attempts: Transaction::ATTEMPTS })
    }

    async fn network_in_use(&self, id: NetworkId, user: User) -> Result<Refused, ControlError> {
        let Some(held) = self.load::<Network>(&self.keys.network(id)).await? else {
            return Ok(not_found::<Network>(id));
        };
        let NetworkSpec { name: network, ingress, .. } = held.object.spec;
        Ok(match user {
            User::Service { name: service, .. } if ingress => Refused::IngressInUse { network, service },
            user => Refused::NetworkInUse { network, user },
        })
    }

    async fn is_of_mesh(&self, key: &Key) -> Result<bool, ControlError> {
        let Some(endpoint) = self.load::<Endpoint>(key).await? else { return Ok(false) };
        let network = self.load::<Network>(&self.keys.network(endpoint.object.spec.network)).await?;
        Ok(network.is_some_and(|network| mesh::is_part(&network.object, &endpoint.object)))
    }

    /// The endpoint whose record this is; `None` if it has gone by now.
    async fn endpoint_using(&self, key: &Key, now: UnixTime) -> Result<Option<User>, ControlError> {
        let Some(held) = self.load::<Endpoint>(key).await? else { return Ok(None) };
        if held.is_removing() {
            self.finish_endpoint(&held, now).await?;
            return Ok(None);
        }
        Ok(Some(user(&held.object)))
    }

    /// Gives back what a network has that is being removed, and deletes it.
    pub(super) async fn finish_network(&self, held: &Held<Network>, now: UnixTime) -> Result<(), ControlError> {
        let id = held.object.id;
        self.release_numbers(held, now).await?;
        for _ in 0..Transaction::ATTEMPTS {
            match self.ipam.release_subnets(id, now).await {
                // It has no endpoints and no services, so what is leased is nobody's.
                Err(IpamError::InUse { .. }) => self.release_orphans(id, now).await?,
                released => {
                    released.map_err(unreleased)?;
                    return self
                        .run(|snapshot| self.delete_network(snapshot, held, Grave { at: now, spent: true }))
                        .await;
                }
            }
        }
        Err(ControlError::Contended { attempts: Transaction::ATTEMPTS })
    }

    fn delete_network(&self, snapshot: &Snapshot, held: &Held<Network>, grave: Grave) -> Decided<()> {
        let Network { id, spec, .. } = &held.object;
        let Some(commit) = self.delete(snapshot, held)? else { return Ok((Commit::new(), ())) };
        let own = id.to_string();
        let commit = self.delete_own(snapshot, commit, self.keys.network_name(&spec.name), &own)?;
        let commit = self.delete_own(snapshot, commit, self.keys.ingress(), &own)?;
        Ok((self.bury::<Network>(snapshot, commit, (*id, grave))?, ()))
    }

    async fn release_numbers(&self, held: &Held<Network>, now: UnixTime) -> Result<(), ControlError> {
        let owner = held.owner();
        let leases = self.vnis.leases().await.map_err(unreleased)?;
        for lease in leases.iter().filter(|lease| lease.owner == owner) {
            self.vnis.release(lease, now).await.map_err(unreleased)?;
        }
        let leases = self.own_ports.leases(Protocol::Udp).await.map_err(unreleased)?;
        for lease in leases.iter().filter(|lease| lease.owner == owner) {
            self.own_ports.release(Protocol::Udp, lease, now).await.map_err(unreleased)?;
        }
        Ok(())
    }
}
