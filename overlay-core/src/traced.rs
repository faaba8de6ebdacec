//! Telling what a backend is asked and what it answers.

use std::borrow::Cow;
use std::fmt;

use crate::{Amended, Backend, BackendError, Lower, Memo, ReconcileError, Refusal, State, StepError, StepOf, Witness};

/// Hands every call of a backend, with its outcome, to a function: a logger, a recorder, a counter.
///
/// ```
/// use overlay_core::testing::Lamps;
/// use overlay_core::{Memory, Traced, reconcile};
///
/// let mut log = Vec::new();
/// let mut table = Traced::new(Memory::<Lamps>::default(), |call| log.push(call.to_string()));
/// reconcile(&mut table, &Lamps::from([("hall", 80)]))?;
/// assert_eq!(log, ["planned 1 step", "applied: set hall to 80 %"]);
/// # Ok::<(), overlay_core::ReconcileError>(())
/// ```
#[derive(Debug)]
pub struct Traced<B, F> {
    inner: B,
    tell: F,
}

impl<B: Backend, F: FnMut(Traces<'_, B>) + Send> Traced<B, F> {
    /// Calls `tell` after every call of `inner`.
    pub const fn new(inner: B, tell: F) -> Self {
        Self { inner, tell }
    }

    fn seen<T>(
        &mut self,
        result: Result<T, BackendError>,
        good: impl FnOnce(&T) -> Traces<'_, B>,
    ) -> Result<T, BackendError> {
        match &result {
            Ok(value) => (self.tell)(good(value)),
            Err(error) => (self.tell)(Trace::ReadFailed(error)),
        }
        result
    }
}

/// The [`Trace`]s of a backend.
pub type Traces<'a, B> = Trace<'a, <B as Backend>::State>;

/// One call and its outcome. Its text is one line, but for [`Applied`](Self::Applied): one per step.
#[derive(Debug)]
#[non_exhaustive]
pub enum Trace<'a, S: State> {
    /// The state was read.
    Observed(&'a S),
    /// A plan was made.
    Planned(&'a [S::Step]),
    /// The state could not be read.
    ReadFailed(&'a BackendError),
    /// All these steps are in effect.
    Applied(&'a [S::Step]),
    /// One of these steps failed.
    ApplyFailed(&'a [S::Step], &'a StepError),
}

impl<S: State> fmt::Display for Trace<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Observed(_) => f.write_str("observed"),
            Self::Planned([_]) => f.write_str("planned 1 step"),
            Self::Planned(steps) => write!(f, "planned {} steps", steps.len()),
            Self::ReadFailed(error) => write!(f, "not read: {error}"),
            Self::Applied(steps) => {
                f.write_str("applied:")?;
                let separator = if steps.len() == 1 { " " } else { "\n  " };
                steps.iter().try_for_each(|step| write!(f, "{separator}{step}"))
            }
            Self::ApplyFailed(steps, error) => match steps.get(error.at) {
                Some(step) => write!(f, "{error}: {step}: {}", error.source),
                None => write!(f, "{error}: {}", error.source),
            },
        }
    }
}

impl<B: Backend, F: FnMut(Traces<'_, B>) + Send> Backend for Traced<B, F> {
    type State = B::State;

    fn observe(&mut self) -> Result<Self::State, BackendError> {
        let result = self.inner.observe();
        self.seen(result, |state| Trace::Observed(state))
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        let result = self.inner.apply(steps);
        (self.tell)(match &result {
            Ok(()) => Trace::Applied(steps),
            Err(error) => Trace::ApplyFailed(steps, error),
        });
        result
    }

    fn plan_to(&mut self, desired: &Self::State) -> Result<Vec<StepOf<Self>>, BackendError> {
        let result = self.inner.plan_to(desired);
        self.seen(result, |steps| Trace::Planned(steps))
    }
}

impl<B: Witness, F: FnMut(Traces<'_, B>) + Send> Witness for Traced<B, F> {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.inner.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        self.inner.undisturbed()
    }
}

impl<D, B, F> Lower<D> for Traced<B, F>
where
    B: Backend + Lower<D, Native = <B as Backend>::State>,
    F: FnMut(Traces<'_, B>) + Send,
{
    type Native = B::State;

    fn lower<'d>(&self, desired: &'d D) -> Result<Cow<'d, Self::Native>, Refusal> {
        self.inner.lower(desired)
    }

    fn remember(&self, desired: &D) -> Option<Memo> {
        self.inner.remember(desired)
    }

    fn amend(&self, memo: &Memo, native: &Self::Native, desired: &D) -> Option<Amended<StepOf<Self>>> {
        self.inner.amend(memo, native, desired)
    }

    fn plan_for(&mut self, desired: &D) -> Result<Vec<StepOf<Self>>, ReconcileError> {
        let result = self.inner.plan_for(desired);
        match &result {
            Ok(steps) => (self.tell)(Trace::Planned(steps)),
            Err(ReconcileError::Observe(error)) => (self.tell)(Trace::ReadFailed(error)),
            Err(_) => {} // it was not asked for anything
        }
        result
    }
}
