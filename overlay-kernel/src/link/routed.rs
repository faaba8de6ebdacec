//! Where a namespace has routes to, whoever's they are.

use std::collections::BTreeSet;

use ipnet::IpNet;
use overlay_core::{BackendError, ErrorKind, IpFamily};

use crate::Namespace;
use crate::netlink::Family;
use crate::rtnl::route;

/// The destinations of all routes of a namespace, ours and others': what is in use there or reached from there. Default
/// routes, those to the machine itself, to links themselves (`fe80::/10`), and to groups are left out.
///
/// Needs no privilege in the calling thread's namespace, `CAP_SYS_ADMIN` to enter another.
///
/// # Errors
/// [`ErrorKind::Permission`] if the namespace may not be entered.
pub fn routed(namespace: &Namespace) -> Result<BTreeSet<IpNet>, BackendError> {
    let mut socket = namespace.netlink(Family::Route)?;
    let mut destinations = BTreeSet::new();
    for family in [IpFamily::V4, IpFamily::V6] {
        match socket.dump(&route::dump_all(family), route::parse_any) {
            Ok(found) => destinations.extend(found.into_iter().map(|net| net.trunc())),
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => return Err(error.during(format!("read the routes of {}", namespace.id()))),
        }
    }
    Ok(destinations)
}
