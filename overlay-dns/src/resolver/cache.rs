//! Replies kept, within a number of bytes.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher as _};
use std::time::Duration;

use overlay_core::Instant;

use super::vet::Reply;
use crate::CacheMetrics;

/// Replies by question. When it is full, what was not asked for since the hand came by last makes room.
#[derive(Debug)]
pub(super) struct Cache {
    places: HashMap<Box<[u8]>, usize, Keyed>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
    max_bytes: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Slot {
    key: Box<[u8]>,
    kept: Kept,
    since: Instant,
    until: Instant,
    /// Till when it may be given if nobody answers.
    stale_until: Instant,
    /// Till when nobody is asked again, since nobody answered.
    failed_until: Instant,
    asked_for: bool,
}

/// What is kept for a question.
#[derive(Debug)]
pub(super) enum Kept {
    Reply(Reply),
    /// Nobody answered.
    Failure,
}

/// What is there for a question.
#[derive(Debug)]
pub(super) enum Found<'c> {
    /// A reply, and how old it is in whole seconds.
    Fresh(&'c Reply, u32),
    /// A reply whose time is over, and whether somebody was asked just now, in vain.
    Stale(&'c Reply, bool),
    /// It was asked just now, in vain.
    Failure,
}

/// What an entry takes besides its key and reply, about: the slot, its place in the map, and what allocations round up to.
const OVERHEAD: usize = 256;

impl Cache {
    /// A cache of up to `max_bytes`; `seed` keeps strangers from choosing questions that collide.
    pub(super) fn new(max_bytes: usize, seed: [u8; 16]) -> Self {
        Self {
            places: HashMap::with_hasher(Keyed(seed)),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            max_bytes,
            evicted: 0,
        }
    }

    /// What is kept for a question.
    pub(super) fn get(&mut self, key: &[u8], now: Instant) -> Option<Found<'_>> {
        let place = *self.places.get(key)?;
        let slot = self.slots.get_mut(place)?.as_mut()?;
        slot.asked_for = true;
        match &slot.kept {
            Kept::Failure => (now < slot.until).then_some(Found::Failure),
            Kept::Reply(reply) if now < slot.until => {
                Some(Found::Fresh(reply, (now - slot.since).as_secs().try_into().unwrap_or(u32::MAX)))
            }
            Kept::Reply(reply) => (now < slot.stale_until).then_some(Found::Stale(reply, now < slot.failed_until)),
        }
    }

    /// Keeps something for `ttl`, and for `stale` beyond, in place of what there was.
    pub(super) fn put(&mut self, key: &[u8], kept: Kept, (ttl, stale): (Duration, Duration), now: Instant) {
        if let Some(place) = self.places.get(key).copied() {
            self.remove(place);
        }
        let slot = Slot {
            key: key.into(),
            kept,
            since: now,
            until: now + ttl,
            stale_until: now + ttl + stale,
            failed_until: now,
            asked_for: false,
        };
        let size = slot.size();
        if size > self.max_bytes {
            return;
        }
        while self.bytes + size > self.max_bytes {
            self.evict(now);
        }
        self.bytes += size;
        let place = self.free.pop().unwrap_or(self.slots.len());
        self.places.insert(slot.key.clone(), place);
        match self.slots.get_mut(place) {
            Some(free) => *free = Some(slot),
            None => self.slots.push(Some(slot)),
        }
    }

    /// Remembers that nobody answered; a reply that may still be given stays.
    pub(super) fn fail(&mut self, key: &[u8], ttl: Duration, now: Instant) {
        let place = self.places.get(key).copied();
        match place.and_then(|place| self.slots.get_mut(place)?.as_mut()) {
            Some(slot) if now < slot.stale_until && matches!(slot.kept, Kept::Reply(_)) => {
                slot.failed_until = now + ttl;
            }
            _ => self.put(key, Kept::Failure, (ttl, Duration::ZERO), now),
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        (0..self.slots.len()).for_each(|place| self.remove(place));
    }

    pub(super) fn metrics(&self) -> CacheMetrics {
        CacheMetrics { entries: self.places.len(), bytes: self.bytes, evicted: self.evicted }
    }

    /// Moves the hand one slot on.
    fn evict(&mut self, now: Instant) {
        self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
        let Some(Some(slot)) = self.slots.get_mut(self.hand) else { return };
        let over = now >= slot.stale_until;
        if over || !std::mem::take(&mut slot.asked_for) {
            self.evicted += u64::from(!over);
            self.remove(self.hand);
        }
    }

    fn remove(&mut self, place: usize) {
        let Some(slot) = self.slots.get_mut(place).and_then(Option::take) else { return };
        self.bytes -= slot.size();
        self.places.remove(&slot.key);
        self.free.push(place);
    }
}

impl Slot {
    fn size(&self) -> usize {
        let reply = match &self.kept {
            Kept::Reply(reply) => reply.bytes.len() + 2 * reply.ttls.len(),
            Kept::Failure => 0,
        };
        OVERHEAD + 2 * self.key.len() + reply
    }
}

/// SipHash behind a secret.
#[derive(Clone)]
struct Keyed([u8; 16]);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.0);
        hasher
    }
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyed(..)")
    }
}
