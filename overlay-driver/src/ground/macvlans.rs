//! The interfaces that a container has on physical networks.

use std::sync::Arc;

use overlay_core::{BackendError, Memory, Name, Owner, Phase, Plan, ReconcileError, Shadow, Table, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::link::has_macvlans;
use overlay_link::{LocalNetworks, State};

/// Holds a container's macvlans, in its namespace and the host's. Hardly any container has one, so what holds them is opened when there is one to
/// make, or one there.
pub(super) struct Macvlans {
    owner: Owner,
    host: Arc<Namespace>,
    container: (Name, Arc<Namespace>),
    opened: Opened,
}

enum Opened {
    NotYet,
    /// There was none when it was looked.
    Needless,
    Backend(Box<Shadow<LocalNetworks>>),
}

impl Macvlans {
    /// `owner` is the container's alone.
    pub(super) const fn new(owner: Owner, host: Arc<Namespace>, container: (Name, Arc<Namespace>)) -> Self {
        Self { owner, host, container, opened: Opened::NotYet }
    }

    /// Takes all of ours from the container.
    pub(super) fn clear(mut self) -> Result<(), ReconcileError> {
        reconcile(&mut self, &State::default()).map(drop)
    }

    fn backend(&mut self) -> Result<&mut Shadow<LocalNetworks>, BackendError> {
        if !matches!(self.opened, Opened::Backend(_)) {
            let (name, container) = &self.container;
            let mut backend = LocalNetworks::open(&self.owner, self.host.try_clone()?)?;
            backend.reach(container.key(name.clone()), container.try_clone()?)?;
            self.opened = Opened::Backend(Box::new(Shadow::new(backend)));
        }
        match &mut self.opened {
            Opened::Backend(backend) => Ok(backend),
            Opened::NotYet | Opened::Needless => unreachable!("it was opened above"),
        }
    }
}

impl Table<State> for Macvlans {
    fn plan(&mut self, desired: &State) -> Result<Plan, ReconcileError> {
        if *desired == State::default() {
            if matches!(self.opened, Opened::NotYet)
                && !has_macvlans(&self.container.1).map_err(ReconcileError::Observe)?
            {
                self.opened = Opened::Needless;
            }
            if matches!(self.opened, Opened::Needless) {
                return Memory::<State>::default().plan(desired);
            }
        }
        self.backend().map_err(ReconcileError::Observe)?.plan(desired)
    }

    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
        match &mut self.opened {
            Opened::Backend(backend) => backend.run(plan, phase),
            Opened::NotYet | Opened::Needless => Ok(()),
        }
    }
}
