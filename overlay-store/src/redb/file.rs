//! The file: its format, opening, reading and writing it.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use overlay_core::{Commit, Entry, Key, Listing, Revision};
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError};

/// `format` and `revision`.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("overlay-store");
/// Key to revision (8 bytes, big-endian) and value.
const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
/// The format written and read here.
const FORMAT: u64 = 1;
/// How many drafts may lie beside a file: what a crash leaves is never taken for one's own.
const DRAFTS: u32 = 1000;
/// Bytes of pages kept in memory: entries are there already, so this is for writing.
const CACHE: usize = 32 << 20;

/// Why a file cannot be opened. It is left as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open, or another store of this one: end that first.
    #[error("the file is open already, in another process or this one")]
    Locked,
    /// It is a file of something else: give another path.
    #[error("the file is not a store of ours")]
    Foreign,
    /// It was written by a later release: use that.
    #[error("the file has format {found}, this release reads up to {FORMAT}")]
    Format {
        /// Its format.
        found: u64,
    },
    /// What it holds makes no sense: the disk changed or lost what was written. Restore it from a copy.
    #[error("the file is damaged: {0}")]
    Corrupt(String),
    /// It could not be read or made: a missing folder or permission, a full disk.
    #[error("the file could not be read or made")]
    Io(#[source] io::Error),
}

/// The open file.
pub(super) struct File(Database);

impl File {
    /// Opens or makes it, verifies all of it, and gives what is in it.
    ///
    /// redb promises errors for damaged files where it verifies, and panics elsewhere: either is damage.
    pub(super) fn open(path: &Path) -> Result<(Self, Listing), OpenError> {
        catch_unwind(AssertUnwindSafe(|| Self::open_verified(path)))
            .unwrap_or_else(|_| Err(OpenError::Corrupt("its pages make no sense".to_owned())))
    }

    fn open_verified(path: &Path) -> Result<(Self, Listing), OpenError> {
        match std::fs::metadata(path) {
            Ok(about) if about.len() == 0 => return Err(OpenError::Foreign), // ours are never empty
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(path)?,
            Err(error) => return Err(OpenError::Io(error)),
        }
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).map_err(OpenError::Io)?;
        let file = Self::database(file, true)?;
        let listing = file.read()?;
        Ok((file, listing))
    }

    /// Made under another name and then given its own: a crash leaves no file that is only half made.
    fn make(path: &Path) -> Result<(), OpenError> {
        let (draft, file) = draft(path).map_err(OpenError::Io)?;
        let made = Self::database(file, false).and_then(|file| file.begin().map_err(|error| reading(&error)));
        let named = made.and_then(|()| match std::fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(OpenError::Io(error)),
            _ => keep_name(path).map_err(OpenError::Io),
        });
        let _ = std::fs::remove_file(draft);
        named
    }

    fn database(file: std::fs::File, verify: bool) -> Result<Self, OpenError> {
        let backend = FileBackend::new(file).map_err(opening)?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(verify);
        builder.create_with_backend(backend).map(Self).map_err(opening)
    }

    fn begin(&self) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        transaction.open_table(ABOUT)?.insert("format", FORMAT)?;
        transaction.open_table(ABOUT)?.insert("revision", 0)?;
        let _ = transaction.open_table(ENTRIES)?;
        Ok(transaction.commit()?)
    }

    fn read(&self) -> Result<Listing, OpenError> {
        let transaction = self.0.begin_read().map_err(|error| reading(&error.into()))?;
        let about = match transaction.open_table(ABOUT) {
            Err(TableError::Storage(error)) => return Err(storage(error)),
            Err(_) => return Err(OpenError::Foreign),
            Ok(about) => about,
        };
        let number = |name| match about.get(name) {
            Ok(found) => found.map(|found| found.value()).ok_or(OpenError::Foreign),
            Err(error) => Err(storage(error)),
        };
        match number("format")? {
            FORMAT => {}
            found => return Err(OpenError::Format { found }),
        }
        let at = Revision(number("revision")?);
        if at == Revision::LAST {
            return Err(OpenError::Corrupt(format!("no revision can follow {at}")));
        }
        let entries = transaction.open_table(ENTRIES).map_err(|error| reading(&error.into()))?;
        let mut listing = Listing { at, entries: Vec::new() };
        for item in entries.iter().map_err(storage)? {
            let (key, record) = item.map_err(storage)?;
            listing.entries.push(entry(key.value(), record.value(), at)?);
        }
        Ok(listing)
    }

    /// Writes a group: when this returns, it is on the disk.
    pub(super) fn write(&self, group: &Group) -> Result<(), redb::Error> {
        if group.changes.is_empty() {
            return Ok(());
        }
        let transaction = self.0.begin_write()?;
        let mut entries = transaction.open_table(ENTRIES)?;
        for (key, change) in &group.changes {
            match change {
                Some(record) => drop(entries.insert(key.as_bytes(), &record[..])?),
                None => drop(entries.remove(key.as_bytes())?),
            }
        }
        drop(entries);
        transaction.open_table(ABOUT)?.insert("revision", group.at.0)?;
        Ok(transaction.commit()?)
    }
}

/// What some commits, one after the other, change in the file. A key that many of them write is written once.
#[derive(Default)]
pub(super) struct Group {
    at: Revision,
    changes: BTreeMap<Key, Option<Vec<u8>>>,
}

impl Group {
    pub(super) fn add(&mut self, revision: Revision, commit: &Commit) {
        self.at = revision;
        for (key, value) in &commit.puts {
            self.changes.insert(key.clone(), Some([&revision.0.to_be_bytes(), &value[..]].concat()));
        }
        for key in &commit.deletes {
            self.changes.insert(key.clone(), None);
        }
    }
}

fn entry(key: &[u8], record: &[u8], at: Revision) -> Result<(Key, Entry), OpenError> {
    let key = Key::new(key).map_err(|error| OpenError::Corrupt(error.to_string()))?;
    let Some((revision, value)) = record.split_first_chunk() else {
        return Err(OpenError::Corrupt(format!("the record of {key} is cut short")));
    };
    let revision = Revision(u64::from_be_bytes(*revision));
    if revision > at {
        return Err(OpenError::Corrupt(format!("{key} is of revision {revision}, the file of {at}")));
    }
    Ok((key, Entry { value: Bytes::copy_from_slice(value), revision }))
}

/// A file that nobody else makes, and its name: another thread, or a process of the same number in another container, may be making one too.
fn draft(path: &Path) -> io::Result<(PathBuf, std::fs::File)> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut number = 0_u32;
    loop {
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.{number}.new", std::process::id()));
        match options.open(&draft) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < DRAFTS => number += 1,
            opened => return opened.map(|file| (draft.into(), file)),
        }
    }
}

/// A new file's name is on the disk only once its folder is.
fn keep_name(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

fn opening(error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => OpenError::Locked,
        DatabaseError::Storage(error) => storage(error),
        other => OpenError::Corrupt(other.to_string()),
    }
}

fn storage(error: StorageError) -> OpenError {
    match error {
        StorageError::Io(error) if error.kind() == io::ErrorKind::InvalidData => OpenError::Foreign,
        StorageError::Io(error) => OpenError::Io(error),
        other => OpenError::Corrupt(other.to_string()),
    }
}

fn reading(error: &redb::Error) -> OpenError {
    OpenError::Corrupt(error.to_string())
}
