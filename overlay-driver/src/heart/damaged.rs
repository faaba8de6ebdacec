//! Files of what was plugged in that are damaged: they go once the catalogue does not have their endpoints here any more.

use std::collections::BTreeSet;

use overlay_core::{EndpointId, NodeId};
use overlay_node::{CatalogueChange, Condition, Control};

use super::{Heart, News};
use crate::ground::Ground;
use crate::status::DriverEvent;

impl<G: Ground> Heart<G> {
    /// The catalogue was heard: it is asked for those whose files are damaged, where it may have them no more.
    pub(super) fn look_for_damaged(&mut self, is_first: bool, changes: &[CatalogueChange]) {
        let damaged: BTreeSet<EndpointId> = self.book.damaged().map(|(endpoint, ..)| endpoint).collect();
        let named = changes.iter().filter_map(|change| match change {
            CatalogueChange::Endpoint(endpoint) => Some(endpoint.id),
            CatalogueChange::EndpointGone(endpoint) => Some(*endpoint),
            _ => None,
        });
        let mut doubted = std::mem::take(&mut self.state.doubted);
        doubted.extend(named.chain(damaged.iter().copied().filter(|_| is_first)));
        doubted.retain(|endpoint| damaged.contains(endpoint));
        if doubted.is_empty() {
            return;
        }
        let (control, me, news) = (self.control.clone(), self.node(), self.news.clone());
        tokio::spawn(async move {
            for endpoint in doubted {
                let _ = news.send(News::Damaged(endpoint, is_here(&*control, me, endpoint).await));
            }
        });
    }

    /// Only what says that the endpoint is not here erases its file. Where nobody could say, it is asked again when the catalogue is next heard.
    pub(super) fn take_damaged(&mut self, endpoint: EndpointId, here: Option<bool>) {
        let is_damaged = self.book.damaged().any(|(damaged, ..)| damaged == endpoint);
        if !is_damaged || here == Some(true) {
            return;
        }
        match here.map(|_| self.book.erase(endpoint)) {
            Some(Ok(_)) => self.say(DriverEvent::Withdrawn(endpoint)),
            None | Some(Err(_)) => drop(self.state.doubted.insert(endpoint)),
        }
    }
}

/// Whether the catalogue has an endpoint on this node; `None` if it cannot be asked.
pub(super) async fn is_here(control: &dyn Control, me: NodeId, endpoint: EndpointId) -> Option<bool> {
    let found = control.endpoint(endpoint).await.ok()?;
    Some(found.is_some_and(|it| it.spec.node == me && it.condition != Condition::Removing))
}
