//! `cargo xtask readme`: the program that the README tells a newcomer to run first.

use std::process::Command;

use crate::step::{Failure, Outcome, cargo, no_arguments, read, run as execute};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    execute(&mut documented("cargo run --release --bin quickstart")?)
}

/// A command that stands in the README as it is here, with `--locked` added.
pub(crate) fn documented(line: &str) -> Outcome<Command> {
    if !commands(&read("README.md")?).any(|command| command == line) {
        return Err(Failure::new(format!(
            "README.md has no line `{line}` in a code block; this step runs what stands there"
        )));
    }
    let mut command = cargo(line.trim_start_matches("cargo "));
    command.arg("--locked");
    Ok(command)
}

/// The lines of all code blocks, without prompts and comments.
fn commands(markdown: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    markdown.lines().filter_map(move |line| {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            return None;
        }
        let line = line.split(" #").next().unwrap_or_default().trim();
        inside.then(|| line.strip_prefix("$ ").unwrap_or(line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_line_of_a_code_block_without_prompt_and_comment() {
        let text = "Say cargo one:\ncargo two\n```sh\n$ cargo three  # why\ncargo four\n```\ncargo five\n";
        assert_eq!(commands(text).collect::<Vec<_>>(), ["cargo three", "cargo four"]);
    }

    #[test]
    fn a_command_that_the_readme_does_not_have_is_not_run() {
        let failure = documented("cargo test --elsewhere").unwrap_err().to_string();
        assert!(failure.contains("README.md has no line `cargo test --elsewhere`"), "{failure}");
    }
}
