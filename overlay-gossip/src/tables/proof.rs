//! What members show of themselves, for who has to verify what is said of them before the tables know them.

use overlay_core::{Instant, NodeId};

use crate::tables::accept::By;
use crate::tables::verify::{Disbelief, Verify, statement, voucher_key};
use crate::tables::wire::{Change, Group};
use crate::tables::{DIRECTORY, Tables, VOUCHERS};

impl Tables {
    /// Takes it that membership has a member's start proved before it tells of it: what was shown for that then counts already.
    pub(crate) fn with_proved_starts(self) -> Self {
        Self { proved_starts: true, ..self }
    }

    /// What a member, or this node, has shown of itself, as it is passed on.
    pub(crate) fn shown_by(&mut self, owner: NodeId, now: Instant) -> Option<Group> {
        self.sign_made(now);
        let incarnation = if owner == self.me { self.incarnation } else { self.members.get(owner)?.incarnation };
        let change = self.replicas.get(&DIRECTORY)?.chain(owner)?.change(VOUCHERS, &voucher_key()?)?;
        Some(Group { owner, incarnation, stable: 0, changes: vec![change] })
    }

    /// Takes in what was shown of a member that is one by now, and was [believed](Group::introduce), so that others can be shown it in turn.
    pub(crate) fn take_shown(&mut self, shown: Group, now: Instant) {
        self.accept(DIRECTORY, shown, By::Proof, now);
    }
}

impl Group {
    /// Has what its owner shows of itself believed, if it is that and nothing else.
    pub(crate) fn introduce(&self, verify: &dyn Verify) -> Result<(), Disbelief> {
        let [change @ Change { table: VOUCHERS, value: Some(voucher), .. }] = &self.changes[..] else {
            return Err(Disbelief::Forged);
        };
        verify.introduce(
            self.owner,
            voucher,
            &statement(DIRECTORY, self.owner, self.incarnation, change),
            &change.signature,
        )
    }
}
