//! The thread that writes: many commits at once.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, Builder, JoinHandle};

use overlay_core::{Commit, CommitError, MemoryStore, Revision, StoreError};

use super::answer::{Promise, answer};
use super::file::{File, Group};

/// How many commits are written together at most; and so how much is lost with one failed write.
const TOGETHER: usize = 1024;
/// How many bytes are written together, unless a single commit is larger.
const BYTES: usize = 16 << 20;

type Outcome = Result<Revision, CommitError>;
type Job = (Commit, Promise<Outcome>);

/// The handle on the thread.
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    broken: Broken,
}

/// Why nothing can be written any more, once that is so.
type Broken = Arc<RwLock<Option<Arc<str>>>>;

impl Writer {
    /// Writes to `file` what commits `ahead` of the disk make of it, then shows it in `durable`.
    #[expect(clippy::disallowed_methods, reason = "a flush blocks for milliseconds: no executor's thread can do it")]
    pub(super) fn spawn(file: File, ahead: MemoryStore, durable: MemoryStore) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let broken = Broken::default();
        let work = Work { file, ahead, durable, broken: Arc::clone(&broken) };
        let thread = Builder::new().name("overlay-store".to_owned()).spawn(move || work.run(&queue))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), broken })
    }

    /// Queues a commit, and gives what waits for its outcome.
    pub(super) fn commit(&self, commit: Commit) -> Result<impl Future<Output = Outcome> + use<>, StoreError> {
        if let Some(why) = reason(&self.broken) {
            return Err(failed(&why));
        }
        let (promise, answer) = answer();
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send((commit, promise)).is_ok());
        if !sent {
            return Err(failed("its thread has ended"));
        }
        Ok(async { answer.await.unwrap_or_else(|| Err(CommitError::Ambiguous(failed("its thread has ended")))) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        let here = thread::current().id(); // the last handle may go with a task that the thread itself wakes
        let _ = self.thread.take().filter(|thread| thread.thread().id() != here).map(JoinHandle::join);
    }
}

struct Work {
    file: File,
    ahead: MemoryStore,
    durable: MemoryStore,
    broken: Broken,
}

impl Work {
    /// Until all handles are gone.
    fn run(self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut bytes = first.0.size();
            let mut jobs = vec![first];
            while jobs.len() < TOGETHER && bytes < BYTES {
                let Ok(job) = queue.try_recv() else { break };
                bytes += job.0.size();
                jobs.push(job);
            }
            self.group(jobs);
        }
    }

    /// Who conflicts is told only when what it conflicts with can be read.
    fn group(&self, jobs: Vec<Job>) {
        if let Some(why) = reason(&self.broken) {
            return jobs.into_iter().for_each(|(_, promise)| promise.keep(Err(failed(&why).into())));
        }
        let mut group = Group::default();
        let mut changes = Vec::new();
        let mut outcomes = Vec::with_capacity(jobs.len());
        for (mut commit, promise) in jobs {
            let outcome = self.ahead.commit_now(commit.clone());
            if let Ok(revision) = outcome {
                commit.compares.clear();
                group.add(revision, &commit);
                changes.push(commit);
            }
            outcomes.push((outcome, promise));
        }
        match self.file.write(&group) {
            Ok(()) => self.show(changes, outcomes),
            Err(error) => self.fail(&error, outcomes),
        }
    }

    fn show(&self, changes: Vec<Commit>, outcomes: Vec<(Outcome, Promise<Outcome>)>) {
        for commit in changes {
            let _ = self.durable.commit_now(commit); // the same, in the same order: so are the revisions
        }
        outcomes.into_iter().for_each(|(outcome, promise)| promise.keep(outcome));
    }

    /// The disk may have it or not, and `ahead` is wrong now: only opening anew tells.
    fn fail(&self, error: &redb::Error, outcomes: Vec<(Outcome, Promise<Outcome>)>) {
        let why: Arc<str> = format!("{error}; open it anew").into();
        *self.broken.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&why));
        for (_, promise) in outcomes {
            promise.keep(Err(CommitError::Ambiguous(failed(&why))));
        }
    }
}

fn reason(broken: &Broken) -> Option<Arc<str>> {
    broken.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn failed(why: &str) -> StoreError {
    StoreError::Failed { doing: "write the file", source: why.into() }
}
