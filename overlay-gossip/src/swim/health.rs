//! Whether this node itself is slow.

use std::time::Duration;

/// Local health (Lifeguard §4.1): 0 is well. A node that misses answers which others get slows its own accusations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Health {
    level: u8,
    limit: u8,
}

impl Health {
    pub(super) const fn new(limit: u8) -> Self {
        Self { level: 0, limit }
    }

    pub(super) const fn level(self) -> u8 {
        self.level
    }

    pub(super) fn worse(&mut self, by: usize) {
        self.level = self.level.saturating_add(by.min(255) as u8).min(self.limit);
    }

    pub(super) const fn better(&mut self) {
        self.level = self.level.saturating_sub(1);
    }

    /// `span` as long as this health makes it.
    pub(super) fn stretch(self, span: Duration) -> Duration {
        span * (u32::from(self.level) + 1)
    }
}
