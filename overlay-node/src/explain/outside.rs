//! The way to what no network has.

use std::net::IpAddr;

use overlay_core::IpFamily;

use super::walk::{Walk, broken};
use super::{Break, Hop};
use crate::knowledge::gateway::bridge;
use crate::{GatewayBridge, LocalEndpoint, Place, PlaceState, Route};

impl Walk<'_> {
    /// The container's default route leads to the node's gateway bridge, and that lets it out.
    pub(super) fn outside(&mut self, local: &LocalEndpoint, to: IpAddr) -> Result<(), Break> {
        let (family, container) = (IpFamily::of(to), &local.endpoint.spec.container);
        let place = Place::Container(container.clone());
        let by_bridge = |route: &&Route| route.interface.as_str() == GatewayBridge::INTERFACE;
        let way_out = |state: Option<&PlaceState>| default(state?, family).filter(by_bridge).cloned();
        let Some(wanted) = way_out(self.state(self.desired, &place)) else {
            let missing = format!("no network of {container} has {to}, and it has no way out by {family}");
            return broken(missing, NO_WAY_OUT);
        };
        if way_out(self.state(self.held, &place)).as_ref() != Some(&wanted) {
            return broken(format!("{place} has no route to {to}"), &format!("have {place} hold what is desired"));
        }
        let part = |state: Option<&PlaceState>| {
            let (state, name) = (state?, bridge(self.knowledge.me)?);
            Some((state.link.bridges.get(&name)?.clone(), state.firewall.gateways.get(&name)?.clone()))
        };
        let [wanted_part, held] = [self.desired, self.held].map(|of| part(self.state(of, &Place::Host)));
        if held.is_none() || held != wanted_part {
            let missing = "the gateway bridge of the host is missing, or otherwise than it should be".to_owned();
            return broken(missing, "have the host hold what is desired");
        }
        self.hops.extend(wanted.via.map(|gateway| Hop::Outside { to, interface: wanted.interface, gateway }));
        Ok(())
    }
}

const NO_WAY_OUT: &str = "attach the container to a network that has it, or to one that is not internal, of that family; the node needs a gateway bridge of it";

fn default(state: &PlaceState, family: IpFamily) -> Option<&Route> {
    let everywhere = |net: &ipnet::IpNet| net.prefix_len() == 0 && IpFamily::of(net.addr()) == family;
    state.routes.0.iter().find(|(net, _)| everywhere(net)).map(|(_, route)| route)
}
