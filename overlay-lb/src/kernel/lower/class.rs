//! Size classes, and who has which slots.

use std::net::IpAddr;

use overlay_core::{EndpointId, IpFamily};

use crate::schedule::{Maglev, SmoothWeighted};
use crate::{Ports, Scheduler, Service, Weight};

/// Services that share a map and a rule: of one family, of as many slots, whose slots are drawn alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kernel) struct Class {
    pub(super) family: IpFamily,
    pub(super) reach: Reach,
    pub(super) size: u32,
    pub(super) draws: Draws,
}

/// What a number is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kernel) enum Draws {
    /// One after the other, of all that is drawn in the class.
    Turns,
    /// The client's address.
    Source,
    /// The client's address and port.
    Flow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kernel) enum Reach {
    Named,
    All,
    /// Of the machine's own addresses.
    Published,
}

impl Reach {
    /// What names of sets end with.
    pub(super) const fn suffix(self, family: IpFamily) -> &'static str {
        match (self, family) {
            (Self::Named, IpFamily::V4) => "4",
            (Self::Named, IpFamily::V6) => "6",
            (Self::All, IpFamily::V4) => "-all4",
            (Self::All, IpFamily::V6) => "-all6",
            (Self::Published, IpFamily::V4) => "-published4",
            (Self::Published, IpFamily::V6) => "-published6",
        }
    }
}

impl Draws {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Turns => "turns",
            Self::Source => "source",
            Self::Flow => "flow",
        }
    }
}

impl Class {
    /// Its name: of the set of those that are of it, and of a chain of its rule where one leads there.
    pub(super) fn name(&self) -> String {
        format!("{}{}-{}", self.draws.text(), self.suffix(), self.size)
    }

    /// The name of its map, which other classes of its size have too.
    pub(super) fn map(&self) -> String {
        format!("slots{}-{}", self.suffix(), self.size)
    }

    const fn suffix(&self) -> &'static str {
        self.reach.suffix(self.family)
    }
}

/// Who has which of a service's slots.
pub(super) struct Slots {
    pub(super) class: Class,
    pub(super) takers: Vec<IpAddr>,
}

impl Slots {
    /// Those of a service for clients of a family; none where nobody takes new flows.
    pub(super) fn of(service: &Service, family: IpFamily) -> Option<Self> {
        let takers: Vec<_> = service.takers(family).collect();
        let weighed: Vec<(EndpointId, Weight)> =
            takers.iter().map(|(id, it, _)| (*id, service.scheduler.counts(it.weight))).collect();
        let order = order(service.scheduler, &weighed)?;
        let draws = match service.scheduler {
            Scheduler::SourceHash => Draws::Source,
            Scheduler::Maglev => Draws::Flow,
            _ => Draws::Turns,
        };
        let reach = match (service.is_published(), service.ports == Ports::All) {
            (true, _) => Reach::Published,
            (false, true) => Reach::All,
            (false, false) => Reach::Named,
        };
        let class = Class { family, reach, size: order.len() as u32, draws };
        Some(Self { class, takers: order.into_iter().filter_map(|at| Some(takers.get(at)?.2)).collect() })
    }
}

/// Who has which slot: as many as the class has.
fn order(scheduler: Scheduler, weighed: &[(EndpointId, Weight)]) -> Option<Vec<usize>> {
    let exponent = EXPONENTS.into_iter().find(|exponent| weighed.len() * SLOTS_EACH <= 1 << exponent)?;
    if weighed.is_empty() {
        return None;
    }
    if scheduler.is_hash() {
        let table = Maglev::of_power(exponent, weighed).ok()?;
        return Some(table.slots().iter().map(|at| usize::from(*at)).collect());
    }
    let weights: Vec<u32> = weighed.iter().map(|(_, weight)| weight.get().into()).collect();
    let shares = shares(&weights, 1 << exponent);
    let size: u32 = shares.iter().sum();
    let mut schedule = SmoothWeighted::new(shares.iter().filter_map(|share| Weight::new(*share as u16).ok()));
    (0..size).map(|_| schedule.pick()).collect()
}

/// How many slots each gets: by weight exactly where a few are enough for that, of `size` slots as nearly as may be otherwise, and
/// one at least.
fn shares(weights: &[u32], size: u32) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let exact: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    if exact <= EXACT {
        return weights.iter().map(|weight| weight / divisor).collect();
    }
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    let due = |weight: u32| u64::from(weight) * u64::from(size);
    let mut shares: Vec<u32> = weights.iter().map(|weight| ((due(*weight) / total) as u32).max(1)).collect();
    // Who is furthest below what is due gets what is left, or who is furthest above it gives what is missing; a few at most.
    let over = |share: u32, weight: u32| i128::from(share) * i128::from(total) - i128::from(due(weight));
    loop {
        let given: u32 = shares.iter().sum();
        let places = 0..shares.len();
        let off = |at: &usize| over(shares[*at], weights[*at]);
        let (at, more) = match given.cmp(&size) {
            std::cmp::Ordering::Equal => return shares,
            std::cmp::Ordering::Less => (places.min_by_key(off), true),
            std::cmp::Ordering::Greater => (places.filter(|at| shares[*at] > 1).max_by_key(off), false),
        };
        let Some(at) = at else { return shares };
        shares[at] = if more { shares[at] + 1 } else { shares[at] - 1 };
    }
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// As many slots are given exactly by weight.
const EXACT: u64 = 16;
/// The other classes: 64, 256, 1,024 and 4,096 slots.
const EXPONENTS: [u32; 4] = [6, 8, 10, 12];
/// As many slots there are for each replica, at least.
pub(in crate::kernel) const SLOTS_EACH: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_are_by_weight(weights in vec(prop_oneof![1_u32..5, 1_u32..=65_535], 1..=256)) {
            let size = EXPONENTS.map(|it| 1_u32 << it).into_iter().find(|it| weights.len() * SLOTS_EACH <= *it as usize).unwrap();
            let shares = shares(&weights, size);
            let (given, total): (u32, u64) = (shares.iter().sum(), weights.iter().map(|it| u64::from(*it)).sum());
            prop_assert!(given == size || given <= 16);
            for (share, weight) in shares.iter().zip(&weights) {
                let due = f64::from(*weight) * f64::from(given) / total as f64;
                // One whose due is less than a slot has one all the same, which others pay for.
                let pays = weights.len() as f64;
                prop_assert!(*share >= 1 && f64::from(*share) <= due + 1.0 && f64::from(*share) >= due - pays, "{share} of {due}");
            }
        }
    }

    #[test]
    fn few_of_small_weights_are_exact() {
        assert_eq!(shares(&[300, 100, 200], 64), [3, 1, 2]);
        assert_eq!(shares(&[1; 16], 64), [1; 16]);
        assert_eq!(shares(&[1; 17], 256).iter().sum::<u32>(), 256);
        assert_eq!(shares(&[65_535, 1], 64), [63, 1]);
    }
}
