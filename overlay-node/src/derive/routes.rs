//! The routes of a container.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::IpFamily;
use overlay_link::{Route, Routes};

use super::container::Attachment;
use super::gateway::WayOut;
use crate::Kind;

/// All subnets of its networks are on the link, and the rest of the world is behind the first of its ways out. Packets from its address at another
/// leave by that. The subnets of its own addresses come with those.
pub(super) fn routes(attachments: &[Attachment<'_>], way_out: Option<&WayOut>) -> Routes {
    let mut routes = Routes::default();
    let covered = |net: &IpNet| attachments.iter().flat_map(own).any(|own| own.trunc() == *net);
    for attachment in attachments {
        for net in attachment.network.subnets.iter().map(|subnet| subnet.net().trunc()) {
            let interface = attachment.local.interface;
            if has(attachment, IpFamily::of(net.addr())) && !covered(&net) && net.prefix_len() > 0 {
                routes.to.entry(net).or_insert(Route { interface, via: None });
            }
        }
    }
    for (family, everywhere) in [(IpFamily::V4, EVERYWHERE_V4), (IpFamily::V6, EVERYWHERE_V6)] {
        let Ok(everywhere) = IpNet::new(everywhere, 0) else { continue };
        let mut exits = exits(attachments, way_out, family).into_iter();
        let first = exits.next().map(|exit| exit.route);
        // Where there is none, a gateway of an overlay, which may lead on.
        let first = first.or_else(|| attachments.iter().find_map(|attachment| by_gateway(attachment, family)));
        routes.to.extend(first.map(|route| (everywhere, route)));
        for Exit { own, route } in exits {
            routes.from.extend(own.into_iter().map(|own| (own, route)));
        }
    }
    routes
}

/// A way out of a container.
struct Exit {
    /// Its addresses there.
    own: Vec<IpAddr>,
    route: Route,
}

/// The ways out by one family, in the order of the networks: overlays share the node's gateway bridge, other networks have one each.
fn exits(attachments: &[Attachment<'_>], way_out: Option<&WayOut>, family: IpFamily) -> Vec<Exit> {
    let of_family = |(own, _): &&(IpNet, IpAddr)| IpFamily::of(own.addr()) == family;
    let shared = way_out.and_then(|way| Some((way.interface, way.ends.iter().find(of_family)?)));
    let mut shared = shared.map(|(interface, (own, gateway))| Exit {
        own: vec![own.addr()],
        route: Route { interface, via: Some(*gateway) },
    });
    let open = attachments.iter().filter(|attachment| !attachment.network.spec.internal && has(attachment, family));
    let exits = open.filter_map(|attachment| match attachment.network.spec.kind {
        Kind::Overlay => shared.take(),
        _ => {
            let own = own(attachment).map(IpNet::addr).filter(|own| IpFamily::of(*own) == family).collect();
            Some(Exit { own, route: by_gateway(attachment, family)? })
        }
    });
    exits.collect()
}

/// The way out by this network, if it is one: the gateway of the endpoint's own subnet, or of the first that has one.
fn by_gateway(attachment: &Attachment<'_>, family: IpFamily) -> Option<Route> {
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
