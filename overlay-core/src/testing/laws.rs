//! The laws of states and of backends.
//!
//! ```
//! use overlay_core::testing::{Lamps, laws};
//! use overlay_core::{Memory, State};
//!
//! let (dark, lit) = (Lamps::default(), Lamps::from([("hall", 80), ("attic", 10)]));
//! laws::state(&dark, &lit)?;
//!
//! struct Room(Memory<Lamps>);
//!
//! impl laws::World<Lamps> for Room {
//!     type Native = Lamps;
//!     type Table = Memory<Lamps>;
//!     type Foreign = ();
//!
//!     fn open(&mut self) -> Memory<Lamps> { self.0.clone() }
//!     fn foreign(&mut self) {}
//! }
//!
//! let seen = laws::backend(&mut Room(Memory::default()), &[lit, dark], [1; 32])?;
//! assert!(seen.faults > 0);
//! # Ok::<(), laws::Broken>(())
//! ```

use std::fmt::Debug;
use std::slice;

use crate::testing::{Dice, seeded_faults};
use crate::{
    Applied, Backend, Flaky, Lower, Memory, Phase, Plan, ReconcileError, Shadow, State, StepError, StepOf, Table,
    reconcile,
};

/// A law that does not hold, and for what.
#[derive(Debug, thiserror::Error)]
#[error("{law}: {detail}")]
pub struct Broken {
    /// The law, as a sentence.
    pub law: &'static str,
    /// The values that break it.
    pub detail: String,
}

/// Tries the laws of [`State`] on two values, each of which passes [`State::check`].
///
/// Plans are broken off after every prefix, and the step before done once more, at up to 64 places of a plan.
pub fn state<S: State>(from: &S, to: &S) -> Result<(), Broken> {
    let steps = from.plan(to);
    hold("a plan is empty exactly if nothing differs", steps.is_empty() == (from == to), || format!("{steps:?}"))?;
    hold("a plan's phases never go back", steps.iter().map(S::phase).is_sorted(), || format!("{steps:?}"))?;
    hold("a plan is a function of the two values", from.plan(to) == steps, || format!("{steps:?}"))?;
    let whole = applied(from, &steps);
    hold("a plan leads to what is desired", whole == *to, || {
        format!("{steps:?} from {from:?} gave {whole:?}, not {to:?}")
    })?;
    for stop in (1..=steps.len()).step_by(steps.len() / 64 + 1) {
        let broken_off = applied(from, &steps[..stop]);
        let twice = applied(&broken_off, &steps[stop - 1..stop]);
        hold("a step done twice is done once", twice == broken_off, || {
            format!("{:?} made {twice:?} of {broken_off:?}", steps[stop - 1])
        })?;
        let rest = broken_off.plan(to);
        let whole = applied(&broken_off, &rest);
        hold("a plan broken off is finished by the next", whole == *to, || {
            format!("after {:?}, {rest:?} gave {whole:?}, not {to:?}", &steps[..stop])
        })?;
    }
    Ok(())
}

/// The world that a backend acts on, as its tests see it.
pub trait World<D> {
    /// The backend's state.
    type Native: State;
    /// The backend under test, with whatever middleware.
    type Table: Lower<D, Native = Self::Native> + Backend<State = Self::Native>;
    /// Everything in the world that is not ours, as read by other means.
    type Foreign: PartialEq + Debug;

    /// A backend that knows nothing yet, as a new process has.
    fn open(&mut self) -> Self::Table;

    /// All that is not ours, now.
    fn foreign(&mut self) -> Self::Foreign;

    /// Damages something of ours, as an administrator or another program would. Says whether it did: if so, a
    /// reconcile that finds nothing to do breaks a law.
    fn meddle(&mut self, _dice: &mut Dice) -> bool {
        false
    }

    /// Puts something in the way of `steps`, so that the backend itself fails on the way: a foreign object with a name
    /// that is needed, a full table. Says whether it did; [`clear`](Self::clear) takes it away again.
    fn obstruct(&mut self, _steps: &[<Self::Native as State>::Step], _dice: &mut Dice) -> bool {
        false
    }

    /// Takes away what [`obstruct`](Self::obstruct) put in the way.
    fn clear(&mut self) {}
}

/// A world in which a shadow of memory holds the state itself, and somebody meddles with that.
#[derive(Debug)]
pub struct InMemory<S: State> {
    memory: Memory<S>,
    meddle: fn(&mut S, &mut Dice),
}

impl<S: State> InMemory<S> {
    /// One that is empty. What `meddle` may do is change something, or nothing.
    pub fn new(meddle: fn(&mut S, &mut Dice)) -> Self {
        Self { memory: Memory::default(), meddle }
    }
}

impl<S: State> World<S> for InMemory<S> {
    type Native = S;
    type Table = Shadow<Memory<S>>;
    type Foreign = ();

    fn open(&mut self) -> Shadow<Memory<S>> {
        Shadow::new(self.memory.clone())
    }

    fn foreign(&mut self) {}

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let before = self.memory.state();
        self.memory.update(|state| (self.meddle)(state, dice));
        self.memory.state() != before
    }
}

/// How often each thing happened in a run of [`backend`]: a law that was never put to the test proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// Values reached.
    pub reached: usize,
    /// Values refused.
    pub refused: usize,
    /// Steps applied in calm.
    pub steps: usize,
    /// Faults injected.
    pub faults: usize,
    /// Failures of the backend's own, at an obstruction.
    pub obstructions: usize,
    /// Kills: the backend dropped after a fault and opened anew.
    pub kills: usize,
    /// Damages repaired.
    pub repairs: usize,
}

/// Takes a world through `desired`, one value after the other and in the end back to nothing, with faults, kills
/// and damage by `seed`, and tries the laws of a backend:
///
/// - a failed `apply` says truly what is in effect, whether a fault was injected or something was in the way;
/// - after faults and kills between any two steps, one reconcile reaches the value;
/// - then a new backend observes exactly what was lowered, and a second reconcile has nothing to do;
/// - a refused value changes nothing;
/// - from value to value without faults, as an [amended](crate::Lower::amend) plan goes, it is the same;
/// - a step whose effect is there already counts as done;
/// - damage is seen, and repaired by the same call;
/// - what is not ours stays as it was.
pub fn backend<D, W: World<D>>(world: &mut W, desired: &[D], seed: [u8; 32]) -> Result<Seen, Broken> {
    let foreign = world.foreign();
    let mut run = Run { table: world.open(), world, dice: Dice::new(seed), seen: Seen::default() };
    for value in desired {
        run.visit(value)?;
    }
    run.stroll(desired)?;
    run.leave()?;
    let after = run.world.foreign();
    hold("what is not ours stays as it was", after == foreign, || format!("{foreign:?} became {after:?}"))?;
    Ok(run.seen)
}

struct Run<'a, D, W: World<D>> {
    world: &'a mut W,
    table: W::Table,
    dice: Dice,
    seen: Seen,
}

impl<D, W: World<D>> Run<'_, D, W> {
    fn visit(&mut self, desired: &D) -> Result<(), Broken> {
        let before = self.truth()?;
        let native = match self.table.lower(desired).and_then(|native| native.check().map(|()| native)) {
            Ok(native) => native,
            Err(refusal) => {
                let refused = reconcile(&mut self.table, desired);
                let same = matches!(&refused, Err(ReconcileError::Refused(again)) if *again == refusal);
                hold("what cannot be lowered is refused", same, || format!("{refused:?} instead of {refusal:?}"))?;
                self.seen.refused += 1;
                let after = self.truth()?;
                return hold("a refused value changes nothing", after == before, || {
                    format!("{before:?} became {after:?}")
                });
            }
        };
        for _ in 0..3 {
            if self.dice.one_in(3) { self.bump(&native)? } else { self.disturb(&native)? }
        }
        self.settle(desired, &native)?;
        self.repeat(&native)?;
        if self.world.meddle(&mut self.dice) {
            let repaired = self.settle(desired, &native)?;
            hold("damage is seen", repaired > 0, || format!("nothing was repaired of {native:?}"))?;
            self.seen.repairs += 1;
        }
        self.seen.reached += 1;
        Ok(())
    }

    /// Goes through all values once more and back, with nothing in the way, so that what is remembered of one serves the next.
    fn stroll(&mut self, desired: &[D]) -> Result<(), Broken> {
        for value in desired.iter().chain(desired.iter().rev()) {
            let native = self.table.lower(value).and_then(|native| native.check().map(|()| native));
            match native {
                Ok(native) => drop(self.settle(value, &native)?),
                Err(refusal) => {
                    let refused = reconcile(&mut self.table, value);
                    let same = matches!(&refused, Err(ReconcileError::Refused(again)) if *again == refusal);
                    let detail = || format!("{refused:?} instead of {refusal:?}");
                    hold("what cannot be lowered is refused", same, detail)?;
                }
            }
        }
        Ok(())
    }

    /// Runs a plan for `native` against an obstruction.
    fn bump(&mut self, native: &W::Native) -> Result<(), Broken> {
        let before = self.truth()?;
        let steps = before.plan(native);
        if steps.is_empty() || !self.world.obstruct(&steps, &mut self.dice) {
            return Ok(());
        }
        let failed = self.carry(&before, &steps, Backend::apply)?;
        self.world.clear();
        self.seen.obstructions += usize::from(failed);
        Ok(())
    }

    /// Runs a plan for `native` with faults.
    fn disturb(&mut self, native: &W::Native) -> Result<(), Broken> {
        let before = self.truth()?;
        let steps = before.plan(native);
        let mut faults = seeded_faults(Dice::new(self.dice.seed()), 2);
        if self.carry(&before, &steps, |table, steps| Flaky::new(table, &mut faults).apply(steps))? {
            self.seen.faults += 1;
            if self.dice.one_in(2) {
                self.table = self.world.open();
                self.seen.kills += 1;
            }
        }
        Ok(())
    }

    /// Applies steps phase by phase until one fails, and holds what the error says against the truth. Says whether one did.
    fn carry(
        &mut self,
        before: &W::Native,
        steps: &[StepOf<W::Table>],
        mut apply: impl FnMut(&mut W::Table, &[StepOf<W::Table>]) -> Result<(), StepError>,
    ) -> Result<bool, Broken> {
        let mut done = 0;
        for phase in Phase::ALL {
            let here = steps.iter().filter(|step| <W::Native as State>::phase(step) == phase).count();
            let result = if here == 0 { Ok(()) } else { apply(&mut self.table, &steps[done..done + here]) };
            let Err(StepError { at, applied: claim, .. }) = result else {
                done += here;
                continue;
            };
            let expected = match claim {
                Applied::Nothing => Some(applied(before, &steps[..done])),
                Applied::Before => Some(applied(before, &steps[..done + at])),
                Applied::Unknown => None,
            };
            let truth = self.truth()?;
            hold("a failed apply says truly what is in effect", expected.as_ref().is_none_or(|e| *e == truth), || {
                let left = expected.as_ref().map(|expected| texts(&truth.plan(expected)));
                format!("{claim:?} at {at} of {:?} in {phase}; what is not so: {left:?}", texts(steps))
            })?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Reaches `desired` without faults, holds the result against what was lowered, and says how many steps it took.
    fn settle(&mut self, desired: &D, native: &W::Native) -> Result<usize, Broken> {
        let steps = calm(reconcile(&mut self.table, desired))?.len();
        self.seen.steps += steps;
        self.arrived(native)?;
        let again = calm(reconcile(&mut self.table, desired))?;
        hold("a second reconcile has nothing to do", again.is_empty(), || format!("{again:?}"))?;
        Ok(steps)
    }

    /// Does a step again whose effect is there: the last of a plan from nothing to `native`.
    fn repeat(&mut self, native: &W::Native) -> Result<(), Broken> {
        let steps = W::Native::default().plan(native);
        let Some(last) = steps.last() else { return Ok(()) };
        let result = self.table.apply(slice::from_ref(last));
        hold("a step whose effect is there already counts as done", result.is_ok(), || format!("{last}: {result:?}"))?;
        self.arrived(native)
    }

    /// Takes everything of ours away.
    fn leave(&mut self) -> Result<(), Broken> {
        let nothing = W::Native::default();
        let steps = self.table.plan_to(&nothing).map_err(|error| failed(&error))?;
        let plan = Plan::new::<W::Native>(steps);
        for phase in Phase::ALL {
            Table::<D>::run(&mut self.table, &plan, phase).map_err(|error| failed(&error))?;
        }
        self.arrived(&nothing)
    }

    /// Both a backend that went through it all and a new one must observe `native`.
    fn arrived(&mut self, native: &W::Native) -> Result<(), Broken> {
        let truth = self.truth()?;
        hold("what is observed is what was lowered", truth == *native, || {
            format!("what is left to do: {:?}; there is {truth:?}", texts(&truth.plan(native)))
        })?;
        let seen = self.table.observe().map_err(|error| failed(&error))?;
        hold("a backend that was there all along sees what a new one sees", seen == truth, || {
            format!("{seen:?}, not {truth:?}")
        })
    }

    fn truth(&mut self) -> Result<W::Native, Broken> {
        self.world.open().observe().map_err(|error| failed(&error))
    }
}

fn applied<S: State>(from: &S, steps: &[S::Step]) -> S {
    let mut state = from.clone();
    steps.iter().for_each(|step| state.apply(step));
    state
}

fn texts(steps: &[impl ToString]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

fn calm(result: Result<Plan, ReconcileError>) -> Result<Plan, Broken> {
    result.map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> Broken {
    Broken { law: "without faults nothing fails", detail: crate::told(error) }
}

fn hold(law: &'static str, holds: bool, detail: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { law, detail: detail() }) }
}
