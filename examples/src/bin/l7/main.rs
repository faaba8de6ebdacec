//! A reverse proxy over the services of an overlay network, which balances by itself: it follows a service's endpoints by a node's control socket, so
//! that whoever drains gets nothing new at once, checks them itself, and tries a request on another replica where that does no harm.
//!
//! It speaks HTTP/1.1 without TLS, and passes no upgrade on (WebSocket).
//!
//! `l7` alone shows that on two hosts of namespaces. `l7 --control PATH --listen ADDRESS --route …` is the proxy: run it where the services' containers
//! are reached, in the namespace of a container that is attached to their networks.

#![expect(clippy::print_stdout, reason = "it talks to a person")]
#![expect(clippy::print_stderr, reason = "errors are for the terminal")]

mod arguments;
mod demo;
mod paced;
mod pool;
mod proxy;
mod routes;
mod serve;

use std::error::Error;
use std::process::ExitCode;

use arguments::{Asked, USAGE};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let done = match arguments::parse(lexopt::Parser::from_env()) {
        Ok(Asked::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Serve(serve)) => serve::run(*serve).map(|()| true),
        Ok(Asked::Show) => demo::run(),
        Err(wrong) => {
            eprintln!("l7: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&*error),
    }
}

/// All causes, each on a line.
fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("l7: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}
