//! A round, carried out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use overlay_core::{Phase, told};

use crate::{Place, PlacePlan, PlaceState, PlaceTables, Places, Round, Schedule};

/// A [`Round`] that is carried out on this thread, one job after the other: for embedders without a pool, and for
/// simulators.
pub struct RoundRun {
    round: Round,
    planned: BTreeMap<Place, (PlaceTables, PlacePlan)>,
    /// Why places could not be planned, or failed.
    failures: BTreeMap<Place, String>,
    schedule: Schedule,
}

/// A job that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Where.
    pub place: Place,
    /// Which phase.
    pub phase: Phase,
    /// Whether it is in effect, and if not, why.
    pub result: Result<(), String>,
}

impl RoundRun {
    /// Opens and plans all places of a round. What fails there is left as it is, and with it what waits for it.
    pub fn new(round: Round, places: &mut dyn Places) -> Self {
        let (mut planned, mut failures) = (BTreeMap::new(), BTreeMap::new());
        for (place, desired) in round.places() {
            match plan(place, desired, places) {
                Ok(plan) => drop(planned.insert(place.clone(), plan)),
                Err(why) => drop(failures.insert(place.clone(), why)),
            }
        }
        let phases = planned.iter().map(|(place, (_, plan))| (place.clone(), round.phases(place, plan))).collect();
        let schedule = round.schedule(&phases);
        Self { round, planned, failures, schedule }
    }

    /// Carries out one of the jobs that are ready, that which `choose` picks of so many; `None` if the round is over.
    pub fn step(&mut self, places: &mut dyn Places, choose: impl FnOnce(usize) -> usize) -> Option<Ran> {
        let ready = self.schedule.ready().len();
        let at = choose(ready).min(ready.checked_sub(1)?);
        let place = self.schedule.ready().nth(at)?.clone();
        let job = self.schedule.start(&place)?;
        let (phase, result) = (job.phase, self.run(&place, job.phase, places));
        match &result {
            Ok(()) => self.schedule.complete(job),
            Err(why) => {
                self.schedule.fail(job);
                self.failures.insert(place.clone(), why.clone());
            }
        }
        Some(Ran { place, phase, result })
    }

    /// How far it is.
    pub const fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// What it is to bring about.
    pub const fn round(&self) -> &Round {
        &self.round
    }

    /// Why a place failed, if it did.
    pub fn failure(&self, place: &Place) -> Option<&str> {
        self.failures.get(place).map(String::as_str)
    }

    /// What [`Upkeep::end`](crate::Upkeep::end) wants.
    pub fn into_parts(self) -> (Round, Schedule) {
        (self.round, self.schedule)
    }

    fn run(&mut self, place: &Place, phase: Phase, places: &mut dyn Places) -> Result<(), String> {
        let (tables, plan) = self.planned.get_mut(place).ok_or_else(|| "it was not planned".to_owned())?;
        tables.run(plan, phase).map_err(|error| told(&error))?;
        if phase == Phase::Unguard && self.round.desired(place).is_none() {
            self.planned.remove(place);
            places.close(place).map_err(|error| told(&error))?;
        }
        Ok(())
    }
}

fn plan(
    place: &Place,
    desired: Option<&Arc<PlaceState>>,
    places: &mut dyn Places,
) -> Result<(PlaceTables, PlacePlan), String> {
    let mut tables = places.open(place).map_err(|error| told(&error))?;
    let nothing = Arc::default();
    let plan = tables.plan(desired.unwrap_or(&nothing)).map_err(|error| told(&error))?;
    Ok((tables, plan))
}

impl fmt::Debug for RoundRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoundRun").field("schedule", &self.schedule).finish_non_exhaustive()
    }
}
