//! What a node keeps of its cluster from one start to the next: its certificate and key, whom to call, what gossip is sealed with.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use overlay_core::ClusterId;
use overlay_crypto::pki::{Identity, Issued, SealingKey, SigningKey, Trust};
use overlay_driver::Keep;
use overlay_driver::control::{Credentials, Joined, Ring};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::Outcome;

/// The file, which its owner alone may read.
#[derive(Debug)]
pub(crate) struct Seat {
    path: PathBuf,
    kept: Mutex<Kept>,
}

/// What is in it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) issued: Issued,
    /// The certificate's, in PKCS #8.
    key: Zeroizing<Vec<u8>>,
    pub(crate) managers: Vec<SocketAddr>,
    pub(crate) ring: Ring,
    /// A manager's, which unseals the root's key.
    sealing: Option<Zeroizing<[u8; 32]>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("managers", &self.managers).finish_non_exhaustive()
    }
}

impl Kept {
    pub(crate) fn of(joined: &Joined, sealing: Option<&SealingKey>) -> Self {
        Self {
            issued: joined.issued.clone(),
            key: joined.key.to_pkcs8(),
            managers: joined.managers.clone(),
            ring: joined.ring.clone().unwrap_or_default(),
            sealing: sealing.map(SealingKey::to_bytes),
        }
    }

    pub(crate) fn credentials(&self) -> Outcome<(Credentials, SigningKey)> {
        let key = SigningKey::from_pkcs8(&self.key)?;
        let trust = Trust::new(self.issued.roots.clone())?;
        Ok((Credentials::new(self.issued.chain.clone(), &key, trust)?, key))
    }

    pub(crate) fn identity(&self) -> Outcome<Identity> {
        let own = self.issued.certificate().and_then(overlay_crypto::pki::Certificate::identity);
        Ok(own.ok_or("the node's certificate names no node")?)
    }

    pub(crate) fn cluster(&self) -> Outcome<ClusterId> {
        Ok(self.identity()?.cluster)
    }

    pub(crate) fn sealing(&self) -> Option<SealingKey> {
        self.sealing.as_ref().map(|bytes| SealingKey::from_bytes(**bytes))
    }
}

impl Seat {
    /// What is kept there, if a node has joined.
    pub(crate) fn open(state: &Path) -> Outcome<Option<Self>> {
        let path = state.join("seat.json");
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&error).into()),
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
                return Err(named(&format!("others may read or write it, chmod 600 {}", path.display())).into());
            }
            Ok(_) => {}
        }
        let text = Zeroizing::new(fs::read(&path).map_err(|error| named(&error))?);
        let kept = serde_json::from_slice(&text).map_err(|error| named(&error))?;
        Ok(Some(Self { path, kept: Mutex::new(kept) }))
    }

    /// Keeps what a node has from now on that has none yet.
    pub(crate) fn take(state: &Path, kept: Kept) -> Outcome<Self> {
        let seat = Self { path: state.join("seat.json"), kept: Mutex::new(kept) };
        seat.write(&seat.kept())?;
        Ok(seat)
    }

    pub(crate) fn kept(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is kept.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Kept)) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = kept.clone();
        change(&mut next);
        self.write(&next)?;
        *kept = next;
        Ok(())
    }

    /// Forgets all: the node has left.
    pub(crate) fn leave(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.path.parent().map_or(Ok(()), forget_keys)
    }

    /// The old or the new, whatever happens meanwhile.
    fn write(&self, kept: &Kept) -> io::Result<()> {
        let text = Zeroizing::new(serde_json::to_vec(kept).map_err(io::Error::other)?);
        let new = self.path.with_extension("new");
        let _ = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let directory = self.path.parent().unwrap_or_else(|| Path::new("/"));
        fs::File::open(directory)?.sync_all()
    }
}

impl Keep for Seat {
    fn keep(&self, issued: &Issued, key: &SigningKey) -> io::Result<()> {
        self.change(|kept| {
            kept.issued = issued.clone();
            kept.key = key.to_pkcs8();
        })
    }
}

/// Forgets the keys of gossip that are kept in this directory: they are another cluster's.
pub(crate) fn forget_keys(state: &Path) -> io::Result<()> {
    match fs::remove_file(state.join("gossip-keys")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
