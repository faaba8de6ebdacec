//! The socket's file.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use overlay_core::MemoryStore;
use overlay_driver::control::{BindError, ControlClient, ControlServer};
use overlay_node::Control;

use crate::kit::{Directory, Served, exists, manager};

fn server() -> ControlServer {
    ControlServer::new(Arc::new(manager(Arc::new(MemoryStore::default()))))
}

#[tokio::test]
async fn what_a_dead_process_left_is_replaced() {
    let directory = Directory::new();
    let path = directory.join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(exists(&path));
    let serving = server().bind(&path).await.unwrap();
    assert_eq!(ControlClient::new(&path).networks().await.unwrap(), []);
    serving.stop().await;
    assert!(!exists(&path));
}

#[tokio::test]
async fn a_living_server_keeps_its_place_and_the_second_is_told() {
    let served = Served::new().await;
    let error = server().bind(served.path()).await.unwrap_err();
    assert!(matches!(&error, BindError::Conflict { path } if *path == served.path()), "{error:?}");
    let text = format!("another process serves {}: stop it, or choose another path", served.path().display());
    assert_eq!(error.to_string(), text);
    served.client().networks().await.unwrap();
}

#[tokio::test]
async fn of_many_that_find_a_dead_ones_socket_one_is_bound() {
    let directory = Directory::new();
    let path = directory.join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    let many: Vec<_> = (0..8).map(|_| tokio::spawn(server().bind(path.clone()))).collect();
    let mut bound = Vec::new();
    for one in many {
        match one.await.unwrap() {
            Ok(serving) => bound.push(serving),
            Err(error) => assert!(matches!(error, BindError::Conflict { .. }), "{error:?}"),
        }
    }
    assert_eq!(bound.len(), 1);
    ControlClient::new(&path).networks().await.unwrap();
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let directory = Directory::new();
    let path = directory.join("precious");
    std::fs::write(&path, "text").unwrap();
    let error = server().bind(&path).await.unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");

    let target = directory.join("target.sock");
    drop(UnixListener::bind(&target).unwrap());
    let link = directory.join("link.sock");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(matches!(server().bind(&link).await, Err(BindError::NotASocket { .. })));
    assert!(exists(&target) && exists(&link));
}

#[tokio::test]
async fn nobody_but_those_who_may_can_open_it() {
    let directory = Directory::new();
    for mode in [0o600, 0o660] {
        let path = directory.join("control.sock");
        let serving = server().with_mode(mode).bind(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        serving.stop().await;
    }
}

#[tokio::test]
async fn where_no_socket_can_be_nothing_is_left() {
    let directory = Directory::new();
    let long = directory.join(&"x".repeat(120));
    let error = server().bind(&long).await.unwrap_err();
    assert!(matches!(error, BindError::System { .. }), "{error:?}");
    let nowhere = directory.join("missing").join("control.sock");
    let error = server().bind(&nowhere).await.unwrap_err();
    assert!(error.to_string().starts_with("could not open "), "{error}");
    assert_eq!(std::fs::read_dir(directory.join("")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_dropped_server_takes_its_file_along_and_not_that_of_another() {
    let mut served = Served::new().await;
    std::fs::remove_file(served.path()).unwrap();
    let other = server().bind(served.path()).await.unwrap();
    served.serving = None;
    assert!(exists(&served.path()), "it is another's");
    drop(other);
    assert!(!exists(&served.path()));
}
