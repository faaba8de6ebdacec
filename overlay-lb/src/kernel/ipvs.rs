//! IPVS as the holder of services.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use overlay_core::{Applied, Backend, BackendError, IpFamily, Lower, Meter, Phase, Protocol, Refusal, StepError};
use overlay_kernel::Namespace;
use overlay_kernel::ipvs::{self, Destination, Forward, Key, Options, Setting};
use overlay_kernel::link::{KernelLocals, LocalStep, Locals};

use super::lower;
use crate::{Capabilities, Condition, Ports, Readings, Scheduler, Service, State};

/// Holds a [`State`] in a Linux kernel: IPVS of one namespace, which must be its alone.
///
/// It has what nf_tables lacks: schedulers that count connections, and idle timeouts (the same for all services). It lacks what
/// nf_tables has: services at all ports, and refusal of ports that nothing serves: these are left to whoever listens there in the client's namespace. A replica that drains has weight 0. When one goes, or is down, its connections are forgotten with
/// their next packet, which is lost (`expire_nodest_conn`): UDP's go to another replica with the one after, TCP's are reset by the client's
/// own kernel, which knows no such connection. Affinity is of each port by itself, and lasts for as
/// long as the source has connections, besides. Its [`Meter`] counts replicas' connections.
///
/// IPVS tells nobody of changes: each reconcile reads it back, with a request for each port of a VIP.
///
/// It needs `CAP_NET_ADMIN` of the first user namespace, on kernels up to 6.1 at least.
///
/// ```no_run
/// use overlay_core::reconcile;
/// use overlay_kernel::Namespace;
/// use overlay_lb::State;
/// use overlay_lb::kernel::Ipvs;
///
/// let mut container = Ipvs::open(Namespace::open("/run/netns/client")?)?;
/// print!("{}", reconcile(&mut container, &State::default())?); // takes all away
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Ipvs {
    ipvs: ipvs::Ipvs,
    locals: KernelLocals,
}

/// What IPVS and the routes hold for a [`State`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpvsNative {
    /// Services of IPVS.
    pub ipvs: ipvs::State,
    /// VIPs that are the namespace's own.
    pub locals: Locals,
}

/// One change of an [`IpvsNative`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpvsStep {
    /// Of IPVS.
    Ipvs(ipvs::Step),
    /// A VIP becomes the namespace's own, or is it no more.
    Local(LocalStep),
}

impl Ipvs {
    /// Works in this namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](overlay_core::ErrorKind::Unsupported) if the kernel has no IPVS,
    /// [`Permission`](overlay_core::ErrorKind::Permission) if the namespace may not be entered.
    pub fn open(namespace: Namespace) -> Result<Self, BackendError> {
        Ok(Self { ipvs: ipvs::Ipvs::open(namespace.try_clone()?)?, locals: KernelLocals::open(namespace)? })
    }

    /// What it can express.
    pub fn capabilities() -> Capabilities {
        Capabilities::ipvs()
    }
}

/// The services of IPVS that mean these.
fn native(state: &State) -> ipvs::State {
    let mut native = ipvs::State::default();
    if state.services.is_empty() {
        return native;
    }
    native.settings = [(Setting::ExpireNodestConn, 1), (Setting::ExpireQuiescentTemplate, 1)].into();
    if let Some(timeouts) = state.services.values().find_map(|service| service.timeouts) {
        let [tcp, tcp_fin, udp] = [timeouts.established, timeouts.transitory, timeouts.datagram]
            .map(|it| u32::try_from(it.as_secs()).unwrap_or(u32::MAX));
        native.timeouts = ipvs::Timeouts { tcp, tcp_fin, udp };
    }
    for service in state.services.values() {
        let Ports::Named(named) = &service.ports else { continue };
        for (vip, served) in service.vips.iter().flat_map(|vip| named.iter().map(move |served| (*vip, served))) {
            let family = IpFamily::of(vip);
            let at = SocketAddr::new(vip, served.port.get());
            let replicas = service.replicas.values().filter(|replica| replica.condition != Condition::Down);
            let destinations = replicas.filter_map(|replica| {
                let weight = match replica.condition {
                    Condition::Active => service.scheduler.counts(replica.weight).get().into(),
                    _ => 0,
                };
                let at = SocketAddr::new(replica.address(family)?, served.target.get());
                Some((at, Destination { forward: Forward::Translate, weight }))
            });
            let key = Key::At { protocol: served.protocol, at };
            native
                .services
                .insert(key, ipvs::Service { options: options(service), destinations: destinations.collect() });
        }
    }
    native
}

fn options(service: &Service) -> Options {
    let scheduler = match service.scheduler {
        Scheduler::RoundRobin => ipvs::Scheduler::RoundRobin,
        Scheduler::WeightedRoundRobin => ipvs::Scheduler::WeightedRoundRobin,
        Scheduler::LeastConnection => ipvs::Scheduler::LeastConnection,
        Scheduler::WeightedLeastConnection => ipvs::Scheduler::WeightedLeastConnection,
        Scheduler::SourceHash => ipvs::Scheduler::SourceHash,
        Scheduler::Maglev => ipvs::Scheduler::Maglev { by_port: true },
    };
    let seconds = service.affinity.map(|affinity| affinity.timeout.as_secs());
    Options { scheduler, persistence: seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)) }
}

impl overlay_core::State for IpvsNative {
    type Step = IpvsStep;

    fn plan(&self, desired: &Self) -> Vec<IpvsStep> {
        let of_ipvs = self.ipvs.plan(&desired.ipvs).into_iter().map(IpvsStep::Ipvs);
        let steps = of_ipvs.chain(self.locals.plan(&desired.locals).into_iter().map(IpvsStep::Local));
        overlay_core::in_phases::<Self>(steps.collect())
    }

    fn apply(&mut self, step: &IpvsStep) {
        match step {
            IpvsStep::Ipvs(step) => self.ipvs.apply(step),
            IpvsStep::Local(step) => self.locals.apply(step),
        }
    }

    fn phase(step: &IpvsStep) -> Phase {
        match step {
            IpvsStep::Ipvs(step) => ipvs::State::phase(step),
            IpvsStep::Local(step) => Locals::phase(step),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        self.ipvs.check().and_then(|()| self.locals.check())
    }
}

impl Backend for Ipvs {
    type State = IpvsNative;

    fn observe(&mut self) -> Result<IpvsNative, BackendError> {
        Ok(IpvsNative { ipvs: self.ipvs.observe()?, locals: self.locals.observe()? })
    }

    fn apply(&mut self, steps: &[IpvsStep]) -> Result<(), StepError> {
        for (at, step) in steps.iter().enumerate() {
            let done = match step {
                IpvsStep::Ipvs(step) => self.ipvs.apply(std::slice::from_ref(step)),
                IpvsStep::Local(step) => self.locals.apply(std::slice::from_ref(step)),
            };
            done.map_err(|error| match error.applied {
                Applied::Nothing if at > 0 => StepError { at, applied: Applied::Before, ..error },
                _ => StepError { at, ..error },
            })?;
        }
        Ok(())
    }
}

impl Lower<State> for Ipvs {
    type Native = IpvsNative;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, IpvsNative>, Refusal> {
        overlay_core::State::check(desired)?;
        Self::capabilities().permit(desired)?;
        Ok(Cow::Owned(IpvsNative { ipvs: native(desired), locals: lower::locals(desired) }))
    }
}

impl Meter for Ipvs {
    type Reading = Readings;

    /// One request for each port of a VIP.
    fn read(&mut self) -> Result<Readings, BackendError> {
        let mut readings = Readings::default();
        for (key, (_, replicas)) in self.ipvs.read()? {
            let Key::At { protocol, at } = key else { continue };
            for (replica, reading) in replicas {
                // Of TCP and SCTP, what does not stand has ended; of UDP, nothing stands.
                let idle = if protocol == Protocol::Udp { reading.inactive } else { 0 };
                readings.add(at.ip(), replica.ip(), u64::from(reading.active) + u64::from(idle));
            }
        }
        Ok(readings)
    }
}

impl fmt::Display for IpvsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipvs(step) => step.fmt(f),
            Self::Local(step) => step.fmt(f),
        }
    }
}
