//! A node that is no manager follows what it needs of the catalogue: that, all of it, and nothing else.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overlay_core::testing::Dice;
use overlay_core::{Commit, Key, NetworkId, NodeId, Store};
use overlay_crypto::pki::Role;
use overlay_driver::control::{ControlClient, Follow, FollowError, Limits, Managers, NodeLimits, RemoteFeed};
use overlay_driver::testing::credulous;
use overlay_driver::{Attach, Driver, MemoryGround, Source};
use overlay_node::{
    CatalogueChange, Control, EndpointSpec, Manager, PublishedPort, Reference, ServiceEvent, ServiceSpec, Stay,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::follow::Mirror;
use crate::kit::{NOW, endpoint, network, node, node_spec, overlay, service};
use crate::secure::{DAY, Town};

/// The node that follows.
const ME: u8 = 1;

/// The networks that a node has a part in, said otherwise than by the library.
fn part(all: &Mirror, me: NodeId, watched: &BTreeSet<Reference>) -> BTreeSet<NetworkId> {
    let own = all.endpoints.values().filter(|of| of.spec.node == me).map(|of| of.spec.network);
    let ingress = all.networks.values().filter(|of| of.spec.ingress).map(|of| of.id);
    let named = |name: &str| watched.iter().any(|it| it.as_str() == name);
    let services = all.services.values().filter(|of| named(of.spec.name.as_str()));
    let watched = services.flat_map(|of| of.spec.networks.keys().chain(of.vips.keys()).copied());
    own.chain(ingress).chain(watched).collect()
}

/// What of the catalogue is for who has a part in these networks.
fn filtered(mut all: Mirror, part: &BTreeSet<NetworkId>) -> Mirror {
    all.networks.retain(|id, _| part.contains(id));
    all.endpoints.retain(|_, of| part.contains(&of.spec.network));
    for of in all.services.values_mut() {
        let of = Arc::make_mut(of);
        of.spec.networks.retain(|id, _| part.contains(id));
        of.vips.retain(|id, _| part.contains(id));
    }
    all.services.retain(|_, of| !of.spec.networks.is_empty() || !of.vips.is_empty());
    all
}

/// One call; to the networks from this number on nothing of the node is attached.
async fn one_call(manager: &Manager, dice: &mut Dice, others: u8) {
    let [number, some] = [(); 2].map(|()| dice.below(5) as u8);
    let at = if some < others && dice.one_in(2) { node(ME) } else { node(2) };
    let some = network(some);
    let name = |what: &str| format!("{what}{number}").parse().unwrap();
    match dice.below(12) {
        0 | 1 => drop(manager.create_network(network(number), overlay(&format!("n{number}")), NOW).await),
        2 => drop(manager.remove_network(&network(number).into(), NOW).await),
        3 => {
            let mut spec = ServiceSpec::new(name("s"), [network(number), some]);
            if dice.one_in(3) {
                spec.ports = PublishedPort::read(&format!("{}:80", 8000 + u16::from(number))).unwrap();
            }
            drop(manager.create_service(service(number), spec, NOW).await);
        }
        4 => drop(manager.remove_service(&service(number).into(), NOW).await),
        5..=8 => {
            let mut spec = EndpointSpec::new(some, name("c"), at);
            spec.service = dice.one_in(2).then(|| service(dice.below(5) as u8));
            if manager.attach(endpoint(number), spec, NOW).await.is_ok() {
                drop(manager.report(endpoint(number), Stay { node: at, moves: 0 }, Ok(())).await);
            }
        }
        9 if others == 5 => drop(manager.relocate(endpoint(number), at, NOW).await),
        _ => drop(manager.detach(endpoint(number), NOW).await),
    }
}

/// A cable to a manager that can be cut.
struct Cable {
    address: SocketAddr,
    ends: Arc<Mutex<Vec<AbortHandle>>>,
    _laid: JoinSet<()>,
}

impl Cable {
    async fn to(manager: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, ends) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<AbortHandle>>>::default());
        let (mut laid, new) = (JoinSet::new(), Arc::clone(&ends));
        laid.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((mut here, _)) = listener.accept().await {
                let end = carried.spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(manager).await {
                        drop(tokio::io::copy_bidirectional(&mut here, &mut there).await);
                    }
                });
                new.lock().unwrap().push(end);
            }
        });
        Self { address, ends, _laid: laid }
    }

    fn cut(&self) {
        self.ends.lock().unwrap().drain(..).for_each(|end| end.abort());
    }
}

fn limits() -> Limits {
    Limits { beat: Duration::from_millis(20), ..Limits::default() }
}

async fn town() -> Town {
    let town = Town::bearing(limits(), NodeLimits::default());
    let manager = town.manager();
    manager.found_cluster(network(99), NOW).await.unwrap();
    for number in [ME, 2] {
        manager.add_node(node(number), node_spec(&format!("h{number}")), NOW).await.unwrap();
    }
    town
}

fn feed_of(town: &Town, at: SocketAddr, number: u8, role: Role) -> RemoteFeed {
    let credentials = town.realm.credentials(node(number), role);
    ControlClient::of_managers(Managers::new([at], &credentials).unwrap()).follow()
}

/// Heeds what is told until that is all; now and then it stops waiting, as a task does that has something else to do.
async fn listen(feed: &mut RemoteFeed, mirror: &mut Mirror, all: &Mirror, dice: &mut Dice) {
    for _ in 0..400 {
        if mirror == all {
            return;
        }
        let patience = if dice.one_in(3) { Duration::ZERO } else { Duration::from_millis(500) };
        match tokio::time::timeout(patience, feed.next()).await {
            Ok(Ok(told)) => told.into_iter().for_each(|change| mirror.heed(change)),
            Ok(Err(FollowError::Remote(_))) | Err(_) => {}
            Ok(Err(error)) => panic!("{error}"),
        }
    }
    panic!("it is never told all: {mirror:#?} in place of {all:#?}");
}

async fn watch(feed: &mut RemoteFeed, mirror: &mut Mirror, services: &BTreeSet<Reference>) {
    for _ in 0..100 {
        if let Ok(told) = feed.watch(services.clone()).await {
            return told.into_iter().for_each(|change| mirror.heed(change));
        }
    }
    panic!("it is never told");
}

#[tokio::test]
async fn whatever_happens_a_worker_has_what_it_needs_of_the_catalogue_and_nothing_else() {
    for seed in 0..10 {
        let mut dice = Dice::new([seed; 32]);
        let mut town = town().await;
        let (manager, cable) = (town.manager(), Cable::to(town.address).await);
        let mut feed = feed_of(&town, cable.address, ME, Role::Worker);
        let (mut mirror, mut watched) = (Mirror::default(), BTreeSet::new());
        for _ in 0..25 {
            for _ in 0..dice.below(8) {
                one_call(&manager, &mut dice, 5).await;
            }
            match dice.below(10) {
                0 => town.again(limits()).await,
                1 | 2 => cable.cut(),
                3 => town.store.compact(),
                4 => {
                    watched = (0..dice.below(3)).map(|_| Reference::from(&*format!("s{}", dice.below(5)))).collect();
                    watch(&mut feed, &mut mirror, &watched).await;
                }
                _ => {}
            }
            if dice.one_in(2) {
                let all = Mirror::of(&manager).await;
                let needed = part(&all, node(ME), &watched);
                listen(&mut feed, &mut mirror, &filtered(all, &needed), &mut dice).await;
            }
        }
        let all = Mirror::of(&manager).await;
        let needed = part(&all, node(ME), &watched);
        listen(&mut feed, &mut mirror, &filtered(all, &needed), &mut dice).await;
    }
}

/// What is sent to somebody who says that, as text, as it comes.
struct Tap {
    told: Arc<Mutex<String>>,
    _listens: JoinSet<()>,
}

impl Tap {
    async fn of(town: &Town, number: u8, purpose: Value) -> Self {
        let (chain, key) = town.realm.issue(node(number), Role::Worker, DAY);
        let mut stream = credulous(town.address, Some((&chain, &key)), b"overlay-control/1").await.unwrap();
        let hello = json!({"hello": {"version": 1, "purpose": purpose}});
        stream.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
        let (told, mut listens) = (Arc::<Mutex<String>>::default(), JoinSet::new());
        let heard = Arc::clone(&told);
        listens.spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                heard.lock().unwrap().extend([&*line, "\n"]);
            }
            heard.lock().unwrap().push_str("END\n");
        });
        Self { told, _listens: listens }
    }

    /// What was told when that has been.
    async fn until(&self, is_told: impl Fn(&str) -> bool) -> String {
        for _ in 0..2_000 {
            let told = self.told.lock().unwrap().clone();
            if is_told(&told) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it is never told: {}", self.told.lock().unwrap());
    }

    /// What was told by when all was that there is now.
    async fn settled(&self, town: &Town) -> String {
        let at = town.store.list(&crate::kit::root()).await.unwrap().at.0;
        self.until(|told| {
            let lines = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.filter_map(|it| it["told"]["at"].as_u64()).any(|it| it >= at)
        })
        .await
    }
}

#[tokio::test]
async fn nothing_of_a_network_that_a_worker_never_had_a_part_in_is_ever_on_the_wire_to_it() {
    for seed in 20..26 {
        let mut dice = Dice::new([seed; 32]);
        let town = town().await;
        let manager = town.manager();
        let tap = Tap::of(&town, ME, json!("follow")).await;
        let (mut ever, mut all_ever, mut all) = (BTreeSet::new(), BTreeSet::new(), Mirror::default());
        for number in 0..120 {
            one_call(&manager, &mut dice, 3).await;
            if number % 8 == 0 {
                tap.settled(&town).await; // what is there now is told, and not what follows together with it
            }
            all = Mirror::of(&manager).await;
            ever.extend(part(&all, node(ME), &BTreeSet::new()));
            all_ever.extend(all.networks.keys().copied());
        }
        let told = tap.settled(&town).await;
        for of in &part(&all, node(ME), &BTreeSet::new()) & &all_ever {
            assert!(told.contains(&of.to_string()), "seed {seed}");
        }
        let others = &all_ever - &ever;
        assert!(!others.is_empty() && told.lines().count() > 10, "seed {seed}: {others:?} {}", told.lines().count());
        for of in others {
            assert!(!told.contains(&of.to_string()), "seed {seed}: {of} in {told}");
        }
    }
}

/// Two networks of two nodes, each with a service and a container of names that nothing else has.
async fn two_tenants() -> Town {
    let town = town().await;
    let manager = town.manager();
    for (number, name) in [(1, "mine"), (2, "secret")] {
        manager.create_network(network(number), overlay(&format!("{name}-net")), NOW).await.unwrap();
        let spec = ServiceSpec::new(format!("{name}-service").parse().unwrap(), [network(number)]);
        manager.create_service(service(number), spec, NOW).await.unwrap();
        let mut spec = EndpointSpec::new(network(number), format!("{name}-box").parse().unwrap(), node(number));
        spec.service = Some(service(number));
        manager.attach(endpoint(number), spec, NOW).await.unwrap();
    }
    town
}

fn is_mine_alone(told: &str) {
    assert!(told.contains("mine-net") && told.contains("mine-service") && told.contains("mine-box"), "{told}");
    let secrets = ["secret".to_owned(), network(2).to_string(), service(2).to_string(), endpoint(2).to_string()];
    assert!(secrets.iter().all(|secret| !told.contains(secret)), "{told}");
}

#[tokio::test]
async fn a_hostile_request_to_follow_gives_nothing_that_is_not_the_nodes() {
    let town = two_tenants().await;
    let at = town.store.list(&crate::kit::root()).await.unwrap().at.0;
    let begin = service(2).to_string();
    let guesses: Vec<&str> = (0..12).map(|len| &begin[..len]).chain(["*", "%", "secret", "secret-*", ""]).collect();
    let requests = [
        json!("follow"),
        json!({"follow_after": 0}),
        json!({"follow_after": 1}),
        json!({"follow_after": at}),
        json!({"follow_after": u64::MAX}),
        json!({"follow_with": {"after": null, "held": null, "watches": guesses}}),
        json!({"follow_with": {"after": u64::MAX, "held": guesses, "watches": guesses}}),
        json!({"follow_with": {"after": 1, "held": ["mine-service"], "watches": []}}),
        json!({"follow_with": {"after": 1, "held": null, "watches": [network(2), endpoint(2), node(2)]}}),
    ];
    for request in requests {
        let tap = Tap::of(&town, ME, request).await;
        is_mine_alone(&tap.settled(&town).await);
        // Neither of what changes later.
        let marks = |told: &str| told.matches("\"told\"").count();
        let before = marks(&tap.until(|told| marks(told) > 0).await);
        let manager = town.manager();
        manager.relocate(endpoint(2), node(2), NOW).await.unwrap();
        manager.detach(endpoint(2), NOW).await.unwrap();
        let mut spec = EndpointSpec::new(network(2), "secret-box".parse().unwrap(), node(2));
        spec.service = Some(service(2));
        manager.attach(endpoint(2), spec, NOW).await.unwrap();
        let told = tap.settled(&town).await;
        assert!(marks(&told) > before, "it hears how far it was told");
        is_mine_alone(&told);
    }
}

#[tokio::test]
async fn a_request_to_follow_that_is_none_is_refused() {
    let town = two_tenants().await;
    let many: Vec<String> = (0..1_025).map(|number| format!("s{number}")).collect();
    let long = "x".repeat(256);
    let requests = [
        json!({"follow_with": {"after": 1, "held": null, "watches": many}}),
        json!({"follow_with": {"after": 1, "held": many, "watches": []}}),
        json!({"follow_with": {"after": null, "held": null, "watches": [long]}}),
        json!({"follow_with": {"after": null, "held": null, "watches": [], "node": node(2)}}),
        json!({"follow_with": {"after": -1, "held": null, "watches": []}}),
        json!({"follow_with": {}}),
        json!({"follow_after": null}),
    ];
    for request in requests {
        let told = Tap::of(&town, ME, request.clone()).await.until(|told| told.ends_with("END\n")).await;
        assert!(told.contains("\"malformed\"") && !told.contains("\"told\""), "{request} {told}");
    }
}

#[tokio::test]
async fn who_takes_up_a_part_again_is_told_what_has_changed_of_it_and_no_more() {
    let town = two_tenants().await;
    let all = Tap::of(&town, ME, json!("follow")).await.settled(&town).await;
    let at = town.store.list(&crate::kit::root()).await.unwrap().at.0;
    assert!(all.contains("\"all\":true") && all.contains("\"part\":true"));
    town.manager().create_network(network(3), overlay("other"), NOW).await.unwrap();
    town.manager()
        .attach(endpoint(3), EndpointSpec::new(network(1), "new-box".parse().unwrap(), node(2)), NOW)
        .await
        .unwrap();
    let again = json!({"follow_with": {"after": at, "held": [], "watches": []}});
    let told = Tap::of(&town, ME, again).await.settled(&town).await;
    assert!(told.contains("new-box") && !told.contains("mine-box") && !told.contains("\"all\":true"), "{told}");
    // A node that had no part of it by then is given no other's past.
    let other = json!({"follow_with": {"after": at, "held": ["mine-service"], "watches": []}});
    let told = Tap::of(&town, 2, other).await.settled(&town).await;
    assert!(!told.contains("\"all\":true"), "{told}");
}

#[tokio::test]
async fn the_service_that_a_worker_watches_is_told_with_its_network_until_it_watches_it_no_more() {
    let town = two_tenants().await;
    let (mut feed, mut mirror) = (feed_of(&town, town.address, ME, Role::Worker), Mirror::default());
    let secret: BTreeSet<Reference> = ["secret-service".into()].into();
    watch(&mut feed, &mut mirror, &secret).await;
    assert!(mirror.networks.contains_key(&network(2)) && mirror.endpoints.contains_key(&endpoint(2)));
    watch(&mut feed, &mut mirror, &BTreeSet::new()).await;
    assert!(!mirror.networks.contains_key(&network(2)) && mirror.networks.contains_key(&network(1)));
    // One that does not exist yet comes as soon as it does.
    watch(&mut feed, &mut mirror, &["late".into()].into()).await;
    let spec = ServiceSpec::new("late".parse().unwrap(), [network(2)]);
    town.manager().create_service(service(3), spec, NOW).await.unwrap();
    while !mirror.services.contains_key(&service(3)) {
        feed.next().await.unwrap().into_iter().for_each(|change| mirror.heed(change));
    }
    assert!(mirror.networks.contains_key(&network(2)));
}

#[tokio::test]
async fn a_manager_is_told_all() {
    let town = two_tenants().await;
    let (mut feed, mut mirror) = (feed_of(&town, town.address, 3, Role::Manager), Mirror::default());
    watch(&mut feed, &mut mirror, &["secret-service".into()].into()).await;
    let all = Mirror::of(&town.manager()).await;
    listen(&mut feed, &mut mirror, &all, &mut Dice::new([0; 32])).await;
}

#[tokio::test]
async fn of_records_that_cannot_be_read_a_worker_is_told_of_its_own_networks_alone_and_they_stay_as_they_were() {
    let town = two_tenants().await;
    let (mut feed, mut mirror) = (feed_of(&town, town.address, ME, Role::Worker), Mirror::default());
    let all = Mirror::of(&town.manager()).await;
    let needed = part(&all, node(ME), &BTreeSet::new());
    let seen = filtered(all, &needed);
    listen(&mut feed, &mut mirror, &seen, &mut Dice::new([0; 32])).await;
    for number in [1, 2] {
        let text = format!("cluster/catalogue/endpoint/{}/{}", network(number), endpoint(number));
        let commit = Commit::new().put(Key::new(text).unwrap(), "secret?");
        town.store.commit_now(commit).unwrap();
    }
    for _ in 0..2_000 {
        if !feed.unreadable().is_empty() {
            break;
        }
        drop(tokio::time::timeout(Duration::from_millis(5), feed.next()).await);
    }
    let (key, flaw) = feed.unreadable().into_iter().next().unwrap();
    assert!(key.ends_with(&endpoint(1).to_string()) && !flaw.contains("secret"), "{key} {flaw}");
    assert_eq!(feed.unreadable().len(), 1);
    assert_eq!(mirror, seen);
}

#[tokio::test]
async fn a_worker_reads_what_it_needs_and_what_it_can_name_and_finds_nothing_by_trying() {
    let town = two_tenants().await;
    let worker = |number| {
        let credentials = town.realm.credentials(node(number), Role::Worker);
        ControlClient::of_managers(Managers::new([town.address], &credentials).unwrap())
    };
    let (mine, other) = (worker(ME), worker(2));
    let networks = |all: Vec<overlay_node::Network>| all.into_iter().map(|of| of.id).collect::<BTreeSet<_>>();
    assert_eq!(networks(mine.networks().await.unwrap()), [network(1), network(99)].into());
    assert_eq!(networks(other.networks().await.unwrap()), [network(2), network(99)].into());
    let services: Vec<_> = mine.services().await.unwrap().into_iter().map(|of| of.id).collect();
    assert_eq!(services, [service(1)]);
    assert_eq!(mine.endpoints(network(1)).await.unwrap().len(), 1);
    let refused = mine.endpoints(network(2)).await.unwrap_err();
    let expected = "may not read endpoints for a network that it has no endpoint on";
    assert!(refused.to_string().contains(expected), "{refused}");

    let (a_network, a_service) = (network(2).to_string(), service(2).to_string());
    for len in 0..12 {
        let not_found =
            |error: overlay_node::ControlError| assert!(error.to_string().ends_with("not found"), "{error}");
        not_found(mine.network(&a_network[..len].into()).await.unwrap_err());
        not_found(mine.service(&a_service[..len].into()).await.unwrap_err());
    }
    for named in ["secret-net", &a_network, &a_network[..12]] {
        assert_eq!(mine.network(&named.into()).await.unwrap().id, network(2));
    }
    assert_eq!(mine.service(&"SECRET-service".into()).await.unwrap().id, service(2));
    // As soon as something of it is attached there it needs the network.
    let spec = EndpointSpec::new(network(2), "joiner".parse().unwrap(), node(ME));
    mine.attach(endpoint(9), spec, NOW).await.unwrap();
    assert_eq!(mine.endpoints(network(2)).await.unwrap().len(), 2);
    assert_eq!(mine.services().await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_driver_of_a_worker_attaches_detaches_and_watches_with_what_it_is_told() {
    let town = two_tenants().await;
    let credentials = town.realm.credentials(node(3), Role::Worker);
    let client = ControlClient::of_managers(Managers::new([town.address], &credentials).unwrap());
    let dir = crate::kit::Directory::new();
    let builder = Driver::builder(node(3), MemoryGround::default(), Arc::new(client.clone()), client.follow());
    let driver = builder.gossip("127.0.0.1:0".parse().unwrap()).dir(dir.join("node")).start().await.unwrap();
    // The first container on a network, and the last.
    let attach = Attach::new("box".parse().unwrap(), Source::Path("/run/netns/box".into()), "mine-net");
    let attached = driver.attach(attach).await.unwrap();
    assert_eq!(attached.endpoint.spec.network, network(1));
    assert!(driver.detach(attached.endpoint.id).await.unwrap().is_some());
    // A service on a network that it has no container on: known by the first that is told.
    let mut watch = driver.watch("secret-service").await.unwrap();
    let told = watch.next().await.unwrap();
    assert!(matches!(&told, ServiceEvent::All(Some(all)) if all.service == service(2)), "{told:?}");
    let mut none = driver.watch("no-service").await.unwrap();
    assert!(matches!(none.next().await.unwrap(), ServiceEvent::All(None)));
    town.manager()
        .create_service(service(4), ServiceSpec::new("no-service".parse().unwrap(), [network(2)]), NOW)
        .await
        .unwrap();
    assert!(matches!(none.next().await.unwrap(), ServiceEvent::All(Some(_))));
    driver.stop().await;
}

/// As one of an older release, which knows no parts.
#[tokio::test]
async fn a_server_that_knows_no_parts_is_asked_for_all() {
    let dir = crate::kit::Directory::new();
    let path = dir.join("control.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let older = tokio::spawn(async move {
        let welcome = "{\"welcome\":{\"version\":1,\"request\":1000,\"beat_millis\":10000}}\n";
        let all = "{\"told\":{\"all\":true,\"more\":false,\"at\":7,\"changes\":[],\"unreadable\":{}}}\n";
        let refused = "{\"refused\":{\"malformed\":{\"flaw\":\"unknown variant\"}}}\n";
        for (purpose, answer) in [("follow_with", refused), ("\"follow\"", &*[welcome, all].concat())] {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut hello = String::new();
            stream.read_line(&mut hello).await.unwrap();
            assert!(hello.contains(purpose), "{hello}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let mut feed = ControlClient::new(&path).follow();
    assert_eq!(feed.watch(["web".into()].into()).await.unwrap(), []);
    older.await.unwrap();
}

/// As a manager of a later release, which tells what this one does not know.
#[tokio::test]
async fn what_a_later_release_tells_is_in_the_way_of_nothing_else() {
    let dir = crate::kit::Directory::new();
    let path = dir.join("control.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let node_of = |number: u8, role: &str| {
        let id = node(number);
        format!(
            "{{\"node\":{{\"id\":\"{id}\",\"spec\":{{\"name\":\"n{number}\",\"role\":\"{role}\"}},\"created\":0,\"condition\":\"allocated\"}}}}"
        )
    };
    let told = |all: bool, changes: &[String]| {
        let changes = changes.join(",");
        format!("{{\"told\":{{\"all\":{all},\"more\":false,\"at\":7,\"changes\":[{changes}],\"unreadable\":{{}}}}}}\n")
    };
    let lines = [
        "{\"welcome\":{\"version\":1,\"request\":1000,\"beat_millis\":10000}}\n".to_owned(),
        told(true, &[node_of(1, "worker"), "{\"secret\":{\"id\":7}}".to_owned(), node_of(2, "observer")]),
        told(false, &[node_of(1, "observer"), "{\"secret\":{\"id\":8}}".to_owned(), node_of(3, "worker")]),
        told(false, &[node_of(2, "worker"), format!("{{\"node_gone\":\"{}\"}}", node(1))]),
    ];
    let (later, heard) = (lines.concat(), tokio::sync::Notify::new());
    let mut feed = ControlClient::new(&path).follow();
    let speak = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(later.as_bytes()).await.unwrap();
        tokio::select! {
            _ = listener.accept() => panic!("it is asked again"),
            () = heard.notified() => {}
        }
    };
    let listen = async {
        let (one, two) = (format!("node/{}", node(1)), format!("node/{}", node(2)));
        let keys = |feed: &RemoteFeed| feed.unreadable().into_keys().collect::<Vec<_>>();
        let ids = |changes: Vec<CatalogueChange>| -> Vec<NodeId> {
            let of = |change: &CatalogueChange| match change {
                CatalogueChange::Node(of) => of.id,
                CatalogueChange::NodeGone(id) => *id,
                other => panic!("{other:?}"),
            };
            changes.iter().map(of).collect()
        };
        assert_eq!(ids(feed.next().await.unwrap()), [node(1)]);
        assert_eq!(keys(&feed), [two, "secret".to_owned()]);
        // Of what is not understood any more, what was known stays; the rest goes on.
        let mut next = feed.next().await.unwrap();
        if next.is_empty() {
            next = feed.next().await.unwrap();
        }
        assert_eq!(ids(next), [node(3)]);
        assert!(keys(&feed).contains(&one));
        let mut next = feed.next().await.unwrap();
        if next.is_empty() {
            next = feed.next().await.unwrap();
        }
        assert_eq!(ids(next), [node(1), node(2)]);
        assert_eq!(keys(&feed), ["secret"]);
        heard.notify_one();
    };
    tokio::join!(speak, listen);
}
