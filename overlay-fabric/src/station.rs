//! One node: its agent, what waits for it, and the upkeep of its places.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overlay_core::testing::Dice;
use overlay_core::{EndpointId, Instant, Name};
use overlay_crypto::gossip::Succession;
use overlay_dns::View;
use overlay_gossip::testing::Machine;
use overlay_gossip::{Class, Transmit};
use overlay_node::{Acting, Agent, AgentEvent, Desired, Input, Place, RoundRun, Upkeep};

use crate::places::FaultyPlaces;
use crate::seal::{Disk, Nonces};
use crate::watch;

/// An agent and what a driver would do around it, as one machine of the virtual network.
///
/// It dies with all that is in here; the places stay.
pub(crate) struct Station {
    pub(crate) agent: Agent,
    places: FaultyPlaces,
    desired: Arc<Desired>,
    upkeep: Upkeep,
    run: Option<RoundRun>,
    acting: Acting,
    /// When the next job of the round ends.
    job_at: Instant,
    /// When what is desired is asked for next, if it changed.
    look_at: Option<Instant>,
    /// What is on its way to the agent from elsewhere than gossip, in order.
    inbox: VecDeque<(Instant, Input)>,
    /// What the resolver was told.
    pub(crate) views: BTreeMap<Name, View>,
    dice: Dice,
    pub(crate) reports: Vec<(EndpointId, u64, Result<(), String>)>,
    /// Endpoints that the agent unplugged by itself, as the catalogue said.
    pub(crate) withdrawn: Vec<EndpointId>,
    pub(crate) counts: UpkeepCounts,
    watched: bool,
    disk: Disk,
    /// Keys of gossip that are being written down: until when, and which version.
    writing: Option<(Instant, u64, Succession)>,
    nonces: Option<Nonces>,
    /// What was found wrong after a job.
    pub(crate) broken: Vec<String>,
}

/// What goes with a station besides its agent and places.
pub(crate) struct Beside {
    pub(crate) seed: [u8; 32],
    pub(crate) watched: bool,
    pub(crate) disk: Disk,
    pub(crate) nonces: Option<Nonces>,
}

/// What nodes did at their places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpkeepCounts {
    /// Rounds begun.
    pub rounds: u64,
    /// Phases run.
    pub jobs: u64,
    /// Of those, failed ones.
    pub failed_jobs: u64,
    /// How often a place was stopped because another had failed.
    pub stopped_places: u64,
    /// Calls that were made to fail.
    pub injected: u64,
}

impl UpkeepCounts {
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            rounds: self.rounds + other.rounds,
            jobs: self.jobs + other.jobs,
            failed_jobs: self.failed_jobs + other.failed_jobs,
            stopped_places: self.stopped_places + other.stopped_places,
            injected: self.injected + other.injected,
        }
    }
}

/// The time from a change to the round that brings it about: what comes together is done together.
const LINGER: Duration = Duration::from_millis(2);
/// The longest a job takes.
const JOB: Duration = Duration::from_micros(600);
/// The longest it takes to write something down.
const WRITE: Duration = Duration::from_millis(20);

impl Station {
    pub(crate) fn new(
        agent: Agent,
        places: FaultyPlaces,
        upkeep: Upkeep,
        Beside { seed, watched, disk, nonces }: Beside,
        now: Instant,
    ) -> Self {
        Self {
            agent,
            places,
            desired: Arc::default(),
            upkeep,
            run: None,
            acting: Acting::default(),
            job_at: now,
            look_at: None,
            inbox: VecDeque::new(),
            views: BTreeMap::new(),
            dice: Dice::new(seed),
            reports: Vec::new(),
            withdrawn: Vec::new(),
            counts: UpkeepCounts::default(),
            watched,
            disk,
            writing: None,
            nonces,
            broken: Vec::new(),
        }
    }

    /// Gives the agent an input after a delay, and after all that was given before.
    pub(crate) fn post(&mut self, input: Input, at: Instant) {
        let at = self.inbox.back().map_or(at, |(last, _)| at.max(*last));
        self.inbox.push_back((at, input));
    }

    /// Whether nothing is on its way, and all places hold what the agent wants as far as is known.
    pub(crate) fn is_settled(&self) -> bool {
        self.inbox.is_empty()
            && self.run.is_none()
            && self.look_at.is_none()
            && self.reports.is_empty()
            && self.withdrawn.is_empty()
            && self.upkeep.lacking().next().is_none()
    }

    /// What the agent wanted when it was asked last.
    pub(crate) const fn desired(&self) -> &Arc<Desired> {
        &self.desired
    }

    fn settle(&mut self, now: Instant) {
        while self.inbox.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, input)) = self.inbox.pop_front() else { break };
            self.tell(input, now);
        }
        self.write(now);
        self.take_events(now);
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.desired = self.agent.desired();
            let changed = self.upkeep.desire(Arc::clone(&self.desired), now);
            self.acting.desire(changed, self.agent.heard());
        }
        self.keep_up(now);
        self.take_events(now);
        self.tell_acted();
    }

    /// Lets the others know that what they said is in effect here.
    fn tell_acted(&mut self) {
        if self.look_at.is_none() {
            self.acting.heard(self.agent.heard()); // and nothing else is desired by it
        }
        if let Some(through) = self.acting.acted() {
            self.agent.acted(through);
        }
    }

    /// What is being written down is there, if it is time.
    fn write(&mut self, now: Instant) {
        if let Some((_, version, keys)) = self.writing.take_if(|(at, ..)| *at <= now) {
            self.disk.write(keys);
            self.tell(Input::GossipKeysKept { version }, now);
        }
    }

    /// What makes no sense to the agent is its affair: it counts it.
    fn tell(&mut self, input: Input, now: Instant) {
        let _ = self.agent.handle(input, now);
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.agent.poll_event() {
            match event {
                AgentEvent::Changed => drop(self.look_at.get_or_insert(now + LINGER)),
                AgentEvent::Report { endpoint, moves, result } => self.reports.push((endpoint, moves, result)),
                AgentEvent::Withdrawn(endpoint) => self.withdrawn.push(endpoint),
                AgentEvent::GossipKeys { version } => {
                    let at = now + Duration::from_micros(self.dice.below(WRITE.as_micros() as usize) as u64);
                    self.writing = self.agent.gossip_keys().map(|keys| (at, version, keys.clone()));
                }
                _ => {}
            }
        }
    }

    /// Goes on with the round there is, a job at a time, or begins one that is due.
    fn keep_up(&mut self, now: Instant) {
        if self.run.is_none()
            && let Some(round) = self.upkeep.begin(now)
        {
            self.counts.rounds += 1;
            self.acting.begin();
            self.run = Some(RoundRun::new(round, &mut self.places));
            self.job_at = now + self.delay();
            self.publish();
        }
        while self.run.is_some() && self.job_at <= now {
            self.job_at = now + self.delay();
            self.step(now);
        }
    }

    fn step(&mut self, now: Instant) {
        let Some(run) = &mut self.run else { return };
        let dice = &mut self.dice;
        if let Some(ran) = run.step(&mut self.places, |ready| dice.below(ready)) {
            self.counts.jobs += 1;
            self.counts.failed_jobs += u64::from(ran.result.is_err());
            if self.watched {
                self.broken.extend(watch::job(&self.places.held, run, &ran).err());
            }
            return self.publish();
        }
        let Some(run) = self.run.take() else { return };
        self.end(run, now);
    }

    fn end(&mut self, run: RoundRun, now: Instant) {
        self.places.publish();
        let failures: BTreeMap<Place, String> = run
            .schedule()
            .progress()
            .filter_map(|(place, _)| Some((place.clone(), run.failure(place)?.to_owned())))
            .collect();
        let (round, schedule) = run.into_parts();
        let wanted: BTreeMap<_, _> = round.places().map(|(place, desired)| (place.clone(), desired.cloned())).collect();
        let told = self.upkeep.end(round, &schedule, now);
        self.counts.stopped_places += (wanted.len() - told.len()) as u64;
        let ended: BTreeSet<&Place> = told.iter().map(|(place, _)| place).collect();
        for (place, state) in &wanted {
            let is_newest = state.as_ref() == self.desired.places.get(place);
            self.acting.end(place, ended.contains(place) && !is_newest); // one that was stopped is not waited for
        }
        for (place, done) in told {
            let result = match done {
                true => Ok(()),
                false => Err(failures.get(&place).cloned().unwrap_or_default()),
            };
            let state = wanted.get(&place).cloned().flatten();
            if let (true, Place::Container(name), Some(state)) = (done, &place, &state) {
                // What is around it may have failed, and is begun again without it.
                self.views.insert(name.clone(), state.view.clone());
            }
            self.tell(Input::Applied { place, state, result }, now);
        }
    }

    /// A container sees the names it should from when its ways are open, until they begin to be closed.
    fn publish(&mut self) {
        let Some(run) = &self.run else { return };
        for (place, desired) in run.round().places() {
            let Place::Container(name) = place else { continue };
            match desired {
                None => drop(self.views.remove(name)),
                Some(desired) if run.schedule().is_open(place) => {
                    if self.views.get(name) != Some(&desired.view) {
                        self.views.insert(name.clone(), desired.view.clone());
                    }
                }
                Some(_) => {}
            }
        }
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(self.dice.below(JOB.as_micros() as usize) as u64)
    }
}

impl Machine for Station {
    type Event = ();

    fn handle(&mut self, from: SocketAddr, class: Class, payload: &[u8], now: Instant) {
        self.tell(Input::Message { from, class, payload: Bytes::copy_from_slice(payload) }, now);
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.agent.handle_timeout(now);
        self.settle(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let agent = self.agent.poll_timeout().map(|(at, _)| at);
        let inbox = self.inbox.front().map(|(at, _)| *at);
        let places = if self.run.is_some() { Some(self.job_at) } else { self.upkeep.poll_timeout() };
        let writing = self.writing.as_ref().map(|(at, ..)| *at);
        [agent, inbox, self.look_at, places, writing].into_iter().flatten().min()
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let transmit = self.agent.poll_transmit(now)?;
        if self.nonces.as_ref().is_some_and(|nonces| !nonces.is_new(&transmit.payload)) {
            self.broken.push("a key sealed twice with one nonce".to_owned());
        }
        Some(transmit)
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }
}
