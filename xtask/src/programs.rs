//! The programs that cargo builds, to run them otherwise than cargo does.

use std::path::PathBuf;
use std::process::Command;

use cargo_metadata::{Artifact, Message, TargetKind};

use crate::step::{Failure, Outcome, output};

/// A program of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) package: String,
    /// The name of its target.
    pub(crate) target: String,
    pub(crate) is_test: bool,
    pub(crate) executable: PathBuf,
    /// Where its package is, in which cargo would run it if it is a test.
    pub(crate) folder: PathBuf,
}

impl Program {
    /// Runs it as `cargo test` would, through `runner` if there is one.
    pub(crate) fn command(&self, runner: Option<PathBuf>) -> Command {
        let mut command = match runner {
            Some(runner) => {
                let mut command = Command::new(runner);
                command.arg(&self.executable);
                command
            }
            None => Command::new(&self.executable),
        };
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// Builds by this command of cargo's, which has no `--message-format` yet, and gives what can be run of it.
pub(crate) fn built(command: &mut Command) -> Outcome<Vec<Program>> {
    programs(&output(command.arg("--message-format=json-render-diagnostics"))?)
}

fn programs(said: &str) -> Outcome<Vec<Program>> {
    let mut programs = Vec::new();
    for message in Message::parse_stream(said.as_bytes()) {
        let message = message.map_err(|error| Failure::new(format!("what cargo says of what it builds: {error}")))?;
        if let Message::CompilerArtifact(artifact) = message {
            programs.extend(program(&artifact));
        }
    }
    Ok(programs)
}

fn program(artifact: &Artifact) -> Option<Program> {
    let folder = artifact.manifest_path.parent()?;
    let package = artifact.manifest_path.parent()?.file_name()?;
    let target = artifact.target.name.clone();
    let is_test = artifact.profile.test;
    let is_run = is_test || artifact.target.kind.contains(&TargetKind::Bin);
    let executable = artifact.executable.as_ref().filter(|_| is_run)?.clone().into_std_path_buf();
    Some(Program { package: package.to_owned(), target, is_test, executable, folder: folder.into() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn artifact(kind: &str, name: &str, is_test: bool, executable: Option<&str>) -> String {
        let target = json!({
            "kind": [kind], "crate_types": ["bin"], "name": name, "src_path": "/w/a/x.rs", "edition": "2024",
            "doc": false, "doctest": false, "test": true,
        });
        let profile = json!({
            "opt_level": "0", "debuginfo": 0, "debug_assertions": true, "overflow_checks": true, "test": is_test,
        });
        json!({
            "reason": "compiler-artifact", "package_id": "path+file:///w/a#0.1.0", "manifest_path": "/w/a/Cargo.toml",
            "target": target, "profile": profile, "features": [], "filenames": [], "executable": executable,
            "fresh": true,
        })
        .to_string()
    }

    #[test]
    fn what_can_be_run_is_told_from_what_is_only_linked() {
        let said = [
            artifact("lib", "a", false, None),
            artifact("test", "kernel", true, Some("/t/kernel-1")),
            artifact("bin", "node", false, Some("/t/node")),
            artifact("example", "shown", false, Some("/t/shown")),
        ];
        let found = programs(&said.join("\n")).unwrap();
        let short: Vec<_> = found.iter().map(|it| (it.package.as_str(), it.target.as_str(), it.is_test)).collect();
        assert_eq!(short, [("a", "kernel", true), ("a", "node", false)]);
        assert_eq!(found[0].folder, PathBuf::from("/w/a"));
        let command = found[0].command(Some("/w/lab".into()));
        assert_eq!(
            (command.get_program(), command.get_args().next()),
            ("/w/lab".as_ref(), Some("/t/kernel-1".as_ref()))
        );
    }
}
