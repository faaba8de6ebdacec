//! The walk-through in this machine's kernel: hosts and containers are network namespaces, all between them is real.

mod encrypted;
mod form;
mod rules;
mod services;
mod town;
mod walk;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use overlay_core::told;
use overlay_driver::KernelPlaces;
use overlay_driver::testing::{Carried, node};
use overlay_examples::capture::{Capture, pcap};
use overlay_kernel::Namespace;
use overlay_node::Places as _;

use crate::Outcome;
use town::Town;

/// What is asked for beside the walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Where the frames go that host-1 sends and receives.
    pub(crate) pcap: Option<String>,
    /// Whether hosts and containers stay until Enter is pressed.
    pub(crate) keep: bool,
}

/// Three hosts, or why there are none: then nothing was done.
///
/// Where it is not said what carries the packets, it is what all of the walk can be shown with: the kernel if it has ESP, or else
/// user space if it has TAPs.
///
/// Call it before there is any thread: the world is a private one, so that an ordinary user may have it too. Where root may not have
/// such a world it does without.
pub(crate) fn build(carried: Option<Carried>) -> Result<Town, String> {
    if let Err(error) = overlay_kernel::enter_private() {
        let root = fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
        if !root {
            return Err(told(&error));
        }
    }
    let carried = carried.map_or_else(choose, Ok).map_err(|error| told(&*error))?;
    Town::build(carried).map_err(|error| told(&*error))
}

fn choose() -> Outcome<Carried> {
    let dir = std::env::temp_dir();
    let here = KernelPlaces::new("probe".parse()?, node(0), Namespace::create()?, &dir)?;
    let Err(lacks) = here.protects() else {
        println!("The kernel carries the packets, as it has all that this takes.\n");
        return Ok(Carried::InKernel);
    };
    let tap = fs::File::options().read(true).write(true).open("/dev/net/tun");
    Ok(match tap {
        Ok(_) => {
            println!(
                "The packets are carried in user space, as this kernel has no ESP for encrypted networks: {lacks}.\n"
            );
            Carried::InUserSpace
        }
        Err(error) => {
            println!(
                "The kernel carries the packets, without encrypted networks, for which it has no ESP; user space would need /dev/net/tun: {error}.\n"
            );
            Carried::InKernel
        }
    })
}

pub(crate) fn walk(mut town: Town, wishes: &Wishes) -> Outcome<ExitCode> {
    let capture = match &wishes.pcap {
        Some(_) => Some(Capture::start(town.hosts.lab.host(0))?),
        None => None,
    };
    walk::all(&mut town)?;
    if let (Some(capture), Some(file)) = (capture, &wishes.pcap) {
        let seen = capture.stop()?;
        fs::write(Path::new(file), pcap(&seen))?;
        println!("{} frames of host-1's cable are in {file}\n", seen.len());
    }
    if wishes.keep {
        town.wait_for_enter()?;
    }
    walk::remove(&mut town)?;
    let good = town.end()?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
