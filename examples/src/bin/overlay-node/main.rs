//! A node of an overlay network, and the commands that speak with it.
//!
//! `overlay-node node init --address 192.0.2.1` founds a cluster, `overlay-node node join --token TOKEN 192.0.2.1` joins it on another machine, and `overlay-node run` runs
//! either. Without that, `overlay-node run --manager --address 192.0.2.1` runs a node that keeps the catalogue in a file; on the same machine
//! `overlay-node run --manager-socket PATH …` runs another, in another namespace say. All other commands speak with a running node by
//! its socket. `overlay-node --help` says more.

#![expect(clippy::print_stdout, reason = "it talks to a person")]
#![expect(clippy::print_stderr, reason = "errors and a log are for the terminal")]

mod agent;
mod arguments;
mod balancing;
mod cluster;
mod commands;
mod completion;
mod drain;
mod failure;
mod lock;
mod managing;
mod members;
mod metrics;
mod question;
mod running;
mod seat;
mod services;
mod store;
mod verbs;
mod words;

use std::error::Error;
use std::process::ExitCode;

use arguments::{Asked, Command, USAGE};
use failure::Failure;
use members::Member;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let asked = match arguments::parse(lexopt::Parser::from_env()) {
        Ok(Asked::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(asked) => asked,
        Err(wrong) => {
            match wants_json() {
                true => eprintln!("{}", json(&wrong)),
                false => eprintln!("overlay-node: {wrong}\nTry overlay-node --help."),
            }
            return ExitCode::from(2);
        }
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => match runtime.block_on(carry_out(asked)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&*error),
        },
        Err(error) => fail(&error),
    }
}

async fn carry_out(asked: Asked) -> Outcome {
    match asked {
        Asked::Help => Ok(()),
        Asked::Completion(shell) => {
            println!("{}", shell.script());
            Ok(())
        }
        Asked::Complete(words) => {
            completion::complete(&words).await.iter().for_each(|word| println!("{word}"));
            Ok(())
        }
        Asked::Run(run) => agent::run(run).await,
        Asked::Command { command: Command::Member(Member::Init { address, state, etcd }), json, .. } => {
            cluster::init(json, address, &state, etcd.read()?).await
        }
        Asked::Command { command: Command::Member(Member::Join { token, managers, state, etcd }), json, .. } => {
            cluster::enter(json, (&token, &managers), &state, etcd.read()?).await
        }
        Asked::Command { socket, json, command } => commands::carry_out(&socket, json, command).await,
    }
}

/// Whether errors are for a program too: those as well that are found before the words are understood.
fn wants_json() -> bool {
    std::env::args_os().any(|word| word == "--json")
}

fn json(error: &(dyn Error + 'static)) -> String {
    serde_json::to_string(&Failure::of(error)).unwrap_or_default() // texts and words alone
}

/// All causes, each on a line, and what would mend it if they do not say so; or as one object.
fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    if wants_json() {
        eprintln!("{}", json(error));
        return ExitCode::FAILURE;
    }
    let mut told = format!("Error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        told.push_str(&format!("\n  because {error}"));
        cause = error.source();
    }
    eprintln!("{told}");
    if let Some(advice) = Failure::of(error).advice(&told) {
        eprintln!("  try this: {advice}");
    }
    ExitCode::FAILURE
}
