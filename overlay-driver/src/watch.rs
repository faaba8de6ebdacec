//! The endpoints of a service, as a node knows them, followed.

use std::sync::Arc;

use overlay_node::{ServiceEndpoints, ServiceEvent};
use tokio::sync::watch;

use crate::Stopped;

/// What is known of a service now; `None` as long as that is not known.
pub(crate) type Latest = Option<Option<Arc<ServiceEndpoints>>>;

/// The endpoints of a service, followed: made by [`Driver::watch`](crate::Driver::watch). When it is dropped, nothing is followed any more.
///
/// Who reads slowly is told of fewer changes, not of older ones: what came and went meanwhile is left out, and the last is never missed. So it takes no
/// more memory however slow that is.
#[derive(Debug)]
pub struct ServiceWatch {
    latest: watch::Receiver<Latest>,
    told: Latest,
}

impl ServiceWatch {
    pub(crate) const fn new(latest: watch::Receiver<Latest>) -> Self {
        Self { latest, told: None }
    }

    /// The next event; waits for it. The first is [all that is known](ServiceEvent::All), as soon as the catalogue was heard. May be dropped and called
    /// again: nothing is missed. O(n) for n endpoints.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn next(&mut self) -> Result<ServiceEvent, Stopped> {
        loop {
            let latest = self.latest.borrow_and_update().clone();
            let event = latest.as_ref().and_then(|latest| ServiceEvent::between(self.told.as_ref(), latest));
            if let Some(event) = event {
                self.told = latest;
                return Ok(event);
            }
            self.latest.changed().await.map_err(|_| Stopped)?;
        }
    }
}
