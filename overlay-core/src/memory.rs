//! The in-memory backend of every state.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Backend, BackendError, Lower, Refusal, State, StepError, StepOf, Witness};

/// Holds any state in memory; lowers it to itself.
///
/// A clone is another handle on the same value, as a second process is on the same kernel: give one to what
/// reconciles and keep one to look at, or to meddle.
///
/// ```
/// use overlay_core::testing::Lamps;
/// use overlay_core::{Memory, reconcile};
///
/// let lit = Lamps::from([("hall", 80)]);
/// let view = Memory::<Lamps>::default();
/// let mut table = view.clone();
/// reconcile(&mut table, &lit)?;
/// assert_eq!(view.state(), lit);
///
/// view.update(|lamps| lamps.0.clear()); // drift
/// assert_eq!(reconcile(&mut table, &lit)?.len(), 1);
/// # Ok::<(), overlay_core::ReconcileError>(())
/// ```
pub struct Memory<S> {
    held: Arc<Mutex<Held<S>>>,
    watched: Option<u64>, // the revision up to which all changes since `watch` are this handle's own
}

struct Held<S> {
    state: S,
    revision: u64,
}

impl<S: State> Memory<S> {
    /// Holds `state`.
    pub fn new(state: S) -> Self {
        Self { held: Arc::new(Mutex::new(Held { state, revision: 0 })), watched: None }
    }

    /// A copy of what is held.
    pub fn state(&self) -> S {
        self.lock().state.clone()
    }

    /// Changes what is held behind the back of every handle, as another program would.
    pub fn update(&self, change: impl FnOnce(&mut S)) {
        let mut held = self.lock();
        held.revision += 1;
        change(&mut held.state);
    }

    fn lock(&self) -> MutexGuard<'_, Held<S>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: State> Backend for Memory<S> {
    type State = S;

    fn observe(&mut self) -> Result<S, BackendError> {
        Ok(self.state())
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        let mut held = self.lock();
        let before = held.revision;
        held.revision += 1;
        for step in steps {
            held.state.apply(step);
        }
        drop(held);
        if self.watched == Some(before) {
            self.watched = Some(before + 1);
        }
        Ok(())
    }

    fn plan_to(&mut self, desired: &S) -> Result<Vec<StepOf<Self>>, BackendError> {
        Ok(self.lock().state.plan(desired))
    }
}

impl<S: State> Witness for Memory<S> {
    fn watch(&mut self) -> Result<(), BackendError> {
        let revision = self.lock().revision;
        self.watched = Some(revision);
        Ok(())
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        Ok(self.watched == Some(self.lock().revision))
    }
}

impl<S: State> Lower<S> for Memory<S> {
    type Native = S;

    fn lower<'d>(&self, desired: &'d S) -> Result<Cow<'d, S>, Refusal> {
        Ok(Cow::Borrowed(desired))
    }
}

impl<S: State> Default for Memory<S> {
    fn default() -> Self {
        Self::new(S::default())
    }
}

impl<S> Clone for Memory<S> {
    fn clone(&self) -> Self {
        Self { held: Arc::clone(&self.held), watched: None }
    }
}

impl<S: State> fmt::Debug for Memory<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory").field(&self.lock().state).finish()
    }
}
