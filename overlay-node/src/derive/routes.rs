//! The routes of a container.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::IpFamily;

use super::container::Attachment;
use super::gateway::WayOut;
use crate::{Route, Routes};

/// All subnets of its networks are on the link, and the rest of the world is behind the node's gateway bridge; where a container has no port there,
/// behind the gateway of the first network that is not internal. The subnets of its own addresses come with those.
pub(super) fn routes(attachments: &[Attachment<'_>], way_out: Option<&WayOut>) -> Routes {
    let mut routes = Routes::default();
    let covered = |net: &IpNet| attachments.iter().flat_map(own).any(|own| own.trunc() == *net);
    for attachment in attachments {
        for net in attachment.network.subnets.iter().map(|subnet| subnet.net().trunc()) {
            let interface = attachment.local.interface;
            if has(attachment, IpFamily::of(net.addr())) && !covered(&net) && net.prefix_len() > 0 {
                routes.0.entry(net).or_insert(Route { interface, via: None });
            }
        }
    }
    for (family, everywhere) in [(IpFamily::V4, EVERYWHERE_V4), (IpFamily::V6, EVERYWHERE_V6)] {
        let Ok(to) = IpNet::new(everywhere, 0) else { continue };
        let of_family = |(own, _): &&(IpNet, IpAddr)| IpFamily::of(own.addr()) == family;
        let out = way_out.and_then(|way| Some((way, way.ends.iter().find(of_family)?)));
        let out = out.map(|(way, (_, gateway))| Route { interface: way.interface, via: Some(*gateway) });
        let route = out.or_else(|| attachments.iter().find_map(|attachment| default(attachment, family)));
        routes.0.extend(route.map(|route| (to, route)));
    }
    routes
}

/// The way out by this network, if it is one: the gateway of the endpoint's own subnet, or of the first that has one.
fn default(attachment: &Attachment<'_>, family: IpFamily) -> Option<Route> {
    if attachment.network.spec.internal || !has(attachment, family) {
        return None;
    }
    let subnets = || attachment.network.subnets.iter().filter(|subnet| subnet.family() == family);
    let own = subnets().find(|subnet| own(attachment).any(|own| subnet.net().contains(&own.addr())));
    let gateway = own.and_then(|subnet| subnet.gateway()).or_else(|| subnets().find_map(|subnet| subnet.gateway()))?;
    Some(Route { interface: attachment.local.interface, via: Some(gateway) })
}

fn own<'p>(attachment: &Attachment<'p>) -> impl Iterator<Item = &'p IpNet> {
    attachment.local.endpoint.addresses.iter()
}

fn has(attachment: &Attachment<'_>, family: IpFamily) -> bool {
    own(attachment).any(|own| IpFamily::of(own.addr()) == family)
}

const EVERYWHERE_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const EVERYWHERE_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
