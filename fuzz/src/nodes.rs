//! A body for overlay-driver: what a node of the cluster, or anybody, may say at a manager's port.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use overlay_core::{ClusterId, EndpointId, MemoryStore, NetworkId, NodeId, Prefix, Seat, Store, Term, UnixTime};
use overlay_crypto::pki::{
    Algorithm, Authority, Certificate, Grant, Identity, Life, NextRoot, Role, SealingKey, Serial, SigningKey,
    SigningRequest, StoreAuthority, Trust,
};
use overlay_driver::control::{Cluster, ControlServer, Credentials, NodeLimits, Serving};
use overlay_driver::testing::{credulous, exchange};
use overlay_node::{Control, EndpointSpec, Manager, NetworkSpec};
use tokio::net::TcpStream;

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] = &[("driver_nodes", nodes)];

const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
const CLUSTER: ClusterId = ClusterId::from_bytes([5; 16]);
const MANAGER: NodeId = NodeId::from_bytes([1; 16]);
const WORKER: NodeId = NodeId::from_bytes([2; 16]);
const OTHER: NodeId = NodeId::from_bytes([3; 16]);
const FRONT: NetworkId = NetworkId::from_bytes([2; 16]);
const OTHERS: EndpointId = EndpointId::from_bytes([4; 16]);

/// All but the first byte is said to a manager that serves its cluster, by a worker, by somebody who has no certificate, or in place of TLS, as the first says: then another node's endpoint is as it was, the network is there, and who
/// asks next is answered.
fn nodes(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (Ok(runtime), Some((how, bytes))) = (runtime, bytes.split_first()) else { return };
    runtime.block_on(async {
        let store = Arc::new(MemoryStore::default());
        let Ok(manager) = Manager::new(store, &Prefix::ALL, MANAGER, [7; 32]) else { return };
        let manager: Arc<dyn Control> = Arc::new(manager);
        found(&*manager).await;
        let before = manager.endpoint(OTHERS).await;
        let Some((serving, address)) = served(&manager) else { return };
        let realm = realm();
        match how % 3 {
            0 => drop(secured(address, Some(&realm.worker), b"overlay-control/1", bytes).await),
            1 => drop(secured(address, None, b"overlay-join/1", bytes).await),
            _ => drop(plain(address, bytes).await),
        }
        let asks = b"{\"hello\":{\"version\":1,\"purpose\":\"call\"}}\n{\"id\":1,\"call\":{\"nodes\":{}}}\n";
        let told = secured(address, Some(&realm.worker), b"overlay-control/1", asks).await.unwrap_or_default();
        assert!(told.windows(8).any(|it| it == b"\"answer\""), "{}", told.escape_ascii());
        let after = manager.endpoint(OTHERS).await;
        assert!(before.is_ok_and(|before| after.is_ok_and(|after| after == before && after.is_some())));
        assert!(manager.networks().await.is_ok_and(|all| all.len() == 1));
        drop(serving);
    });
}

/// A network with room, and the endpoint of a node that does not speak.
async fn found(manager: &dyn Control) {
    let (Ok(front), Ok(web), Ok(other)) = ("front".parse(), "web".parse(), "other".parse()) else { return };
    let front = NetworkSpec { attachable: true, ..NetworkSpec::overlay(front) };
    let created = manager.create_network(FRONT, front, UnixTime::EPOCH).await;
    let spec = overlay_node::NodeSpec { name: other, role: overlay_gossip::Role::Worker };
    let added = manager.add_node(OTHER, spec, UnixTime::EPOCH).await;
    let attached = manager.attach(OTHERS, EndpointSpec::new(FRONT, web, OTHER), UnixTime::EPOCH).await;
    assert!(created.is_ok() && added.is_ok() && attached.is_ok(), "{attached:?}");
}

/// Serves the catalogue and the cluster, whose authority has a root of its own: so who asks for a certificate by whatever it guesses gets none.
fn served(manager: &Arc<dyn Control>) -> Option<(Serving, SocketAddr)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").ok()?;
    let cluster = Cluster::new(authority()?, realm().manager.clone());
    let server = ControlServer::new(Arc::clone(manager)).with_clock(|| NOW).with_cluster(cluster);
    let serving = server.listen(listener, realm().manager.clone(), NodeLimits::default()).ok()?;
    let address = serving.address()?;
    Some((serving, address))
}

/// Made once, as it costs; nobody here may change anything of it.
fn authority() -> Option<Arc<StoreAuthority>> {
    static AUTHORITY: OnceLock<Option<Arc<StoreAuthority>>> = OnceLock::new();
    let make = async || {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let authority = StoreAuthority::new(Arc::clone(&store), &Prefix::new("ca/").ok()?, CLUSTER, [7; 32]).ok()?;
        authority.hold(SealingKey::generate(|bytes| bytes.fill(8)));
        let seat = Seat::new(&Prefix::new("lead/").ok()?, MANAGER).ok()?;
        authority.lead(Term::campaign(&*store, &seat, NOW).await.ok()?);
        authority.found(&NextRoot::Generate(Algorithm::Ed25519), NOW).await.ok()?;
        Some(Arc::new(authority))
    };
    AUTHORITY.get_or_init(|| overlay_core::testing::block_on(make())).clone()
}

async fn plain(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    exchange(TcpStream::connect(address).await?, bytes).await
}

async fn secured(
    address: SocketAddr,
    own: Option<&(Vec<Certificate>, SigningKey)>,
    protocol: &[u8],
    bytes: &[u8],
) -> std::io::Result<Vec<u8>> {
    let own = own.map(|(chain, key)| (&chain[..], key));
    exchange(credulous(address, own, protocol).await?, bytes).await
}

/// A cluster's certificates: made once, as they cost.
struct Realm {
    manager: Credentials,
    worker: (Vec<Certificate>, SigningKey),
}

fn realm() -> &'static Realm {
    static REALM: OnceLock<Realm> = OnceLock::new();
    REALM.get_or_init(|| make().unwrap_or_else(|| panic!("the system gives no chance")))
}

fn make() -> Option<Realm> {
    let (cluster, now) = (CLUSTER, NOW);
    let serial = |number: u8| Serial::generate(|bytes| bytes.fill(number));
    let key = || SigningKey::generate(Algorithm::EcdsaP256).ok();
    let root = Authority::create(cluster, key()?, &serial(1), now).ok()?;
    let issue = |node, role, number: u8| {
        let (key, identity) = (key()?, Identity { node, role, cluster });
        let grant = Grant { identity, life: Life::default(), serial: serial(number) };
        let own = root.issue(&SigningRequest::create(&key).ok()?, &grant, now).ok()?;
        Some((vec![own, root.certificate().clone()], key))
    };
    let (chain, key) = issue(MANAGER, Role::Manager, 2)?;
    let trust = Trust::new([root.certificate().clone()]).ok()?;
    let manager = Credentials::with_clock(chain, &key, trust, move || now).ok()?;
    Some(Realm { manager, worker: issue(WORKER, Role::Worker, 3)? })
}
