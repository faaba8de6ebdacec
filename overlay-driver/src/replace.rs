//! A service's replicas, replaced one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use overlay_node::{Drained, Rollout, Step};
use tokio::task::{JoinError, JoinSet};

/// Carries out the steps by which a replica is replaced. What a replica is, its user knows: a container with one endpoint or some, on
/// any node of the cluster.
#[async_trait]
pub trait Replace<R>: Send + Sync + 'static {
    /// What can go wrong.
    type Error: From<JoinError> + Send + 'static;

    /// Starts what comes in its place: made, [attached](crate::Driver::attach), and ready to serve.
    async fn start(&self, old: &R) -> Result<(), Self::Error>;

    /// [Drains](crate::Driver::drain) all its endpoints. Whether one with flows left is to be stopped all the same is decided here: it is,
    /// unless this is an error.
    async fn drain(&self, old: &R) -> Result<Drained, Self::Error>;

    /// [Detaches](crate::Driver::detach) and ends it.
    async fn stop(&self, old: &R) -> Result<(), Self::Error>;
}

/// What became of a replacement.
#[derive(Debug)]
pub struct Replaced<R, E> {
    /// The replicas that were drained, and how.
    pub drained: BTreeMap<R, Drained>,
    /// What went wrong, and where: that replica stayed as it was then.
    pub failed: Vec<(Step<R>, E)>,
    /// The replicas that were not begun, as something had gone wrong.
    pub waiting: Vec<R>,
}

impl<R, E> Replaced<R, E> {
    /// Whether all were replaced, and no flow was cut by that.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.waiting.is_empty() && self.drained.values().all(Drained::is_complete)
    }
}

/// Replaces replicas in this order, so many at once. After a failure no other is begun, and those that have begun go on. Dropping the future
/// drops the steps that are under way; what they have done stays.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn replace<R, S>(mut rollout: Rollout<R>, steps: Arc<S>) -> Replaced<R, S::Error>
where
    R: Clone + Ord + Send + Sync + 'static,
    S: Replace<R>,
{
    let mut replaced = Replaced { drained: BTreeMap::new(), failed: Vec::new(), waiting: Vec::new() };
    let (mut under_way, mut tasks) = (JoinSet::new(), BTreeMap::new());
    loop {
        while let Some(step) = rollout.next() {
            let (steps, own) = (Arc::clone(&steps), step.clone());
            let task = under_way.spawn(async move { carry_out(&*steps, &own).await });
            tasks.insert(task.id(), step);
        }
        let Some(ended) = under_way.join_next_with_id().await else { break };
        let (task, result) = match ended {
            Ok((task, result)) => (task, result),
            Err(panicked) => (panicked.id(), Err(panicked.into())),
        };
        let Some(step) = tasks.remove(&task) else { continue };
        match result {
            Ok(drained) => {
                replaced.drained.extend(drained.map(|drained| (step.replica().clone(), drained)));
                rollout.done(&step);
            }
            Err(error) => {
                rollout.fail(&step);
                replaced.failed.push((step, error));
            }
        }
    }
    replaced.waiting.extend(rollout.waiting().cloned());
    replaced
}

async fn carry_out<R: Sync, S: Replace<R>>(steps: &S, step: &Step<R>) -> Result<Option<Drained>, S::Error> {
    match step {
        Step::Start(replica) => steps.start(replica).await.map(|()| None),
        Step::Drain(replica) => steps.drain(replica).await.map(Some),
        Step::Stop(replica) => steps.stop(replica).await.map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::Mutex;

    use overlay_node::Order;

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Wrong {
        Refused,
        Panicked,
    }

    impl From<JoinError> for Wrong {
        fn from(_: JoinError) -> Self {
            Self::Panicked
        }
    }

    /// Notes what is done; some steps go wrong.
    struct Notes {
        done: Mutex<Vec<String>>,
        refused: &'static str,
        panics: &'static str,
    }

    impl Notes {
        async fn note(&self, step: String) -> Result<(), Wrong> {
            tokio::task::yield_now().await;
            assert_ne!(step, self.panics);
            if step == self.refused {
                return Err(Wrong::Refused);
            }
            self.done.lock().unwrap().push(step);
            Ok(())
        }
    }

    #[async_trait]
    impl Replace<u8> for Notes {
        type Error = Wrong;

        async fn start(&self, old: &u8) -> Result<(), Wrong> {
            self.note(format!("start {old}")).await
        }

        async fn drain(&self, old: &u8) -> Result<Drained, Wrong> {
            self.note(format!("drain {old}")).await?;
            let (took, behind, left, arrived) = Default::default();
            Ok(Drained { took, behind, left, arrived, uncounted: None })
        }

        async fn stop(&self, old: &u8) -> Result<(), Wrong> {
            self.note(format!("stop {old}")).await
        }
    }

    async fn run(refused: &'static str, panics: &'static str) -> (Vec<String>, Replaced<u8, Wrong>) {
        let notes = Arc::new(Notes { done: Mutex::default(), refused, panics });
        let rollout = Rollout::new([1, 2, 3], Order::StartFirst, NonZeroUsize::MIN);
        let replaced = replace(rollout, Arc::clone(&notes)).await;
        let done = std::mem::take(&mut *notes.done.lock().unwrap());
        (done, replaced)
    }

    #[tokio::test]
    async fn each_is_replaced_after_the_other_until_one_cannot_be() {
        let (done, replaced) = run("", "").await;
        let each = |number: u8| ["start", "drain", "stop"].map(|step| format!("{step} {number}"));
        assert_eq!(done, [1, 2, 3].map(each).concat());
        assert!(replaced.is_complete() && replaced.drained.len() == 3);
        for (refused, panics, error) in [("stop 2", "", Wrong::Refused), ("", "stop 2", Wrong::Panicked)] {
            let (done, replaced) = run(refused, panics).await;
            assert_eq!(done, [each(1).as_slice(), &each(2)[..2]].concat());
            assert_eq!((&replaced.failed, &replaced.waiting), (&vec![(Step::Stop(2), error)], &vec![3]));
            assert!(!replaced.is_complete());
        }
    }
}
