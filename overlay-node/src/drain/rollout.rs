//! One replica after the other.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;

/// The order in which a service's replicas are replaced: some at once, each by steps of which the next begins when the one before is done.
/// A replica is whatever its user calls one. A machine: [`next`](Self::next) gives the steps that are due, and is asked again after each that
/// is [done](Self::done).
///
/// ```
/// use std::num::NonZeroUsize;
/// use overlay_node::{Order, Rollout, Step};
///
/// let mut rollout = Rollout::new(["web-1", "web-2"], Order::StartFirst, NonZeroUsize::MIN);
/// let mut done = Vec::new();
/// while let Some(step) = rollout.next() {
///     done.push(step.to_string()); // and carry it out
///     rollout.done(&step);
/// }
/// let each = ["start", "drain", "stop"];
/// assert_eq!(done, ["web-1", "web-2"].map(|replica| each.map(|step| format!("{step} {replica}"))).concat());
/// ```
#[derive(Debug, Clone)]
pub struct Rollout<R> {
    order: Order,
    at_once: usize,
    waiting: VecDeque<R>,
    /// Those that have begun: how many steps of each were given, and how many are done.
    under_way: BTreeMap<R, (usize, usize)>,
}

/// Whether a replica is there twice for a while, or not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The new one is started, then the old one is drained and stopped: there never is one less.
    #[default]
    StartFirst,
    /// The old one is drained and stopped, then the new one is started: there never is one more.
    StopFirst,
}

/// A step of replacing a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step<R> {
    /// Start what comes in its place, and wait until that serves.
    Start(R),
    /// Drain it.
    Drain(R),
    /// Stop it.
    Stop(R),
}

impl<R> Step<R> {
    /// Whose step it is.
    pub const fn replica(&self) -> &R {
        match self {
            Self::Start(replica) | Self::Drain(replica) | Self::Stop(replica) => replica,
        }
    }
}

impl<R: std::fmt::Display> std::fmt::Display for Step<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(replica) => write!(f, "start {replica}"),
            Self::Drain(replica) => write!(f, "drain {replica}"),
            Self::Stop(replica) => write!(f, "stop {replica}"),
        }
    }
}

impl<R: Clone + Ord> Rollout<R> {
    /// Of these replicas in this order, so many at once. One that is named twice counts once.
    pub fn new(replicas: impl IntoIterator<Item = R>, order: Order, at_once: NonZeroUsize) -> Self {
        let mut waiting = VecDeque::new();
        let mut known = std::collections::BTreeSet::new();
        waiting.extend(replicas.into_iter().filter(|replica| known.insert(replica.clone())));
        Self { order, at_once: at_once.get(), waiting, under_way: BTreeMap::new() }
    }

    /// A step that is due and was not given yet. O(replicas at once).
    #[expect(clippy::should_implement_trait, reason = "it has more after some were done")]
    pub fn next(&mut self) -> Option<Step<R>> {
        let steps = self.order.steps();
        let due = self.under_way.iter_mut().find(|(_, (given, done))| given == done);
        if let Some((replica, (given, _))) = due {
            let step = steps.get(*given)?;
            *given += 1;
            return Some(step(replica.clone()));
        }
        if self.under_way.len() >= self.at_once {
            return None;
        }
        let replica = self.waiting.pop_front()?;
        self.under_way.insert(replica.clone(), (1, 0));
        steps.first().map(|step| step(replica))
    }

    /// A step that was given is done.
    pub fn done(&mut self, step: &Step<R>) {
        let all = self.order.steps::<R>().len();
        let Some((given, done)) = self.under_way.get_mut(step.replica()) else { return };
        *done = *given;
        if *done == all {
            self.under_way.remove(step.replica());
        }
    }

    /// A step could not be carried out: its replica stays as it is then, and no other is begun. Those that have begun go on.
    pub fn fail(&mut self, step: &Step<R>) {
        self.under_way.remove(step.replica());
        self.at_once = 0;
    }

    /// The replicas that were not begun, in their order.
    pub fn waiting(&self) -> impl Iterator<Item = &R> {
        self.waiting.iter()
    }
}

impl Order {
    const fn steps<R>(self) -> [fn(R) -> Step<R>; 3] {
        match self {
            Self::StartFirst => [Step::Start, Step::Drain, Step::Stop],
            Self::StopFirst => [Step::Drain, Step::Stop, Step::Start],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever ends first: each replica has its three steps in order, once, and no more than so many are between their first and last.
        #[test]
        fn each_replica_has_its_steps_in_order_and_no_more_than_so_many_are_under_way(
            replicas in 0_usize..8, at_once in 1_usize..4, start_first: bool, picks in proptest::collection::vec(0_usize..8, 30),
        ) {
            let order = if start_first { Order::StartFirst } else { Order::StopFirst };
            let mut rollout = Rollout::new((0..replicas).chain(0..replicas), order, NonZeroUsize::new(at_once).unwrap());
            let (mut running, mut finished) = (Vec::new(), BTreeMap::<usize, Vec<Step<usize>>>::new());
            let mut picks = picks.into_iter().cycle();
            loop {
                running.extend(std::iter::from_fn(|| rollout.next()));
                let between = finished.values().filter(|steps| steps.len() < 3).count();
                let fresh = running.iter().filter(|step: &&Step<usize>| !finished.contains_key(step.replica())).count();
                prop_assert!(between + fresh <= at_once);
                if running.is_empty() {
                    break;
                }
                let step = running.remove(picks.next().unwrap() % running.len());
                rollout.done(&step);
                finished.entry(*step.replica()).or_default().push(step);
            }
            prop_assert_eq!(finished.len(), replicas);
            for (replica, steps) in finished {
                prop_assert_eq!(steps, order.steps().map(|step| step(replica)));
            }
        }
    }

    #[test]
    fn after_a_failure_nobody_else_is_begun_and_who_has_begun_goes_on() {
        let mut rollout = Rollout::new([1, 2, 3], Order::StopFirst, NonZeroUsize::new(2).unwrap());
        assert_eq!(
            (rollout.next(), rollout.next(), rollout.next()),
            (Some(Step::Drain(1)), Some(Step::Drain(2)), None)
        );
        rollout.fail(&Step::Drain(1));
        rollout.done(&Step::Drain(2));
        assert_eq!(rollout.next(), Some(Step::Stop(2)));
        rollout.done(&Step::Stop(2));
        assert_eq!(rollout.next(), Some(Step::Start(2)));
        rollout.done(&Step::Start(2));
        assert_eq!((rollout.next(), rollout.waiting().collect::<Vec<_>>()), (None, vec![&3]));
    }
}
