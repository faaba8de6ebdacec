//! Clients of the proxy, in a container.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use overlay_kernel::Namespace;

const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) at: SocketAddr,
    pub(super) method: &'static str,
    pub(super) host: &'static str,
    pub(super) path: &'static str,
}

impl Ask {
    /// Who answers: the body, or what went wrong.
    fn once(self) -> Result<String, String> {
        let asked = || -> io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.at, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let Self { method, host, path, .. } = self;
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = asked().map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        if status == "200" { Ok(body.to_owned()) } else { Err(status.to_owned()) }
    }
}

/// Who answered how often, or what went wrong how often.
pub(super) type Answers = BTreeMap<Result<String, String>, usize>;

/// So many requests from a namespace, one after the other.
pub(super) fn ask(from: &Namespace, ask: Ask, times: usize) -> io::Result<Answers> {
    from.run(|| {
        let mut answers = Answers::new();
        (0..times).for_each(|_| *answers.entry(ask.once()).or_default() += 1);
        answers
    })
    .map_err(io::Error::other)
}

/// A client that asks and asks.
#[derive(Debug)]
pub(super) struct Load {
    end: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Answers>>,
}

impl Load {
    #[expect(clippy::disallowed_methods, reason = "a program has threads of its own")]
    pub(super) fn start(from: &Namespace, ask: Ask) -> io::Result<Self> {
        let (from, end) = (from.try_clone().map_err(io::Error::other)?, Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let asked = from.run(|| {
                let mut answers = Answers::new();
                while !ended.load(Ordering::Relaxed) {
                    *answers.entry(ask.once()).or_default() += 1;
                }
                answers
            });
            asked.map_err(io::Error::other)
        });
        Ok(Self { end, thread })
    }

    /// Ends it, and gives what came of all.
    pub(super) fn end(self) -> io::Result<Answers> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("a client panicked"))?
    }
}
