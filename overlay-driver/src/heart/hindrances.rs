//! What of the host is in the way of the ports that it publishes.

use std::sync::Arc;

use overlay_node::{Break, Input, Place, PlaceState, unpublished};

use super::{Heart, News};
use crate::ground::{Ground, Hindrances};
use crate::status::DriverEvent;

/// What was found, and when it is looked for again.
#[derive(Debug, Default)]
pub(super) struct Hindered {
    found: Hindrances,
    is_looking: bool,
    /// Ticks of the watch since it was looked for.
    ticks: u32,
}

/// Programs that begin to listen are found within so many ticks of the watch: 10 s.
const TICKS: u32 = 20;

impl<G: Ground> Heart<G> {
    /// The host was given a state: its ports may be others.
    pub(super) fn look_for_hindrances(&mut self, state: &Arc<PlaceState>) {
        let (mut ground, state, news) = (self.ground.clone(), Arc::clone(state), self.news.clone());
        let hindered = &mut self.state.hindered;
        (hindered.is_looking, hindered.ticks) = (true, 0);
        self.jobs.run(move || {
            let found = ground.hindrances(&state).unwrap_or_default(); // a host that cannot be looked at fails elsewhere
            let _ = news.send(News::Hindrances(found));
        });
    }

    /// Programs come and go by themselves.
    pub(super) fn watch_for_hindrances(&mut self) {
        let hindered = &mut self.state.hindered;
        hindered.ticks = hindered.ticks.saturating_add(1);
        if hindered.ticks < TICKS || hindered.is_looking {
            return;
        }
        let host = self.state.held.get(&Place::Host).filter(|state| publishes(state)).cloned();
        if let Some(state) = host {
            self.look_for_hindrances(&state);
        }
    }

    pub(super) fn take_hindrances(&mut self, found: Hindrances) {
        self.state.hindered.is_looking = false;
        if self.state.hindered.found == found {
            return;
        }
        for text in found.texts() {
            if !self.state.hindered.found.texts().any(|known| known == text) {
                self.say(DriverEvent::Hindered { reason: text });
            }
        }
        self.tell(Input::Taken(found.taken.clone()));
        self.state.hindered.found = found;
    }

    /// All that keeps ports of services from clients at this node.
    pub(super) fn hindrances(&self) -> Vec<String> {
        self.state.hindered.found.texts().chain(unpublished(self.agent.knowledge())).collect()
    }
}

fn publishes(state: &PlaceState) -> bool {
    !state.firewall.published.is_empty() || !state.lb.services.is_empty()
}

impl Hindrances {
    fn texts(&self) -> impl Iterator<Item = String> {
        let taken = self.taken.iter().map(|((protocol, port), by)| {
            format!(
                "{by} listens at the host's {protocol} {port}, and is not asked while a service publishes it: publish \
                 another port, or end that program"
            )
        });
        taken.chain(self.switches.iter().map(|(_, Break { missing, repair })| format!("{missing}: {repair}")))
    }
}
