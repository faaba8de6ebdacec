//! The native state: everything of ours that rtnetlink shows, of one place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use overlay_core::{IfName, Mac, Mtu, Phase, Refusal};
use serde::{Deserialize, Serialize};

use super::{Dev, Kind, Link, Route, RouteKey, Rule, Setting, Site, Step, check, plan};

/// Links, addresses, routes, rules, neighbours, forwarding entries and settings of one place, as the kernel has them.
///
/// The place's own namespace is [`Site::Home`]; objects with two ends have the other in a [`Site::Far`].
///
/// ```
/// use overlay_core::{Mac, Memory, Mtu, reconcile};
/// use overlay_kernel::link::{Dev, Kind, Link, State};
///
/// let bridge = Dev::home("br0".parse()?);
/// let link = Link::new(Kind::Bridge { multicast_snooping: false }, Mtu::new(1450)?, Mac::new([2, 0, 0, 0, 0, 1]));
/// let mut wanted = State::default();
/// wanted.links.insert(bridge.clone(), link);
/// wanted.addresses.insert((bridge, [10, 0, 9, 1].into()), 24);
///
/// let done = reconcile(&mut Memory::<State>::default(), &wanted)?;
/// assert_eq!(
///     done.to_string(),
///     "build      add link br0: bridge 02:00:00:00:00:01 mtu 1450\n\
///      build      put address 10.0.9.1/24 on br0\n\
///      open       raise link br0\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Devices.
    pub links: BTreeMap<Dev, Link>,
    /// Addresses of devices, with their prefix lengths.
    pub addresses: BTreeMap<(Dev, IpAddr), u8>,
    /// Routes.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Rules.
    pub rules: BTreeSet<Rule>,
    /// Permanent neighbour entries: which station has an address.
    pub neighbours: BTreeMap<(Dev, IpAddr), Mac>,
    /// Permanent forwarding entries of VXLAN devices: behind which VTEP a station is.
    pub forwarding: BTreeMap<(Dev, Mac), IpAddr>,
    /// VTEPs to which VXLAN devices send frames for all and for unknown stations.
    pub flood: BTreeSet<(Dev, IpAddr)>,
    /// Static forwarding entries of bridges: behind which of its ports a station is.
    pub stations: BTreeMap<(Dev, Mac), IfName>,
    /// Settings of namespaces that are ours, where they differ from the kernel's default.
    pub settings: BTreeMap<(Site, Setting), bool>,
}

impl State {
    /// The devices that go when those of `gone` do: other ends of pairs, and what stands on them.
    pub(super) fn closure(&self, mut gone: BTreeSet<Dev>) -> BTreeSet<Dev> {
        loop {
            let before = gone.len();
            for (dev, link) in &self.links {
                let Some(base) = link.kind.leans_on() else { continue };
                if gone.contains(&base) {
                    gone.insert(dev.clone());
                } else if gone.contains(dev) && matches!(link.kind, Kind::Veth { .. }) {
                    gone.insert(base);
                }
            }
            if gone.len() == before {
                return gone;
            }
        }
    }

    /// Takes devices out, and with them all that the kernel takes with them.
    pub(super) fn forget(&mut self, gone: &BTreeSet<Dev>) {
        self.links.retain(|dev, _| !gone.contains(dev));
        self.addresses.retain(|(dev, _), _| !gone.contains(dev));
        self.forget_neighbours(|dev| gone.contains(dev));
        self.forwarding.retain(|(dev, _), _| !gone.contains(dev));
        self.flood.retain(|(dev, _)| !gone.contains(dev));
        self.forget_stations(|bridge, port| {
            gone.contains(bridge) || gone.contains(&Dev { site: bridge.site.clone(), name: port })
        });
        self.routes.retain(|key, route| route.device(&key.site).is_none_or(|dev| !gone.contains(&dev)));
        for (dev, link) in &mut self.links {
            link.port = link.port.filter(|port| !gone.contains(&Dev { site: dev.site.clone(), name: port.bridge }));
        }
    }

    /// Takes the neighbours of some devices out.
    pub(super) fn forget_neighbours(&mut self, of: impl Fn(&Dev) -> bool) {
        self.neighbours.retain(|(dev, _), _| !of(dev));
    }

    /// Takes the stations behind some ports of bridges out.
    pub(super) fn forget_stations(&mut self, behind: impl Fn(&Dev, IfName) -> bool) {
        self.stations.retain(|(bridge, _), port| !behind(bridge, *port));
    }

    /// The kernel forgets a device's neighbours when its Ethernet address changes, and makes what stands on it no larger
    /// than it is. Below IPv6's MTU a device has no IPv6. A bridge forgets the stations behind a port that it loses.
    fn set(&mut self, dev: &Dev, link: &Link) {
        let Some(old) = self.links.get_mut(dev) else { return };
        let readdressed = old.mac != link.mac;
        let left = old.left_for(link);
        *old = Link { up: old.up, ..link.clone() };
        if readdressed {
            self.forget_neighbours(|on| on == dev);
        }
        if let Some(name) = left {
            let left = Dev { site: dev.site.clone(), name };
            self.forget_stations(|bridge, port| *bridge == left && port == dev.name);
        }
        let on_it = |link: &Link| matches!(&link.kind, Kind::Macvlan { parent, .. } if parent == dev);
        let mut small = BTreeSet::new();
        for (on, child) in self.links.iter_mut().filter(|(on, child)| *on == dev || on_it(child)) {
            child.mtu = child.mtu.min(link.mtu);
            if child.mtu < Mtu::IPV6_MIN {
                (child.accept_ra, child.link_local) = (false, false);
                small.insert(on.clone());
            }
        }
        if !small.is_empty() {
            self.forget_ipv6(|dev| small.contains(dev));
        }
    }

    /// Takes all that is IPv6 from some devices.
    pub(super) fn forget_ipv6(&mut self, of: impl Fn(&Dev) -> bool) {
        self.addresses.retain(|(dev, address), _| address.is_ipv4() || !of(dev));
        self.neighbours.retain(|(dev, address), _| address.is_ipv4() || !of(dev));
        let by_it = |key: &RouteKey, route: &Route| route.device(&key.site).is_some_and(|dev| of(&dev));
        self.routes.retain(|key, route| key.is_ipv4() || !by_it(key, route));
    }

    /// Whether a device has an IPv4 address.
    pub(super) fn has_ipv4(&self, dev: &Dev) -> bool {
        let mut addresses = self.addresses.range((dev.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED))..);
        addresses.next().is_some_and(|((on, address), _)| on == dev && address.is_ipv4())
    }

    /// Whether a device has an IPv4 neighbour.
    pub(super) fn knows_ipv4(&self, dev: &Dev) -> bool {
        let mut neighbours = self.neighbours.range((dev.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED))..);
        neighbours.next().is_some_and(|((on, address), _)| on == dev && address.is_ipv4())
    }

    /// Takes the IPv4 routes that leave by some devices out, and the IPv4 neighbours on them.
    pub(super) fn forget_ipv4_ways(&mut self, by: impl Fn(&Dev) -> bool) {
        let goes = |key: &RouteKey, route: &Route| key.is_ipv4() && route.device(&key.site).is_some_and(|dev| by(&dev));
        self.routes.retain(|key, route| !goes(key, route));
        self.neighbours.retain(|(dev, address), _| address.is_ipv6() || !by(dev));
    }

    /// The kernel takes a device's IPv4 routes and neighbours along with its last IPv4 address.
    fn remove_address(&mut self, dev: &Dev, net: IpNet) {
        let had_ipv4 = self.has_ipv4(dev);
        self.addresses.remove(&(dev.clone(), net.addr()));
        if had_ipv4 && !self.has_ipv4(dev) {
            self.forget_ipv4_ways(|by| by == dev);
        }
    }

    fn add(&mut self, dev: &Dev, link: &Link) {
        self.links.insert(dev.clone(), Link { up: false, ..link.clone() });
    }
}

impl overlay_core::State for State {
    type Step = Step;

    /// O(n) for n objects while no device goes, O(n log d) for d that do.
    fn plan(&self, desired: &Self) -> Vec<Step> {
        plan::steps(self, desired)
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::SetSetting(site, setting, value) if *value == setting.default_value() => {
                self.settings.remove(&(site.clone(), *setting));
            }
            Step::SetSetting(site, setting, value) => drop(self.settings.insert((site.clone(), *setting), *value)),
            Step::ClearLink(dev) | Step::RemoveLink(dev) => {
                let gone = self.closure(BTreeSet::from([dev.clone()]));
                self.forget(&gone);
            }
            Step::AddLink(dev, link) => self.add(dev, link),
            Step::AddPair(dev, pair) => {
                self.add(dev, &pair.0);
                if let Kind::Veth { peer } = &pair.0.kind {
                    self.add(peer, &pair.1);
                }
            }
            Step::SetLink(dev, link) => self.set(dev, link),
            Step::RaiseLink(dev) => self.links.get_mut(dev).into_iter().for_each(|link| link.up = true),
            Step::PutAddress(dev, net, _) => {
                self.addresses.insert((dev.clone(), net.addr()), net.prefix_len());
            }
            Step::ClearAddress(dev, net) | Step::RemoveAddress(dev, net) => self.remove_address(dev, *net),
            Step::PutRoute(key, route) => drop(self.routes.insert(key.clone(), route.clone())),
            Step::RemoveRoute(key) => drop(self.routes.remove(key)),
            Step::AddRule(rule) => drop(self.rules.insert(rule.clone())),
            Step::RemoveRule(rule) => drop(self.rules.remove(rule)),
            Step::PutNeighbour(dev, ip, mac) => drop(self.neighbours.insert((dev.clone(), *ip), *mac)),
            Step::RemoveNeighbour(dev, ip) => drop(self.neighbours.remove(&(dev.clone(), *ip))),
            Step::PutForwarding(dev, mac, vtep) => drop(self.forwarding.insert((dev.clone(), *mac), *vtep)),
            Step::RemoveForwarding(dev, mac) => drop(self.forwarding.remove(&(dev.clone(), *mac))),
            Step::AddFlood(dev, vtep) => drop(self.flood.insert((dev.clone(), *vtep))),
            Step::RemoveFlood(dev, vtep) => drop(self.flood.remove(&(dev.clone(), *vtep))),
            Step::PutStation(dev, mac, port) => drop(self.stations.insert((dev.clone(), *mac), *port)),
            Step::RemoveStation(dev, mac, _) => drop(self.stations.remove(&(dev.clone(), *mac))),
        }
    }

    fn phase(step: &Step) -> Phase {
        step.phase()
    }

    fn check(&self) -> Result<(), Refusal> {
        check::state(self)
    }
}

/// An address with its prefix length; the host bits stay.
pub(super) fn net(address: IpAddr, prefix_len: u8) -> IpNet {
    IpNet::new(address, prefix_len).unwrap_or_else(|_| address.into())
}
