//! What of the host is in the way of the ports that it publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use overlay_core::{BackendError, ErrorKind, IpFamily, Port, Protocol};
use overlay_firewall::Bind as HostBind;
use overlay_kernel::link::uplinks;
use overlay_kernel::listeners::{Listener, Process};
use overlay_kernel::{Namespace, Sysctl};
use overlay_lb::{Bind, Ports};
use overlay_node::{Break, PlaceState};

/// What of a host is in the way of the ports that it publishes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hindrances {
    /// The published ports that a program of the host listens at too, and which: it is not asked while they are published.
    pub taken: BTreeMap<(Protocol, Port), String>,
    /// What keeps clients of a family from ports of the routing mesh, and the command that mends it.
    pub switches: Vec<(IpFamily, Break)>,
}

/// Looks for them. O(sockets of the machine that listen); where one does at a published port, all open files of the machine too.
pub(super) fn hindrances(host: &Namespace, state: &PlaceState) -> Result<Hindrances, BackendError> {
    let published = published(state);
    if published.is_empty() {
        return Ok(Hindrances::default());
    }
    let all = Listener::all(host)?.into_iter().filter_map(|listener| {
        let port = (listener.protocol, Port::new(listener.at.port()).ok()?);
        let places = published.get(&port)?;
        places.iter().any(|place| place.meets(&listener)).then_some((port, listener.inode))
    });
    let listening: BTreeMap<(Protocol, Port), u32> = all.collect();
    let inodes: BTreeSet<u32> = listening.values().copied().collect();
    let processes = if inodes.is_empty() { BTreeMap::new() } else { Process::with_sockets(&inodes) };
    let who = |inode| processes.get(&inode).map_or_else(|| "a program of the host".to_owned(), ToString::to_string);
    let taken = listening.into_iter().map(|(port, inode)| (port, who(inode))).collect();
    Ok(Hindrances { taken, switches: switches(host, state)? })
}

/// Where a port is published.
enum Place {
    /// At all addresses of the host at which a host port is.
    Any,
    /// At all but those from which nothing leaves it.
    Reached,
    At(IpAddr),
}

impl Place {
    /// Whether something listens there too.
    fn meets(&self, listener: &Listener) -> bool {
        let own = listener.at.ip().to_canonical();
        let link_local = matches!(own, IpAddr::V6(own) if own.is_unicast_link_local());
        match self {
            Self::Any => !link_local && own != IpAddr::V6(Ipv6Addr::LOCALHOST),
            Self::Reached => !own.is_loopback() && !link_local,
            Self::At(address) => listener.is_at(*address),
        }
    }
}

fn published(state: &PlaceState) -> BTreeMap<(Protocol, Port), Vec<Place>> {
    let mut all = BTreeMap::<_, Vec<Place>>::new();
    for port in state.firewall.published.values() {
        let place = match port.bind {
            HostBind::Any => Place::Any,
            HostBind::Interface(_) => Place::Reached,
            HostBind::Address(address) => Place::At(address),
        };
        all.entry((port.protocol, port.port)).or_default().push(place);
    }
    for service in state.lb.services.values().filter(|service| service.is_published()) {
        let Ports::Named(ports) = &service.ports else { continue };
        for served in ports {
            let places = match &service.bind {
                Bind::Any | Bind::Interfaces(_) => vec![Place::Reached],
                Bind::Addresses(all) => all.iter().copied().map(Place::At).collect(),
            };
            all.entry((served.protocol, served.port)).or_default().extend(places);
        }
    }
    all
}

/// What the mesh takes in is forwarded, out by the ingress network and back by where clients are.
fn switches(host: &Namespace, state: &PlaceState) -> Result<Vec<(IpFamily, Break)>, BackendError> {
    let mut found = Vec::new();
    if state.lb.services.is_empty() {
        return Ok(found);
    }
    for interface in uplinks(host, IpFamily::V4)? {
        if is_off(host, &Sysctl::of_interface(IpFamily::V4, &interface, "forwarding")?)? {
            let quoted = interface.as_str().replace('\'', r"'\''");
            let missing = format!(
                "the host does not forward IPv4 packets that come in by {interface}, so no client from there reaches a port of the routing mesh"
            );
            let repair = format!("echo 1 > '/proc/sys/net/ipv4/conf/{quoted}/forwarding'");
            found.push((IpFamily::V4, Break { missing, repair }));
        }
    }
    if !uplinks(host, IpFamily::V6)?.is_empty()
        && is_off(host, &Sysctl::new(["net", "ipv6", "conf", "all", "forwarding"])?)?
    {
        let missing = "the host does not forward IPv6 packets, so no client of IPv6 reaches a port of the routing mesh";
        let repair = "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        found.push((IpFamily::V6, Break { missing: missing.to_owned(), repair: repair.to_owned() }));
    }
    Ok(found)
}

/// A switch that is not there is not in the way.
fn is_off(host: &Namespace, switch: &Sysctl) -> Result<bool, BackendError> {
    match host.run(|| switch.read())? {
        Err(error) if error.kind() == ErrorKind::Gone => Ok(false),
        value => Ok(value? == "0"),
    }
}
