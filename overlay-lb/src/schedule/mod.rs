//! Who gets a new flow.

mod maglev;
mod weighted;

use std::fmt;

use overlay_core::EndpointId;
use serde::{Deserialize, Serialize};

pub use self::maglev::{Maglev, MaglevError, TableSize, TableSizeError};
pub use self::weighted::SmoothWeighted;
use crate::Weight;

/// How replicas are chosen for new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    /// One after the other, whatever they weigh.
    #[default]
    RoundRobin,
    /// One after the other, each as often as it weighs, the heavy ones not in a row ([`SmoothWeighted`]).
    WeightedRoundRobin,
    /// The one with the fewest flows, whatever it weighs.
    LeastConnection,
    /// The one with the fewest flows for its weight.
    WeightedLeastConnection,
    /// By the client's address alone: a client has the same one for all its flows, until that goes ([`Maglev`]). Balancers choose alike
    /// as with [`Maglev`](Self::Maglev).
    SourceHash,
    /// By addresses and ports: every balancer of one kind makes the same choice for the same packet without asking anybody (in user space,
    /// those of one [`ChoiceKey`](crate::ChoiceKey)), and of one that goes or comes no more than its share moves ([`Maglev`]).
    Maglev,
}

impl Scheduler {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::LeastConnection,
        Self::WeightedLeastConnection,
        Self::SourceHash,
        Self::Maglev,
    ];

    /// Whether a packet alone says who gets it, whatever came before.
    pub const fn is_hash(self) -> bool {
        matches!(self, Self::SourceHash | Self::Maglev)
    }

    /// The weight that it gives a replica of this weight.
    pub const fn counts(self, weight: Weight) -> Weight {
        match self {
            Self::RoundRobin | Self::LeastConnection => Weight::ONE,
            _ => weight,
        }
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RoundRobin => "round robin",
            Self::WeightedRoundRobin => "weighted round robin",
            Self::LeastConnection => "least connection",
            Self::WeightedLeastConnection => "weighted least connection",
            Self::SourceHash => "source hash",
            Self::Maglev => "maglev",
        })
    }
}

/// A scheduler at work among some replicas, known by their places from 0 on.
///
/// ```
/// use overlay_core::EndpointId;
/// use overlay_lb::{Clue, Schedule, Scheduler, TableSize, Weight};
///
/// let replicas = [(EndpointId::from_bytes([1; 16]), Weight::new(2)?), (EndpointId::from_bytes([2; 16]), Weight::ONE)];
/// let mut schedule = Schedule::new(Scheduler::WeightedRoundRobin, &replicas, TableSize::DEFAULT)?;
/// let picks: Vec<_> = (0..6).filter_map(|_| schedule.pick(Clue::default(), |_| 0)).collect();
/// assert_eq!(picks, [0, 1, 0, 0, 1, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Schedule(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Round { count: usize, next: usize },
    Weighted(SmoothWeighted),
    Least { weights: Vec<Weight>, after: usize },
    Hashed { table: Maglev, by_source: bool },
}

/// What a packet says: hashes of it, each of all 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clue {
    /// Of the client's address.
    pub source: u64,
    /// Of addresses, ports and protocol.
    pub flow: u64,
}

impl Schedule {
    /// A scheduler among `replicas`; `size` is for those that hash. O(n), and for those that hash as [`Maglev::new`].
    ///
    /// # Errors
    /// As [`Maglev::new`], for those that hash.
    pub fn new(scheduler: Scheduler, replicas: &[(EndpointId, Weight)], size: TableSize) -> Result<Self, MaglevError> {
        let weights = || replicas.iter().map(|(_, weight)| scheduler.counts(*weight));
        Ok(Self(match scheduler {
            Scheduler::RoundRobin => Kind::Round { count: replicas.len(), next: 0 },
            Scheduler::WeightedRoundRobin => Kind::Weighted(SmoothWeighted::new(weights())),
            Scheduler::LeastConnection | Scheduler::WeightedLeastConnection => {
                Kind::Least { weights: weights().collect(), after: 0 }
            }
            Scheduler::SourceHash | Scheduler::Maglev => {
                let by_source = scheduler == Scheduler::SourceHash;
                Kind::Hashed { table: Maglev::new(size, replicas)?, by_source }
            }
        }))
    }

    /// Goes on where another left off, so that who comes first in the order has no advantage by changes of others.
    pub(crate) fn follow(&mut self, last: &Self) {
        match (&mut self.0, &last.0) {
            (Kind::Round { count, next }, Kind::Round { next: last, .. }) if *count > 0 => *next = last % *count,
            (Kind::Least { weights, after }, Kind::Least { after: last, .. }) if !weights.is_empty() => {
                *after = last % weights.len();
            }
            _ => {}
        }
    }

    /// Who gets the next flow, of which a packet says `clue`; nobody where there is none. `flows` tells how many each has now:
    /// asked by the schedulers that count. O(1), O(n) for those that weigh or count.
    pub fn pick(&mut self, clue: Clue, flows: impl Fn(usize) -> u32) -> Option<usize> {
        match &mut self.0 {
            Kind::Round { count, next } => {
                let pick = *next;
                *next = if pick + 1 < *count { pick + 1 } else { 0 };
                (pick < *count).then_some(pick)
            }
            Kind::Weighted(weighted) => weighted.pick(),
            Kind::Least { weights, after } => {
                let pick = least(weights, *after, flows)?;
                *after = pick + 1;
                Some(pick)
            }
            Kind::Hashed { table, by_source } => table.pick(if *by_source { clue.source } else { clue.flow }),
        }
    }
}

/// The one that had the fewest flows for its weight if it got one more; of several the first from `from` on, round and round.
fn least(weights: &[Weight], from: usize, flows: impl Fn(usize) -> u32) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for at in (from..weights.len()).chain(0..from.min(weights.len())) {
        let (load, weight) = (u64::from(flows(at)) + 1, u64::from(weights[at].get()));
        if best.is_none_or(|(_, least, of)| load * of < least * weight) {
            best = Some((at, load, weight));
        }
    }
    best.map(|(at, ..)| at)
}
