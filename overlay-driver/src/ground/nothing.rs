//! A table of what a place cannot have.

use overlay_core::{BackendError, ErrorKind, Memory, Phase, Plan, ReconcileError, Refusal, State, Table};

/// Holds nothing, and refuses what is something.
pub(super) struct Nothing {
    /// Why.
    reason: &'static str,
}

impl Nothing {
    pub(super) const fn because(reason: &'static str) -> Self {
        Self { reason }
    }
}

impl<S: State + Send + 'static> Table<S> for Nothing {
    fn plan(&mut self, desired: &S) -> Result<Plan, ReconcileError> {
        if *desired != S::default() {
            return Err(Refusal::new("this place", "more than nothing", self.reason).into());
        }
        Memory::<S>::default().plan(desired)
    }

    fn run(&mut self, _: &Plan, _: Phase) -> Result<(), ReconcileError> {
        Ok(())
    }
}

/// A table that this kernel cannot have, and why.
pub(super) struct Lacking(pub(super) String);

impl<S: State> Table<S> for Lacking {
    fn plan(&mut self, _: &S) -> Result<Plan, ReconcileError> {
        let error = BackendError::new(ErrorKind::Unsupported, "read tables").caused_by(self.0.clone());
        Err(ReconcileError::Observe(error))
    }

    fn run(&mut self, _: &Plan, _: Phase) -> Result<(), ReconcileError> {
        Err(ReconcileError::ForeignPlan)
    }
}
