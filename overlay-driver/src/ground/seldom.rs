//! A table that hardly any place needs.

use overlay_core::{BackendError, Memory, Phase, Plan, ReconcileError, State, Table, reconcile};

/// Is opened when there is something to hold, or something there. Until then it has no socket, and reads nothing twice.
pub(super) struct Seldom<K: Kernel> {
    kernel: K,
    opened: Opened<K::Table>,
}

/// What holds such a table's state.
pub(super) trait Kernel: Send {
    type State: State + 'static;
    type Table: Table<Self::State>;

    /// Whether it holds something of ours.
    fn is_used(&self) -> Result<bool, BackendError>;

    fn open(&self) -> Result<Self::Table, BackendError>;
}

enum Opened<T> {
    NotYet,
    /// There was nothing when it was looked.
    Needless,
    Table(T),
}

impl<K: Kernel> Seldom<K> {
    pub(super) const fn new(kernel: K) -> Self {
        Self { kernel, opened: Opened::NotYet }
    }

    /// Takes all of ours away.
    pub(super) fn clear(mut self) -> Result<(), ReconcileError> {
        reconcile(&mut self, &K::State::default()).map(drop)
    }

    fn table(&mut self) -> Result<&mut K::Table, BackendError> {
        if !matches!(self.opened, Opened::Table(_)) {
            self.opened = Opened::Table(self.kernel.open()?);
        }
        match &mut self.opened {
            Opened::Table(table) => Ok(table),
            Opened::NotYet | Opened::Needless => unreachable!("it was opened above"),
        }
    }

    fn is_needless(&mut self) -> Result<bool, BackendError> {
        if matches!(self.opened, Opened::NotYet) && !self.kernel.is_used()? {
            self.opened = Opened::Needless;
        }
        Ok(matches!(self.opened, Opened::Needless))
    }
}

impl<K: Kernel> Table<K::State> for Seldom<K> {
    fn plan(&mut self, desired: &K::State) -> Result<Plan, ReconcileError> {
        if *desired == K::State::default() && self.is_needless().map_err(ReconcileError::Observe)? {
            return Memory::<K::State>::default().plan(desired);
        }
        self.table().map_err(ReconcileError::Observe)?.plan(desired)
    }

    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
        match &mut self.opened {
            Opened::Table(table) => table.run(plan, phase),
            Opened::NotYet | Opened::Needless => Ok(()),
        }
    }
}
