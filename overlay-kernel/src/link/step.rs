//! Changes of a state, one act of the kernel each.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IfName, Mac, Phase};

use super::{Dev, Link, Route, RouteKey, Rule, Setting, Site};

/// One change of a [`State`](super::State).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A setting of a namespace is set.
    SetSetting(Site, Setting, bool),
    /// A device goes, and all on it, to make room for another.
    ClearLink(Dev),
    /// A device comes into being, still down.
    AddLink(Dev, Box<Link>),
    /// A veth pair comes into being, still down: the near end's place, what it is like, and what the far end is like.
    AddPair(Dev, Box<(Link, Link)>),
    /// A device's settings change, neither its kind nor whether it is up.
    SetLink(Dev, Box<Link>),
    /// A device gets an address, without duplicate detection, in place of the same with another prefix length.
    PutAddress(Dev, IpNet, Option<u8>),
    /// A device loses its last IPv4 address before its routes are set, as the kernel takes those along.
    ClearAddress(Dev, IpNet),
    /// A rule is added.
    AddRule(Rule),
    /// The station that has an address is set or replaced, for ever.
    PutNeighbour(Dev, IpAddr, Mac),
    /// The VTEP that a station is behind is set or replaced, for ever.
    PutForwarding(Dev, Mac, IpAddr),
    /// A VTEP gets frames for all and for unknown stations too.
    AddFlood(Dev, IpAddr),
    /// A bridge's station is set or replaced: the port it is behind.
    PutStation(Dev, Mac, IfName),
    /// A device goes up.
    RaiseLink(Dev),
    /// A route is set or replaced.
    PutRoute(RouteKey, Route),
    /// A device goes, and all on it; a pair's other end too.
    RemoveLink(Dev),
    /// A route goes.
    RemoveRoute(RouteKey),
    /// A VTEP gets frames for all no more.
    RemoveFlood(Dev, IpAddr),
    /// A forwarding entry goes.
    RemoveForwarding(Dev, Mac),
    /// A bridge's station goes from behind a port.
    RemoveStation(Dev, Mac, IfName),
    /// A neighbour entry goes.
    RemoveNeighbour(Dev, IpAddr),
    /// A rule goes.
    RemoveRule(Rule),
    /// A device loses an address.
    RemoveAddress(Dev, IpNet),
}

impl Step {
    /// The namespace it is an act in.
    pub(super) const fn site(&self) -> &Site {
        match self {
            Self::SetSetting(site, ..) => site,
            Self::PutRoute(key, _) | Self::RemoveRoute(key) => &key.site,
            Self::AddRule(rule) | Self::RemoveRule(rule) => &rule.site,
            Self::ClearLink(dev) | Self::RemoveLink(dev) | Self::RaiseLink(dev) => &dev.site,
            Self::AddLink(dev, _) | Self::AddPair(dev, _) | Self::SetLink(dev, _) => &dev.site,
            Self::PutAddress(dev, ..) | Self::ClearAddress(dev, _) | Self::RemoveAddress(dev, _) => &dev.site,
            Self::PutNeighbour(dev, ..) | Self::RemoveNeighbour(dev, _) => &dev.site,
            Self::PutForwarding(dev, ..) | Self::RemoveForwarding(dev, _) => &dev.site,
            Self::AddFlood(dev, _) | Self::RemoveFlood(dev, _) => &dev.site,
            Self::PutStation(bridge, ..) | Self::RemoveStation(bridge, ..) => &bridge.site,
        }
    }

    /// Nothing that is built carries traffic before its device is raised.
    pub(super) const fn phase(&self) -> Phase {
        match self {
            Self::SetSetting(..) | Self::ClearLink(_) | Self::AddLink(..) | Self::AddPair(..) | Self::SetLink(..) => {
                Phase::Build
            }
            Self::PutAddress(..) | Self::ClearAddress(..) | Self::AddRule(_) => Phase::Build,
            Self::PutNeighbour(..) | Self::PutForwarding(..) | Self::AddFlood(..) => Phase::Build,
            Self::PutStation(..) => Phase::Build,
            Self::RaiseLink(_) | Self::PutRoute(..) => Phase::Open,
            Self::RemoveLink(_) | Self::RemoveRoute(_) => Phase::Close,
            Self::RemoveFlood(..) | Self::RemoveForwarding(..) | Self::RemoveNeighbour(..) => Phase::Dismantle,
            Self::RemoveStation(..) | Self::RemoveRule(_) | Self::RemoveAddress(..) => Phase::Dismantle,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetSetting(site, setting, value) => write!(f, "set {setting} to {} at {site}", u8::from(*value)),
            Self::ClearLink(dev) => write!(f, "clear link {dev}"),
            Self::AddLink(dev, link) => write!(f, "add link {dev}: {link}"),
            Self::AddPair(dev, pair) => write!(f, "add link {dev}: {}; there: {}", pair.0, pair.1),
            Self::SetLink(dev, link) => write!(f, "set link {dev}: {link}"),
            Self::PutAddress(dev, address, _) => write!(f, "put address {address} on {dev}"),
            Self::ClearAddress(dev, address) => write!(f, "clear address {address} from {dev}"),
            Self::AddRule(rule) => write!(f, "add {rule}"),
            Self::PutNeighbour(dev, address, mac) => write!(f, "put neighbour {address} at {mac} on {dev}"),
            Self::PutForwarding(dev, mac, vtep) => write!(f, "put {mac} behind {vtep} on {dev}"),
            Self::AddFlood(dev, vtep) => write!(f, "flood to {vtep} on {dev}"),
            Self::PutStation(dev, mac, port) => write!(f, "put {mac} behind {port} of {dev}"),
            Self::RaiseLink(dev) => write!(f, "raise link {dev}"),
            Self::PutRoute(key, route) => write!(f, "put {key} {route}"),
            Self::RemoveLink(dev) => write!(f, "remove link {dev}"),
            Self::RemoveRoute(key) => write!(f, "remove {key}"),
            Self::RemoveFlood(dev, vtep) => write!(f, "no longer flood to {vtep} on {dev}"),
            Self::RemoveForwarding(dev, mac) => write!(f, "remove {mac} from {dev}"),
            Self::RemoveStation(dev, mac, port) => write!(f, "remove {mac} from {port} of {dev}"),
            Self::RemoveNeighbour(dev, address) => write!(f, "remove neighbour {address} from {dev}"),
            Self::RemoveRule(rule) => write!(f, "remove {rule}"),
            Self::RemoveAddress(dev, address) => write!(f, "remove address {address} from {dev}"),
        }
    }
}
