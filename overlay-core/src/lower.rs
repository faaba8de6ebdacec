//! From what is wanted, in an area's words, to the objects of one backend.

use std::borrow::Cow;

use crate::State;

/// Translates desired values `D` into the native state of a backend. Pure, so tested without privilege.
pub trait Lower<D> {
    /// The state of the backend that will hold it.
    type Native: State;

    /// The native state that means `desired`; where that is `desired` itself, borrowed.
    ///
    /// # Errors
    /// What of it the backend cannot express, by name: nothing is ever approximated in silence.
    fn lower<'d>(&self, desired: &'d D) -> Result<Cow<'d, Self::Native>, Refusal>;
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
