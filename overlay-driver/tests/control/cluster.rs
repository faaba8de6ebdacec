//! A cluster that forms itself: founded, joined by tokens, kept up while it runs.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overlay_core::{ClusterId, MemoryStore, NodeId, Prefix, Seat, Store, UnixTime};
use overlay_crypto::gossip::GossipKey;
use overlay_crypto::pki::{
    AuthorityConfig, CertificateAuthority, Invitation, Issued, JoinToken, Life, NextRoot, Proof, Renewing, Role,
    SealingKey, SigningKey, SigningRequest, StoreAuthority, Trust, VerifyError,
};
use overlay_driver::control::{
    Cluster, ClusterError, ControlClient, ControlServer, Credentials, Follow, JoinError, Joined, Limits, Managers,
    NodeLimits, RefusalKind, RemoteError, Ring, Serving, Unwelcome, found, join, reissue,
};
use overlay_driver::testing::date;
use overlay_driver::{
    Driver, Keep, Leading, Membership, MembershipConfig, MembershipEvent, MembershipParts, MemoryGround,
};
use overlay_node::{Control, ControlError, EndpointSpec, Feed};
use tokio::sync::broadcast;

use crate::kit::{endpoint, manager, network, node, node_spec, overlay, root};

fn random(bytes: &mut [u8]) {
    use std::io::Read as _;
    std::fs::File::open("/dev/urandom").unwrap().read_exact(bytes).unwrap();
}

/// Keeps in memory, and counts.
#[derive(Default)]
pub(crate) struct Kept {
    count: AtomicUsize,
    fails: Mutex<bool>,
}

impl Keep for Kept {
    fn keep(&self, _: &Issued, _: &SigningKey) -> io::Result<()> {
        if *self.fails.lock().unwrap() {
            return Err(io::Error::other("the disk is full"));
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

pub(crate) fn quick() -> MembershipConfig {
    let rest_first = Duration::from_millis(20);
    MembershipConfig {
        beat: Duration::from_millis(50),
        rest_first,
        rest_most: Duration::from_millis(200),
        renewal: overlay_crypto::pki::RenewalConfig { rest_first, ..Default::default() },
    }
}

/// A manager at work.
pub(crate) struct Desk {
    pub(crate) authority: Arc<StoreAuthority>,
    pub(crate) cluster: Cluster,
    leading: Option<Leading>,
    serving: Option<Serving>,
    pub(crate) address: SocketAddr,
    pub(crate) membership: Membership,
    _heeds: tokio::task::JoinHandle<()>,
}

/// A cluster over a store in memory.
pub(crate) struct Town {
    pub(crate) store: Arc<dyn Store>,
    id: ClusterId,
    sealing: SealingKey,
    pub(crate) first: Desk,
}

pub(crate) const FIRST: NodeId = NodeId::from_bytes([0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

fn authority(store: &Arc<dyn Store>, id: ClusterId, sealing: &SealingKey) -> Arc<StoreAuthority> {
    let mut seed = [0; 32];
    random(&mut seed);
    let authority = StoreAuthority::new(Arc::clone(store), &Prefix::new("ca/").unwrap(), id, seed).unwrap();
    authority.hold(sealing.clone());
    Arc::new(authority)
}

fn seat(node: NodeId) -> Seat {
    Seat::new(&Prefix::new("lead/").unwrap(), node).unwrap()
}

/// Serves as a manager that has joined, or founded.
fn open(store: &Arc<dyn Store>, authority: Arc<StoreAuthority>, leading: Leading, mut joined: Joined) -> Desk {
    let cluster = Cluster::new(authority.clone() as Arc<dyn CertificateAuthority>, joined.credentials.clone());
    let server = ControlServer::new(Arc::new(manager(Arc::clone(store)))).with_cluster(cluster.clone());
    let server = server.with_feed(Arc::clone(store), &root()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let serving = server.listen(listener, joined.credentials.clone(), NodeLimits::default()).unwrap();
    let address = serving.address().unwrap();
    joined.managers.push(address);
    let membership = Membership::begin(Membership::parts_of(joined).unwrap(), Arc::<Kept>::default(), quick()).unwrap();
    let heeds = Leading::heed(cluster.clone(), Duration::from_millis(50));
    let (leading, serving) = (Some(leading), Some(serving));
    Desk { authority, cluster, leading, serving, address, membership, _heeds: heeds }
}

impl Town {
    pub(crate) async fn new() -> Self {
        let (store, id): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::default()), ClusterId::generate(random));
        let sealing = SealingKey::generate(random);
        let authority = authority(&store, id, &sealing);
        let leading = Leading::begin(Arc::clone(&store), seat(FIRST), Arc::clone(&authority)).await;
        assert!(leading.leads());
        authority.found(&NextRoot::Generate(Default::default()), date()).await.unwrap();
        let joined = found(&*authority, FIRST).await.unwrap();
        let first = open(&store, authority, leading, joined);
        first.cluster.set_managers([first.address]);
        first.cluster.set_ring(Ring { revision: 1, keys: vec![GossipKey::from_bytes([7; 32])] });
        Self { store, id, sealing, first }
    }

    pub(crate) async fn token(&self, role: Role) -> JoinToken {
        self.first.authority.token(role).await.unwrap()
    }

    pub(crate) async fn join(&self, number: u8, role: Role) -> Joined {
        join([self.first.address], &self.token(role).await, Some(node(number)), None).await.unwrap()
    }

    async fn member(&self, number: u8, role: Role) -> (Membership, Arc<Kept>) {
        let kept = Arc::<Kept>::default();
        let parts = Membership::parts_of(self.join(number, role).await).unwrap();
        (Membership::begin(parts, kept.clone(), quick()).unwrap(), kept)
    }

    /// As the first manager asks.
    pub(crate) fn client(&self) -> ControlClient {
        self.first.membership.client().clone()
    }
}

/// A clock that tests put forward.
#[derive(Debug, Clone, Default)]
struct Ahead(Arc<AtomicU64>);

impl Ahead {
    fn now(&self) -> UnixTime {
        date() + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn credentials(&self, joined: &Joined) -> Credentials {
        let (clock, trust) = (self.clone(), Trust::new(joined.issued.roots.clone()).unwrap());
        Credentials::with_clock(joined.issued.chain.clone(), &joined.key, trust, move || clock.now()).unwrap()
    }
}

#[tokio::test]
async fn a_node_whose_certificate_is_over_is_rescued_by_its_key_as_long_as_it_is_a_member() {
    let (store, id, sealing) =
        (Arc::new(MemoryStore::default()) as Arc<dyn Store>, ClusterId::generate(random), SealingKey::generate(random));
    let config = AuthorityConfig { life: Life::new(Duration::from_secs(7200)).unwrap(), ..Default::default() };
    let authority = StoreAuthority::new(Arc::clone(&store), &Prefix::new("ca/").unwrap(), id, [7; 32]).unwrap();
    let authority = Arc::new(authority.with_config(config));
    authority.hold(sealing);
    let _leading = Leading::begin(Arc::clone(&store), seat(FIRST), Arc::clone(&authority)).await;
    authority.found(&NextRoot::Generate(Default::default()), date()).await.unwrap();
    let (ahead, first) = (Ahead::default(), found(&*authority, FIRST).await.unwrap());
    let own = ahead.credentials(&first);
    let cluster = Cluster::new(authority.clone() as Arc<dyn CertificateAuthority>, own.clone());
    let clock = ahead.clone();
    let server = ControlServer::new(Arc::new(manager(Arc::clone(&store)))).with_cluster(cluster.clone());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let serving = server.with_clock(move || clock.now()).listen(listener, own.clone(), NodeLimits::default()).unwrap();
    let address = serving.address().unwrap();
    let token = authority.token(Role::Worker).await.unwrap();
    let mut joined = Vec::new();
    for number in [1, 2] {
        joined.push(join([address], &token, Some(node(number)), None).await.unwrap());
    }
    authority.remove(node(2), date()).await.unwrap();

    // All are off for a day. The manager has itself issued another certificate; so nodes that come back believe it.
    ahead.0.store(24 * 3600, Ordering::SeqCst);
    let (issued, key) = reissue_at(&*authority, &first, ahead.now()).await;
    own.renew(issued.chain, &key).unwrap();
    for (joined, number) in joined.into_iter().zip([1, 2]) {
        let credentials = ahead.credentials(&joined);
        let managers = Managers::new([address], &credentials).unwrap();
        let error = ControlClient::of_managers(managers.clone()).nodes().await.unwrap_err();
        assert!(matches!(&error, ControlError::Unreachable(_)), "nobody is let in by what is over: {error:?}");
        let parts = MembershipParts { credentials, key: joined.key, managers, ring: Ring::default() };
        let member = Membership::begin(parts, Arc::<Kept>::default(), quick()).unwrap();
        let mut events = member.events();
        let is_end =
            |it: &MembershipEvent| matches!(it, MembershipEvent::Renewed { .. } | MembershipEvent::Lost { .. });
        let end = event(&mut events, is_end).await;
        assert_eq!(matches!(end, MembershipEvent::Renewed { .. }), number == 1, "{end}");
        if number == 1 {
            member.client().nodes().await.unwrap();
        }
    }
}

/// As `reissue`, at another time.
async fn reissue_at(authority: &dyn CertificateAuthority, of: &Joined, now: UnixTime) -> (Issued, SigningKey) {
    let key = SigningKey::generate(Default::default()).unwrap();
    let request = SigningRequest::create(&key).unwrap();
    let proof = Proof::of_key(of.issued.chain[0].clone(), &of.key, &request).unwrap();
    (authority.renew(&Renewing { proof, request }, now).await.unwrap(), key)
}

#[tokio::test]
async fn a_manager_that_leads_issues_itself_another_certificate() {
    let town = Town::new().await;
    let joined = found(&*town.first.authority, FIRST).await;
    assert_eq!(kind(&joined.unwrap_err()), Some(RefusalKind::Taken), "it is in already");
    let one = town.join(1, Role::Manager).await;
    let (issued, key) = reissue(&*town.first.authority, &one.issued.chain[0], &one.key).await.unwrap();
    assert_ne!(issued.chain[0], one.issued.chain[0]);
    one.credentials.renew(issued.chain, &key).unwrap();
    assert_eq!(one.credentials.identity().node, node(1));
}

/// Waits for an event; what comes before is passed over.
async fn event(
    events: &mut broadcast::Receiver<MembershipEvent>,
    is_it: impl Fn(&MembershipEvent) -> bool,
) -> MembershipEvent {
    let found = async {
        loop {
            let event = events.recv().await.unwrap();
            if is_it(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.unwrap()
}

pub(crate) async fn eventually<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is never so");
}

pub(crate) fn kind(error: &JoinError) -> Option<RefusalKind> {
    match error {
        JoinError::Cluster(error) => error.kind(),
        _ => None,
    }
}

#[tokio::test]
async fn a_node_joins_by_a_token_alone_and_acts_for_itself() {
    let town = Town::new().await;
    let joined = town.join(1, Role::Worker).await;
    assert_eq!((joined.identity.node, joined.identity.role), (node(1), Role::Worker));
    assert_eq!(joined.identity.cluster, town.id);
    assert_eq!(joined.ring.as_ref().unwrap().keys[0].secret_bytes(), &[7; 32], "it is given the key of gossip");
    let client = ControlClient::of_managers(Managers::new(joined.managers.clone(), &joined.credentials).unwrap());
    client.add_node(node(1), node_spec("one"), date()).await.unwrap();
    town.client().create_network(network(1), overlay("front"), date()).await.unwrap();
    let web = EndpointSpec::new(network(1), "web".parse().unwrap(), node(1));
    client.attach(endpoint(1), web, date()).await.unwrap();
    client.detach(endpoint(1), date()).await.unwrap().unwrap();
    for refused in [
        client.token(Role::Worker).await.unwrap_err(),
        client.rotate_token(Role::Manager).await.unwrap_err(),
        client.set_role(node(1), Role::Manager).await.unwrap_err(),
        client.rotate_root().await.map(drop).unwrap_err(),
        client.sealing_key().await.map(drop).unwrap_err(),
        client.members().await.map(drop).unwrap_err(),
    ] {
        assert!(refused.to_string().starts_with("only managers may "), "{refused:?}");
    }
    let members = town.client().members().await.unwrap();
    assert_eq!(members.iter().map(|it| it.node).collect::<Vec<_>>(), [FIRST, node(1)]);
}

#[tokio::test]
async fn a_token_of_another_cluster_is_told_to_nobody_and_wrong_spent_and_rotated_ones_are_refused_by_name() {
    let (town, other) = (Town::new().await, Town::new().await);
    let foreign = join([town.first.address], &other.token(Role::Worker).await, None, None).await.unwrap_err();
    assert!(
        matches!(
            &foreign,
            JoinError::Cluster(ClusterError::Unreachable(RemoteError::Untrusted(VerifyError::Foreign { .. })))
        ),
        "{foreign:?}"
    );

    let right = town.token(Role::Worker).await;
    let guessed = JoinToken::generate(right.root(), |bytes| bytes.fill(9));
    let wrong = join([town.first.address], &guessed, None, None).await.unwrap_err();
    assert_eq!(kind(&wrong), Some(RefusalKind::TokenUnknown), "{wrong:?}");

    let once = Invitation { role: Role::Worker, until: None, uses: Some(1), node: None };
    let once: JoinToken = town.client().invite(once).await.unwrap().parse().unwrap();
    join([town.first.address], &once, None, None).await.unwrap();
    let spent = join([town.first.address], &once, None, None).await.unwrap_err();
    assert_eq!(kind(&spent), Some(RefusalKind::TokenSpent), "{spent:?}");

    let past = UnixTime::from_millis(date().as_millis() - 10 * 3_600_000);
    let late = Invitation { role: Role::Worker, until: Some(past), uses: None, node: None };
    let late: JoinToken = town.client().invite(late).await.unwrap().parse().unwrap();
    let expired = join([town.first.address], &late, None, None).await.unwrap_err();
    assert_eq!(kind(&expired), Some(RefusalKind::TokenExpired), "{expired:?}");

    let bound = Invitation { role: Role::Worker, until: None, uses: None, node: Some(node(7)) };
    let bound: JoinToken = town.client().invite(bound).await.unwrap().parse().unwrap();
    let elsewhere = join([town.first.address], &bound, Some(node(8)), None).await.unwrap_err();
    assert_eq!(kind(&elsewhere), Some(RefusalKind::TokenOtherNode), "{elsewhere:?}");
    join([town.first.address], &bound, Some(node(7)), None).await.unwrap();

    let next: JoinToken = town.client().rotate_token(Role::Worker).await.unwrap().parse().unwrap();
    let rotated = join([town.first.address], &right, None, None).await.unwrap_err();
    assert_eq!(kind(&rotated), Some(RefusalKind::TokenUnknown), "{rotated:?}");
    join([town.first.address], &next, Some(node(9)), None).await.unwrap();
    let taken = join([town.first.address], &next, Some(node(9)), None).await.unwrap_err();
    assert_eq!(kind(&taken), Some(RefusalKind::Taken), "{taken:?}");
}

#[tokio::test]
async fn a_removed_nodes_session_ends_and_it_is_let_in_no_more_while_others_go_on() {
    let town = Town::new().await;
    let ((one, _), (two, _)) = (town.member(1, Role::Worker).await, town.member(2, Role::Worker).await);
    for (member, number) in [(&one, 1), (&two, 2)] {
        let name = format!("node-{number}");
        member.client().add_node(node(number), node_spec(&name), date()).await.unwrap();
    }
    let mut events = one.events();
    town.client().remove_node(&"node-1".into(), date()).await.unwrap();
    let lost = event(&mut events, |it| matches!(it, MembershipEvent::Lost { .. })).await;
    assert!(lost.to_string().contains("removed"), "{lost}");
    let error = one.client().nodes().await.unwrap_err();
    let ControlError::Unreachable(source) = &error else { panic!("{error:?}") };
    assert!(
        matches!(source.downcast_ref(), Some(RemoteError::Unwelcome(Unwelcome::Removed))),
        "in the handshake: {error:?}"
    );
    assert_eq!(two.client().nodes().await.unwrap().len(), 1);
    // And a node leaves by itself.
    two.client().remove_node(&node(2).into(), date()).await.unwrap();
    assert_eq!(town.client().members().await.unwrap().len(), 1);
    let last = town.client().remove_node(&FIRST.into(), date()).await.unwrap_err();
    assert!(last.to_string().contains("is the last manager"), "{last}");
}

#[tokio::test]
async fn a_node_that_is_promoted_is_a_manager_without_a_restart_and_a_demoted_one_is_none() {
    let town = Town::new().await;
    let (one, kept) = town.member(1, Role::Worker).await;
    let mut events = one.events();
    town.client().set_role(node(1), Role::Manager).await.unwrap();
    event(&mut events, |it| *it == MembershipEvent::Role(Role::Manager)).await;
    assert_eq!(one.identity().role, Role::Manager);
    assert!(kept.count.load(Ordering::SeqCst) >= 1, "what it proves itself with is kept first");
    one.client().create_network(network(1), overlay("front"), date()).await.unwrap();
    assert_eq!(one.client().sealing_key().await.unwrap(), town.sealing, "and is given what it needs to lead");

    town.client().set_role(node(1), Role::Worker).await.unwrap();
    event(&mut events, |it| *it == MembershipEvent::Role(Role::Worker)).await;
    let refused = one.client().create_network(network(2), overlay("back"), date()).await.unwrap_err();
    assert!(refused.to_string().starts_with("only managers may "), "{refused}");
    let last = town.client().set_role(FIRST, Role::Worker).await.unwrap_err();
    assert_eq!(last.kind(), Some(RefusalKind::LastManager));
}

/// What a manager that was demoted serves, which did not ask for another certificate.
fn rogue(own: Credentials) -> (Serving, SocketAddr) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let server = ControlServer::new(Arc::new(manager(Arc::clone(&store)))).with_feed(store, &root()).unwrap();
    let server = server.with_limits(Limits { beat: Duration::from_millis(20), ..Limits::default() });
    let serving = server.listen(TcpListener::bind("127.0.0.1:0").unwrap(), own, NodeLimits::default()).unwrap();
    let address = serving.address().unwrap();
    (serving, address)
}

#[tokio::test]
async fn a_demoted_manager_is_called_by_nobody_any_more_though_its_certificate_counts() {
    let town = Town::new().await;
    let ((one, _), two) = (town.member(1, Role::Worker).await, town.join(2, Role::Manager).await);
    let (_serving, address) = rogue(two.credentials.clone());
    let client = || ControlClient::of_managers(Managers::new([address], one.credentials()).unwrap());
    let (standing, mut feed) = (client(), client().follow());
    standing.nodes().await.unwrap();
    let mut follows = tokio::spawn(async move {
        loop {
            if let Err(error) = feed.next().await {
                return error;
            }
        }
    });
    let mut events = one.events();
    town.client().set_role(node(2), Role::Worker).await.unwrap();
    event(&mut events, |it| matches!(it, MembershipEvent::Trusts { .. })).await;
    let is_demoted = |error: &ControlError| match error {
        ControlError::Unreachable(source) => {
            matches!(source.downcast_ref(), Some(RemoteError::Untrusted(VerifyError::Demoted(it))) if it.node == node(2))
        }
        _ => false,
    };
    for client in [standing, client()] {
        let error = client.nodes().await.unwrap_err();
        assert!(is_demoted(&error), "be it on a connection that stands: {error:?}");
    }
    let ended = tokio::time::timeout(Duration::from_secs(20), &mut follows).await.unwrap().unwrap();
    assert!(ended.to_string().contains("demoted") || format!("{ended:?}").contains("Demoted"), "{ended:?}");
    // Promoted again, it is believed again.
    let mut events = one.events();
    town.client().set_role(node(2), Role::Manager).await.unwrap();
    event(&mut events, |it| matches!(it, MembershipEvent::Trusts { .. })).await;
    client().nodes().await.unwrap();
}

#[tokio::test]
async fn a_demoted_manager_may_nothing_more_by_its_old_certificate_and_what_it_watches_ends() {
    let town = Town::new().await;
    let two = town.join(2, Role::Manager).await;
    let dir = std::env::temp_dir().join(format!("overlay-demoted-{}", std::process::id()));
    let feed = Feed::new(Arc::clone(&town.store), &root()).unwrap();
    let control = Arc::new(manager(Arc::clone(&town.store)));
    let builder = Driver::builder(FIRST, MemoryGround::default(), control.clone(), feed);
    let driver = builder.gossip("127.0.0.1:0".parse().unwrap()).dir(&dir).start().await.unwrap();
    let server = ControlServer::new(control).with_cluster(town.first.cluster.clone()).with_driver(driver.clone());
    let server = server.with_limits(Limits { beat: Duration::from_millis(20), ..Limits::default() });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let serving = server.listen(listener, town.first.membership.credentials().clone(), NodeLimits::default()).unwrap();
    let client = || {
        let managers = Managers::new([serving.address().unwrap()], &two.credentials).unwrap();
        ControlClient::of_managers(managers)
    };
    let mut watch = client().watch("web");
    watch.next().await.unwrap();
    client().create_network(network(1), overlay("front"), date()).await.unwrap();

    town.client().set_role(node(2), Role::Worker).await.unwrap();
    assert_eq!(two.credentials.identity().role, Role::Manager, "it shows what it was issued before");
    let only = |error: &ControlError| error.to_string().starts_with("only managers may ");
    assert!(only(&client().create_network(network(2), overlay("back"), date()).await.unwrap_err()));
    assert!(client().sealing_key().await.unwrap_err().to_string().starts_with("only managers may "));
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap_err();
    assert!(matches!(ended, RemoteError::OnlyManagers { .. }), "{ended:?}");
    let refused = client().watch("web").next().await.unwrap_err();
    assert!(matches!(refused, RemoteError::OnlyManagers { .. }), "{refused:?}");
    // And of one that was removed.
    town.client().set_role(node(2), Role::Manager).await.unwrap();
    let mut watch = client().watch("web");
    watch.next().await.unwrap();
    town.first.authority.remove(node(2), date()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap_err();
    assert!(matches!(ended, RemoteError::Unwelcome(_) | RemoteError::OnlyManagers { .. }), "{ended:?}");
    driver.stop().await;
    let _ = std::fs::remove_dir_all(dir);
}

#[tokio::test]
async fn what_could_not_be_kept_is_not_used_and_asked_for_again() {
    let town = Town::new().await;
    let (one, kept) = town.member(1, Role::Worker).await;
    *kept.fails.lock().unwrap() = true;
    let (mut events, before) = (one.events(), one.credentials().chain());
    town.first.authority.force_renewal(node(1)).await.unwrap();
    let told = event(&mut events, |it| matches!(it, MembershipEvent::NotRenewed { .. })).await;
    assert!(told.to_string().contains("the disk is full"), "{told}");
    assert_eq!(one.credentials().chain(), before);
    *kept.fails.lock().unwrap() = false;
    event(&mut events, |it| matches!(it, MembershipEvent::Renewed { .. })).await;
    assert_ne!(one.credentials().chain(), before);
}

#[tokio::test]
async fn the_root_is_changed_under_nodes_at_work_and_none_is_shut_out() {
    let town = Town::new().await;
    let ((one, _), (two, _)) = (town.member(1, Role::Worker).await, town.member(2, Role::Worker).await);
    one.client().add_node(node(1), node_spec("one"), date()).await.unwrap();
    let before = town.token(Role::Worker).await;
    let begun = town.client().rotate_root().await.unwrap();
    assert!(!begun.is_complete() || begun.followed > 0);
    let authority = &town.first.authority;
    eventually(|| async {
        // No call fails meanwhile.
        one.client().nodes().await.unwrap();
        two.client().nodes().await.unwrap();
        let _ = authority.tend(date()).await;
        authority.root_progress(date()).await.unwrap().is_none()
    })
    .await;
    let trusted = authority.trusted().await.unwrap();
    assert_eq!(trusted.roots.len(), 1);
    assert_ne!(trusted.roots[0].key(), before.root());
    eventually(|| async { one.credentials().trust().roots() == trusted.roots }).await;
    one.client().nodes().await.unwrap();
    // The old token is of a root that is gone; the new one lets in.
    assert!(join([town.first.address], &before, Some(node(3)), None).await.is_err());
    join([town.first.address], &town.token(Role::Worker).await, Some(node(3)), None).await.unwrap();
}

#[tokio::test]
async fn nodes_go_on_with_another_manager_when_the_leading_one_is_lost() {
    let mut town = Town::new().await;
    let joined = town.join(1, Role::Manager).await;
    let given = ControlClient::of_managers(Managers::new(joined.managers.clone(), &joined.credentials).unwrap());
    let sealing = given.sealing_key().await.unwrap();
    let authority = authority(&town.store, town.id, &sealing);
    let leading = Leading::begin(Arc::clone(&town.store), seat(node(1)), Arc::clone(&authority)).await;
    assert!(!leading.leads(), "one leads already");
    let second = open(&town.store, authority, leading, joined);
    for desk in [&town.first, &second] {
        desk.cluster.set_managers([town.first.address, second.address]);
        desk.cluster.set_ring(Ring { revision: 1, keys: vec![GossipKey::from_bytes([7; 32])] });
    }
    // Whoever asks the one that does not lead is answered by the one that does.
    let token = town.token(Role::Worker).await;
    let joined = join([second.address, town.first.address], &token, Some(node(2)), None).await.unwrap();
    let one = Membership::begin(Membership::parts_of(joined).unwrap(), Arc::<Kept>::default(), quick()).unwrap();
    one.client().add_node(node(2), node_spec("two"), date()).await.unwrap();

    // The leader stops without a word.
    town.first.leading = None;
    town.first.serving = None;
    eventually(|| async { one.client().nodes().await.is_ok() }).await;
    second.leading.as_ref().unwrap().led().await;
    join([town.first.address, second.address], &token, Some(node(3)), None).await.unwrap();
    // It comes back and does not know: its term is over, and it signs nothing.
    let late = found(&*town.first.authority, node(4)).await.unwrap_err();
    assert_eq!(kind(&late), Some(RefusalKind::NotLeading), "{late:?}");
}

#[tokio::test]
async fn a_node_whose_certificate_is_refused_for_other_reasons_is_told_so_in_words() {
    let town = Town::new().await;
    let (one, _) = town.member(1, Role::Worker).await;
    // Who has a certificate need not join.
    let token = town.token(Role::Worker).await;
    let again = join([town.first.address], &token, Some(node(1)), None).await.unwrap_err();
    assert_eq!(kind(&again), Some(RefusalKind::Taken), "{again:?}");
    // Its membership is not disturbed by that.
    one.client().nodes().await.unwrap();
}
