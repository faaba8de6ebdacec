//! A node's vault, open while the node runs.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use overlay_crypto::gossip::Succession;
use overlay_crypto::pki::{
    Issued, Kept, KeyError, SealingKey, SigningKey, Trust, TrustError, UnlockKey, Vault, VaultError,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::chance::random;
use crate::control::{Credentials, CredentialsError, Joined, Ring};
use crate::seal::ring_of;
use crate::{Keep, KeepGossipKeys, KeyFileError};

/// All that a node keeps of its cluster from one start to the next, in a [`Vault`]: its key and certificate, what a manager seals with, the keys of gossip, and notes of its user's. It is one file, replaced
/// as a whole whenever any of it changes: so a [`Membership`](crate::Membership) [keeps](Keep) its certificates here, and a [`Driver`](crate::Driver) its [keys of gossip](KeepGossipKeys).
///
/// With an unlock key (autolock), nothing of it can be used after a start until somebody has said that key: [`open`](Self::open) is refused with [`VaultError::Locked`]. The key is the node's own, not the cluster's.
///
/// ```
/// use overlay_crypto::pki::{UnlockKey, VaultError};
/// use overlay_driver::{OpenVault, OpenVaultError};
///
/// # let dir = std::env::temp_dir().join(format!("overlay-doc-vault-{}", std::process::id()));
/// # fn of_the_operating_system(bytes: &mut [u8]) {}
/// assert!(OpenVault::open(&dir, None)?.is_none()); // it has joined no cluster; then: join, OpenVault::take
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OpenVault {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    vault: Vault,
    unlock: Option<UnlockKey>,
    kept: Kept,
    beside: Beside,
}

/// What is kept beside a node's certificate and keys.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Beside {
    /// The keys of gossip, as the node was told them when it joined.
    #[serde(default)]
    ring: Ring,
    /// And as they are since its driver has them.
    #[serde(default)]
    gossip: Option<Zeroizing<String>>,
    #[serde(default)]
    notes: String,
}

/// Why a vault was not opened, or not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenVaultError {
    /// The vault's own: [`VaultError::Locked`] where it waits for its unlock key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What is kept beside the keys makes no sense: damaged, or of a later release.
    #[error("what {} keeps beside the node's keys cannot be read: {flaw}", .path.display())]
    Beside {
        /// Where the vault is.
        path: PathBuf,
        /// What is wrong.
        flaw: String,
    },
    /// The roots that it keeps are none.
    #[error("the roots that are kept are none")]
    Roots(#[from] TrustError),
    /// The certificate that it keeps is of no use.
    #[error("the certificate that is kept is of no use")]
    Credentials(#[from] CredentialsError),
    /// Its key is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl OpenVaultError {
    /// Whether it waits for its unlock key.
    pub const fn is_locked(&self) -> bool {
        matches!(self, Self::Vault(VaultError::Locked))
    }
}

impl OpenVault {
    /// Opens the vault in this directory; `None` if nothing is kept there yet. `unlock` where it is locked.
    ///
    /// # Errors
    /// [`VaultError::Locked`] and others: see [`OpenVaultError`].
    pub fn open(dir: &Path, unlock: Option<UnlockKey>) -> Result<Option<Self>, OpenVaultError> {
        let vault = Vault::open(dir)?;
        let Some(kept) = vault.load(unlock.as_ref())? else { return Ok(None) };
        let malformed =
            |error: serde_json::Error| OpenVaultError::Beside { path: dir.to_owned(), flaw: error.to_string() };
        let beside = serde_json::from_slice(&kept.beside).map_err(malformed)?;
        Ok(Some(Self { path: dir.to_owned(), inner: Mutex::new(Inner { vault, unlock, kept, beside }) }))
    }

    /// Keeps in this directory what a node was given that has just joined, or founded its cluster, with what it seals with then; in place of whatever was there. It is not locked.
    ///
    /// # Errors
    /// If it could not be kept.
    pub fn take(
        dir: &Path,
        joined: &Joined,
        sealing: Option<SealingKey>,
        notes: String,
    ) -> Result<Self, OpenVaultError> {
        let vault = Vault::open(dir)?;
        let beside = Beside { ring: joined.ring.clone().unwrap_or_default(), gossip: None, notes };
        let key = SigningKey::from_pkcs8(&joined.key.to_pkcs8())?;
        let kept = Kept { key, issued: joined.issued.clone(), sealing, beside: Zeroizing::default() };
        let mut inner = Inner { vault, unlock: None, kept, beside };
        inner.write()?;
        Ok(Self { path: dir.to_owned(), inner: Mutex::new(inner) })
    }

    /// What the node proves itself with, and the key of its certificate.
    ///
    /// # Errors
    /// If it is of no use.
    pub fn credentials(&self) -> Result<(Credentials, SigningKey), OpenVaultError> {
        let inner = self.inner();
        let key = SigningKey::from_pkcs8(&inner.kept.key.to_pkcs8())?;
        let trust = Trust::new(inner.kept.issued.roots.clone())?;
        Ok((Credentials::new(inner.kept.issued.chain.clone(), &key, trust)?, key))
    }

    /// Its certificate, and the roots that it believes.
    pub fn issued(&self) -> Issued {
        self.inner().kept.issued.clone()
    }

    /// What a manager seals with.
    pub fn sealing(&self) -> Option<SealingKey> {
        self.inner().kept.sealing.clone()
    }

    /// Keeps what a manager seals with, which it was given when it was promoted, or forgets it.
    ///
    /// # Errors
    /// If it could not be kept.
    pub fn hold(&self, sealing: Option<SealingKey>) -> Result<(), OpenVaultError> {
        self.change(|kept, _| kept.sealing = sealing)
    }

    /// The keys of gossip, as they were kept last.
    pub fn ring(&self) -> Ring {
        let beside = self.inner().beside.clone();
        let kept = beside.gossip.and_then(|text| text.parse::<Succession>().ok());
        kept.map_or(beside.ring, |keys| ring_of(&keys))
    }

    /// What its user has noted, as text.
    pub fn notes(&self) -> String {
        self.inner().beside.notes.clone()
    }

    /// Notes something in place of what was noted.
    ///
    /// # Errors
    /// If it could not be kept.
    pub fn note(&self, notes: String) -> Result<(), OpenVaultError> {
        self.change(|_, beside| beside.notes = notes)
    }

    /// Locks it with this key from now on, in place of the one that it was locked with; or locks it no more. Tell the operator the key before: whoever is killed meanwhile may leave either.
    ///
    /// # Errors
    /// If it could not be kept: then it is as before.
    pub fn lock(&self, unlock: Option<UnlockKey>) -> Result<(), OpenVaultError> {
        let mut inner = self.inner();
        let before = std::mem::replace(&mut inner.unlock, unlock);
        let Err(error) = inner.write() else { return Ok(()) };
        inner.unlock = before;
        drop(inner.write()); // what was half done is taken back, if the disk lets it
        Err(error.into())
    }

    /// What it is locked with; `None` if it is not.
    pub fn unlock_key(&self) -> Option<UnlockKey> {
        self.inner().unlock.clone()
    }

    /// Forgets all: the node has left its cluster.
    ///
    /// # Errors
    /// If the disk does not do it.
    pub fn clear(&self) -> Result<(), OpenVaultError> {
        Ok(self.inner().vault.clear()?)
    }

    fn change(&self, change: impl FnOnce(&mut Kept, &mut Beside)) -> Result<(), OpenVaultError> {
        let mut inner = self.inner();
        let key = SigningKey::from_pkcs8(&inner.kept.key.to_pkcs8())?;
        let Kept { issued, sealing, .. } = &inner.kept;
        let before = Kept { key, issued: issued.clone(), sealing: sealing.clone(), beside: inner.kept.beside.clone() };
        let beside_before = inner.beside.clone();
        let Inner { kept, beside, .. } = &mut *inner;
        change(kept, beside);
        inner.write().map_err(|error| {
            (inner.kept, inner.beside) = (before, beside_before);
            error.into()
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self) -> Result<(), VaultError> {
        self.kept.beside = Zeroizing::new(serde_json::to_vec(&self.beside).unwrap_or_default());
        self.vault.save(&self.kept, self.unlock.as_ref(), random)
    }
}

impl Keep for OpenVault {
    fn keep(&self, issued: &Issued, key: &SigningKey) -> io::Result<()> {
        let key = SigningKey::from_pkcs8(&key.to_pkcs8()).map_err(io::Error::other)?;
        let changed = self.change(|kept, _| (kept.issued, kept.key) = (issued.clone(), key));
        changed.map_err(io::Error::other)
    }
}

impl KeepGossipKeys for OpenVault {
    fn path(&self) -> &Path {
        &self.path
    }

    fn load(&self) -> Result<Option<Succession>, KeyFileError> {
        let gossip = self.inner().beside.gossip.clone();
        Ok(gossip.map(|text| text.parse()).transpose()?)
    }

    fn keep(&self, keys: &Succession) -> io::Result<()> {
        self.change(|_, beside| beside.gossip = Some(keys.to_text())).map_err(io::Error::other)
    }
}

impl fmt::Debug for OpenVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenVault").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use overlay_core::{ClusterId, NodeId};
    use overlay_crypto::gossip::GossipKey;
    use overlay_crypto::pki::{Algorithm, Authority, Grant, Identity, Life, LockError, Role, Serial, SigningRequest};

    use super::*;
    use crate::driver::now;

    /// A directory that goes with this.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("overlay-open-vault-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn issued() -> (Issued, SigningKey) {
        let (cluster, now) = (ClusterId::from_bytes([5; 16]), now());
        let key = || SigningKey::generate(Algorithm::EcdsaP256).unwrap();
        let serial = || Serial::generate(|bytes| bytes.fill(3));
        let (root, key) = (Authority::create(cluster, key(), &serial(), now).unwrap(), key());
        let identity = Identity { node: NodeId::from_bytes([1; 16]), role: Role::Manager, cluster };
        let grant = Grant { identity, life: Life::default(), serial: serial() };
        let own = root.issue(&SigningRequest::create(&key).unwrap(), &grant, now).unwrap();
        (Issued { chain: vec![own], roots: vec![root.certificate().clone()], revision: 7 }, key)
    }

    fn joined() -> Joined {
        let (issued, key) = issued();
        let trust = Trust::new(issued.roots.clone()).unwrap();
        let credentials = Credentials::new(issued.chain.clone(), &key, trust).unwrap();
        let ring = Some(Ring { revision: 1, keys: vec![GossipKey::from_bytes([0xaa; 32])] });
        Joined { identity: credentials.identity(), credentials, issued, key, ring, managers: Vec::new() }
    }

    fn unlock(byte: u8) -> UnlockKey {
        UnlockKey::generate(|bytes| bytes.fill(byte))
    }

    /// Whether no text of these keys of gossip, nor their bytes, is on the disk.
    fn is_on_disk(place: &Place, byte: u8) -> bool {
        let bytes = fs::read(place.0.join("identity")).unwrap();
        let digits = format!("{byte:02x}").repeat(32);
        bytes.windows(64).any(|part| part == digits.as_bytes()) || bytes.windows(32).any(|part| part == [byte; 32])
    }

    #[test]
    fn a_locked_node_starts_with_its_unlock_key_alone_and_then_as_it_was_left() {
        let place = Place::new("locked");
        assert!(OpenVault::open(&place.0, None).unwrap().is_none());
        let sealing = SealingKey::generate(|bytes| bytes.fill(8));
        let vault = OpenVault::take(&place.0, &joined(), Some(sealing.clone()), "notes".to_owned()).unwrap();
        assert!(is_on_disk(&place, 0xaa), "not locked yet");
        vault.lock(Some(unlock(1))).unwrap();
        assert!(!is_on_disk(&place, 0xaa));
        // What changes while it is locked is locked too.
        let mut keys = Succession::new(GossipKey::from_bytes([0xaa; 32]));
        let next = keys.succeed(GossipKey::from_bytes([0xbb; 32])).unwrap();
        keys.lead(next.id).unwrap();
        KeepGossipKeys::keep(&vault, &keys).unwrap();
        let (issued, key) = issued();
        Keep::keep(&vault, &issued, &key).unwrap();
        assert!(!is_on_disk(&place, 0xaa) && !is_on_disk(&place, 0xbb));
        drop(vault);

        assert!(OpenVault::open(&place.0, None).unwrap_err().is_locked());
        let wrong = OpenVault::open(&place.0, Some(unlock(2))).unwrap_err();
        assert!(matches!(wrong, OpenVaultError::Vault(VaultError::Lock(LockError::Key))), "{wrong}");
        let again = OpenVault::open(&place.0, Some(unlock(1))).unwrap().unwrap();
        assert_eq!((again.sealing(), again.notes(), again.issued()), (Some(sealing), "notes".to_owned(), issued));
        assert_eq!(again.credentials().unwrap().1.digest(), key.digest());
        assert_eq!(again.load().unwrap().unwrap(), keys);
        assert_eq!(again.ring().keys.first().map(GossipKey::id), Some(next.id), "the ring is as of the last change");
    }

    #[test]
    fn another_unlock_key_takes_the_place_of_the_former_and_none_leaves_it_open() {
        let place = Place::new("relocked");
        let vault = OpenVault::take(&place.0, &joined(), None, String::new()).unwrap();
        vault.lock(Some(unlock(1))).unwrap();
        vault.lock(Some(unlock(2))).unwrap();
        assert_eq!(vault.unlock_key().unwrap().to_string(), unlock(2).to_string());
        assert!(OpenVault::open(&place.0, Some(unlock(1))).is_err());
        assert!(OpenVault::open(&place.0, Some(unlock(2))).unwrap().is_some());
        vault.lock(None).unwrap();
        assert!(OpenVault::open(&place.0, None).unwrap().is_some() && vault.unlock_key().is_none());
        assert_eq!(fs::metadata(place.0.join("identity")).unwrap().mode() & 0o777, 0o600);
        vault.clear().unwrap();
        assert!(OpenVault::open(&place.0, None).unwrap().is_none());
    }

    #[test]
    fn who_joins_another_cluster_keeps_nothing_of_the_former() {
        let place = Place::new("another");
        let vault = OpenVault::take(&place.0, &joined(), None, "former".to_owned()).unwrap();
        KeepGossipKeys::keep(&vault, &Succession::new(GossipKey::from_bytes([0xcc; 32]))).unwrap();
        vault.hold(Some(SealingKey::generate(|bytes| bytes.fill(8)))).unwrap();
        drop(vault);
        let another = joined();
        let vault = OpenVault::take(&place.0, &another, None, String::new()).unwrap();
        assert!(!is_on_disk(&place, 0xcc) && vault.load().unwrap().is_none() && vault.sealing().is_none());
        assert_eq!((vault.notes(), vault.issued()), (String::new(), another.issued));
        assert_eq!(vault.ring().keys.first().map(GossipKey::id), Some(GossipKey::from_bytes([0xaa; 32]).id()));
    }

    #[test]
    fn what_could_not_be_kept_is_not_believed_to_be() {
        let place = Place::new("full");
        let vault = OpenVault::take(&place.0, &joined(), None, "before".to_owned()).unwrap();
        fs::create_dir(place.0.join("identity.next")).unwrap(); // as a disk that takes nothing more
        vault.note("after".to_owned()).unwrap_err();
        vault.lock(Some(unlock(1))).unwrap_err();
        assert_eq!((vault.notes(), vault.unlock_key().is_none()), ("before".to_owned(), true));
        fs::remove_dir(place.0.join("identity.next")).unwrap();
        assert_eq!(OpenVault::open(&place.0, None).unwrap().unwrap().notes(), "before");
        fs::set_permissions(place.0.join("identity"), fs::Permissions::from_mode(0o644)).unwrap();
        let refused = OpenVault::open(&place.0, None).unwrap_err();
        assert!(matches!(refused, OpenVaultError::Vault(VaultError::Loose { .. })), "{refused}");
    }
}
