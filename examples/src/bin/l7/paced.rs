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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_upload_may_take_longer_than_patience_and_one_that_rests_ends() {
        let slow = |pause: Duration, pieces: usize| async move {
            let (sent, body) = tokio::sync::mpsc::channel::<()>(1);
            let progress = Progress::begin();
            let mut paced = Paced::new(Pieces(body), IDLE, progress.clone());
            let feed = async move {
                for _ in 0..pieces {
                    sleep(pause).await;
                    let _ = sent.send(()).await;
                }
            };
            let take = async {
                while let Some(frame) = paced.frame().await {
                    frame?;
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            };
            let both = async { tokio::join!(take, feed).0 };
            progress.within(PATIENCE, both).await.map(|done| done.map_err(|error| error.to_string()))
        };
        assert_eq!(slow(PATIENCE / 2, 8).await, Some(Ok(())));
        assert_eq!(slow(PATIENCE * 2, 8).await, None, "patience ends");
        let (_kept, body) = tokio::sync::mpsc::channel(1);
        let error = Paced::new(Pieces(body), IDLE, Progress::begin()).frame().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "nothing came for 60 s");
    }

    /// A body of which a piece comes for each word.
    struct Pieces(tokio::sync::mpsc::Receiver<()>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let piece = || Ok(Frame::data(Bytes::from_static(b"x")));
            self.0.poll_recv(context).map(|word| word.map(|()| piece()))
        }
    }
}
