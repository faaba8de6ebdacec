//! What can be counted.

use overlay_crypto::Stage;
use tokio::sync::oneshot;
use tracing::Span;

use super::Heart;
use crate::ground::Ground;
use crate::metrics::{DriverMetrics, PlaceMetrics};
use crate::spans;

impl<G: Ground> Heart<G> {
    /// What carries is asked aside: it answers between two batches, and while places change it has to wait.
    pub(super) fn metrics(&self, asked: oneshot::Sender<DriverMetrics>) {
        let places = PlaceMetrics {
            wanted: self.state.desired.places.len(),
            lacking: self.upkeep.lacking().count(),
            failing: self.state.failures.len(),
            unreadable: self.book.damaged().count(),
            ..self.state.counts
        };
        let metrics = DriverMetrics {
            agent: self.agent.metrics(),
            places,
            names: self.resolvers.metrics(),
            resolvers: self.resolvers.len(),
            carried: None,
        };
        let ground = self.ground.clone();
        self.jobs.run(move || {
            let _ = asked.send(DriverMetrics { carried: ground.carried(), ..metrics });
        });
    }

    /// A change of the node's keys takes as long as their stage says so.
    pub(super) fn mind_rotation(&mut self) {
        let knowledge = self.agent.knowledge();
        let Some(records) = knowledge.records.get(&knowledge.me) else { return };
        match (records.stage(), &self.state.rotating) {
            (Stage::Steady, Some(_)) => self.state.rotating = None,
            (Stage::Installing | Stage::Promoted, None) => {
                self.state.rotating = Some(spans::rotation(self.me.id, records.current.epoch, knowledge.rotated));
            }
            _ => {}
        }
    }
}

/// A change of keys on its way.
pub(super) type Rotating = Option<Span>;
