//! Writing into the catalogue what became of endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{EndpointId, NodeId, told};
use overlay_node::{Control, ControlError, Stay};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::events::Events;
use crate::status::DriverEvent;

/// Reports, the newest of each endpoint, until they are written.
#[derive(Debug)]
pub(crate) struct Reporter {
    reports: UnboundedSender<Report>,
    task: JoinSet<()>,
}

/// What became of an endpoint in that of its stays here, or in the one that it is in now.
type Report = (EndpointId, Option<u64>, Result<(), String>);

/// How long it rests after a failure: first, and at most.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Reporter {
    pub(crate) fn start(control: Arc<dyn Control>, node: NodeId, events: Events) -> Self {
        let (reports, new) = unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(write(control, node, new, events));
        Self { reports, task }
    }

    pub(crate) fn report(&self, endpoint: EndpointId, moves: Option<u64>, result: Result<(), String>) {
        let _ = self.reports.send((endpoint, moves, result));
    }

    /// Ends. What is not written by now is not written.
    pub(crate) async fn end(mut self) {
        self.task.shutdown().await;
    }
}

/// Reports on an endpoint in the stay that it is in, if it is on this node.
pub(crate) async fn report_now(
    control: &dyn Control,
    endpoint: EndpointId,
    node: NodeId,
    result: Result<(), String>,
) -> Result<(), ControlError> {
    match control.endpoint(endpoint).await? {
        Some(found) if found.spec.node == node => control.report(endpoint, found.stay(), result).await,
        _ => Ok(()),
    }
}

async fn write(control: Arc<dyn Control>, node: NodeId, mut new: UnboundedReceiver<Report>, events: Events) {
    let mut waiting = BTreeMap::new();
    let mut rest = REST.0;
    loop {
        if waiting.is_empty() {
            let Some((endpoint, moves, result)) = new.recv().await else { return };
            waiting.insert(endpoint, (moves, result));
        }
        while let Ok((endpoint, moves, result)) = new.try_recv() {
            waiting.insert(endpoint, (moves, result));
        }
        let Some((endpoint, (moves, result))) = waiting.pop_first() else { continue };
        let written = match moves {
            Some(moves) => control.report(endpoint, Stay { node, moves }, result.clone()).await,
            None => report_now(&*control, endpoint, node, result.clone()).await,
        };
        match written {
            Ok(()) => rest = REST.0,
            Err(error) if error.refusal().is_some() => {} // it is nobody's any more
            Err(error) => {
                events.tell(DriverEvent::Unreported { endpoint, reason: told(&error) });
                waiting.entry(endpoint).or_insert((moves, result));
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(REST.1);
            }
        }
    }
}
