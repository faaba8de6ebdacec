//! What is to happen, in the order of time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use bytes::Bytes;
use overlay_core::Instant;

use crate::Class;

/// Something that happens to one node.
#[derive(Debug)]
pub(super) struct Happening {
    pub(super) at: Instant,
    order: u64,
    pub(super) node: usize,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// Its deadline comes.
    Wake,
    /// A message arrives that was sent in this epoch of the sender.
    Arrive { from: SocketAddr, class: Class, payload: Bytes },
}

/// Happenings; those of one moment in the order in which they were planned.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Happening>>,
    order: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Instant, node: usize, what: What) {
        self.order += 1;
        self.heap.push(Reverse(Happening { at, order: self.order, node, what }));
    }

    /// Plans what was planned before for another time, in the order it had.
    pub(super) fn put_off(&mut self, happening: Happening, at: Instant) {
        self.heap.push(Reverse(Happening { at, ..happening }));
    }

    /// The next happening, if it is not after `until`.
    pub(super) fn pop(&mut self, until: Instant) -> Option<Happening> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        self.heap.pop().map(|Reverse(happening)| happening)
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}

impl Happening {
    /// By time; a node wakes before it reads what arrived meanwhile, which is the worse of the two for it.
    const fn key(&self) -> (Instant, bool, u64) {
        (self.at, matches!(self.what, What::Arrive { .. }), self.order)
    }
}

impl PartialEq for Happening {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Happening {}

impl PartialOrd for Happening {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Happening {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
