//! Sealed gossip between drivers in this process.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{MemoryStore, NodeId, Prefix, Store};
use overlay_crypto::RotationConfig;
use overlay_crypto::gossip::{GossipKey, Keyring, KeyringError, Purpose, Succession};
use overlay_driver::{Driver, DriverEvent, GossipKeysError, MemoryGround, SealStatus};
use overlay_gossip::{Config, Gossip, Member, Metadata, Role};
use overlay_node::{AgentConfig, Feed, GossipKeyChange, GossipKeyError, Manager};

/// Nodes of one catalogue, each with a directory.
struct Town {
    store: Arc<dyn Store>,
    dir: PathBuf,
}

impl Town {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("overlay-sealed-{}-{name}", std::process::id()));
        Self { store: Arc::new(MemoryStore::default()), dir }
    }

    async fn start(&self, number: u8, keys: &[u8]) -> Driver {
        self.start_with(number, keys.iter().map(|byte| key(*byte)).collect()).await
    }

    async fn start_with(&self, number: u8, keys: Vec<GossipKey>) -> Driver {
        let root = Prefix::new("test/").unwrap();
        let id = NodeId::from_bytes([number; 16]);
        let manager = Arc::new(Manager::new(Arc::clone(&self.store), &root, id, [number; 32]).unwrap());
        let feed = Feed::new(Arc::clone(&self.store), &root).unwrap();
        let builder = Driver::builder(id, MemoryGround::default(), manager, feed);
        let builder = builder.name(format!("host-{number}").parse().unwrap()).dir(self.dir.join(number.to_string()));
        let builder = builder.gossip("127.0.0.1:0".parse().unwrap()).gossip_keys(keys);
        let (limit, rest) = (Duration::from_secs(3), Duration::from_millis(200));
        let gossip_rotation = RotationConfig { limit, rest, ..RotationConfig::default() };
        let builder = builder.agent(AgentConfig { gossip_rotation, ..AgentConfig::lan() });
        builder.gateway(None).start().await.unwrap()
    }

    /// What a node has written down.
    fn written(&self, number: u8) -> Succession {
        let file = self.dir.join(number.to_string()).join("gossip-keys");
        std::fs::read_to_string(file).unwrap().parse().unwrap()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn key(byte: u8) -> GossipKey {
    GossipKey::from_bytes([byte; 32])
}

async fn knows(driver: &Driver, nodes: usize) -> bool {
    driver.status().await.unwrap().members.len() == nodes
}

async fn until_it_knows(driver: &Driver, nodes: usize) {
    let known = async {
        while !knows(driver, nodes).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), known).await.unwrap();
}

async fn seal(driver: &Driver) -> SealStatus {
    driver.status().await.unwrap().seal.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_key_is_a_member_and_who_has_another_or_none_is_not() {
    let town = Town::new("members");
    let (ann, bob) = (town.start(1, &[7]).await, town.start(2, &[7]).await);
    let (other, none) = (town.start(3, &[8]).await, town.start(4, &[]).await);
    for driver in [&bob, &other, &none] {
        driver.join([ann.address()]).await.unwrap();
    }
    ann.join([other.address(), none.address()]).await.unwrap();
    until_it_knows(&ann, 2).await;
    until_it_knows(&bob, 2).await;
    while seal(&ann).await.refused < 4 || seal(&other).await.refused < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(knows(&ann, 2).await && knows(&other, 1).await && knows(&none, 1).await);
    assert_eq!(none.status().await.unwrap().seal, None);
    for driver in [ann, bob, other, none] {
        driver.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_while_nodes_run_and_nobody_is_lost() {
    let town = Town::new("rotation");
    let nodes = [town.start(1, &[7]).await, town.start(2, &[7]).await, town.start(3, &[7]).await];
    nodes[1].join([nodes[0].address()]).await.unwrap();
    nodes[2].join([nodes[0].address()]).await.unwrap();
    for node in &nodes {
        until_it_knows(node, 3).await;
    }
    for (old, new) in [(7, 8), (8, 9)] {
        for node in &nodes {
            node.change_gossip_keys(GossipKeyChange::Install(key(new))).await.unwrap();
        }
        for node in &nodes {
            node.change_gossip_keys(GossipKeyChange::Promote(key(new).id())).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await; // some seal with one, some with the other
        }
        for node in &nodes {
            node.change_gossip_keys(GossipKeyChange::Retire(key(old).id())).await.unwrap();
        }
    }
    let late = town.start(4, &[9]).await;
    late.join([nodes[2].address()]).await.unwrap();
    for node in nodes.iter().chain([&late]) {
        until_it_knows(node, 4).await;
        let SealStatus { primary, keys, refused, .. } = seal(node).await;
        let members = node.status().await.unwrap().members;
        assert!(members.iter().all(|member| member.standing == "alive"), "{members:?}");
        assert_eq!((primary, keys.len()), (key(9).id().to_string(), 1));
        // What was on its way as the old key was retired. Gossip says it again.
        assert!(refused < 50, "{refused}");
    }
    for node in nodes.into_iter().chain([late]) {
        node.stop().await;
    }
}

/// Waits until all seal with one key that is not that one, and have no other.
async fn until_changed(nodes: &[Driver], before: &str) -> String {
    let changed = async {
        loop {
            let mut all = BTreeSet::new();
            for node in nodes {
                all.insert(seal(node).await.keys);
            }
            match all.pop_first().as_deref() {
                Some([one]) if one != before && all.is_empty() => return one.clone(),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), changed).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_change_to_a_new_key_at_a_word_and_one_that_ends_on_the_way_goes_on_with_what_it_has_written() {
    let town = Town::new("at-a-word");
    let mut nodes = vec![town.start(1, &[7]).await, town.start(2, &[7]).await, town.start(3, &[7]).await];
    let seed = nodes[0].address();
    for node in &nodes[1..] {
        node.join([seed]).await.unwrap();
    }
    let mut before = key(7).id().to_string();
    for pause in [0, 30, 300] {
        for node in &nodes {
            until_it_knows(node, 3).await;
        }
        nodes[1].rotate_gossip_keys([]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        nodes.pop().unwrap().stop().await;
        let again = town.start(3, &[7]).await; // with the first key, which is old soon
        again.join([seed]).await.unwrap();
        nodes.push(again);
        let after = until_changed(&nodes, &before).await;
        for number in 1..=3 {
            assert_eq!(town.written(number).primary().id.to_string(), after);
        }
        before = after;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_until_all_had_changed_says_so_and_comes_back_by_a_file() {
    let town = Town::new("away");
    let mut nodes = vec![town.start(1, &[7]).await, town.start(2, &[7]).await, town.start(3, &[7]).await];
    let seed = nodes[0].address();
    for node in &nodes[1..] {
        node.join([seed]).await.unwrap();
    }
    for node in &nodes {
        until_it_knows(node, 3).await;
    }
    let mut events = nodes[0].events();
    nodes.pop().unwrap().stop().await;
    nodes[0].rotate_gossip_keys([NodeId::from_bytes([3; 16])]).await.unwrap();
    let after = until_changed(&nodes, &key(7).id().to_string()).await;
    let said = async {
        loop {
            if let DriverEvent::GossipKey { key, number } = events.recv().await.unwrap() {
                return (key, number);
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), said).await.unwrap(), (after.clone(), 2));

    let away = town.start(3, &[7]).await;
    away.join([seed]).await.unwrap();
    nodes[0].join([away.address()]).await.unwrap(); // it is somewhere else now
    let lacks = async {
        while seal(&away).await.lacking.as_deref() != Some(after.as_str()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), lacks).await.unwrap();
    assert!(knows(&away, 1).await);
    away.stop().await;

    let keys = town.written(1);
    let given = keys.get(keys.primary().id).cloned().unwrap();
    let back = town.start_with(3, vec![given]).await;
    back.join([seed]).await.unwrap();
    nodes.push(back);
    for node in &nodes {
        until_it_knows(node, 3).await;
    }
    assert_eq!(until_changed(&nodes, "").await, after, "and the old one is gone there too");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_changed_is_refused_by_name() {
    let town = Town::new("refused");
    let (sealed, clear) = (town.start(1, &[7]).await, town.start(2, &[]).await);
    let install = GossipKeyChange::Install(key(8));
    assert_eq!(clear.change_gossip_keys(install.clone()).await, Err(GossipKeyError::Unsealed.into()));
    assert_eq!(clear.rotate_gossip_keys([]).await, Err(GossipKeyError::Unsealed.into()));
    for (change, refusal) in [
        (GossipKeyChange::Retire(key(7).id()), KeyringError::Primary(key(7).id())),
        (GossipKeyChange::Promote(key(8).id()), KeyringError::Unknown(key(8).id())),
    ] {
        let refused = sealed.change_gossip_keys(change).await;
        assert_eq!(refused, Err(GossipKeyError::Keyring(refusal).into()));
    }
    sealed.clone().stop().await;
    assert!(matches!(sealed.change_gossip_keys(install).await, Err(GossipKeysError::Stopped(_))));
    clear.stop().await;
}

/// Somebody who is no driver of ours, and reads what comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_wire_says_nothing_and_fits_where_it_did() {
    let town = Town::new("wire");
    let ann = town.start(1, &[7]).await;
    let wire = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    ann.join([wire.local_addr().unwrap()]).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let (length, from) = wire.recv_from(&mut buffer).await.unwrap();
    let clear = [1; 16]; // its id
    assert!(length <= Config::lan().datagram_budget && !buffer[..length].windows(16).any(|bytes| bytes == clear));

    let mut chance = overlay_crypto::Chance::new([3; 32]);
    let mut message = buffer[..length].to_vec();
    Keyring::new(key(7), &mut chance).open(Purpose::Datagram, &mut message).unwrap();
    assert!(message.windows(16).any(|bytes| bytes == clear));
    let now = overlay_core::Instant::ZERO;
    let address = wire.local_addr().unwrap();
    let (id, role, metadata) = (NodeId::from_bytes([9; 16]), Role::Worker, Metadata::default());
    let me = Member { id, incarnation: 1, address, role, metadata };
    let mut gossip = Gossip::new(Config::lan(), me, [5; 32], now).unwrap();
    gossip.handle(from, overlay_gossip::Class::Datagram, &message, now).unwrap();
    assert!(gossip.handle(from, overlay_gossip::Class::Datagram, &buffer[..length], now).is_err());
    ann.stop().await;
}
