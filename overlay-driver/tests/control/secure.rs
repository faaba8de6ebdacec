//! The same control between nodes, over mutual TLS: who is let in, to what, and who is told why not.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test_judged_by};
use overlay_core::{ClusterId, MemoryStore, NodeId, UnixTime};
use overlay_crypto::pki::{
    Algorithm, Authority, Certificate, Grant, Identity, Life, Refusals, Role, Serial, SigningKey, SigningRequest,
    Trust, VerifyError,
};
use overlay_driver::control::{
    AskError, ControlClient, ControlServer, Credentials, CredentialsError, Follow, Limits, ListenError, Managers,
    NodeLimits, RemoteError, Serving, Unwelcome,
};
use overlay_driver::testing::credulous;
use overlay_gossip::Role as GossipRole;
use overlay_node::{Control, ControlError, EndpointSpec, Manager, NodeSpec, Reference, Refused, Stay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::crude::{exchange, speak};
use crate::kit::{Directory, Lever, NOW, Pull, endpoint, manager, network, node, node_spec, overlay, root, until};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
const MANAGER: NodeId = NodeId::from_bytes([0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

/// A date that tests move on.
#[derive(Debug, Clone)]
pub(crate) struct Date(Arc<AtomicU64>);

impl Date {
    pub(crate) fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }
}

/// A cluster's root, and who has certificates of it.
pub(crate) struct Realm {
    root: Authority,
    cluster: ClusterId,
    pub(crate) date: Date,
}

fn serial() -> Serial {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Serial::generate(|bytes| bytes[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()))
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::EcdsaP256).unwrap()
}

impl Realm {
    pub(crate) fn new(number: u8) -> Self {
        let (cluster, date) = (ClusterId::from_bytes([number; 16]), Date(Arc::new(AtomicU64::new(NOW.as_millis()))));
        Self { root: Authority::create(cluster, key(), &serial(), NOW).unwrap(), cluster, date }
    }

    fn trust(&self) -> Trust {
        Trust::new([self.root.certificate().clone()]).unwrap()
    }

    /// A certificate for that long, its key, and the root's.
    pub(crate) fn issue(&self, node: NodeId, role: Role, life: Duration) -> (Vec<Certificate>, SigningKey) {
        let key = key();
        let identity = Identity { node, role, cluster: self.cluster };
        let grant = Grant { identity, life: Life::new(life).unwrap(), serial: serial() };
        let own = self.root.issue(&SigningRequest::create(&key).unwrap(), &grant, self.date.now()).unwrap();
        (vec![own, self.root.certificate().clone()], key)
    }

    pub(crate) fn credentials(&self, node: NodeId, role: Role) -> Credentials {
        let (chain, key) = self.issue(node, role, 90 * DAY);
        let date = self.date.clone();
        Credentials::with_clock(chain, &key, self.trust(), move || date.now()).unwrap()
    }
}

/// A manager that serves nodes.
pub(crate) struct Town {
    pub(crate) realm: Realm,
    pub(crate) store: MemoryStore,
    pub(crate) lever: Arc<Lever>,
    pub(crate) own: Credentials,
    serving: Option<Serving>,
    pub(crate) address: SocketAddr,
}

impl Town {
    pub(crate) fn new() -> Self {
        Self::bearing(Limits::default(), NodeLimits::default())
    }

    pub(crate) fn bearing(limits: Limits, nodes: NodeLimits) -> Self {
        let (realm, store, lever) = (Realm::new(5), MemoryStore::default(), Arc::<Lever>::default());
        let own = realm.credentials(MANAGER, Role::Manager);
        let address = "127.0.0.1:0".parse().unwrap();
        let mut town = Self { realm, store, lever, own, serving: None, address };
        town.serve(limits, nodes);
        town
    }

    /// The manager dies, and another serves where it did.
    pub(crate) async fn again(&mut self, limits: Limits) {
        self.serving = None;
        until(|| TcpListener::bind(self.address).is_ok()).await;
        self.serve(limits, NodeLimits::default());
    }

    fn serve(&mut self, limits: Limits, nodes: NodeLimits) {
        let server = ControlServer::new(Arc::new(self.manager())).with_clock(|| NOW).with_limits(limits);
        let server = server.with_local(self.lever.clone()).with_feed(Arc::new(self.store.clone()), &root()).unwrap();
        let listener = TcpListener::bind(self.address).unwrap();
        let serving = server.listen(listener, self.own.clone(), nodes).unwrap();
        self.address = serving.address().unwrap();
        self.serving = Some(serving);
    }

    pub(crate) fn manager(&self) -> Manager {
        manager(Arc::new(self.store.clone()))
    }

    fn client_of(&self, credentials: &Credentials) -> ControlClient {
        ControlClient::of_managers(Managers::new([self.address], credentials).unwrap())
    }

    pub(crate) fn client(&self, number: u8, role: Role) -> ControlClient {
        self.client_of(&self.realm.credentials(node(number), role))
    }
}

fn remote(error: &ControlError) -> &RemoteError {
    match error {
        ControlError::Unreachable(source) | ControlError::InDoubt(source) => source.downcast_ref().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_manager_may_do_all_and_a_worker_reads_and_follows() {
    let town = Town::new();
    let (peer, worker) = (town.client(1, Role::Manager), town.client(2, Role::Worker));
    let front = peer.create_network(network(1), overlay("front"), NOW).await.unwrap();
    assert_eq!(worker.network(&"front".into()).await.unwrap().id, front.id);
    let told = peer.follow().next().await.unwrap();
    assert!(matches!(&told[..], [overlay_node::CatalogueChange::Network(it)] if **it == front));
    peer.add_node(node(3), node_spec("three"), NOW).await.unwrap();
    assert_eq!(worker.nodes().await.unwrap().len(), 1);
    let told = worker.follow().next().await.unwrap(); // it has no part in that network
    assert!(matches!(&told[..], [overlay_node::CatalogueChange::Node(it)] if it.id == node(3)));
    peer.remove_network(&"front".into(), NOW).await.unwrap();
}

#[tokio::test]
async fn a_worker_acts_for_itself_and_is_refused_by_name_where_it_acts_for_another() {
    let town = Town::new();
    let (one, two) = (town.client(1, Role::Worker), town.client(2, Role::Worker));
    town.manager().create_network(network(1), overlay("front"), NOW).await.unwrap();
    one.add_node(node(1), node_spec("one"), NOW).await.unwrap();
    two.add_node(node(2), node_spec("two"), NOW).await.unwrap();
    let spec = EndpointSpec::new(network(1), "web".parse().unwrap(), node(1));
    let web = one.attach(endpoint(1), spec.clone(), NOW).await.unwrap();
    one.report(web.id, web.stay(), Ok(())).await.unwrap();

    let refused = |error: ControlError, call: &str, whom: &str| {
        let expected = Refused::NotItself { call: call.to_owned(), node: node(2), whom: whom.to_owned() };
        assert_eq!(error.refusal(), Some(&expected), "{error:?}");
    };
    let whom = format!("node {}", node(1));
    refused(two.attach(endpoint(2), spec, NOW).await.unwrap_err(), "attach a container", &whom);
    refused(two.detach(web.id, NOW).await.unwrap_err(), "detach an endpoint", &whom);
    let lie = two.report(web.id, Stay { node: node(1), moves: 0 }, Err("gone".to_owned())).await;
    refused(lie.unwrap_err(), "report on an endpoint", &whom);
    refused(two.add_node(node(1), node_spec("three"), NOW).await.unwrap_err(), "add a node", &whom);
    let risen = NodeSpec { role: GossipRole::Manager, ..node_spec("two") };
    refused(two.add_node(node(2), risen, NOW).await.unwrap_err(), "add a node", "a manager");
    refused(two.remove_node(&node(1).into(), NOW).await.unwrap_err(), "remove a node", &whom);
    refused(two.remove_node(&"two".into(), NOW).await.unwrap_err(), "remove a node", "node two");

    assert_eq!(town.manager().endpoint(web.id).await.unwrap().unwrap().spec.node, node(1), "nothing was changed");
    one.detach(web.id, NOW).await.unwrap().unwrap();
    two.remove_node(&node(2).into(), NOW).await.unwrap();
}

#[tokio::test]
async fn a_worker_is_refused_by_name_what_managers_do() {
    let town = Town::new();
    let worker = town.client(2, Role::Worker);
    let front = Reference::from("front");
    let spec = overlay_node::ServiceSpec::new("web".parse().unwrap(), [network(1)]);
    let refusals = [
        (worker.create_network(network(1), overlay("front"), NOW).await.unwrap_err(), "create a network"),
        (worker.change_network(&front, overlay("front"), NOW).await.unwrap_err(), "change a network"),
        (worker.remove_network(&front, NOW).await.unwrap_err(), "remove a network"),
        (worker.create_service(crate::kit::service(1), spec, NOW).await.unwrap_err(), "create a service"),
        (worker.remove_service(&front, NOW).await.unwrap_err(), "remove a service"),
        (worker.relocate(endpoint(1), node(2), NOW).await.unwrap_err(), "move an endpoint"),
    ];
    for (error, call) in refusals {
        assert_eq!(error.refusal(), Some(&Refused::OnlyManagers { call: call.to_owned(), node: node(2) }), "{error:?}");
    }
    let watched = worker.watch("web").next().await.unwrap_err();
    assert!(matches!(&watched, RemoteError::OnlyManagers { what } if what == "watch a service"), "{watched:?}");
}

#[tokio::test]
async fn what_a_node_is_asked_itself_is_asked_on_its_machine_alone() {
    let town = Town::new();
    for role in Role::ALL {
        let asked = town.client(1, role).ask(&Pull::Who).await.unwrap_err();
        assert!(!matches!(asked, AskError::Refused(_)), "{asked:?}");
    }
    assert_eq!(town.lever.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_certificate_of_another_cluster_an_expired_one_and_a_removed_nodes_are_refused_by_name() {
    let town = Town::new();
    let foreign = town.as_anybody(Some(Realm::new(6).issue(node(1), Role::Manager, DAY))).await;
    assert_eq!(foreign, Err(Some(rustls::AlertDescription::UnknownCA)));

    let expires = town.realm.issue(node(1), Role::Worker, DAY);
    let removed = town.realm.credentials(node(2), Role::Worker);
    let client = town.client_of(&removed);
    client.nodes().await.unwrap();
    let mut refusals = Refusals::default();
    refusals.refuse(node(2), town.realm.date.now() + 90 * DAY);
    town.own.believe(town.realm.trust(), refusals);
    // The connection that stands ends, and the next is refused in the handshake.
    let error = client.nodes().await.unwrap_err();
    assert!(matches!(remote(&error), RemoteError::Unwelcome(_)), "{error:?}");
    let error = client.nodes().await.unwrap_err();
    assert!(matches!(remote(&error), RemoteError::Unwelcome(Unwelcome::Removed)), "{error:?}");

    town.realm.date.pass(2 * DAY);
    let expired = town.as_anybody(Some(expires)).await;
    assert_eq!(expired, Err(Some(rustls::AlertDescription::CertificateExpired)));
}

#[tokio::test]
async fn a_connection_whose_certificate_expires_ends_and_the_next_has_the_new_one() {
    let town = Town::new();
    let (chain, key) = town.realm.issue(node(1), Role::Worker, DAY);
    let date = town.realm.date.clone();
    let credentials = Credentials::with_clock(chain, &key, town.realm.trust(), move || date.now()).unwrap();
    let client = town.client_of(&credentials);
    client.nodes().await.unwrap();
    town.realm.date.pass(2 * DAY);
    let error = client.nodes().await.unwrap_err();
    assert!(matches!(remote(&error), RemoteError::Unwelcome(_)), "{error:?}");
    let error = client.nodes().await.unwrap_err();
    assert!(matches!(remote(&error), RemoteError::Unwelcome(Unwelcome::Expired)), "{error:?}");

    let (chain, key) = town.realm.issue(node(1), Role::Worker, DAY);
    credentials.renew(chain, &key).unwrap();
    client.nodes().await.unwrap();
}

#[tokio::test]
async fn a_session_outlives_the_renewal_of_both_certificates() {
    let town = Town::new();
    let credentials = town.realm.credentials(node(1), Role::Worker);
    let client = town.client_of(&credentials);
    client.nodes().await.unwrap();
    let mut feed = client.follow();
    let (chain, key) = town.realm.issue(node(1), Role::Worker, DAY);
    credentials.renew(chain, &key).unwrap();
    let (chain, key) = town.realm.issue(MANAGER, Role::Manager, DAY);
    town.own.renew(chain, &key).unwrap();
    town.manager().create_network(network(1), overlay("front"), NOW).await.unwrap();
    town.manager().add_node(node(3), node_spec("three"), NOW).await.unwrap();
    assert_eq!(client.nodes().await.unwrap().len(), 1);
    assert_eq!(feed.next().await.unwrap().len(), 1);
    // And whoever comes anew sees the new one.
    town.client(2, Role::Worker).nodes().await.unwrap();
}

#[tokio::test]
async fn a_client_tells_nothing_to_who_is_no_manager_of_its_cluster() {
    let town = Town::new();
    let stranger = Realm::new(6).credentials(node(1), Role::Worker);
    let error = town.client_of(&stranger).nodes().await.unwrap_err();
    assert!(matches!(remote(&error), RemoteError::Untrusted(VerifyError::Foreign { .. })), "{error:?}");
    // A worker that serves is not believed; ours does not even try.
    let worker = town.realm.credentials(node(1), Role::Worker);
    let server = ControlServer::new(Arc::new(town.manager()));
    let refused = server.listen(TcpListener::bind("127.0.0.1:0").unwrap(), worker, NodeLimits::default());
    assert!(matches!(refused, Err(ListenError::Worker(_))));
}

#[tokio::test]
async fn credentials_that_nobody_would_believe_are_not_taken() {
    let (realm, other) = (Realm::new(5), Realm::new(6));
    let (chain, own_key) = realm.issue(node(1), Role::Worker, DAY);
    let date = realm.date.clone();
    let with = |chain: &[Certificate], key: &SigningKey, trust| {
        let date = date.clone();
        Credentials::with_clock(chain.to_vec(), key, trust, move || date.now())
    };
    assert!(matches!(with(&chain, &key(), realm.trust()), Err(CredentialsError::OtherKey { .. })));
    assert!(matches!(with(&chain, &own_key, other.trust()), Err(CredentialsError::Untrusted(_))));
    assert!(matches!(with(&[], &own_key, realm.trust()), Err(CredentialsError::Untrusted(VerifyError::Missing))));
    let own = with(&chain, &own_key, realm.trust()).unwrap();
    let (chain, key) = realm.issue(node(2), Role::Worker, DAY);
    assert!(matches!(own.renew(chain, &key), Err(CredentialsError::Other { .. })));
    assert_eq!(own.identity().node, node(1));
}

#[tokio::test]
async fn a_node_with_too_many_connections_is_told_so_and_others_are_served() {
    let town = Town::bearing(Limits::default(), NodeLimits { connections_of_node: 2, ..NodeLimits::default() });
    let credentials = town.realm.credentials(node(1), Role::Worker);
    let held = [town.client_of(&credentials), town.client_of(&credentials)];
    for client in &held {
        client.nodes().await.unwrap();
    }
    let error = town.client_of(&credentials).nodes().await.unwrap_err();
    assert!(matches!(remote(&error), RemoteError::NodeBusy { limit: 2 }), "{error:?}");
    town.client(2, Role::Worker).nodes().await.unwrap();
}

#[tokio::test]
async fn handshakes_that_nobody_ends_are_ended_and_keep_others_out_no_longer() {
    let short = NodeLimits { handshakes: 2, handshake: Duration::from_millis(200), ..NodeLimits::default() };
    let town = Town::bearing(Limits::default(), short);
    let mut stalled = Vec::new();
    for _ in 0..6 {
        stalled.push(TcpStream::connect(town.address).await.unwrap());
    }
    town.client(1, Role::Worker).nodes().await.unwrap();
    for mut stream in stalled {
        let mut told = Vec::new();
        drop(stream.read_to_end(&mut told).await); // it ends
        assert_eq!(told, Vec::<u8>::new());
    }
}

#[tokio::test]
async fn another_manager_is_called_where_one_is_gone() {
    let (mut first, second) = (Town::new(), Town::new());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let credentials = first.realm.credentials(node(1), Role::Worker);
    let managers = Managers::new([gone, first.address], &credentials).unwrap();
    let client = ControlClient::of_managers(managers.clone());
    client.nodes().await.unwrap();
    assert_eq!(managers.addresses(), [first.address, gone], "who answers is called first from then on");
    managers.learn([second.address, first.address]);
    assert_eq!(managers.addresses(), [first.address, second.address]);
    managers.learn([]);
    first.serving.take().unwrap().stop().await;
    let error = client.nodes().await.unwrap_err();
    assert!(
        matches!(remote(&error), RemoteError::Untrusted(VerifyError::Foreign { .. })),
        "the second has a root of its own, and is no manager here: {error:?}"
    );
}

#[tokio::test]
async fn hostile_bytes_in_and_after_a_handshake_end_their_connection_alone() {
    let town = Town::new();
    let client = town.client(1, Role::Worker);
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0xff, 0xff, 1, 0, 0], &[0x80; 4096], &[0; 70_000]]
    {
        let mut stream = TcpStream::connect(town.address).await.unwrap();
        drop(stream.write_all(bytes).await);
        drop(stream.shutdown().await);
        drop(stream.read_to_end(&mut Vec::new()).await);
        client.nodes().await.unwrap();
    }
    let hello = b"{\"hello\":{\"version\":1,\"purpose\":\"call\"}}\n".to_vec();
    for lines in [&b"\n"[..], b"{}\n", b"{\"id\":1,\"call\":{\"fly\":{}}}\n", &[b'['; 2000], &[0xff; 100]] {
        let own = town.realm.issue(node(2), Role::Worker, DAY);
        drop(town.exchange(Some(own), &[&hello[..], lines].concat()).await);
        client.nodes().await.unwrap();
    }
}

#[test]
fn openssl_finds_nothing_but_tls_1_3_and_no_way_in_without_a_certificate() {
    kernel_test_judged_by(&["openssl"], Kernel::Host, "driver::openssl_finds_nothing_but_tls_1_3", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let town = runtime.block_on(async { Town::new() });
        let address = town.address.to_string();
        let s_client = |more: &[&str], said: &str| {
            let mut judge = Command::new("openssl");
            judge.args(["s_client", "-connect", &address, "-quiet", "-no_ign_eof", "-servername", "x"]).args(more);
            let mut judge = judge.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            use std::io::Write as _;
            let mut input = judge.stdin.take().unwrap();
            drop(input.write_all(said.as_bytes()));
            let told = std::thread::scope(|_| {
                // Its input stays open, so it waits for what is answered.
                let output = judge.wait_with_output().unwrap();
                drop(input);
                output
            });
            String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr)
        };
        let old = s_client(&["-tls1_2", "-alpn", "overlay-control/1"], "");
        assert!(old.contains("alert protocol version"), "{old}");
        let bare = s_client(&["-tls1_3", "-alpn", "overlay-control/1"], "");
        assert!(bare.contains("certificate required"), "{bare}");
        let other = s_client(&["-tls1_3", "-alpn", "h2"], "");
        assert!(other.contains("no application protocol"), "{other}");

        let directory = Directory::new();
        let (chain, key) = town.realm.issue(node(1), Role::Worker, DAY);
        let (cert_file, key_file) = (directory.join("cert.pem"), directory.join("key.der"));
        std::fs::write(&cert_file, chain[0].to_pem()).unwrap();
        std::fs::write(&key_file, &*key.to_pkcs8()).unwrap();
        let own = ["-cert", cert_file.to_str().unwrap(), "-key", key_file.to_str().unwrap(), "-keyform", "DER"];
        let hello = "{\"hello\":{\"version\":1,\"purpose\":\"call\"}}\n";
        let without = s_client(&[&["-tls1_3"][..], &own].concat(), hello);
        assert!(without.contains("{\"refused\":{\"protocol\":{}}}"), "{without}");
        drop(runtime);
    });
}

impl Town {
    /// Says hello with this certificate, or none; what is answered, or the alert that ended it.
    async fn as_anybody(
        &self,
        own: Option<(Vec<Certificate>, SigningKey)>,
    ) -> Result<Vec<u8>, Option<rustls::AlertDescription>> {
        self.exchange(own, b"{\"hello\":{\"version\":1,\"purpose\":\"call\"}}\n").await
    }

    async fn exchange(
        &self,
        own: Option<(Vec<Certificate>, SigningKey)>,
        bytes: &[u8],
    ) -> Result<Vec<u8>, Option<rustls::AlertDescription>> {
        exchange(self.address, own.as_ref().map(|(chain, key)| (&chain[..], key)), bytes).await
    }
}

/// Whoever answers before TLS has begun, or says in an alert that a node was removed, ends no membership: it has not proved to be a manager.
#[tokio::test]
async fn an_alert_of_who_has_proved_nothing_is_no_managers_word() {
    let realm = Realm::new(5);
    let own = realm.credentials(node(1), Role::Worker);
    // TLS 1.3, a fatal alert: certificate_revoked (44), certificate_expired (45) (RFC 8446 §6).
    for alert in [44, 45] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(&[21, 3, 3, 0, 2, 2, alert]).await.unwrap();
        });
        let client = ControlClient::of_managers(Managers::new([address], &own).unwrap());
        let error = client.nodes().await.unwrap_err();
        assert!(
            matches!(remote(&error), RemoteError::Unwelcome(Unwelcome::Other(why)) if why.contains("has not proved")),
            "{error:?}"
        );
        answers.await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_speaks_no_protocol_has_no_more_connections_than_a_stranger() {
    let town = Town::bearing(Limits::default(), NodeLimits { strangers_of_address: 2, ..NodeLimits::default() });
    let (chain, key) = town.realm.issue(node(1), Role::Worker, DAY);
    let hello = b"{\"hello\":{\"version\":1,\"purpose\":\"call\"}}\n";
    let refused = async || speak(town.address, Some((&chain, &key)), b"", hello).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        idle.push(credulous(town.address, Some((&chain, &key)), b"").await.unwrap());
    }
    until_silent(&refused).await;
    idle.clear();
    loop {
        match refused().await {
            Ok(told) if !told.is_empty() => break assert!(told.starts_with(b"{\"refused\":{\"protocol\"")),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Waits until nothing is answered: both that are idle have their places by then.
async fn until_silent(ask: &impl AsyncFn() -> Result<Vec<u8>, Option<rustls::AlertDescription>>) {
    for _ in 0..200 {
        if !ask().await.is_ok_and(|told| !told.is_empty()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is answered however many there are");
}

#[tokio::test]
async fn who_shows_no_certificate_is_let_in_to_nothing() {
    let town = Town::new();
    assert_eq!(town.as_anybody(None).await, Err(Some(rustls::AlertDescription::CertificateRequired)));
}
#[tokio::test]
async fn a_server_that_stops_lets_nodes_have_their_answers_first() {
    let mut town = Town::new();
    let client = town.client(1, Role::Manager);
    client.nodes().await.unwrap();
    let mut feed = client.follow();
    town.manager().create_network(network(1), overlay("front"), NOW).await.unwrap();
    feed.next().await.unwrap();
    town.serving.take().unwrap().stop().await;
    let error = client.nodes().await.unwrap_err();
    assert!(matches!(error, ControlError::Unreachable(_)), "{error:?}");
    until(|| TcpListener::bind(town.address).is_ok()).await;
}
