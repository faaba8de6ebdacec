use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A copy of a program where every user of this machine may run it: what is built may lie below a directory that is its owner's alone. It goes with the value.
///
/// Another process, `cp`, makes it. Were it this one, a child that another thread begins meanwhile would have the descriptor by which the file is
/// written until it executes something itself, and the kernel executes no file that is open for writing (`ETXTBSY`).
///
/// ```
/// use std::process::Command;
///
/// use overlay_core::testing::CopiedProgram;
///
/// let copy = CopiedProgram::of("/bin/true".as_ref())?;
/// assert!(Command::new(copy.path()).status()?.success());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct CopiedProgram {
    directory: PathBuf,
    path: PathBuf,
}

impl CopiedProgram {
    /// Copies a program to a directory of its own below that of temporary files.
    ///
    /// # Errors
    /// What a call says that fails; [`io::ErrorKind::NotFound`] where there is no `cp`, or what it said itself. Nothing is left behind then.
    pub fn of(program: &Path) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = program.file_name().ok_or_else(|| io::Error::other(format!("{} is no file", program.display())))?;
        let directory = loop {
            let of_mine = format!("overlay-program-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let directory = std::env::temp_dir().join(of_mine);
            match std::fs::create_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {} // of one that was killed
                made => break made.map(|()| directory)?,
            }
        };
        let copied = Self { path: directory.join(name), directory };
        std::fs::set_permissions(&copied.directory, PermissionsExt::from_mode(0o755))?;
        let output = Command::new("cp").arg(program).arg(&copied.path).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        std::fs::set_permissions(&copied.path, PermissionsExt::from_mode(0o755))?;
        Ok(copied)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for CopiedProgram {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn a_copy_runs_while_other_threads_begin_children_and_goes_with_its_value() {
        let over = std::sync::atomic::AtomicBool::new(false);
        let own = std::fs::metadata("/proc/self").unwrap().uid();
        let begins = || {
            while !over.load(Ordering::Relaxed) {
                // As somebody: so it is forked, and has all descriptors for longest.
                assert!(Command::new("/bin/true").uid(own).status().unwrap().success());
            }
        };
        std::thread::scope(|scope| {
            (0..2).for_each(|_| drop(scope.spawn(begins)));
            let ran: Vec<_> = (0..200)
                .map(|_| {
                    let copy = CopiedProgram::of("/bin/true".as_ref())?;
                    let status = Command::new(copy.path()).status()?;
                    let directory = copy.directory.clone();
                    drop(copy);
                    Ok::<_, io::Error>((status.success(), directory.exists()))
                })
                .collect();
            over.store(true, Ordering::Relaxed); // before anything may panic: the others end by that
            for ran in ran {
                assert_eq!(ran.unwrap(), (true, false));
            }
        });
    }

    #[test]
    fn what_is_no_file_is_refused_and_leaves_nothing() {
        for (program, expected) in [("/", "is no file"), ("/nonexistent/program", "/nonexistent/program")] {
            let error = CopiedProgram::of(program.as_ref()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
