//! What the kernel holds a part of, and who carries packets in user space another.

use std::borrow::Cow;
use std::fmt;

use overlay_core::{
    Applied, Backend, BackendError, Lower, Memory, Phase, Refusal, State, StepError, StepOf, Witness, in_phases,
};
use overlay_node::Place;

use super::met::Touched;
use super::plane::Plane;

/// Holds a value in two parts: one by a backend of the kernel, one as what packets meet in user space.
pub(super) struct Beside<B: Backend, D: State> {
    pub(super) kernel: B,
    pub(super) held: Memory<D>,
    /// What of a value the kernel is to hold, and what is to meet packets.
    pub(super) split: fn(&D) -> (D, D),
    pub(super) plane: Plane,
    /// Whose value it is.
    pub(super) place: Place,
    /// Which taps a step is about.
    pub(super) touch: fn(&Step<StepOf<B>, D::Step>, &mut Touched),
}

/// No taps: only segments have some.
pub(super) const fn untouched<K, D>(_: &Step<K, D>, _: &mut Touched) {}

/// Both parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Twofold<K, D> {
    kernel: K,
    held: D,
}

/// A step of one of the parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step<K, D> {
    Kernel(K),
    Held(D),
}

impl<K: fmt::Display, D: fmt::Display> fmt::Display for Step<K, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(step) => step.fmt(f),
            Self::Held(step) => write!(f, "in user space: {step}"),
        }
    }
}

impl<K: State, D: State> State for Twofold<K, D> {
    type Step = Step<K::Step, D::Step>;

    /// What stands in the kernel is there before packets meet it, and goes after they do no more.
    fn plan(&self, desired: &Self) -> Vec<Self::Step> {
        let (first, last): (Vec<_>, Vec<_>) =
            self.kernel.plan(&desired.kernel).into_iter().partition(|step| K::phase(step) <= Phase::Open);
        let held = self.held.plan(&desired.held).into_iter().map(Step::Held);
        let steps = first.into_iter().map(Step::Kernel).chain(held).chain(last.into_iter().map(Step::Kernel));
        in_phases::<Self>(steps.collect())
    }

    fn apply(&mut self, step: &Self::Step) {
        match step {
            Step::Kernel(step) => self.kernel.apply(step),
            Step::Held(step) => self.held.apply(step),
        }
    }

    fn phase(step: &Self::Step) -> Phase {
        match step {
            Step::Kernel(step) => K::phase(step),
            Step::Held(step) => D::phase(step),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        self.kernel.check()?;
        self.held.check()
    }
}

impl<B: Backend, D: State> Beside<B, D> {
    /// Steps of the kernel that stand together.
    fn carry_out(&mut self, first: usize, steps: &[StepOf<B>]) -> Result<(), StepError> {
        let done = self.kernel.apply(steps);
        done.map_err(|error| {
            let applied = match error.applied {
                // Of those here none, and of those before them all.
                Applied::Nothing if first > 0 => Applied::Unknown,
                applied => applied,
            };
            StepError { at: first + error.at, applied, ..error }
        })
    }
}

impl<B: Backend, D: State> Backend for Beside<B, D> {
    type State = Twofold<B::State, D>;

    fn observe(&mut self) -> Result<Self::State, BackendError> {
        self.plane.revive()?;
        Ok(Twofold { kernel: self.kernel.observe()?, held: self.held.state() })
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        let is_alike = |one: &StepOf<Self>, other: &StepOf<Self>| {
            matches!((one, other), (Step::Kernel(_), Step::Kernel(_)) | (Step::Held(_), Step::Held(_)))
        };
        let mut at = 0;
        for run in steps.chunk_by(is_alike) {
            let (mut of_kernel, mut of_held, mut touched) = (Vec::new(), Vec::new(), Touched::default());
            for step in run {
                (self.touch)(step, &mut touched);
                match step {
                    Step::Kernel(step) => of_kernel.push(step.clone()),
                    Step::Held(step) => of_held.push(step.clone()),
                }
            }
            if !of_kernel.is_empty()
                && let Err(error) = self.carry_out(at, &of_kernel)
            {
                let _ = self.plane.hold(&self.place, &mut self.held, &[], &touched); // what was made before that
                return Err(error);
            }
            // What changed in the kernel is looked at too: a tap that was made anew is opened again.
            let held = self.plane.hold(&self.place, &mut self.held, &of_held, &touched);
            held.map_err(|error| match (error.applied, of_held.is_empty(), at) {
                (Applied::Nothing, false, 0) => error,
                (Applied::Nothing, false, _) => StepError { at, applied: Applied::Before, ..error },
                _ => StepError { at: at + run.len() - 1, applied: Applied::Unknown, ..error },
            })?;
            at += run.len();
        }
        Ok(())
    }
}

impl<B: Witness, D: State> Witness for Beside<B, D> {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.held.watch()?;
        self.kernel.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        Ok(!self.plane.is_lost() && self.held.undisturbed()? && self.kernel.undisturbed()?)
    }
}

impl<B, D> Lower<D> for Beside<B, D>
where
    B: Backend + Lower<D, Native = <B as Backend>::State>,
    D: State,
{
    type Native = Twofold<<B as Backend>::State, D>;

    fn lower<'d>(&self, desired: &'d D) -> Result<Cow<'d, Self::Native>, Refusal> {
        let (kernel, held) = (self.split)(desired);
        let kernel = self.kernel.lower(&kernel)?.into_owned();
        Ok(Cow::Owned(Twofold { kernel, held }))
    }
}

/// A value that packets meet in user space, and nothing else.
pub(super) struct Carried<D: State> {
    held: Memory<D>,
    plane: Plane,
    place: Place,
    /// What of a value meets packets, or why not all that is to be held can be.
    part: fn(&D) -> Result<D, Refusal>,
}

impl<D: State> Carried<D> {
    pub(super) fn new(held: Memory<D>, (place, plane): (Place, Plane), part: fn(&D) -> Result<D, Refusal>) -> Self {
        Self { held, plane, place, part }
    }
}

impl<D: State> Backend for Carried<D> {
    type State = D;

    fn observe(&mut self) -> Result<D, BackendError> {
        self.plane.revive()?;
        self.held.observe()
    }

    fn apply(&mut self, steps: &[D::Step]) -> Result<(), StepError> {
        self.plane.hold(&self.place, &mut self.held, steps, &Touched::default())
    }

    fn plan_to(&mut self, desired: &D) -> Result<Vec<D::Step>, BackendError> {
        self.plane.revive()?;
        self.held.plan_to(desired)
    }
}

impl<D: State> Lower<D> for Carried<D> {
    type Native = D;

    fn lower<'d>(&self, desired: &'d D) -> Result<Cow<'d, D>, Refusal> {
        (self.part)(desired).map(Cow::Owned)
    }
}
