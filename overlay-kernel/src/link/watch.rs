//! Whether what was read is still so.

use std::collections::{BTreeMap, BTreeSet};

use overlay_core::BackendError;

use super::Site;
use super::door::Door;
use crate::netlink::{Drained, Message};
use crate::rtnl::neighbour::{self, Notice};
use crate::rtnl::route;

/// What the notices of changes are held against. The kernel keeps those of our own requests from us where it says
/// whose they are; of forwarding entries it does not, so those are expected here.
#[derive(Debug, Default)]
pub(super) struct Watch {
    running: bool,
    /// Our own changes whose notices cannot all be told from others'.
    blurred: bool,
    expected: BTreeSet<(Site, u32, Notice)>,
    /// The VXLAN devices, and ports of bridges, with which of them are the former: forwarding entries of others are nobody's
    /// but the kernel's.
    entries_on: BTreeMap<(Site, u32), bool>,
}

impl Watch {
    pub(super) fn start(&mut self) {
        self.running = true;
        self.blurred = false;
        self.expected.clear();
    }

    pub(super) fn stop(&mut self) {
        self.running = false;
    }

    /// Says which devices have entries.
    pub(super) fn entries_on(&mut self, devices: BTreeMap<(Site, u32), bool>) {
        self.entries_on = devices;
    }

    /// A change of ours that the kernel will tell of in ways we do not foresee.
    pub(super) fn blur(&mut self) {
        self.blurred = true;
    }

    /// A forwarding entry that we change.
    pub(super) fn expect(&mut self, site: &Site, index: u32, notice: Notice) {
        if self.running {
            self.expected.insert((site.clone(), index, notice));
        }
    }

    /// Whether nobody but us changed anything since the last [`start`](Self::start).
    pub(super) fn quiet(&mut self, doors: &mut BTreeMap<Site, Door>) -> Result<bool, BackendError> {
        if !self.running || self.blurred {
            return Ok(false);
        }
        let mut quiet = true;
        for (site, door) in doors {
            let Some(notices) = &mut door.notices else { return Ok(false) };
            let drained = notices.drain(|notice| quiet &= self.is_known(site, &notice));
            let drained = drained.map_err(|error| error.during(format!("hear what changed at {site}")))?;
            quiet &= drained != Drained::Overrun && door.settings_stand();
        }
        self.expected.clear();
        self.running = quiet;
        Ok(quiet)
    }

    /// Whether a notice tells nothing new: of our own doing, or of what no state holds.
    fn is_known(&self, site: &Site, message: &Message<'_>) -> bool {
        match neighbour::notice(message) {
            Ok(Some((_, Notice::Idle))) => true,
            Ok(Some((_, Notice::Neighbour))) => false,
            Ok(Some((index, notice))) if !self.concerns(site, index, notice) => true,
            Ok(Some((index, notice))) => self.expected.contains(&(site.clone(), index, notice)),
            Ok(None) => route::is_kernels(message),
            Err(_) => false,
        }
    }

    /// Whether a state holds such entries of the device.
    fn concerns(&self, site: &Site, index: u32, notice: Notice) -> bool {
        let station = matches!(notice, Notice::Placed(_) | Notice::Displaced(_) | Notice::Disowned);
        self.entries_on.get(&(site.clone(), index)).is_some_and(|vxlan| *vxlan || station)
    }
}
