//! Addresses that are a namespace's own without being on a device.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use nix::libc::EEXIST;
use overlay_core::{
    Backend, BackendError, Change, ErrorKind, IpFamily, Lower, Phase, Refusal, StepError, StepOf, Witness, in_phases,
    is_host_address, keyed_diff,
};
use serde::{Deserialize, Serialize};

use super::route_socket::{RouteSocket, one_by_one};
use crate::Namespace;
use crate::netlink::NetlinkError;
use crate::rtnl::{LOCALS_PROTOCOL, route};

/// Addresses that a namespace takes for its own, each with the address that packets to it come from: virtual services' addresses.
///
/// Each is a route to the namespace itself in the table `local`, by the loopback device, which must be up. What is sent to such
/// an address comes from the other one, which must be on a device of the namespace, rather than from the address itself as if
/// that were on a device. Whoever asks for it by ARP or neighbour discovery is answered, as with any address of a namespace,
/// where `arp_ignore` and the like do not forbid it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locals(pub BTreeMap<IpAddr, IpAddr>);

/// One change of [`Locals`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalStep {
    /// An address becomes the namespace's own, reached from another; or is reached from another than before.
    Put(IpAddr, IpAddr),
    /// An address is the namespace's own no more.
    Remove(IpAddr),
}

impl overlay_core::State for Locals {
    type Step = LocalStep;

    fn plan(&self, desired: &Self) -> Vec<LocalStep> {
        let steps = keyed_diff(&self.0, &desired.0).map(|change| match change {
            Change::Add(address, source) | Change::Replace(address, _, source) => LocalStep::Put(*address, *source),
            Change::Remove(address, _) => LocalStep::Remove(*address),
        });
        in_phases::<Self>(steps.collect())
    }

    fn apply(&mut self, step: &LocalStep) {
        match step {
            LocalStep::Put(address, source) => drop(self.0.insert(*address, *source)),
            LocalStep::Remove(address) => drop(self.0.remove(address)),
        }
    }

    fn phase(step: &LocalStep) -> Phase {
        match step {
            LocalStep::Put(..) => Phase::Open,
            LocalStep::Remove(_) => Phase::Close,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        let bad = |it: &IpAddr| !is_host_address(*it) || it.is_loopback();
        let wrong = |(address, source): &(&IpAddr, &IpAddr)| {
            bad(address) || bad(source) || address.is_ipv4() != source.is_ipv4() || address == source
        };
        match self.0.iter().find(wrong) {
            Some((address, source)) => {
                let reason = "both are addresses of hosts, of one family, and not the same";
                Err(Refusal::new(format!("local address {address}"), format!("from {source}"), reason))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for LocalStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(address, source) => write!(f, "take {address} for local, from {source}"),
            Self::Remove(address) => write!(f, "take {address} for local no more"),
        }
    }
}

/// Holds [`Locals`] in the kernel, in one namespace.
///
/// What it makes has a protocol of its own (KERNEL.md), which is any owner's: two owners must not do this in one namespace.
/// Needs `CAP_NET_ADMIN` over the namespace, and `CAP_SYS_ADMIN` to enter it.
///
/// ```no_run
/// use overlay_core::{Shadow, reconcile};
/// use overlay_kernel::Namespace;
/// use overlay_kernel::link::{KernelLocals, Locals};
///
/// let container = Namespace::open("/run/netns/web")?;
/// let mut wanted = Locals::default();
/// wanted.0.insert("10.0.9.100".parse()?, "10.0.9.5".parse()?);
/// print!("{}", reconcile(&mut Shadow::new(KernelLocals::open(container)?), &wanted)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct KernelLocals {
    socket: RouteSocket,
}

impl KernelLocals {
    /// Works in this namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] if it may not be entered.
    pub fn open(namespace: Namespace) -> Result<Self, BackendError> {
        Ok(Self { socket: RouteSocket::open(namespace)? })
    }

    fn locals(&mut self, family: IpFamily) -> Result<Vec<route::Local>, NetlinkError> {
        let found = self
            .socket
            .dump(&route::dump(family, LOCALS_PROTOCOL), |message| route::parse_local(message, LOCALS_PROTOCOL));
        match found {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Vec::new()),
            found => found,
        }
    }

    fn step(&mut self, step: &LocalStep) -> Result<(), BackendError> {
        let done = match step {
            LocalStep::Put(address, source) => self.put(route::Local { address: *address, source: Some(*source) }),
            LocalStep::Remove(address) => self.socket.remove(&route::remove_local(*address, LOCALS_PROTOCOL)),
        };
        done.map_err(|error| error.during(step.to_string()))
    }

    /// Adds a route, or in place of one of ours; never of another's.
    fn put(&mut self, wanted: route::Local) -> Result<(), NetlinkError> {
        let taken = match self.socket.request(&route::add_local(&wanted, LOCALS_PROTOCOL)) {
            Err(error) if error.errno() == Some(EEXIST) => error,
            done => return done,
        };
        let ours = self.locals(IpFamily::of(wanted.address))?;
        match ours.into_iter().find(|found| found.address == wanted.address) {
            Some(found) if found == wanted => Ok(()),
            Some(_) => self.socket.request(&route::replace_local(&wanted, LOCALS_PROTOCOL)),
            None => Err(taken),
        }
    }
}

impl Backend for KernelLocals {
    type State = Locals;

    fn observe(&mut self) -> Result<Locals, BackendError> {
        let mut locals = Locals::default();
        for family in [IpFamily::V4, IpFamily::V6] {
            let found = self.locals(family).map_err(|error| error.during("read local routes"))?;
            // One of ours without a source is none that we make: it is seen as reached from itself, and replaced.
            locals.0.extend(found.into_iter().map(|local| (local.address, local.source.unwrap_or(local.address))));
        }
        Ok(locals)
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        one_by_one(self, steps, |it| it.socket.changes(), Self::step)
    }
}

impl Witness for KernelLocals {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.socket.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        self.socket.undisturbed()
    }
}

impl Lower<Locals> for KernelLocals {
    type Native = Locals;

    fn lower<'d>(&self, desired: &'d Locals) -> Result<Cow<'d, Locals>, Refusal> {
        Ok(Cow::Borrowed(desired))
    }
}
