//! overlay-core alone: a state and a backend of your own. What is wanted is which names have which address; it is held in
//! a file like `/etc/hosts`, between lines that are somebody else's.
//!
//! `cargo run --bin hosts_file`, by anyone: the file is a temporary one.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::{fmt, fs, io};

use overlay_core::{
    Applied, Backend, BackendError, Change, ErrorKind, Lower, Phase, Refusal, State, StepError, in_phases, keyed_diff,
    reconcile,
};

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hosts(BTreeMap<String, Ipv4Addr>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Put(String, Ipv4Addr),
    Remove(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(name, address) => write!(f, "put {name} at {address}"),
            Self::Remove(name) => write!(f, "remove {name}"),
        }
    }
}

impl State for Hosts {
    type Step = Step;

    fn plan(&self, desired: &Self) -> Vec<Step> {
        let steps = keyed_diff(&self.0, &desired.0).map(|change| match change {
            Change::Add(name, address) | Change::Replace(name, _, address) => Step::Put(name.clone(), *address),
            Change::Remove(name, _) => Step::Remove(name.clone()),
        });
        in_phases::<Self>(steps.collect())
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Put(name, address) => drop(self.0.insert(name.clone(), *address)),
            Step::Remove(name) => drop(self.0.remove(name)),
        }
    }

    fn phase(step: &Step) -> Phase {
        match step {
            Step::Put(..) => Phase::Build,
            Step::Remove(_) => Phase::Dismantle,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        match self.0.keys().find(|name| name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '#')) {
            Some(name) => Err(Refusal::new("hosts", format!("{name:?}"), "a name is one word")),
            None => Ok(()),
        }
    }
}

/// Holds it: lines that end in our mark are ours, all others stay as they are.
struct HostsFile(PathBuf);

const MARK: &str = "# ours";

impl HostsFile {
    fn lines(&self) -> Result<Vec<String>, BackendError> {
        let failed = |error: io::Error| BackendError::new(ErrorKind::Other, "read the hosts").caused_by(error);
        Ok(fs::read_to_string(&self.0).map_err(failed)?.lines().map(str::to_owned).collect())
    }

    /// Whole or not at all: a file that is renamed into the other's place.
    fn change(&self, steps: &[Step]) -> Result<(), BackendError> {
        let mut hosts = self.read()?;
        steps.iter().for_each(|step| hosts.apply(step));
        let others = self.lines()?.into_iter().filter(|line| !line.ends_with(MARK));
        let ours = hosts.0.iter().map(|(name, address)| format!("{address} {name} {MARK}"));
        let text: String = others.chain(ours).map(|line| line + "\n").collect();
        let new = self.0.with_extension("new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.0));
        written.map_err(|error| BackendError::new(ErrorKind::Other, "write the hosts").caused_by(error))
    }

    fn read(&self) -> Result<Hosts, BackendError> {
        let parse = |line: &String| {
            let mut words = line.strip_suffix(MARK)?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            Some((words.next()?.to_owned(), address))
        };
        Ok(Hosts(self.lines()?.iter().filter_map(parse).collect()))
    }
}

impl Backend for HostsFile {
    type State = Hosts;

    fn observe(&mut self) -> Result<Hosts, BackendError> {
        self.read()
    }

    fn apply(&mut self, steps: &[Step]) -> Result<(), StepError> {
        self.change(steps).map_err(|source| StepError { at: 0, applied: Applied::Nothing, source })
    }
}

impl Lower<Hosts> for HostsFile {
    type Native = Hosts;

    fn lower<'d>(&self, desired: &'d Hosts) -> Result<Cow<'d, Hosts>, Refusal> {
        Ok(Cow::Borrowed(desired))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("hosts-file-{}", std::process::id()));
    fs::write(&path, "127.0.0.1 localhost\n")?;
    let mut table = HostsFile(path.clone());

    let wanted = Hosts([("web".to_owned(), [10, 0, 9, 2].into()), ("db".to_owned(), [10, 0, 9, 3].into())].into());
    print!("creation:\n{}", reconcile(&mut table, &wanted)?);
    println!("once more: {} steps", reconcile(&mut table, &wanted)?.len());

    fs::write(&path, fs::read_to_string(&path)?.replace("10.0.9.3", "10.6.6.6"))?;
    print!("repair, after somebody meddled:\n{}", reconcile(&mut table, &wanted)?);

    let bad = Hosts([("two words".to_owned(), [10, 0, 9, 4].into())].into());
    if let Err(refusal) = reconcile(&mut table, &bad) {
        println!("refused, with nothing changed: {refusal}");
    }
    print!("removal:\n{}", reconcile(&mut table, &Hosts::default())?);
    print!("what is left is not ours: {}", fs::read_to_string(&path)?);
    fs::remove_file(&path)?;
    Ok(())
}
