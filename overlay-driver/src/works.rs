//! A round on a pool of threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use overlay_core::{BackendError, NodeId, Phase, told};
use overlay_node::{Job, Place, PlacePlan, PlaceState, PlaceTables, Round, Schedule};
use tokio::sync::mpsc::UnboundedSender;
use tracing::Span;

use crate::ground::{Direct, Ground, Led};
use crate::spans;

/// Plans and runs rounds: as many places at once as there are workers, one job of a place at a time. What is open stays open between
/// rounds, so that its shadow is of use.
#[derive(Debug)]
pub(crate) struct Works<G> {
    ground: G,
    open: BTreeMap<Place, PlaceTables>,
    direct: Direct,
    run: Option<Run>,
    workers: usize,
    node: NodeId,
    busy: usize,
    done: UnboundedSender<Done>,
}

/// A round on its way.
#[derive(Debug)]
struct Run {
    round: Round,
    to_plan: VecDeque<Place>,
    planned: BTreeMap<Place, (PlaceTables, PlacePlan)>,
    failures: BTreeMap<Place, String>,
    schedule: Option<Schedule>,
    jobs: BTreeMap<Place, Job>,
    changed: BTreeMap<Place, String>,
    forgotten: BTreeSet<Place>,
    span: Span,
}

/// A job that came back.
#[derive(Debug)]
pub(crate) enum Done {
    Planned(Place, Result<Box<(PlaceTables, PlacePlan)>, String>),
    Ran(Place, Option<Box<(PlaceTables, PlacePlan)>>, Result<(), String>),
}

/// A round that is over.
#[derive(Debug)]
pub(crate) struct Over {
    pub(crate) round: Round,
    pub(crate) schedule: Schedule,
    pub(crate) failures: BTreeMap<Place, String>,
    /// The plans that had something in them.
    pub(crate) changed: BTreeMap<Place, String>,
    /// Places whose namespace became another meanwhile: what was done was in the former, or nobody knows.
    pub(crate) forgotten: BTreeSet<Place>,
}

impl<G: Ground> Works<G> {
    /// See [`Ground::needs_keys`].
    pub(crate) fn needs_keys(&self) -> bool {
        self.ground.needs_keys()
    }

    pub(crate) fn new(ground: G, node: NodeId, workers: usize, done: UnboundedSender<Done>) -> Self {
        Self { ground, open: BTreeMap::new(), direct: Direct::default(), run: None, workers, node, busy: 0, done }
    }

    /// Whether a place's resolver is to listen at port 53 itself.
    pub(crate) fn is_direct(&self, place: &Place) -> bool {
        self.direct.is(place)
    }

    /// A place is to be opened anew: its namespace is another.
    pub(crate) fn forget(&mut self, place: &Place) {
        self.open.remove(place);
        self.run.iter_mut().for_each(|run| run.forgotten.extend([place.clone()]));
    }

    pub(crate) fn begin(&mut self, round: Round) {
        let to_plan: VecDeque<Place> = round.places().map(|(place, _)| place.clone()).collect();
        let span = spans::round(self.node, to_plan.len());
        let (planned, failures, jobs, changed, forgotten) = Default::default();
        self.run = Some(Run { round, to_plan, planned, failures, schedule: None, jobs, changed, forgotten, span });
        self.advance();
    }

    /// Whether a place may be told its names, in the round there is.
    pub(crate) fn is_open(&self, place: &Place) -> bool {
        self.run.as_ref().and_then(|run| run.schedule.as_ref()).is_some_and(|schedule| schedule.is_open(place))
    }

    pub(crate) fn round(&self) -> Option<&Round> {
        self.run.as_ref().map(|run| &run.round)
    }

    /// Whether a job is on its way.
    pub(crate) const fn is_busy(&self) -> bool {
        self.busy > 0
    }

    /// Takes what came back, and begins nothing more.
    pub(crate) fn put_away(&mut self, _: Done) {
        self.busy -= 1;
    }

    /// Takes what came back, and goes on. Gives the round if that was all of it.
    pub(crate) fn take(&mut self, done: Done) -> Option<Over> {
        self.busy -= 1;
        let run = self.run.as_mut()?;
        match done {
            Done::Planned(place, Ok(planned)) => {
                if !planned.1.is_empty() {
                    run.changed.insert(place.clone(), planned.1.to_string());
                }
                run.planned.insert(place, *planned);
            }
            Done::Planned(place, Err(why)) => drop(run.failures.insert(place, why)),
            Done::Ran(place, planned, result) => {
                let job = run.jobs.remove(&place);
                run.planned.extend(planned.map(|planned| (place.clone(), *planned)));
                match (job.zip(run.schedule.as_mut()), result) {
                    (Some((job, schedule)), Ok(())) => schedule.complete(job),
                    (Some((job, schedule)), Err(why)) => {
                        schedule.fail(job);
                        run.failures.insert(place, why);
                    }
                    (None, _) => {}
                }
            }
        }
        self.advance();
        self.finish()
    }

    /// Starts what may start.
    fn advance(&mut self) {
        let Some(run) = &mut self.run else { return };
        while self.busy < self.workers
            && let Some(place) = run.to_plan.pop_front()
        {
            self.busy += 1;
            let desired = run.round.desired(&place).cloned();
            let open = self.open.remove(&place).map_or_else(|| Err((self.ground.clone(), self.direct.clone())), Ok);
            let span = spans::plan(&run.span, &place);
            plan((place, span), open, desired, self.done.clone());
        }
        if run.schedule.is_none() && run.to_plan.is_empty() && self.busy == 0 {
            let phases = |(place, (_, plan)): (&Place, &(PlaceTables, PlacePlan))| {
                (place.clone(), run.round.phases(place, plan))
            };
            run.schedule = Some(run.round.schedule(&run.planned.iter().map(phases).collect()));
        }
        while self.busy < self.workers
            && let Some(schedule) = &mut run.schedule
            && let Some(place) = first_ready(schedule)
            && let Some(job) = schedule.start(&place)
        {
            let Some(planned) = run.planned.remove(&place) else {
                schedule.fail(job);
                continue;
            };
            self.busy += 1;
            let goes = job.phase == Phase::Unguard && run.round.desired(&place).is_none();
            let ground = goes.then(|| self.ground.clone());
            let span = spans::phase(&run.span, &place, job.phase);
            carry_out(ground, (place.clone(), span), planned, job.phase, self.done.clone());
            run.jobs.insert(place, job);
        }
    }

    fn finish(&mut self) -> Option<Over> {
        let is_over = |run: &mut Run| run.schedule.as_ref().is_some_and(Schedule::is_over);
        if self.busy > 0 {
            return None;
        }
        let Run { round, planned, failures, schedule, changed, forgotten, .. } = self.run.take_if(is_over)?;
        let stays = |place: &Place| {
            !failures.contains_key(place) && !forgotten.contains(place) && round.desired(place).is_some()
        };
        let kept = planned.into_iter().filter(|(place, _)| stays(place));
        self.open.extend(kept.map(|(place, (tables, _))| (place, tables)));
        Some(Over { round, schedule: schedule?, failures, changed, forgotten })
    }
}

fn first_ready(schedule: &Schedule) -> Option<Place> {
    schedule.ready().next().cloned()
}

fn plan(
    (place, span): (Place, Span),
    open: Result<PlaceTables, (impl Ground, Direct)>,
    desired: Option<Arc<PlaceState>>,
    done: UnboundedSender<Done>,
) {
    let named = place.clone();
    let job = move || {
        let _entered = span.clone().entered();
        let nothing = PlaceState::default();
        let mut tables = match open {
            Ok(tables) => tables,
            Err((ground, direct)) => open_in(ground, &place, direct).map_err(|error| told(&error))?,
        };
        let plan = tables.plan(desired.as_deref().unwrap_or(&nothing)).map_err(|error| told(&error))?;
        if !span.is_disabled() {
            spans::has_steps(&span, plan.len());
        }
        Ok(Box::new((tables, plan)))
    };
    tokio::spawn(async move {
        let planned = tokio::task::spawn_blocking(job).await.unwrap_or_else(|panic| Err(panic.to_string()));
        let _ = done.send(Done::Planned(named, planned));
    });
}

fn open_in(mut ground: impl Ground, place: &Place, direct: Direct) -> Result<PlaceTables, BackendError> {
    let tables = ground.open(place)?;
    Ok(match place {
        Place::Container(_) => {
            let firewall = Box::new(Led::new(tables.firewall, place.clone(), direct));
            PlaceTables { firewall, ..tables }
        }
        Place::Host | Place::Network(_) => tables,
    })
}

/// Runs a phase; of a place that goes, which then is closed, with the ground.
fn carry_out(
    ground: Option<impl Ground>,
    (place, span): (Place, Span),
    (mut tables, mut plan): (PlaceTables, PlacePlan),
    phase: Phase,
    done: UnboundedSender<Done>,
) {
    let named = place.clone();
    let job = move || {
        let _entered = span.entered();
        let ran = tables.run(&mut plan, phase).map_err(|error| told(&error));
        let Some(mut ground) = ground else { return (Some(Box::new((tables, plan))), ran) };
        drop(tables);
        (None, ran.and_then(|()| ground.close(&place).map_err(|error| told(&error))))
    };
    tokio::spawn(async move {
        let ran = tokio::task::spawn_blocking(job).await;
        let (planned, result) = ran.unwrap_or_else(|panic| (None, Err(panic.to_string())));
        let _ = done.send(Done::Ran(named, planned, result));
    });
}
