//! The steps between two values.

use std::fmt;
use std::net::SocketAddr;

use overlay_core::Phase;

use super::{Destination, Key, Options, Setting, Timeouts};

/// One change of a [`State`](super::State).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A setting changes.
    SetSetting(Setting, u32),
    /// The timeouts change.
    SetTimeouts(Timeouts),
    /// A service comes, without destinations.
    AddService(Key, Options),
    /// A service is balanced otherwise.
    SetService(Key, Options),
    /// A service goes, with its destinations.
    RemoveService(Key),
    /// A destination comes, or changes.
    PutDestination(Key, SocketAddr, Destination),
    /// A destination goes.
    RemoveDestination(Key, SocketAddr),
}

impl Step {
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::SetSetting(setting, value) if *value == setting.default_value() => Phase::Dismantle,
            Self::SetTimeouts(timeouts) if *timeouts == Timeouts::default() => Phase::Dismantle,
            Self::SetSetting(..) | Self::SetTimeouts(_) => Phase::Build,
            Self::AddService(..) | Self::SetService(..) => Phase::Open,
            Self::PutDestination(_, _, destination) if destination.weight > 0 => Phase::Open,
            Self::PutDestination(..) | Self::RemoveDestination(..) | Self::RemoveService(_) => Phase::Close,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetSetting(setting, value) => write!(f, "set {} to {value}", setting.name()),
            Self::SetTimeouts(timeouts) => write!(f, "set timeouts: {timeouts}"),
            Self::AddService(key, options) => write!(f, "add service {key}: {options}"),
            Self::SetService(key, options) => write!(f, "set service {key}: {options}"),
            Self::RemoveService(key) => write!(f, "remove service {key}"),
            Self::PutDestination(key, at, destination) => write!(f, "put destination {at} of {key}: {destination}"),
            Self::RemoveDestination(key, at) => write!(f, "remove destination {at} of {key}"),
        }
    }
}
