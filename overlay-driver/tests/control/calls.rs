//! Calls and questions, as a client makes them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use overlay_driver::control::{AskError, ControlClient, ControlServer, Limits, RemoteError};
use overlay_node::{Control, ControlError};

use crate::kit::{Directory, NOW, Pull, Pulled, Served, Stuck, manager, network, overlay, until};

#[tokio::test]
async fn a_question_is_answered_or_refused_with_its_own_type_and_the_caller_is_known() {
    let served = Served::new().await;
    let client = served.client();
    let me = nix::unistd::geteuid().as_raw();
    let pid = i32::try_from(std::process::id()).ok();
    assert_eq!(client.ask(&Pull::Who).await.unwrap(), Pulled::Who { uid: me, pid });
    let refused = client.ask(&Pull::Refuse).await.unwrap_err();
    assert!(matches!(&refused, AskError::Refused(Stuck { at: 7 })), "{refused:?}");
    assert_eq!(refused.to_string(), "the lever is stuck at 7: oil it");
}

#[tokio::test]
async fn what_the_server_was_not_set_up_for_is_refused() {
    let directory = Directory::new();
    let path = directory.join("control.sock");
    let store = std::sync::Arc::new(overlay_core::MemoryStore::default());
    let _serving = ControlServer::new(std::sync::Arc::new(manager(store))).bind(&path).await.unwrap();
    let client = ControlClient::new(&path);
    let refused = client.ask(&Pull::Who).await.unwrap_err();
    let AskError::Unreachable(error) = refused else { panic!("{refused:?}") };
    assert_eq!(error.to_string(), "the server does not serve questions of its node");
    let refused = overlay_driver::control::Follow::next(&mut client.follow()).await.unwrap_err();
    assert!(
        matches!(&refused, overlay_driver::control::FollowError::Remote(RemoteError::Unserved { what }) if what == "the catalogue"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn many_calls_share_a_connection_and_none_waits_for_another() {
    let served = Served::bearing(Limits { connections: 1, ..Limits::default() }).await;
    let client = served.client();
    let waits: Vec<_> = (0..8).map(|_| tokio::spawn(wait(client.clone(), true))).collect();
    until(|| served.lever.asked.load(Ordering::SeqCst) == 8).await;
    assert_eq!(client.networks().await.unwrap(), []);
    served.lever.release.notify_waiters();
    for wait in waits {
        assert_eq!(wait.await.unwrap().unwrap(), Pulled::Done);
    }
}

async fn wait(client: ControlClient, changes: bool) -> Result<Pulled, AskError<Stuck>> {
    client.ask(&Pull::Wait { changes }).await
}

#[tokio::test]
async fn more_calls_than_a_connection_bears_wait_their_turn() {
    let served = Served::bearing(Limits { in_flight: 3, ..Limits::default() }).await;
    let client = served.client();
    let waits: Vec<_> = (0..10).map(|_| tokio::spawn(wait(client.clone(), true))).collect();
    until(|| served.lever.asked.load(Ordering::SeqCst) == 3).await;
    for done in 1..=10 {
        served.lever.release.notify_one();
        until(|| served.lever.done.load(Ordering::SeqCst) == done).await;
        assert!(served.lever.asked.load(Ordering::SeqCst) <= done + 3);
    }
    for wait in waits {
        assert_eq!(wait.await.unwrap().unwrap(), Pulled::Done);
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_is_done_all_the_same_and_harms_no_other() {
    let served = Served::bearing(Limits { in_flight: 2, ..Limits::default() }).await;
    let client = served.client();
    for round in 1..=6 {
        let waits = tokio::spawn(wait(client.clone(), true));
        until(|| served.lever.asked.load(Ordering::SeqCst) == round).await;
        waits.abort();
        drop(waits.await);
        served.lever.release.notify_one();
        until(|| served.lever.done.load(Ordering::SeqCst) == round).await;
    }
    client.create_network(network(1), overlay("front"), NOW).await.unwrap();
}

#[tokio::test]
async fn what_takes_too_long_is_in_doubt_if_it_may_have_changed_something() {
    let served = Served::new().await;
    let client = served.client().with_deadline(Duration::from_secs(1));
    client.connect().await.unwrap();
    let late = |error: &RemoteError| matches!(error, RemoteError::Late { .. });
    let error = wait(client.clone(), true).await.unwrap_err();
    assert!(error.is_in_doubt() && matches!(&error, AskError::InDoubt(error) if late(error)), "{error:?}");
    let error = wait(client.clone(), false).await.unwrap_err();
    assert!(matches!(&error, AskError::Unreachable(error) if late(error)), "{error:?}");
    served.client().networks().await.unwrap();
}

#[tokio::test]
async fn a_server_waits_for_no_call_for_ever() {
    let served = Served::bearing(Limits { call: Duration::from_millis(50), ..Limits::default() }).await;
    let error = wait(served.client(), true).await.unwrap_err();
    let AskError::InDoubt(RemoteError::Late { after }) = error else { panic!("{error:?}") };
    assert_eq!(after, Duration::from_millis(50));
}

#[tokio::test]
async fn who_leaves_it_idle_gets_another_connection() {
    let served = Served::bearing(Limits { idle: Duration::from_millis(20), ..Limits::default() }).await;
    let client = served.client();
    for number in 0..8 {
        client.create_network(network(number), overlay(&format!("n{number}")), NOW).await.unwrap();
        // About as long as a connection may be idle, so that some calls meet its end.
        tokio::time::sleep(Duration::from_millis(18 + u64::from(number))).await;
    }
    assert_eq!(client.networks().await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_server_that_stops_answers_what_it_took() {
    let mut served = Served::new().await;
    let client = served.client();
    let waits = tokio::spawn(wait(client.clone(), true));
    until(|| served.lever.asked.load(Ordering::SeqCst) == 1).await;
    let stopping = tokio::spawn(served.serving.take().unwrap().stop());
    until(|| !crate::kit::exists(&served.path())).await;
    served.lever.release.notify_one();
    assert_eq!(waits.await.unwrap().unwrap(), Pulled::Done);
    stopping.await.unwrap();
    let error = client.networks().await.unwrap_err();
    assert!(matches!(error, ControlError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn a_request_longer_than_the_server_takes_is_not_sent() {
    let served = Served::bearing(Limits { request: 1000, ..Limits::default() }).await;
    let client = served.client();
    let mut spec = overlay("front");
    spec.labels.insert("long".to_owned(), "x".repeat(2000));
    let error = client.create_network(network(1), spec, NOW).await.unwrap_err();
    let ControlError::Unreachable(source) = &error else { panic!("{error:?}") };
    assert!(source.to_string().ends_with("bytes: the server takes 1000"), "{source}");
    client.create_network(network(1), overlay("front"), NOW).await.unwrap();
}

#[tokio::test]
async fn in_place_of_an_answer_that_is_too_long_its_caller_is_told_so() {
    let served = Served::bearing(Limits { answer: 1000, ..Limits::default() }).await;
    let client = served.client();
    let error = client.ask(&Pull::Bytes(2000)).await.unwrap_err();
    assert!(matches!(&error, AskError::Unreachable(RemoteError::AnswerTooLong { limit: 1000, .. })), "{error:?}");
    assert_eq!(client.ask(&Pull::Bytes(10)).await.unwrap(), Pulled::Bytes("x".repeat(10)));
}

#[tokio::test]
async fn who_asks_what_panics_is_in_doubt_and_the_server_lives_on() {
    let served = Served::new().await;
    let client = served.client();
    let error = client.ask(&Pull::Panic).await.unwrap_err();
    assert!(matches!(error, AskError::InDoubt(RemoteError::Lost)), "{error:?}");
    assert_eq!(client.networks().await.unwrap(), []);
}
