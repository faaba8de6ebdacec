//! The stores of this crate under the laws of stores.
#![allow(clippy::unwrap_used, reason = "a test that fails")]

use overlay_core::testing::{Dice, FlakyStore, block_on, store_laws};
use overlay_core::{Commit, CommitError, Key, Limits, Listing, MemoryStore, Prefix, Revision, Store};

const LIMITS: Limits = Limits { operations: 128, value: 1 << 20, commit: 3 << 19 };

#[test]
fn the_store_in_memory_keeps_the_laws() {
    let store = MemoryStore::default().with_limits(LIMITS);
    block_on(store_laws::all(&store, &Prefix::new("laws/").unwrap()));
    block_on(store_laws::resets(&store, &Prefix::new("resets/").unwrap(), || async { store.compact() }));
}

#[test]
fn a_store_with_faults_that_has_calmed_down_keeps_the_laws() {
    let store = FlakyStore::new(MemoryStore::default().with_limits(LIMITS), Dice::new([1; 32]), 0);
    block_on(store_laws::all(&store, &Prefix::ALL));
}

#[test]
fn one_order_of_commits_explains_what_every_client_saw() {
    for seed in 0..40 {
        let store = MemoryStore::with_history(1 << 20);
        let tried = block_on(store_laws::interleaved(&store, &store, &Prefix::ALL, Dice::new([seed; 32]), 100));
        assert!(tried.done > 30 && tried.not_done > 10 && tried.reads > 50, "seed {seed}: {tried:?}");
    }
}

#[test]
fn faults_break_no_order_and_no_promise() {
    for seed in 0..40 {
        let store = MemoryStore::with_history(1 << 20);
        let flaky = FlakyStore::new(store.clone(), Dice::new([seed + 100; 32]), 5);
        let under = Prefix::new("flaky/").unwrap();
        let tried = block_on(store_laws::interleaved(&flaky, &store, &under, Dice::new([seed; 32]), 200));
        assert!(tried.lost > tried.lost_done && tried.lost_done > 0, "seed {seed}: {tried:?}");
        let injected = flaky.injected();
        assert!(
            injected.late_done > 0 && injected.lost_answers > 0 && injected.stalls > 0,
            "seed {seed}: {injected:?}"
        );
    }
}

#[test]
fn a_store_at_the_last_revision_takes_no_commit_and_still_reads() {
    let listing = Listing { at: Revision(u64::MAX - 1), entries: Vec::new() };
    let (store, key) = (MemoryStore::restored(listing), Key::new("key").unwrap());
    let last = block_on(store.commit(Commit::new().put(key.clone(), "last"))).unwrap();
    assert_eq!(last, Revision(u64::MAX));
    let refused = block_on(store.commit(Commit::new().put(key.clone(), "beyond"))).unwrap_err();
    assert!(matches!(refused, CommitError::Failed(_)), "{refused:?}");
    let held = block_on(store.get(&key)).unwrap().unwrap();
    assert_eq!((&held.value[..], held.revision), (&b"last"[..], last));
    let compares = Commit::new().unchanged(key, last);
    assert_eq!(block_on(store.commit(compares)).unwrap(), last, "what changes nothing needs no revision");
}
