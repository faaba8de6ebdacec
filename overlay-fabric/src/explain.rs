//! What an agent says of a way, held against what its places hold.

use std::sync::Arc;

use overlay_core::Name;
use overlay_dns::DnsName;
use overlay_node::{Desired, Explanation, Place, PlaceState, Target};

use crate::Cluster;

impl Cluster {
    /// What the agent of a container's node says of the way from there to a name: how it should be, held against what the node's
    /// places hold. `None` while the agent is down, and for a container that is on no network.
    ///
    /// It sees one node; a [`probe`](Self::probe) sees all.
    pub fn explain(&self, from: &str, to: &str) -> Option<Explanation> {
        let (from, to): (Name, DnsName) = (from.parse().ok()?, to.parse().ok()?);
        let number = self.node_of(&from)?;
        let endpoint = *self.nodes.get(number)?.containers.get(&from)?.plugs.keys().next()?;
        Some(self.agent(number)?.explain(endpoint, &Target::Name(to), &self.held(number)))
    }

    /// What a node's places hold, read back, and what its resolvers were told.
    fn held(&self, number: usize) -> Desired {
        let views = self.net.machine(number).map(|station| &station.views);
        let view = |place: &Place| match place {
            Place::Container(name) => views.and_then(|views| views.get(name)).cloned(),
            Place::Host | Place::Network(_) => None,
        };
        let held = self.nodes.get(number).map(|node| node.places.held.places()).unwrap_or_default();
        let places = held.into_iter().map(|(place, held)| {
            let state = PlaceState {
                crypto: held.crypto.state(),
                link: held.link.state(),
                vxlan: held.vxlan.state(),
                firewall: held.firewall.state(),
                routes: held.routes.state(),
                view: view(&place).unwrap_or_default(),
                ..PlaceState::default()
            };
            (place, Arc::new(state))
        });
        Desired { places: places.collect() }
    }
}
