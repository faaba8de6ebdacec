//! `crypto/handshake`: connections between nodes over mutual TLS 1.3, made and welcomed, per second, on one core; the yardstick is rustls with its own verifiers, the same certificates and
//! one answer of a byte.
//! `node/control-requests`: containers attached and detached per second by one worker over TLS, through a manager on a store in one file, and, with feature `etcd`, on an
//! etcd that this starts (`-etcd`); the yardstick is the same by the manager itself.

#![expect(clippy::expect_used, reason = "a benchmark that cannot run ends")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use overlay_bench::Bench;
use overlay_core::{ClusterId, EndpointId, MemoryStore, NetworkId, NodeId, Prefix, Store};
use overlay_crypto::pki::{
    Algorithm, Authority, Certificate, Grant, Identity, Life, Role, Serial, SigningKey, SigningRequest, Trust,
};
use overlay_driver::control::{ControlClient, ControlServer, Credentials, Limits, Managers, NodeLimits, Serving};
use overlay_driver::testing::date;
use overlay_node::{Control, EndpointSpec, Manager, NetworkSpec, NodeSpec};
use overlay_store::RedbStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const CLUSTER: ClusterId = ClusterId::from_bytes([5; 16]);
const MANAGER: NodeId = NodeId::from_bytes([1; 16]);
const WORKER: NodeId = NodeId::from_bytes([2; 16]);
const NETWORK: NetworkId = NetworkId::from_bytes([7; 16]);
/// Handshakes between two looks at the clock.
const BATCH: u64 = 10;
/// Requests at once, over so many connections.
const CALLERS: usize = 64;
const CONNECTIONS: usize = 4;
/// Of each caller, between two looks at the clock.
const ROUND: usize = 4;

/// A root, and who has a certificate of it.
struct Realm(Authority);

type Own = (Vec<Certificate>, SigningKey);

impl Realm {
    fn new() -> Self {
        Self(Authority::create(CLUSTER, key(), &serial(), date()).expect("a root"))
    }

    fn issue(&self, node: NodeId, role: Role) -> Own {
        let (key, identity) = (key(), Identity { node, role, cluster: CLUSTER });
        let grant = Grant { identity, life: Life::default(), serial: serial() };
        let request = SigningRequest::create(&key).expect("a request");
        (vec![self.0.issue(&request, &grant, date()).expect("a certificate")], key)
    }

    fn credentials(&self, (chain, key): &Own) -> Credentials {
        let trust = Trust::new([self.0.certificate().clone()]).expect("a root");
        Credentials::new(chain.clone(), key, trust).expect("credentials")
    }
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::EcdsaP256).expect("the system has chance")
}

fn serial() -> Serial {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Serial::generate(|bytes| bytes[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()))
}

fn manager(store: Arc<dyn Store>) -> Arc<Manager> {
    Arc::new(Manager::new(store, &Prefix::ALL, MANAGER, [7; 32]).expect("an empty root is short enough"))
}

fn serve(control: Arc<Manager>, own: Credentials) -> (Serving, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let many = NodeLimits { connections_of_node: 1 << 12, handshakes_of_address: 64, ..NodeLimits::default() };
    let server = ControlServer::new(control).with_limits(Limits { in_flight: CALLERS, ..Limits::default() });
    let serving = server.listen(listener, own, many).expect("it is a manager");
    let address = serving.address().expect("it listens");
    (serving, address)
}

/// On one core.
pub(crate) fn handshake(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants("crypto/handshake") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let realm = Realm::new();
    let (manager_own, worker_own) = (realm.issue(MANAGER, Role::Manager), realm.issue(WORKER, Role::Worker));
    let (_serving, address) = {
        let _entered = runtime.enter();
        serve(manager(Arc::new(MemoryStore::default())), realm.credentials(&manager_own))
    };
    let managers = Managers::new([address], &realm.credentials(&worker_own)).expect("credentials");
    let (acceptor, connector) = bare(&realm, &manager_own, &worker_own);
    let plain = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let plain_address = plain.local_addr()?;
    runtime.spawn(answer(plain, acceptor));
    bench
        .figure("crypto/handshake", "per s")
        .rate(|| {
            for _ in 0..BATCH {
                let client = ControlClient::of_managers(managers.clone());
                runtime.block_on(client.connect()).expect("it is welcome");
            }
            BATCH
        })
        .yardstick_rate("rustls alone", || {
            for _ in 0..BATCH {
                runtime.block_on(ask(plain_address, &connector)).expect("it answers");
            }
            BATCH
        })
        .report()
}

fn bare(realm: &Realm, manager: &Own, worker: &Own) -> (TlsAcceptor, TlsConnector) {
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(realm.0.certificate().as_der().to_vec())).expect("a root");
    let roots = Arc::new(roots);
    let chain = |own: &Own| own.0.iter().map(|it| CertificateDer::from(it.as_der().to_vec())).collect::<Vec<_>>();
    let key = |own: &Own| PrivatePkcs8KeyDer::from(own.1.to_pkcs8().to_vec()).into();
    let nodes = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build().expect("a verifier");
    let versions: &[_] = &[&rustls::version::TLS13];
    let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).expect("TLS 1.3");
    let server = server.with_client_cert_verifier(nodes).with_single_cert(chain(manager), key(manager));
    let mut server = server.expect("credentials");
    server.send_tls13_tickets = 0;
    let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).expect("TLS 1.3");
    let client = client.with_root_certificates(roots).with_client_auth_cert(chain(worker), key(worker));
    let mut client = client.expect("credentials");
    client.resumption = rustls::client::Resumption::disabled();
    (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)))
}

async fn answer(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            drop(stream.set_nodelay(true));
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if let Ok(byte) = stream.read_u8().await {
                drop(stream.write_u8(byte).await);
                drop(stream.flush().await);
            }
        });
    }
}

async fn ask(address: SocketAddr, connector: &TlsConnector) -> io::Result<u8> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("swarm-manager").map_err(io::Error::other)?;
    let mut stream = connector.connect(name, stream).await?;
    stream.write_u8(7).await?;
    stream.flush().await?;
    stream.read_u8().await
}

/// On all cores, as managers run.
pub(crate) fn requests(bench: &mut Bench<'_>) -> io::Result<()> {
    if bench.wants("node/control-requests") {
        // Beside the build, not in a temporary folder: that may be memory.
        let folder = std::env::current_exe()?.with_file_name(format!("overlay-bench-control-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let store = RedbStore::open(folder.join("store")).map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let reported = requests_on(Arc::new(store), "node/control-requests", &runtime, bench);
        drop(runtime);
        std::fs::remove_dir_all(&folder)?;
        reported?;
    }
    #[cfg(feature = "etcd")]
    requests_on_etcd(bench)?;
    Ok(())
}

#[cfg(feature = "etcd")]
fn requests_on_etcd(bench: &mut Bench<'_>) -> io::Result<()> {
    use overlay_store::testing::EtcdServer;
    use overlay_store::{EtcdConfig, EtcdSecurity, EtcdStore};

    const NAME: &str = "node/control-requests-etcd";
    if !bench.wants(NAME) {
        return Ok(());
    }
    let Some(server) = EtcdServer::start(NAME) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (root, security) = (Prefix::new("bench/").expect("it is short"), EtcdSecurity::PlaintextOnLoopback);
    let store = EtcdStore::open(EtcdConfig::new([server.endpoint()], root, security));
    let store = runtime.block_on(store).map_err(io::Error::other)?;
    requests_on(Arc::new(store), NAME, &runtime, bench)
}

fn requests_on(store: Arc<dyn Store>, name: &'static str, runtime: &Runtime, bench: &mut Bench<'_>) -> io::Result<()> {
    let manager = manager(store);
    runtime.block_on(found(&*manager)).map_err(io::Error::other)?;
    let realm = Realm::new();
    let (_serving, address) = {
        let _entered = runtime.enter();
        serve(Arc::clone(&manager), realm.credentials(&realm.issue(MANAGER, Role::Manager)))
    };
    let worker = realm.credentials(&realm.issue(WORKER, Role::Worker));
    let managers = Managers::new([address], &worker).expect("credentials");
    let clients = (0..CONNECTIONS).map(|_| ControlClient::of_managers(managers.clone()));
    let clients: Vec<Arc<dyn Control>> = clients.map(|client| Arc::new(client) as Arc<dyn Control>).collect();
    let direct: Vec<Arc<dyn Control>> = vec![manager];
    bench
        .figure(name, "per s")
        .rate(|| come_and_go(runtime, &clients))
        .yardstick_rate("by the manager itself", || come_and_go(runtime, &direct))
        .report()
}

async fn found(manager: &dyn Control) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let spec = NodeSpec { name: "worker".parse()?, role: overlay_gossip::Role::Worker };
    manager.add_node(WORKER, spec, date()).await?;
    let subnet = overlay_ipam::SubnetRequest::this("10.0.0.0/12".parse()?);
    let front = NetworkSpec { attachable: true, subnets: vec![subnet], ..NetworkSpec::overlay("front".parse()?) };
    manager.create_network(NETWORK, front, date()).await?;
    Ok(())
}

/// Every caller attaches a container of its own and detaches it, some times.
fn come_and_go(runtime: &Runtime, controls: &[Arc<dyn Control>]) -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let control = Arc::clone(&controls[caller % controls.len()]);
            runtime.spawn(async move {
                for _ in 0..ROUND {
                    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                    let mut id = [9; 16];
                    id[8..].copy_from_slice(&number.to_be_bytes());
                    let name = format!("c{number}").parse().expect("a name");
                    let spec = EndpointSpec::new(NETWORK, name, WORKER);
                    control.attach(EndpointId::from_bytes(id), spec, date()).await.expect("it is attached");
                    let gone = control.detach(EndpointId::from_bytes(id), date()).await;
                    gone.expect("it is detached").expect("it was there");
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| runtime.block_on(caller).expect("it ends"));
    (CALLERS * ROUND) as u64
}
