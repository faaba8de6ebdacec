//! What the verbs share: running a command, and saying what failed.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::workspace;

/// Why a step did not pass: what was wrong and what would be right.
#[derive(Debug)]
pub(crate) struct Failure(String);

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Passes if there are no complaints.
pub(crate) fn verdict(complaints: &[String]) -> Outcome {
    match complaints {
        [] => Ok(()),
        _ => Err(Failure::new(format!("{} to put right\n  {}", complaints.len(), complaints.join("\n  ")))),
    }
}

/// Refuses arguments, for verbs that have none.
pub(crate) fn no_arguments(arguments: &[String]) -> Outcome {
    match arguments {
        [] => Ok(()),
        _ => Err(Failure::new(format!("this verb takes no arguments, not {arguments:?}"))),
    }
}

/// The cargo that runs us, at the workspace's root, with the words of `line` as its arguments.
pub(crate) fn cargo(line: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root()).args(line.split_whitespace());
    command
}

/// Runs a command on this terminal.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let line = shown(command);
    println!("$ {line}");
    let status = command.status().map_err(|error| Failure::new(format!("{line}: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{line}: {status}"))) }
}

/// The same command, where and with what it was, run by the program that `line` begins.
pub(crate) fn through(line: &str, command: &Command) -> Command {
    let mut words = line.split_whitespace();
    let mut wrapped = Command::new(words.next().unwrap_or_default());
    wrapped.args(words).arg(command.get_program()).args(command.get_args());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}

/// Does a step while a command runs that leaves it the processor wherever it wants it; fails if one of both did.
pub(crate) fn run_behind(command: &Command, step: impl FnOnce() -> Outcome) -> Outcome {
    let mut behind = through("nice -n 19", command);
    let line = shown(&behind);
    println!("$ {line} &");
    let failure = |error| Failure::new(format!("{line}: {error}"));
    let mut child = behind.spawn().map_err(failure)?;
    let outcome = step();
    let status = child.wait().map_err(failure)?;
    outcome.and_then(|()| if status.success() { Ok(()) } else { Err(Failure::new(format!("{line}: {status}"))) })
}

/// Runs commands beside each other, to the end of each; fails if one did. What waits leaves the processor to the others, and of those that build cargo lets one
/// build at a time.
pub(crate) fn run_beside(commands: &mut [Command]) -> Outcome {
    let start = |command: &mut Command| {
        let line = shown(command);
        println!("$ {line}");
        let child = command.spawn().map_err(|error| Failure::new(format!("{line}: {error}")));
        child.map(|child| (line, child))
    };
    let started: Vec<_> = commands.iter_mut().map(start).collect();
    let ended = started.into_iter().map(|started| {
        let (line, mut child) = started?;
        match child.wait().map_err(|error| Failure::new(format!("{line}: {error}")))? {
            status if status.success() => Ok(()),
            status => Err(Failure::new(format!("{line}: {status}"))),
        }
    });
    ended.collect::<Vec<Outcome>>().into_iter().collect() // each is waited for, whatever became of the others
}

/// Runs a command for what it writes to stdout.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let line = shown(command);
    println!("$ {line}");
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| Failure::new(format!("{line}: {error}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!("{line}: {}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|error| Failure::new(format!("{line}: {error}")))
}

/// Reads a file of the workspace.
pub(crate) fn read(path: &str) -> Outcome<String> {
    std::fs::read_to_string(workspace::root().join(path)).map_err(|error| Failure::new(format!("{path}: {error}")))
}

fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| Some(format!("{}={:?} ", name.display(), value?)));
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let arguments = command.get_args().map(|argument| format!(" {}", argument.display()));
    variables.chain([program.display().to_string()]).chain(arguments).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_commands_beside_each_other_all_run_to_their_end_and_one_that_fails_is_named() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let made = std::env::temp_dir().join(format!("xtask-beside-{}", std::process::id()));
        let slow = format!("sleep 0.1; echo > {}", made.display());
        let failure = run_beside(&mut [shell("exit 3"), shell("true"), shell(&slow)]).unwrap_err();
        assert!(failure.to_string().contains("exit 3"), "{failure}");
        assert!(std::fs::remove_file(&made).is_ok(), "the last was not waited for");
        assert!(run_beside(&mut [shell("true"), shell("true")]).is_ok());
    }

    #[test]
    fn a_command_that_another_runs_is_the_same_where_and_with_what_it_was() {
        let mut command = Command::new("cargo");
        command.args(["test", "--workspace"]).current_dir("/").env("CASES", "7");
        let wrapped = through("nice -n 19", &command);
        assert_eq!(wrapped.get_program(), "nice");
        assert_eq!(wrapped.get_args().collect::<Vec<_>>(), ["-n", "19", "cargo", "test", "--workspace"]);
        assert_eq!(wrapped.get_current_dir(), command.get_current_dir());
        assert!(wrapped.get_envs().eq(command.get_envs()));
    }

    #[test]
    fn a_step_is_done_while_a_command_runs_behind_it_and_both_must_pass() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir("/").env("STATUS", "3");
            command
        };
        let made = std::env::temp_dir().join(format!("xtask-behind-{}", std::process::id()));
        // It ends once the step is begun, and would not before.
        let waits = format!("test $(nice) = 19 && until [ -e {} ]; do sleep 0.01; done", made.display());
        let begins = || std::fs::write(&made, "").map_err(|error| Failure::new(error.to_string()));
        assert!(run_behind(&shell(&waits), begins).is_ok());
        assert!(std::fs::remove_file(&made).is_ok());
        let failure = run_behind(&shell("exit $STATUS"), || Ok(())).unwrap_err();
        assert!(failure.to_string().contains("exit status: 3"), "{failure}");
        let failure = run_behind(&shell("true"), || Err(Failure::new("no"))).unwrap_err();
        assert_eq!(failure.to_string(), "no");
    }
}
