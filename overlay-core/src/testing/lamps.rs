//! A state small enough for examples.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Change, Phase, State, in_phases, keyed_diff};

/// The brightness of lamps, in percent, by room.
///
/// ```
/// use overlay_core::State;
/// use overlay_core::testing::Lamps;
///
/// let plan = Lamps::from([("attic", 10)]).plan(&Lamps::from([("hall", 80)]));
/// assert_eq!(plan[0].to_string(), "set hall to 80 %");
/// assert_eq!(plan[1].to_string(), "remove attic");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lamps(pub BTreeMap<String, u8>);

impl<const N: usize> From<[(&str, u8); N]> for Lamps {
    fn from(lamps: [(&str, u8); N]) -> Self {
        Self(lamps.into_iter().map(|(room, brightness)| (room.to_owned(), brightness)).collect())
    }
}

/// A step of [`Lamps`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LampStep {
    /// Puts a lamp into a room, or changes its brightness.
    Set(String, u8),
    /// Takes the lamp out of a room.
    Remove(String),
}

impl fmt::Display for LampStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(room, brightness) => write!(f, "set {room} to {brightness} %"),
            Self::Remove(room) => write!(f, "remove {room}"),
        }
    }
}

impl State for Lamps {
    type Step = LampStep;

    fn plan(&self, desired: &Self) -> Vec<LampStep> {
        let steps = keyed_diff(&self.0, &desired.0).map(|change| match change {
            Change::Add(room, new) | Change::Replace(room, _, new) => LampStep::Set(room.clone(), *new),
            Change::Remove(room, _) => LampStep::Remove(room.clone()),
        });
        in_phases::<Self>(steps.collect())
    }

    fn apply(&mut self, step: &LampStep) {
        match step {
            LampStep::Set(room, brightness) => self.0.insert(room.clone(), *brightness),
            LampStep::Remove(room) => self.0.remove(room),
        };
    }

    fn phase(step: &LampStep) -> Phase {
        match step {
            LampStep::Set(..) => Phase::Build,
            LampStep::Remove(_) => Phase::Dismantle,
        }
    }
}
