//! Choosing and claiming: read, decide, commit, and again if somebody was faster.

use std::mem;

use super::snapshot::{Decision, ROUNDS};
use crate::{Commit, CommitError, Compare, Entry, Key, Revision, Snapshot, Store, StoreError, Term, Undecided, Unread};

/// Reads what a decision asks for, commits what it says, and decides anew when somebody was faster: a bounded number of times.
///
/// The decision is a pure function of a [`Snapshot`] (and of the intent and the time that its closure captured). It
/// is called several times: until it has read all it needs, and again after a conflict. It awaits nothing, the transaction
/// awaits only the store. What it read is what the commit compares, absences too: nothing has to be listed by hand.
///
/// # Lost answers
/// When the answer to a commit is lost, the transaction reads and decides again. So an intent must be idempotent: a
/// decision that finds its own effect (the lease of this owner, the network of this name) says so and changes nothing.
/// A key that is written must have been read, which the transaction checks: then the lost commit and its
/// repetition conflict, and never both take effect. Where even so nobody can know, the error is
/// [`InDoubt`](TransactionError::InDoubt).
///
/// ```
/// use overlay_core::testing::block_on;
/// use overlay_core::{Commit, Key, MemoryStore, Snapshot, Transaction, Undecided};
///
/// /// Claims the name for an owner, once.
/// fn claim(snapshot: &Snapshot, name: &Key, owner: &'static str) -> Result<(Commit, ()), Undecided<&'static str>> {
///     match snapshot.get(name)? {
///         None => Ok((Commit::new().put(name.clone(), owner), ())),
///         Some(entry) if entry.value == owner => Ok((Commit::new(), ())), // ours already: a repetition
///         Some(_) => Err(Undecided::Refused("taken")),
///     }
/// }
///
/// let store = MemoryStore::default();
/// let name = Key::new("name/web")?;
/// block_on(Transaction::on(&store).run(|snapshot| claim(snapshot, &name, "a")))?;
/// block_on(Transaction::on(&store).run(|snapshot| claim(snapshot, &name, "a")))?;
/// let refused = block_on(Transaction::on(&store).run(|snapshot| claim(snapshot, &name, "b")));
/// assert_eq!(refused.unwrap_err().refusal(), Some(&"taken"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it does nothing until it is run"]
#[derive(Debug, Clone)]
pub struct Transaction<'s> {
    store: &'s dyn Store,
    term: Option<&'s Term>,
    attempts: u32,
    wanted: Unread,
    known: Snapshot,
}

impl<'s> Transaction<'s> {
    /// How many commits are tried unless [`attempts`](Self::attempts) says otherwise.
    pub const ATTEMPTS: u32 = 16;

    /// A transaction on `store`.
    pub fn on(store: &'s dyn Store) -> Self {
        Self { store, term: None, attempts: Self::ATTEMPTS, wanted: Unread::default(), known: Snapshot::default() }
    }

    /// Only as long as `term` is the current one: who was deposed changes nothing.
    pub fn fenced(mut self, term: &'s Term) -> Self {
        self.term = Some(term);
        self
    }

    /// Tries at most so many commits, at least one.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Reads these keys before the first call of the decision, in one round trip: those it will surely ask for.
    pub fn reading(mut self, keys: impl IntoIterator<Item = Key>) -> Self {
        self.wanted.keys.extend(keys);
        self
    }

    /// Takes these for what is under the keys at first, without reading them: what this process put or read before, and
    /// is likely to be there still. What is decided on them is compared like everything that is looked at, refusals too;
    /// where they prove wrong, the next attempt reads.
    pub fn assuming(mut self, entries: impl IntoIterator<Item = (Key, Option<Entry>)>) -> Self {
        self.known.assume(entries, self.wanted.keys.len());
        self
    }

    /// Decides and commits.
    ///
    /// A refusal is as true as a result: if it was decided on what was read at several revisions, it is checked that
    /// all of it was so at one.
    ///
    /// # Errors
    /// The decision's refusal, what the store was short of, or that somebody was faster too often. Nothing was
    /// changed unless it says [`InDoubt`](TransactionError::InDoubt).
    pub fn run<T, R>(
        self,
        decide: impl FnMut(&Snapshot) -> Result<(Commit, T), Undecided<R>>,
    ) -> impl Future<Output = Result<Done<T>, TransactionError<R>>> {
        self.attempt(Doubt::default(), decide)
    }

    /// As [`run`](Self::run), by one who has tried already: by a commit that compared these keys, each with the commit that had put it
    /// last, and whose answer was lost. That counts as an attempt of this transaction; what it compared is read.
    ///
    /// For commits that are so plain that they need no transaction, until an answer is lost.
    ///
    /// # Errors
    /// As there.
    pub fn run_after<T, R>(
        mut self,
        compared: impl IntoIterator<Item = (Key, Option<Revision>)>,
        lost: StoreError,
        decide: impl FnMut(&Snapshot) -> Result<(Commit, T), Undecided<R>>,
    ) -> impl Future<Output = Result<Done<T>, TransactionError<R>>> {
        let mut doubt = Doubt::default();
        let compared = Snapshot::compared(compared);
        self.wanted.keys.extend(compared.wanted().keys);
        self.wanted.keys.sort_unstable();
        self.wanted.keys.dedup();
        doubt.add(compared, lost);
        self.attempt(doubt, decide)
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "it would hold twice what it is given, and futures of callers grow by it"
    )]
    fn attempt<T, R>(
        mut self,
        mut doubt: Doubt,
        mut decide: impl FnMut(&Snapshot) -> Result<(Commit, T), Undecided<R>>,
    ) -> impl Future<Output = Result<Done<T>, TransactionError<R>>> {
        async move {
            let mut lost = doubt.lost.len() as u32;
            for attempt in 1..=self.attempts {
                self.known.lost = lost;
                let decision = self.decide(&mut decide).await;
                let (commit, outcome) = match decision.map_err(|error| doubt.or(error))? {
                    Ok((commit, output)) => (commit, Ok(output)),
                    Err(refusal) => (Commit::new(), Err(refusal)),
                };
                let (changes, cleared) = (!commit.is_empty(), doubt.is_cleared_by(&self.known, &commit));
                let submitted = match self.prepare(commit) {
                    Ok(Some(commit)) => self.store.commit(commit).await.map_err(|error| self.failed(error, changes)),
                    Ok(None) => Ok(self.known.at()),
                    Err(error) => Err(error),
                };
                let snapshot = mem::take(&mut self.known);
                match submitted {
                    Ok(at) if cleared => {
                        return outcome.map(|output| Done { output, at }).map_err(TransactionError::Refused);
                    }
                    Ok(_) => break,
                    Err(TransactionError::Contended { .. }) if attempt < self.attempts => {
                        self.wanted = doubt.wanted(&snapshot);
                    }
                    Err(TransactionError::InDoubt(error)) if changes => {
                        self.wanted = doubt.wanted(&snapshot);
                        doubt.add(snapshot, error);
                        lost += 1;
                    }
                    Err(error) => return Err(doubt.or(error)),
                }
            }
            Err(doubt.or(TransactionError::Contended { attempts: self.attempts, compare: None }))
        }
    }

    /// Reads until the decision has all it wants.
    async fn decide<T, R>(
        &mut self,
        decide: &mut impl FnMut(&Snapshot) -> Result<(Commit, T), Undecided<R>>,
    ) -> Result<Decision<T, R>, TransactionError<R>> {
        for _ in 0..ROUNDS {
            self.known.forget_known(&mut self.wanted);
            if !self.wanted.keys.is_empty() {
                let reading = self.store.read(&self.wanted.keys).await.map_err(TransactionError::Store)?;
                self.known.note_reading(self.wanted.keys.drain(..), reading);
            }
            while let Some(prefix) = self.wanted.prefixes.pop() {
                let listing = self.store.list(&prefix).await.map_err(TransactionError::Store)?;
                self.known.note_listing(prefix, listing);
            }
            match decide(&self.known) {
                Ok(decision) => return Ok(Ok(decision)),
                Err(Undecided::Refused(refusal)) => return Ok(Err(refusal)),
                Err(Undecided::Unread(more)) => self.wanted = more,
            }
            self.known.forget_looks();
        }
        Err(TransactionError::Endless)
    }

    /// The commit on the ground of what was looked at; `None` if nothing is to be done or checked.
    fn prepare<R>(&self, mut commit: Commit) -> Result<Option<Commit>, TransactionError<R>> {
        let is_compared = |key: &Key| {
            let compares = |compare: &Compare| matches!(compare, Compare::Key { key: other, .. } if other == key);
            commit.compares.iter().any(compares)
        };
        if let Some(key) = self.known.first_unseen(commit.written().filter(|key| !is_compared(key))) {
            return Err(TransactionError::Blind { key: key.clone() });
        }
        if commit.is_empty() && commit.compares.is_empty() && self.term.is_none() && self.known.is_of_one_revision() {
            return Ok(None);
        }
        let mut own = mem::take(&mut commit.compares);
        commit.compares.extend(self.term.map(Term::fence));
        self.known.compare(&mut commit.compares);
        commit.compares.append(&mut own);
        Ok(Some(commit))
    }

    /// What it means that a commit failed, which `changes` something or only compares.
    fn failed<R>(&self, error: CommitError, changes: bool) -> TransactionError<R> {
        match error {
            CommitError::Conflict { compare, .. } if self.is_fence(&compare) => TransactionError::Deposed,
            CommitError::Conflict { compare, .. } => {
                TransactionError::Contended { attempts: self.attempts, compare: Some(compare) }
            }
            CommitError::Ambiguous(error) if changes => TransactionError::InDoubt(error),
            CommitError::Ambiguous(error) | CommitError::Failed(error) => TransactionError::Store(error),
            refused @ (CommitError::TooLarge { .. } | CommitError::Twice { .. }) => TransactionError::Commit(refused),
        }
    }

    fn is_fence(&self, compare: &Compare) -> bool {
        self.term.is_some_and(|term| term.fence() == *compare)
    }
}

/// What a transaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done<T> {
    /// What the decision said.
    pub output: T,
    /// The revision at which it is in effect; where nothing had to be changed, one at which what was read was so.
    pub at: Revision,
}

/// Why a transaction did not come to a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError<R> {
    /// The decision refused. Nothing was changed.
    #[error("{0}")]
    Refused(R),
    /// Somebody else was faster, every time. Nothing was changed; try again after a while.
    #[error("gave up after {attempts} attempts: others were faster")]
    Contended {
        /// How many commits were tried.
        attempts: u32,
        /// What the last did not find as it had read it.
        compare: Option<Compare>,
    },
    /// The term is over: somebody else leads. Nothing was changed.
    #[error("the term this was done under is over")]
    Deposed,
    /// An answer was lost, and it could not be found out whether the change was made, or will be: the same intent once more
    /// finds what it did.
    #[error("the answer to a commit was lost: it may be done or not")]
    InDoubt(#[source] StoreError),
    /// The decision's commit is not one that this store takes. Nothing was changed.
    #[error("the decision makes no commit")]
    Commit(#[source] CommitError),
    /// The decision writes a key that it has not looked at. Nothing was changed. A mistake in the decision: repeated after a lost answer,
    /// such a change could be made twice.
    #[error("a decision that writes {key} without having read it")]
    Blind {
        /// The key.
        key: Key,
    },
    /// The decision asked for more a thousand times. Nothing was changed. A mistake in the decision.
    #[error("a decision that asks for more without end")]
    Endless,
    /// The store could not be read, or did not try to write. Nothing was changed.
    #[error("the store could not be used")]
    Store(#[source] StoreError),
}

impl<R> TransactionError<R> {
    /// The decision's refusal, if that is what it is.
    pub const fn refusal(&self) -> Option<&R> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// Commits whose answers were lost and that may still be done.
#[derive(Default)]
struct Doubt {
    lost: Vec<(Snapshot, StoreError)>,
}

impl Doubt {
    fn add(&mut self, snapshot: Snapshot, error: StoreError) {
        self.lost.push((snapshot, error));
    }

    /// Whether nothing is in doubt any more once `commit`, decided on `snapshot`, has succeeded.
    fn is_cleared_by(&mut self, snapshot: &Snapshot, commit: &Commit) -> bool {
        self.lost.retain(|(lost, _)| !snapshot.has_overtaken(lost));
        self.lost.iter().all(|(lost, _)| commit.written().any(|key| lost.has_looked_at(key)))
    }

    /// What has to be read for the next attempt: what this one looked at, and what tells whether a lost one was done.
    fn wanted(&self, snapshot: &Snapshot) -> Unread {
        let mut wanted = snapshot.wanted();
        for (lost, _) in &self.lost {
            let Unread { keys, prefixes } = lost.wanted();
            wanted.keys.extend(keys);
            wanted.prefixes.extend(prefixes);
        }
        if !self.lost.is_empty() {
            wanted.keys.sort_unstable();
            wanted.keys.dedup();
            wanted.prefixes.sort_unstable();
            wanted.prefixes.dedup();
        }
        wanted
    }

    /// `error` says that nothing was changed: true only if nothing is in doubt.
    fn or<R>(&mut self, error: TransactionError<R>) -> TransactionError<R> {
        self.lost.pop().map_or(error, |(_, lost)| TransactionError::InDoubt(lost))
    }
}
