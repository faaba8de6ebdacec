//! What happened in a simulation.

use overlay_core::testing::Injected;

#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) operations: u64,
    pub(crate) granted: u64,
    /// Claims that found what the owner had.
    pub(crate) again: u64,
    pub(crate) released: u64,
    pub(crate) gone: u64,
    /// Releases that found a later lease of the owner.
    pub(crate) overtaken: u64,
    pub(crate) fenced: u64,
    pub(crate) exhausted: u64,
    pub(crate) taken: u64,
    pub(crate) unsure: u64,
    pub(crate) crashes: u64,
    pub(crate) restarts: u64,
    /// Grants of addresses that were leased before, after their rest.
    pub(crate) reused: u64,
    pub(crate) leaked: u64,
    /// Two managers claimed for one owner at once.
    pub(crate) raced: u64,
    pub(crate) looks: u64,
    pub(crate) stores: Injected,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        let sum = |mine: &mut u64, theirs: u64| *mine += theirs;
        sum(&mut self.operations, other.operations);
        sum(&mut self.granted, other.granted);
        sum(&mut self.again, other.again);
        sum(&mut self.released, other.released);
        sum(&mut self.gone, other.gone);
        sum(&mut self.overtaken, other.overtaken);
        sum(&mut self.fenced, other.fenced);
        sum(&mut self.exhausted, other.exhausted);
        sum(&mut self.taken, other.taken);
        sum(&mut self.unsure, other.unsure);
        sum(&mut self.crashes, other.crashes);
        sum(&mut self.restarts, other.restarts);
        sum(&mut self.reused, other.reused);
        sum(&mut self.leaked, other.leaked);
        sum(&mut self.raced, other.raced);
        sum(&mut self.looks, other.looks);
        sum(&mut self.stores.lost_answers, other.stores.lost_answers);
        sum(&mut self.stores.lost_requests, other.stores.lost_requests);
        sum(&mut self.stores.late_done, other.stores.late_done);
        sum(&mut self.stores.refused, other.stores.refused);
    }

    /// Whether there was some of everything that can be expected in a short run.
    pub(crate) fn all_happened(&self) -> bool {
        let all = [
            self.granted,
            self.again,
            self.released,
            self.gone,
            self.fenced,
            self.exhausted,
            self.taken,
            self.unsure,
            self.crashes,
            self.restarts,
            self.reused,
            self.leaked,
            self.raced,
            self.stores.lost_answers,
            self.stores.lost_requests,
            self.stores.late_done,
            self.stores.refused,
        ];
        all.iter().all(|count| *count > 0)
    }
}
