//! What there is, in a state's words.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use overlay_core::{BackendError, ErrorKind, IfName, IpFamily, Mtu, Port, PortRange, Ttl, Vni};

use super::door::Door;
use super::links::{Links, Mark};
use super::{BridgePort, Dev, Kind, Link, Route, RouteKey, Setting, Site, Solicit, State, Vxlan};
use crate::Sysctl;
use crate::netlink::NetlinkError;
use crate::rtnl::neighbour::Found as Entry;
use crate::rtnl::{PROTOCOL, address, link, neighbour, route, rule};

/// Reads everything of ours back.
pub(super) fn state(links: &mut Links) -> Result<State, BackendError> {
    let map = Map::read(links)?;
    let mut state = State::default();
    for (site, scan) in &map.scans {
        for found in scan.links.iter().filter(|found| links.mark.is_on(found.group, &found.altnames)) {
            if let Some(name) = found.name {
                state.links.insert(Dev { site: site.clone(), name }, map.link(site, found, links.mark));
            }
        }
    }
    for (site, door) in &mut links.doors {
        let ours = map.ours(site, &state);
        on_site(site, door, &ours, &mut state).map_err(|error| error.during(format!("read what is at {site}")))?;
        entries(site, door, &ours, &mut state).map_err(|error| error.during(format!("read entries at {site}")))?;
    }
    if let Some(home) = links.doors.get(&Site::Home) {
        state.settings = settings(home)?;
    }
    let entries_on = state
        .links
        .iter()
        .filter(|(_, link)| has_entries(link))
        .filter_map(|(dev, link)| {
            let index = links.doors.get(&dev.site)?.indices.get(&dev.name)?;
            Some(((dev.site.clone(), *index), matches!(link.kind, Kind::Vxlan(_))))
        })
        .collect();
    links.watch.entries_on(entries_on);
    Ok(state)
}

/// The devices of all namespaces, ours and others', to find the other ends.
struct Map {
    scans: BTreeMap<Site, Scan>,
}

struct Scan {
    links: Vec<link::Found>,
    names: BTreeMap<u32, IfName>,
    /// The numbers that this namespace has for others.
    numbers: BTreeMap<i32, Site>,
    /// How devices ask for neighbours; not at home.
    solicits: BTreeMap<(u32, IpFamily), Solicit>,
}

impl Map {
    fn read(links: &mut Links) -> Result<Self, BackendError> {
        let home = links.door(&Site::Home)?.namespace.try_clone()?;
        let mut scans = BTreeMap::new();
        let mut seen_from_home = BTreeMap::new();
        for (site, door) in &mut links.doors {
            let found = door.links()?;
            let names = found.iter().filter_map(|link| Some((link.index, link.name?))).collect();
            let mut numbers = BTreeMap::new();
            let solicits = if *site == Site::Home { BTreeMap::new() } else { door.solicits()? };
            if *site != Site::Home && found.iter().any(|link| link.link_netns.is_some()) {
                numbers.extend(door.number_of(home.as_fd())?.map(|number| (number, Site::Home)));
            }
            scans.insert(site.clone(), Scan { links: found, names, numbers, solicits });
        }
        let far: Vec<_> = links.doors.keys().filter(|site| **site != Site::Home).cloned().collect();
        for site in far {
            let namespace = links.door(&site)?.namespace.try_clone()?;
            let number = links.door(&Site::Home)?.number_of(namespace.as_fd())?;
            seen_from_home.extend(number.map(|number| (number, site)));
        }
        if let Some(home) = scans.get_mut(&Site::Home) {
            home.numbers = seen_from_home;
        }
        let mut map = Self { scans };
        map.number_others(links)?;
        Ok(map)
    }

    /// Asks for the numbers of all namespaces where a device of ours has its other end neither there nor at home.
    fn number_others(&mut self, links: &mut Links) -> Result<(), BackendError> {
        let mark = links.mark;
        for (site, scan) in &mut self.scans {
            let ours = scan.links.iter().filter(|link| mark.is_on(link.group, &link.altnames));
            if ours.filter_map(|link| link.link_netns).all(|number| scan.numbers.contains_key(&number)) {
                continue;
            }
            let hold = |(other, door): (&Site, &Door)| Ok((other.clone(), door.namespace.try_clone()?));
            let all: Vec<_> = links.doors.iter().map(hold).collect::<Result<_, BackendError>>()?;
            for (other, namespace) in all {
                let number = links.door(site)?.number_of(namespace.as_fd())?;
                scan.numbers.extend(number.map(|number| (number, other)));
            }
        }
        Ok(())
    }

    /// Indices and names of our devices at a site.
    fn ours(&self, site: &Site, state: &State) -> BTreeMap<u32, IfName> {
        let names = self.scans.get(site).map(|scan| &scan.names);
        let ours = |name: &IfName| state.links.contains_key(&Dev { site: site.clone(), name: *name });
        names.into_iter().flatten().filter(|(_, name)| ours(name)).map(|(index, name)| (*index, *name)).collect()
    }

    fn solicit(&self, site: &Site, index: u32) -> Solicit {
        let found = |family| self.scans.get(site)?.solicits.get(&(index, family)).copied();
        found(IpFamily::V4).unwrap_or(Solicit::KERNEL).both(found(IpFamily::V6))
    }

    /// The namespace that a device's other end, parent or socket is in.
    fn base_site(&self, site: &Site, found: &link::Found) -> Option<Site> {
        match found.link_netns {
            None => Some(site.clone()),
            Some(number) => self.scans.get(site)?.numbers.get(&number).cloned(),
        }
    }

    fn dev(&self, site: Site, index: u32) -> Option<Dev> {
        let name = *self.scans.get(&site)?.names.get(&index)?;
        Some(Dev { site, name })
    }

    fn link(&self, site: &Site, found: &link::Found, mark: Mark) -> Link {
        let kind = self.kind(site, found);
        let whole = found.name.is_some_and(|name| found.altnames.contains(&mark.altname(name)));
        let bridge = found.master.and_then(|index| self.scans.get(site)?.names.get(&index).copied());
        Link {
            kind: kind.unwrap_or_else(|| Kind::Stray(format!("{:?}", found.data))),
            mtu: Mtu::new(found.mtu).unwrap_or(Mtu::MAX),
            mac: found.mac.unwrap_or(overlay_core::Mac::ZERO),
            up: found.up,
            marked: whole && found.group == mark.group(),
            port: bridge.map(|bridge| BridgePort {
                bridge,
                learning: found.port.learning,
                flood: found.port.flood,
                isolated: found.port.isolated,
                neigh_suppress: found.port.neigh_suppress,
            }),
            ipv4_forwarding: found.ipv4_forwarding,
            ipv4_localnet: found.ipv4_localnet,
            accept_ra: found.accept_ra,
            link_local: found.link_local,
            solicit: self.solicit(site, found.index),
        }
    }

    /// `None` for what no kind of ours says.
    fn kind(&self, site: &Site, found: &link::Found) -> Option<Kind> {
        let base = || self.dev(self.base_site(site, found)?, found.link?);
        match &found.data {
            link::Data::Bridge { multicast_snooping } => Some(Kind::Bridge { multicast_snooping: *multicast_snooping }),
            link::Data::Dummy => Some(Kind::Dummy),
            link::Data::Veth => Some(Kind::Veth { peer: base()? }),
            link::Data::Macvlan { mode } => Some(Kind::Macvlan { parent: base()?, mode: (*mode)? }),
            link::Data::Vxlan(vxlan) => self.vxlan(self.base_site(site, found)?, vxlan).map(Kind::Vxlan),
            link::Data::Tap(tap) => Some(Kind::Tap(*tap)),
            link::Data::Other(_) => None,
        }
    }

    fn vxlan(&self, underlay: Site, found: &link::Vxlan) -> Option<Vxlan> {
        let device = match found.device {
            Some(index) => Some(self.dev(underlay.clone(), index)?.name),
            None => None,
        };
        let local = found.local?;
        let (first, last) = found.source_ports;
        Some(Vxlan {
            vni: Vni::new(found.vni).ok()?,
            underlay,
            local,
            device,
            port: Port::new(found.port).ok()?,
            source_ports: PortRange::new(Port::new(first).ok()?, Port::new(last).ok()?).ok()?,
            ttl: match std::num::NonZeroU8::new(found.ttl) {
                _ if found.ttl_inherit => Ttl::Inherit,
                Some(hops) => Ttl::Hops(hops),
                None => Ttl::Auto,
            },
            dont_fragment: found.dont_fragment,
            udp_checksum: if local.is_ipv4() { found.udp_checksum } else { !found.zero_checksum_v6 },
            learning: found.learning,
            proxy: found.proxy,
        })
    }
}

/// Addresses, routes and rules of a namespace.
fn on_site(site: &Site, door: &mut Door, ours: &BTreeMap<u32, IfName>, state: &mut State) -> Result<(), NetlinkError> {
    let dev = |name: &IfName| Dev { site: site.clone(), name: *name };
    if !ours.is_empty() {
        for found in door.socket.dump(&address::dump(), address::parse)?.into_iter().filter(|found| found.ours) {
            if let Some(name) = ours.get(&found.index) {
                state.addresses.insert((dev(name), found.address), found.prefix_len);
            }
        }
    }
    for family in [IpFamily::V4, IpFamily::V6] {
        for found in unless_unsupported(
            door.socket.dump(&route::dump(family, PROTOCOL), |message| route::parse(message, PROTOCOL)),
        )? {
            let (table, destination, metric) = (found.table, found.destination, found.metric);
            let route = match found.target {
                _ if *site != Site::Home && !matches!(found.target, route::Target::Device { .. }) => continue,
                route::Target::Blackhole => Route::Blackhole,
                route::Target::Unreachable => Route::Unreachable,
                route::Target::Device { index, gateway, source, onlink } => match ours.get(&index) {
                    Some(name) => Route::Via { device: *name, gateway, source, onlink },
                    None => continue,
                },
            };
            state.routes.insert(RouteKey { site: site.clone(), table, destination, metric }, route);
        }
        if *site == Site::Home {
            let rules = door.socket.dump(&rule::dump(family), |message| rule::parse(message, site));
            state.rules.extend(unless_unsupported(rules)?);
        }
    }
    Ok(())
}

/// Neighbours and forwarding entries of a namespace.
fn entries(site: &Site, door: &mut Door, ours: &BTreeMap<u32, IfName>, state: &mut State) -> Result<(), NetlinkError> {
    let dev = |name: &IfName| Dev { site: site.clone(), name: *name };
    if ours.is_empty() {
        return Ok(());
    }
    let mut found = door.socket.dump(&neighbour::dump(), neighbour::parse)?;
    for (index, name) in ours {
        if matches!(state.links.get(&dev(name)), Some(link) if has_entries(link)) {
            found.extend(door.socket.dump(&neighbour::dump_forwarding(*index), neighbour::parse)?);
        }
    }
    let (mut neighbours, mut forwarding, mut flood) = (Vec::new(), Vec::new(), BTreeSet::new());
    let (mut stations, mut own) = (Vec::new(), BTreeSet::new());
    for entry in found {
        match entry {
            Entry::Station { port, mac } => stations.extend(ours.get(&port).and_then(|name| {
                let bridge = state.links.get(&dev(name))?.port?.bridge;
                Some(((dev(&bridge), mac), *name))
            })),
            Entry::Own { device, mac } => own.extend(ours.get(&device).and_then(|name| {
                let link = state.links.get(&dev(name))?;
                Some((link.port.map_or(*name, |port| port.bridge), mac))
            })),
            Entry::Neighbour { index, address, mac } => {
                neighbours.extend(ours.get(&index).map(|name| ((dev(name), address), mac)));
            }
            // By another interface than the device is bound to, it is as good as not there.
            Entry::Forwarding { index, via, .. } if ours.get(&index).is_some_and(|name| door.bound(*name) != via) => {}
            Entry::Forwarding { index, mac: overlay_core::Mac::ZERO, vtep, .. } => {
                flood.extend(ours.get(&index).map(|name| (dev(name), vtep)));
            }
            Entry::Forwarding { index, mac, vtep, .. } => {
                forwarding.extend(ours.get(&index).map(|name| ((dev(name), mac), vtep)));
            }
        }
    }
    state.neighbours.extend(neighbours);
    state.forwarding.extend(forwarding);
    state.flood.extend(flood);
    state.stations.extend(stations);
    for name in ours.values() {
        if let Some(link) = state.links.get_mut(&dev(name))
            && matches!(link.kind, Kind::Bridge { .. })
        {
            link.marked &= own.contains(&(*name, link.mac));
        }
    }
    Ok(())
}

/// Whether a device can have forwarding entries, or its bridge some that lead to it.
const fn has_entries(link: &Link) -> bool {
    link.port.is_some() || matches!(link.kind, Kind::Vxlan(_) | Kind::Bridge { .. })
}

/// The settings that differ from their default; one that this kernel does not have differs from nothing.
fn settings(home: &Door) -> Result<BTreeMap<(Site, Setting), bool>, BackendError> {
    home.namespace.run(|| {
        let mut found = BTreeMap::new();
        for setting in Setting::ALL {
            let value = match Sysctl::new(setting.path().split('/'))?.read() {
                Ok(value) => value != "0",
                Err(error) if error.kind() == ErrorKind::Gone => continue,
                Err(error) => return Err(error),
            };
            if value != setting.default_value() {
                found.insert((Site::Home, setting), value);
            }
        }
        Ok(found)
    })?
}

/// A family that this kernel does not have has no routes and no rules.
fn unless_unsupported<T>(result: Result<Vec<T>, NetlinkError>) -> Result<Vec<T>, NetlinkError> {
    match result {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Vec::new()),
        other => other,
    }
}
