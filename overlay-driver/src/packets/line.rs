//! The thread of a queue, from outside.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::ended::Epitaph;
use super::queue::Queue;
use super::shared::Shared;
use super::underlay::Underlay;
use super::{CarrierConfig, Letter};

/// A thread, and by what it is told. It ends with this value.
pub(super) struct Line {
    letters: Sender<Letter>,
    bell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    /// Starts the thread of the queue of this number.
    pub(super) fn start(
        config: &CarrierConfig,
        number: usize,
        (shared, epitaph): (&Arc<Shared>, &Epitaph),
        underlay: Underlay,
    ) -> io::Result<Self> {
        let (letters, told) = channel();
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let queue = Queue::new(config, Arc::clone(shared), underlay, (told, Arc::clone(&bell)))?;
        let (core, epitaph) = (config.core.map(|core| core + number), epitaph.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "a thread that waits for the kernel alone, and works on packets all its time"
        )]
        let thread = thread::Builder::new().name("packets".to_owned()).spawn(move || epitaph.of(|| queue.run(core)))?;
        Ok(Self { letters, bell, thread: Some(thread) })
    }

    /// What it answers; `None` from a thread that is not there any more.
    pub(super) fn ask<T>(&self, letter: impl FnOnce(SyncSender<T>) -> Letter) -> Option<T> {
        let (answer, answered) = sync_channel(1);
        self.tell(letter(answer));
        answered.recv().ok()
    }

    pub(super) fn tell(&self, letter: Letter) {
        // A thread that is not there any more has nothing to do.
        if self.letters.send(letter).is_ok() {
            let _ = self.bell.write(1); // which fails if it rings already
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.tell(Letter::End);
        self.thread.take().map(JoinHandle::join);
    }
}
