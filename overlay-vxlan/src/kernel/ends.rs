//! The kernel as the holder of what is in containers, where somebody else carries the frames.

use std::borrow::Cow;

use overlay_core::{Backend, BackendError, Lower, NsKey, Owner, Refusal, StepError, StepOf, Witness};
use overlay_kernel::Namespace;
use overlay_kernel::link::{self, Links, Tap};

use super::carried;
use crate::State;

/// Holds what of one network's segments is at its ends, and no more: each container's interface, a tap with its Ethernet address,
/// addresses and routes. Whoever opens it ([`TapQueue`](overlay_kernel::TapQueue)) carries its frames, and is told the segments by other
/// ways. There is no VXLAN device.
///
/// A virtual machine's tap is in the network's own namespace, as in a [`Sandbox`](super::Sandbox), and is the machine's to open. As two programs
/// cannot each have an end of one, a bridge of its own leads from it to another tap ([`names::joint`](crate::names::joint),
/// [`names::port`](crate::names::port)), by which its frames are carried: all but those for the machine. Beside it is a tap that has the gateway's addresses
/// ([`names::bridge`](crate::names::bridge)), for what listens there: machines ask it for names.
///
/// An interface in the host's namespace is one of the host's own, as of a [`Sandbox`](super::Sandbox). Taps stay until they are removed: whoever opens
/// one again, after a restart, goes on where the last ended.
///
/// It refuses by name taps named as another device, and overlapping subnets of two segments.
#[derive(Debug)]
pub struct Ends {
    links: Links,
    host: NsKey,
    tap: Tap,
}

impl Ends {
    /// Of one network, whose owner is its alone ([`Links::open`]) and whose namespace is `home`, on the host of this namespace.
    ///
    /// # Errors
    /// As [`Sandbox::open`](super::Sandbox::open).
    pub fn open(owner: &Owner, home: Namespace, (key, host): (NsKey, Namespace)) -> Result<Self, BackendError> {
        let mut links = Links::open(owner, home)?;
        links.reach(key.clone(), host)?;
        Ok(Self { links, host: key, tap: Tap::new() })
    }

    /// The same with machines' taps that are like this, as [`Sandbox::with_taps`](super::Sandbox::with_taps).
    #[must_use]
    pub fn with_taps(self, tap: Tap) -> Self {
        Self { tap, ..self }
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
        if *key != self.host {
            self.links.leave(key);
        }
    }
}

impl Lower<State> for Ends {
    type Native = link::State;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, link::State>, Refusal> {
        overlay_core::State::check(desired)?;
        carried::links(desired, &self.host, self.tap).map(Cow::Owned)
    }
}

impl Backend for Ends {
    type State = link::State;

    /// Settings are not ours: they are left out.
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
