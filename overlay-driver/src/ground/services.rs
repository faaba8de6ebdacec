//! The services that a container reaches.

use std::sync::Arc;

use overlay_core::{Backend, BackendError, ErrorKind, Owner, Shadow};
use overlay_kernel::Namespace;
use overlay_lb::State;
use overlay_lb::kernel::{Native, Nftables};

use super::seldom::Kernel;

/// Where services are balanced: in the container's namespace.
pub(super) struct Services {
    pub(super) owner: Owner,
    pub(super) container: Arc<Namespace>,
}

impl Services {
    fn nftables(&self) -> Result<Nftables, BackendError> {
        Nftables::open(&self.owner, self.container.try_clone()?)
    }
}

impl Kernel for Services {
    type State = State;
    type Table = Shadow<Nftables>;

    /// Not where there is no nf_tables.
    fn is_used(&self) -> Result<bool, BackendError> {
        match self.nftables().and_then(|mut nftables| nftables.observe()) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            found => Ok(found? != Native::default()),
        }
    }

    fn open(&self) -> Result<Self::Table, BackendError> {
        const NEEDED: &str = "services are balanced by nf_tables, which this kernel does not have";
        let nftables = self.nftables().map_err(|error| match error.kind() {
            ErrorKind::Unsupported => error.caused_by(NEEDED),
            _ => error,
        })?;
        Ok(Shadow::new(nftables))
    }
}
