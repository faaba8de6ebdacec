//! A connection of a node that follows what it needs of the catalogue, at the server.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use overlay_core::{NetworkId, NodeId};
use overlay_node::{ControlError, Records, Reference, View};
use tokio::sync::watch;
use tokio::time::sleep;

use super::connection::Who;
use super::feeder::Teller;
use super::frame::{Frame, Purpose, Refusal, Told, Wish};
use super::server::Service;
use super::whole::{Known, Whole};

/// Tells a node what it needs of what there is, and then every change of that, as fast as it is read at the other end: who reads slowly is told of fewer changes.
pub(super) async fn show(node: NodeId, wish: Wish, to: Teller, who: &Who, service: &Service) -> io::Result<()> {
    let mut to = to;
    let Some(feed) = &service.feed else {
        return to.say(&Frame::Refused(Refusal::Unserved { what: "the catalogue".to_owned() })).await;
    };
    if wish.watches.len().max(wish.held.as_ref().map_or(0, BTreeSet::len)) > Wish::WATCHES {
        let flaw = format!("it watches more than {} services", Wish::WATCHES);
        return to.say(&Frame::Refused(Refusal::Malformed { flaw })).await;
    }
    let whole = service.whole.get_or_init(|| Whole::new(feed.lock().unwrap_or_else(PoisonError::into_inner).beside()));
    let seen = match (wish.after, &wish.held) {
        (Some(after), Some(held)) => whole.as_of(after).await.map(|before| Seen::of(before, node, held)),
        _ => None,
    };
    let beat = service.limits.beat.max(LEAST_BEAT);
    let mut shower =
        Shower { node, watches: wish.watches, to, at: None, all: seen.is_none(), seen: seen.unwrap_or_default() };
    let mut known = whole.known();
    known.mark_changed();
    loop {
        let is_over = shower.wait(&mut known, beat).await;
        if let Err(refusal) = who.admit(&Purpose::Follow) {
            return shower.to.say(&Frame::Refused(refusal)).await;
        }
        let now = known.borrow_and_update().clone();
        shower.tell(now, is_over).await?;
    }
}

/// What a node was shown.
#[derive(Default)]
struct Seen {
    records: Arc<Records>,
    view: View,
    /// Of records that cannot be read.
    unreadable: BTreeMap<String, String>,
}

impl Seen {
    fn of(records: Arc<Records>, node: NodeId, watched: &BTreeSet<Reference>) -> Self {
        let view = records.view(node, watched);
        Self { records, view, unreadable: BTreeMap::new() }
    }
}

struct Shower {
    node: NodeId,
    watches: BTreeSet<Reference>,
    to: Teller,
    seen: Seen,
    /// Whether all is to be told yet.
    all: bool,
    /// As of when it was told last, on this connection.
    at: Option<u64>,
}

impl Shower {
    /// Waits for something to tell, for a beat; whether that is over.
    async fn wait(&self, known: &mut watch::Receiver<Known>, beat: Duration) -> bool {
        tokio::select! {
            changed = known.changed() => match changed {
                Ok(()) => false,
                Err(_) => std::future::pending().await, // the server ends
            },
            () = sleep(beat) => true,
        }
    }

    /// Tells what is otherwise than it was told, or that we live.
    async fn tell(&mut self, now: Known, is_over: bool) -> io::Result<()> {
        if let Some(trouble) = now.trouble.filter(|_| !is_over) {
            return self.to.say(&Frame::Trouble(ControlError::Store(trouble))).await;
        }
        let Some(records) = now.records else {
            return if is_over { self.to.say(&Frame::Beat).await } else { Ok(()) };
        };
        let view = records.view(self.node, &self.watches);
        let changes = view.changes(&records, &self.seen.view, &self.seen.records);
        let unreadable = shown(&view, &now.unreadable);
        let is_news = unreadable != self.seen.unreadable;
        // Of changes that do not concern it a node hears no more than how far it is told all: so what it missed is remembered for longer.
        let is_first = self.at.is_none();
        if is_first || is_news || !changes.is_empty() || is_over && self.at != Some(now.at) {
            let unreadable = (is_news || self.all).then(|| unreadable.clone());
            let told =
                Told { all: self.all, part: true, more: false, at: now.at, changes, unreadable, ..Told::default() };
            self.to.batch(told).await?;
            (self.all, self.at) = (false, Some(now.at));
        } else if is_over {
            self.to.say(&Frame::Beat).await?;
        }
        self.seen = Seen { records, view, unreadable };
        Ok(())
    }
}

/// Of the records that cannot be read, those that a node may know of. Of a service it is not known which networks it is on: so it is told of all such, but by no more
/// than their ids. Why an endpoint's cannot be read may name another network.
fn shown(view: &View, unreadable: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let in_view = |id: Option<&str>| id.and_then(|id| id.parse::<NetworkId>().ok()).is_some_and(|id| view.shows(id));
    let shown = unreadable.iter().filter_map(|(key, flaw)| {
        let mut parts = key.rsplit('/');
        let (id, before, kind) = (parts.next(), parts.next(), parts.next());
        let flaw = match (kind, before) {
            (_, Some("node")) => flaw.as_str(),
            (_, Some("network")) if in_view(id) => flaw,
            (_, Some("service")) => UNTOLD,
            (Some("endpoint"), network) if in_view(network) => UNTOLD,
            _ => return None,
        };
        Some((key.clone(), flaw.to_owned()))
    });
    shown.collect()
}

/// Why a record cannot be read, as far as that is told.
const UNTOLD: &str = "it cannot be read; managers know why";
/// The shortest time between two beats.
const LEAST_BEAT: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use overlay_core::EndpointId;

    use super::*;

    #[test]
    fn of_unreadable_records_a_node_learns_of_no_network_that_it_has_no_part_in() {
        let id = EndpointId::from_bytes([7; 16]);
        let (_, other) = (NetworkId::from_bytes([1; 16]), NetworkId::from_bytes([2; 16]));
        let keys = [
            format!("c/network/{other}"),
            format!("c/endpoint/{other}/{id}"),
            format!("c/service/{id}"),
            format!("c/node/{id}"),
        ];
        let all = keys.iter().map(|key| (key.clone(), format!("it is on {other}"))).collect();
        let shown = shown(&View::default(), &all);
        assert_eq!(shown.keys().collect::<Vec<_>>(), [&keys[3], &keys[2]]);
        assert_eq!(shown[&keys[2]], UNTOLD);
    }
}
