//! Maglev hashing.

use std::hash::Hasher as _;

use overlay_core::EndpointId;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::Weight;

/// A lookup table of Maglev hashing (Eisenbud and others, *Maglev: A Fast and Reliable Software Network Load Balancer*, NSDI
/// 2016, §3.4): every replica gets its share of the slots, and keeps nearly all of them when another goes or comes.
///
/// Each replica walks through all slots in an order of its own; they take turns, and each takes the next free one on its way.
/// One of a greater weight has more turns. The table is a function of its size and of the replicas' ids and weights in their
/// order, so balancers that know the same replicas choose the same ones without a word.
///
/// With more than 100 slots for each of N replicas of one weight, shares differ by less than 1 %. Removing one moves its own share, 1/N of all slots, and
/// ½ to 1 % of them besides on average, as the others' turns shift; the most of 100,000 removals from tables of the default size was 5 %, and 1.4 % among 100
/// replicas and more.
///
/// ```
/// use overlay_core::EndpointId;
/// use overlay_lb::{Maglev, TableSize, Weight};
///
/// let replicas: Vec<_> = (1..=3).map(|id| (EndpointId::from_bytes([id; 16]), Weight::ONE)).collect();
/// let table = Maglev::new(TableSize::DEFAULT, &replicas)?;
/// assert!(table.pick(0x0123_4567_89ab_cdef).is_some_and(|at| at < 3));
/// # Ok::<(), overlay_lb::MaglevError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maglev {
    slots: Box<[u16]>,
}

impl Maglev {
    /// A table among `replicas`, known by their places from 0 on. O(M log M) for M slots; where weights differ, besides O(n) for each
    /// slot of the heaviest.
    ///
    /// # Errors
    /// [`MaglevError`] for more replicas than the table has slots, or than 65,535.
    pub fn new(size: TableSize, replicas: &[(EndpointId, Weight)]) -> Result<Self, MaglevError> {
        let size = size.get();
        Self::populated(size, replicas, |seed| 1 + seed % (u64::from(size) - 1))
    }

    /// A table of as many slots as a power of two: small ones, for backends that hold tables slot by slot. Odd steps walk through all of
    /// them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "kernel")]
    pub(crate) fn of_power(exponent: u32, replicas: &[(EndpointId, Weight)]) -> Result<Self, MaglevError> {
        let size = 1_u32 << exponent.min(16);
        Self::populated(size, replicas, |seed| (seed % u64::from(size)) | 1)
    }

    fn populated(size: u32, replicas: &[(EndpointId, Weight)], step: impl Fn(u64) -> u64) -> Result<Self, MaglevError> {
        let most = (size as usize).min(usize::from(u16::MAX));
        if replicas.len() > most {
            return Err(MaglevError { found: replicas.len(), most });
        }
        if replicas.is_empty() {
            return Ok(Self { slots: Box::default() });
        }
        let walk = |(id, weight): &(EndpointId, Weight)| {
            let (first, second) = seeds(*id);
            let (at, step) = (first % u64::from(size), step(second));
            Walk { at: at as u32, step: step as u32, weight: weight.get().into(), turns: 0 }
        };
        Ok(Self { slots: populate(size, replicas.iter().map(walk).collect()) })
    }

    /// Who gets what has this hash, of which all 64 bits count: a place in the replicas; none if there are none. O(1).
    #[inline]
    pub fn pick(&self, hash: u64) -> Option<usize> {
        let slot = (u128::from(hash) * self.slots.len() as u128) >> 64;
        self.slots.get(slot as usize).map(|at| usize::from(*at))
    }

    /// The slots: a place in the replicas for each.
    pub const fn slots(&self) -> &[u16] {
        &self.slots
    }
}

/// A replica's way through the slots.
struct Walk {
    at: u32,
    step: u32,
    weight: u32,
    /// What it has of its next turn, in parts of the greatest weight.
    turns: u32,
}

impl Walk {
    const fn onward(&self, at: u32, size: u32) -> u32 {
        let next = at + self.step;
        if next >= size { next - size } else { next }
    }
}

fn populate(size: u32, mut walks: Vec<Walk>) -> Box<[u16]> {
    let heaviest = walks.iter().map(|walk| walk.weight).max().unwrap_or(1);
    let mut slots = vec![0_u16; size as usize].into_boxed_slice();
    let mut taken = vec![0_u64; size.div_ceil(64) as usize]; // small enough for the first-level cache
    let mut left = size;
    while left > 0 {
        for (number, walk) in walks.iter_mut().enumerate() {
            walk.turns += walk.weight;
            if walk.turns < heaviest {
                continue;
            }
            walk.turns -= heaviest;
            let mut at = walk.at;
            while taken[(at / 64) as usize] >> (at % 64) & 1 == 1 {
                at = walk.onward(at, size);
            }
            taken[(at / 64) as usize] |= 1 << (at % 64);
            slots[at as usize] = number as u16;
            walk.at = walk.onward(at, size);
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    slots
}

/// Two numbers that depend on nothing but an id: where its walk begins, and what its step is made of.
fn seeds(id: EndpointId) -> (u64, u64) {
    let mut hasher = SipHasher13::new();
    hasher.write(&id.to_bytes());
    let hash = hasher.finish128();
    (hash.h1, hash.h2)
}

/// How many slots a table has: a prime, so that every step leads through all of them; 251 to 655,373.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableSize(u32);

impl TableSize {
    /// The paper's: even for up to 655 replicas. 128 KiB.
    pub const DEFAULT: Self = Self(65_537);
    /// The paper's large one: even for up to 6,553. 1.3 MiB.
    pub const LARGE: Self = Self(655_373);
    /// As IPVS has it: even for up to 40. 8 KiB.
    pub const SMALL: Self = Self(4_093);

    /// Checks that `size` is a prime in range.
    ///
    /// # Errors
    /// [`TableSizeError`] for another number.
    pub const fn new(size: u32) -> Result<Self, TableSizeError> {
        if size >= 251 && size <= Self::LARGE.0 && is_prime(size) { Ok(Self(size)) } else { Err(TableSizeError(size)) }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for TableSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const fn is_prime(number: u32) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= number {
        if number.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    number > 1
}

/// A number of slots that no table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a table has a prime number of slots, 251 to 655373, not {0}")]
pub struct TableSizeError(pub u32);

/// More replicas than a table can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} replicas, of which the table holds {most} at most")]
pub struct MaglevError {
    /// How many there were.
    pub found: usize,
    /// How many there can be.
    pub most: usize,
}
