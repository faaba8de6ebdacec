//! Where a container is.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use overlay_core::NsId;
use serde::{Deserialize, Serialize};

/// Where what is attached has its interface: how its namespace is found again, also by the next start of the driver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A namespace that is mounted at a path, as container runtimes and `ip netns` do.
    Path(PathBuf),
    /// The namespace of a process.
    Process(u32),
    /// None: a virtual machine's tap in the network's sandbox. It sets its own addresses, and asks the gateway for names.
    Tap,
}

impl Source {
    /// The file that leads to the namespace.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Path(path) => Some(path.clone()),
            Self::Process(process) => Some(format!("/proc/{process}/ns/net").into()),
            Self::Tap => None,
        }
    }

    /// Whether it leads to this namespace now: a container that ended, or began anew, is not there any more.
    pub(crate) fn leads_to(&self, id: NsId) -> bool {
        let found = self.path().map(fs::metadata);
        match found {
            None => true,
            Some(Ok(meta)) => (meta.dev(), meta.ino()) == (id.device, id.inode),
            Some(Err(_)) => false,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "namespace {}", path.display()),
            Self::Process(process) => write!(f, "namespace of process {process}"),
            Self::Tap => f.write_str("tap"),
        }
    }
}
