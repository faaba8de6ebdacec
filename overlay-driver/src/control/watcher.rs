//! A connection of somebody who watches a service, at the server.

use std::io;
use std::time::Duration;

use overlay_node::{EndpointChange, Reference, ServiceEndpoints, ServiceEvent};
use tokio::time::sleep;

use super::connection::Who;
use super::frame::{Frame, Purpose, Refusal, Watched, WatchedPart, line};
use super::lines::{Lines, write};
use super::server::{Service, Stopping};
use super::transport::{Reader, Writer};
use crate::ServiceWatch;

/// Tells all that is known of a service, and then what changes, as fast as it is read at the other end: meanwhile no more is kept than the last.
pub(super) async fn watch(
    of: Reference,
    (mut lines, to): (Lines<Reader>, Writer),
    who: &Who,
    (service, mut stopping): (&Service, Stopping),
) {
    let mut teller = Teller { to, patience: service.limits.write, beat: service.limits.beat.max(LEAST_BEAT) };
    let Some(driver) = &service.driver else {
        let refusal = Refusal::Unserved { what: "the endpoints of services".to_owned() };
        return drop(teller.say(&Frame::Refused(refusal)).await);
    };
    let told = async {
        let purpose = Purpose::Watch(of.clone());
        let Ok(mut watch) = driver.watch(of).await else { return Ok(()) };
        loop {
            let event = teller.wait(&mut watch).await;
            // Who was removed, or is no manager any more, is told nothing more.
            if let Err(refusal) = who.admit_still(&purpose, service).await {
                return teller.say(&Frame::Refused(refusal)).await;
            }
            match event {
                Heard::Event(event) => teller.tell(event).await?,
                Heard::Nothing => teller.say(&Frame::Beat).await?,
                Heard::End => return Ok(()),
            }
        }
    };
    tokio::select! {
        ended = told => drop::<io::Result<()>>(ended),
        _ = lines.next() => {} // who watches says nothing, but that it has ended
        () = stopping.wait() => {}
    }
}

/// What there is to tell.
enum Heard {
    Event(ServiceEvent),
    Nothing,
    /// Nothing comes any more.
    End,
}

struct Teller {
    to: Writer,
    patience: Duration,
    beat: Duration,
}

impl Teller {
    async fn say(&mut self, frame: &Frame<()>) -> io::Result<()> {
        write(&mut self.to, &line(frame), self.patience).await
    }

    /// Waits for something to tell, for a beat.
    async fn wait(&self, watch: &mut ServiceWatch) -> Heard {
        tokio::select! {
            event = watch.next() => event.map_or(Heard::End, Heard::Event),
            () = sleep(self.beat) => Heard::Nothing,
        }
    }

    async fn tell(&mut self, event: ServiceEvent) -> io::Result<()> {
        match event {
            ServiceEvent::All(None) => self.part(false, WatchedPart::All(None)).await,
            ServiceEvent::All(Some(all)) => {
                let ServiceEndpoints { service, name, ports, unheard, endpoints } = &*all;
                let head = ServiceEndpoints {
                    service: *service,
                    name: name.clone(),
                    ports: ports.clone(),
                    unheard: unheard.clone(),
                    endpoints: [].into(),
                };
                self.part(!endpoints.is_empty(), WatchedPart::All(Some(Box::new(head)))).await?;
                let (mut left, mut part) = (endpoints.len(), Vec::new());
                for (id, endpoint) in endpoints {
                    part.push(EndpointChange::Added(*id, endpoint.clone()));
                    left -= 1;
                    if part.len() == PART || left == 0 {
                        self.part(left > 0, WatchedPart::Changes(std::mem::take(&mut part))).await?;
                    }
                }
                Ok(())
            }
            ServiceEvent::Changes(mut left) => {
                while !left.is_empty() {
                    let next = left.split_off(PART.min(left.len()));
                    self.part(!next.is_empty(), WatchedPart::Changes(left)).await?;
                    left = next;
                }
                Ok(())
            }
        }
    }

    async fn part(&mut self, more: bool, part: WatchedPart) -> io::Result<()> {
        self.say(&Frame::Watched(Watched { more, part })).await
    }
}

/// How many changes are in one line. An endpoint has few addresses, so such a line is never long.
const PART: usize = 64;
/// The shortest time between two beats.
const LEAST_BEAT: Duration = Duration::from_millis(1);
