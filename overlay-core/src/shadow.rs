//! Planning from a remembered observation while a witness proves it current.

use std::borrow::Cow;

use crate::{
    Amended, Backend, BackendError, Lower, Memo, Meter, ReconcileError, Refusal, State, StepError, StepOf, in_phases,
};

/// A backend that can prove that nobody else changed what it holds.
///
/// nf_tables has a generation id, rtnetlink and xfrm a notification socket that is opened before the dump.
pub trait Witness: Backend {
    /// Starts to watch. What [`observe`](Backend::observe) reads after this call is current for as long as
    /// [`undisturbed`](Self::undisturbed) says so.
    fn watch(&mut self) -> Result<(), BackendError>;

    /// Whether every change since [`watch`](Self::watch) was made by this backend's own [`apply`](Backend::apply).
    /// Any doubt (an overrun, no watch) is a no.
    fn undisturbed(&mut self) -> Result<bool, BackendError>;
}

impl<B: Witness + ?Sized> Witness for &mut B {
    fn watch(&mut self) -> Result<(), BackendError> {
        (**self).watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        (**self).undisturbed()
    }
}

/// Keeps the last observation of a backend and plans from it as long as the backend bears witness that it is
/// current; reads everything again at the first doubt. A failed `apply` is a doubt.
///
/// It saves the read-back, nothing else: what it reports is what `inner` would have reported. Of a backend that can
/// [`amend`](Lower::amend), it remembers the last value that was wanted too, as long as the backend holds just that: then
/// the next value is not lowered whole, and a reconcile costs what changed.
///
/// ```
/// use overlay_core::testing::Lamps;
/// use overlay_core::{Memory, Shadow, reconcile};
///
/// let lit = Lamps::from([("hall", 80)]);
/// let world = Memory::<Lamps>::default();
/// let mut table = Shadow::new(world.clone());
/// reconcile(&mut table, &lit)?; // reads
/// assert!(reconcile(&mut table, &lit)?.is_empty()); // does not have to
/// world.update(|lamps| lamps.0.clear()); // somebody meddles: the witness knows
/// assert_eq!(reconcile(&mut table, &lit)?.len(), 1);
/// # Ok::<(), overlay_core::ReconcileError>(())
/// ```
#[derive(Debug)]
pub struct Shadow<B: Backend> {
    inner: B,
    known: Option<B::State>,
    /// Of the value that lowers to what is known.
    memo: Option<Memo>,
    expected: Option<Expected<StepOf<B>>>,
}

/// A plan that was made last, and what to remember once it is in effect.
#[derive(Debug)]
struct Expected<S> {
    steps: Vec<S>,
    done: usize,
    memo: Memo,
}

impl<B: Witness> Shadow<B> {
    /// Remembers nothing yet: the first call reads.
    pub const fn new(inner: B) -> Self {
        Self { inner, known: None, memo: None, expected: None }
    }

    /// The backend beneath, to look at.
    pub const fn inner(&self) -> &B {
        &self.inner
    }

    /// The backend beneath, to change: to let it work in one namespace more, say. What was remembered is forgotten,
    /// whatever the witness would say, so the next call reads.
    pub fn inner_mut(&mut self) -> &mut B {
        self.forget();
        &mut self.inner
    }

    /// The backend beneath.
    pub fn into_inner(self) -> B {
        self.inner
    }

    fn forget(&mut self) {
        (self.known, self.memo, self.expected) = (None, None, None);
    }

    fn current(&mut self) -> Result<&B::State, BackendError> {
        let known = self.known.take().filter(|_| matches!(self.inner.undisturbed(), Ok(true)));
        let state = match known {
            Some(state) => state,
            None => {
                self.forget();
                self.inner.watch()?;
                self.inner.observe()?
            }
        };
        Ok(self.known.insert(state))
    }

    /// Remembers the value that a plan is for, once the plan is in effect.
    fn expect(&mut self, steps: &[StepOf<B>], memo: Option<Memo>) {
        self.expected = None;
        match memo {
            Some(memo) if steps.is_empty() => self.memo = Some(memo),
            Some(memo) => {
                let steps = in_phases::<B::State>(steps.to_vec());
                self.expected = Some(Expected { steps, done: 0, memo });
            }
            None => {}
        }
    }
}

impl<S: PartialEq> Expected<S> {
    /// What is left to expect after these steps, if they were expected.
    fn after(mut self, steps: &[S]) -> Option<Self> {
        let next = self.steps.get(self.done..).is_some_and(|rest| rest.starts_with(steps));
        self.done += steps.len();
        next.then_some(self)
    }
}

impl<B: Witness> Backend for Shadow<B> {
    type State = B::State;

    fn observe(&mut self) -> Result<Self::State, BackendError> {
        self.current().cloned()
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        let (known, expected) = (self.known.take(), self.expected.take());
        self.forget();
        self.inner.apply(steps)?;
        self.known = known.map(|mut state| {
            steps.iter().for_each(|step| state.apply(step));
            state
        });
        match expected.and_then(|expected| expected.after(steps)) {
            Some(Expected { steps, done, memo }) if done == steps.len() => self.memo = Some(memo),
            rest => self.expected = rest,
        }
        Ok(())
    }

    fn plan_to(&mut self, desired: &Self::State) -> Result<Vec<StepOf<Self>>, BackendError> {
        Ok(self.current()?.plan(desired))
    }
}

/// What changes by itself is read from the backend, always.
impl<B: Backend + Meter> Meter for Shadow<B> {
    type Reading = B::Reading;

    fn read(&mut self) -> Result<B::Reading, BackendError> {
        self.inner.read()
    }
}

impl<D, B> Lower<D> for Shadow<B>
where
    B: Witness + Lower<D, Native = <B as Backend>::State>,
{
    type Native = B::State;

    fn lower<'d>(&self, desired: &'d D) -> Result<Cow<'d, Self::Native>, Refusal> {
        self.inner.lower(desired)
    }

    fn plan_for(&mut self, desired: &D) -> Result<Vec<StepOf<Self>>, ReconcileError> {
        if self.memo.is_some() {
            self.current().map_err(ReconcileError::Observe)?; // where the witness doubts, nothing is remembered after it
        }
        if let (Some(memo), Some(native)) = (&self.memo, &self.known)
            && let Some(Amended { steps, memo }) = self.inner.amend(memo, native, desired)
        {
            self.expect(&steps, Some(memo));
            return Ok(steps);
        }
        let native = self.inner.lower(desired)?;
        native.check()?;
        let steps = self.plan_to(&native).map_err(ReconcileError::Observe)?;
        let memo = self.inner.remember(desired);
        self.expect(&steps, memo);
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Lamps;
    use crate::{Memory, reconcile};

    /// Swears that nobody changed anything, whatever happened.
    struct Perjurer(Memory<Lamps>);

    impl Backend for Perjurer {
        type State = Lamps;

        fn observe(&mut self) -> Result<Lamps, BackendError> {
            self.0.observe()
        }

        fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
            self.0.apply(steps)
        }
    }

    impl Witness for Perjurer {
        fn watch(&mut self) -> Result<(), BackendError> {
            Ok(())
        }

        fn undisturbed(&mut self) -> Result<bool, BackendError> {
            Ok(true)
        }
    }

    impl Lower<Lamps> for Perjurer {
        type Native = Lamps;

        fn lower<'d>(&self, desired: &'d Lamps) -> Result<Cow<'d, Lamps>, Refusal> {
            Ok(Cow::Borrowed(desired))
        }
    }

    #[test]
    fn what_is_changed_beneath_is_read_again_without_a_witness() {
        let lit = Lamps::from([("hall", 80)]);
        let mut table = Shadow::new(Perjurer(Memory::default()));
        assert_eq!(reconcile(&mut table, &lit).map(|plan| plan.len()).ok(), Some(1));
        table.inner().0.update(|lamps| lamps.0.clear());
        assert_eq!(reconcile(&mut table, &lit).map(|plan| plan.len()).ok(), Some(0), "it believes its witness");
        table.inner_mut().0.update(|lamps| lamps.0.clear());
        assert_eq!(reconcile(&mut table, &lit).map(|plan| plan.len()).ok(), Some(1));
    }
}
