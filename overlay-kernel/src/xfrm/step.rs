//! The steps between two values.

use std::fmt;

use overlay_core::Phase;

use super::{Action, Policy, PolicyKey, Sa, SaId};

/// One change of a [`State`](super::State).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A policy comes, or changes.
    PutPolicy(PolicyKey, Policy),
    /// An association comes: the one step that has a key. A backend refuses it where another has the SPI.
    AddSa(SaId, Sa),
    /// A policy goes, which was as this says.
    RemovePolicy(PolicyKey, Policy),
    /// An association goes.
    RemoveSa(SaId),
}

impl Step {
    /// What blocks comes first and goes last, and associations are there as long as a policy sends by them.
    pub(super) const fn phase(&self) -> Phase {
        match self {
            Self::PutPolicy(_, Policy { action: Action::Block, .. }) => Phase::Guard,
            Self::AddSa(..) => Phase::Build,
            Self::PutPolicy(..) => Phase::Open,
            Self::RemovePolicy(_, Policy { action: Action::Protect(_), .. }) => Phase::Close,
            Self::RemoveSa(_) => Phase::Dismantle,
            Self::RemovePolicy(..) => Phase::Unguard,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutPolicy(key, policy) => write!(f, "put policy {key}: {policy}"),
            Self::AddSa(id, sa) => write!(f, "add SA {id}: {sa}"),
            Self::RemovePolicy(key, _) => write!(f, "remove policy {key}"),
            Self::RemoveSa(id) => write!(f, "remove SA {id}"),
        }
    }
}
