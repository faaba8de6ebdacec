//! Whatever is sent, and whatever is left unread, the server lives on.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use overlay_driver::control::{Access, ControlServer, Limits};
use overlay_node::Control;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::kit::{NOW, Served, network, overlay, until};

const HELLO: &str = "{\"hello\":{\"version\":1,\"purpose\":\"call\"}}\n";

/// Sends that, and nothing else; gives the lines that come until the server closes.
async fn exchange(path: &Path, bytes: &[u8]) -> Vec<Value> {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // The server may close before it has read all.
    let is_sent = stream.write_all(bytes).await.is_ok();
    if is_sent {
        drop(stream.shutdown().await);
    }
    let mut told = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut told).await {}
    let lines = told.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

async fn after_hello(served: &Served, text: &str) -> Vec<Value> {
    let mut told = exchange(&served.path(), format!("{HELLO}{text}").as_bytes()).await;
    assert!(told.remove(0).get("welcome").is_some());
    told
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let calls = prop_oneof![
        Just(r#"{"networks":{}}"#),
        Just(r#"{"network":{"network":"x"}}"#),
        Just(r#"{"remove_network":{"network":"x"}}"#),
        Just(r#"{"create_network":{"id":"0","spec":{}}}"#),
        Just(r#"{"attach":{"id":7}}"#),
        Just(r#"{"local":"who"}"#),
        Just(r#"{"local":{"bytes":300000}}"#),
        Just(r#"{"local":[[[[[]]]]]}"#),
        Just(r#"{"endpoint":{"endpoint":"20010000000000000000000000000001"}}"#),
        Just(r#"{"report":{"endpoint":null}}"#),
        Just("null"),
    ];
    let request =
        (any::<u64>(), calls).prop_map(|(id, call)| format!("{{\"id\":{id},\"call\":{call}}}\n").into_bytes());
    let cut = (any::<prop::sample::Index>(), any::<u8>());
    let broken = (request.clone(), cut).prop_map(|(mut line, (at, byte))| {
        let at = at.index(line.len());
        line[at] = byte;
        line
    });
    prop_oneof![
        3 => request,
        3 => broken,
        1 => Just(HELLO.as_bytes().to_vec()),
        1 => Just(b"{\"hello\":{\"version\":1,\"purpose\":\"follow\"}}\n".to_vec()),
        1 => (any::<Option<u64>>(), vec(".{0,300}", 0..4), any::<bool>()).prop_map(|(after, named, holds)| {
            let wish = json!({"after": after, "held": holds.then_some(&named), "watches": named});
            let hello = json!({"hello": {"version": 1, "purpose": {"follow_with": wish}}});
            format!("{hello}\n").into_bytes()
        }),
        1 => (0_usize..3000).prop_map(|depth| ["[".repeat(depth), "\n".to_owned()].concat().into_bytes()),
        1 => Just(b"\n".to_vec()),
        2 => vec(any::<u8>(), 0..200),
    ]
}

#[test]
fn any_bytes_are_refused_or_closed_on_and_others_are_served() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let short = Duration::from_secs(5);
    let limits = Limits { request: 4096, hello: short, idle: short, in_flight: 4, ..Limits::default() };
    let served = runtime.block_on(Served::bearing(limits));
    runtime.block_on(served.manager().create_network(network(1), overlay("front"), NOW)).unwrap();
    let client = served.client();
    let bytes = (any::<bool>(), vec(line(), 0..12)).prop_map(|(is_polite, lines)| match is_polite {
        true => [HELLO.as_bytes(), &lines.concat()].concat(),
        false => lines.concat(),
    });
    let mut runner = TestRunner::new(ProptestConfig { cases: 256, ..ProptestConfig::default() });
    let held = runner.run(&bytes, |bytes| {
        runtime.block_on(async {
            exchange(&served.path(), &bytes).await;
            prop_assert!(client.networks().await.is_ok_and(|networks| networks.len() == 1));
            Ok(())
        })
    });
    held.unwrap();
    runtime.block_on(served.client().networks()).unwrap();
}

#[tokio::test]
async fn a_client_of_another_version_is_told_both() {
    let served = Served::new().await;
    let told = exchange(&served.path(), b"{\"hello\":{\"version\":9,\"later\":[]}}\n").await;
    assert_eq!(told, [json!({"refused": {"version": {"client": 9, "server": 1}}})]);
}

#[tokio::test]
async fn a_request_that_is_not_known_is_answered_so_and_the_next_is_served() {
    let served = Served::bearing(Limits { in_flight: 1, ..Limits::default() }).await;
    let told = after_hello(
        &served,
        "{\"id\":7,\"call\":{\"fly\":{}}}\n{\"id\":8,\"call\":{\"networks\":{\"really\":1}}}\n{\"id\":9,\"call\":{\"networks\":{}}}\n",
    )
    .await;
    assert_eq!(told.len(), 3, "{told:?}");
    let flaw = |at: usize| told[at]["answer"]["outcome"]["error"]["malformed"]["flaw"].as_str().unwrap();
    assert!(
        told[0]["answer"]["id"] == 7 && flaw(0).contains("unknown variant `fly`, expected one of `create_network`")
    );
    assert!(told[1]["answer"]["id"] == 8 && flaw(1).contains("unknown field `really`"), "{}", flaw(1));
    assert_eq!(told[2], json!({"answer": {"id": 9, "outcome": {"ok": []}}}));
}

#[tokio::test]
async fn what_is_no_request_ends_the_connection_after_what_was_asked_before() {
    let served = Served::new().await;
    let told =
        after_hello(&served, "{\"id\":7,\"call\":{\"networks\":{}}}\nwhat?\n{\"id\":8,\"call\":{\"networks\":{}}}\n")
            .await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], json!({"answer": {"id": 7, "outcome": {"ok": []}}}));
    assert!(told[1]["refused"]["malformed"]["flaw"].is_string());
}

#[tokio::test]
async fn a_line_without_end_is_refused_and_one_that_is_cut_off_is_not_done() {
    let served = Served::bearing(Limits { request: 1000, ..Limits::default() }).await;
    let told = after_hello(&served, &"x".repeat(5000)).await;
    assert_eq!(told, [json!({"refused": {"too_long": {"limit": 1000}}})]);
    let create = json!({"id": 1, "call": {"create_network": {"id": network(1), "spec": overlay("front")}}}).to_string();
    assert_eq!(after_hello(&served, &create).await, [Value::Null; 0]);
    assert_eq!(served.manager().networks().await.unwrap(), []);
    assert_eq!(after_hello(&served, &format!("{create}\n")).await.len(), 1);
    assert_eq!(served.manager().networks().await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_closes_its_half_still_gets_its_answers() {
    let served = Served::new().await;
    let many: String = (0..50).map(|id| format!("{{\"id\":{id},\"call\":{{\"nodes\":{{}}}}}}\n")).collect();
    let mut ids: Vec<_> =
        after_hello(&served, &many).await.iter().map(|line| line["answer"]["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let short = Duration::from_millis(50);
    let served = Served::bearing(Limits { hello: short, idle: short, connections: 1, ..Limits::default() }).await;
    for first in ["", "{\"hello\":", HELLO, &format!("{HELLO}{{\"id\":7,")] {
        let mut stream = UnixStream::connect(served.path()).await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        assert_eq!(told.ends_with("\"bye\"\n"), first.starts_with(HELLO), "{first} {told}");
    }
}

#[tokio::test]
async fn who_reads_nothing_keeps_nobody_waiting_and_gets_no_more_done() {
    let limits = Limits { in_flight: 4, write: Duration::from_millis(300), ..Limits::default() };
    let served = Served::bearing(limits).await;
    let mut slow = UnixStream::connect(served.path()).await.unwrap();
    slow.write_all(HELLO.as_bytes()).await.unwrap();
    let many: String =
        (0..400).map(|id| format!("{{\"id\":{id},\"call\":{{\"local\":{{\"bytes\":1000000}}}}}}\n")).collect();
    slow.write_all(many.as_bytes()).await.unwrap();
    until(|| served.lever.asked.load(Ordering::SeqCst) >= 4).await;
    served.client().networks().await.unwrap();
    // Once it has had no room for a while it is closed; then a write fails.
    let mut is_closed = false;
    for _ in 0..2000 {
        is_closed = slow.write_all(b" ").await.is_err();
        if is_closed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(is_closed);
    let asked = served.lever.asked.load(Ordering::SeqCst);
    assert!(asked <= 8, "{asked} of 400 were done for nobody");
}

#[tokio::test]
async fn one_end_of_a_pair_is_served_as_a_connection_at_a_path_is_and_by_the_same_access() {
    let request = format!("{HELLO}{{\"id\":7,\"call\":{{\"networks\":{{}}}}}}\n");
    let serve = async |server: ControlServer| {
        let (theirs, mut ours) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(server.serve(theirs));
        let _ = ours.write_all(request.as_bytes()).await; // it may be closed already
        let _ = ours.shutdown().await;
        let mut told = Vec::new();
        while let Ok(1..) = ours.read_buf(&mut told).await {}
        serving.await.unwrap();
        String::from_utf8(told).unwrap()
    };
    let served = Served::new().await;
    let told = serve(served.server()).await;
    assert!(told.ends_with("{\"answer\":{\"id\":7,\"outcome\":{\"ok\":[]}}}\n"), "{told}");
    let told = serve(served.server().with_access(Access::only([u32::MAX - 1]))).await;
    assert!(told.starts_with("{\"refused\":{\"denied\":"), "{told}");
}
