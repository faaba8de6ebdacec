//! The kernel as the holder of native services.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use nix::libc::{EEXIST, ENOENT, ESRCH};
use overlay_core::{Applied, Backend, BackendError, ErrorKind, Lower, Meter, Refusal, StepError, StepOf};

use super::wire::{self, Command};
use super::{Destination, Key, Options, Service, Setting, State, Step};
use crate::netlink::{Family, GenericFamily, NetlinkError, Socket};
use crate::{Namespace, Sysctl};

/// Holds a [`State`] in the kernel: IPVS of one namespace, whole.
///
/// The kernel keeps no mark of who made a service and tells nobody of changes: a namespace is one state's whole, and every plan
/// reads it back. Each step is a request of its own. Its [`Meter`] reads what is counted, which the kernel brings up to date
/// every two seconds.
///
/// It needs `CAP_NET_ADMIN`: of the first user namespace, on kernels up to 6.1 at least.
///
/// ```no_run
/// use overlay_core::reconcile;
/// use overlay_kernel::Namespace;
/// use overlay_kernel::ipvs::{Ipvs, State};
///
/// let mut ipvs = Ipvs::open(Namespace::open("/run/netns/client")?)?;
/// print!("{}", reconcile(&mut ipvs, &State::default())?); // takes all away
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Ipvs {
    namespace: Namespace,
    socket: Socket,
    family: GenericFamily,
}

/// What was counted of a service or a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Connections that began.
    pub connections: u64,
    /// Packets to it.
    pub packets_in: u64,
    /// Packets from it.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Connections that stand: of a destination.
    pub active: u32,
    /// Connections that are known but do not stand (UDP's are all such): of a destination.
    pub inactive: u32,
}

/// By service: what was counted of it, and of its destinations.
pub type Readings = BTreeMap<Key, (Reading, BTreeMap<SocketAddr, Reading>)>;

impl Ipvs {
    /// Works in this namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the kernel has no IPVS, [`ErrorKind::Permission`] if the namespace may not be entered.
    pub fn open(namespace: Namespace) -> Result<Self, BackendError> {
        let mut socket = namespace.netlink(Family::Generic)?;
        let family = GenericFamily::find(&mut socket, "IPVS").map_err(|error| error.during("find IPVS"))?;
        let missing = || BackendError::new(ErrorKind::Unsupported, "find IPVS in this kernel");
        Ok(Self { namespace, socket, family: family.ok_or_else(missing)? })
    }

    fn services(&mut self) -> Result<Vec<wire::FoundService>, BackendError> {
        let found = self.socket.dump(&wire::services(self.family), wire::parse_service);
        found.map_err(|error| error.during("read services"))
    }

    fn destinations(&mut self, key: &Key) -> Result<Vec<wire::FoundDestination>, BackendError> {
        let found = self.socket.dump(&wire::destinations(self.family, key), wire::parse_destination);
        found.map_err(|error| error.during(format!("read destinations of {key}")))
    }

    fn settings(&self) -> Result<BTreeMap<Setting, u32>, BackendError> {
        let mut settings = BTreeMap::new();
        for setting in Setting::ALL {
            let file = file(setting)?;
            let read = match self.namespace.run(|| file.read())? {
                Err(error) if error.kind() == ErrorKind::Gone => continue, // a kernel without it
                read => read?,
            };
            let value = read.trim().parse().map_err(|error| {
                BackendError::new(ErrorKind::Protocol, format!("read sysctl {file}")).caused_by(format!("{error}"))
            })?;
            if value != setting.default_value() {
                settings.insert(setting, value);
            }
        }
        Ok(settings)
    }

    fn step(&mut self, step: &Step) -> Result<(), BackendError> {
        let family = self.family;
        let done = match step {
            Step::SetSetting(setting, value) => {
                let file = file(*setting)?;
                return self.namespace.run(|| file.set(&value.to_string()))?;
            }
            Step::SetTimeouts(timeouts) => self.socket.request(&wire::set_timeouts(family, *timeouts)),
            Step::AddService(key, options) => self.put_service(key, options),
            Step::SetService(key, options) => {
                self.socket.request(&wire::put_service(family, Command::Set, key, options))
            }
            Step::RemoveService(key) => gone(self.socket.request(&wire::remove_service(family, key))),
            Step::PutDestination(key, at, destination) => self.put_destination(key, *at, destination),
            Step::RemoveDestination(key, at) => gone(self.socket.request(&wire::remove_destination(family, key, *at))),
        };
        done.map_err(|error| error.during(step.to_string()))
    }

    fn put_service(&mut self, key: &Key, options: &Options) -> Result<(), NetlinkError> {
        match self.socket.request(&wire::put_service(self.family, Command::Add, key, options)) {
            Err(error) if error.errno() == Some(EEXIST) => Ok(()), // how it is balanced is a step of its own
            done => done,
        }
    }

    fn put_destination(&mut self, key: &Key, at: SocketAddr, destination: &Destination) -> Result<(), NetlinkError> {
        match self.socket.request(&wire::put_destination(self.family, Command::Add, key, (at, destination))) {
            Err(error) if error.errno() == Some(EEXIST) => {
                self.socket.request(&wire::put_destination(self.family, Command::Set, key, (at, destination)))
            }
            done => done,
        }
    }
}

/// What is gone already is as good as removed.
fn gone(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match done {
        Err(error) if matches!(error.errno(), Some(ESRCH | ENOENT)) => Ok(()),
        done => done,
    }
}

fn file(setting: Setting) -> Result<Sysctl, BackendError> {
    Sysctl::new(["net", "ipv4", "vs", setting.name()])
}

impl Backend for Ipvs {
    type State = State;

    /// One request, and one for each service. A service or destination of a kind that no state has is an error: it is somebody
    /// else's.
    fn observe(&mut self) -> Result<State, BackendError> {
        let foreign =
            |what: String| BackendError::new(ErrorKind::Conflict, format!("read {what}, which is none of ours"));
        let timeouts = self.socket.ask(&wire::timeouts(self.family), wire::parse_timeouts);
        let timeouts = timeouts.map_err(|error| error.during("read timeouts"))?.into_iter().next();
        let timeouts = timeouts.ok_or_else(|| BackendError::new(ErrorKind::Protocol, "read timeouts"))?;
        let mut state = State { timeouts, settings: self.settings()?, services: BTreeMap::new() };
        for found in self.services()? {
            let options = found.options.ok_or_else(|| foreign(format!("service {}", found.key)))?;
            let mut service = Service { options, destinations: BTreeMap::new() };
            for it in self.destinations(&found.key)? {
                let place = || format!("destination {} of {}", it.at, found.key);
                service.destinations.insert(it.at, it.destination.ok_or_else(|| foreign(place()))?);
            }
            state.services.insert(found.key, service);
        }
        Ok(state)
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        for (at, step) in steps.iter().enumerate() {
            let applied = if at == 0 { Applied::Nothing } else { Applied::Before };
            self.step(step).map_err(|source| {
                let doubt = matches!(source.kind(), ErrorKind::Timeout | ErrorKind::Interrupted)
                    || matches!(step, Step::SetSetting(..));
                StepError { at, applied: if doubt { Applied::Unknown } else { applied }, source }
            })?;
        }
        Ok(())
    }
}

impl Meter for Ipvs {
    type Reading = Readings;

    fn read(&mut self) -> Result<Readings, BackendError> {
        let mut readings = Readings::new();
        for found in self.services()? {
            let destinations = self.destinations(&found.key)?.into_iter().map(|it| (it.at, it.reading)).collect();
            readings.insert(found.key, (found.reading, destinations));
        }
        Ok(readings)
    }
}

impl Lower<State> for Ipvs {
    type Native = State;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, State>, Refusal> {
        Ok(Cow::Borrowed(desired))
    }
}
