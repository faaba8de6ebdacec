//! The interfaces that a container has on physical networks.

use std::sync::Arc;

use overlay_core::{BackendError, Name, Owner, Shadow};
use overlay_kernel::Namespace;
use overlay_kernel::link::has_macvlans;
use overlay_link::{LocalNetworks, State};

use super::seldom::Kernel;

/// Where a container's macvlans are: in its namespace and the host's.
pub(super) struct Macvlans {
    /// The container's alone.
    pub(super) owner: Owner,
    pub(super) host: Arc<Namespace>,
    pub(super) container: (Name, Arc<Namespace>),
}

impl Kernel for Macvlans {
    type State = State;
    type Table = Shadow<LocalNetworks>;

    fn is_used(&self) -> Result<bool, BackendError> {
        has_macvlans(&self.container.1)
    }

    fn open(&self) -> Result<Self::Table, BackendError> {
        let (name, container) = &self.container;
        let mut networks = LocalNetworks::open(&self.owner, self.host.try_clone()?)?;
        networks.reach(container.key(name.clone()), container.try_clone()?)?;
        Ok(Shadow::new(networks))
    }
}
