//! Endpoints whose work is taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{EndpointId, Instant, Name, NsKey, told};
use overlay_dns::Health;
use overlay_node::{Drain, Drained, Flows, Input};
use tokio::sync::oneshot;

use super::{Heart, News};
use crate::DrainError;
use crate::ground::{FlowMeter, Ground};

/// The drains under way.
#[derive(Debug, Default)]
pub(super) struct Drains {
    all: BTreeMap<u64, UnderWay>,
    /// How many there were.
    count: u64,
}

#[derive(Debug)]
struct UnderWay {
    endpoint: EndpointId,
    container: Name,
    namespace: Option<NsKey>,
    at: BTreeSet<IpAddr>,
    drain: Drain,
    /// By which of the desired states it is draining; not known yet if `None`.
    turn: Option<u64>,
    eye: Eye,
    pace: Pace,
    asked: oneshot::Sender<Result<Drained, DrainError>>,
}

/// What looks at the flows.
enum Eye {
    Closed,
    Open(FlowMeter),
    /// It is at work.
    Away,
    /// There is nothing to see.
    Blind,
}

/// When flows are looked at.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Next, if nothing happens.
    due: Instant,
    pause: Duration,
    /// Last.
    begun: Option<Instant>,
}

/// The flows of an endpoint were looked at.
pub(crate) struct Counted {
    number: u64,
    eye: Eye,
    begun: Instant,
    found: Result<Flows, String>,
}

const SOONEST: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_millis(250);
/// A look may take up to a tenth of the time, but one comes each second.
const SHARE: u32 = 10;
const LONGEST: Duration = Duration::from_secs(1);
const UNSEEN: &str = "what is in no namespace, such as a virtual machine, has flows that its host does not see";

impl Drains {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.all.values().map(UnderWay::due).min()
    }
}

impl UnderWay {
    fn due(&self) -> Instant {
        let (deadline, looks) = (self.drain.deadline(), matches!(self.eye, Eye::Closed | Eye::Open(_)));
        if looks { self.looks_at().min(deadline) } else { deadline }
    }

    /// As soon as a look may end it, or after a pause.
    fn looks_at(&self) -> Instant {
        let ends = self.drain.quiet_at().filter(|quiet| self.pace.begun.is_some_and(|begun| begun < *quiet));
        ends.map_or(self.pace.due, |quiet| quiet.min(self.pace.due))
    }
}

impl<G: Ground> Heart<G> {
    pub(super) fn drain(
        &mut self,
        endpoint: EndpointId,
        patience: Duration,
        asked: oneshot::Sender<Result<Drained, DrainError>>,
    ) {
        let (plugged, assigned) = (self.book.get(endpoint), self.agent.assigned(endpoint));
        let Some((plugged, assigned)) = plugged.zip(assigned) else {
            return drop(asked.send(Err(DrainError::NotHere { endpoint })));
        };
        let (container, namespace) = (plugged.container.clone(), plugged.namespace.clone());
        let at = assigned.addresses.iter().map(IpNet::addr).collect();
        self.tell(Input::Health(endpoint, Health::Draining));
        let now = self.now();
        let pace = Pace { due: now, pause: SOONEST, begun: None };
        let eye = if namespace.is_some() { Eye::Closed } else { Eye::Blind };
        let mut drain = Drain::new(now, patience);
        if namespace.is_none() {
            drain.handle_unreadable(UNSEEN.to_owned());
        }
        let drains = &mut self.state.drains;
        drains.count += 1;
        let under_way = UnderWay { endpoint, container, namespace, at, drain, turn: None, eye, pace, asked };
        drains.all.insert(drains.count, under_way);
    }

    /// Looks how far drains are, and answers for those that have ended.
    pub(super) fn mind_drains(&mut self, now: Instant) {
        let mut drains = std::mem::take(&mut self.state.drains.all);
        drains.retain(|_, under_way| !under_way.asked.is_closed());
        for (number, mut under_way) in drains {
            match self.mind(number, &mut under_way, now) {
                Ok(None) => drop(self.state.drains.all.insert(number, under_way)),
                Ok(Some(drained)) => drop(under_way.asked.send(Ok(drained))),
                Err(error) => drop(under_way.asked.send(Err(error))),
            }
        }
    }

    fn mind(&self, number: u64, under_way: &mut UnderWay, now: Instant) -> Result<Option<Drained>, DrainError> {
        let endpoint = under_way.endpoint;
        if self.book.get(endpoint).is_none_or(|plugged| plugged.namespace != under_way.namespace) {
            return Err(DrainError::Gone { endpoint });
        }
        match self.agent.health(endpoint) {
            Some(Health::Draining) => {}
            Some(_) => return Err(DrainError::Revived { endpoint }),
            None => return Err(DrainError::Gone { endpoint }),
        }
        let unheard = self.agent.unheard(endpoint).map_err(|reason| DrainError::Untold { endpoint, reason })?;
        let acting = &self.state.acting;
        let turn = *under_way.turn.get_or_insert_with(|| acting.turn() + u64::from(self.state.look_at.is_some()));
        let has_acted = acting.through() >= turn;
        // Whoever has just begun knows nobody yet: that is not to say that all have heard.
        let is_acquainted = self.state.acquainted_at <= now;
        let own = (!has_acted || !is_acquainted).then_some(self.me.id);
        under_way.drain.handle_behind(unheard.into_iter().chain(own).collect(), now);
        let ended = under_way.drain.poll(now);
        if ended.is_none() && under_way.looks_at() <= now {
            self.look_at_flows(number, under_way, now);
        }
        Ok(ended)
    }

    fn look_at_flows(&self, number: u64, under_way: &mut UnderWay, begun: Instant) {
        let meter = match std::mem::replace(&mut under_way.eye, Eye::Away) {
            Eye::Closed => None,
            Eye::Open(meter) => Some(meter),
            other => {
                under_way.eye = other;
                return;
            }
        };
        let (mut ground, news) = (self.ground.clone(), self.news.clone());
        let (container, at) = (under_way.container.clone(), under_way.at.clone());
        self.jobs.run(move || {
            let opened = meter.map_or_else(|| ground.flows(&container, at), |meter| Ok(Some(meter)));
            let (eye, found) = match opened {
                Ok(Some(meter)) => look(meter),
                Ok(None) => (Eye::Blind, Err(UNSEEN.to_owned())),
                Err(error) => (Eye::Closed, Err(told(&error))),
            };
            let _ = news.send(News::Flows(Box::new(Counted { number, eye, begun, found })));
        });
    }

    pub(super) fn take_counted(&mut self, counted: Counted) {
        let now = self.now();
        let Counted { number, eye, begun, found } = counted;
        let Some(under_way) = self.state.drains.all.get_mut(&number) else { return };
        under_way.eye = eye;
        match found {
            Ok(flows) => under_way.drain.handle_flows(flows, begun, now),
            Err(reason) => under_way.drain.handle_unreadable(reason),
        }
        let pause = under_way.pace.pause.max(((now - begun) * SHARE).min(LONGEST));
        let longer = (under_way.pace.pause * 3 / 2).min(LATEST);
        under_way.pace = Pace { due: now + pause, pause: longer, begun: Some(begun) };
    }

    /// Lets the others know that what they said is in effect here.
    pub(super) fn mind_acted(&mut self) {
        if self.state.look_at.is_none() {
            self.state.acting.heard(self.agent.heard()); // and nothing else is desired by it
        }
        if let Some(through) = self.state.acting.acted() {
            self.agent.acted(through);
        }
    }
}

fn look(mut meter: FlowMeter) -> (Eye, Result<Flows, String>) {
    match meter.read() {
        Ok(flows) => (Eye::Open(meter), Ok(flows)),
        // It knows more than one that is opened anew: who listened before.
        Err(error) => (Eye::Open(meter), Err(told(&error))),
    }
}

impl std::fmt::Debug for Eye {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Closed => "Closed",
            Self::Open(_) => "Open",
            Self::Away => "Away",
            Self::Blind => "Blind",
        })
    }
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counted").field("number", &self.number).field("found", &self.found).finish_non_exhaustive()
    }
}
