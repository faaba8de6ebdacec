//! What all queues of a carrier decide by.

use std::sync::{Mutex, PoisonError};
use std::time::Instant as Clock;

use overlay_core::Instant;
use overlay_datapath::{Config, Datapath};

/// One datapath for all queues, so that it is the same which of them a packet meets.
pub(super) struct Shared {
    datapath: Mutex<Datapath>,
    origin: Clock,
}

impl Shared {
    pub(super) fn new(config: Config, seed: [u8; 32]) -> Self {
        Self { datapath: Mutex::new(Datapath::new(config, seed, Instant::ZERO)), origin: clock() }
    }

    /// Has it decide. One queue's batch is decided after the other's, so time never goes back for it.
    pub(super) fn decide<T>(&self, decide: impl FnOnce(&mut Datapath, Instant) -> T) -> T {
        // Of a thread that has panicked the carrier tells; what others carry goes on until then.
        let mut datapath = self.datapath.lock().unwrap_or_else(PoisonError::into_inner);
        decide(&mut datapath, self.now())
    }

    pub(super) fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of threads that carry real packets")]
fn clock() -> Clock {
    Clock::now()
}
