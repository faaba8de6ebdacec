//! The native state: services of IPVS, the rules that mark what goes to some of them, and VIPs that are the namespace's own.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use overlay_core::{IpFamily, Phase, Refusal};
use overlay_kernel::ipvs::{self, Destination, Forward, Key, Options, Setting};
use overlay_kernel::link::{LocalStep, Locals};
use overlay_kernel::nft;

use super::Marks;
use crate::{Condition, Ports, Replica, Scheduler, Service, State};

/// What IPVS and the routes hold for a [`State`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpvsNative {
    /// Services of IPVS.
    pub ipvs: ipvs::State,
    /// Rules that mark what goes to VIPs at all ports; see [`Marks`]. None where senders mark it themselves.
    pub marks: nft::State,
    /// VIPs that are the namespace's own.
    pub locals: Locals,
}

/// One change of an [`IpvsNative`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpvsStep {
    /// Of IPVS.
    Ipvs(ipvs::Step),
    /// Of the rules that mark.
    Marks(nft::Step),
    /// A VIP becomes the namespace's own, or is it no more.
    Local(LocalStep),
}

impl IpvsStep {
    pub(super) const fn of_marks(&self) -> Option<&nft::Step> {
        match self {
            Self::Marks(step) => Some(step),
            _ => None,
        }
    }
}

impl overlay_core::State for IpvsNative {
    type Step = IpvsStep;

    fn plan(&self, desired: &Self) -> Vec<IpvsStep> {
        let of_ipvs = self.ipvs.plan(&desired.ipvs).into_iter().map(IpvsStep::Ipvs);
        let of_marks = self.marks.plan(&desired.marks).into_iter().map(IpvsStep::Marks);
        let steps = of_ipvs.chain(of_marks).chain(self.locals.plan(&desired.locals).into_iter().map(IpvsStep::Local));
        overlay_core::in_phases::<Self>(steps.collect())
    }

    fn apply(&mut self, step: &IpvsStep) {
        match step {
            IpvsStep::Ipvs(step) => self.ipvs.apply(step),
            IpvsStep::Marks(step) => self.marks.apply(step),
            IpvsStep::Local(step) => self.locals.apply(step),
        }
    }

    fn phase(step: &IpvsStep) -> Phase {
        match step {
            IpvsStep::Ipvs(step) => ipvs::State::phase(step),
            IpvsStep::Marks(step) => nft::State::phase(step),
            IpvsStep::Local(step) => Locals::phase(step),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        self.ipvs.check().and_then(|()| self.marks.check()).and_then(|()| self.locals.check())
    }
}

/// The services of IPVS that mean these.
pub(super) fn services(state: &State) -> ipvs::State {
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
        let served = |key: Key, target: u16| {
            let destinations = service.replicas.values().filter_map(|replica| {
                let at = SocketAddr::new(replica.address(key.family())?, target);
                Some((at, Destination { forward: Forward::Translate, weight: weight(service, replica)? }))
            });
            (key, ipvs::Service { options: options(service), destinations: destinations.collect() })
        };
        for vip in &service.vips {
            match &service.ports {
                Ports::All => native.services.extend([served(by_mark(*vip), SAME_PORT)]),
                Ports::Named(named) => native.services.extend(named.iter().map(|it| {
                    let at = SocketAddr::new(*vip, it.port.get());
                    served(Key::At { protocol: it.protocol, at }, it.target.get())
                })),
            }
        }
    }
    native
}

/// A destination at this port gets what comes at the port that it came to.
const SAME_PORT: u16 = 0;

/// What IPVS knows a VIP by of which all ports are served.
fn by_mark(vip: IpAddr) -> Key {
    Key::Mark { mark: Marks::of(vip), family: IpFamily::of(vip) }
}

/// Of one that is down none: it is no destination.
fn weight(service: &Service, replica: &Replica) -> Option<u32> {
    match replica.condition {
        Condition::Active => Some(service.scheduler.counts(replica.weight).get().into()),
        Condition::Draining => Some(0),
        Condition::Down => None,
    }
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

impl fmt::Display for IpvsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipvs(step) => step.fmt(f),
            Self::Marks(step) => step.fmt(f),
            Self::Local(step) => step.fmt(f),
        }
    }
}
