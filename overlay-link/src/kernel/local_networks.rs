//! The kernel as the holder of local networks.

use std::borrow::Cow;

use overlay_core::{Backend, BackendError, Lower, NsKey, Owner, Refusal, StepError, StepOf, Witness};
use overlay_kernel::Namespace;
use overlay_kernel::link::{self, Links, Tap};

use super::obstacle::obstacles;
use super::{Obstacle, lower};
use crate::State;

/// Holds the local networks of a host, between its namespace and those of containers.
///
/// A bridge's ports are veth pairs, or taps for virtual machines. Nothing is learned: who is where is said by static entries. Of the host only the
/// bridges and what is on them is touched; its forwarding switches stay as they are, see the crate page.
///
/// It refuses by name more than 1,023 ports of one bridge. A name, an Ethernet address or a parent that another program holds is a
/// [`Conflict`](overlay_core::ErrorKind::Conflict) of the step that needs it.
///
/// It works in namespaces as [`Links`] does, and needs the same capabilities.
#[derive(Debug)]
pub struct LocalNetworks {
    host: Namespace,
    links: Links,
    tap: Tap,
}

impl LocalNetworks {
    /// Works in `host`. What else works there with links needs an owner of its own ([`Links::open`]).
    ///
    /// # Errors
    /// [`ErrorKind::Permission`](overlay_core::ErrorKind::Permission) if it may not be entered.
    pub fn open(owner: &Owner, host: Namespace) -> Result<Self, BackendError> {
        let links = Links::open(owner, host.try_clone()?)?;
        Ok(Self { host, links, tap: Tap::new() })
    }

    /// The same with taps that are like this, where they would be of one queue and for root alone. Those that are there and unlike it are made
    /// anew, which cuts off who has them open.
    #[must_use]
    pub fn with_taps(self, tap: Tap) -> Self {
        Self { tap, ..self }
    }

    /// Works in a container's namespace too, under the name that states have for it. Of a [`Shadow`](overlay_core::Shadow), by
    /// [`inner_mut`](overlay_core::Shadow::inner_mut).
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

    /// What of the host is in the way of what `state` forwards.
    ///
    /// # Errors
    /// If its routes or switches cannot be read.
    pub fn obstacles(&self, state: &State) -> Result<Vec<Obstacle>, BackendError> {
        obstacles(&self.host, state)
    }
}

impl Lower<State> for LocalNetworks {
    type Native = link::State;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, link::State>, Refusal> {
        overlay_core::State::check(desired)?;
        lower::links(desired, self.tap).map(Cow::Owned)
    }
}

impl Backend for LocalNetworks {
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

impl Witness for LocalNetworks {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.links.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        self.links.undisturbed()
    }
}
