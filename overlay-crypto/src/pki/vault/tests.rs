use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use overlay_core::{ClusterId, NodeId, UnixTime};
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::disk::{Disk, Folder};
use super::{Kept, NAME, NEXT, Vault, VaultError, file};
use crate::pki::{
    Algorithm, Authority, Grant, Identity, Issued, Life, LockError, Role, SealingKey, Serial, SigningKey,
    SigningRequest, UnlockKey,
};

/// A directory that goes with this.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("overlay-vault-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn vault(&self) -> Vault {
        Vault::open(&self.0).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn kept(sealing: Option<u8>) -> Kept {
    let (now, cluster) = (UnixTime::from_millis(1_800_000_000_000), ClusterId::from_bytes([5; 16]));
    let key = || SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    let serial = || Serial::generate(|bytes| bytes.fill(3));
    let (root, key) = (Authority::create(cluster, key(), &serial(), now).unwrap(), key());
    let identity = Identity { node: NodeId::from_bytes([1; 16]), role: Role::Manager, cluster };
    let grant = Grant { identity, life: Life::default(), serial: serial() };
    let own = root.issue(&SigningRequest::create(&key).unwrap(), &grant, now).unwrap();
    let issued = Issued { chain: vec![own], roots: vec![root.certificate().clone()], revision: 7 };
    let sealing = sealing.map(|byte| SealingKey::generate(|bytes| bytes.fill(byte)));
    Kept { key, issued, sealing, beside: Zeroizing::new(vec![0xcd; 40]) }
}

fn unlock(byte: u8) -> UnlockKey {
    UnlockKey::generate(|bytes| bytes.fill(byte))
}

fn same(one: &Kept, other: &Kept) -> bool {
    one.key.digest() == other.key.digest()
        && one.issued == other.issued
        && (&one.sealing, &one.beside) == (&other.sealing, &other.beside)
}

fn chance(bytes: &mut [u8]) {
    bytes.fill(9);
}

#[test]
fn what_was_kept_is_there_after_a_start_for_its_user_alone() {
    let place = Place::new("kept");
    assert!(place.vault().load(None).unwrap().is_none());
    for kept in [kept(Some(8)), kept(None)] {
        place.vault().save(&kept, None, chance).unwrap();
        assert!(same(&place.vault().load(None).unwrap().unwrap(), &kept));
        assert!(matches!(place.vault().load(Some(&unlock(1))), Err(VaultError::NotLocked)));
    }
    assert_eq!(fs::metadata(&place.0).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(place.0.join(NAME)).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn modes_that_let_others_in_are_refused_by_name() {
    let place = Place::new("loose");
    place.vault().save(&kept(None), None, chance).unwrap();
    fs::set_permissions(place.0.join(NAME), Permissions::from_mode(0o640)).unwrap();
    let refused = place.vault().load(None).unwrap_err();
    assert!(matches!(refused, VaultError::Loose { mode: 0o640, right: 0o600, .. }), "{refused}");
    fs::set_permissions(&place.0, Permissions::from_mode(0o755)).unwrap();
    let refused = Vault::open(&place.0).unwrap_err();
    assert!(refused.to_string().ends_with("0700 is right"), "{refused}");
}

#[test]
fn locked_keys_are_opened_by_the_present_unlock_key_alone_and_are_not_on_the_disk() {
    let place = Place::new("locked");
    let (kept, mut vault) = (kept(Some(0xab)), place.vault());
    vault.save(&kept, None, chance).unwrap();
    vault.relock(None, Some(&unlock(1)), chance).unwrap();
    assert!(matches!(vault.load(None), Err(VaultError::Locked)));
    assert!(matches!(vault.load(Some(&unlock(2))), Err(VaultError::Lock(LockError::Key))));
    assert!(same(&vault.load(Some(&unlock(1))).unwrap().unwrap(), &kept));
    let bytes = fs::read(place.0.join(NAME)).unwrap();
    let pkcs8 = kept.key.to_pkcs8();
    assert!(
        !bytes
            .windows(16)
            .any(|part| part == [0xab; 16] || part == [0xcd; 16] || pkcs8.windows(16).any(|secret| secret == part))
    );
    vault.relock(Some(&unlock(1)), Some(&unlock(2)), |bytes| bytes.fill(10)).unwrap();
    assert!(matches!(vault.load(Some(&unlock(1))), Err(VaultError::Lock(LockError::Key))));
    assert!(matches!(vault.relock(None, None, chance), Err(VaultError::Locked)));
    vault.relock(Some(&unlock(2)), None, chance).unwrap();
    assert!(same(&vault.load(None).unwrap().unwrap(), &kept));
    vault.clear().unwrap();
    vault.clear().unwrap();
    assert!(vault.load(None).unwrap().is_none(), "who has left keeps nothing");
}

/// Dies in the `left`-th step, before it, in the middle of it, or after it.
struct Dying {
    disk: Folder,
    left: usize,
    way: u8,
}

impl Dying {
    fn step(
        &mut self,
        half: impl FnOnce(&mut Folder),
        whole: impl FnOnce(&mut Folder) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.left > 0 {
            self.left -= 1;
            return whole(&mut self.disk);
        }
        match self.way {
            0 => {}
            1 => half(&mut self.disk),
            _ => whole(&mut self.disk)?,
        }
        Err(io::Error::other("killed"))
    }
}

impl Disk for Dying {
    fn read(&self, name: &str) -> io::Result<Option<(Zeroizing<Vec<u8>>, u32)>> {
        self.disk.read(name)
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let half = |disk: &mut Folder| disk.write(name, &bytes[..bytes.len() / 2]).unwrap();
        self.step(half, |disk| disk.write(name, bytes))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.step(|_| {}, |disk| disk.rename(from, to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step(|_| {}, |disk| disk.remove(name))
    }
}

#[test]
fn who_is_killed_at_any_step_leaves_what_was_there_or_what_was_to_be() {
    let place = Place::new("killed");
    let (mut old_seen, mut new_seen) = (0, 0);
    for left in 0..3 {
        for way in 0..3 {
            let (old, new) = (kept(Some(1)), kept(Some(2)));
            place.vault().save(&old, None, chance).unwrap();
            let dying = Dying { disk: Folder(place.0.clone()), left, way };
            let mut vault = Vault { path: place.0.clone(), disk: Box::new(dying) };
            assert!(matches!(vault.save(&new, None, chance), Err(VaultError::Io { .. })));
            let there = place.vault().load(None).unwrap().unwrap();
            assert!(same(&there, &old) || same(&there, &new), "step {left}, way {way}");
            old_seen += u32::from(same(&there, &old));
            new_seen += u32::from(same(&there, &new));
            place.vault().save(&new, None, chance).unwrap();
            assert!(same(&place.vault().load(None).unwrap().unwrap(), &new), "what is left over is in nobody's way");
        }
    }
    assert_eq!((old_seen, new_seen), (8, 1));
    assert!(!place.0.join(NEXT).exists());
}

#[test]
fn a_file_that_was_cut_or_changed_is_refused_or_says_the_same() {
    let kept = kept(Some(1));
    let whole = file::encode(&kept, None, chance).unwrap();
    for len in 0..whole.len() {
        assert!(file::decode(&whole[..len], None).is_err(), "{len}");
    }
    let other = Kept { key: self::kept(None).key, ..kept };
    let mixed = file::encode(&other, None, chance).unwrap();
    assert!(file::decode(&mixed, None).is_err(), "the key of another certificate");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut file = b"overlay-crypto vault 1\n".to_vec();
        file.extend_from_slice(&bytes);
        prop_assert!(file::decode(&file, None).is_err());
        prop_assert!(file::decode(&bytes, None).is_err());
    }
}
