//! Futures that may have to wait for something that is not there yet.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Polls a future as long as it says itself that it can go on; `None` if it waits for something else. It is dropped then.
pub(crate) fn poll<T>(future: impl Future<Output = T>) -> Option<T> {
    poll_at_most(future, usize::MAX)
}

/// The same, and no more often than that.
pub(crate) fn poll_at_most<T>(future: impl Future<Output = T>, mut times: usize) -> Option<T> {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    while times > 0 && woken.0.swap(false, Ordering::Relaxed) {
        times -= 1;
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
    }
    None
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::testing::yield_now;

    use super::*;

    #[test]
    fn what_yields_is_polled_again_and_what_waits_is_not() {
        assert_eq!(
            poll(async {
                yield_now().await;
                7
            }),
            Some(7)
        );
        assert_eq!(poll(std::future::pending::<()>()), None);
    }
}
