//! What numbers leases are made on.

use std::ops::RangeInclusive;

use overlay_core::{Entry, Key, Prefix};

use super::Stop;
use super::block::LARGEST;
use super::record::Held;
use super::wire::Flaw;
use crate::{LeaseOwner, Use};

/// The numbers that one kind of leases of one thing is made on: the addresses of a family of a network, all VNIs, the ports of
/// a protocol. An owner has at most one lease of a ground.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    /// Never used for another.
    pub(crate) number: u64,
    /// Tells grounds of one number apart: an address family, a protocol.
    pub(crate) kind: u8,
    pub(crate) plots: Vec<Plot>,
    /// What it was read from. Every commit compares it, so nothing is claimed on a ground that has changed or is gone.
    pub(crate) guard: Option<(Key, Entry)>,
}

impl Ground {
    pub(crate) fn plot(&self, index: u8) -> Option<&Plot> {
        self.plots.iter().find(|plot| plot.index == index)
    }

    /// The lease under a key, and the plot it is of.
    pub(crate) fn held(&self, key: &Key, entry: &Entry) -> Result<(&Plot, Held), Stop> {
        let corrupt = |flaw| Stop::Corrupt { key: key.clone(), flaw };
        let held = Held::parse(&entry.value).map_err(corrupt)?;
        match self.plot(held.plot).filter(|plot| held.number <= plot.last) {
            Some(plot) => Ok((plot, held)),
            None => Err(corrupt(Flaw::Field { field: "number" })),
        }
    }
}

/// Numbers from 0 to some last one, in blocks.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    /// Its own number in keys and leases.
    pub(crate) index: u8,
    pub(crate) last: u128,
    /// Never claimed; sorted.
    pub(crate) reserved: Vec<u128>,
    /// Where dynamic claims are made, endpoints' and VIPs'.
    pub(crate) windows: [Vec<(u128, u128)>; 2],
}

impl Plot {
    /// Numbers of a block, as a power of two: 2¹¹, or a quarter of a small plot, so that managers have blocks to choose from.
    pub(crate) fn block_bits(&self) -> u8 {
        let bits = 128 - self.last.leading_zeros() as u8;
        bits.saturating_sub(2).clamp(6, LARGEST)
    }

    /// How many numbers block `block` has.
    pub(crate) fn block_size(&self, block: u128) -> u16 {
        let whole = 1_u128 << self.block_bits();
        (self.last - (block << self.block_bits()) + 1).min(whole) as u16
    }

    /// The block of `number`, and the place in it.
    pub(crate) fn split(&self, number: u128) -> (u128, u16) {
        let bits = self.block_bits();
        (number >> bits, (number & ((1 << bits) - 1)) as u16)
    }

    pub(crate) fn join(&self, block: u128, at: u16) -> u128 {
        block << self.block_bits() | u128::from(at)
    }

    /// What of a window lies in `block`.
    pub(crate) fn part(&self, block: u128, (first, last): (u128, u128)) -> (u16, u16) {
        let start = block << self.block_bits();
        let end = start | u128::from(self.block_size(block) - 1);
        ((first.max(start) - start) as u16, (last.min(end) - start) as u16)
    }

    pub(crate) fn windows(&self, purpose: Use) -> &[(u128, u128)] {
        &self.windows[usize::from(purpose == Use::Vip)]
    }

    pub(crate) fn is_reserved(&self, number: u128) -> bool {
        self.reserved.binary_search(&number).is_ok()
    }

    /// How many numbers of a window can be claimed.
    pub(crate) fn room(&self, (first, last): (u128, u128)) -> u128 {
        let reserved = self.reserved.iter().filter(|number| (first..=last).contains(*number)).count();
        (last - first).saturating_add(1).saturating_sub(reserved as u128)
    }

    pub(crate) fn blocks(&self, (first, last): (u128, u128)) -> RangeInclusive<u128> {
        first >> self.block_bits()..=last >> self.block_bits()
    }
}

/// Where a ledger's records are.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: Prefix,
}

/// The most bytes of a root: what keys have after it fits then.
pub(crate) const ROOT: usize = 512;

impl Keys {
    /// `None` if the root is too long.
    pub(crate) fn new(root: &Prefix) -> Option<Self> {
        (root.as_bytes().len() <= ROOT).then(|| Self { root: root.clone() })
    }

    pub(crate) fn key(&self, parts: &[&[u8]]) -> Key {
        let key = self.root.key_of(parts);
        key.unwrap_or_else(|_| unreachable!("a root and parts of known length make a key"))
    }

    pub(crate) fn prefix(&self, parts: &[&[u8]]) -> Prefix {
        let key = self.key(parts);
        Prefix::new(key.as_bytes()).unwrap_or(Prefix::ALL)
    }

    pub(crate) fn lease(&self, ground: &Ground, owner: &LeaseOwner) -> Key {
        self.key(&[&head(b'l', ground), owner.as_bytes()])
    }

    /// The same, where [what comes before owners](Self::leases) was made for many.
    pub(crate) fn lease_of(leases: &Prefix, owner: &LeaseOwner) -> Key {
        let key = leases.key(owner.as_bytes());
        key.unwrap_or_else(|_| unreachable!("a root and parts of known length make a key"))
    }

    /// How many bytes the keys of all leases of a ground begin with alike.
    pub(crate) fn before_owner(&self) -> usize {
        self.root.as_bytes().len() + HEAD
    }

    pub(crate) fn leases(&self, ground: &Ground) -> Prefix {
        self.prefix(&[&head(b'l', ground)])
    }

    /// Of the plot with this index.
    pub(crate) fn block(&self, ground: &Ground, index: u8, block: u128) -> Key {
        let mut tail = [0; HEAD + 17];
        tail[..HEAD].copy_from_slice(&head(b'b', ground));
        tail[HEAD] = index;
        tail[HEAD + 1..].copy_from_slice(&block.to_be_bytes());
        self.key(&[&tail])
    }

    pub(crate) fn blocks(&self, ground: &Ground, plot: &Plot) -> Prefix {
        self.prefix(&[&head(b'b', ground), &[plot.index]])
    }

    pub(crate) fn holds(&self, ground: &Ground, plot: &Plot, window: (u128, u128)) -> Key {
        self.key(&[&head(b'p', ground), &[plot.index], &window.0.to_be_bytes()])
    }

    /// All records of the grounds of a number.
    pub(crate) fn all_of(&self, number: u64) -> [Prefix; 3] {
        [b"l", b"b", b"p"].map(|what| self.prefix(&[what, &number.to_be_bytes()]))
    }
}

/// What the keys of a ground's records begin with, after the root: what they are, and the ground.
fn head(what: u8, ground: &Ground) -> [u8; HEAD] {
    let mut head = [what; HEAD];
    head[1..9].copy_from_slice(&ground.number.to_be_bytes());
    head[9] = ground.kind;
    head
}

const HEAD: usize = 10;
