//! What a native state must be for the kernel to hold exactly it.

use std::fmt::Display;
use std::net::SocketAddr;

use overlay_core::{IpFamily, Refusal, is_host_address};

use super::{Destination, Forward, Key, Service, State, Timeouts};

/// Refuses what no kernel could hold as it stands, by name.
pub(super) fn state(state: &State) -> Result<(), Refusal> {
    let Timeouts { tcp, tcp_fin, udp } = state.timeouts;
    if let Some(seconds) = [tcp, tcp_fin, udp].into_iter().find(|seconds| !(1..=MAX_SECONDS).contains(seconds)) {
        return Err(Refusal::new("IPVS timeouts", format!("{seconds} s"), "they are 1 s to 2,147,483 s"));
    }
    for (setting, value) in &state.settings {
        if *value > 3 || *value == setting.default_value() {
            let reason = "a setting is 0 to 3, and not its default where it is listed";
            return Err(Refusal::new(setting.name(), value.to_string(), reason));
        }
    }
    state.services.iter().try_for_each(|(key, service)| self::service(key, service))
}

fn refuse(key: &Key, wanted: impl Display, reason: &'static str) -> Refusal {
    Refusal::new(format!("service {key}"), wanted.to_string(), reason)
}

fn service(key: &Key, service: &Service) -> Result<(), Refusal> {
    match (key, service.options.persistence) {
        (Key::Mark { mark: 0, .. }, _) => return Err(refuse(key, "mark 0", "that is no mark")),
        (Key::At { at, .. }, _) if !is_host_address(at.ip()) || is_scoped(at) => {
            return Err(refuse(key, at, "it is at an address that one host can have"));
        }
        (Key::At { at, .. }, None) if at.port() == 0 => {
            return Err(refuse(key, "port 0", "all ports are a persistent service's, or one's of marked packets"));
        }
        (_, Some(seconds)) if !(1..=MAX_SECONDS).contains(&seconds) => {
            return Err(refuse(key, format!("persistence {seconds} s"), "it is 1 s to 2,147,483 s"));
        }
        _ => {}
    }
    service.destinations.iter().try_for_each(|(at, it)| destination(key, at, it))
}

fn destination(key: &Key, at: &SocketAddr, destination: &Destination) -> Result<(), Refusal> {
    let mixed = IpFamily::of(at.ip()) != key.family();
    if mixed && destination.forward != Forward::Tunnel {
        return Err(refuse(key, at, "only a tunnel leads into the other family"));
    }
    if !is_host_address(at.ip()) || is_scoped(at) {
        return Err(refuse(key, at, "a destination is at an address that one host can have"));
    }
    let same_port = match key {
        Key::At { at: service, .. } => service.port() == at.port(),
        Key::Mark { .. } => true,
    };
    match (destination.forward, key) {
        (Forward::Tunnel | Forward::Direct, _) if !same_port => {
            Err(refuse(key, at, "a packet that is not translated keeps its port"))
        }
        _ if destination.weight > MAX_WEIGHT => Err(refuse(key, destination, "a weight is 65,535 at most")),
        _ => Ok(()),
    }
}

/// Whether an address means something only together with an interface, or a flow: more than the kernel keeps.
const fn is_scoped(at: &SocketAddr) -> bool {
    matches!(at, SocketAddr::V6(at) if at.scope_id() != 0 || at.flowinfo() != 0)
}

const MAX_SECONDS: u32 = 2_147_483; // as many as fit the kernel's ticks
const MAX_WEIGHT: u32 = 65_535;
