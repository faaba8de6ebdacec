//! When there is something to do.

use overlay_core::Instant;

use crate::tables::Tables;

impl Tables {
    pub(super) fn next_due(&self) -> Option<Instant> {
        let compared = self.replicas.iter().filter(|(network, _)| !self.members.subscribers(**network).is_empty());
        let timers = [
            self.round_due,
            (!self.greetings.is_empty()).then_some(self.greet_due),
            (!self.confirms.is_empty()).then_some(self.confirm_due),
            self.unacted.next_due(),
            self.awake.then_some(self.remind_due),
            self.hides.first().map(|(due, _)| *due),
            self.pulls.next_due(),
            compared.map(|(_, replica)| replica.pace.due).min(),
        ];
        timers.into_iter().flatten().min()
    }
}
