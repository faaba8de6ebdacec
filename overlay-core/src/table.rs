//! A place for values, whatever lies beneath; plans as values; reconciliation.

use std::any::Any;
use std::fmt;

use crate::{Applied, Backend, BackendError, ErrorKind, Lower, Phase, Refusal, State, StepError};

/// Holds one value of type `D`, whatever lies beneath: everything that lowers `D` and is a backend of the result is one.
///
/// Object-safe, so that a place holds `Box<dyn Table<D>>` and does not care whether memory or a kernel is beneath. To
/// get one, implement [`Backend`] and [`Lower`], not this.
///
/// ```
/// use overlay_core::testing::Lamps;
/// use overlay_core::{Memory, Phase, Table};
///
/// let mut table: Box<dyn Table<Lamps>> = Box::new(Memory::<Lamps>::default());
/// let plan = table.plan(&Lamps::from([("hall", 80)]))?;
/// for (phase, step) in plan.steps() {
///     assert_eq!((phase, step.to_string()), (Phase::Build, "set hall to 80 %".to_owned()));
/// }
/// for phase in Phase::ALL { // what `reconcile` does; a place with many tables runs a phase of each, then the next
///     table.run(&plan, phase)?;
/// }
/// assert!(table.plan(&Lamps::from([("hall", 80)]))?.is_empty());
/// # Ok::<(), overlay_core::ReconcileError>(())
/// ```
pub trait Table<D>: Send {
    /// Lowers `desired`, compares it with what is there, and says what has to be done. Changes nothing: the dry run.
    ///
    /// # Errors
    /// [`Refused`](ReconcileError::Refused) or [`Observe`](ReconcileError::Observe).
    fn plan(&mut self, desired: &D) -> Result<Plan, ReconcileError>;

    /// Carries out the steps of one phase of a plan that this table made; nothing if it has none in that phase.
    ///
    /// # Errors
    /// [`Apply`](ReconcileError::Apply) or [`ForeignPlan`](ReconcileError::ForeignPlan).
    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError>;
}

impl<D, T> Table<D> for T
where
    T: Lower<D> + Backend<State = <T as Lower<D>>::Native>,
{
    fn plan(&mut self, desired: &D) -> Result<Plan, ReconcileError> {
        Ok(Plan::new::<T::State>(self.plan_for(desired)?))
    }

    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
        let steps = plan.typed::<T::State>().ok_or(ReconcileError::ForeignPlan)?;
        let (first, steps) = steps.of(phase);
        if steps.is_empty() {
            return Ok(());
        }
        self.apply(steps).map_err(|error| ReconcileError::Apply {
            step: steps.get(error.at).map(ToString::to_string).unwrap_or_default(),
            phase,
            error: StepError { at: first + error.at, ..error },
        })
    }
}

impl<D> Table<D> for Box<dyn Table<D> + '_> {
    fn plan(&mut self, desired: &D) -> Result<Plan, ReconcileError> {
        (**self).plan(desired)
    }

    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
        (**self).run(plan, phase)
    }
}

/// Brings what is there to `desired`: plans, then runs all phases. Returns what was done; empty if nothing had to be.
///
/// The same call creates, repairs drift and adopts after a restart. When it fails, calling it again goes on from what is there.
///
/// ```
/// use overlay_core::testing::Lamps;
/// use overlay_core::{Memory, reconcile};
///
/// let mut table = Memory::<Lamps>::default();
/// let lit = Lamps::from([("hall", 80)]);
/// let done = reconcile(&mut table, &lit)?;
/// assert_eq!(done.to_string(), "build      set hall to 80 %\n");
/// assert!(reconcile(&mut table, &lit)?.is_empty());
/// # Ok::<(), overlay_core::ReconcileError>(())
/// ```
pub fn reconcile<D>(table: &mut (impl Table<D> + ?Sized), desired: &D) -> Result<Plan, ReconcileError> {
    let plan = table.plan(desired)?;
    for phase in Phase::ALL {
        table.run(&plan, phase)?;
    }
    Ok(plan)
}

/// The steps that a table found necessary. Shown one step a line, for dry runs.
pub struct Plan(Box<dyn Steps>);

impl Plan {
    pub(crate) fn new<S: State>(steps: Vec<S::Step>) -> Self {
        Self(Box::new(Typed::<S>(crate::in_phases::<S>(steps))))
    }

    fn typed<S: State>(&self) -> Option<&Typed<S>> {
        let steps: &dyn Any = &*self.0;
        steps.downcast_ref()
    }

    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The steps in order, each with its phase.
    pub fn steps(&self) -> impl Iterator<Item = (Phase, &dyn fmt::Display)> {
        (0..self.len()).filter_map(|at| self.0.step(at))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps().try_for_each(|(phase, step)| writeln!(f, "{phase:<10} {step}"))
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps().map(|(phase, step)| format!("{phase}: {step}"))).finish()
    }
}

/// Why what is there could not be brought to what is desired.
///
/// Its text says what failed, its [`source`](std::error::Error::source)s why: print them all.
///
/// ```
/// use overlay_core::testing::Lamps;
/// use overlay_core::{Applied, Call, Fault, Flaky, Memory, reconcile};
///
/// let mut table = Flaky::new(Memory::<Lamps>::default(), |call| match call {
///     Call::Apply { .. } => Some(Fault::Refuse),
///     Call::Read => None,
/// });
/// let error = reconcile(&mut table, &Lamps::from([("hall", 80)])).unwrap_err();
/// assert_eq!(error.to_string(), "build failed: set hall to 80 %");
/// let why = std::error::Error::source(&error).unwrap();
/// assert_eq!(why.to_string(), "step 0 failed, nothing was changed");
/// assert_eq!(error.applied(), Applied::Nothing);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// What is there could not be read. Nothing was changed.
    #[error("what is there could not be read")]
    Observe(#[source] BackendError),
    /// The value cannot be had here. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A step failed; the phases before it are in effect, those after it are not.
    #[error("{phase} failed: {step}")]
    Apply {
        /// The phase it belongs to.
        phase: Phase,
        /// The step, as the plan shows it.
        step: String,
        /// Its index in the plan, why it failed, and what of its phase is in effect.
        #[source]
        error: StepError,
    },
    /// [`Table::run`] was given a plan that a table of another kind made. Nothing was changed.
    #[error("the plan was made by a table of another kind")]
    ForeignPlan,
}

impl ReconcileError {
    /// Whether somebody else changed what is there meanwhile, so that nothing of the phase was done and the same call helps.
    ///
    /// A table does not try again by itself: its caller waits a little, longer each time and not as long as other callers,
    /// and gives up after some ten times.
    pub fn is_interrupted(&self) -> bool {
        match self {
            Self::Observe(error) => error.kind() == ErrorKind::Interrupted,
            Self::Apply { error, .. } => error.source.kind() == ErrorKind::Interrupted,
            Self::Refused(_) | Self::ForeignPlan => false,
        }
    }

    /// What a failed call left in effect of the phase it was in.
    pub const fn applied(&self) -> Applied {
        match self {
            Self::Apply { error, .. } => error.applied,
            Self::Observe(_) | Self::Refused(_) | Self::ForeignPlan => Applied::Nothing,
        }
    }
}

/// Steps whose type is forgotten, so that plans of all tables are one type.
trait Steps: Any + Send + Sync {
    fn len(&self) -> usize;
    fn step(&self, at: usize) -> Option<(Phase, &dyn fmt::Display)>;
}

/// Steps of a known state, in the order of their phases.
struct Typed<S: State>(Vec<S::Step>);

impl<S: State> Typed<S> {
    /// Index of the phase's first step, and its steps.
    fn of(&self, phase: Phase) -> (usize, &[S::Step]) {
        let first = self.0.partition_point(|step| S::phase(step) < phase);
        let after = self.0.partition_point(|step| S::phase(step) <= phase);
        (first, &self.0[first..after])
    }
}

impl<S: State> Steps for Typed<S> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn step(&self, at: usize) -> Option<(Phase, &dyn fmt::Display)> {
        self.0.get(at).map(|step| (S::phase(step), step as _))
    }
}
