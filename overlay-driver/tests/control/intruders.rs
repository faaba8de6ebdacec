//! Who means ill, or is somebody else: what it is refused, and what others are spared.

use std::sync::Arc;

use overlay_core::NodeId;
use overlay_core::testing::Dice;
use overlay_crypto::gossip::GossipKey;
use overlay_crypto::pki::{Algorithm, CertificateAuthority, Known, Role, SigningKey, SigningRequest};
use overlay_driver::control::{ControlClient, Joined, Managers, RefusalKind, join};
use overlay_driver::testing::{credulous, date};
use overlay_driver::{Driver, Membership, MemoryGround};
use overlay_node::{Control, EndpointSpec, Feed};

use crate::cluster::{FIRST, Kept, Town, eventually, kind, quick};
use crate::crude::speak;
use crate::kit::{endpoint, manager, network, node, node_spec, overlay, root};

/// What a node may say that means ill: a call of another's, an ask that is for managers, nonsense; or, damaged, what ends its connection.
fn hostile(dice: &mut Dice, number: usize, is_damaged: bool) -> Vec<u8> {
    let (own, other) = (node(1), node(2));
    let end = endpoint(2);
    let calls = [
        format!("{{\"detach\":{{\"endpoint\":\"{end}\"}}}}"),
        format!("{{\"relocate\":{{\"endpoint\":\"{end}\",\"node\":\"{own}\"}}}}"),
        format!(
            "{{\"report\":{{\"endpoint\":\"{end}\",\"stay\":{{\"node\":\"{own}\",\"moves\":0}},\"failure\":\"x\"}}}}"
        ),
        format!("{{\"add_node\":{{\"id\":\"{other}\",\"spec\":{{\"name\":\"x\",\"role\":\"manager\"}}}}}}"),
        format!("{{\"remove_node\":{{\"node\":\"{other}\"}}}}"),
        format!("{{\"remove_node\":{{\"node\":\"{FIRST}\"}}}}"),
        "{\"remove_network\":{\"network\":\"front\"}}".to_owned(),
        "{\"networks\":{}}".to_owned(),
        format!("{{\"cluster\":{{\"set_role\":{{\"node\":\"{own}\",\"role\":\"manager\"}}}}}}"),
        format!("{{\"cluster\":{{\"remove\":{{\"node\":\"{other}\"}}}}}}"),
        "{\"cluster\":{\"rotate_root\":{}}}".to_owned(),
        "{\"cluster\":{\"rotate_token\":{\"role\":\"manager\"}}}".to_owned(),
        "{\"cluster\":{\"sealing_key\":{}}}".to_owned(),
        "{\"cluster\":{\"members\":{}}}".to_owned(),
        "{\"cluster\":{\"stand\":{\"revision\":18446744073709551615,\"ring\":0}}}".to_owned(),
        "{\"cluster\":{\"renew\":{\"request\":\"3082ffff00\"}}}".to_owned(),
        "{\"cluster\":{\"rescue\":{\"certificate\":\"00\",\"signature\":\"00\",\"request\":\"00\"}}}".to_owned(),
        format!(
            "{{\"cluster\":{{\"join\":{{\"token\":\"SWMTKN-1-x\",\"request\":\"{}\",\"node\":null}}}}}}",
            "00".repeat(dice.below(400))
        ),
        "{\"local\":{\"Lock\":null}}".to_owned(),
        format!("{}{}", "[".repeat(100), "]".repeat(100)),
    ];
    let mut line = format!("{{\"id\":{number},\"call\":{}}}", calls[dice.below(calls.len())]).into_bytes();
    if is_damaged {
        for _ in 0..1 + dice.below(4) {
            let at = dice.below(line.len());
            line[at] = dice.below(256) as u8;
        }
    }
    line.push(b'\n');
    line
}

#[tokio::test]
async fn ten_thousand_hostile_requests_change_nothing_and_the_cluster_is_served_still() {
    let town = Town::new().await;
    let (one, two) = (town.join(1, Role::Worker).await, town.join(2, Role::Worker).await);
    let client =
        |joined: &Joined| ControlClient::of_managers(Managers::new([town.first.address], &joined.credentials).unwrap());
    client(&one).add_node(node(1), node_spec("one"), date()).await.unwrap();
    client(&two).add_node(node(2), node_spec("two"), date()).await.unwrap();
    town.client().create_network(network(1), overlay("front"), date()).await.unwrap();
    let web = EndpointSpec::new(network(1), "web".parse().unwrap(), node(2));
    let web = client(&two).attach(endpoint(2), web, date()).await.unwrap();
    let authority = &town.first.authority;
    let state = async || {
        let endpoint = town.client().endpoint(endpoint(2)).await.unwrap();
        let members = authority.members(date()).await.unwrap();
        let members: Vec<_> = members.into_iter().map(|it| (it.node, it.role)).collect();
        let (nodes, networks) = (town.client().nodes().await.unwrap(), town.client().networks().await.unwrap());
        let tokens = (town.token(Role::Worker).await.to_string(), town.token(Role::Manager).await.to_string());
        (endpoint, members, nodes, networks, tokens, authority.trusted().await.unwrap().roots)
    };
    let before = state().await;
    assert_eq!(before.0.as_ref(), Some(&web));

    let hello = b"{\"hello\":{\"version\":1,\"purpose\":\"call\"}}\n";
    let own = (&one.issued.chain[..], &one.key);
    let (mut dice, mut said, mut answered) = (Dice::new([7; 32]), 0, 0);
    while said < 10_000 {
        let (mut bytes, who) = (hello.to_vec(), dice.below(8));
        let lines = if who < 6 { 30 } else { 1 };
        for line in 1..=lines {
            bytes.extend(hostile(&mut dice, said, line == lines)); // the last may end the connection
            said += 1;
        }
        let told = match who {
            0..6 => speak(town.first.address, Some(own), b"overlay-control/1", &bytes).await,
            6 => speak(town.first.address, None, b"overlay-join/1", &bytes).await,
            _ => {
                let mut stream = tokio::net::TcpStream::connect(town.first.address).await.unwrap();
                drop(tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await);
                continue;
            }
        };
        let told = told.unwrap_or_default();
        answered += told.windows(9).filter(|it| *it == b"\"answer\":").count();
    }
    assert!(answered > 9000, "nearly all that was said was read, and refused: {answered}");
    assert_eq!(state().await, before);
    client(&one).nodes().await.unwrap();
    join([town.first.address], &town.token(Role::Worker).await, Some(node(3)), None).await.unwrap();
}

#[tokio::test]
async fn a_stranger_has_one_call_and_keeps_no_node_out() {
    let town = Town::new().await;
    let one = town.join(1, Role::Worker).await;
    let asks = |number: usize| {
        let ask = format!(
            "{{\"id\":{number},\"call\":{{\"cluster\":{{\"join\":{{\"token\":\"x\",\"request\":\"00\",\"node\":null}}}}}}}}\n"
        );
        ask.into_bytes()
    };
    let bytes = [&b"{\"hello\":{\"version\":1,\"purpose\":\"call\"}}\n"[..], &asks(1), &asks(2), &asks(3)].concat();
    let told = speak(town.first.address, None, b"overlay-join/1", &bytes).await.unwrap();
    let told = String::from_utf8(told).unwrap();
    assert_eq!(told.lines().filter(|line| line.contains("\"answer\"")).count(), 1, "{told}");

    // Strangers that say nothing take places of strangers alone.
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(credulous(town.first.address, None, b"overlay-join/1").await.unwrap());
    }
    let fifth = join([town.first.address], &town.token(Role::Worker).await, Some(node(2)), None).await;
    assert!(fifth.is_err(), "so many of one address");
    let client = ControlClient::of_managers(Managers::new([town.first.address], &one.credentials).unwrap());
    client.nodes().await.unwrap();
    drop(idle);
    let token = town.token(Role::Worker).await;
    eventually(|| async { join([town.first.address], &token, Some(node(2)), None).await.is_ok() }).await;
}

#[tokio::test]
async fn whoever_has_another_token_or_another_nodes_id_is_given_nothing_of_its() {
    let town = Town::new().await;
    // A node that is at work, and has never joined.
    town.client().add_node(node(5), node_spec("five"), date()).await.unwrap();
    let taken = join([town.first.address], &town.token(Role::Worker).await, Some(node(5)), None).await.unwrap_err();
    assert_eq!(kind(&taken), Some(RefusalKind::Taken), "{taken:?}");
    assert!(taken.to_string().contains("has never joined"), "{taken}");
    // One that has joined and never came to work is removed by its id, and it is said what it knew.
    town.join(6, Role::Manager).await;
    let gone = town.client().remove_member(&node(6).into()).await.unwrap();
    assert!(gone.knew.contains(&Known::Root) && gone.knew.contains(&Known::Tokens) && gone.ended.is_empty());
    assert!(
        town.client().remove_node(&node(6).into(), date()).await.unwrap().is_empty(),
        "done before, it is found done"
    );
    let last = town.client().remove_member(&FIRST.into()).await.unwrap_err();
    assert_eq!(last.kind(), Some(RefusalKind::LastManager), "{last}");
    let nobody = town.client().remove_member(&"nobody".into()).await.unwrap_err();
    assert!(nobody.to_string().contains("not found"), "{nobody}");
}

/// What who has no certificate is answered that would join by this token as this node.
async fn answered(town: &Town, token: &str, request: &str, id: NodeId) -> String {
    let ask = format!(
        "{{\"id\":1,\"call\":{{\"cluster\":{{\"join\":{{\"token\":\"{token}\",\"request\":\"{request}\",\"node\":\"{id}\"}}}}}}}}\n"
    );
    let bytes = format!("{{\"hello\":{{\"version\":1,\"purpose\":\"call\"}}}}\n{ask}");
    let told = speak(town.first.address, None, b"overlay-join/1", bytes.as_bytes()).await.unwrap();
    let told = String::from_utf8(told).unwrap();
    told.lines().find(|line| line.contains("\"answer\"")).unwrap().to_owned()
}

#[tokio::test]
async fn who_has_no_token_is_not_told_whether_an_id_is_anybodys() {
    let town = Town::new().await;
    // At work without a certificate; joined; removed; nobody.
    town.client().add_node(node(5), node_spec("five"), date()).await.unwrap();
    town.join(6, Role::Worker).await;
    town.join(7, Role::Worker).await;
    town.client().remove_member(&node(7).into()).await.unwrap();
    let of_another = Town::new().await.token(Role::Worker).await.to_string();
    let rotated = town.token(Role::Worker).await.to_string();
    town.client().rotate_token(Role::Worker).await.unwrap();
    let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    let request = SigningRequest::create(&key).unwrap();
    let request: String = request.as_der().iter().map(|byte| format!("{byte:02x}")).collect();
    for token in ["x", &of_another, &rotated] {
        for request in [&*request, "00"] {
            let told = answered(&town, token, request, node(99)).await;
            for number in [5, 6, 7] {
                assert_eq!(answered(&town, token, request, node(number)).await, told, "{number}, {token}");
            }
        }
    }
    let right = town.token(Role::Worker).await.to_string();
    assert!(answered(&town, &right, &request, node(5)).await.contains("taken"), "who has one is told");
}

/// A driver of a node, whose gossip is sealed with that key.
async fn sealed(node: NodeId, key: &GossipKey, town: &Town) -> (Driver, std::path::PathBuf) {
    let dir = std::env::temp_dir().join(format!("overlay-carried-{}-{node}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let feed = Feed::new(Arc::clone(&town.store), &root()).unwrap();
    let builder = Driver::builder(node, MemoryGround::default(), Arc::new(manager(Arc::clone(&town.store))), feed);
    let builder = builder.gossip("127.0.0.1:0".parse().unwrap()).dir(&dir).gossip_keys([key.clone()]);
    (builder.start().await.unwrap(), dir)
}

#[tokio::test]
async fn keys_of_gossip_that_are_changed_come_to_who_joins_and_to_who_was_away() {
    let (town, first) = (Town::new().await, GossipKey::from_bytes([7; 32]));
    let (driver, dir) = sealed(FIRST, &first, &town).await;
    let carries = town.first.membership.carry_gossip_keys(driver.clone(), Some(town.first.cluster.clone()));
    let primary = async |driver: &Driver| driver.gossip_keys().await.unwrap().unwrap().keys[0].id();
    driver.rotate_gossip_keys([]).await.unwrap();
    eventually(|| async { primary(&driver).await != first.id() }).await;
    let next = primary(&driver).await;
    eventually(|| async { town.first.cluster.ring().unwrap().keys[0].id() == next }).await;
    let joined = town.join(1, Role::Worker).await;
    assert_eq!(joined.ring.as_ref().unwrap().keys[0].id(), next, "who joins is given the present one");

    // One that has the first alone, and whom no gossip reaches.
    let (away, away_dir) = sealed(node(1), &first, &town).await;
    let member = Membership::begin(Membership::parts_of(joined).unwrap(), Arc::<Kept>::default(), quick()).unwrap();
    let carries_on = member.carry_gossip_keys(away.clone(), None);
    let has = async || away.gossip_keys().await.unwrap().unwrap().keys.iter().any(|key| key.id() == next);
    eventually(|| async { has().await }).await;
    for task in [carries, carries_on] {
        task.abort();
    }
    for (driver, dir) in [(driver, dir), (away, away_dir)] {
        driver.stop().await;
        let _ = std::fs::remove_dir_all(dir);
    }
}
