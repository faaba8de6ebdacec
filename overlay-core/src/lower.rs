//! From what is wanted, in an area's words, to the objects of one backend.

use std::borrow::Cow;

use crate::State;

/// Translates desired values `D` into the native state of a backend. Pure, so tested without privilege.
///
/// A [`Backend`](crate::Backend) that lowers `D` is a [`Table<D>`](crate::Table). One that is to hold `D` as it is lowers
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
}

impl<D, B: Lower<D> + ?Sized> Lower<D> for &mut B {
    type Native = B::Native;

    fn lower<'d>(&self, desired: &'d D) -> Result<Cow<'d, Self::Native>, Refusal> {
        (**self).lower(desired)
    }
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
