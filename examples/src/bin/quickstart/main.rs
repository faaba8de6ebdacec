//! Three hosts, from nothing to a network between containers: what an operator would type, and what comes of it.
//!
//! `cargo run --release --bin quickstart` makes them of namespaces in this machine's kernel, as root or as an ordinary user, who gets a
//! private world for it. There the kernel carries the packets; or, where it has no ESP and with `--backend userspace`, the hosts' agents do. Where the
//! kernel forbids such a world, and with `--backend memory`, real managers and agents run in this
//! process on a virtual clock, with everything they put into a kernel held in memory, and real packets go through a data plane in user space. It ends with a table of checks, and with 1 if one
//! of them fails.

#![expect(clippy::print_stdout, reason = "it talks to a person")]
#![expect(clippy::print_stderr, reason = "it tells a person what was typed wrongly")]

mod arguments;
mod encrypted;
mod ingress;
mod kernel;

mod overlay;
mod session;
mod wire;

use std::error::Error;
use std::process::ExitCode;

use arguments::{Asked, Backend, USAGE};
use kernel::Wishes;
use overlay_driver::testing::Carried;
use session::Session;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<ExitCode> {
    if let Err(error) = overlay_examples::process::raise_open_files() {
        eprintln!("quickstart: it may have no more open files than it was begun with: {error}");
    }
    match arguments::parse(std::env::args().skip(1)) {
        Ok(Asked::Help) => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Asked::Run(Some(Backend::Memory), wishes)) => walk(&wishes),
        Ok(Asked::Run(backend, wishes)) => match (kernel::build(backend.and_then(carried)), backend) {
            (Ok(town), _) => kernel::walk(town, &wishes),
            (Err(why), None) => {
                println!(
                    "This machine's kernel does not let us: {why}.\nSo it all happens in memory; with --backend kernel it would not.\n"
                );
                walk(&wishes)
            }
            (Err(why), Some(_)) => {
                eprintln!("quickstart: this machine's kernel does not let us: {why}");
                eprintln!(
                    "It takes root, or user namespaces for ordinary users (/proc/sys/user/max_user_namespaces); in user space /dev/net/tun, too. --backend memory takes nothing."
                );
                Ok(ExitCode::FAILURE)
            }
        },
        Err(wrong) => {
            eprintln!("quickstart: {wrong}\n{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

/// What carries the packets of hosts of namespaces.
const fn carried(backend: Backend) -> Option<Carried> {
    match backend {
        Backend::Kernel => Some(Carried::InKernel),
        Backend::Userspace => Some(Carried::InUserSpace),
        Backend::Memory => None,
    }
}

fn walk(wishes: &Wishes) -> Outcome<ExitCode> {
    let mut session = Session::begin()?;
    overlay::create(&mut session)?;
    overlay::attach(&mut session)?;
    overlay::talk(&mut session)?;
    wire::show(&mut session)?;
    overlay::third_host(&mut session)?;
    overlay::drift(&mut session)?;
    overlay::relocate(&mut session)?;
    encrypted::show(&mut session)?;
    ingress::replace(&mut session)?;
    overlay::remove(&mut session)?;
    session.save(wishes.pcap.as_deref())?;
    Ok(if session.end() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
