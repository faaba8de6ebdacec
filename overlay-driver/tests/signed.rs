//! Gossip that is signed, between drivers in this process that have certificates of a cluster.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_core::{ClusterId, MemoryStore, NodeId, Prefix, Store, UnixTime};
use overlay_crypto::gossip::GossipKey;
use overlay_crypto::pki::{
    Algorithm, Authority, Certificate, Grant, Identity, Life, Refusals, Role, Serial, SigningKey, SigningRequest, Trust,
};
use overlay_driver::control::Credentials;
use overlay_driver::{Driver, MemoryGround, SignedStatus};
use overlay_node::{AgentConfig, Feed, Manager};

/// A root, and nodes of one catalogue whose certificates it signs.
struct Town {
    store: Arc<dyn Store>,
    dir: PathBuf,
    root: Authority,
}

#[expect(clippy::disallowed_methods, reason = "certificates count by the system's date")]
fn now() -> UnixTime {
    UnixTime::from_millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

fn serial() -> Serial {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Serial::generate(|bytes| bytes[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()))
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::EcdsaP256).unwrap()
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn authority(cluster: u8) -> Authority {
    Authority::create(ClusterId::from_bytes([cluster; 16]), key(), &serial(), now()).unwrap()
}

/// A certificate for a node, and its key.
fn certificate(root: &Authority, number: u8) -> (Certificate, SigningKey) {
    let (key, cluster) = (key(), root.certificate().cluster().unwrap());
    let identity = Identity { node: node(number), role: Role::Worker, cluster };
    let grant = Grant { identity, life: Life::default(), serial: serial() };
    (root.issue(&SigningRequest::create(&key).unwrap(), &grant, now()).unwrap(), key)
}

fn credentials(root: &Authority, number: u8) -> Credentials {
    let (certificate, key) = certificate(root, number);
    Credentials::new(vec![certificate], &key, Trust::new([root.certificate().clone()]).unwrap()).unwrap()
}

impl Town {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("overlay-signed-{}-{name}", std::process::id()));
        Self { store: Arc::new(MemoryStore::default()), dir, root: authority(5) }
    }

    async fn start(&self, number: u8, credentials: Option<&Credentials>) -> Driver {
        let root = Prefix::new("test/").unwrap();
        let manager = Manager::new(Arc::clone(&self.store), &root, node(number), [number; 32]).unwrap();
        let mut config = AgentConfig::lan();
        config.gossip_rotation.rest = Duration::from_secs(1);
        let feed = Feed::new(Arc::clone(&self.store), &root).unwrap();
        let mut builder = Driver::builder(node(number), MemoryGround::default(), Arc::new(manager), feed)
            .name(format!("host-{number}").parse().unwrap())
            .dir(self.dir.join(number.to_string()))
            .gossip("127.0.0.1:0".parse().unwrap())
            .gossip_keys([GossipKey::from_bytes([7; 32])])
            .agent(config)
            .gateway(None);
        if let Some(credentials) = credentials {
            builder = builder.signed(credentials);
        }
        builder.start().await.unwrap()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn until<F: Future<Output = bool>>(is_so: impl Fn() -> F) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap();
}

async fn signed(driver: &Driver) -> SignedStatus {
    driver.status().await.unwrap().signed.unwrap()
}

/// The number of gossip's key: each change of it is by entries that all nodes tell one another of theirs.
async fn number(driver: &Driver) -> u64 {
    driver.status().await.unwrap().seal.unwrap().number
}

/// Whether the first key of gossip is gone, and another in its place.
async fn has_changed(driver: &Driver) -> bool {
    let seal = driver.status().await.unwrap().seal.unwrap();
    (seal.number, seal.keys.len()) == (2, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_certificates_of_one_cluster_believe_each_other_and_nobody_else_whatever_key_of_gossip_he_has() {
    let town = Town::new("believe");
    let foreign = authority(6);
    let (anns, bobs, strangers) = (credentials(&town.root, 1), credentials(&town.root, 2), credentials(&foreign, 3));
    let (ann, bob) = (town.start(1, Some(&anns)).await, town.start(2, Some(&bobs)).await);
    bob.join([ann.address()]).await.unwrap();
    until(async || ann.status().await.unwrap().members.len() == 2).await;
    ann.rotate_gossip_keys([]).await.unwrap();
    until(async || has_changed(&ann).await && has_changed(&bob).await).await;
    for driver in [&ann, &bob] {
        let refused = signed(driver).await;
        assert_eq!((refused.forged, refused.unsigned), (0, 0));
    }

    let (stranger, silent) = (town.start(3, Some(&strangers)).await, town.start(4, None).await);
    let before = number(&ann).await;
    let key = ann.gossip_keys().await.unwrap().unwrap().keys[0].clone();
    for driver in [&stranger, &silent] {
        let id = key.id();
        driver.change_gossip_keys(overlay_node::GossipKeyChange::Install(key.clone())).await.unwrap();
        driver.change_gossip_keys(overlay_node::GossipKeyChange::Promote(id)).await.unwrap();
        let first = GossipKey::from_bytes([7; 32]).id(); // with both it would seal by either, and half of it would not be opened
        driver.change_gossip_keys(overlay_node::GossipKeyChange::Retire(first)).await.unwrap();
        driver.join([ann.address()]).await.unwrap();
    }
    until(async || signed(&ann).await.forged > 0 && signed(&ann).await.unsigned > 0).await;
    until(async || signed(&stranger).await.forged > 0).await; // it does not believe them either; by its next key it would not hear them
    stranger.rotate_gossip_keys([]).await.unwrap(); // it says that there is another key, and nobody follows
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((number(&ann).await, number(&bob).await), (before, before));
    for driver in [ann, bob, stranger, silent] {
        driver.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_on_being_believed_by_its_next_certificate_and_one_that_was_removed_is_not() {
    let town = Town::new("renewed");
    let (anns, bobs, carols) = (credentials(&town.root, 1), credentials(&town.root, 2), credentials(&town.root, 3));
    let (ann, bob) = (town.start(1, Some(&anns)).await, town.start(2, Some(&bobs)).await);
    bob.join([ann.address()]).await.unwrap();
    until(async || ann.status().await.unwrap().members.len() == 2).await;

    // Bob's first certificate does not count for who comes from now on; what Bob shows is the next.
    let (next, key) = certificate(&town.root, 2);
    bobs.renew(vec![next], &key).unwrap();
    let carol = town.start(3, Some(&carols)).await;
    carol.join([ann.address()]).await.unwrap();
    until(async || carol.status().await.unwrap().members.len() == 3).await;
    bob.rotate_gossip_keys([]).await.unwrap();
    until(async || has_changed(&bob).await && has_changed(&carol).await).await;
    assert_eq!((signed(&carol).await.forged, signed(&ann).await.forged), (0, 0));

    let mut refusals = Refusals::default();
    refusals.refuse(node(2), now() + Duration::from_secs(3600));
    let trust = Trust::new([town.root.certificate().clone()]).unwrap();
    let daves = credentials(&town.root, 4);
    daves.believe(trust, refusals);
    let dave = town.start(4, Some(&daves)).await;
    let ring = carol.gossip_keys().await.unwrap().unwrap();
    let (key, id) = (ring.keys[0].clone(), ring.keys[0].id());
    dave.change_gossip_keys(overlay_node::GossipKeyChange::Install(key)).await.unwrap();
    dave.change_gossip_keys(overlay_node::GossipKeyChange::Promote(id)).await.unwrap();
    dave.join([carol.address()]).await.unwrap();
    until(async || signed(&dave).await.forged > 0).await;
    for driver in [ann, bob, carol, dave] {
        driver.stop().await;
    }
}
