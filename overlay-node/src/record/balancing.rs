//! How the work of a service is shared.

use overlay_core::{Name, Refusal};
use overlay_lb::{Affinity, Capabilities, Scheduler, State, Timeouts};
use serde::{Deserialize, Serialize};

use crate::Refused;

/// How new flows to a service's VIPs are shared among its endpoints. The usual is round robin without affinity.
///
/// ```
/// use overlay_lb::Scheduler;
/// use overlay_node::Balancing;
///
/// let by_weight = Balancing { scheduler: Scheduler::WeightedRoundRobin, ..Balancing::default() };
/// assert!(!by_weight.is_usual());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balancing {
    /// How endpoints are chosen for new flows. Their [weights](crate::EndpointSpec::weight) count where it says so.
    pub scheduler: Scheduler,
    /// Whether a client comes back to the endpoint that it had last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// For how long flows may be idle; as long as the nodes' kernels have it if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

impl Balancing {
    /// Whether nothing was said of it.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// How a service is balanced.
    pub(crate) const fn of(service: &overlay_lb::Service) -> Self {
        Self { scheduler: service.scheduler, affinity: service.affinity, timeouts: service.timeouts }
    }

    /// A service that is balanced so, at these VIPs.
    pub(crate) fn service(&self, vips: impl IntoIterator<Item = std::net::IpAddr>) -> overlay_lb::Service {
        let Self { scheduler, affinity, timeouts } = *self;
        overlay_lb::Service { scheduler, affinity, timeouts, ..overlay_lb::Service::new(vips) }
    }

    /// What sense it makes; where none, the usual.
    pub(crate) fn sound(&self, name: &Name) -> Self {
        let makes_sense = self.is_usual() || self.check(name).is_ok();
        if makes_sense { *self } else { Self::default() }
    }

    /// Whether it makes sense.
    pub(crate) fn check(&self, name: &Name) -> Result<(), Refused> {
        overlay_core::State::check(&self.alone(name)).map_err(|refusal| refused(name, refusal))
    }

    /// Whether nodes that can do so much can do this.
    pub(crate) fn permit(&self, name: &Name, nodes: &Capabilities) -> Result<(), Refused> {
        nodes.permit(&self.alone(name)).map_err(|refusal| refused(name, refusal))
    }

    /// One service alone.
    fn alone(&self, name: &Name) -> State {
        let service = (name.clone(), self.service([ANY_VIP.into()]));
        State { services: [service].into_iter().collect(), ..State::default() }
    }
}

fn refused(name: &Name, refusal: Refusal) -> Refused {
    let (wanted, reason) = (refusal.wanted.into_owned(), refusal.reason.into_owned());
    Refused::Balancing { service: name.clone(), wanted, reason }
}

/// What is checked has no VIP yet; this one stands for all (RFC 5737).
const ANY_VIP: [u8; 4] = [192, 0, 2, 1];
