//! What a node keeps of its cluster from one start to the next, in its vault: its certificate and keys, whom to call.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overlay_crypto::pki::{SealingKey, UnlockKey};
use overlay_driver::control::Joined;
use overlay_driver::{OpenVault, OpenVaultError};
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::store::Etcd;

/// A vault that is open.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) vault: Arc<OpenVault>,
    state: PathBuf,
}

/// What is noted in it beside the node's certificate and keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) managers: Vec<SocketAddr>,
    /// Where the catalogue is, for when the node is a manager; in a file of its own if not there.
    #[serde(default)]
    pub(crate) etcd: Option<Etcd>,
}

impl Seat {
    /// Whether a node that keeps its state there is in a cluster, be it locked.
    pub(crate) fn is_taken(state: &Path) -> Outcome<bool> {
        match OpenVault::open(&vault(state), None) {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.is_locked() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// What is kept there, if a node has joined.
    pub(crate) fn open(state: &Path, unlock: Option<UnlockKey>) -> Result<Option<Self>, OpenVaultError> {
        let vault = OpenVault::open(&vault(state), unlock)?;
        Ok(vault.map(|vault| Self { vault: Arc::new(vault), state: state.to_owned() }))
    }

    /// Keeps what a node has from now on that has none yet.
    pub(crate) fn take(state: &Path, joined: &Joined, kept: &Kept, sealing: Option<SealingKey>) -> Outcome<Self> {
        forget_keys(state)?;
        let vault = OpenVault::take(&vault(state), joined, sealing, serde_json::to_string(kept)?)?;
        Ok(Self { vault: Arc::new(vault), state: state.to_owned() })
    }

    pub(crate) fn kept(&self) -> Outcome<Kept> {
        let told = |error| format!("what {} notes makes no sense: {error}", vault(&self.state).display());
        Ok(serde_json::from_str(&self.vault.notes()).map_err(told)?)
    }

    /// Writes down where managers are, if that is news; in whatever order.
    pub(crate) fn note_managers(&self, mut managers: Vec<SocketAddr>) -> Outcome {
        let mut kept = self.kept()?;
        managers.sort_unstable();
        kept.managers.sort_unstable();
        if managers.is_empty() || managers == kept.managers {
            return Ok(());
        }
        kept.managers = managers;
        Ok(self.vault.note(serde_json::to_string(&kept)?)?)
    }

    /// Forgets all: the node has left.
    pub(crate) fn leave(&self) -> Outcome {
        self.vault.clear()?;
        Ok(forget_keys(&self.state)?)
    }
}

fn vault(state: &Path) -> PathBuf {
    state.join("vault")
}

/// Forgets the keys of gossip of a node that was in no cluster: they are another's.
fn forget_keys(state: &Path) -> io::Result<()> {
    match std::fs::remove_file(state.join("gossip-keys")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
