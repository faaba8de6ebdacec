//! Three hosts, from nothing to a network between containers: what an operator would type, and what comes of it.
//!
//! `cargo run --release --bin quickstart -- --backend memory` runs real managers and agents in this process, on a virtual clock,
//! with everything they put into a kernel held in memory. It ends with a table of checks, and with 1 if one of them fails.

#![expect(clippy::print_stdout, reason = "it talks to a person")]
#![expect(clippy::print_stderr, reason = "it tells a person what was typed wrongly")]

mod arguments;
mod ingress;
mod listing;
mod overlay;
mod session;
mod wire;

use std::error::Error;
use std::process::ExitCode;

use arguments::{Asked, Backend, USAGE};
use session::Session;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<ExitCode> {
    match arguments::parse(std::env::args().skip(1)) {
        Ok(Asked::Help) => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Asked::Run(Backend::Memory)) => walk(),
        Ok(Asked::Run(Backend::Kernel)) => {
            eprintln!("quickstart: --backend kernel is not there yet: no driver applies to a kernel what agents want.");
            eprintln!("Run --backend memory, or `two_hosts` for a network between two hosts of namespaces.");
            Ok(ExitCode::FAILURE)
        }
        Err(wrong) => {
            eprintln!("quickstart: {wrong}\n{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

fn walk() -> Outcome<ExitCode> {
    let mut session = Session::begin()?;
    overlay::create(&mut session)?;
    overlay::attach(&mut session)?;
    overlay::talk(&mut session)?;
    wire::show(&mut session)?;
    overlay::third_host(&mut session)?;
    overlay::drift(&mut session)?;
    overlay::relocate(&mut session)?;
    ingress::replace(&mut session)?;
    overlay::remove(&mut session)?;
    Ok(if session.end() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
