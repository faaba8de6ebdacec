//! Who listens at the ports of a namespace, as [`sock_diag`](crate::sock_diag) tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use overlay_core::{BackendError, ErrorKind, Protocol};

use crate::Namespace;
use crate::netlink::Family;
use crate::sock_diag::{FAMILIES, TCP_CLOSE, TCP_LISTEN, Told, dump, parse};

/// A socket that takes what anybody sends to a port: one of TCP that listens, or one of UDP that is connected to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address that it is bound to, and the port; an address of zeros where it is all of a family. IPv6's may be IPv4's too.
    pub at: SocketAddr,
    /// The number of its file, by which a process is found that has it open.
    pub inode: u32,
}

/// A process that has a socket open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number, as this process sees it.
    pub pid: u32,
    /// What it calls itself, 15 bytes at most.
    pub name: String,
}

impl Listener {
    /// All of a namespace. O(sockets of the machine that listen). SCTP's are not looked for: to ask for them would load that protocol into a kernel
    /// that does without.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] if the namespace may not be entered. A kernel that cannot list sockets of a protocol shows none.
    pub fn all(namespace: &Namespace) -> Result<Vec<Self>, BackendError> {
        let mut socket = match namespace.netlink(Family::SockDiag) {
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(Vec::new()),
            socket => socket?,
        };
        let mut all = Vec::new();
        for (protocol, states) in [(Protocol::Tcp, 1 << TCP_LISTEN), (Protocol::Udp, 1 << TCP_CLOSE)] {
            for family in FAMILIES {
                let found = socket.dump(&dump(protocol, family, states), parse);
                match found.map_err(|error| error.during("list sockets")) {
                    Err(error) if matches!(error.kind(), ErrorKind::Gone | ErrorKind::Unsupported) => {}
                    found => all.extend(found?.into_iter().filter_map(|told| Self::of(told, protocol))),
                }
            }
        }
        Ok(all)
    }

    fn of(Told { local, inode, .. }: Told, protocol: Protocol) -> Option<Self> {
        (local.port() != 0).then_some(Self { protocol, at: local, inode })
    }

    /// Whether it would be asked at an address. A socket of IPv6 for all addresses may be for IPv6 alone: it counts as one for both.
    pub fn is_at(&self, address: IpAddr) -> bool {
        match self.at.ip() {
            IpAddr::V4(own) if own.is_unspecified() => address.is_ipv4(),
            IpAddr::V6(own) if own.is_unspecified() => true,
            own => own.to_canonical() == address,
        }
    }
}

impl Process {
    /// Who has these sockets open, by their inodes: of several that share one, one. Those of processes that may not be looked at are missing. It looks at
    /// all open files of the machine, some microseconds each: ask it seldom.
    pub fn with_sockets(inodes: &BTreeSet<u32>) -> BTreeMap<u32, Self> {
        let mut found = BTreeMap::new();
        let Ok(processes) = fs::read_dir("/proc") else { return found };
        for entry in processes.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let files = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
            let open = targets.filter_map(|target| socket_of(target.to_str()?)).filter(|inode| inodes.contains(inode));
            let open: Vec<u32> = open.collect();
            if !open.is_empty() {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim_end().to_owned();
                for inode in open {
                    found.entry(inode).or_insert_with(|| Self { pid, name: name.clone() });
                }
            }
            if found.len() == inodes.len() {
                break;
            }
        }
        found
    }
}

/// `socket:[12345]`.
fn socket_of(target: &str) -> Option<u32> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}
