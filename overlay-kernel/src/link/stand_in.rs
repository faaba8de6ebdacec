//! Devices that stand in for an interface of the underlay.

use std::collections::BTreeMap;

use nix::libc::{EBUSY, EEXIST};
use overlay_core::{BackendError, ErrorKind, IfName};

use super::Site;
use super::door::Door;
use super::links::{Links, Mark};
use crate::netlink::NetlinkError;
use crate::rtnl::link_request;

/// A VXLAN device's forwarding entry names the interface that datagrams leave by, by its index in the namespace of the
/// socket. The kernel takes it only if the namespace of the *device* has some device of that index too. Where it has none,
/// one stands in until the entries are made. It has our mark: left over after a kill, it goes as what nobody wants.
#[derive(Debug, Default)]
pub(super) struct StandIns {
    /// Those who stand in, and `None` where nobody has to.
    of: BTreeMap<(Site, u32), Option<IfName>>,
}

impl StandIns {
    /// Sees to it that a namespace has a device of that index; says whether one had to be made.
    pub(super) fn call(
        &mut self,
        door: &mut Door,
        (site, index): (&Site, u32),
        mark: Mark,
    ) -> Result<bool, BackendError> {
        if self.of.contains_key(&(site.clone(), index)) {
            return Ok(false);
        }
        let name = if door.has_index(index)? { None } else { make(door, index, mark)? };
        self.of.insert((site.clone(), index), name);
        Ok(name.is_some())
    }

    /// Lets them go. One that does not is seen, and removed, next time.
    pub(super) fn dismiss(&mut self, links: &mut Links) {
        for ((site, index), name) in std::mem::take(&mut self.of) {
            let (Some(name), Ok(door)) = (name, links.door(&site)) else { continue };
            if door.own(name).is_ok_and(|found| found.is_some_and(|found| found.index == index)) {
                let _ = door.socket.request(&link_request::remove(index));
            }
            door.forget(name);
        }
    }
}

/// `None` if another device got the index meanwhile, which is as good.
fn make(door: &mut Door, index: u32, mark: Mark) -> Result<Option<IfName>, BackendError> {
    let text = format!("in-{index}");
    let doing = || format!("make link {text}, to stand in for an interface of the underlay");
    let name = IfName::new(&text).map_err(|error| BackendError::new(ErrorKind::Invalid, doing()).caused_by(error))?;
    match door.socket.request(&link_request::stand_in(index, name, mark.group())) {
        Err(error) if is_taken(&error) && door.has_index(index)? => Ok(None),
        other => other.map(|()| Some(name)).map_err(|error| error.during(doing())),
    }
}

fn is_taken(error: &NetlinkError) -> bool {
    matches!(error.errno(), Some(EBUSY | EEXIST))
}
