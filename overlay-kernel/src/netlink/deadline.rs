//! How long a request may take.

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

/// A moment of real time after which an answer is no longer waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    start: Instant,
    span: Duration,
}

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "the kernel answers in real time or not at all")]
    pub(super) fn within(span: Duration) -> Self {
        Self { start: Instant::now(), span }
    }

    /// What is left, as `poll` wants it, rounded up to a millisecond; none once it has passed.
    pub(super) fn left(&self) -> Option<PollTimeout> {
        let left = self.span.checked_sub(self.start.elapsed())?;
        let millis = left.as_nanos().div_ceil(1_000_000);
        Some(PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX))
    }

    pub(super) const fn span(&self) -> Duration {
        self.span
    }
}
