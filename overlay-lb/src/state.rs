//! The area value: the virtual services of one place.

use std::net::IpAddr;

use overlay_core::{Change, Name, Phase, Refusal, SharedMap, keyed_diff};
use serde::{Deserialize, Serialize};

use crate::{Arrivals, Service, Step, check};

/// The virtual services that one place (a container, a sandbox, a host) reaches.
///
/// Balancing happens where the client is, with flows of its own: nobody else's address is put in place of the client's. The
/// services are a [`SharedMap`]: who makes the next value from a copy of the last has it compared, and brought to the
/// kernel, at the cost of what changed.
///
/// ```
/// use overlay_core::{EndpointId, Memory, Port, Protocol, reconcile};
/// use overlay_lb::{Replica, Service, State};
///
/// let mut web = Service::new(["10.0.9.100".parse()?]).port(Protocol::Tcp, Port::new(80)?, Port::new(8080)?);
/// web.replicas.insert(EndpointId::from_bytes([1; 16]), Replica::new(["10.0.9.2".parse()?]));
/// let mut wanted = State::default();
/// wanted.services.insert("web".parse()?, web);
///
/// let done = reconcile(&mut Memory::<State>::default(), &wanted)?;
/// assert_eq!(
///     done.to_string(),
///     "open       serve web: 10.0.9.100 tcp 80 to 8080, round robin among 1 of 1 replicas\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Services, by a name of the caller's choosing. Places that reach the same services can share them.
    pub services: SharedMap<Name, Service>,
    /// By VIP, the client's own address on the network that the VIP is of. Where the client is a namespace of its own, such a VIP is routed to the
    /// namespace itself with this as the preferred source, so that what it sends to the VIP comes from there, even if the pick is the client
    /// itself. A VIP that is not in here is not.
    pub sources: SharedMap<IpAddr, IpAddr>,
    /// Flows that balancers of other places send here, whose answers go back through them.
    pub arrivals: Option<Arrivals>,
}

impl overlay_core::State for State {
    type Step = Step;

    /// O(n) for n services; of those that both share, a comparison of pointers for some dozens.
    fn plan(&self, desired: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        for change in self.services.diff(&desired.services) {
            match change {
                Change::Add(name, new) => steps.push(Step::Serve(name.clone(), Box::new(new.clone()))),
                Change::Remove(name, _) => steps.push(Step::Withdraw(name.clone())),
                Change::Replace(name, old, new) => within(name, old, new, &mut steps),
            }
        }
        steps.extend(self.sources.diff(&desired.sources).map(|change| match change {
            Change::Add(vip, source) | Change::Replace(vip, _, source) => Step::Reach(*vip, *source),
            Change::Remove(vip, _) => Step::Unreach(*vip),
        }));
        if self.arrivals != desired.arrivals {
            steps.push(Step::SetArrivals(desired.arrivals.clone()));
        }
        overlay_core::in_phases::<Self>(steps)
    }

    fn apply(&mut self, step: &Step) {
        match step.clone() {
            Step::Serve(name, service) => drop(self.services.insert(name, *service)),
            Step::Withdraw(name) => drop(self.services.remove(&name)),
            Step::Reach(vip, source) => drop(self.sources.insert(vip, source)),
            Step::Unreach(vip) => drop(self.sources.remove(&vip)),
            Step::SetArrivals(arrivals) => self.arrivals = arrivals,
            Step::PutReplica(name, endpoint, replica) => {
                self.services
                    .get_mut(&name)
                    .into_iter()
                    .for_each(|it| drop(it.replicas.insert(endpoint, replica.clone())));
            }
            Step::RemoveReplica(name, endpoint) => {
                self.services.get_mut(&name).into_iter().for_each(|it| drop(it.replicas.remove(&endpoint)));
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

/// A service that differs in its replicas alone goes on serving while they come and go one by one.
fn within(name: &Name, old: &Service, new: &Service, steps: &mut Vec<Step>) {
    if !old.differs_in_replicas_only(new) {
        return steps.push(Step::Serve(name.clone(), Box::new(new.clone())));
    }
    steps.extend(keyed_diff(&old.replicas, &new.replicas).map(|change| match change {
        Change::Add(endpoint, replica) | Change::Replace(endpoint, _, replica) => {
            Step::PutReplica(name.clone(), *endpoint, replica.clone())
        }
        Change::Remove(endpoint, _) => Step::RemoveReplica(name.clone(), *endpoint),
    }));
}
