//! A question that upstream servers are asked, and who waits for the answer.

use std::net::SocketAddr;

use overlay_core::Instant;
use smallvec::SmallVec;

use super::{Client, Path};
use crate::wire::{CD, HEADER_LEN, Query, RD, edns};

/// A question under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) key: Key,
    /// Servers in the order in which they are asked, and how many questions were sent in that order.
    pub(super) order: SmallVec<[SocketAddr; 3]>,
    pub(super) sent: usize,
    /// Messages that would have been answers, had they had the right id.
    pub(super) guesses: u32,
    /// Servers that could not read this question with EDNS.
    pub(super) without_edns: SmallVec<[SocketAddr; 1]>,
    pub(super) attempts: SmallVec<[Attempt; 2]>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) deadline: Instant,
    /// When a reply past its time is given, if there is one: clients do not wait longer (RFC 8767 §5).
    pub(super) stale_at: Option<Instant>,
    /// When the next server is asked.
    pub(super) hedge_at: Instant,
    /// Where it is among the timers.
    pub(super) wake: Instant,
}

/// A query sent.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) server: SocketAddr,
    pub(super) path: Path,
    pub(super) id: u16,
    pub(super) sent: Instant,
    pub(super) with_edns: bool,
    /// The question as it was sent, capitals included.
    pub(super) question: SmallVec<[u8; 48]>,
}

/// Who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) client: Client,
    pub(super) query: Box<Query>,
    /// The question in the client's own letters.
    pub(super) question: SmallVec<[u8; 48]>,
}

/// What makes two questions one: name in small letters, type, DO, CD.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(SmallVec<[u8; 48]>);

impl Key {
    pub(super) fn of(query: &Query) -> Self {
        let mut key = SmallVec::from_slice(query.name.as_wire());
        key.extend_from_slice(&query.record_type.to_be_bytes());
        key.push(u8::from(query.dnssec_ok()) | u8::from(query.flags & CD != 0) << 1);
        Self(key)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name in small letters.
    pub(super) fn name(&self) -> &[u8] {
        self.0.get(..self.0.len() - TAIL).unwrap_or_default()
    }

    pub(super) fn record_type(&self) -> u16 {
        crate::wire::word(&self.0, self.0.len() - TAIL).unwrap_or_default()
    }

    pub(super) fn dnssec_ok(&self) -> bool {
        self.bits() & 1 != 0
    }

    /// The question's bytes, in small letters.
    pub(super) fn question(&self) -> SmallVec<[u8; 48]> {
        let mut question = SmallVec::from_slice(self.name());
        question.push(0);
        question.extend_from_slice(&self.record_type().to_be_bytes());
        question.extend_from_slice(&crate::wire::CLASS_IN.to_be_bytes());
        question
    }

    fn bits(&self) -> u8 {
        self.0.last().copied().unwrap_or_default()
    }
}

const TAIL: usize = 3;

impl Attempt {
    /// The query's bytes.
    pub(super) fn message(&self, key: &Key, max_payload: u16) -> Vec<u8> {
        let flags = RD | if key.bits() & 2 != 0 { CD } else { 0 } | crate::wire::AD;
        let mut message = Vec::with_capacity(HEADER_LEN + self.question.len() + 11);
        for word in [self.id, flags, 1, 0, 0, u16::from(self.with_edns)] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(&self.question);
        if self.with_edns {
            edns(&mut message, max_payload, key.dnssec_ok());
        }
        message
    }
}
