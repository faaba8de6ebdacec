//! The services that a container reaches.

use std::sync::Arc;

use overlay_core::{BackendError, ErrorKind, Name, Owner, Table};
use overlay_kernel::Namespace;
use overlay_kernel::nft::Writers;
use overlay_lb::State;

use super::balancing::Balancing;
use super::kernel::Containers;
use super::seldom::Kernel;

/// Where services are balanced: in the container's namespace, by what is chosen when there are some.
pub(super) struct Services {
    pub(super) owner: Owner,
    pub(super) container: (Name, Arc<Namespace>),
    /// Those that write tables there.
    pub(super) writers: Writers,
    /// Where the choice is written down.
    pub(super) containers: Arc<Containers>,
}

impl Kernel for Services {
    type State = State;
    type Table = Box<dyn Table<State>>;

    fn is_used(&self) -> Result<bool, BackendError> {
        Balancing::is_used(&self.owner, &self.container.1, &Balancing::asked())
    }

    fn open(&self) -> Result<Self::Table, BackendError> {
        const NEEDED: &str = "services are balanced by nf_tables or IPVS, and this kernel has neither for it";
        let (name, namespace) = &self.container;
        let Some(Balancing { table, choice }) =
            Balancing::open(&self.owner, (namespace, &self.writers), &Balancing::asked())?
        else {
            return Err(BackendError::new(ErrorKind::Unsupported, "open what balances services").caused_by(NEEDED));
        };
        self.containers.balances(name, namespace, choice.to_string());
        Ok(table)
    }
}
