//! An answer that comes from another thread, under any executor.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Gives the answer; dropped without, it gives none.
pub(super) struct Promise<T>(Arc<Mutex<Slot<T>>>);

/// Waits for the answer: `None` if there will be none.
pub(super) struct Answer<T>(Arc<Mutex<Slot<T>>>);

struct Slot<T> {
    answer: Option<T>,
    waker: Option<Waker>,
    over: bool,
}

pub(super) fn answer<T>() -> (Promise<T>, Answer<T>) {
    let slot = Arc::new(Mutex::new(Slot { answer: None, waker: None, over: false }));
    (Promise(Arc::clone(&slot)), Answer(slot))
}

impl<T> Promise<T> {
    pub(super) fn keep(self, answer: T) {
        lock(&self.0).answer = Some(answer);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let mut slot = lock(&self.0);
        slot.over = true;
        let waker = slot.waker.take();
        drop(slot);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Future for Answer<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = lock(&self.0);
        if slot.over {
            return Poll::Ready(slot.answer.take());
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
