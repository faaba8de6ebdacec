//! Death between any two system calls.

use std::fs;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

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
/// threads from 1 on, beginning where it calls [`await_go`]. A call at whose entry it dies does not happen; one at whose
/// exit it dies has. With boundaries from 1 on until it [finishes](Fate::Finished), it dies everywhere it can.
///
/// The process is traced by the calling thread, so the kernel decides where it dies and not a hook in what is tested.
/// Its standard input and output are taken; it may print 64 KiB. Processes that it starts are not traced.
///
/// # Errors
/// If the process cannot be started or traced, or ends before it calls `await_go`.
pub fn kill_at(command: &mut Command, boundary: usize) -> io::Result<Fate> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(mut input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    await_ready(&mut output)?;
    trace(child.id())?;
    input.write_all(b"\n")?;
    let fate = watch(&mut child, boundary);
    drop((input, output));
    fate
}

/// In the process that [`kill_at`] runs: waits until it is watched. What follows may end at any call.
pub fn await_go() {
    let _ = io::stdout().write_all(&[READY]).and_then(|()| io::stdout().flush());
    let mut go = [0];
    let _ = io::stdin().read(&mut go);
}

fn await_ready(output: &mut impl Read) -> io::Result<()> {
    let mut byte = [0];
    while byte != [READY] {
        output.read_exact(&mut byte)?;
    }
    Ok(())
}

/// Stops every thread of a process that waits, and lets each run on to its next system call.
fn trace(process: u32) -> io::Result<()> {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let name = thread?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let thread = Pid::from_raw(thread);
        ptrace::seize(thread, options)?;
        ptrace::interrupt(thread)?;
        let _stopped = waitpid(thread, Some(WaitPidFlag::__WALL))?;
        ptrace::syscall(thread, None)?;
    }
    Ok(())
}

fn watch(child: &mut Child, boundary: usize) -> io::Result<Fate> {
    let process = Pid::from_raw(child.id().cast_signed());
    let mut boundaries = 0;
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

const READY: u8 = 6; // ASCII's "acknowledge", which no test prints
