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
}
