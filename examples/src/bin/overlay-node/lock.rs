//! A node whose vault is locked, and how it is unlocked; the same of one that runs.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use overlay_crypto::pki::UnlockKey;
use overlay_driver::control::{Caller, ControlClient, ControlServer, Local};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::Outcome;
use crate::agent::random;
use crate::commands::{ask, show};
use crate::failure::Failure;
use crate::question::{NodeAnswer, NodeQuestion, refused};
use crate::seat::Seat;

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Lock {
    /// Lock the vault from now on, or with another key; or not any more.
    Set { off: bool },
    /// Say the key to a node that waits for it.
    Unlock,
    /// Show it.
    Show,
}

/// Waits until somebody unlocks the node's vault; meanwhile all else is refused at its socket.
pub(crate) async fn wait(state: &Path, dir: &Path) -> Outcome<Seat> {
    let (opened, seat) = oneshot::channel();
    let waiting = Waiting { state: state.to_owned(), opened: Mutex::new(Some(opened)) };
    let serving = ControlServer::locked::<NodeQuestion>(Arc::new(waiting)).bind(dir.join("control.sock")).await?;
    println!(
        "the node's keys are locked: it starts once `overlay-node node unlock` has said its unlock key at {}",
        serving.path().display()
    );
    let seat = seat.await.map_err(|_| "the vault that was locked is not there any more")?;
    serving.stop().await;
    Ok(seat)
}

/// Answers while the vault is locked.
struct Waiting {
    state: std::path::PathBuf,
    opened: Mutex<Option<oneshot::Sender<Seat>>>,
}

#[async_trait]
impl Local<NodeQuestion> for Waiting {
    async fn answer(&self, question: NodeQuestion, _: &Caller) -> Result<NodeAnswer, Failure> {
        let NodeQuestion::Unlock(key) = question else { return Err(refused(LOCKED)) };
        let state = self.state.clone();
        let key: UnlockKey = key.parse().map_err(|error| crate::question::refusal(&error))?;
        let opened = tokio::task::spawn_blocking(move || Seat::open(&state, Some(key))).await;
        let seat = opened.map_err(|error| crate::question::refusal(&error))?;
        let seat = seat.map_err(|error| crate::question::refusal(&error))?;
        let waits = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(waits), Some(seat)) = (waits, seat) {
            drop(waits.send(seat)); // it starts, or is about to end
        }
        Ok(NodeAnswer::Unlocked)
    }
}

/// Carries a command out.
pub(crate) async fn carry_out(node: &ControlClient, json: bool, lock: Lock) -> Outcome {
    match lock {
        Lock::Unlock => {
            let key = typed()?;
            drop(ask(node, &NodeQuestion::Unlock(key)).await?);
            show(json, &json!({ "unlocked": true }), || "the node is unlocked, and starts".to_owned())
        }
        Lock::Set { off: true } => {
            drop(ask(node, &NodeQuestion::Lock(None)).await?);
            show(json, &json!({ "locked": false }), || "the node starts without a key from now on".to_owned())
        }
        Lock::Set { off: false } => {
            // Shown before it is used: whoever is killed meanwhile leaves nothing that nobody can unlock.
            let key = UnlockKey::generate(random);
            show(json, &json!({ "unlock_key": key.to_string() }), || format!("{key}\n{KEEP}"))?;
            let locked = ask(node, &NodeQuestion::Lock(Some(Zeroizing::new(key.to_string())))).await;
            locked.map(drop).map_err(|error| format!("{error}; whether that key counts, node unlock-key tells").into())
        }
        Lock::Show => match ask(node, &NodeQuestion::UnlockKey).await? {
            NodeAnswer::UnlockKey(Some(key)) => show(json, &json!({ "unlock_key": *key }), || key.to_string()),
            _ => Err("the node's keys are not locked: node lock locks them".into()),
        },
    }
}

/// What somebody types, or a program writes: not an argument, which others on the machine could read.
fn typed() -> Outcome<Zeroizing<String>> {
    if std::io::stdin().is_terminal() {
        eprintln!("the unlock key:");
    }
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim().to_owned()))
}

/// What a node answers that has not begun.
const LOCKED: &str = "the node's keys are locked: overlay-node node unlock";
const KEEP: &str = "Keep this unlock key where this machine's disk is not: after its next start the node waits for it (overlay-node node unlock).";
