//! The benchmark program: `overlay-bench [--quick] GROUP[/FIGURE]...`, from the workspace's root
//! `cargo run --release --bin overlay-bench -- GROUP...`; `gossip/heal` is all of that group whose names begin so. Figures go to stdout, one JSON line each (see
//! [`overlay_bench`]), progress to stderr. Exit status 2 for arguments it does not know.

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "progress and usage are for the terminal")]

use std::io;
use std::process::ExitCode;

use overlay_bench::{Bench, Pace};

mod codec;
mod control;
mod crypto;
mod datapath;
mod datapath_fabric;
mod datapath_offload;
mod datapath_taps;
mod dns;
mod dns_servers;
mod dns_sockets;
mod firewall;
mod firewall_kernel;
mod gossip;
mod ipam;
mod ipam_commits;
mod ipam_durable;
mod kernel;
mod kernel_nft;
mod lb;
mod lb_drain;
mod lb_kernel;
mod lb_mesh;
mod node;
mod node_agent;
mod node_hosts;
mod node_join;
mod node_rss;
mod node_sim;
mod node_town;
mod pki;
mod store;
mod vxlan;
mod vxlan_kernel;
mod vxlan_scale;
mod vxlan_tcp;

/// Every group, in the order of `all`: a file beside this one, and its line here.
const GROUPS: &[Group] = &[
    Group { name: "codec", about: "VXLAN packets: read, write, flow hash", run: codec::run },
    Group {
        name: "crypto",
        about: "ESP sealed and opened, keys, plans of associations; as root, of XFRM",
        run: crypto::run,
    },
    Group { name: "datapath", about: "packets through the user-space machine", run: datapath::run },
    Group { name: "dns", about: "answers, zones, and DNS servers over sockets", run: dns::run },
    Group { name: "firewall", about: "verdicts; as root, rules in the kernel", run: firewall::run },
    Group {
        name: "gossip",
        about: "membership and tables of up to 5,000 nodes on a virtual network",
        run: gossip::run,
    },
    Group { name: "ipam", about: "address sets, subnets, leases over stores", run: ipam::run },
    Group {
        name: "kernel",
        about: "native links and tables in the kernel, as root: apply, observe, witness",
        run: kernel::run,
    },
    Group { name: "lb", about: "schedulers, flows, packets; as root, virtual services in the kernel", run: lb::run },
    Group { name: "node", about: "what a node should hold, of what it knows; a cluster simulated", run: nodes },
    Group { name: "store", about: "commits in memory, in one file and, with feature etcd, on etcd", run: store::run },
    Group {
        name: "vxlan",
        about: "overlay segments: plans between states; as root, a network in the kernel",
        run: vxlan::run,
    },
];

fn nodes(bench: &mut Bench<'_>) -> io::Result<()> {
    node::run(bench)?;
    control::requests(bench)?;
    node_join::run(bench)?;
    node_sim::run(bench)
}

struct Group {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Bench<'_>) -> io::Result<()>,
}

fn main() -> ExitCode {
    if let Some(done) = dns_servers::serve_if_asked().or_else(node_rss::be_if_asked).or_else(node_agent::be_if_asked) {
        return done;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (options, names): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| argument.starts_with('-'));
    let pace = match options[..] {
        [] => Pace::Full,
        ["--quick"] => Pace::Quick,
        _ => return usage(&format!("unknown option: {}", options.join(" "))),
    };
    let mut chosen = Vec::new();
    let mut only = Vec::new();
    for name in &names {
        let of = name.split('/').next().unwrap_or(name);
        let found: Vec<&Group> = GROUPS.iter().filter(|group| *name == "all" || of == group.name).collect();
        if found.is_empty() {
            return usage(&format!("unknown group: {name}"));
        }
        let new = |group: &&Group| chosen.iter().all(|other: &&Group| other.name != group.name);
        let found: Vec<&Group> = found.into_iter().filter(new).collect();
        chosen.extend(found);
        only.push(if *name == "all" { String::new() } else { (*name).to_owned() });
    }
    if chosen.is_empty() {
        return usage("no group given");
    }
    match run(&chosen, only, pace) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlay-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(groups: &[&Group], only: Vec<String>, pace: Pace) -> io::Result<()> {
    let mut stdout = io::stdout();
    let mut bench = Bench::new(pace, &mut stdout).only(only);
    for group in groups {
        eprintln!("{}: {}", group.name, group.about);
        (group.run)(&mut bench)?;
    }
    Ok(())
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("{problem}\n\nusage: overlay-bench [--quick] GROUP[/FIGURE]...\n\ngroups:");
    for group in GROUPS {
        eprintln!("  {:<8} {}", group.name, group.about);
    }
    eprintln!("  {:<8} every group", "all");
    ExitCode::from(2)
}
