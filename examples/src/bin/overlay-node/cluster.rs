//! A node's place in a cluster: founded, joined, served.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{ClusterId, NetworkId, NodeId, Port, Prefix, Seat as Lead, Store};
use overlay_crypto::gossip::GossipKey;
use overlay_crypto::pki::{Algorithm, CertificateAuthority, JoinToken, NextRoot, Role, SealingKey, StoreAuthority};
use overlay_driver::control::{
    Cluster, ControlServer, Credentials, Managers, NodeLimits, Ring, Serving, found, join, reissue,
};
use overlay_driver::{Driver, Keep as _, Leading, Membership, MembershipConfig, MembershipParts};
use overlay_node::{Feed, Manager};
use overlay_store::RedbStore;
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::agent::{Catalogue, now, own_id, random, root};
use crate::seat::{Kept, Seat};

/// Founds a cluster, of which this node is the first manager.
pub(crate) async fn init(address: IpAddr, state: &Path) -> Outcome {
    if Seat::is_taken(state)? {
        return Err("this node is in a cluster already: leave it first".into());
    }
    std::fs::create_dir_all(state)?;
    let node = own_id(state)?;
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(state.join("catalogue.redb"))?);
    let sealing = SealingKey::generate(random);
    let (authority, _leading) = authority(&store, node, ClusterId::generate(random), &sealing).await?;
    authority.found(&NextRoot::Generate(Algorithm::EcdsaP256), now()).await.map_err(told)?;
    let mut joined = found(&*authority, node).await?;
    joined.ring = Some(Ring { revision: 1, keys: vec![GossipKey::generate(random)] });
    joined.managers = vec![SocketAddr::new(address, Port::CONTROL.get())];
    Seat::take(state, &joined, &Kept::of(&joined), Some(sealing))?;
    authority.announce(node).await.map_err(told)?; // the key is kept: this node can sign
    println!("node {node} has founded cluster {}. Once it runs, others join by", joined.identity.cluster);
    println!("    overlay-node node join --token {} {address}", authority.token(Role::Worker).await.map_err(told)?);
    Ok(())
}

/// Joins a cluster by a token.
pub(crate) async fn enter(token: &JoinToken, managers: &[SocketAddr], state: &Path) -> Outcome {
    if Seat::is_taken(state)? {
        return Err("this node is in a cluster already: leave it first".into());
    }
    std::fs::create_dir_all(state)?;
    let joined = join(managers.iter().copied(), token, Some(own_id(state)?), None).await?;
    Seat::take(state, &joined, &Kept::of(&joined), None)?;
    println!("this node is {} now: run it", joined.identity);
    Ok(())
}

async fn authority(
    store: &Arc<dyn Store>,
    node: NodeId,
    cluster: ClusterId,
    sealing: &SealingKey,
) -> Outcome<(Arc<StoreAuthority>, Leading)> {
    let mut seed = [0; 32];
    random(&mut seed);
    let authority = StoreAuthority::new(Arc::clone(store), &Prefix::new("overlay-ca/")?, cluster, seed)?;
    authority.hold(sealing.clone());
    let (authority, lead) = (Arc::new(authority), Lead::new(&Prefix::new("overlay-lead/")?, node)?);
    let leading = Leading::begin(Arc::clone(store), lead, Arc::clone(&authority)).await;
    Ok((authority, leading))
}

/// What keeps a node in its cluster while it runs.
pub(crate) struct Place {
    pub(crate) membership: Membership,
    pub(crate) managers: Managers,
    pub(crate) seat: Arc<Seat>,
    /// Of a manager: how its own commands are answered, and what serves others.
    pub(crate) cluster: Option<Cluster>,
    _work: Option<(Leading, Serving, JoinHandle<()>)>,
}

impl Place {
    /// The place that was kept, and the catalogue as it is seen from there. A manager serves from now on, at its own address.
    pub(crate) async fn open(seat: Seat, own: IpAddr, state: &Path) -> Outcome<(Self, Catalogue)> {
        let seat = Arc::new(seat);
        let (kept, vault) = (seat.kept()?, Arc::clone(&seat.vault));
        let (credentials, key) = vault.credentials()?;
        let node = credentials.identity().node;
        let served = SocketAddr::new(own, Port::CONTROL.get());
        let managers = match vault.sealing() {
            Some(_) => Managers::new([served], &credentials)?,
            None => Managers::new(kept.managers, &credentials)?,
        };
        let mut parts =
            MembershipParts { credentials: credentials.clone(), key, managers: managers.clone(), ring: vault.ring() };
        let Some(sealing) = vault.sealing() else {
            let membership = Membership::begin(parts, vault.clone(), MembershipConfig::default())?;
            let client = membership.client().clone();
            let feed = Box::new(client.follow());
            let catalogue = Catalogue { control: Arc::new(client), feed, manager: None, store: None };
            return Ok((Self { membership, managers, seat, cluster: None, _work: None }, catalogue));
        };
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(state.join("catalogue.redb"))?);
        let (authority, leading) = authority(&store, node, credentials.identity().cluster, &sealing).await?;
        if credentials.validity().until < now() {
            // Nobody who calls would believe it, so it cannot have it renewed as others do.
            let own = credentials.chain().into_iter().next().ok_or("there is no certificate")?;
            let (issued, next) = reissue(&*authority, &own, &parts.key).await?;
            vault.keep(&issued, &next)?;
            credentials.renew(issued.chain, &next)?;
            parts.key = next;
        }
        let mut seed = [0; 32];
        random(&mut seed);
        let manager = Arc::new(Manager::new(Arc::clone(&store), &root()?, node, seed)?);
        manager.found_cluster(NetworkId::generate(random), now()).await?;
        let cluster = Cluster::new(authority as Arc<dyn CertificateAuthority>, credentials.clone());
        cluster.set_managers([served]);
        cluster.set_ring(vault.ring());
        let server = ControlServer::new(manager.clone()).with_feed(Arc::clone(&store), &root()?)?;
        let listener = std::net::TcpListener::bind(served)?;
        let serving = server.with_cluster(cluster.clone()).listen(listener, credentials, NodeLimits::default())?;
        println!("nodes are served at {served}");
        let heeds = Leading::heed(cluster.clone(), Duration::from_secs(5));
        let membership = Membership::begin(parts, vault.clone(), MembershipConfig::default())?;
        let feed = Box::new(Feed::new(Arc::clone(&store), &root()?)?);
        let catalogue = Catalogue { control: manager.clone(), feed, manager: Some(manager), store: Some(store) };
        let work = Some((leading, serving, heeds));
        Ok((Self { membership, managers, seat, cluster: Some(cluster), _work: work }, catalogue))
    }

    /// The keys that gossip is sealed with.
    pub(crate) fn keys(&self) -> Vec<GossipKey> {
        self.membership.ring().borrow().keys.clone()
    }

    /// What the node proves itself with, by gossip too.
    pub(crate) fn credentials(&self) -> &Credentials {
        self.membership.credentials()
    }

    /// Where managers' gossip is, for a node that was told nobody else.
    pub(crate) fn seeds(&self) -> Vec<SocketAddr> {
        let gossip = |address: SocketAddr| SocketAddr::new(address.ip(), Port::GOSSIP.get());
        self.managers.addresses().into_iter().map(gossip).collect()
    }

    /// Finds managers by the node's gossip, carries its keys between both, and says what happens to its membership.
    pub(crate) fn follow(&self, driver: &Driver) -> [JoinHandle<()>; 3] {
        let mut events = self.membership.events();
        let log = tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                println!("{event}");
            }
        });
        let carries = self.membership.carry_gossip_keys(driver.clone(), self.cluster.clone());
        [log, carries, self.membership.find_managers(self.managers.clone(), driver.clone(), Port::CONTROL)]
    }
}

fn told(error: impl std::error::Error) -> String {
    overlay_core::told(&error)
}
