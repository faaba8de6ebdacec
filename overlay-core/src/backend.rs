//! Where a state is held, read back and changed.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use crate::State;

/// The step type of a backend's state.
pub type StepOf<B> = <<B as Backend>::State as State>::Step;

/// Something that holds a state: a kernel, a process's memory, a remote table.
///
/// It reads and it acts. It does not plan, retry, sleep or read a clock, and it touches only objects that carry
/// its [`Owner`](crate::Owner)'s mark. With [`Lower`](crate::Lower) it is a [`Table`](crate::Table), for
/// [`reconcile`](crate::reconcile); [`testing::laws::backend`](crate::testing::laws::backend) (feature `testing`) tries
/// what it promises.
///
/// ```
/// use std::borrow::Cow;
/// use std::collections::BTreeMap;
/// use overlay_core::testing::{LampStep, Lamps};
/// use overlay_core::{Applied, Backend, BackendError, ErrorKind, Lower, Refusal, StepError, reconcile};
///
/// /// A wall panel with a dial for each room, for two rooms at most.
/// #[derive(Default)]
/// struct Panel { dials: BTreeMap<String, u8> }
///
/// impl Panel {
///     fn turn(&mut self, room: &str, percent: u8) -> Result<(), BackendError> {
///         if self.dials.len() == 2 && !self.dials.contains_key(room) {
///             return Err(BackendError::new(ErrorKind::Limit, format!("add a dial for {room}")));
///         }
///         self.dials.insert(room.to_owned(), percent);
///         Ok(())
///     }
/// }
///
/// impl Backend for Panel {
///     type State = Lamps;
///
///     fn observe(&mut self) -> Result<Lamps, BackendError> {
///         Ok(Lamps(self.dials.clone()))
///     }
///
///     fn apply(&mut self, steps: &[LampStep]) -> Result<(), StepError> {
///         for (at, step) in steps.iter().enumerate() {
///             match step {
///                 LampStep::Set(room, percent) => self
///                     .turn(room, *percent)
///                     .map_err(|source| StepError { at, applied: Applied::Before, source })?,
///                 LampStep::Remove(room) => drop(self.dials.remove(room)), // gone already is as good
///             }
///         }
///         Ok(())
///     }
/// }
///
/// impl Lower<Lamps> for Panel {
///     type Native = Lamps;
///
///     fn lower<'d>(&self, desired: &'d Lamps) -> Result<Cow<'d, Lamps>, Refusal> {
///         Ok(Cow::Borrowed(desired)) // it holds what is wanted as it is
///     }
/// }
///
/// let mut panel = Panel::default();
/// reconcile(&mut panel, &Lamps::from([("attic", 10), ("hall", 80)]))?;
/// let error = reconcile(&mut panel, &Lamps::from([("attic", 20), ("loft", 5)])).unwrap_err();
/// assert_eq!(error.to_string(), "build failed: set loft to 5 %");
/// assert_eq!(panel.dials["attic"], 20); // the step before it is in effect
/// # Ok::<(), overlay_core::ReconcileError>(())
/// ```
pub trait Backend: Send {
    /// What it holds.
    type State: State;

    /// What really is there, ours only, read back now.
    ///
    /// # Errors
    /// If it could not be read whole: a part is never given for the whole.
    fn observe(&mut self) -> Result<Self::State, BackendError>;

    /// Carries out `steps` in order. A step whose effect is there already counts as done.
    ///
    /// # Errors
    /// The first step that failed, and what of the others is in effect.
    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError>;

    /// The steps from what is there to `desired`. Worth overriding where planning need not own a copy of the state.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    fn plan_to(&mut self, desired: &Self::State) -> Result<Vec<StepOf<Self>>, BackendError> {
        Ok(self.observe()?.plan(desired))
    }
}

impl<B: Backend + ?Sized> Backend for &mut B {
    type State = B::State;

    fn observe(&mut self) -> Result<Self::State, BackendError> {
        (**self).observe()
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        (**self).apply(steps)
    }

    fn plan_to(&mut self, desired: &Self::State) -> Result<Vec<StepOf<Self>>, BackendError> {
        (**self).plan_to(desired)
    }
}

impl<B: Backend + ?Sized> Backend for Box<B> {
    type State = B::State;

    fn observe(&mut self) -> Result<Self::State, BackendError> {
        (**self).observe()
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        (**self).apply(steps)
    }

    fn plan_to(&mut self, desired: &Self::State) -> Result<Vec<StepOf<Self>>, BackendError> {
        (**self).plan_to(desired)
    }
}

/// Readings that change by themselves, so belong in no state: counters, flows, sequence numbers.
pub trait Meter {
    /// What is read.
    type Reading;

    /// The values of this moment.
    fn read(&mut self) -> Result<Self::Reading, BackendError>;
}

/// Why a backend could not read or act: what it was doing, whose fault that is, and the cause.
///
/// ```
/// use overlay_core::{BackendError, ErrorKind};
///
/// let cause = std::io::Error::from_raw_os_error(1);
/// let error = BackendError::new(ErrorKind::Permission, "create bridge br0").caused_by(cause);
/// assert_eq!(error.to_string(), "create bridge br0: the caller lacks a privilege");
/// assert!(!error.kind().is_transient());
/// ```
#[derive(Debug)]
pub struct BackendError {
    kind: ErrorKind,
    doing: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BackendError {
    /// An error of `kind` in `doing`, an imperative with the object's name: "create bridge br0".
    pub fn new(kind: ErrorKind, doing: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, doing: doing.into(), source: None }
    }

    /// The same with its cause, an OS error say, as [`source`](Error::source).
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// What kind of failure it was.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the backend was doing.
    pub fn doing(&self) -> &str {
        &self.doing
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.kind)
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Whose fault a [`BackendError`] is, and so what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller may not do this: run with the privilege the backend's page names.
    Permission,
    /// The kernel or peer lacks the feature: another backend helps, trying again does not.
    Unsupported,
    /// Something foreign has the name, id or port: free it or choose another.
    Conflict,
    /// What was acted on is gone (a namespace, a device): plan anew without it.
    Gone,
    /// A value was not accepted: a mistake in what was asked, or in the backend.
    Invalid,
    /// A limit was met (buffers, memory, table size): raise it or ask for less.
    Limit,
    /// No answer within the deadline: it may or may not be done.
    Timeout,
    /// The picture changed or was cut while it was read: read again.
    Interrupted,
    /// An answer made no sense: a mistake in the backend or the other side.
    Protocol,
    /// None of these; the source says more.
    Other,
}

impl ErrorKind {
    /// Whether the same call may succeed later with nothing else changed.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Timeout | Self::Interrupted)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permission => "the caller lacks a privilege",
            Self::Unsupported => "not supported here",
            Self::Conflict => "taken by something else",
            Self::Gone => "it is not there",
            Self::Invalid => "the value was not accepted",
            Self::Limit => "a limit was met",
            Self::Timeout => "no answer in time",
            Self::Interrupted => "it changed while it was read",
            Self::Protocol => "the answer made no sense",
            Self::Other => "it failed",
        })
    }
}

/// A step that failed, and what of its batch is in effect.
#[derive(Debug, thiserror::Error)]
#[error("step {at} failed, {applied}")]
pub struct StepError {
    /// Index of the failed step in the steps that were given.
    pub at: usize,
    /// What is in effect now.
    pub applied: Applied,
    /// Why it failed.
    pub source: BackendError,
}

/// What a failed batch left in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Applied {
    /// No step of the batch: it was one transaction.
    Nothing,
    /// The steps before the failed one, whole; the failed one and those after it not at all.
    Before,
    /// Cannot be told, a reply was lost for example: observe before planning again.
    Unknown,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing was changed",
            Self::Before => "the steps before it are in effect",
            Self::Unknown => "what is in effect is unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Lamps;
    use crate::{Memory, Traced};

    #[test]
    fn a_backend_whose_type_is_forgotten_is_one_still() {
        let lit = Lamps::from([("hall", 80)]);
        let boxed: Box<dyn Backend<State = Lamps>> = Box::new(Memory::new(lit.clone()));
        let mut traced = Traced::new(boxed, |_| {});
        assert_eq!(traced.observe().ok(), Some(lit));
    }

    #[test]
    fn errors_cross_threads() {
        const fn crosses<T: Send + Sync + 'static>() {}
        crosses::<BackendError>();
        crosses::<StepError>();
        crosses::<crate::ReconcileError>();
        crosses::<crate::Plan>();
    }
}
