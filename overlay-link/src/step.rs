//! Changes of local networks.

use std::fmt;

use ipnet::IpNet;
use overlay_core::{EndpointId, IfName, Mac, Mtu, Phase};

use crate::{Bridge, Macvlan, Port};

/// One change of a [`State`](crate::State).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A bridge without addresses or ports comes into being.
    Create(IfName, Mac, Mtu),
    /// A bridge changes.
    Change(IfName, BridgeStep),
    /// A bridge goes, and all on it.
    Remove(IfName),
    /// A container is given an interface on a physical network, or that changes.
    PutMacvlan(EndpointId, Macvlan),
    /// A container's interface on a physical network goes.
    RemoveMacvlan(EndpointId),
}

/// One change of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeStep {
    /// It gets another Ethernet address.
    SetMac(Mac),
    /// The size of packets changes, at every port.
    SetMtu(Mtu),
    /// It gets an address.
    AddAddress(IpNet),
    /// It loses an address.
    RemoveAddress(IpNet),
    /// Whether its ports reach each other changes.
    SetIsolated(bool),
    /// Whether what comes in by it is forwarded changes.
    SetRouted(bool),
    /// Whether what the host sends from loopback addresses may pass changes.
    SetLocalnet(bool),
    /// A station is plugged in, or changed.
    PutPort(IfName, Port),
    /// A station is unplugged.
    RemovePort(IfName),
}

impl BridgeStep {
    pub(crate) fn apply(&self, bridge: &mut Bridge) {
        match self {
            Self::SetMac(mac) => bridge.mac = *mac,
            Self::SetMtu(mtu) => bridge.mtu = *mtu,
            Self::AddAddress(address) => drop(bridge.addresses.insert(*address)),
            Self::RemoveAddress(address) => drop(bridge.addresses.remove(address)),
            Self::SetIsolated(isolated) => bridge.isolated = *isolated,
            Self::SetRouted(routed) => bridge.routed = *routed,
            Self::SetLocalnet(localnet) => bridge.localnet = *localnet,
            Self::PutPort(name, port) => drop(bridge.ports.insert(*name, port.clone())),
            Self::RemovePort(name) => drop(bridge.ports.remove(name)),
        }
    }
}

impl Step {
    pub(crate) const fn phase(&self) -> Phase {
        use BridgeStep::*;
        match self {
            Self::Create(..) => Phase::Build,
            Self::Change(_, SetMac(_) | SetMtu(_) | AddAddress(_) | SetIsolated(_) | SetRouted(_) | SetLocalnet(_)) => {
                Phase::Build
            }
            Self::Change(_, PutPort(..)) | Self::PutMacvlan(..) => Phase::Open,
            Self::Change(_, RemovePort(_)) | Self::RemoveMacvlan(_) => Phase::Close,
            Self::Change(_, RemoveAddress(_)) | Self::Remove(_) => Phase::Dismantle,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(name, mac, mtu) => write!(f, "create bridge {name}, {mac}, mtu {mtu}"),
            Self::Change(name, step) => write!(f, "bridge {name}: {step}"),
            Self::Remove(name) => write!(f, "remove bridge {name}"),
            Self::PutMacvlan(endpoint, macvlan) => write!(f, "macvlan of {}: {macvlan}", endpoint.short()),
            Self::RemoveMacvlan(endpoint) => write!(f, "remove macvlan of {}", endpoint.short()),
        }
    }
}

impl fmt::Display for BridgeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetMac(mac) => write!(f, "set Ethernet address {mac}"),
            Self::SetMtu(mtu) => write!(f, "set mtu {mtu}"),
            Self::AddAddress(address) => write!(f, "add address {address}"),
            Self::RemoveAddress(address) => write!(f, "remove address {address}"),
            Self::SetIsolated(true) => f.write_str("keep ports apart"),
            Self::SetIsolated(false) => f.write_str("let ports reach each other"),
            Self::SetRouted(true) => f.write_str("forward"),
            Self::SetRouted(false) => f.write_str("do not forward"),
            Self::SetLocalnet(true) => f.write_str("let the host's loopback clients pass"),
            Self::SetLocalnet(false) => f.write_str("let no loopback client of the host pass"),
            Self::PutPort(name, port) => write!(f, "plug in {name}: {port}"),
            Self::RemovePort(name) => write!(f, "unplug {name}"),
        }
    }
}
