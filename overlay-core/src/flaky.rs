//! A backend that fails as it is told to.

use std::borrow::Cow;

use crate::{Applied, Backend, BackendError, ErrorKind, Lower, ReconcileError, Refusal, StepError, StepOf, Witness};

/// Makes a backend fail in all the ways one can: before anything, between two steps, or with its reply lost.
///
/// `choose` is asked before every call; [`testing::seeded_faults`](crate::testing::seeded_faults) (feature
/// `testing`) chooses by a seed.
///
/// ```
/// use overlay_core::testing::Lamps;
/// use overlay_core::{Applied, Call, Fault, Flaky, Memory, reconcile};
///
/// let lit = Lamps::from([("hall", 80)]);
/// let memory = Memory::<Lamps>::default();
/// let mut table = Flaky::new(memory.clone(), |call| match call {
///     Call::Apply { .. } => Some(Fault::LoseReply { after: 1 }),
///     Call::Read => None,
/// });
/// let error = reconcile(&mut table, &lit).unwrap_err();
/// assert_eq!(error.applied(), Applied::Unknown);
/// assert_eq!(memory.state(), lit); // it was done all the same
/// ```
#[derive(Debug)]
pub struct Flaky<B, F> {
    inner: B,
    choose: F,
}

/// A call that may be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Reading or planning, or asking for a witness.
    Read,
    /// Applying this many steps.
    Apply {
        /// How many.
        steps: usize,
    },
}

/// How a call fails. Reading fails alike for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and the error says so.
    Refuse,
    /// The first `after` steps are done, and the error says so.
    Stop {
        /// How many, at most all but the last.
        after: usize,
    },
    /// The first `after` steps are done; the error says that nobody knows.
    LoseReply {
        /// How many, at most all.
        after: usize,
    },
}

impl<B: Backend, F: FnMut(Call) -> Option<Fault> + Send> Flaky<B, F> {
    /// Asks `choose` before every call of `inner`.
    pub const fn new(inner: B, choose: F) -> Self {
        Self { inner, choose }
    }

    fn read<T>(&mut self, read: impl FnOnce(&mut B) -> Result<T, BackendError>) -> Result<T, BackendError> {
        match (self.choose)(Call::Read) {
            Some(_) => Err(injected("read")),
            None => read(&mut self.inner),
        }
    }
}

impl<B: Backend, F: FnMut(Call) -> Option<Fault> + Send> Backend for Flaky<B, F> {
    type State = B::State;

    fn observe(&mut self) -> Result<Self::State, BackendError> {
        self.read(B::observe)
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        let (applied, after) = match (self.choose)(Call::Apply { steps: steps.len() }) {
            None => return self.inner.apply(steps),
            Some(Fault::Refuse) => (Applied::Nothing, 0),
            Some(Fault::Stop { after }) => (Applied::Before, after.min(steps.len().saturating_sub(1))),
            Some(Fault::LoseReply { after }) => (Applied::Unknown, after.min(steps.len())),
        };
        if after > 0 {
            self.inner.apply(&steps[..after])?;
        }
        let at = after.min(steps.len().saturating_sub(1));
        Err(StepError { at, applied, source: injected("apply") })
    }

    fn plan_to(&mut self, desired: &Self::State) -> Result<Vec<StepOf<Self>>, BackendError> {
        self.read(|inner| inner.plan_to(desired))
    }
}

impl<B: Witness, F: FnMut(Call) -> Option<Fault> + Send> Witness for Flaky<B, F> {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.read(B::watch)
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        self.read(B::undisturbed)
    }
}

impl<D, B, F> Lower<D> for Flaky<B, F>
where
    B: Backend + Lower<D, Native = <B as Backend>::State>,
    F: FnMut(Call) -> Option<Fault> + Send,
{
    type Native = B::State;

    fn lower<'d>(&self, desired: &'d D) -> Result<Cow<'d, Self::Native>, Refusal> {
        self.inner.lower(desired)
    }

    fn plan_for(&mut self, desired: &D) -> Result<Vec<StepOf<Self>>, ReconcileError> {
        match (self.choose)(Call::Read) {
            Some(_) => Err(ReconcileError::Observe(injected("read"))),
            None => self.inner.plan_for(desired),
        }
    }
}

fn injected(doing: &'static str) -> BackendError {
    BackendError::new(ErrorKind::Timeout, doing).caused_by("a fault was injected")
}
