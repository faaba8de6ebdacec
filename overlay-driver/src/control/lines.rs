//! Lines of bytes, up to a limit.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Reads one line after the other.
#[derive(Debug)]
pub(super) struct Lines<R> {
    from: R,
    held: BytesMut,
    /// Up to where there is no end of a line.
    searched: usize,
    limit: usize,
}

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// It goes on and on.
    #[error("a line of more than {limit} bytes")]
    TooLong { limit: usize },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of at most `limit` bytes, their ends not counted.
    pub(super) fn new(from: R, limit: usize) -> Self {
        Self { from, held: BytesMut::new(), searched: 0, limit }
    }

    /// The next line without its end; `None` at the end of all, where what has no end is left out. May be dropped and called
    /// again: nothing is missed.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, LineError> {
        loop {
            let end = self.held.get(self.searched..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'));
            let length = end.map_or(self.held.len(), |end| self.searched + end);
            if length > self.limit {
                return Err(LineError::TooLong { limit: self.limit });
            }
            self.searched = length;
            if end.is_some() {
                let line = self.held.split_to(length + 1).freeze();
                self.searched = 0;
                return Ok(Some(line.slice(..length)));
            }
            self.held.reserve(READ);
            if self.from.read_buf(&mut self.held).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Writes all of it, as long as there is room for more every now and then.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], patience: Duration) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        match timeout(patience, to.write(left)).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Ok(written)) => left = left.get(written..).unwrap_or_default(),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    timeout(patience, to.flush()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Room for as many bytes is made before each reading.
const READ: usize = 8 * 1024;
