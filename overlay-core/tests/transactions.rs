//! Transactions and terms over a store that fails.
#![allow(clippy::unwrap_used, reason = "a test that fails")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use overlay_core::testing::{Dice, Executor, FlakyStore, block_on, yield_now};
use overlay_core::{
    Commit, CommitError, Key, Limits, Listing, MemoryStore, NodeId, Prefix, Reading, Revision, Seat, Snapshot, Store,
    StoreError, Term, TermRefusal, Transaction, TransactionError, Undecided, UnixTime, Watch,
};

type Decision<T> = Result<(Commit, T), Undecided<&'static str>>;

/// Takes the next number of a counter for `owner`, once: the counter and the owner's number are two keys.
fn take(snapshot: &Snapshot, owner: &Key) -> Decision<u64> {
    let counter = key("counter");
    snapshot.need([&counter, owner])?;
    if let Some(had) = snapshot.get(owner)? {
        return Ok((Commit::new(), number(&had.value)));
    }
    let next = snapshot.get(&counter)?.map_or(0, |entry| number(&entry.value)) + 1;
    let bytes = next.to_be_bytes().to_vec();
    Ok((Commit::new().put(counter, bytes.clone()).put(owner.clone(), bytes), next))
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

#[test]
fn of_many_that_claim_at_once_under_faults_each_gets_its_own_once() {
    let (mut lost, mut in_doubt) = (0, 0);
    for seed in 0..30 {
        let memory = MemoryStore::default();
        let store = Arc::new(FlakyStore::new(memory.clone(), Dice::new([seed; 32]), 4));
        let mut executor = Executor::new([seed; 32]);
        let tasks: Vec<_> = (0..20)
            .map(|owner| {
                let store = Arc::clone(&store);
                executor.spawn(async move {
                    let owner = key(&format!("owner/{owner}"));
                    let mut doubts = 0;
                    loop {
                        match Transaction::on(&*store).attempts(4).run(|snapshot| take(snapshot, &owner)).await {
                            Ok(done) => return (done.output, doubts),
                            Err(TransactionError::InDoubt(_)) => doubts += 1,
                            Err(TransactionError::Contended { .. } | TransactionError::Store(_)) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                        yield_now().await;
                    }
                })
            })
            .collect();
        executor.run().unwrap();
        let (mut numbers, doubts): (Vec<u64>, Vec<usize>) = tasks.iter().map(|task| task.take().unwrap()).unzip();
        store.calm();
        block_on(store.get(&key("counter"))).unwrap(); // what is late arrives
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=20).collect::<Vec<u64>>(), "seed {seed}");
        let owners = block_on(memory.list(&Prefix::new("owner/").unwrap())).unwrap();
        let mut kept: Vec<u64> = owners.entries.iter().map(|(_, entry)| number(&entry.value)).collect();
        kept.sort_unstable();
        assert_eq!(kept, numbers, "seed {seed}");
        lost += store.injected().lost_answers + store.injected().late;
        in_doubt += doubts.iter().sum::<usize>();
    }
    assert!(lost > 100 && in_doubt > 10, "{lost} lost, {in_doubt} in doubt");
}

#[test]
fn a_refusal_on_what_was_read_at_two_revisions_is_checked() {
    let store = MemoryStore::default();
    let (a, b) = (key("a"), key("b"));
    block_on(store.commit(Commit::new().put(a.clone(), "1"))).unwrap();
    // One of the two is there at every moment; somebody moves it between the two reads, once.
    let moved = Cell::new(false);
    let outcome = block_on(Transaction::on(&store).run(|snapshot| -> Decision<()> {
        if snapshot.get(&b)?.is_some() {
            return Ok((Commit::new(), ()));
        }
        if !moved.replace(true) {
            block_on(store.commit(Commit::new().delete(a.clone()).put(b.clone(), "1"))).unwrap();
        }
        match snapshot.get(&a)? {
            Some(_) => Ok((Commit::new(), ())),
            None => Err(Undecided::Refused("neither is there")),
        }
    }));
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[test]
fn a_listing_conflicts_with_what_comes_what_changes_and_what_goes() {
    let names = Prefix::new("name/").unwrap();
    let other = [
        Commit::new().put(names.key("new").unwrap(), ""),
        Commit::new().put(names.key("old").unwrap(), "changed"),
        Commit::new().delete(names.key("old").unwrap()),
    ];
    for other in other {
        let store = MemoryStore::default();
        block_on(store.commit(Commit::new().put(names.key("old").unwrap(), ""))).unwrap();
        let calls = Cell::new(0);
        let done = block_on(Transaction::on(&store).run(|snapshot| -> Decision<usize> {
            let count = snapshot.list(&names)?.len();
            let own = names.key("mine").unwrap();
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                block_on(store.commit(other.clone())).unwrap();
            }
            Ok((Commit::new().put(own, count.to_be_bytes().to_vec()), count))
        }));
        assert_eq!(calls.get(), 2, "{other:?}");
        assert_eq!(done.unwrap().output, block_on(store.list(&names)).unwrap().entries.len() - 1);
    }
}

#[test]
fn what_was_not_looked_at_may_change_and_must_not_be_written() {
    let store = MemoryStore::default();
    let (seen, unseen) = (key("seen"), key("unseen"));
    let calls = Cell::new(0);
    let decide = |snapshot: &Snapshot| -> Decision<()> {
        snapshot.get(&seen)?;
        calls.set(calls.get() + 1);
        block_on(store.commit(Commit::new().put(unseen.clone(), "changed"))).unwrap();
        Ok((Commit::new().put(seen.clone(), ""), ()))
    };
    block_on(Transaction::on(&store).reading([seen.clone(), unseen.clone()]).run(decide)).unwrap();
    assert_eq!(calls.get(), 1, "a change of what was read, but not looked at, is no conflict");

    let blind = block_on(Transaction::on(&store).reading([unseen.clone()]).run(|snapshot| -> Decision<()> {
        snapshot.get(&seen)?;
        Ok((Commit::new().delete(unseen.clone()), ()))
    }));
    assert!(matches!(blind, Err(TransactionError::Blind { key }) if key == unseen));
    assert!(block_on(store.get(&unseen)).unwrap().is_some());
}

/// Counts the reads of a store.
#[derive(Debug, Default)]
struct Counted {
    inner: MemoryStore,
    reads: Mutex<Vec<Vec<Key>>>,
}

impl Counted {
    fn reads(&self) -> Vec<Vec<Key>> {
        std::mem::take(&mut *self.reads.lock().unwrap())
    }
}

#[async_trait]
impl Store for Counted {
    async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        self.reads.lock().unwrap().push(keys.to_vec());
        self.inner.read(keys).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        self.inner.commit(commit).await
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix, from).await
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

/// Adds one to a number, and says what it has become.
fn add_one(snapshot: &Snapshot, at: &Key) -> Decision<u64> {
    let next = snapshot.get(at)?.map_or(0, |entry| number(&entry.value)) + 1;
    Ok((Commit::new().put(at.clone(), next.to_be_bytes().to_vec()), next))
}

#[test]
fn what_is_assumed_rightly_is_not_read_and_wrongly_costs_a_second_attempt() {
    let (store, at) = (Counted::default(), key("counter"));
    let run = |assumed: Option<overlay_core::Entry>| {
        let transaction = Transaction::on(&store).assuming([(at.clone(), assumed)]);
        (block_on(transaction.run(|snapshot| add_one(snapshot, &at))).unwrap().output, store.reads())
    };
    assert_eq!(run(None), (1, vec![]), "that there is nothing can be assumed, too");
    let first = block_on(store.inner.get(&at)).unwrap();
    assert_eq!(run(first.clone()), (2, vec![]));
    assert_eq!(run(first), (3, vec![vec![at.clone()]]), "it was read once, after the conflict");
    assert_eq!(run(None), (4, vec![vec![at.clone()]]));
}

#[test]
fn a_refusal_on_what_was_assumed_is_checked_before_it_is_given() {
    let (store, name) = (Counted::default(), key("name"));
    let free = |snapshot: &Snapshot| -> Decision<()> {
        match snapshot.get(&name)? {
            Some(_) => Err(Undecided::Refused("taken")),
            None => Ok((Commit::new().put(name.clone(), "ours"), ())),
        }
    };
    let gone = overlay_core::Entry { value: "theirs".into(), revision: Revision(7) };
    let assuming = |entry| block_on(Transaction::on(&store).assuming([(name.clone(), Some(entry))]).run(free));
    assert_eq!(assuming(gone.clone()).unwrap().output, (), "a refusal that is not true any more is none");
    let there = block_on(store.inner.get(&name)).unwrap().unwrap();
    assert_eq!(assuming(there).unwrap_err().refusal(), Some(&"taken"));
    assert_eq!(assuming(gone).unwrap_err().refusal(), Some(&"taken"), "read again, it is taken by another commit");
}

#[test]
fn of_a_key_assumed_twice_the_last_counts_and_one_attempt_rests_on_it() {
    let (store, at) = (Counted::default(), key("counter"));
    block_on(store.inner.commit(Commit::new().put(at.clone(), 6_u64.to_be_bytes().to_vec()))).unwrap();
    let there = block_on(store.inner.get(&at)).unwrap();
    let transaction = Transaction::on(&store).assuming([(at.clone(), None), (at.clone(), there)]).attempts(1);
    assert_eq!(block_on(transaction.run(|snapshot| add_one(snapshot, &at))).unwrap().output, 7);
    let wrong = Transaction::on(&store).assuming([(at.clone(), None)]).attempts(1);
    let contended = block_on(wrong.run(|snapshot| add_one(snapshot, &at)));
    assert!(matches!(contended, Err(TransactionError::Contended { attempts: 1, .. })), "{contended:?}");
}

#[test]
fn what_is_peeked_at_may_change_and_what_is_looked_at_as_well_may_not() {
    let (store, hint, at) = (MemoryStore::default(), key("hint"), key("at"));
    let run = |looks: bool| {
        let mut calls = 0;
        let decide = |snapshot: &Snapshot| -> Decision<usize> {
            snapshot.need([&hint, &at])?;
            calls += 1;
            let seen = snapshot.peek(&hint)?.map_or(0, |entry| entry.value.len());
            if looks {
                snapshot.get(&hint)?;
            }
            snapshot.get(&at)?;
            if calls == 1 {
                store.commit_now(Commit::new().put(hint.clone(), vec![7; seen + 1])).unwrap(); // somebody is faster
            }
            Ok((Commit::new().put(at.clone(), ""), seen))
        };
        let done = block_on(Transaction::on(&store).run(decide)).unwrap();
        (done.output, calls)
    };
    assert_eq!(run(false), (0, 1), "decided on what was so when it was read");
    assert_eq!(run(true), (2, 2), "compared, and decided anew");
}

#[test]
fn what_was_only_peeked_at_must_not_be_written() {
    let (store, at) = (MemoryStore::default(), key("at"));
    let blind = block_on(Transaction::on(&store).run(|snapshot| -> Decision<()> {
        snapshot.peek(&at)?;
        Ok((Commit::new().put(at.clone(), "x"), ()))
    }));
    assert!(matches!(&blind, Err(TransactionError::Blind { key }) if *key == at), "{blind:?}");
    assert!(store.is_empty());
}

#[test]
fn somebody_who_is_always_faster_ends_the_attempts() {
    let store = MemoryStore::default();
    let busy = key("busy");
    let outcome = block_on(Transaction::on(&store).attempts(5).run(|snapshot| -> Decision<()> {
        snapshot.get(&busy)?;
        block_on(store.commit(Commit::new().put(busy.clone(), "faster"))).unwrap();
        Ok((Commit::new().put(busy.clone(), "ours"), ()))
    }));
    assert!(matches!(outcome, Err(TransactionError::Contended { attempts: 5, compare: Some(_) })), "{outcome:?}");
    assert_eq!(block_on(store.get(&busy)).unwrap().unwrap().value, "faster");
}

/// Keeps the first commit back, with its answer lost.
#[derive(Debug, Default)]
struct LateStore {
    memory: MemoryStore,
    late: Mutex<Option<Commit>>,
    kept: AtomicBool,
}

impl LateStore {
    /// What was kept back arrives.
    fn arrive(&self) -> bool {
        let late = self.late.lock().unwrap().take();
        late.is_some_and(|commit| self.memory.commit_now(commit).is_ok())
    }
}

#[async_trait]
impl Store for LateStore {
    async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        self.memory.read(keys).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.memory.list(prefix).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        if self.kept.swap(true, Ordering::Relaxed) {
            return self.memory.commit(commit).await;
        }
        *self.late.lock().unwrap() = Some(commit);
        let source = "it is on its way".into();
        Err(CommitError::Ambiguous(StoreError::Unavailable { doing: "commit", source }))
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.memory.watch(prefix, from).await
    }

    fn limits(&self) -> Limits {
        self.memory.limits()
    }
}

#[test]
fn nothing_is_called_refused_or_done_while_a_lost_commit_may_still_arrive() {
    let (lease, elsewhere) = (key("lease"), key("elsewhere"));
    // The second call of a decision refuses, writes something else, or writes nothing.
    let changes_its_mind = |store: &LateStore, second: fn(&Key) -> Decision<()>| {
        let calls = Cell::new(0);
        block_on(Transaction::on(store).run(|snapshot| {
            snapshot.need([&lease, &elsewhere])?;
            snapshot.get(if calls.get() == 0 { &lease } else { &elsewhere })?;
            calls.set(calls.get() + usize::from(calls.get() == 0));
            if calls.replace(2) == 1 { Ok((Commit::new().put(lease.clone(), "late"), ())) } else { second(&elsewhere) }
        }))
    };
    let seconds: [fn(&Key) -> Decision<()>; 3] = [
        |_| Err(Undecided::Refused("too late")),
        |_| Ok((Commit::new(), ())),
        |elsewhere| Ok((Commit::new().put(elsewhere.clone(), ""), ())),
    ];
    for second in seconds {
        let store = LateStore::default();
        let outcome = changes_its_mind(&store, second);
        assert!(matches!(outcome, Err(TransactionError::InDoubt(_))), "{outcome:?}");
        assert!(store.arrive(), "it was in doubt for a reason");
    }
}

#[test]
fn a_lost_commit_that_was_overtaken_leaves_no_doubt() {
    let store = LateStore::default();
    let lease = key("lease");
    let outcome = block_on(Transaction::on(&store).run(|snapshot| -> Decision<()> {
        if snapshot.get(&lease)?.is_some() {
            return Err(Undecided::Refused("another's"));
        }
        if store.kept.load(Ordering::Relaxed) {
            return Err(Undecided::Refused("not reached"));
        }
        block_on(store.memory.commit(Commit::new().put(lease.clone(), "another's"))).unwrap();
        Ok((Commit::new().put(lease.clone(), "ours"), ()))
    }));
    assert_eq!(outcome.unwrap_err().refusal(), Some(&"another's"));
    assert!(!store.arrive(), "it cannot come any more");

    let store = LateStore::default();
    let done = block_on(Transaction::on(&store).run(|snapshot| -> Decision<()> {
        snapshot.get(&lease)?;
        Ok((Commit::new().put(lease.clone(), "ours"), ()))
    }));
    assert!(done.is_ok(), "the repetition is done: {done:?}");
    assert!(!store.arrive(), "so the lost one cannot come any more");
}

#[test]
fn a_decision_that_never_has_enough_is_ended() {
    let store = MemoryStore::default();
    let asked = Cell::new(0);
    let outcome = block_on(Transaction::on(&store).run(|snapshot| -> Decision<()> {
        asked.set(asked.get() + 1);
        snapshot.get(&key(&format!("one more {}", asked.get())))?;
        Ok((Commit::new(), ()))
    }));
    assert!(matches!(outcome, Err(TransactionError::Endless)), "{outcome:?}");
}

const START: UnixTime = UnixTime::from_millis(1_767_225_600_000);

fn seat(holder: u8) -> Seat {
    Seat::new(&Prefix::new("manager/").unwrap(), NodeId::from_bytes([holder; 16])).unwrap()
}

#[test]
fn a_deposed_leader_that_stalls_and_wakes_writes_nothing() {
    let store = MemoryStore::default();
    let old = block_on(Term::campaign(&store, &seat(1), START)).unwrap();
    let paused = Cell::new(false);
    let catalogue = key("catalogue");
    let write = |snapshot: &Snapshot| -> Decision<()> {
        snapshot.get(&catalogue)?;
        if !paused.replace(true) {
            let later = START + Duration::from_secs(60); // it stalls here; another is elected, and writes nothing yet
            block_on(Term::campaign(&store, &seat(2), later)).unwrap();
        }
        Ok((Commit::new().put(catalogue.clone(), "of the old one"), ()))
    };
    let outcome = block_on(Transaction::on(&store).fenced(&old).run(write));
    assert!(matches!(outcome, Err(TransactionError::Deposed)), "{outcome:?}");
    assert_eq!(block_on(store.get(&catalogue)).unwrap(), None);
    let read = block_on(Transaction::on(&store).fenced(&old).run(|_| -> Decision<()> { Ok((Commit::new(), ())) }));
    assert!(matches!(read, Err(TransactionError::Deposed)), "not even what it reads counts: {read:?}");
}

#[test]
fn renewing_disturbs_nothing_and_keeps_others_out() {
    let store = MemoryStore::default();
    let mut term = block_on(Term::campaign(&store, &seat(1), START)).unwrap();
    let held = term.clone();
    for seconds in 1..100 {
        let now = START + Duration::from_secs(10 * seconds);
        block_on(term.renew(&store, now)).unwrap();
        let refused = block_on(Term::campaign(&store, &seat(2), now + Duration::from_secs(16))).unwrap_err();
        let until = now + Duration::from_secs(15);
        let holder = seat(1).holder;
        assert_eq!(refused.refusal(), Some(&TermRefusal::Held { holder, number: 1, until }));
    }
    let fenced = Transaction::on(&store).fenced(&held).run(|snapshot| -> Decision<()> {
        snapshot.get(&key("catalogue"))?;
        Ok((Commit::new().put(key("catalogue"), ""), ()))
    });
    block_on(fenced).unwrap(); // a clone from before 99 renewals still fences
}

#[test]
fn a_term_ends_by_time_by_resigning_by_force_and_by_its_holders_restart() {
    let store = MemoryStore::default();
    let first = block_on(Term::campaign(&store, &seat(1), START)).unwrap();
    let (end, skew) = (START + Duration::from_secs(15), Duration::from_secs(2));
    assert!(!first.is_over(START) && first.is_over(end));
    assert!(block_on(Term::campaign(&store, &seat(2), end + skew)).is_err());
    let mut second = block_on(Term::campaign(&store, &seat(2), end + skew + Duration::from_millis(1))).unwrap();
    let mut late = first.clone();
    let refused = block_on(late.renew(&store, end)).unwrap_err();
    assert!(matches!(refused.refusal(), Some(TermRefusal::Held { number: 2, .. })), "{refused:?}");
    assert!(block_on(first.resign(&store)).is_err(), "it has nothing to give up");

    let restarted = block_on(Term::campaign(&store, &seat(2), end)).unwrap();
    assert_eq!((second.number(), restarted.number()), (2, 3));
    assert!(block_on(second.renew(&store, end)).is_err(), "what ran before the restart is fenced off");

    block_on(restarted.clone().resign(&store)).unwrap();
    let next = block_on(Term::campaign(&store, &seat(1), START)).unwrap();
    assert_eq!(next.number(), 4);
    let taken = block_on(Term::usurp(&store, &seat(2), START)).unwrap();
    assert_eq!(taken.number(), 5);
    let fenced = Transaction::on(&store).fenced(&restarted).run(|_| -> Decision<()> { Ok((Commit::new(), ())) });
    assert!(matches!(block_on(fenced), Err(TransactionError::Deposed)));
}

#[test]
fn who_held_a_term_of_a_store_that_was_emptied_ends_nobody_elses() {
    let store = MemoryStore::default();
    let lost = block_on(Term::campaign(&store, &seat(1), START)).unwrap();
    let all = block_on(store.list(&Prefix::ALL)).unwrap().entries;
    block_on(store.commit(all.iter().fold(Commit::new(), |commit, (key, _)| commit.delete(key.clone())))).unwrap();
    let mut term = block_on(Term::campaign(&store, &seat(2), START)).unwrap();
    assert_eq!(term.number(), lost.number(), "terms are counted anew");
    let refused = block_on(lost.resign(&store)).unwrap_err();
    assert!(matches!(refused.refusal(), Some(TermRefusal::Held { holder, .. }) if *holder == seat(2).holder));
    block_on(term.renew(&store, START)).unwrap(); // it goes on
}

#[test]
fn a_record_that_makes_no_sense_is_refused_and_left_alone() {
    for record in
        [&b""[..], b"\x01", b"\x02\0\0\0\0\0\0\0\x01................", b"\x01\0\0\0\0\0\0\0\x01..............."]
    {
        let store = MemoryStore::default();
        let term = key("manager/term");
        block_on(store.commit(Commit::new().put(term.clone(), record.to_vec()))).unwrap();
        let refused = block_on(Term::campaign(&store, &seat(1), START)).unwrap_err();
        assert_eq!(refused.refusal(), Some(&TermRefusal::Foreign), "{record:?}");
        assert_eq!(block_on(store.get(&term)).unwrap().unwrap().value, record);
    }
}

#[test]
fn candidates_under_faults_get_terms_of_their_own_and_only_the_last_writes() {
    let mut elected = 0;
    for seed in 0..30 {
        let memory = MemoryStore::default();
        let store = Arc::new(FlakyStore::new(memory.clone(), Dice::new([seed; 32]), 4));
        let mut executor = Executor::new([seed; 32]);
        let writes = Rc::new(Cell::new(0_u64)); // the highest term that has written
        let tasks: Vec<_> = (1..4)
            .map(|holder| {
                let (store, writes) = (Arc::clone(&store), Rc::clone(&writes));
                executor.spawn(async move {
                    let mut numbers = Vec::new();
                    for round in 0..10 {
                        let now = START + Duration::from_secs(20 * round);
                        let Ok(term) = Term::campaign(&*store, &seat(holder), now).await else { continue };
                        numbers.push(term.number());
                        for _ in 0..3 {
                            let decide = |snapshot: &Snapshot| -> Decision<u64> {
                                let before = snapshot.get(&key("leader"))?.map_or(0, |entry| number(&entry.value));
                                let record = term.number().to_be_bytes().to_vec();
                                Ok((Commit::new().put(key("leader"), record), before))
                            };
                            if let Ok(done) = Transaction::on(&*store).fenced(&term).run(decide).await {
                                assert!(
                                    done.output <= term.number(),
                                    "seed {seed}: {} after {}",
                                    term.number(),
                                    done.output
                                );
                                writes.set(writes.get() + 1);
                            }
                        }
                    }
                    numbers
                })
            })
            .collect();
        executor.run().unwrap();
        let mut numbers: Vec<u64> = tasks.iter().flat_map(|task| task.take().unwrap()).collect();
        elected += numbers.len();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: one term held twice: {numbers:?}");
        assert!(writes.get() > 0, "seed {seed}");
    }
    assert!(elected > 100, "{elected}");
}

#[test]
fn a_commit_of_ones_own_whose_answer_was_lost_is_neither_forgotten_nor_done_twice() {
    let (mut lost_answers, mut doubted) = (0, 0);
    for seed in 0..100_u8 {
        let store = FlakyStore::new(MemoryStore::default(), Dice::new([seed; 32]), 3);
        let mut numbers = Vec::new();
        for owner in (0..20).map(|number| key(&format!("owner/{number}"))) {
            let number = loop {
                let counter = key("counter");
                let Ok(was) = block_on(store.get(&counter)) else { continue };
                let next = was.as_ref().map_or(0, |entry| number(&entry.value)) + 1;
                let compared = [(counter.clone(), was.map(|entry| entry.revision)), (owner.clone(), None)];
                let bytes = next.to_be_bytes().to_vec();
                let commit = Commit::new().absent(owner.clone()).put(counter.clone(), bytes.clone());
                let commit = match compared[0].1 {
                    Some(revision) => commit.unchanged(counter.clone(), revision),
                    None => commit.absent(counter.clone()),
                };
                let transaction = Transaction::on(&store);
                let done = match block_on(store.commit(commit.put(owner.clone(), bytes))) {
                    Ok(_) => break next,
                    Err(CommitError::Ambiguous(lost)) => {
                        lost_answers += 1;
                        block_on(transaction.run_after(compared, lost, |snapshot| {
                            assert!(snapshot.lost_answers() > 0);
                            take(snapshot, &owner)
                        }))
                    }
                    Err(_) => block_on(transaction.run(|snapshot| take(snapshot, &owner))),
                };
                match done {
                    Ok(done) => break done.output,
                    Err(error) => doubted += usize::from(matches!(error, TransactionError::InDoubt(_))),
                }
            };
            numbers.push(number);
        }
        store.calm();
        assert_eq!(numbers, (1..=20).collect::<Vec<u64>>(), "seed {seed}");
    }
    assert!(lost_answers > 100 && doubted > 0, "{lost_answers} {doubted}");
}

#[test]
fn a_refusal_after_a_lost_commit_of_ones_own_says_that_it_may_be_done() {
    let (store, name) = (MemoryStore::default(), key("name"));
    let lost = || StoreError::Failed { doing: "commit", source: "no answer".into() };
    let refuse = |snapshot: &Snapshot| -> Decision<()> {
        snapshot.get(&name)?;
        Err(Undecided::Refused("no"))
    };
    let refused = block_on(Transaction::on(&store).run_after([(name.clone(), None)], lost(), refuse));
    assert!(matches!(refused, Err(TransactionError::InDoubt(_))), "{refused:?}");
    block_on(store.commit(Commit::new().put(name.clone(), "another's"))).unwrap();
    let refused = block_on(Transaction::on(&store).run_after([(name.clone(), None)], lost(), refuse));
    assert_eq!(refused.unwrap_err().refusal(), Some(&"no"), "it cannot be done any more");
}
