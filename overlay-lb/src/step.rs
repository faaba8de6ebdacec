//! The steps between two values.

use std::fmt;
use std::net::IpAddr;

use overlay_core::{EndpointId, Name, Phase};

use crate::{Arrivals, Condition, Replica, Service};

/// One change of a [`State`](crate::State).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A service comes, or changes in more than its replicas.
    Serve(Name, Box<Service>),
    /// A service goes.
    Withdraw(Name),
    /// The client reaches a VIP from this address of its own.
    Reach(IpAddr, IpAddr),
    /// The client has no address for a VIP.
    Unreach(IpAddr),
    /// What balancers of other places send here is answered through them, or nothing is any more.
    SetArrivals(Option<Arrivals>),
    /// A service's replica comes, or changes.
    PutReplica(Name, EndpointId, Replica),
    /// A service's replica goes.
    RemoveReplica(Name, EndpointId),
}

impl Step {
    pub(crate) const fn phase(&self) -> Phase {
        match self {
            Self::Serve(..) | Self::Reach(..) | Self::SetArrivals(Some(_)) => Phase::Open,
            Self::PutReplica(_, _, replica) if matches!(replica.condition, Condition::Active) => Phase::Open,
            Self::PutReplica(..) | Self::RemoveReplica(..) => Phase::Close,
            Self::Withdraw(_) | Self::Unreach(_) | Self::SetArrivals(None) => Phase::Close,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serve(name, service) => write!(f, "serve {name}: {service}"),
            Self::Withdraw(name) => write!(f, "serve {name} no more"),
            Self::Reach(vip, source) => write!(f, "reach {vip} from {source}"),
            Self::Unreach(vip) => write!(f, "reach {vip} no more"),
            Self::SetArrivals(Some(arrivals)) => write!(f, "answer {arrivals}"),
            Self::SetArrivals(None) => f.write_str("answer no balancer of another place"),
            Self::PutReplica(name, endpoint, replica) => {
                write!(f, "put replica {} of {name}: {replica}", endpoint.short())
            }
            Self::RemoveReplica(name, endpoint) => write!(f, "remove replica {} of {name}", endpoint.short()),
        }
    }
}
