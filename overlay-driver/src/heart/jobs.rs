//! What is done aside, on threads that may wait for the kernel.

use std::convert::Infallible;

use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Jobs under way. They have the ground, and with it what carries packets: so whoever ends waits for their end.
#[derive(Debug)]
pub(crate) struct Jobs {
    running: Sender<Infallible>,
    ended: Receiver<Infallible>,
}

impl Default for Jobs {
    fn default() -> Self {
        let (running, ended) = channel(1);
        Self { running, ended }
    }
}

impl Jobs {
    /// Has a job done aside.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let running = self.running.clone();
        tokio::task::spawn_blocking(move || {
            job();
            drop(running);
        });
    }

    /// Ready once none is under way.
    pub(super) async fn end(mut self) {
        drop(self.running);
        let None = self.ended.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn the_end_waits_for_all_that_is_under_way_and_for_what_it_holds() {
        let (jobs, held) = (Jobs::default(), Arc::new(()));
        let (go, waits) = channel::<()>();
        let holds = Arc::clone(&held);
        jobs.run(move || drop((waits.recv(), holds)));
        jobs.run(|| panic!("it ends, too"));
        let ending = tokio::spawn(jobs.end());
        tokio::task::yield_now().await;
        assert!(!ending.is_finished());
        go.send(()).unwrap();
        ending.await.unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
