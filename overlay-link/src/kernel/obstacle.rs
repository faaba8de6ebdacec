//! What of the host is in the way of packets that our bridges forward.

use std::collections::BTreeSet;
use std::fmt;

use overlay_core::{BackendError, ErrorKind, IfName, IpFamily};
use overlay_kernel::link::uplinks;
use overlay_kernel::{Namespace, Sysctl};

use crate::State;

/// A switch of the host's that drops what comes back to containers. It is reported and never changed: a host that forwards is a router, which
/// its administrator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// What comes in by an interface that default routes of IPv4 leave by is not forwarded.
    Ipv4 {
        /// The interface.
        interface: IfName,
    },
    /// IPv6 is not forwarded at all.
    Ipv6 {
        /// The interfaces that default routes of IPv6 leave by. Where forwarding is on they take routers' advertisements only if told so, and may
        /// have their routes from those.
        uplinks: BTreeSet<IfName>,
    },
}

impl Obstacle {
    /// The commands that mend it until the host is started again, for a shell of root.
    pub fn remedy(&self) -> String {
        match self {
            Self::Ipv4 { interface } => set("ipv4", interface.as_str(), "forwarding", 1),
            Self::Ipv6 { uplinks } => {
                let heard = uplinks.iter().map(|interface| set("ipv6", interface.as_str(), "accept_ra", 2));
                heard.chain([set("ipv6", "all", "forwarding", 1)]).collect::<Vec<_>>().join("; ")
            }
        }
    }
}

/// The names of interfaces have no slashes or spaces, but may have what a shell reads.
fn set(family: &str, interface: &str, setting: &str, value: u8) -> String {
    let quoted = interface.replace('\'', r"'\''");
    format!("echo {value} > '/proc/sys/net/{family}/conf/{quoted}/{setting}'")
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4 { interface } => {
                write!(f, "the host does not forward IPv4 packets that come in by {interface}")
            }
            Self::Ipv6 { .. } => f.write_str("the host does not forward IPv6 packets"),
        }?;
        write!(f, ": {}", self.remedy())
    }
}

/// What is in the way of what `state` forwards.
pub(super) fn obstacles(host: &Namespace, state: &State) -> Result<Vec<Obstacle>, BackendError> {
    let routed = state.bridges.values().filter(|bridge| bridge.routed);
    let families: BTreeSet<_> =
        routed.flat_map(|bridge| &bridge.addresses).map(|net| IpFamily::of(net.addr())).collect();
    let mut obstacles = Vec::new();
    for family in families {
        let uplinks = uplinks(host, family)?;
        match family {
            IpFamily::V4 => {
                for interface in uplinks {
                    if is_off(host, &Sysctl::of_interface(family, &interface, "forwarding")?)? {
                        obstacles.push(Obstacle::Ipv4 { interface });
                    }
                }
            }
            IpFamily::V6 if uplinks.is_empty() => {}
            IpFamily::V6 => {
                if is_off(host, &Sysctl::new(["net", "ipv6", "conf", "all", "forwarding"])?)? {
                    obstacles.push(Obstacle::Ipv6 { uplinks });
                }
            }
        }
    }
    Ok(obstacles)
}

/// A switch that is not there is not in the way: the device has just gone, or the kernel has no IPv6.
fn is_off(host: &Namespace, switch: &Sysctl) -> Result<bool, BackendError> {
    match host.run(|| switch.read())? {
        Err(error) if error.kind() == ErrorKind::Gone => Ok(false),
        value => Ok(value? == "0"),
    }
}
