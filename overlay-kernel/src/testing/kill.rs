//! Death between any two system calls.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What became of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was killed where it should be.
    Killed,
    /// It came to its end before, with this exit code.
    Finished {
        /// The code.
        code: i32,
        /// How many boundaries it passed.
        boundaries: usize,
    },
}

/// Runs `command` and kills it with SIGKILL at the `boundary`-th entry or exit of a system call, counted over all its
/// threads from 1 on, beginning when it calls [`await_go`]. A call at whose entry it dies does not happen; one at whose
/// exit it dies has. With boundaries from 1 on until it [finishes](Fate::Finished), it dies everywhere it can.
///
/// The process is traced by the calling thread, so the kernel decides where it dies and not a hook in what is tested.
/// It must have one thread when it calls `await_go`. Processes that it starts are not traced.
///
/// # Errors
/// If the process cannot be started or traced.
pub fn kill_at(command: &mut Command, boundary: usize) -> io::Result<Fate> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let process = Pid::from_raw(child.id().cast_signed());
    let threads = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::seize(process, threads)?;
    ptrace::interrupt(process)?;
    let _stopped = waitpid(process, Some(WaitPidFlag::__WALL))?;
    let mut boundaries = 0;
    ptrace::syscall(process, None)?;
    if let Some(mut go) = child.stdin.take() {
        go.write_all(b"\n")?;
    }
    loop {
        let passed = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))? {
            WaitStatus::Exited(thread, code) if thread == process => return Ok(Fate::Finished { code, boundaries }),
            WaitStatus::Signaled(thread, ..) if thread == process => return Ok(Fate::Killed),
            WaitStatus::PtraceSyscall(thread) => {
                boundaries += 1;
                if boundaries == boundary {
                    child.kill()?;
                    continue;
                }
                ptrace::syscall(thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => ptrace::syscall(thread, None),
            WaitStatus::Stopped(thread, Signal::SIGSTOP | Signal::SIGTRAP) => ptrace::syscall(thread, None),
            WaitStatus::Stopped(thread, signal) => ptrace::syscall(thread, signal),
            _ => Ok(()),
        };
        match passed {
            Ok(()) | Err(Errno::ESRCH) => {} // a thread that is dying already
            Err(error) => return Err(error.into()),
        }
    }
}

/// In the process that [`kill_at`] runs: waits until it is watched. What follows may end at any call.
pub fn await_go() {
    let mut go = [0];
    let _ = io::stdin().read(&mut go);
}
