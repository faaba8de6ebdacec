//! `cargo xtask lab [--bless]`: the tests that need the kernel lab's kernel, in it, as many at once as there are cores.

use std::collections::VecDeque;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::programs::{Program, built};
use crate::step::{Failure, Outcome, cargo, verdict};
use crate::workspace::{metadata, root};

const LAB: &str = "testing/kernel-lab/run";
/// How long a kernel of the lab may live, in seconds.
const SECONDS: &str = "1200";
/// Cases of each property test there, where all takes several times as long.
const CASES: &str = "32";
/// The lab's exit status where something is not installed.
const NOT_INSTALLED: i32 = 69;

/// Whether it is installed. In CI it must be.
pub(crate) fn is_there() -> Outcome<bool> {
    let status = Command::new(root().join(LAB)).arg("true").status();
    match status.map_err(|error| Failure::new(format!("{LAB}: {error}")))?.code() {
        Some(0) => Ok(true),
        Some(NOT_INSTALLED) if std::env::var_os("CI").is_none() => Ok(false),
        code => Err(Failure::new(format!("{LAB} true: exit status {code:?}"))),
    }
}

/// Runs the test targets that are called `kernel`, each in a kernel of its own, and gives which tests say that they ran.
///
/// A kernel of the lab has one core, and is a process like others.
pub(crate) fn log_of_tests() -> Outcome<String> {
    let all = "test --locked --quiet --workspace --all-features --test kernel --no-run";
    let mut programs = built(&mut cargo(all))?;
    programs.retain(|program| program.is_test); // cargo builds what they start, too
    let folder = metadata()?.target_directory.join("lab-tests").into_std_path_buf();
    let made = fs::remove_dir_all(&folder).or_else(gone).and_then(|()| fs::create_dir_all(&folder));
    made.map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;

    let waiting = Mutex::new(VecDeque::from(programs));
    let done = Mutex::new((String::new(), Vec::new()));
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_back();
                while let Some(program) = next() {
                    let run = Run::of(&program, &folder);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    println!("{}", run.said);
                    done.0.push_str(&run.log);
                    done.1.extend(run.complaint);
                }
            });
        }
    });
    let (log, complaints) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    verdict(&complaints).map(|()| log)
}

/// What became of a program of tests.
struct Run {
    said: String,
    log: String,
    complaint: Option<String>,
}

impl Run {
    /// The log is the program's own: two kernels that append to one file would write over each other.
    fn of(program: &Program, folder: &Path) -> Self {
        let (name, begun) = (&program.package, Instant::now());
        let log: PathBuf = folder.join(format!("{name}.log"));
        let mut command = program.command(Some(root().join(LAB)));
        command.env("OVERLAY_REQUIRE_KERNEL", "1").env("OVERLAY_KERNEL_LOG", &log).env_remove("KERNEL_LAB");
        command.env("LAB_SECONDS", SECONDS).env("PROPTEST_CASES", CASES);
        let (said, complaint) = match command.output() {
            Ok(output) => {
                let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                let failed = (!output.status.success()).then(|| format!("{name} in the lab: {}", output.status));
                (said.concat(), failed)
            }
            Err(error) => (String::new(), Some(format!("{name} in the lab: {error}"))),
        };
        let said = format!("--- {name} in the lab, {:.1} s\n{said}", begun.elapsed().as_secs_f64());
        let log = fs::read_to_string(log).unwrap_or_default(); // none where no test needs the lab
        Self { said, log, complaint }
    }
}

fn gone(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
