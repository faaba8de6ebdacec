//! Hearing that something at a place may have changed.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_kernel::netlink::Notices;
use overlay_node::Place;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

/// What is heard from each place: a task that listens, for as long as the place is wanted.
#[derive(Debug, Default)]
pub(crate) struct Hints(BTreeMap<Place, JoinSet<()>>);

/// How long changes gather before they are told of, and at least between two times.
const GATHER: Duration = Duration::from_millis(100);

impl Hints {
    pub(crate) fn hears(&self, place: &Place) -> bool {
        self.0.contains_key(place)
    }

    /// Tells `heard` whenever one of these becomes readable.
    pub(crate) fn listen(&mut self, place: &Place, notices: Vec<Notices>, heard: &UnboundedSender<Place>) {
        let mut tasks = JoinSet::new();
        for notices in notices {
            tasks.spawn(listen(place.clone(), notices, heard.clone()));
        }
        self.0.insert(place.clone(), tasks);
    }

    pub(crate) fn forget(&mut self, place: &Place) {
        self.0.remove(place);
    }

    pub(crate) fn retain(&mut self, wanted: impl Fn(&Place) -> bool) {
        self.0.retain(|place, _| wanted(place));
    }
}

async fn listen(place: Place, notices: Notices, heard: UnboundedSender<Place>) {
    let Ok(mut notices) = AsyncFd::with_interest(notices, Interest::READABLE) else { return };
    loop {
        let Ok(mut ready) = notices.readable_mut().await else { return };
        ready.clear_ready();
        drop(ready);
        tokio::time::sleep(GATHER).await;
        // What cannot be read is a hint as well.
        let _ = notices.get_mut().drain(|_| {});
        if heard.send(place.clone()).is_err() {
            return;
        }
    }
}
