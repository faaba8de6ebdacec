//! The kernel as the holder of what is in containers, where somebody else carries the frames.

use std::borrow::Cow;

use overlay_core::{Backend, BackendError, Lower, NsKey, Owner, Refusal, StepError, StepOf, Witness};
use overlay_kernel::Namespace;
use overlay_kernel::link::{self, Links, Tap};

use super::lower;
use crate::State;

/// Holds what of one network's segments is in containers, and no more: each endpoint's interface, a tap with its Ethernet address,
/// addresses and routes. Whoever opens it ([`TapQueue`](overlay_kernel::TapQueue)) carries its frames, and is told the segments by other
/// ways.
///
/// There is no namespace for the network, no bridge and no VXLAN device. An interface in the host's namespace is one of the host's own, as
/// of a [`Sandbox`](super::Sandbox). Taps stay until they are removed: whoever opens one again, after a restart, goes on where the last ended.
///
/// It refuses by name a port that is a virtual machine's tap: two programs cannot each have an end of one. And overlapping subnets of two
/// segments.
#[derive(Debug)]
pub struct Ends {
    links: Links,
    host: NsKey,
}

impl Ends {
    /// Of one network, whose owner is its alone ([`Links::open`]), on the host of this namespace.
    ///
    /// # Errors
    /// As [`Links::open`].
    pub fn open(owner: &Owner, (key, host): (NsKey, Namespace)) -> Result<Self, BackendError> {
        Ok(Self { links: Links::open(owner, host)?, host: key })
    }

    /// Works in a container's namespace too, under the name that states have for it.
    ///
    /// # Errors
    /// As [`Links::reach`].
    pub fn reach(&mut self, key: NsKey, container: Namespace) -> Result<(), BackendError> {
        self.links.reach(key, container)
    }

    /// Works in a container's namespace no more. What is in it stays, out of sight.
    pub fn leave(&mut self, key: &NsKey) {
        self.links.leave(key);
    }
}

impl Lower<State> for Ends {
    type Native = link::State;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, link::State>, Refusal> {
        overlay_core::State::check(desired)?;
        lower::ends(desired, &self.host, Tap::new()).map(Cow::Owned)
    }
}

impl Backend for Ends {
    type State = link::State;

    /// The host's settings are not ours: they are left out.
    fn observe(&mut self) -> Result<link::State, BackendError> {
        let mut state = self.links.observe()?;
        state.settings.clear();
        Ok(state)
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        self.links.apply(steps)
    }
}

impl Witness for Ends {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.links.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        self.links.undisturbed()
    }
}
