//! Files, as a vault needs them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Each does one thing, after which a process may be gone.
pub(super) trait Disk: Send {
    /// A file's bytes and mode, if there is one.
    fn read(&self, name: &str) -> io::Result<Option<(Zeroizing<Vec<u8>>, u32)>>;

    /// A new file for its user alone, on the medium.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// One takes the other's place, on the medium.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// None is there from now on, on the medium either.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A directory.
pub(super) struct Folder(pub(super) PathBuf);

/// Makes the directory if it is not there. Gives its mode.
pub(super) fn open(path: &Path) -> io::Result<u32> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    Ok(fs::metadata(path)?.mode() & 0o7777)
}

impl Disk for Folder {
    fn read(&self, name: &str) -> io::Result<Option<(Zeroizing<Vec<u8>>, u32)>> {
        let mut file = match File::open(self.0.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let about = file.metadata()?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(about.len() as usize + 1)); // so that it does not grow, and leave a copy
        file.read_to_end(&mut bytes)?;
        Ok(Some((bytes, about.mode() & 0o7777)))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.0.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))?;
        File::open(&self.0)?.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| File::open(&self.0)?.sync_all()),
        }
    }
}
