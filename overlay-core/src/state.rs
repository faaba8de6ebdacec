//! Values that something outside should hold.

use std::fmt;

use crate::Refusal;

/// A value that something outside (a kernel, a table, a peer) should hold.
///
/// It knows how to get from itself to another value in [`Step`](Self::Step)s, and what each step means. A
/// [`Backend`](crate::Backend) only reads what is there and carries steps out; all planning is here, pure.
///
/// # Laws
/// For all values `a` and `b` that pass [`check`](Self::check); [`testing::laws::state`](crate::testing::laws::state)
/// (feature `testing`) tries them:
/// - `a.plan(&b)` is empty exactly if `a == b`;
/// - applying its steps to `a`, in order, gives `b`;
/// - its phases never go back: a step's phase is that of the step before or a later one;
/// - from wherever the steps stop half-way, a new plan leads to `b`;
/// - a step done once more changes nothing.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::fmt;
/// use overlay_core::{Change, Phase, State, keyed_diff, in_phases};
///
/// #[derive(Clone, Debug, Default, PartialEq, Eq)]
/// struct Lamps(BTreeMap<String, u8>); // room to brightness
///
/// #[derive(Clone, Debug, PartialEq, Eq)]
/// enum Step { Set(String, u8), Remove(String) }
///
/// impl fmt::Display for Step {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         match self {
///             Step::Set(room, brightness) => write!(f, "set {room} to {brightness}"),
///             Step::Remove(room) => write!(f, "remove {room}"),
///         }
///     }
/// }
///
/// impl State for Lamps {
///     type Step = Step;
///
///     fn plan(&self, desired: &Self) -> Vec<Step> {
///         let steps = keyed_diff(&self.0, &desired.0).map(|change| match change {
///             Change::Add(room, new) | Change::Replace(room, _, new) => Step::Set(room.clone(), *new),
///             Change::Remove(room, _) => Step::Remove(room.clone()),
///         });
///         in_phases::<Self>(steps.collect())
///     }
///
///     fn apply(&mut self, step: &Step) {
///         match step.clone() {
///             Step::Set(room, brightness) => { self.0.insert(room, brightness); }
///             Step::Remove(room) => { self.0.remove(&room); }
///         }
///     }
///
///     fn phase(step: &Step) -> Phase {
///         match step {
///             Step::Set(..) => Phase::Build,
///             Step::Remove(_) => Phase::Dismantle,
///         }
///     }
/// }
///
/// let dark = Lamps::default();
/// let lit = Lamps(BTreeMap::from([("hall".to_owned(), 80)]));
/// assert_eq!(dark.plan(&lit)[0].to_string(), "set hall to 80");
/// ```
pub trait State: Clone + Default + Eq + fmt::Debug + Send + Sync + 'static {
    /// One change, small enough that doing it is one act of the backend. Shown as a line of a dry run.
    type Step: Clone + Eq + fmt::Debug + fmt::Display + Send + Sync + 'static;

    /// The steps from this value to `desired`, in the order of their phases; empty exactly if they are equal.
    fn plan(&self, desired: &Self) -> Vec<Self::Step>;

    /// What a step means: this value once it is done. A step with nothing to act on changes nothing.
    fn apply(&mut self, step: &Self::Step);

    /// When a step runs among those of other tables at the same place.
    fn phase(step: &Self::Step) -> Phase;

    /// Whether the value can be meant at all, whatever holds it: a table that is asked for a value that
    /// fails this refuses it before anything is done.
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// When a step runs. A place plans all its tables, then runs them phase by phase; a failed phase stops the later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Protections go up: block policies, drops.
    Guard,
    /// Objects come into being or change, not reachable yet.
    Build,
    /// Traffic finds its way to what was built.
    Open,
    /// Traffic is led away from what will go.
    Close,
    /// Objects go.
    Dismantle,
    /// Protections of what is gone go too.
    Unguard,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 6] = [Self::Guard, Self::Build, Self::Open, Self::Close, Self::Dismantle, Self::Unguard];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Guard => "guard",
            Self::Build => "build",
            Self::Open => "open",
            Self::Close => "close",
            Self::Dismantle => "dismantle",
            Self::Unguard => "unguard",
        })
    }
}

/// Sorts steps by phase and keeps their order within one. O(n log n), O(n) where they are in order already.
#[must_use]
pub fn in_phases<S: State>(mut steps: Vec<S::Step>) -> Vec<S::Step> {
    steps.sort_by_key(S::phase);
    steps
}
