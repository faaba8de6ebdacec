//! Bodies that must go on.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep, timeout_at};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A body that fails when nothing comes of it for so long. How long all of it takes is nobody's business: so a large file may pass on a slow line, and whoever
/// begins a body and leaves it does not hold a connection for ever.
#[derive(Debug)]
pub(crate) struct Paced<B> {
    body: B,
    idle: Duration,
    due: Pin<Box<Sleep>>,
    progress: Progress,
}

/// When something of a body came last.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    pub(crate) fn begin() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn made(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// What comes of this, unless it takes so long without progress.
    pub(crate) async fn within<F: Future>(&self, patience: Duration, what: F) -> Option<F::Output> {
        let mut what = pin!(what);
        loop {
            let due = self.at() + patience;
            match timeout_at(due, what.as_mut()).await {
                Ok(output) => return Some(output),
                Err(_) if self.at() + patience > due => {}
                Err(_) => return None,
            }
        }
    }
}

impl<B> Paced<B> {
    pub(crate) fn new(body: B, idle: Duration, progress: Progress) -> Self {
        Self { body, idle, due: Box::pin(sleep(idle)), progress }
    }
}

impl<B: Body<Data = Bytes, Error: Into<Error>> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.progress.made();
            let due = Instant::now() + self.idle;
            self.due.as_mut().reset(due);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.due.as_mut().poll(context));
        Poll::Ready(Some(Err(format!("nothing came for {} s", self.idle.as_secs()).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
