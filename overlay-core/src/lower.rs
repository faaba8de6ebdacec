//! From what is wanted, in an area's words, to the objects of one backend.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;

use crate::{Backend, ReconcileError, State, StepOf};

/// Translates desired values `D` into the native state of a backend. Pure, so tested without privilege.
///
/// A [`Backend`] that lowers `D` is a [`Table<D>`](crate::Table). One that is to hold `D` as it is lowers
/// it to itself, borrowed, as [`Memory`](crate::Memory) does.
///
/// ```
/// use std::borrow::Cow;
/// use overlay_core::testing::Lamps;
/// use overlay_core::{Lower, Refusal};
///
/// /// Rooms that are to be lit, in the words of those who live there.
/// struct Evening(Vec<String>);
///
/// struct Bridge { dims: bool } // and whatever talks to the lamps: see `Backend`
///
/// impl Lower<Evening> for Bridge {
///     type Native = Lamps;
///
///     fn lower<'d>(&self, evening: &'d Evening) -> Result<Cow<'d, Lamps>, Refusal> {
///         if !self.dims {
///             return Err(Refusal::new("evening", "40 %", "this bridge switches only; ask for 0 or 100 %"));
///         }
///         Ok(Cow::Owned(Lamps(evening.0.iter().map(|room| (room.clone(), 40)).collect())))
///     }
/// }
///
/// let evening = Evening(vec!["hall".to_owned()]);
/// assert_eq!(*Bridge { dims: true }.lower(&evening)?, Lamps::from([("hall", 40)]));
/// assert!(Bridge { dims: false }.lower(&evening).is_err());
/// # Ok::<(), Refusal>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not lower `{D}`",
    note = "a backend becomes a `Table<D>` by `impl Lower<D>`; where it holds `D` as it is, `lower` is `Ok(Cow::Borrowed(desired))`"
)]
pub trait Lower<D> {
    /// The state of the backend that will hold it.
    type Native: State;

    /// The native state that means `desired`; where that is `desired` itself, borrowed.
    ///
    /// # Errors
    /// What of it the backend cannot express, by name: nothing is ever approximated in silence.
    fn lower<'d>(&self, desired: &'d D) -> Result<Cow<'d, Self::Native>, Refusal>;

    /// What to remember of a value that was lowered, so that the next need not be lowered whole; nothing, unless
    /// [`amend`](Self::amend) is written too.
    fn remember(&self, _desired: &D) -> Option<Memo> {
        None
    }

    /// The steps from `native`, which is what the remembered value lowers to, to what `desired` lowers to, found from what
    /// differs between the two values; `None` if they differ in what must be lowered whole, and whenever `desired` is to be
    /// refused.
    ///
    /// It saves time, nothing else: applied to `native` its steps give what [`lower`](Self::lower) gives, which
    /// [`testing::laws::backend`](crate::testing::laws::backend) (feature `testing`) holds it to. A
    /// [`Shadow`](crate::Shadow) asks it. Worth writing where values are large and their parts are
    /// [`SharedMap`](crate::SharedMap)s, so that finding what differs costs less than lowering all.
    fn amend(
        &self,
        _memo: &Memo,
        _native: &Self::Native,
        _desired: &D,
    ) -> Option<Amended<<Self::Native as State>::Step>> {
        None
    }

    /// The steps from what is there to what `desired` lowers to: what a [`Table`](crate::Table)'s plan is made of.
    ///
    /// # Errors
    /// [`Refused`](ReconcileError::Refused) or [`Observe`](ReconcileError::Observe).
    fn plan_for(&mut self, desired: &D) -> Result<Vec<StepOf<Self>>, ReconcileError>
    where
        Self: Backend<State = <Self as Lower<D>>::Native>,
    {
        let native = self.lower(desired)?;
        native.check()?;
        self.plan_to(&native).map_err(ReconcileError::Observe)
    }
}

impl<D, B> Lower<D> for &mut B
where
    B: Backend + Lower<D, Native = <B as Backend>::State> + ?Sized,
{
    type Native = B::State;

    fn lower<'d>(&self, desired: &'d D) -> Result<Cow<'d, Self::Native>, Refusal> {
        (**self).lower(desired)
    }

    fn remember(&self, desired: &D) -> Option<Memo> {
        (**self).remember(desired)
    }

    fn amend(&self, memo: &Memo, native: &Self::Native, desired: &D) -> Option<Amended<StepOf<B>>> {
        (**self).amend(memo, native, desired)
    }

    fn plan_for(&mut self, desired: &D) -> Result<Vec<StepOf<Self>>, ReconcileError> {
        (**self).plan_for(desired)
    }
}

/// What a backend remembers of a value: of a type that it alone knows.
pub struct Memo(Box<dyn Any + Send>);

impl Memo {
    /// Remembers this.
    pub fn new<T: Send + 'static>(what: T) -> Self {
        Self(Box::new(what))
    }

    /// What is remembered, if it is of this type.
    pub fn of<T: 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

/// What [`Lower::amend`] found.
#[derive(Debug)]
pub struct Amended<S> {
    /// The steps, in any order of phases.
    pub steps: Vec<S>,
    /// What to remember once they are all in effect.
    pub memo: Memo,
}

/// A value that cannot be had: which object, what of it, and why. Nothing was changed.
///
/// ```
/// use overlay_core::Refusal;
///
/// let refusal = Refusal::new("service web", "least connection", "nf_tables has no such scheduler; IPVS has");
/// assert_eq!(refusal.to_string(), "service web: least connection: nf_tables has no such scheduler; IPVS has");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {wanted}: {reason}")]
pub struct Refusal {
    /// The object, as its owner knows it.
    pub object: Cow<'static, str>,
    /// What was wanted of it.
    pub wanted: Cow<'static, str>,
    /// Why that cannot be, and what could.
    pub reason: Cow<'static, str>,
}

impl Refusal {
    /// A refusal of `wanted` for `object`.
    pub fn new(
        object: impl Into<Cow<'static, str>>,
        wanted: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { object: object.into(), wanted: wanted.into(), reason: reason.into() }
    }
}
