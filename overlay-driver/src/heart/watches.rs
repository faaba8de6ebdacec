//! Services whose endpoints somebody watches.

use std::collections::BTreeSet;

use overlay_node::{Input, Reference};
use tokio::sync::watch;

use super::Heart;
use crate::ground::Ground;
use crate::watch::Latest;

impl<G: Ground> Heart<G> {
    /// Those who watch one service share what is known of it.
    pub(super) fn begin_watch(&mut self, service: Reference) -> watch::Receiver<Latest> {
        if let Some(watched) = self.state.watched.get(&service) {
            return watched.subscribe();
        }
        let (watched, latest) = watch::channel(None);
        self.state.watched.insert(service, watched);
        self.want_watched();
        latest
    }

    /// Has who follows the catalogue ask for what concerns the services that are watched.
    fn want_watched(&self) {
        self.state.wanted.send_replace(self.state.watched.keys().cloned().collect());
    }

    /// What is in the catalogue of these was told: nobody is to hear before that there is no such service.
    pub(super) fn watch_heard(&mut self, services: BTreeSet<Reference>) {
        for service in services {
            if self.state.watched.contains_key(&service) {
                self.tell(Input::Watch(service));
            }
        }
    }

    /// Tells what is otherwise than before. Not before the catalogue was heard, nor before others had the time to say what they have, after a start again:
    /// nobody is to be told that nobody is there because it is not known yet.
    pub(super) fn tell_watchers(&mut self) {
        if !self.state.has_heard || self.state.names_at.is_some() {
            return;
        }
        for (service, endpoints) in self.agent.watched() {
            if let Some(watched) = self.state.watched.get(&service) {
                watched.send_replace(Some(endpoints));
            }
        }
    }

    /// What nobody watches any more is not followed.
    pub(super) fn end_watches(&mut self) {
        let ended: Vec<Reference> =
            self.state.watched.extract_if(.., |_, watched| watched.is_closed()).map(|(service, _)| service).collect();
        if !ended.is_empty() {
            ended.into_iter().for_each(|service| self.tell(Input::Unwatch(service)));
            self.want_watched();
        }
    }
}
