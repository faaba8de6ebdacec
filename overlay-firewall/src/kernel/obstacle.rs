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
    let name = device.as_str();
    let remedy = match program {
        Program::Docker => docker(barrier, name),
        Program::Firewalld => {
            let zone = ["--permanent", "--zone=trusted", &format!("--add-interface={name}")];
            format!("{}; firewall-cmd --reload", command("firewall-cmd", &zone))
        }
        Program::Ufw => ["in", "out"].map(|way| command("ufw", &["route", "allow", way, "on", name])).join("; "),
        Program::Other => nft(&["iifname", "oifname"].map(|way| {
            let rule = insert(barrier, &barrier.chain);
            rule.into_iter().chain([plain(way), nft_word(name), plain("accept")]).collect()
        })),
    };
    Obstacle { chain: named(barrier), program, drops: format!("packets from and to {device}"), remedy }
}

/// What goes to Docker's own bridges stays for Docker to judge.
fn docker(barrier: &Barrier, device: &str) -> String {
    let (from, to) = (|| [plain("iifname"), nft_word(device)], |bridge| [plain("oifname"), nft_word(bridge)]);
    let rules = [
        [&from()[..], &[plain("accept")]].concat(),
        [&to(device)[..], &[plain("accept")]].concat(),
        [&from()[..], &to("docker0"), &[plain("return")]].concat(),
        [&from()[..], &[plain("oifname"), Some("\"br-*\"".to_owned())], &[plain("return")]].concat(),
    ];
    nft(&rules.map(|rule| insert(barrier, "DOCKER-USER").into_iter().chain(rule).collect()))
}

fn input(barrier: &Barrier, port: u16) -> Obstacle {
    let program = Program::of(barrier);
    let remedy = match program {
        Program::Firewalld => format!("firewall-cmd --permanent --add-port={port}/udp; firewall-cmd --reload"),
        Program::Ufw => format!("ufw allow {port}/udp"),
        Program::Docker | Program::Other => {
            let number = port.to_string();
            let rule = ["udp", "dport", &number, "accept"].map(plain);
            nft(&[insert(barrier, &barrier.chain).into_iter().chain(rule).collect()])
        }
    };
    Obstacle { chain: named(barrier), program, drops: format!("datagrams to port {port}"), remedy }
}

/// A word of a command for `nft`, if it has one for this.
type NftWord = Option<String>;

fn plain(word: &str) -> NftWord {
    Some(word.to_owned())
}

/// A device's name as `nft` reads it.
fn nft_word(name: &str) -> NftWord {
    match name {
        _ if is_plain(name) => plain(name),
        _ if name.contains('"') || name.ends_with('*') => None, // it knows no escapes
        _ => Some(format!("\"{name}\"")),
    }
}

/// The beginning of a rule's command; a table's and a chain's name have no quotes there.
fn insert(barrier: &Barrier, chain: &str) -> Vec<NftWord> {
    let bare = |name: &str| is_plain(name).then(|| name.to_owned());
    vec![plain("insert"), plain("rule"), plain(&barrier.family.to_string()), bare(&barrier.table), bare(chain)]
}

/// Commands of `nft`; none, but a comment, where it has no word for a name.
fn nft(rules: &[Vec<NftWord>]) -> String {
    let commands = rules.iter().map(|rule| {
        let words: Option<Vec<&str>> = rule.iter().map(Option::as_deref).collect();
        words.map(|words| command("nft", &words))
    });
    let commands: Option<Vec<String>> = commands.collect();
    commands.map_or_else(|| "# nft has no words for these names: rename them".to_owned(), |all| all.join("; "))
}

/// A command for a shell, to which names of others are words and nothing else.
fn command(program: &str, words: &[&str]) -> String {
    let quoted =
        |word: &&str| if is_plain(word) { (*word).to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) };
    std::iter::once(program.to_owned()).chain(words.iter().map(quoted)).collect::<Vec<_>>().join(" ")
}

/// Whether a shell and `nft` take it for what it is.
fn is_plain(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./=".contains(c))
}

fn named(barrier: &Barrier) -> String {
    let name = |name: &str| if is_plain(name) { name.to_owned() } else { format!("{name:?}") };
    format!("{} {} {}", barrier.family, name(&barrier.table), name(&barrier.chain))
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} drops {}; to let them pass: {}", self.chain, self.drops, self.remedy)
    }
}
