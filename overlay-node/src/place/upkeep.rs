//! When which places are brought to what is desired.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Instant, NetworkId, Phase};

use crate::{Desired, Place, PlacePlan, PlaceState, Progress, Schedule, Work};

/// Decides when a node's places are brought to what is desired, in rounds: when that changes, when they failed, when
/// they may have drifted. A machine: it does none of it itself.
///
/// Whoever has a node's places tells it what is [desired](Self::desire), [begins](Self::begin) a round when one is due, plans the
/// round's places, runs the [`Schedule`] that comes of it, and [ends](Self::end) it. One round at a time: what becomes
/// desired meanwhile is the next one's, and only the newest counts.
#[derive(Debug, Clone)]
pub struct Upkeep {
    config: UpkeepConfig,
    desired: Arc<Desired>,
    /// Every place that is desired, or not gone yet.
    places: BTreeMap<Place, Kept>,
    in_round: bool,
}

/// Settings of an [`Upkeep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpkeepConfig {
    /// How long a place rests after its first failure; twice as long after each further one. 1 ms up. 100 ms.
    pub retry_first: Duration,
    /// The longest it rests. `retry_first` up. 10 s.
    pub retry_most: Duration,
    /// How long places that an earlier life of the node left stay as they are, so that what they hold is not taken away before
    /// the node has learnt what it must know; what is new waits with them. 3 s: catalogue and gossip are there after less than one.
    pub adopt_after: Duration,
    /// How often a place is read back that nothing is known to have changed; never if `None`. 1 min.
    pub drift: Option<Duration>,
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        Self {
            retry_first: Duration::from_millis(100),
            retry_most: Duration::from_secs(10),
            adopt_after: Duration::from_secs(3),
            drift: Some(Duration::from_secs(60)),
        }
    }
}

/// What is known of one place.
#[derive(Debug, Clone)]
struct Kept {
    /// What it holds, all of it, as far as is known.
    holds: Option<Arc<PlaceState>>,
    /// The sandboxes it may be in still; `None`: not known, so any.
    within: Option<BTreeSet<NetworkId>>,
    failures: u32,
    /// When it is to be looked at although nothing changed.
    due: Instant,
    /// Not before this, whatever changes.
    earliest: Instant,
}

/// Places that are to be brought to what is desired now.
#[derive(Debug)]
#[must_use = "no other round begins before this one ended"]
pub struct Round {
    desired: Arc<Desired>,
    places: BTreeSet<Place>,
    resting: BTreeSet<Place>,
    within: BTreeMap<Place, BTreeSet<NetworkId>>,
}

impl Round {
    /// The places to plan, each for what it should hold: nothing, and to be closed after, if `None`.
    pub fn places(&self) -> impl Iterator<Item = (&Place, Option<&Arc<PlaceState>>)> {
        self.places.iter().map(|place| (place, self.desired.places.get(place)))
    }

    /// What a place should hold; nothing if `None`.
    pub fn desired(&self, place: &Place) -> Option<&Arc<PlaceState>> {
        self.desired.places.get(place)
    }

    /// The phases in which there is something to do at a place that was planned: those of its plan, and of one that is to go the
    /// last too, in which it waits until what is in it has gone.
    pub fn phases(&self, place: &Place, plan: &PlacePlan) -> BTreeSet<Phase> {
        let goes = self.desired(place).is_none().then_some(Phase::Unguard);
        plan.phases().into_iter().chain(goes).collect()
    }

    /// The order of what was planned. A place that has no phases here could not be planned.
    pub fn schedule(&self, planned: &BTreeMap<Place, BTreeSet<Phase>>) -> Schedule {
        let work = self.places.iter().chain(&self.resting).map(|place| {
            let phases = planned.get(place).cloned().unwrap_or_default();
            let within = self.within.get(place).cloned().unwrap_or_default();
            (place.clone(), Work { phases, within })
        });
        let mut schedule = Schedule::new(work);
        let unplanned = self.places.iter().filter(|place| !planned.contains_key(*place));
        unplanned.chain(&self.resting).for_each(|place| schedule.give_up(place));
        schedule
    }
}

impl Upkeep {
    /// The upkeep of these places, of which nothing is known but that they are there: see [`Places::list`](crate::Places::list).
    pub fn new(config: UpkeepConfig, found: impl IntoIterator<Item = Place>, now: Instant) -> Self {
        let from = now + config.adopt_after;
        let places = found.into_iter().map(|place| (place, Kept::found(from))).collect();
        Self { config, desired: Arc::default(), places, in_round: false }
    }

    /// What the places should hold from now on. A place for which that changes is due at once, even if it rests. Gives those.
    pub fn desire(&mut self, desired: Arc<Desired>, now: Instant) -> BTreeSet<Place> {
        let changed: BTreeSet<Place> = self.desired.changed(&desired).into_iter().cloned().collect();
        for place in &changed {
            let kept = self.places.entry(place.clone()).or_insert_with(|| Kept::absent(now));
            kept.hurry(now);
        }
        self.desired = desired;
        changed
    }

    /// A place may hold something else than is known.
    pub fn doubt(&mut self, place: &Place, now: Instant) {
        if let Some(kept) = self.places.get_mut(place) {
            kept.holds = None;
            kept.hurry(now);
        }
    }

    /// A round of all places that are due; `None` if none is, or if a round has not ended yet.
    pub fn begin(&mut self, now: Instant) -> Option<Round> {
        if self.in_round || self.poll_timeout().is_none_or(|due| due > now) {
            return None;
        }
        self.in_round = true;
        let (places, resting): (Vec<_>, Vec<_>) = self
            .places
            .iter()
            .filter(|(place, kept)| kept.due <= now || self.lacks(place, kept))
            .partition(|(_, kept)| kept.due <= now);
        let names = |of: Vec<(&Place, &Kept)>| of.into_iter().map(|(place, _)| place.clone()).collect::<BTreeSet<_>>();
        let (places, resting) = (names(places), names(resting));
        let within = places.iter().chain(&resting).map(|place| (place.clone(), self.within(place))).collect();
        Some(Round { desired: Arc::clone(&self.desired), places, resting, within })
    }

    /// A round is over, as its schedule says. Places that should hold nothing and did all they had to are forgotten: they were closed.
    /// Gives the places that hold now all they should, and those that failed themselves.
    #[expect(clippy::needless_pass_by_value, reason = "a round ends once")]
    pub fn end(&mut self, round: Round, schedule: &Schedule, now: Instant) -> Vec<(Place, bool)> {
        self.in_round = false;
        let mut told = Vec::new();
        let mut stopped = Vec::new();
        for (place, progress) in schedule.progress().filter(|(place, _)| round.places.contains(*place)) {
            match progress {
                Progress::Done => self.done(place, round.desired(place), now),
                Progress::Stopped { by, .. } => {
                    stopped.push((place.clone(), by));
                    continue;
                }
                Progress::Failed(_) | Progress::Waiting(_) | Progress::Running(_) => {
                    self.failed(place, round.desired(place), now);
                }
            }
            told.push((place.clone(), progress == Progress::Done));
        }
        for (place, by) in stopped.into_iter().rev() {
            let until = self.places.get(&by).map_or(now, |by| by.due);
            self.stopped(&place, round.desired(&place), until);
        }
        told
    }

    /// When a round is due; `None` while one has not ended, and if there are no places.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.in_round { None } else { self.places.values().map(|kept| kept.due).min() }
    }

    /// The places that do not hold what they should, as far as is known.
    pub fn lacking(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|(place, kept)| self.lacks(place, kept)).map(|(place, _)| place)
    }

    fn lacks(&self, place: &Place, kept: &Kept) -> bool {
        match (&kept.holds, self.desired.places.get(place)) {
            (Some(holds), Some(desired)) => !Arc::ptr_eq(holds, desired) && holds != desired,
            _ => true,
        }
    }

    /// The sandboxes a place is in, before or after; all there are if nobody knows.
    fn within(&self, place: &Place) -> BTreeSet<NetworkId> {
        let after = self.desired.places.get(place).map(|state| &state.within);
        match self.places.get(place).and_then(|kept| kept.within.as_ref()) {
            Some(before) => before.iter().chain(after.into_iter().flatten()).copied().collect(),
            None => self.places.keys().filter_map(network).collect(),
        }
    }

    fn done(&mut self, place: &Place, desired: Option<&Arc<PlaceState>>, now: Instant) {
        let newer = self.desired.places.get(place);
        let (Some(desired), true) = (desired, self.places.contains_key(place)) else {
            self.places.remove(place);
            if newer.is_some() {
                self.places.insert(place.clone(), Kept::absent(now));
            }
            return;
        };
        let newest = newer.is_some_and(|newer| Arc::ptr_eq(newer, desired) || newer == desired);
        let rest = if newest { self.config.drift.unwrap_or(Duration::MAX) } else { Duration::ZERO };
        let (holds, within) = (Some(Arc::clone(desired)), Some(desired.within.clone()));
        self.places.insert(place.clone(), Kept { holds, within, failures: 0, due: now + rest, earliest: now });
    }

    fn failed(&mut self, place: &Place, desired: Option<&Arc<PlaceState>>, now: Instant) {
        let UpkeepConfig { retry_first, retry_most, .. } = self.config;
        let newest = self.is_newest(place, desired);
        if let Some(kept) = self.places.get_mut(place) {
            let rest = retry_first.saturating_mul(1 << kept.failures.min(20)).min(retry_most);
            kept.failures = kept.failures.saturating_add(1);
            kept.unsure(desired, if newest { now + rest } else { now });
        }
    }

    fn stopped(&mut self, place: &Place, desired: Option<&Arc<PlaceState>>, until: Instant) {
        if let Some(kept) = self.places.get_mut(place) {
            kept.unsure(desired, until);
        }
    }

    fn is_newest(&self, place: &Place, desired: Option<&Arc<PlaceState>>) -> bool {
        match (desired, self.desired.places.get(place)) {
            (Some(desired), Some(newer)) => Arc::ptr_eq(newer, desired) || newer == desired,
            (None, None) => true,
            _ => false,
        }
    }
}

impl Kept {
    const fn found(from: Instant) -> Self {
        Self { holds: None, within: None, failures: 0, due: from, earliest: from }
    }

    const fn absent(now: Instant) -> Self {
        Self { holds: None, within: Some(BTreeSet::new()), failures: 0, due: now, earliest: now }
    }

    fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.earliest));
    }

    /// Something was done, but not all.
    fn unsure(&mut self, desired: Option<&Arc<PlaceState>>, due: Instant) {
        self.holds = None;
        if let (Some(within), Some(desired)) = (&mut self.within, desired) {
            within.extend(&desired.within);
        }
        self.due = due;
    }
}

fn network(place: &Place) -> Option<NetworkId> {
    match place {
        Place::Network(network) => Some(*network),
        Place::Host | Place::Container(_) => None,
    }
}

#[cfg(test)]
#[path = "upkeep_tests.rs"]
mod tests;
