//! The keys of gossip, written down where only this node reads them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overlay_core::told;
use overlay_crypto::Chance;
use overlay_crypto::gossip::{GossipKey, KeyId, Succession, SuccessionTextError};
use overlay_node::Agent;
use zeroize::Zeroizing;

use crate::StartError;
use crate::control::Ring;
use crate::heart::{Heart, News};
use crate::status::{DriverEvent, SealStatus};

/// Why the file with the keys of gossip cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The system does not give it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Somebody else may read or write it.
    #[error("others may read or write it: chmod 600, and change the key if somebody has")]
    Open,
    /// It is no such file.
    #[error(transparent)]
    Text(#[from] SuccessionTextError),
}

/// Where a node keeps the keys of its gossip from one start to the next: a file of their own, or a node's [`OpenVault`](crate::OpenVault).
pub trait KeepGossipKeys: fmt::Debug + Send + Sync {
    /// Where that is, for errors.
    fn path(&self) -> &Path;

    /// What was kept last; `None` if nothing was.
    ///
    /// # Errors
    /// If it cannot be read.
    fn load(&self) -> Result<Option<Succession>, KeyFileError>;

    /// Keeps these in place of those before: whole or not at all, also if the machine loses its power, as others let go of older keys once they hear that these are here. May take as long as a disk does.
    ///
    /// # Errors
    /// If it could not.
    fn keep(&self, keys: &Succession) -> io::Result<()>;
}

/// A file of their own.
#[derive(Debug)]
pub(crate) struct KeyFile(pub(crate) PathBuf);

impl KeepGossipKeys for KeyFile {
    fn path(&self) -> &Path {
        &self.0
    }

    fn load(&self) -> Result<Option<Succession>, KeyFileError> {
        read(&self.0)
    }

    fn keep(&self, keys: &Succession) -> io::Result<()> {
        write(&self.0, keys)
    }
}

/// What a node's gossip is sealed with as it starts: what was written down, and the keys it is started with as far as they were never retired here; `None` if there is none.
pub(crate) fn found(kept: &dyn KeepGossipKeys, keys: Vec<GossipKey>) -> Result<Option<Succession>, StartError> {
    let written = kept.load().map_err(|source| StartError::KeyFile { file: kept.path().to_owned(), source })?;
    let mut keys = keys.into_iter();
    let Some(mut all) = written.or_else(|| keys.next().map(Succession::new)) else { return Ok(None) };
    keys.try_for_each(|key| all.remember(key).map(drop)).map_err(StartError::Keys)?;
    Ok(Some(all))
}

fn read(file: &Path) -> Result<Option<Succession>, KeyFileError> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => Zeroizing::new(read?),
    };
    if fs::metadata(file)?.permissions().mode() & 0o077 != 0 {
        return Err(KeyFileError::Open);
    }
    Ok(Some(text.parse()?))
}

/// Whole or not at all, also if the machine loses its power: others let go of older keys as soon as they hear that these are here.
fn write(file: &Path, keys: &Succession) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    written.set_permissions(fs::Permissions::from_mode(0o600))?;
    written.write_all(keys.to_text().as_bytes())?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(dir)?.sync_all()
}

/// What is being written, and what is to be after it.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    kept: Option<Arc<dyn KeepGossipKeys>>,
    is_busy: bool,
    /// Whether it was said that it does not work.
    is_said: bool,
    /// The version that is to be written down next.
    next: Option<u64>,
    /// What gossip was sealed with last.
    primary: Option<KeyId>,
}

impl Writing {
    pub(crate) fn to(kept: Arc<dyn KeepGossipKeys>, agent: &Agent) -> Self {
        Self { kept: Some(kept), primary: agent.seal().map(|seal| seal.primary()), ..Self::default() }
    }
}

impl<G: crate::ground::Ground> Heart<G> {
    /// The agent has other keys than before.
    pub(crate) fn take_gossip_keys(&mut self, version: u64) {
        let primary = self.agent.gossip_keys().map(Succession::primary);
        if let Some(primary) = primary.filter(|primary| self.state.writing.primary != Some(primary.id)) {
            self.state.writing.primary = Some(primary.id);
            self.say(DriverEvent::GossipKey { key: primary.id.to_string(), number: primary.number });
        }
        self.state.writing.next = Some(version);
        self.write_gossip_keys();
    }

    /// Writes what is to be written, also what could not be before.
    pub(crate) fn write_gossip_keys(&mut self) {
        let writing = &mut self.state.writing;
        let Some(keys) = self.agent.gossip_keys().filter(|_| !writing.is_busy).cloned() else { return };
        let Some(kept) = writing.kept.clone() else { return };
        let Some(version) = writing.next.take() else { return };
        writing.is_busy = true;
        let news = self.news.clone();
        self.jobs.run(move || {
            let written = kept.keep(&keys).map_err(|error| told(&error));
            let _ = news.send(News::GossipKeys(version, written));
        });
    }

    /// A version was written down, or could not be.
    pub(crate) fn take_written(&mut self, version: u64, written: Result<(), String>) {
        self.state.writing.is_busy = false;
        match written {
            Ok(()) => {
                self.state.writing.is_said = false;
                self.tell(overlay_node::Input::GossipKeysKept { version });
                self.write_gossip_keys();
            }
            Err(reason) => {
                self.state.writing.next.get_or_insert(version);
                if !std::mem::replace(&mut self.state.writing.is_said, true) {
                    self.say(DriverEvent::GossipKeysUnwritten { reason }); // it is tried again, and not said again
                }
            }
        }
    }

    /// The keys, the one that seals first.
    pub(crate) fn ring(&self) -> Option<Ring> {
        self.agent.gossip_keys().map(ring_of)
    }

    pub(crate) fn seal_status(&self) -> Option<SealStatus> {
        let (keyring, keys) = (self.agent.seal()?, self.agent.gossip_keys()?);
        Some(SealStatus {
            primary: keyring.primary().to_string(),
            number: keys.primary().number,
            keys: keyring.keys().map(|key| key.id().to_string()).collect(),
            stage: self.agent.gossip_stage().to_string(),
            lacking: self.agent.lacking_gossip_key(self.now()).map(|key| key.to_string()),
            refused: self.agent.metrics().unopened,
        })
    }
}

/// The keys, the one that seals first.
pub(crate) fn ring_of(keys: &Succession) -> Ring {
    let primary = keys.primary();
    let others = keys.keys().filter(|key| key.id() != primary.id);
    let [a, b, c, d] = primary.id.to_bytes();
    let revision = primary.number.saturating_mul(1 << 32) | u64::from(u32::from_be_bytes([a, b, c, d]));
    Ring { revision, keys: keys.get(primary.id).into_iter().chain(others).cloned().collect() }
}

/// 32 bytes of it for another.
pub(crate) fn beside(chance: &mut Chance) -> Chance {
    let mut bytes = Zeroizing::new([0; 32]);
    chance.draw(bytes.as_mut_slice());
    Chance::new(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> GossipKey {
        GossipKey::from_bytes([byte; 32])
    }

    #[test]
    fn keys_are_written_whole_for_nobody_else_and_an_older_file_rolls_nothing_back() {
        let dir = std::env::temp_dir().join(format!("overlay-keys-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("gossip-keys");
        let found = |keys| found(&KeyFile(file.clone()), keys);
        assert_eq!(found(Vec::new()).unwrap(), None);
        let mut keys = found(vec![key(1), key(2)]).unwrap().unwrap();
        assert_eq!((keys.primary().id, keys.keys().count()), (key(1).id(), 2));
        let next = keys.succeed(key(3)).unwrap();
        keys.lead(next.id).unwrap();
        keys.aim_at(next, []);
        keys.reach();
        write(&file, &keys).unwrap();
        write(&file, &keys).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(found(Vec::new()).unwrap().unwrap(), keys, "once sealed, a node is sealed until the file goes");
        let again = found(vec![key(1), key(2), key(4)]).unwrap().unwrap();
        assert_eq!((again.primary(), again.keys().count()), (next, 2), "only the one that was never here is new");
        fs::write(&file, "overlay keys of gossip 1\n").unwrap();
        assert!(matches!(found(vec![key(1)]), Err(StartError::KeyFile { .. })), "and it is not taken for none");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = read(&file);
        assert!(matches!(refused, Err(KeyFileError::Open)), "{refused:?}");
        fs::remove_dir_all(dir).unwrap();
    }
}
