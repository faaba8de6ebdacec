//! What a node should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{Change, IfName, NetworkId, Phase, State, in_phases, keyed_diff};
use overlay_dns::View;

use crate::Place;

/// What a node should hold, place by place; a place that is not in here holds nothing of ours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// By place; equal places of two values share one [`PlaceState`] where nothing of it changed.
    pub places: BTreeMap<Place, Arc<PlaceState>>,
}

/// What one place should hold: a value for each of its [tables](crate::PlaceTables), and what names are seen from there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlaceState {
    /// Local networks: of the host.
    pub link: overlay_link::State,
    /// Segments: of a network's sandbox.
    pub vxlan: overlay_vxlan::State,
    /// What is allowed and forbidden.
    pub firewall: overlay_firewall::State,
    /// Ways to other networks: of a container.
    pub routes: Routes,
    /// The names that are seen from here: of a container, and of a sandbox for its virtual machines.
    pub view: View,
    /// The networks that a container is plugged in to: their sandboxes are the places around it. None for other places.
    pub within: BTreeSet<NetworkId>,
}

/// The routes of a container, by destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(pub BTreeMap<IpNet, Route>);

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// By which of the container's interfaces.
    pub interface: IfName,
    /// Through which router; `None` for what is on the link.
    pub via: Option<IpAddr>,
}

/// One change of [`Routes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutesStep {
    /// A route is made, or replaced.
    Put(IpNet, Route),
    /// A route goes.
    Remove(IpNet),
}

impl State for Routes {
    type Step = RoutesStep;

    fn plan(&self, desired: &Self) -> Vec<RoutesStep> {
        let steps = keyed_diff(&self.0, &desired.0).map(|change| match change {
            Change::Add(to, route) | Change::Replace(to, _, route) => RoutesStep::Put(*to, route.clone()),
            Change::Remove(to, _) => RoutesStep::Remove(*to),
        });
        in_phases::<Self>(steps.collect())
    }

    fn apply(&mut self, step: &RoutesStep) {
        match step {
            RoutesStep::Put(to, route) => drop(self.0.insert(*to, route.clone())),
            RoutesStep::Remove(to) => drop(self.0.remove(to)),
        }
    }

    /// Routes open: they are there when all that they lead through is.
    fn phase(step: &RoutesStep) -> Phase {
        match step {
            RoutesStep::Put(..) => Phase::Open,
            RoutesStep::Remove(_) => Phase::Close,
        }
    }
}

impl fmt::Display for RoutesStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(to, Route { interface, via: Some(via) }) => write!(f, "route {to} via {via} by {interface}"),
            Self::Put(to, Route { interface, via: None }) => write!(f, "route {to} by {interface}"),
            Self::Remove(to) => write!(f, "remove route {to}"),
        }
    }
}

impl Desired {
    /// The places whose state differs between two values, in their order.
    pub fn changed<'a>(&'a self, other: &'a Self) -> BTreeSet<&'a Place> {
        let differs = |place: &&Place| match (self.places.get(*place), other.places.get(*place)) {
            (Some(ours), Some(theirs)) => !Arc::ptr_eq(ours, theirs) && ours != theirs,
            _ => true,
        };
        self.places.keys().chain(other.places.keys()).filter(differs).collect()
    }
}
