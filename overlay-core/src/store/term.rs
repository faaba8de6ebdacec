//! Leadership that fences.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    Commit, Compare, Entry, Key, KeyError, NodeId, Prefix, Revision, Snapshot, Store, Transaction, TransactionError,
    Undecided, UnixTime, Unread,
};

/// A time of leadership over something, recorded in a store: what only a leader may do is done [fenced](Transaction::fenced) by it.
///
/// # Safety and clocks
/// That a deposed leader changes nothing rests on no clock: each term puts a record anew, and a fenced commit
/// compares that record's revision. A leader that stalled, woke and still believes to lead gets
/// [`Deposed`](TransactionError::Deposed). Clocks only decide when to give up on a leader: a term lasts
/// [`Seat::lasts`] from its last renewal; its leader stops at that date by its own clock ([`is_over`](Self::is_over)); others wait
/// [`Seat::skew`] longer by theirs. As long as no two clocks differ by more than `skew`, no two believe to lead at
/// once. A clock that is wrong by more costs waiting, or one fenced attempt, and [`usurp`](Self::usurp) ends a term that a wrong clock made long.
///
/// Renewing does not disturb fenced commits under way: the date is under a key of its own.
///
/// ```
/// use overlay_core::testing::block_on;
/// use overlay_core::{MemoryStore, NodeId, Prefix, Seat, Term, TransactionError, UnixTime};
///
/// let store = MemoryStore::default();
/// let managers = Prefix::new("manager/")?;
/// let (a, b) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
/// let now = UnixTime::from_millis(1_767_225_600_000);
///
/// let term = block_on(Term::campaign(&store, &Seat::new(&managers, a)?, now))?;
/// let refused = block_on(Term::campaign(&store, &Seat::new(&managers, b)?, now));
/// assert_eq!(refused.unwrap_err().to_string(), format!("{a} leads in term 1 until 2026-01-01T00:00:15.000Z"));
///
/// let later = now + std::time::Duration::from_secs(18); // 15 s, and 2 s for clocks that differ
/// let next = block_on(Term::campaign(&store, &Seat::new(&managers, b)?, later))?;
/// assert!(term.is_over(later) && next.number() == 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    seat: Seat,
    number: u64,
    revision: Revision,
    until: UnixTime,
}

impl Term {
    /// Begins a term, if the seat is free or its term over. A holder that has one already, before a restart say, begins another
    /// at once: what it did under the former is fenced off.
    ///
    /// # Errors
    /// [`TermRefusal::Held`], or what the store was short of.
    pub async fn campaign(
        store: &dyn Store,
        seat: &Seat,
        now: UnixTime,
    ) -> Result<Self, TransactionError<TermRefusal>> {
        Self::begin(store, seat, now, |held| held.holder == seat.holder || now > held.until + seat.skew).await
    }

    /// Begins a term whoever holds the seat: for a leader that is known to be gone, or whose clock was wrong. It is fenced off.
    ///
    /// # Errors
    /// What the store was short of.
    pub async fn usurp(store: &dyn Store, seat: &Seat, now: UnixTime) -> Result<Self, TransactionError<TermRefusal>> {
        Self::begin(store, seat, now, |_| true).await
    }

    async fn begin(
        store: &dyn Store,
        seat: &Seat,
        now: UnixTime,
        may: impl Fn(&Record) -> bool,
    ) -> Result<Self, TransactionError<TermRefusal>> {
        let until = now + seat.lasts;
        let done = Transaction::on(store).reading(seat.keys()).run(|snapshot| {
            let held = Record::of(snapshot, seat)?;
            if let Some(held) = held.as_ref().filter(|held| !may(held)) {
                return Err(held.refuse());
            }
            let number = held.map_or(1, |held| held.number.saturating_add(1));
            Ok((seat.begin(number, until), number))
        });
        let done = done.await?;
        Ok(Self { seat: seat.clone(), number: done.output, revision: done.at, until })
    }

    /// Makes it last [`Seat::lasts`] from `now`. Worth doing at a third of that. A term that is over but that nobody followed can be
    /// renewed still.
    ///
    /// # Errors
    /// [`TermRefusal::Held`] by who deposed it, or what the store was short of: then it is as it was, or renewed.
    pub async fn renew(&mut self, store: &dyn Store, now: UnixTime) -> Result<(), TransactionError<TermRefusal>> {
        let until = self.until.max(now + self.seat.lasts);
        let renewed = Transaction::on(store).reading(self.seat.keys()).run(|snapshot| {
            self.check(snapshot)?;
            snapshot.get(&self.seat.lease)?;
            Ok((Commit::new().put(self.seat.lease.clone(), lease(self.number, until)), ()))
        });
        renewed.await?;
        self.until = until;
        Ok(())
    }

    /// Ends it now, so that others need not wait. It is fenced off: this holder's clones of it, too.
    ///
    /// # Errors
    /// [`TermRefusal::Held`] by who has deposed it already, or what the store was short of.
    pub async fn resign(self, store: &dyn Store) -> Result<(), TransactionError<TermRefusal>> {
        let resigned = Transaction::on(store).reading(self.seat.keys()).run(|snapshot| {
            let Some(held) = Record::of(snapshot, &self.seat)? else {
                return Ok((Commit::new(), ()));
            };
            let is_ours = held.number == self.number && held.holder == self.seat.holder;
            match self.is_current(snapshot)? {
                true => Ok((self.seat.begin(self.number, UnixTime::EPOCH), ())),
                false if is_ours && held.until == UnixTime::EPOCH => Ok((Commit::new(), ())), // done by an attempt whose answer was lost
                false => Err(held.refuse()),
            }
        });
        resigned.await.map(drop)
    }

    /// What must hold for anything that is done under it.
    pub fn fence(&self) -> Compare {
        Compare::Key { key: self.seat.term.clone(), revision: Some(self.revision) }
    }

    /// Which term of its seat it is, from 1 on: a later one has a higher number.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Up to when it lasts, unless it is renewed.
    pub const fn until(&self) -> UnixTime {
        self.until
    }

    /// Whether its leader has to stop to believe in it.
    pub fn is_over(&self, now: UnixTime) -> bool {
        now >= self.until
    }

    /// Whether the record is that of this term: a number comes again where a store was emptied.
    fn is_current(&self, snapshot: &Snapshot) -> Result<bool, Unread> {
        Ok(snapshot.get(&self.seat.term)?.is_some_and(|entry| entry.revision == self.revision))
    }

    fn check(&self, snapshot: &Snapshot) -> Result<(), Undecided<TermRefusal>> {
        let current = self.is_current(snapshot)?;
        match Record::of(snapshot, &self.seat)? {
            _ if current => Ok(()),
            Some(held) => Err(held.refuse()),
            None => Err(Undecided::Refused(TermRefusal::Vacant)),
        }
    }
}

/// What a term is over, who wants it, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    term: Key,
    lease: Key,
    /// Who campaigns. No two processes that live at once may be the same.
    pub holder: NodeId,
    /// How long a term lasts without renewal, 15 s if nothing else is said: long enough for three renewals of which two fail, short enough
    /// to be without a leader for.
    pub lasts: Duration,
    /// By how much any two managers' clocks may differ, 2 s if nothing else is said: time synchronisation keeps
    /// them within a few milliseconds, and a leap of a second is allowed for.
    pub skew: Duration,
}

impl Seat {
    /// The seat that has its two records under `prefix`, for `holder`.
    ///
    /// # Errors
    /// If the prefix is too long.
    pub fn new(prefix: &Prefix, holder: NodeId) -> Result<Self, KeyError> {
        let (lasts, skew) = (Duration::from_secs(15), Duration::from_secs(2));
        Ok(Self { term: prefix.key("term")?, lease: prefix.key("lease")?, holder, lasts, skew })
    }

    fn keys(&self) -> [Key; 2] {
        [self.term.clone(), self.lease.clone()]
    }

    /// Puts both records.
    fn begin(&self, number: u64, until: UnixTime) -> Commit {
        let term = [&[FORMAT][..], &number.to_be_bytes(), &self.holder.to_bytes()].concat();
        Commit::new().put(self.term.clone(), term).put(self.lease.clone(), lease(number, until))
    }
}

/// Why there is no term for the asker. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermRefusal {
    /// Somebody else leads.
    #[error("{holder} leads in term {number} until {until}")]
    Held {
        /// Who.
        holder: NodeId,
        /// In which term.
        number: u64,
        /// Up to when, by its clock, if it does not renew.
        until: UnixTime,
    },
    /// The record of a term that was held is gone: the store was emptied.
    #[error("the record of the term is gone")]
    Vacant,
    /// The record makes no sense: it was not written by this, or by a later release.
    #[error("the record of the term cannot be read")]
    Foreign,
}

/// Both records, read.
struct Record {
    number: u64,
    holder: NodeId,
    until: UnixTime,
}

impl Record {
    fn of(snapshot: &Snapshot, seat: &Seat) -> Result<Option<Self>, Undecided<TermRefusal>> {
        snapshot.need([&seat.term, &seat.lease])?;
        let lease = snapshot.get(&seat.lease)?;
        let Some(term) = snapshot.get(&seat.term)? else { return Ok(None) };
        Self::parse(term, lease).map(Some).ok_or(Undecided::Refused(TermRefusal::Foreign))
    }

    /// Format 1: term is the format, the number (8 bytes) and the holder (16); lease the format, the number and the date
    /// in milliseconds (8), all big-endian.
    fn parse(term: &Entry, lease: Option<&Entry>) -> Option<Self> {
        let (number, holder) = numbered(&term.value)?;
        let until = match lease {
            None => 0,
            Some(lease) => match numbered(&lease.value)? {
                (of, until) if of == number => u64::from_be_bytes(until.try_into().ok()?),
                _ => 0,
            },
        };
        let holder = NodeId::from_bytes(holder.try_into().ok()?);
        Some(Self { number, holder, until: UnixTime::from_millis(until) })
    }

    const fn refuse(&self) -> Undecided<TermRefusal> {
        let Self { number, holder, until } = *self;
        Undecided::Refused(TermRefusal::Held { holder, number, until })
    }
}

/// The first byte of both records.
const FORMAT: u8 = 1;

fn lease(number: u64, until: UnixTime) -> Bytes {
    [&[FORMAT][..], &number.to_be_bytes(), &until.as_millis().to_be_bytes()].concat().into()
}

fn numbered(record: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = record.strip_prefix(&[FORMAT])?.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}
