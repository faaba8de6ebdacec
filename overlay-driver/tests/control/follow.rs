//! The catalogue, followed in another process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::testing::Dice;
use overlay_core::{Commit, EndpointId, Key, NetworkId, NodeId, ServiceId};
use overlay_driver::control::{ControlClient, ControlServer, Follow, FollowError, Limits};
use overlay_node::{
    CatalogueChange, Condition, Control, Endpoint, EndpointSpec, Feed, Manager, Network, NetworkSpec, Node, Service,
    ServiceSpec, Stay,
};

use crate::kit::{NOW, Served, endpoint, network, node, node_spec, overlay, root, service};

/// What somebody knows who heeds what is told.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Mirror {
    pub(crate) nodes: BTreeMap<NodeId, Arc<Node>>,
    pub(crate) networks: BTreeMap<NetworkId, Arc<Network>>,
    pub(crate) services: BTreeMap<ServiceId, Arc<Service>>,
    pub(crate) endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
}

impl Mirror {
    /// Heeds a change, which must be one.
    pub(crate) fn heed(&mut self, change: CatalogueChange) {
        match change {
            CatalogueChange::Node(of) => assert_ne!(self.nodes.insert(of.id, Arc::clone(&of)), Some(of)),
            CatalogueChange::NodeGone(id) => {
                assert!(self.nodes.remove(&id).is_some());
                assert!(self.endpoints.values().all(|of| of.spec.node != id), "its endpoints go before it");
            }
            CatalogueChange::Network(of) => assert_ne!(self.networks.insert(of.id, Arc::clone(&of)), Some(of)),
            CatalogueChange::Service(of) => assert_ne!(self.services.insert(of.id, Arc::clone(&of)), Some(of)),
            CatalogueChange::Endpoint(of) => {
                assert!(self.networks.contains_key(&of.spec.network), "its network is told before it");
                assert_ne!(self.endpoints.insert(of.id, Arc::clone(&of)), Some(of));
            }
            CatalogueChange::NetworkGone(id) => {
                assert!(self.networks.remove(&id).is_some(), "what was never told is gone");
                assert!(self.endpoints.values().all(|of| of.spec.network != id), "its endpoints go before it");
            }
            CatalogueChange::ServiceGone(id) => assert!(self.services.remove(&id).is_some()),
            CatalogueChange::EndpointGone(id) => assert!(self.endpoints.remove(&id).is_some()),
        }
    }

    /// What there is.
    pub(crate) async fn of(manager: &Manager) -> Self {
        let mut mirror = Self::default();
        for of in manager.networks().await.unwrap() {
            let endpoints = manager.endpoints(of.id).await.unwrap();
            mirror.endpoints.extend(endpoints.into_iter().map(|of| (of.id, Arc::new(of))));
            mirror.networks.insert(of.id, Arc::new(of));
        }
        mirror.nodes = manager.nodes().await.unwrap().into_iter().map(|of| (of.id, Arc::new(of))).collect();
        mirror.services = manager.services().await.unwrap().into_iter().map(|of| (of.id, Arc::new(of))).collect();
        mirror
    }
}

async fn one_call(manager: &Manager, dice: &mut Dice) {
    let number = dice.below(3) as u8;
    let name = |what: &str| format!("{what}{number}").parse().unwrap();
    match dice.below(7) {
        0 | 1 => {
            let spec = NetworkSpec { attachable: true, ..NetworkSpec::overlay(name("n")) };
            drop(manager.create_network(network(dice.below(100) as u8), spec, NOW).await);
        }
        2 => drop(manager.remove_network(&format!("n{number}").as_str().into(), NOW).await),
        3 => {
            let networks = manager.networks().await.unwrap();
            let spec = ServiceSpec::new(name("s"), networks.first().map(|of| of.id));
            drop(manager.create_service(service(number), spec, NOW).await);
        }
        4 => drop(manager.remove_service(&service(number).into(), NOW).await),
        5 => {
            if let Some(of) = manager.networks().await.unwrap().last() {
                let spec = EndpointSpec::new(of.id, name("c"), node(0));
                drop(manager.attach(endpoint(number), spec, NOW).await);
                drop(manager.report(endpoint(number), Stay { node: node(0), moves: 0 }, Ok(())).await);
            }
        }
        _ => drop(manager.detach(endpoint(number), NOW).await),
    }
}

/// Until all is known; now and then it stops waiting, as a task does that has something else to do.
async fn listen(feed: &mut dyn Follow, mirror: &mut Mirror, manager: &Manager, dice: &mut Dice) {
    let there = Mirror::of(manager).await;
    while *mirror != there {
        let patience = if dice.one_in(3) { Duration::ZERO } else { Duration::from_secs(30) };
        match tokio::time::timeout(patience, feed.next()).await {
            Ok(Ok(told)) => {
                assert!(!told.is_empty());
                told.into_iter().for_each(|change| mirror.heed(change));
            }
            Ok(Err(FollowError::Remote(_))) | Err(_) => {}
            Ok(Err(error)) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn who_follows_knows_what_there_is_however_often_the_server_dies() {
    for seed in 0..12 {
        let mut dice = Dice::new([seed; 32]);
        let mut served = Served::new().await;
        let manager = served.manager();
        manager.add_node(node(0), node_spec("a"), NOW).await.unwrap();
        let mut feed: Box<dyn Follow> = Box::new(served.client().follow());
        let mut mirror = Mirror::default();
        for _ in 0..30 {
            for _ in 0..dice.below(6) {
                one_call(&manager, &mut dice).await;
            }
            if dice.one_in(4) {
                served.again().await;
            }
            if dice.one_in(2) {
                listen(&mut *feed, &mut mirror, &manager, &mut dice).await;
            }
        }
        listen(&mut *feed, &mut mirror, &manager, &mut dice).await;
    }
}

#[tokio::test]
async fn what_went_while_nobody_served_is_told_be_it_all_there_was() {
    let mut served = Served::new().await;
    let manager = served.manager();
    manager.create_network(network(1), overlay("front"), NOW).await.unwrap();
    let mut feed = served.client().follow();
    assert!(matches!(&feed.next().await.unwrap()[..], [CatalogueChange::Network(of)] if of.id == network(1)));
    served.serving = None;
    assert!(matches!(feed.next().await, Err(FollowError::Remote(_))));
    manager.remove_network(&network(1).into(), NOW).await.unwrap();
    served.again().await;
    // How it went is told too, as the store remembers it.
    let removing = feed.next().await.unwrap();
    assert!(
        matches!(&removing[..], [CatalogueChange::Network(of)] if of.condition == Condition::Removing),
        "{removing:?}"
    );
    assert_eq!(feed.next().await.unwrap(), [CatalogueChange::NetworkGone(network(1))]);
}

#[tokio::test]
async fn a_large_catalogue_comes_in_one_batch_as_a_store_tells_it() {
    let served = Served::new().await;
    let manager = served.manager();
    for number in 0..70 {
        manager.create_network(network(number), overlay(&format!("n{number}")), NOW).await.unwrap();
    }
    let mut here: Box<dyn Follow> = Box::new(Feed::new(Arc::new(served.store.clone()), &root()).unwrap());
    let mut there: Box<dyn Follow> = Box::new(served.client().follow());
    assert_eq!(there.next().await.unwrap(), here.next().await.unwrap());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stays_as_it_was_told_though_the_server_is_another() {
    let mut served = Served::new().await;
    let manager = served.manager();
    for number in [1, 2] {
        manager.create_network(network(number), overlay(&format!("n{number}")), NOW).await.unwrap();
    }
    let mut feed = served.client().follow();
    assert_eq!(feed.next().await.unwrap().len(), 2);
    let text = format!("cluster/catalogue/network/{}", network(1));
    let key = Key::new(&text).unwrap();
    served.store.commit_now(Commit::new().put(key.clone(), r#"{"format":2,"object":{}}"#)).unwrap();
    served.again().await;
    assert!(feed.next().await.is_err());
    manager.create_network(network(3), overlay("n3"), NOW).await.unwrap();
    let told = feed.next().await.unwrap();
    assert!(matches!(&told[..], [CatalogueChange::Network(of)] if of.id == network(3)), "{told:?}");
    assert_eq!(feed.unreadable(), BTreeMap::from([(text, "it is of format 2; this release knows 1".to_owned())]));
    served.store.commit_now(Commit::new().delete(key)).unwrap();
    let mut told = Vec::new();
    while told.last() != Some(&CatalogueChange::NetworkGone(network(1))) {
        told.extend(feed.next().await.unwrap()); // the third network's further steps may come before
    }
    assert!(told.iter().rev().skip(1).all(|it| matches!(it, CatalogueChange::Network(of) if of.id == network(3))));
    assert!(feed.unreadable().is_empty());
}

#[tokio::test]
async fn a_server_that_is_silent_is_taken_for_dead() {
    let directory = crate::kit::Directory::new();
    let path = directory.join("control.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let silent = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        let welcome = "{\"welcome\":{\"version\":1,\"request\":1000,\"beat_millis\":20}}\n";
        stream.write_all(welcome.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut feed = ControlClient::new(&path).follow();
    let error = feed.next().await.unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no answer within 0.06 s");
    silent.abort();
}

#[tokio::test]
async fn who_follows_hears_that_the_server_lives_and_waits_on() {
    let beat = Duration::from_millis(5);
    let served = Served::with(|server: ControlServer| server.with_limits(Limits { beat, ..Limits::default() })).await;
    let mut feed = served.client().follow();
    assert!(tokio::time::timeout(Duration::from_millis(200), feed.next()).await.is_err());
    served.manager().create_network(network(1), overlay("front"), NOW).await.unwrap();
    assert!(matches!(&feed.next().await.unwrap()[..], [CatalogueChange::Network(of)] if of.id == network(1)));
}

/// What is told first on a connection for this purpose.
async fn told_first(served: &Served, purpose: serde_json::Value) -> serde_json::Value {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::UnixStream::connect(served.path()).await.unwrap();
    let hello = serde_json::json!({"hello": {"version": 1, "purpose": purpose}});
    stream.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
    let mut lines = tokio::io::BufReader::new(stream).lines();
    loop {
        let line = lines.next_line().await.unwrap().unwrap();
        let frame: serde_json::Value = serde_json::from_str(&line).unwrap();
        if let Some(told) = frame.get("told") {
            return told.clone();
        }
    }
}

#[tokio::test]
async fn who_was_told_all_before_is_told_what_has_changed_since_and_all_where_that_is_not_known() {
    let (served, manager) = (Served::new().await, Served::manager);
    manager(&served).create_network(network(1), overlay("one"), NOW).await.unwrap();
    manager(&served).create_network(network(2), overlay("two"), NOW).await.unwrap();
    let all = told_first(&served, serde_json::json!("follow")).await;
    assert_eq!((&all["all"], all["changes"].as_array().unwrap().len()), (&true.into(), 2));
    let at = all["at"].as_u64().unwrap();
    manager(&served).remove_network(&"one".into(), NOW).await.unwrap();
    let since = told_first(&served, serde_json::json!({"follow_after": at})).await;
    assert_eq!(since["all"], false, "{since}");
    assert!(since["at"].as_u64().unwrap() > at && !since.to_string().contains("\"two\""), "{since}");
    let unknown = told_first(&served, serde_json::json!({"follow_after": u64::MAX / 2})).await;
    assert_eq!((&unknown["all"], unknown["changes"].as_array().unwrap().len()), (&true.into(), 1), "{unknown}");
}

#[tokio::test]
async fn a_feed_whose_server_comes_back_goes_on_with_what_was_missed() {
    let mut served = Served::new().await;
    served.manager().create_network(network(1), overlay("one"), NOW).await.unwrap();
    let mut feed = served.client().follow();
    assert_eq!(feed.next().await.unwrap().len(), 1);
    served.serving = None;
    served.manager().create_network(network(2), overlay("two"), NOW).await.unwrap();
    served.manager().remove_network(&"one".into(), NOW).await.unwrap();
    served.again().await;
    let mut mirror = BTreeMap::from([(network(1), true)]);
    while mirror != BTreeMap::from([(network(2), true)]) {
        for change in feed.next().await.unwrap_or_default() {
            match change {
                CatalogueChange::Network(of) => drop(mirror.insert(of.id, true)),
                CatalogueChange::NetworkGone(id) => assert!(mirror.remove(&id).is_some()),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// As a manager of a later release tells it, whose ids are other ones.
#[tokio::test]
async fn where_all_is_told_and_an_id_is_not_understood_nothing_of_its_kind_is_taken_for_gone() {
    use tokio::io::AsyncWriteExt as _;

    let dir = crate::kit::Directory::new();
    let path = dir.join("control.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let of = |number: u8| {
        let spec = serde_json::json!({"name": format!("n{number}"), "role": "worker"});
        serde_json::json!({"node": {"id": node(number), "spec": spec, "created": 0, "condition": "allocated"}})
    };
    let told = |at: u8, changes: &[serde_json::Value]| {
        let told = serde_json::json!({"all": true, "more": false, "at": at, "changes": changes, "unreadable": {}});
        format!("{}\n", serde_json::json!({"told": told}))
    };
    let unnamed = |kind: &str| serde_json::json!({kind: {"id": {"later": 7}}});
    let lines = [
        "{\"welcome\":{\"version\":1,\"request\":1000,\"beat_millis\":10000}}\n".to_owned(),
        told(1, &[of(1), of(2)]),
        told(2, &[of(1), unnamed("node"), of(3)]),
        told(3, &[of(1), unnamed("network"), of(4)]),
    ];
    let mut feed = ControlClient::new(&path).follow();
    let (mut mirror, mut nodes) = (Mirror::default(), Vec::new());
    let listen = async {
        while !mirror.nodes.contains_key(&node(4)) {
            let changes = feed.next().await.unwrap();
            let is_empty = changes.is_empty(); // only what is not understood is news
            changes.into_iter().for_each(|change| mirror.heed(change));
            if !is_empty {
                nodes.push(mirror.nodes.keys().copied().collect::<Vec<_>>());
            }
        }
    };
    let speak = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(lines.concat().as_bytes()).await.unwrap();
        stream
    };
    let ((), _stream) = tokio::join!(listen, speak);
    let expected: [&[u8]; 3] = [&[1, 2], &[1, 2, 3], &[1, 4]];
    assert_eq!(nodes, expected.map(|numbers| numbers.iter().map(|it| node(*it)).collect::<Vec<_>>()));
}
