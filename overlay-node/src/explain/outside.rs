//! The way to what no network has.

use std::net::IpAddr;

use overlay_core::{EndpointId, IfName, IpFamily};
use overlay_link::Route;

use super::walk::{Walk, broken};
use super::{Break, Hop};
use crate::derive::device;
use crate::knowledge::gateway::bridge;
use crate::{GatewayBridge, Kind, LocalEndpoint, Place, PlaceState, Section};

impl<'w> Walk<'w> {
    /// The container's default route leads to a bridge of the node, and that lets it out; or to the physical network.
    pub(super) fn outside(&mut self, local: &LocalEndpoint, to: IpAddr) -> Result<(), Break> {
        let (family, container) = (IpFamily::of(to), &local.endpoint.spec.container);
        let place = Place::Container(container.clone());
        let way_out = |state: Option<&PlaceState>| default(state?, family).copied();
        let no_way_out = || {
            let missing = format!("no network of {container} has {to}, and it has no way out by {family}");
            broken(missing, NO_WAY_OUT)
        };
        let Some(wanted) = way_out(self.state(self.desired, &place)) else { return no_way_out() };
        if way_out(self.state(self.held, &place)) != Some(wanted) {
            return broken(format!("{place} has no route to {to}"), &format!("have {place} hold what is desired"));
        }
        let Route { interface, via } = wanted;
        let me = self.knowledge.me;
        let device = match self.at(local, interface) {
            _ if interface.as_str() == GatewayBridge::INTERFACE => bridge(me),
            Some((section, id, local)) => match section.network.spec.kind {
                Kind::Macvlan { parent, .. } => {
                    self.plugged(section, id, local)?;
                    self.hops.push(Hop::Physical { to, parent });
                    return Ok(());
                }
                Kind::Bridge => device(me, section.network.id),
                _ => return no_way_out(), // an overlay leads nowhere else by itself
            },
            None => None,
        };
        let part = |state: Option<&PlaceState>| {
            let (state, name) = (state?, device?);
            Some((state.link.bridges.get(&name)?.clone(), state.firewall.gateways.get(&name)?.clone()))
        };
        let [wanted_part, held] = [self.desired, self.held].map(|of| part(self.state(of, &Place::Host)));
        if held.is_none() || held != wanted_part {
            let missing = "the bridge of the host that leads out is missing, or otherwise than it should be".to_owned();
            return broken(missing, "have the host hold what is desired");
        }
        self.hops.extend(via.map(|gateway| Hop::Outside { to, interface, gateway }));
        Ok(())
    }

    /// The endpoint that a container has at this interface.
    fn at(&self, of: &LocalEndpoint, interface: IfName) -> Option<(&'w Section, EndpointId, &'w LocalEndpoint)> {
        let container = &of.endpoint.spec.container;
        let sections = self.knowledge.networks.values();
        let all = sections.flat_map(|section| section.local.iter().map(move |(id, local)| (&**section, *id, &**local)));
        let mut own = all.filter(|(_, _, local)| local.endpoint.spec.container == *container);
        own.find(|(_, _, local)| local.interface == interface)
    }
}

const NO_WAY_OUT: &str = "attach the container to a network that has it, or to one that is not internal, of that family; the node needs a gateway bridge of it";

fn default(state: &PlaceState, family: IpFamily) -> Option<&Route> {
    let everywhere = |net: &ipnet::IpNet| net.prefix_len() == 0 && IpFamily::of(net.addr()) == family;
    state.routes.to.iter().find(|(net, _)| everywhere(net)).map(|(_, route)| route)
}
