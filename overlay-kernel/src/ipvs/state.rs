//! The native state: IPVS of one namespace, whole.

use std::collections::BTreeMap;
use std::fmt;

use overlay_core::{Change, Phase, Refusal, in_phases, keyed_diff};

use super::{Key, Service, Step, check};

/// The virtual services of one namespace, and what holds for all of them.
///
/// ```
/// use overlay_core::{Memory, Protocol, reconcile};
/// use overlay_kernel::ipvs::{Destination, Forward, Key, Options, Scheduler, Service, State};
///
/// let options = Options { scheduler: Scheduler::WeightedRoundRobin, persistence: None };
/// let mut web = Service { options, destinations: Default::default() };
/// web.destinations.insert("10.0.9.2:8080".parse()?, Destination { forward: Forward::Translate, weight: 3 });
/// let mut wanted = State::default();
/// wanted.services.insert(Key::At { protocol: Protocol::Tcp, at: "10.0.9.100:80".parse()? }, web);
/// assert_eq!(
///     reconcile(&mut Memory::<State>::default(), &wanted)?.to_string(),
///     "open       add service tcp 10.0.9.100:80: wrr\n\
///      open       put destination 10.0.9.2:8080 of tcp 10.0.9.100:80: translated weight 3\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Services.
    pub services: BTreeMap<Key, Service>,
    /// For how long connections may be idle.
    pub timeouts: Timeouts,
    /// Settings below `net/ipv4/vs`, where they differ from the kernel's default.
    pub settings: BTreeMap<Setting, u32>,
}

/// For how long connections may be idle, in seconds. The default is the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// TCP's that stand.
    pub tcp: u32,
    /// TCP's of which one end has said FIN.
    pub tcp_fin: u32,
    /// UDP's.
    pub udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp: 900, tcp_fin: 120, udp: 300 }
    }
}

/// A setting of IPVS (`Documentation/networking/ipvs-sysctl.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// `conn_reuse_mode`: what becomes of a connection whose client uses its port again; 1 by default.
    ConnReuseMode,
    /// `conntrack`: whether connections are tracked by netfilter too; 0 by default.
    Conntrack,
    /// `expire_nodest_conn`: whether connections end when their destination is gone; 0 by default.
    ExpireNodestConn,
    /// `expire_quiescent_template`: whether a source leaves a destination of weight 0 at its next connection; 0 by default.
    ExpireQuiescentTemplate,
}

impl Setting {
    /// All.
    pub const ALL: [Self; 4] =
        [Self::ConnReuseMode, Self::Conntrack, Self::ExpireNodestConn, Self::ExpireQuiescentTemplate];

    /// Its file's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnReuseMode => "conn_reuse_mode",
            Self::Conntrack => "conntrack",
            Self::ExpireNodestConn => "expire_nodest_conn",
            Self::ExpireQuiescentTemplate => "expire_quiescent_template",
        }
    }

    /// What it is in a new namespace.
    pub const fn default_value(self) -> u32 {
        match self {
            Self::ConnReuseMode => 1,
            _ => 0,
        }
    }
}

impl overlay_core::State for State {
    type Step = Step;

    /// O(n) for n services and destinations.
    fn plan(&self, desired: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        for setting in Setting::ALL {
            let value = |of: &Self| of.settings.get(&setting).copied().unwrap_or_else(|| setting.default_value());
            if value(self) != value(desired) {
                steps.push(Step::SetSetting(setting, value(desired)));
            }
        }
        if self.timeouts != desired.timeouts {
            steps.push(Step::SetTimeouts(desired.timeouts));
        }
        for change in keyed_diff(&self.services, &desired.services) {
            match change {
                Change::Add(key, new) => {
                    steps.push(Step::AddService(*key, new.options));
                    destinations(*key, &BTreeMap::new(), new, &mut steps);
                }
                Change::Remove(key, _) => steps.push(Step::RemoveService(*key)),
                Change::Replace(key, old, new) => {
                    if old.options != new.options {
                        steps.push(Step::SetService(*key, new.options));
                    }
                    destinations(*key, &old.destinations, new, &mut steps);
                }
            }
        }
        in_phases::<Self>(steps)
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::SetSetting(setting, value) if value == setting.default_value() => {
                self.settings.remove(&setting);
            }
            Step::SetSetting(setting, value) => drop(self.settings.insert(setting, value)),
            Step::SetTimeouts(timeouts) => self.timeouts = timeouts,
            Step::AddService(key, options) => {
                self.services.entry(key).or_insert_with(|| Service { options, destinations: BTreeMap::new() });
            }
            Step::SetService(key, options) => {
                self.services.get_mut(&key).into_iter().for_each(|service| service.options = options);
            }
            Step::RemoveService(key) => drop(self.services.remove(&key)),
            Step::PutDestination(key, at, destination) => {
                if let Some(service) = self.services.get_mut(&key) {
                    service.destinations.insert(at, destination);
                }
            }
            Step::RemoveDestination(key, at) => {
                if let Some(service) = self.services.get_mut(&key) {
                    service.destinations.remove(&at);
                }
            }
        }
    }

    fn phase(step: &Step) -> Phase {
        step.phase()
    }

    fn check(&self) -> Result<(), Refusal> {
        check::state(self)
    }
}

type Destinations = BTreeMap<std::net::SocketAddr, super::Destination>;

fn destinations(key: Key, old: &Destinations, new: &Service, steps: &mut Vec<Step>) {
    steps.extend(keyed_diff(old, &new.destinations).map(|change| match change {
        Change::Add(at, destination) | Change::Replace(at, _, destination) => {
            Step::PutDestination(key, *at, *destination)
        }
        Change::Remove(at, _) => Step::RemoveDestination(key, *at),
    }));
}

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tcp, tcp_fin, udp } = self;
        write!(f, "tcp {tcp} s, tcp fin {tcp_fin} s, udp {udp} s")
    }
}
