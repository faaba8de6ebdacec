//! Why somebody is not reached.

use std::sync::Arc;

use overlay_core::{BackendError, EndpointId, IpFamily, told};
use overlay_lb::Ask;
use overlay_node::{Break, Explanation, Hop, Place, PlaceState, Target};
use tokio::sync::oneshot;

use super::Heart;
use crate::ground::Ground;

impl<G: Ground> Heart<G> {
    /// What places show, and, if all is well with those, what of the host is in the way.
    pub(super) fn explain(&self, from: EndpointId, to: &Target, asked: oneshot::Sender<Explanation>) {
        let explanation = self.agent.explain(from, to, &self.held());
        let host = self.state.desired.places.get(&Place::Host).filter(|_| explanation.broken.is_none());
        let passed = host.and_then(|host| passed(host, explanation.hops.last()?));
        let mut ground = self.ground.clone();
        self.jobs.run(move || {
            let obstacle = passed.and_then(|state| first(ground.obstacles(&state)));
            let _ = asked.send(explanation.hindered_by(obstacle));
        });
    }

    /// The same for a client of a published port.
    pub(super) fn explain_published(&self, ask: Ask, asked: oneshot::Sender<Explanation>) {
        let mut explanation = self.agent.explain_published(&ask, &self.held());
        let host = self.state.desired.places.get(&Place::Host).filter(|_| explanation.broken.is_none()).cloned();
        let mut ground = self.ground.clone();
        self.jobs.run(move || {
            let Some(host) = host else {
                let _ = asked.send(explanation);
                return;
            };
            let hindrances = ground.hindrances(&host);
            let program = hindrances.as_ref().ok().and_then(|found| found.taken.get(&(ask.protocol, ask.port)));
            explanation.hops.extend(program.map(|program| Hop::Unasked { program: program.clone() }));
            let of_family = |(family, it): (IpFamily, Break)| (family == IpFamily::of(ask.to)).then_some(it);
            let switches = hindrances.map(|found| found.switches.into_iter().filter_map(of_family).collect());
            let forwards = ask.by.is_some(); // what begins on the node itself is not forwarded
            let is_of_mesh = explanation.hops.iter().any(|hop| matches!(hop, Hop::Replicas { .. }));
            let obstacle = first(switches).filter(|_| forwards && is_of_mesh);
            let obstacle =
                obstacle.or_else(|| first(ground.obstacles(&led(&host, is_of_mesh, forwards, &explanation.hops))));
            let _ = asked.send(explanation.hindered_by(obstacle));
        });
    }
}

/// The first obstacle; that the host cannot be looked at is one.
fn first(found: Result<Vec<Break>, BackendError>) -> Option<Break> {
    match found {
        Ok(obstacles) => obstacles.into_iter().next(),
        Err(error) => Some(Break {
            missing: format!("the host cannot be looked at: {}", told(&error)),
            repair: "try again".to_owned(),
        }),
    }
}

/// What of the host a client of a published port passes.
fn led(host: &Arc<PlaceState>, is_of_mesh: bool, forwards: bool, hops: &[Hop]) -> PlaceState {
    let mut state = PlaceState::default();
    if forwards {
        let passed = host.firewall.gateways.iter().filter(|(_, gateway)| gateway.balanced == is_of_mesh);
        state.firewall.gateways = passed.map(|(device, gateway)| (*device, gateway.clone())).collect();
    }
    if forwards && !is_of_mesh {
        state.link.bridges.clone_from(&host.link.bridges);
    }
    if hops.iter().any(|hop| matches!(hop, Hop::Entry { .. })) {
        state.firewall.tunnels.clone_from(&host.firewall.tunnels);
    }
    state
}

/// What of the host's state a packet passes that gets as far as this.
fn passed(host: &PlaceState, last: &Hop) -> Option<PlaceState> {
    let mut state = PlaceState::default();
    match last {
        Hop::Outside { .. } => {
            state.link.bridges.clone_from(&host.link.bridges);
            state.firewall.gateways.clone_from(&host.firewall.gateways);
        }
        Hop::Entry { .. } => state.firewall.tunnels.clone_from(&host.firewall.tunnels),
        _ => return None,
    }
    Some(state)
}
