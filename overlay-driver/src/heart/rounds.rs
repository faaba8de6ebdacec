//! Bringing places to what is desired.

use std::sync::Arc;
use std::time::Duration;

use overlay_node::{Input, Place, PlaceState, Progress};

use super::{Heart, News};
use crate::ground::Ground;
use crate::resolvers::Bound;
use crate::status::DriverEvent;
use crate::works::{Done, Over};

/// How long a place rests whose names cannot be answered.
const BIND_AGAIN: Duration = Duration::from_millis(100);

impl<G: Ground> Heart<G> {
    pub(super) fn take_done(&mut self, done: Done) {
        let over = self.works.take(done);
        self.publish();
        if let Some(over) = over {
            self.end(over);
        }
    }

    fn end(&mut self, over: Over) {
        let Over { round, schedule, failures, changed, forgotten } = over;
        let wanted: Vec<(Place, Option<Arc<PlaceState>>)> =
            round.places().map(|(place, state)| (place.clone(), state.cloned())).collect();
        self.state.counts.rounds += 1;
        for (place, steps) in changed {
            self.state.counts.changed += 1;
            self.state.counts.steps += steps.lines().count() as u64;
            self.say(DriverEvent::Changed { place: place.to_string(), steps });
        }
        let stopped: Vec<(Place, String)> = schedule
            .progress()
            .filter_map(|(place, progress)| match progress {
                Progress::Stopped { by, .. } => Some((place.clone(), format!("it waits for {by}"))),
                _ => None,
            })
            .collect();
        let now = self.now();
        let told = self.upkeep.end(round, &schedule, now);
        for (place, state) in wanted {
            let ended = told.iter().find(|(of, _)| *of == place).filter(|_| !forgotten.contains(&place));
            let Some((_, done)) = ended else { continue };
            let result = match done {
                true => Ok(()),
                false => Err(failures.get(&place).cloned().unwrap_or_else(|| "it was given up".to_owned())),
            };
            let is_newest = is_same(state.as_ref(), self.state.desired.places.get(&place));
            self.state.acting.end(&place, !is_newest);
            self.note(&place, state.as_ref(), &result);
            self.tell(Input::Applied { place, state, result });
        }
        for (place, why) in stopped {
            self.state.acting.end(&place, false);
            self.state.failures.insert(place, why);
        }
        forgotten.iter().for_each(|place| self.doubt(place));
        if self.works.needs_keys() {
            self.tell(Input::Rekey);
        }
    }

    /// Containers that are as an earlier start has left them have their way to the resolver: it answers again before they are looked
    /// at.
    pub(super) fn serve_adopted(&mut self) {
        if self.state.names_at.is_some() {
            return;
        }
        let desired = &self.state.desired.places;
        let adopted = self.state.adopted.iter().filter_map(|place| desired.get_key_value(place));
        let adopted: Vec<_> = adopted.map(|(place, state)| (place.clone(), Arc::clone(state))).collect();
        adopted.iter().for_each(|(place, state)| self.serve(place, state));
    }

    /// Remembers what became of a place.
    fn note(&mut self, place: &Place, state: Option<&Arc<PlaceState>>, result: &Result<(), String>) {
        self.state.adopted.remove(place);
        match (result, state) {
            (Err(reason), _) => {
                self.state.counts.failures += 1;
                if self.state.failures.insert(place.clone(), reason.clone()).as_ref() != Some(reason) {
                    self.say(DriverEvent::Failed { place: place.to_string(), reason: reason.clone() });
                }
            }
            (Ok(()), Some(state)) => {
                self.state.failures.remove(place);
                self.state.held.insert(place.clone(), Arc::clone(state));
                if *place == Place::Host {
                    self.look_for_hindrances(state);
                }
                self.serve(place, state);
                self.hear(place);
            }
            (Ok(()), None) => {
                self.state.failures.remove(place);
                self.state.held.remove(place);
                self.state.named.remove(place);
                self.resolvers.withdraw(place);
                self.hints.forget(place);
                self.let_go(place);
            }
        }
    }

    /// A place sees the names it should from when what opens there and around it is open, until it begins to be closed.
    pub(super) fn publish(&mut self) {
        let Some(round) = self.works.round() else { return };
        let places: Vec<_> = round.places().map(|(place, state)| (place.clone(), state.cloned())).collect();
        for (place, state) in places {
            match state {
                None => self.resolvers.withdraw(&place),
                Some(state) if self.works.is_open(&place) => self.serve(&place, &state),
                Some(_) => {}
            }
        }
    }

    fn serve(&mut self, place: &Place, state: &Arc<PlaceState>) {
        let asks = match place {
            Place::Host => false,
            Place::Network(_) => !state.view.networks.is_empty(),
            Place::Container(_) => true,
        };
        if asks {
            if self.resolvers.publish(place, state, self.works.is_direct(place)) {
                self.state.named.remove(place);
            }
        } else if *place != Place::Host {
            self.resolvers.withdraw(place);
        }
    }

    pub(super) fn take_bound(&mut self, bound: Bound) {
        let Some((place, result)) = self.resolvers.take(bound) else { return };
        if let Err(reason) = &result {
            if self.state.named.get(&place) != Some(&result) {
                self.say(DriverEvent::Nameless { place: place.to_string(), reason: reason.clone() });
            }
            let (news, place) = (self.news.clone(), place.clone());
            tokio::spawn(async move {
                tokio::time::sleep(BIND_AGAIN).await;
                let _ = news.send(News::BindAgain(place));
            });
        }
        self.state.named.insert(place, result);
    }

    /// Something at a place changed.
    pub(super) fn take_hint(&mut self, place: &Place) {
        self.doubt(place);
        if *place == Place::Host {
            self.hint_usage();
        }
        if matches!(place, Place::Container(_)) {
            // The far ends of their pairs are there too, and of the host's.
            self.doubt(&Place::Host);
            let within = self.state.desired.places.get(place).map(|state| state.within.clone()).unwrap_or_default();
            within.into_iter().for_each(|network| self.doubt(&Place::Network(network)));
        }
    }

    pub(super) fn doubt(&mut self, place: &Place) {
        let now = self.now();
        self.upkeep.doubt(place, now);
    }

    fn hear(&mut self, place: &Place) {
        if self.hints.hears(place) {
            return;
        }
        let (mut ground, place, news) = (self.ground.clone(), place.clone(), self.news.clone());
        self.jobs.run(move || {
            if let Ok(hints) = ground.hints(&place) {
                let _ = news.send(News::Hints(place, hints));
            }
        });
    }
}

fn is_same(one: Option<&Arc<PlaceState>>, other: Option<&Arc<PlaceState>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (one, other) => one.is_none() && other.is_none(),
    }
}
