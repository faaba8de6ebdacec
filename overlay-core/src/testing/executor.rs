//! Futures on one thread, in an order that a seed decides.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::testing::Dice;

/// Polls futures on this thread; which of those that can go on goes next is a function of the seed.
///
/// For transactions and other code behind an async seam: two runs with one seed are the same run, and many seeds
/// try many interleavings. There are no timers and no I/O here; what waits for such waits for ever.
///
/// ```
/// use overlay_core::testing::{Executor, yield_now};
///
/// let mut executor = Executor::new([7; 32]);
/// let two = executor.spawn(async { yield_now().await; 2 });
/// let three = executor.spawn(async { 3 });
/// executor.run()?;
/// assert_eq!((two.take(), three.take()), (Some(2), Some(3)));
/// # Ok::<(), overlay_core::testing::Stalled>(())
/// ```
pub struct Executor {
    dice: Dice,
    futures: BTreeMap<u64, Pin<Box<dyn Future<Output = ()>>>>,
    ready: Arc<Mutex<BTreeSet<u64>>>,
    spawned: u64,
}

impl Executor {
    /// An executor without tasks.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { dice: Dice::new(seed), futures: BTreeMap::new(), ready: Arc::default(), spawned: 0 }
    }

    /// Adds a task. It is polled by [`run`](Self::run).
    pub fn spawn<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let result = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&result);
        let id = self.spawned;
        self.spawned += 1;
        self.futures.insert(id, Box::pin(async move { *slot.borrow_mut() = Some(future.await) }));
        lock(&self.ready).insert(id);
        Task { result }
    }

    /// Polls until every task has ended.
    ///
    /// # Errors
    /// When tasks are left that nothing wakes: a deadlock, or a wait for something outside. They are kept, so
    /// another call goes on once something has woken them.
    pub fn run(&mut self) -> Result<(), Stalled> {
        while let Some(id) = self.draw() {
            let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.ready) }));
            let Some(future) = self.futures.get_mut(&id) else {
                continue;
            };
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                self.futures.remove(&id);
            }
        }
        match self.futures.len() {
            0 => Ok(()),
            tasks => Err(Stalled { tasks }),
        }
    }

    fn draw(&mut self) -> Option<u64> {
        let mut ready = lock(&self.ready);
        let id = *ready.iter().nth(self.dice.below(ready.len()))?;
        ready.remove(&id);
        Some(id)
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("tasks", &self.futures.len()).finish_non_exhaustive()
    }
}

/// A spawned task's result, once it has ended.
#[derive(Debug)]
pub struct Task<T> {
    result: Rc<RefCell<Option<T>>>,
}

impl<T> Task<T> {
    /// The result: `None` while the task has not ended, and after it was taken.
    pub fn take(&self) -> Option<T> {
        self.result.borrow_mut().take()
    }
}

/// Tasks wait and nothing wakes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{tasks} tasks wait for something that never comes")]
pub struct Stalled {
    /// How many.
    pub tasks: usize,
}

/// Lets other tasks go first, once, if the seed says so: a place where an interleaving can happen.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

struct TaskWaker {
    id: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        lock(&self.ready).insert(self.id);
    }
}

fn lock(ready: &Mutex<BTreeSet<u64>>) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
    ready.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: [u8; 32]) -> Vec<(u8, u8)> {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let mut executor = Executor::new(seed);
        for task in 0..4 {
            let seen = Rc::clone(&seen);
            executor.spawn(async move {
                for round in 0..4 {
                    seen.borrow_mut().push((task, round));
                    yield_now().await;
                }
            });
        }
        executor.run().unwrap();
        seen.take()
    }

    #[test]
    fn the_order_is_a_function_of_the_seed() {
        assert_eq!(order([1; 32]), order([1; 32]));
        let orders: BTreeSet<_> = (0..32).map(|seed| order([seed; 32])).collect();
        assert!(orders.len() > 16, "32 seeds gave {} orders", orders.len());
    }

    #[test]
    fn a_task_that_nothing_wakes_is_reported_and_can_go_on_later() {
        let gate = Rc::new(RefCell::new((false, None)));
        let shared = Rc::clone(&gate);
        let mut executor = Executor::new([0; 32]);
        let task = executor.spawn(std::future::poll_fn(move |context| {
            let (open, waker) = &mut *shared.borrow_mut();
            *waker = Some(context.waker().clone());
            if *open { Poll::Ready("through") } else { Poll::Pending }
        }));
        assert_eq!(executor.run(), Err(Stalled { tasks: 1 }));
        assert_eq!(task.take(), None);
        gate.borrow_mut().0 = true;
        let waker: Option<Waker> = gate.borrow_mut().1.take();
        waker.unwrap().wake();
        assert_eq!(executor.run(), Ok(()));
        assert_eq!(task.take(), Some("through"));
    }
}
