//! A body for overlay-driver: what a program may say at a node's control socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use overlay_core::{MemoryStore, NetworkId, NodeId, Prefix, Store, UnixTime};
use overlay_driver::control::{Caller, ControlServer, Local, Question};
use overlay_node::{Control, Manager, NetworkSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] = &[("driver_control", control)];

/// A connection on which all of this is said, and then no more: what comes back is lines of JSON that begin with a welcome or a refusal;
/// nothing is answered that was not asked, nor twice; who was not welcomed has changed nothing; and the catalogue can still be read.
fn control(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    let Some((store, root)) = Prefix::new("fuzz/").ok().map(|root| (Arc::new(MemoryStore::default()), root)) else {
        return;
    };
    let Ok(manager) = Manager::new(store.clone(), &root, NodeId::from_bytes([1; 16]), [7; 32]) else { return };
    let manager: Arc<dyn Control> = Arc::new(manager);
    let told = runtime.block_on(async {
        found(&*manager).await;
        exchange(Arc::clone(&manager), store, &root, bytes).await
    });
    let lines: Vec<Value> = told.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(json).collect();
    let mut asked: BTreeMap<u64, usize> = BTreeMap::new();
    for id in bytes.split(|byte| *byte == b'\n').skip(1).filter_map(number) {
        *asked.entry(id).or_default() += 1;
    }
    for line in lines.iter().filter_map(|line| line.get("answer")) {
        let left = line.get("id").and_then(Value::as_u64).and_then(|id| asked.get_mut(&id));
        assert!(left.as_ref().is_some_and(|left| **left > 0), "an answer that nobody asked for: {line}");
        left.into_iter().for_each(|left| *left -= 1);
    }
    let is_welcome = lines.first().is_some_and(|first| first.get("welcome").is_some());
    let is_refused = lines.first().is_none_or(|first| first.get("refused").is_some());
    assert!(is_welcome || is_refused && lines.len() < 2, "{lines:?}");
    let networks = runtime.block_on(manager.networks());
    assert!(networks.is_ok_and(|networks| is_welcome || networks.len() == 1));
}

fn json(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {}", line.escape_ascii()))
}

/// Of a request as a server numbers it.
fn number(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        id: u64,
    }
    serde_json::from_slice::<Numbered>(line).ok().map(|numbered| numbered.id)
}

/// A node, and a network with room.
async fn found(manager: &dyn Control) {
    let Ok(name) = "front".parse() else { return };
    let front = NetworkSpec { attachable: true, ..NetworkSpec::overlay(name) };
    let created = manager.create_network(NetworkId::from_bytes([2; 16]), front, UnixTime::EPOCH).await;
    assert!(created.is_ok(), "{created:?}");
}

async fn exchange(manager: Arc<dyn Control>, store: Arc<dyn Store>, root: &Prefix, bytes: &[u8]) -> Vec<u8> {
    let server = ControlServer::new(manager).with_clock(|| UnixTime::EPOCH).with_local::<Echo>(Arc::new(Echoes));
    let (Ok(server), Ok((theirs, ours))) = (server.with_feed(store, root), UnixStream::pair()) else {
        return Vec::new();
    };
    let (mut reader, mut writer) = ours.into_split();
    let speaks = async move {
        // The server may have closed before it has read all.
        let _ = writer.write_all(bytes).await;
        let _ = writer.shutdown().await;
    };
    let mut told = Vec::new();
    let (_, _, read) = tokio::join!(server.serve(theirs), speaks, reader.read_to_end(&mut told));
    let _ = read; // what was not read at the other end resets a connection
    told
}

/// Says the same again.
#[derive(Debug, Serialize, Deserialize)]
struct Echo(Value);

#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("never")]
struct Never;

impl Question for Echo {
    type Answer = Value;
    type Refusal = Never;

    fn changes(&self) -> bool {
        false
    }
}

struct Echoes;

#[async_trait]
impl Local<Echo> for Echoes {
    async fn answer(&self, question: Echo, _: &Caller) -> Result<Value, Never> {
        Ok(question.0)
    }
}
