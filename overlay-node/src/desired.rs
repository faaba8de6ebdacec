//! What a node should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay_core::NetworkId;
use overlay_dns::View;
use overlay_link::Routes;

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
    /// Which tunnels are protected: of the host, where all segments have their sockets.
    pub crypto: overlay_crypto::State,
    /// Local networks: the host's bridges, and of a container its interfaces on physical networks.
    pub link: overlay_link::State,
    /// Segments: of a network's sandbox.
    pub vxlan: overlay_vxlan::State,
    /// What is allowed and forbidden.
    pub firewall: overlay_firewall::State,
    /// Virtual services that are reached from here: of a container; of the host, what the node publishes.
    pub lb: overlay_lb::State,
    /// Ways to other networks: of a container.
    pub routes: Routes,
    /// The names that are seen from here: of a container, and of a sandbox for its virtual machines.
    pub view: View,
    /// The networks that a container is plugged in to: their sandboxes are the places around it. None for other places.
    pub within: BTreeSet<NetworkId>,
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
