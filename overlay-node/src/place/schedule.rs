//! The order among places.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use overlay_core::{NetworkId, Phase};

use crate::Place;

/// Which phase of which place may run now, while a node brings several places to what is desired.
///
/// A place's phases run one after the other. Between places: nothing opens inside a place whose guards are not up, and no guard
/// goes before what it guards has gone. So a container's, or sandbox's, [`Open`](Phase::Open) waits for the
/// [`Guard`](Phase::Guard) of the places around it, and for their own [`Open`](Phase::Open) as long as that may come: what opens
/// inside may stand on it. A place's [`Unguard`](Phase::Unguard) waits for the [`Build`](Phase::Build), in which things are replaced too,
/// [`Close`](Phase::Close) and [`Dismantle`](Phase::Dismantle) of those in it.
/// What fails stops its own later phases, and stops what waits for it: fail closed, up and down. All else goes on.
///
/// It is one round, and runs nothing itself: take any [ready](Self::ready) place, [start](Self::start) its next phase,
/// on any thread, and say how it ended. A place that is not in the round is as if it had nothing to do, so
/// whoever makes the round puts in every place that is not known to be as it should, if only to
/// [give it up](Self::give_up). A round costs O(n log n) for n places.
///
/// ```
/// use overlay_core::Phase::{Guard, Open};
/// use overlay_node::{Place, Schedule, Work};
///
/// let web = Place::Container("web".parse()?);
/// let mut round = Schedule::new([(Place::Host, Work::of([Guard])), (web.clone(), Work::of([Open]))]);
/// assert!(round.ready().eq([&Place::Host])); // the container waits for the host's guard
/// let job = round.start(&Place::Host).ok_or("not ready")?;
/// round.complete(job);
/// assert!(round.ready().eq([&web]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Schedule {
    places: BTreeMap<Place, Entry>,
    ready: BTreeSet<Place>,
    running: usize,
}

/// What is to be done at one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// The phases in which one of the place's tables has steps.
    pub phases: BTreeSet<Phase>,
    /// The networks whose sandboxes are around it, before or after: of a container.
    pub within: BTreeSet<NetworkId>,
}

impl Work {
    /// Work in these phases, in no network's sandbox.
    pub fn of(phases: impl IntoIterator<Item = Phase>) -> Self {
        Self { phases: phases.into_iter().collect(), within: BTreeSet::new() }
    }
}

/// A phase of a place that was started.
#[must_use = "say how it ended, or the round never does"]
#[derive(Debug, PartialEq, Eq)]
pub struct Job {
    /// The place.
    pub place: Place,
    /// The phase.
    pub phase: Phase,
}

/// How far a place is in its round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is ready, or waits for another place.
    Waiting(Phase),
    /// This phase runs.
    Running(Phase),
    /// All is done.
    Done,
    /// This phase failed; the phases before it are in effect. Of a place that was given up, the first.
    Failed(Phase),
    /// It never came to this phase, because another place failed. The phases before it are in effect.
    Stopped {
        /// The phase.
        before: Phase,
        /// The place that it waited for.
        by: Place,
    },
}

/// A place in its round.
#[derive(Debug, Clone)]
struct Entry {
    /// The phases that are not in effect yet.
    left: VecDeque<Phase>,
    within: BTreeSet<NetworkId>,
    /// The places in it.
    inside: BTreeSet<Place>,
    /// In how many of those something is still to go.
    to_go_inside: usize,
    /// One of those in which it never will.
    never_goes: Option<Place>,
    begun: bool,
    running: bool,
    end: Option<Progress>,
}

impl Entry {
    fn new(work: Work) -> Self {
        Self {
            left: work.phases.into_iter().collect(),
            within: work.within,
            inside: BTreeSet::new(),
            to_go_inside: 0,
            never_goes: None,
            begun: false,
            running: false,
            end: None,
        }
    }

    /// Whether a phase is still to come, or never will.
    fn lacks(&self, phase: Phase) -> bool {
        self.left.contains(&phase)
    }

    /// Whether something is still to go here, or may be: what is built may be in place of something else.
    fn has_to_go(&self) -> bool {
        [Phase::Build, Phase::Close, Phase::Dismantle].into_iter().any(|phase| self.lacks(phase))
    }

    fn is_idle(&self) -> bool {
        !self.running && self.end.is_none()
    }
}

impl Schedule {
    /// A round of this work. Of a place that is named twice, the last counts.
    pub fn new(work: impl IntoIterator<Item = (Place, Work)>) -> Self {
        let places: BTreeMap<Place, Entry> = work.into_iter().map(|(place, work)| (place, Entry::new(work))).collect();
        let mut round = Self { places, ready: BTreeSet::new(), running: 0 };
        let all: Vec<Place> = round.places.keys().cloned().collect();
        for place in &all {
            let goes = round.places.get(place).is_some_and(Entry::has_to_go);
            for parent in round.around(place) {
                if let Some(parent) = round.places.get_mut(&parent) {
                    parent.inside.insert(place.clone());
                    parent.to_go_inside += usize::from(goes);
                }
            }
        }
        all.iter().for_each(|place| round.consider(place));
        round
    }

    /// A place whose phases could not be found out, or that is not to be tried now: nothing of it counts as in effect, also where another that was
    /// given up before has stopped it. Without effect for one that was started.
    pub fn give_up(&mut self, place: &Place) {
        let Some(entry) = self.places.get_mut(place).filter(|entry| !entry.begun) else { return };
        entry.left = Phase::ALL.into();
        self.end(place, Progress::Failed(Phase::Guard));
    }

    /// Starts the next phase of a place that is [ready](Self::ready); `None` for others.
    pub fn start(&mut self, place: &Place) -> Option<Job> {
        let place = self.ready.take(place)?;
        let entry = self.places.get_mut(&place)?;
        let phase = *entry.left.front()?;
        entry.running = true;
        entry.begun = true;
        self.running += 1;
        Some(Job { place, phase })
    }

    /// A phase is in effect.
    pub fn complete(&mut self, job: Job) {
        let Job { place, phase } = job;
        if !self.stop_running(&place, phase) {
            return;
        }
        let Some(entry) = self.places.get_mut(&place) else { return };
        entry.left.pop_front();
        let gone = !entry.has_to_go();
        match phase {
            Phase::Guard | Phase::Open => self.inside(&place).iter().for_each(|child| self.consider(child)),
            Phase::Build | Phase::Close | Phase::Dismantle if gone => {
                for parent in self.around(&place) {
                    if let Some(entry) = self.places.get_mut(&parent) {
                        entry.to_go_inside -= 1;
                    }
                    self.consider(&parent);
                }
            }
            _ => {}
        }
        self.consider(&place);
    }

    /// A phase failed, wholly or in part.
    #[expect(clippy::needless_pass_by_value, reason = "a job ends once")]
    pub fn fail(&mut self, job: Job) {
        if self.stop_running(&job.place, job.phase) {
            self.end(&job.place, Progress::Failed(job.phase));
        }
    }

    /// The places whose next phase may start now, in their order.
    pub fn ready(&self) -> impl ExactSizeIterator<Item = &Place> {
        self.ready.iter()
    }

    /// Whether nothing runs and nothing can: each place is done, failed or stopped.
    pub fn is_over(&self) -> bool {
        self.running == 0 && self.ready.is_empty()
    }

    /// Whether what opens at a place and around it has opened, or was open before: from then on it reaches whom it should, and may be told
    /// their names.
    pub fn is_open(&self, place: &Place) -> bool {
        let has_opened = |place: &Place| {
            let left = self.places.get(place).and_then(|entry| entry.left.front());
            left.is_none_or(|next| *next > Phase::Open)
        };
        let mut around = self.places.get(place).into_iter().flat_map(|entry| &entry.within);
        has_opened(place) && around.all(|network| has_opened(&Place::Network(*network)))
    }

    /// How far each place is, in their order.
    pub fn progress(&self) -> impl Iterator<Item = (&Place, Progress)> {
        self.places.iter().map(|(place, entry)| {
            let progress = match (&entry.end, entry.left.front()) {
                (Some(end), _) => end.clone(),
                (None, None) => Progress::Done,
                (None, Some(phase)) if entry.running => Progress::Running(*phase),
                (None, Some(phase)) => Progress::Waiting(*phase),
            };
            (place, progress)
        })
    }

    /// Whether this job was running; it is not any more.
    fn stop_running(&mut self, place: &Place, phase: Phase) -> bool {
        let Some(entry) = self.places.get_mut(place) else { return false };
        if !entry.running || entry.left.front() != Some(&phase) {
            return false;
        }
        entry.running = false;
        self.running -= 1;
        true
    }

    /// Makes a place ready if it may go on, or stops it if it never will.
    fn consider(&mut self, place: &Place) {
        let Some(entry) = self.places.get(place).filter(|entry| entry.is_idle()) else { return };
        let Some(phase) = entry.left.front().copied() else { return };
        match self.hindrance(place, phase) {
            Hindrance::None => drop(self.ready.insert(place.clone())),
            Hindrance::ForNow => {}
            Hindrance::ForGood(by) => self.end(place, Progress::Stopped { before: phase, by }),
        }
    }

    fn hindrance(&self, place: &Place, phase: Phase) -> Hindrance {
        match phase {
            Phase::Open => {
                let unguarded = |parent: &Place| self.places.get(parent).is_some_and(|it| it.lacks(Phase::Guard));
                let unguarded: Vec<Place> = self.around(place).into_iter().filter(unguarded).collect();
                let never = |parent: &&Place| self.places.get(*parent).is_some_and(|it| it.end.is_some());
                match unguarded.iter().find(never) {
                    Some(parent) => Hindrance::ForGood(parent.clone()),
                    None if unguarded.is_empty() && !self.opens_around(place) => Hindrance::None,
                    None => Hindrance::ForNow,
                }
            }
            Phase::Unguard => match self.places.get(place) {
                Some(Entry { never_goes: Some(child), .. }) => Hindrance::ForGood(child.clone()),
                Some(Entry { to_go_inside: 1.., .. }) => Hindrance::ForNow,
                _ => Hindrance::None,
            },
            _ => Hindrance::None,
        }
    }

    /// Whether a place around one is still to open, and may.
    fn opens_around(&self, place: &Place) -> bool {
        let opens =
            |parent: &Place| self.places.get(parent).is_some_and(|it| it.end.is_none() && it.lacks(Phase::Open));
        self.around(place).iter().any(opens)
    }

    /// A place goes no further, and what waits for it neither.
    fn end(&mut self, place: &Place, end: Progress) {
        self.ready.remove(place);
        let Some(entry) = self.places.get_mut(place) else { return };
        entry.end = Some(end);
        let awaited = entry.lacks(Phase::Guard) || entry.lacks(Phase::Open);
        let stays = entry.has_to_go();
        if awaited {
            self.inside(place).iter().for_each(|child| self.consider(child));
        }
        if stays {
            for parent in self.around(place) {
                if let Some(entry) = self.places.get_mut(&parent) {
                    entry.never_goes.get_or_insert_with(|| place.clone());
                }
                self.consider(&parent);
            }
        }
    }

    /// The places around one, as far as they are in the round.
    fn around(&self, place: &Place) -> Vec<Place> {
        let within = self.places.get(place).map(|entry| &entry.within).filter(|_| matches!(place, Place::Container(_)));
        let networks = within.into_iter().flatten().map(|network| Place::Network(*network));
        let host = (*place != Place::Host).then_some(Place::Host);
        host.into_iter().chain(networks).filter(|parent| self.places.contains_key(parent)).collect()
    }

    fn inside(&self, place: &Place) -> BTreeSet<Place> {
        self.places.get(place).map(|entry| entry.inside.clone()).unwrap_or_default()
    }
}

/// What keeps a phase from starting.
enum Hindrance {
    None,
    ForNow,
    ForGood(Place),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(phase) => write!(f, "waits before {phase}"),
            Self::Running(phase) => write!(f, "runs {phase}"),
            Self::Done => f.write_str("done"),
            Self::Failed(phase) => write!(f, "{phase} failed"),
            Self::Stopped { before, by } => write!(f, "stopped before {before} by {by}"),
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
