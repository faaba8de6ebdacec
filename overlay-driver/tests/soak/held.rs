//! What is there while nothing runs.

use std::collections::BTreeSet;
use std::{fmt, fs};

use overlay_core::Key;
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;

use crate::live::live;
use crate::world::World;

/// By how much there may be more of threads and descriptors, of which runtimes have some more for a while, and of allocators' records: the addresses of the
/// ingress network, which stays, are given out by turns, and each block of them has a record from its first turn on.
const LOOSE: usize = 12;

/// By how many bytes of its heap a process may grow: a store keeps its last changes.
const LIVE: usize = 3 << 20;
/// And for each id that is gone meanwhile, which all nodes remember.
const GONE: usize = 2 << 10;
/// And of memory, of which allocators keep what was in use once.
const MEMORY: usize = 24 << 20;

/// What is there while nothing runs.
#[derive(Debug)]
pub(crate) struct Rest {
    held: Held,
    records: Records,
    /// Of this process, and of the one that is killed.
    used: [Used; 2],
    /// Bytes of this process's heap that are in use.
    live: usize,
}

impl Rest {
    pub(crate) fn by(world: &World, hosts: usize, killed: u32) -> Self {
        let used = [std::process::id(), killed].map(Used::by);
        let records = Records::by(world);
        Self { held: Held::by(world, hosts), records, used, live: live() }
    }

    /// Whether no more is there than was at first, but for what is loose.
    pub(crate) fn is_as(&self, first: &Self) -> bool {
        let Records { catalogue, allocators, gone: _ } = &self.records;
        self.held == first.held
            && *catalogue == first.records.catalogue
            && allocators.0.len() <= first.records.allocators.0.len() + LOOSE
            && self.used.iter().zip(first.used).all(|(now, first)| now.is_within(first))
    }

    /// Records that were not there at first.
    pub(crate) fn strange(&self, first: &Self) -> Vec<String> {
        self.records.strange(&first.records)
    }

    /// Whether this process has grown by no more than it may, since it was warm.
    pub(crate) fn is_no_larger_than(&self, warm: &Self) -> bool {
        let ([now, _], [was, _]) = (self.used, warm.used);
        let gone = self.records.gone.saturating_sub(warm.records.gone);
        self.live <= warm.live + LIVE + gone * GONE && now.memory <= was.memory + MEMORY
    }
}

/// What must be the same whenever nothing runs: of each host links, lines of its tables, routes, rules and policies; names of namespaces, processes.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    hosts: Vec<[usize; 5]>,
    names: usize,
    processes: usize,
}

impl Held {
    fn by(world: &World, hosts: usize) -> Self {
        let lab = &world.hosts().lab;
        let host = |number| {
            let host = lab.host(number);
            let links = lines(host, "ip", "-o link");
            let routes = lines(host, "ip", "route show table all") + lines(host, "ip", "-6 route show table all");
            let policies = lines(host, "ip", "xfrm policy");
            [links, lines(host, "nft", "list ruleset"), routes, lines(host, "ip", "rule"), policies]
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = lab.path().to_str().unwrap();
        Self {
            hosts: (0..hosts).map(host).collect(),
            names: mounts.lines().filter(|line| line.contains(path)).count(),
            processes: children(),
        }
    }
}

/// A cluster's records.
#[derive(Debug, Default)]
struct Records {
    catalogue: Keys,
    /// How many say that an id is gone, which is remembered for an hour.
    gone: usize,
    /// Of addresses, VNIs and ports.
    allocators: Keys,
}

impl Records {
    fn by(world: &World) -> Self {
        let (store, root) = world.hosts().catalogue().unwrap();
        let all = world.wait(store.list(&root)).unwrap().entries;
        let (catalogue, mut records) = (root.join("catalogue/").unwrap(), Self::default());
        for (key, _) in all {
            match key.strip(&catalogue) {
                Some(rest) if rest.starts_with(b"gone/") => records.gone += 1,
                Some(_) => drop(records.catalogue.0.insert(key)),
                None => drop(records.allocators.0.insert(key)),
            }
        }
        records
    }

    /// Those that were not there at first.
    fn strange(&self, first: &Self) -> Vec<String> {
        let catalogue = self.catalogue.0.difference(&first.catalogue.0);
        let strange = catalogue.chain(self.allocators.0.difference(&first.allocators.0));
        strange.map(|key| key.as_bytes().escape_ascii().to_string()).collect()
    }
}

/// So many are shown as a number.
#[derive(Default, PartialEq, Eq)]
struct Keys(BTreeSet<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.len())
    }
}

/// What a process has.
#[derive(Debug, Clone, Copy)]
struct Used {
    descriptors: usize,
    threads: usize,
    /// Bytes of memory that are no file's. More than is in use: allocators keep what was.
    memory: usize,
}

impl Used {
    fn by(process: u32) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{process}/{what}")).map_or(0, Iterator::count);
        let pages = fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
        let mut pages = pages.split(' ').skip(1).map(|pages| pages.parse::<usize>().unwrap());
        let (resident, shared) = (pages.next().unwrap(), pages.next().unwrap());
        Self { descriptors: count("fd"), threads: count("task"), memory: (resident - shared) * 4096 }
    }

    fn is_within(self, first: Self) -> bool {
        self.descriptors <= first.descriptors + LOOSE && self.threads <= first.threads + LOOSE
    }
}

fn lines(namespace: &Namespace, tool: &str, words: &str) -> usize {
    judge(namespace, tool, &words.split(' ').collect::<Vec<_>>()).lines().count()
}

/// Processes that this one has started and not waited for.
fn children() -> usize {
    let own = fs::read_dir("/proc/self/task").unwrap().flatten();
    let told = own.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    told.map(|children| children.split_whitespace().count()).sum()
}
