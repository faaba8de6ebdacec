//! Two hosts, one overlay network, in this machine's kernel: hosts and containers are network namespaces, everything
//! between them is made by `overlay_vxlan::Sandbox`. Over an IPv4 underlay first, then over an IPv6 one.
//!
//! `cargo run --release --bin two_hosts [-- --pcap FILE]`, as root or as an ordinary user, who gets a private world for
//! it. It ends with a table of checks, and with 1 if one of them fails. FILE gets what host 1 sends and receives.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

mod echo;
mod world;

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

use overlay_core::{IpFamily, Shadow, reconcile};
use overlay_examples::capture::{self, Capture};
use overlay_vxlan::State;

use crate::world::{CONTAINERS, World};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
type Checks = Vec<(String, bool)>;

fn main() -> Outcome<ExitCode> {
    let pcap = arguments()?;
    if fs::metadata("/proc/self")?.uid() != 0 {
        overlay_kernel::enter_private()?; // before there is any thread
        println!("not root: in a private user namespace\n");
    }
    let mut checks = Checks::new();
    let mut captured = Vec::new();
    for underlay in [IpFamily::V4, IpFamily::V6] {
        let world = World::new(underlay)?;
        let capture = Capture::start(world.host(0)).map_err(|error| format!("capture: {error}"))?;
        run(&world, &mut checks)?;
        captured.extend(capture.stop()?);
    }
    if let Some(file) = pcap {
        fs::write(&file, capture::pcap(&captured))?;
        println!("{} packets of the underlay are in {}\n", captured.len(), file.display());
    }

    println!("== checks");
    for (what, holds) in &checks {
        println!("{}  {what}", if *holds { "ok    " } else { "FAILED" });
    }
    Ok(if checks.iter().all(|(_, holds)| *holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn arguments() -> Outcome<Option<PathBuf>> {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next(), arguments.next()) {
        (None, ..) => Ok(None),
        (Some(option), Some(file), None) if option == "--pcap" => Ok(Some(file.into())),
        _ => Err("usage: two_hosts [--pcap FILE]".into()),
    }
}

/// Builds the network, tries it, moves a container, and takes all down again.
fn run(world: &World, checks: &mut Checks) -> Outcome {
    let over = format!("over {}", world.underlay);
    println!("== underlay {}\n\n{}", world.underlay, world.topology()?);

    let apart = [0, 1];
    settle(world, &apart)?;
    reachable(world, checks, &over)?;
    let again = [0, 1].map(|host| Ok(reconcile(&mut world.open(host)?, &world.wanted(host, &apart)?)?.is_empty()));
    let again = again.into_iter().collect::<Outcome<Vec<_>>>()?;
    checks.push((format!("opened anew, as by another process, it finds nothing to do, {over}"), again == [true, true]));

    println!("{} moves to host 1\n", CONTAINERS[1]);
    settle(world, &[0, 0])?;
    let all = echo::all(world, "at its new host at once")?;
    checks.push((format!("0 % loss at once after it moved, {over}"), all));

    for host in [0, 1] {
        reconcile(&mut world.open(host)?, &State::default())?;
    }
    checks.push((format!("nothing is left in any namespace, {over}"), world.is_bare()?));
    Ok(())
}

/// Brings both hosts to where the containers are so placed: what leaves a host leaves it first.
fn settle(world: &World, placed: &[usize; 2]) -> Outcome {
    for host in [1, 0] {
        let done = reconcile(&mut Shadow::new(world.open(host)?), &world.wanted(host, placed)?)?;
        println!("host {}, applied (phase, then step):\n{done}", host + 1);
    }
    Ok(())
}

fn reachable(world: &World, checks: &mut Checks, over: &str) -> Outcome {
    let echoed = echo::all(world, "from host to host")?;
    checks.push((format!("0 % loss from host to host, IPv4 and IPv6, {over}"), echoed));
    let fits = echo::of_the_mtu(world)?;
    checks.push((format!("datagrams of exactly the MTU, {}, come back, {over}", world.mtu()?), fits));
    Ok(())
}
