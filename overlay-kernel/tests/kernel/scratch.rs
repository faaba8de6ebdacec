use std::ops::Deref;
use std::path::PathBuf;

use overlay_kernel::NamespaceDir;

/// A directory of named namespaces of one test's own, emptied and removed at the end.
pub(crate) struct Scratch {
    dir: NamespaceDir,
    pub(crate) path: PathBuf,
}

impl Scratch {
    pub(crate) fn new(test: &str) -> Self {
        let path = PathBuf::from(format!("/run/overlay-kernel-test-{}-{test}", std::process::id()));
        Self { dir: NamespaceDir::new(&path), path }
    }
}

impl Deref for Scratch {
    type Target = NamespaceDir;

    fn deref(&self) -> &NamespaceDir {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for name in self.dir.names().unwrap_or_default() {
            let _ = self.dir.remove(&name);
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
