//! What of other programs is in the way, and what to do about it.

use std::fmt;

use overlay_core::{BackendError, IfName};
use overlay_kernel::nft::{Barrier, Hook};

use super::Firewall;
use crate::State;

/// A chain of another program's that drops what is allowed here: an accept of ours does not overrule it.
///
/// It is reported and never changed; [`remedy`](Self::remedy) is what its administrator may run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Obstacle {
    /// The family, the table and the chain.
    pub chain: String,
    /// Whose it is, as far as that can be told.
    pub program: Program,
    /// What it drops: packets to a gateway's device, or to a tunnel's port.
    pub drops: String,
    /// The commands that let it pass, for a shell of root.
    pub remedy: String,
}

/// A program that is known for such chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Program {
    /// Docker, which leaves the chain `DOCKER-USER` to others.
    Docker,
    /// firewalld, which has zones.
    Firewalld,
    /// Ubuntu's ufw.
    Ufw,
    /// Another, or an administrator's own.
    Other,
}

impl Program {
    fn of(barrier: &Barrier) -> Self {
        match () {
            () if barrier.chains.contains("DOCKER-USER") => Self::Docker,
            () if barrier.table == "firewalld" => Self::Firewalld,
            () if barrier.chains.iter().any(|chain| chain.starts_with("ufw-")) => Self::Ufw,
            () => Self::Other,
        }
    }
}

impl Firewall {
    /// Chains of other programs that drop what `state` allows: at the forward hook what comes from and goes to gateways,
    /// at the input hook what is for tunnels. What the older iptables holds is not seen. For Docker, a
    /// [`Passage`](super::Passage) does what its remedy says, and takes it back.
    ///
    /// # Errors
    /// If tables cannot be read.
    pub fn obstacles(&mut self, state: &State) -> Result<Vec<Obstacle>, BackendError> {
        let mut obstacles = Vec::new();
        for barrier in self.nft.barriers(Hook::Forward)? {
            let shut = state.gateways.keys().filter(|device| !barrier.passes.contains(*device));
            obstacles.extend(shut.map(|device| forward(&barrier, device)));
        }
        for barrier in self.nft.barriers(Hook::Input)? {
            obstacles.extend(state.tunnels.keys().map(|port| input(&barrier, port.get())));
        }
        Ok(obstacles)
    }
}

fn forward(barrier: &Barrier, device: &IfName) -> Obstacle {
    let program = Program::of(barrier);
    let insert = |chain: &str| {
        let rule =
            |what: &str| format!("nft insert rule {} {} {chain} {what} {device} accept", barrier.family, barrier.table);
        format!("{}; {}", rule("iifname"), rule("oifname"))
    };
    let remedy = match program {
        Program::Docker => docker(barrier, device),
        Program::Firewalld => {
            format!("firewall-cmd --permanent --zone=trusted --add-interface={device}; firewall-cmd --reload")
        }
        Program::Ufw => format!("ufw route allow in on {device}; ufw route allow out on {device}"),
        Program::Other => insert(&barrier.chain),
    };
    Obstacle { chain: named(barrier), program, drops: format!("packets from and to {device}"), remedy }
}

/// What goes to Docker's own bridges stays for Docker to judge.
fn docker(barrier: &Barrier, device: &IfName) -> String {
    let rules = ["iifname D accept", "oifname D accept", "iifname D oifname docker0 return"];
    let rules = rules.into_iter().chain(["iifname D oifname \"br-*\" return"]).map(|rule| {
        let rule = rule.replace('D', device.as_str());
        format!("nft 'insert rule {} {} DOCKER-USER {rule}'", barrier.family, barrier.table)
    });
    rules.collect::<Vec<_>>().join("; ")
}

fn input(barrier: &Barrier, port: u16) -> Obstacle {
    let program = Program::of(barrier);
    let remedy = match program {
        Program::Firewalld => format!("firewall-cmd --permanent --add-port={port}/udp; firewall-cmd --reload"),
        Program::Ufw => format!("ufw allow {port}/udp"),
        Program::Docker | Program::Other => {
            format!("nft insert rule {} {} {} udp dport {port} accept", barrier.family, barrier.table, barrier.chain)
        }
    };
    Obstacle { chain: named(barrier), program, drops: format!("datagrams to port {port}"), remedy }
}

fn named(barrier: &Barrier) -> String {
    format!("{} {} {}", barrier.family, barrier.table, barrier.chain)
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} drops {}; to let them pass: {}", self.chain, self.drops, self.remedy)
    }
}
