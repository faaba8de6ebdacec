//! How much was sealed with this node's keys.

use std::collections::BTreeMap;

use overlay_crypto::{Direction, SaId, Usage};
use overlay_node::{Input, Place, PlaceState};

use super::{Heart, News};
use crate::ground::Ground;

/// When it is looked at next.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// The host changed: an association may have come to its soft limit.
    is_hinted: bool,
    is_looking: bool,
    /// Ticks of the watch since it was looked at.
    ticks: u32,
}

/// It is looked at within so many ticks of the watch, 10 s, also if no hint came.
const TICKS: u32 = 20;

impl<G: Ground> Heart<G> {
    pub(super) const fn hint_usage(&mut self) {
        self.state.used.is_hinted = true;
    }

    pub(super) fn watch_usage(&mut self) {
        let used = &mut self.state.used;
        used.ticks = used.ticks.saturating_add(1);
        if used.is_looking || !used.is_hinted && used.ticks < TICKS {
            return;
        }
        let seals = self.state.held.get(&Place::Host).is_some_and(|host| seals(host));
        *used = Used { is_looking: seals, ..Used::default() };
        if !seals {
            return;
        }
        let (mut ground, news) = (self.ground.clone(), self.news.clone());
        self.jobs.run(move || {
            let usage = ground.usage().unwrap_or_default(); // a host that cannot be looked at fails elsewhere
            let _ = news.send(News::Used(usage));
        });
    }

    pub(super) fn take_usage(&mut self, usage: BTreeMap<SaId, Usage>) {
        self.state.used.is_looking = false;
        self.tell(Input::Used(usage));
    }
}

fn seals(host: &PlaceState) -> bool {
    host.crypto.sas.values().any(|sa| sa.direction == Direction::Out)
}
