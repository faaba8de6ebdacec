//! Where a node keeps what proves who it is.

mod disk;
mod file;

use std::fmt;
use std::path::{Path, PathBuf};

use disk::{Disk, Folder};

use zeroize::Zeroizing;

use super::{Issued, LockError, SealingKey, SigningKey, UnlockKey};

/// A directory with a node's key, its certificate and roots, and what a manager seals with, in one file: whoever reads it is this node. Nobody but its user may read
/// either (modes 0700 and 0600), and looser ones are refused. With an [`UnlockKey`] the keys in it are [locked](super::Locked); certificates stay readable.
///
/// Whatever is kept is kept whole: a process that is killed at any moment leaves what was there before or what was to be there.
///
/// ```no_run
/// use overlay_crypto::pki::{Kept, UnlockKey, Vault, VaultError};
///
/// # fn of_the_operating_system(bytes: &mut [u8]) {}
/// let mut vault = Vault::open("/var/lib/overlay/identity".as_ref())?;
/// let unlock = UnlockKey::generate(of_the_operating_system); // shown to the operator once
/// vault.relock(None, Some(&unlock), of_the_operating_system)?;
/// // After the next start:
/// assert!(matches!(vault.load(None), Err(VaultError::Locked)));
/// let kept: Option<Kept> = vault.load(Some(&unlock))?;
/// # Ok::<(), VaultError>(())
/// ```
pub struct Vault {
    path: PathBuf,
    disk: Box<dyn Disk>,
}

/// What a node keeps: what proves who it is, and what else nobody may read.
pub struct Kept {
    /// The key of its certificate.
    pub key: SigningKey,
    /// Its certificate, what it shows with it, and the roots that it believes.
    pub issued: Issued,
    /// What a manager seals with: nothing with workers.
    pub sealing: Option<SealingKey>,
    /// What its user keeps with it, as secret as the keys: those of gossip, say.
    pub beside: Zeroizing<Vec<u8>>,
}

/// Why nothing was read or kept. What was kept before is still there, but for [`Io`](VaultError::Io) while it is kept: then it is that, or what was to be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The locked keys need an unlock key.
    #[error("the keys in {} are locked: unlock them with the cluster's unlock key", NAME)]
    Locked,
    /// An unlock key was given, and nothing is locked.
    #[error("the keys in {} are not locked", NAME)]
    NotLocked,
    /// Another unlock key, or damaged bytes.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Others may read or write it.
    #[error("{} has mode {mode:04o}, so others than its user get at a node's keys: {right:04o} is right", .path.display())]
    Loose {
        /// What.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What it should be.
        right: u32,
    },
    /// Not what was kept: of a later release, or damaged.
    #[error("{} cannot be read: {flaw}", .path.display())]
    Malformed {
        /// What.
        path: PathBuf,
        /// What makes no sense.
        flaw: &'static str,
    },
    /// The file system did not do it.
    #[error("{} could not be used", .path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The file, and the one that is about to be it.
const NAME: &str = "identity";
const NEXT: &str = "identity.next";

impl Vault {
    /// The vault in this directory, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made, or others may enter it.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        let mode = disk::open(path).map_err(|source| VaultError::Io { path: path.to_owned(), source })?;
        if mode & 0o077 != 0 {
            return Err(VaultError::Loose { path: path.to_owned(), mode, right: 0o700 });
        }
        Ok(Self { path: path.to_owned(), disk: Box::new(Folder(path.to_owned())) })
    }

    /// What is kept; `None` if nothing is yet. `unlock` where it is locked.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub fn load(&self, unlock: Option<&UnlockKey>) -> Result<Option<Kept>, VaultError> {
        let Some((bytes, mode)) = self.disk.read(NAME).map_err(|source| self.io(source))? else { return Ok(None) };
        if mode & 0o077 != 0 {
            return Err(VaultError::Loose { path: self.file(), mode, right: 0o600 });
        }
        file::decode(&bytes, unlock).map(Some).map_err(|error| match error {
            file::Flaw::Other(error) => error,
            file::Flaw::Form(flaw) => VaultError::Malformed { path: self.file(), flaw },
        })
    }

    /// Keeps these in place of what was kept; locked if there is an `unlock` key, for which `fill` gives chance.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub fn save(
        &mut self,
        kept: &Kept,
        unlock: Option<&UnlockKey>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), VaultError> {
        let bytes = file::encode(kept, unlock, fill)?;
        let done = self
            .disk
            .remove(NEXT)
            .and_then(|()| self.disk.write(NEXT, &bytes))
            .and_then(|()| self.disk.rename(NEXT, NAME));
        done.map_err(|source| self.io(source))
    }

    /// Forgets what is kept.
    ///
    /// # Errors
    /// If the file system does not do it.
    pub fn clear(&mut self) -> Result<(), VaultError> {
        let done = self.disk.remove(NEXT).and_then(|()| self.disk.remove(NAME));
        done.map_err(|source| self.io(source))
    }

    /// Locks what is kept with another unlock key, locks it for the first time (`old` is none), or leaves it unlocked (`new` is none). The old key opens nothing that is
    /// kept from then on.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub fn relock(
        &mut self,
        old: Option<&UnlockKey>,
        new: Option<&UnlockKey>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), VaultError> {
        match self.load(old)? {
            Some(kept) => self.save(&kept, new, fill),
            None => Ok(()),
        }
    }

    fn file(&self) -> PathBuf {
        self.path.join(NAME)
    }

    fn io(&self, source: std::io::Error) -> VaultError {
        VaultError::Io { path: self.file(), source }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("issued", &self.issued).finish_non_exhaustive()
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
