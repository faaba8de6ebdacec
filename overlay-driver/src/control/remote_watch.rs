//! The endpoints of a service, as a server's node knows them, followed.

use std::sync::Arc;

use overlay_node::{Reference, ServiceEndpoints, ServiceEvent};

use super::RemoteError;
use super::dial::Address;
use super::frame::{Frame, Purpose, Watched, WatchedPart};
use super::hearing::Hearing;

/// Follows the endpoints of a service from another process, as [`ServiceWatch`](crate::ServiceWatch) does: made by
/// [`ControlClient::watch`](super::ControlClient::watch).
///
/// It has a connection of its own. After that broke, the next call makes another, is told all, and tells what differs: until then, what was told
/// last is the best that is known. What a slow reader does not read yet is not kept for him, but the last is.
#[derive(Debug)]
pub struct RemoteWatch {
    address: Address,
    service: Reference,
    hearing: Option<Hearing>,
    /// What has come of an event.
    part: Option<ServiceEvent>,
    told: Option<Option<Arc<ServiceEndpoints>>>,
}

impl RemoteWatch {
    pub(super) const fn new(address: Address, service: Reference) -> Self {
        Self { address, service, hearing: None, part: None, told: None }
    }

    /// The next event; waits for it. May be dropped and called again: nothing is missed.
    ///
    /// # Errors
    /// If the server cannot be heard, or does not serve us. Call again after a while.
    pub async fn next(&mut self) -> Result<ServiceEvent, RemoteError> {
        loop {
            match self.hear().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => {
                    self.hearing = None;
                    return Err(error);
                }
            }
        }
    }

    async fn hear(&mut self) -> Result<Option<ServiceEvent>, RemoteError> {
        let hearing = match &mut self.hearing {
            Some(hearing) => hearing,
            none => {
                self.part = None;
                none.insert(Hearing::begin(&self.address, Purpose::Watch(self.service.clone())).await?)
            }
        };
        match hearing.next().await? {
            Frame::Watched(watched) => Ok(self.heed(watched)),
            Frame::Beat => Ok(None),
            Frame::Refused(refusal) => Err(refusal.into()),
            Frame::Bye => Err(RemoteError::Lost),
            _ => Err(RemoteError::Garbled { flaw: "it tells of no service".to_owned() }),
        }
    }

    /// The event, once it is whole, if it is news.
    fn heed(&mut self, Watched { more, part }: Watched) -> Option<ServiceEvent> {
        match (part, &mut self.part) {
            (WatchedPart::All(all), part) => *part = Some(ServiceEvent::All(all.map(|all| Arc::new(*all)))),
            (WatchedPart::Changes(changes), Some(ServiceEvent::Changes(all))) => all.extend(changes),
            (WatchedPart::Changes(changes), Some(ServiceEvent::All(all))) => {
                ServiceEvent::Changes(changes).heed(all);
            }
            (WatchedPart::Changes(changes), none) => *none = Some(ServiceEvent::Changes(changes)),
        }
        match self.part.take_if(|_| !more)? {
            ServiceEvent::All(now) => {
                let news = ServiceEvent::between(self.told.as_ref(), &now);
                self.told = Some(now);
                news
            }
            changes @ ServiceEvent::Changes(_) => {
                changes.clone().heed(self.told.as_mut()?);
                Some(changes)
            }
        }
    }
}
