//! Devices of namespaces that are somebody else's: looked at, hardly touched.

use std::collections::BTreeSet;
use std::net::IpAddr;

use overlay_core::{BackendError, ErrorKind, IfName, IpFamily, Mtu};

use crate::Namespace;
use crate::netlink::{Family, Requests, Socket};
use crate::rtnl::{address, link, link_request, route};

/// The names of a namespace's devices, ours and others'.
///
/// # Errors
/// [`ErrorKind::Permission`] if it may not be entered.
pub fn devices(namespace: &Namespace) -> Result<BTreeSet<IfName>, BackendError> {
    let mut socket = namespace.netlink(Family::Route)?;
    let found = socket.dump(&link::dump(), link::parse);
    let found = found.map_err(|error| error.during(format!("read the devices of {}", namespace.id())))?;
    Ok(found.into_iter().filter_map(|link| link.name).collect())
}

/// Whether a namespace has a macvlan device, ours or another's.
///
/// # Errors
/// As [`devices`].
pub fn has_macvlans(namespace: &Namespace) -> Result<bool, BackendError> {
    let mut socket = namespace.netlink(Family::Route)?;
    let found = socket.dump(&link::dump(), link::parse);
    let found = found.map_err(|error| error.during(format!("read the devices of {}", namespace.id())))?;
    Ok(found.iter().any(|link| matches!(link.data, link::Data::Macvlan { .. })))
}

/// The device that has an address, and its MTU: an underlay, say. `None` if no device has it.
///
/// # Errors
/// As [`devices`].
pub fn device_with(namespace: &Namespace, address: IpAddr) -> Result<Option<(IfName, Mtu)>, BackendError> {
    device_by(&mut namespace.netlink(Family::Route)?, address, &format!("look for {address} in {}", namespace.id()))
}

/// The same in the namespace that the caller is in: reading that takes no privilege, as entering it would.
///
/// # Errors
/// As [`devices`], but for want of a privilege.
pub fn own_device_with(address: IpAddr) -> Result<Option<(IfName, Mtu)>, BackendError> {
    let doing = format!("look for {address}");
    let mut socket = Socket::open(Family::Route).map_err(|error| error.during(doing.clone()))?;
    device_by(&mut socket, address, &doing)
}

fn device_by(socket: &mut Socket, address: IpAddr, doing: &str) -> Result<Option<(IfName, Mtu)>, BackendError> {
    let addresses = socket.dump(&address::dump(), address::parse).map_err(|error| error.during(doing.to_owned()))?;
    let Some(index) = addresses.into_iter().find(|found| found.address == address).map(|found| found.index) else {
        return Ok(None);
    };
    let links = socket.dump(&link::dump(), link::parse).map_err(|error| error.during(doing.to_owned()))?;
    let link = links.into_iter().find(|link| link.index == index);
    Ok(link.and_then(|link| Some((link.name?, Mtu::new(link.mtu.min(Mtu::MAX.get())).ok()?))))
}

/// The devices by which a namespace's default routes of a family leave: those it reaches the outside by.
///
/// # Errors
/// As [`devices`].
pub fn uplinks(namespace: &Namespace, family: IpFamily) -> Result<BTreeSet<IfName>, BackendError> {
    let mut socket = namespace.netlink(Family::Route)?;
    let doing = || format!("read the default routes of {}", namespace.id());
    let indices: BTreeSet<u32> = match socket.dump(&route::dump_all(family), route::parse_way_out) {
        Ok(found) => found.into_iter().flatten().collect(),
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(BTreeSet::new()),
        Err(error) => return Err(error.during(doing())),
    };
    let links = socket.dump(&link::dump(), link::parse).map_err(|error| error.during(doing()))?;
    Ok(links.into_iter().filter(|link| indices.contains(&link.index)).filter_map(|link| link.name).collect())
}

/// Raises the loopback device, without which nobody in the namespace reaches an address of its own. It stays up.
///
/// # Errors
/// As [`devices`].
pub fn raise_loopback(namespace: &Namespace) -> Result<(), BackendError> {
    let mut request = Requests::default();
    link_request::raise(&mut request, LOOPBACK);
    let raised = namespace.netlink(Family::Route)?.request(&request);
    raised.map_err(|error| error.during(format!("raise the loopback device of {}", namespace.id())))
}

/// Its index in every namespace.
const LOOPBACK: u32 = 1;
