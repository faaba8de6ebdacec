//! Writing into the catalogue what became of endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{EndpointId, NodeId, told};
use overlay_node::Control;
use tokio::sync::broadcast;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::status::DriverEvent;

/// Reports, the newest of each endpoint, until they are written.
#[derive(Debug)]
pub(crate) struct Reporter {
    reports: UnboundedSender<(EndpointId, Result<(), String>)>,
    task: JoinSet<()>,
}

/// How long it rests after a failure: first, and at most.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Reporter {
    pub(crate) fn start(control: Arc<dyn Control>, node: NodeId, events: broadcast::Sender<DriverEvent>) -> Self {
        let (reports, new) = unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(write(control, node, new, events));
        Self { reports, task }
    }

    pub(crate) fn report(&self, endpoint: EndpointId, result: Result<(), String>) {
        let _ = self.reports.send((endpoint, result));
    }

    /// Ends. What is not written by now is not written.
    pub(crate) async fn end(mut self) {
        self.task.shutdown().await;
    }
}

async fn write(
    control: Arc<dyn Control>,
    node: NodeId,
    mut new: UnboundedReceiver<(EndpointId, Result<(), String>)>,
    events: broadcast::Sender<DriverEvent>,
) {
    let mut waiting = BTreeMap::new();
    let mut rest = REST.0;
    loop {
        if waiting.is_empty() {
            let Some((endpoint, result)) = new.recv().await else { return };
            waiting.insert(endpoint, result);
        }
        while let Ok((endpoint, result)) = new.try_recv() {
            waiting.insert(endpoint, result);
        }
        let Some((endpoint, result)) = waiting.pop_first() else { continue };
        match control.report(endpoint, node, result.clone()).await {
            Ok(()) => rest = REST.0,
            Err(error) if error.refusal().is_some() => {} // it is nobody's any more
            Err(error) => {
                let _ = events.send(DriverEvent::Unreported { endpoint, reason: told(&error) });
                waiting.entry(endpoint).or_insert(result);
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(REST.1);
            }
        }
    }
}
