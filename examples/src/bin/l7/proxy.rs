//! HTTP on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use overlay_core::{EndpointId, Instant};
use overlay_node::ServiceEvent;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::pool::{Failure, Pool, Repeat, again};
use crate::routes::{self, Route};

pub(crate) type Body = Either<Incoming, Full<Bytes>>;

/// The replicas of a service at a port, with connections to them.
#[derive(Debug)]
pub(crate) struct Upstream {
    shared: Mutex<Shared>,
    /// Something changed that checks depend on.
    pub(crate) changed: Notify,
    origin: tokio::time::Instant,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    /// Connections that wait for another request.
    idle: BTreeMap<SocketAddr, Vec<SendRequest<Body>>>,
}

/// How long a connection to a replica may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a body that is kept may take to come.
const BODY: Duration = Duration::from_secs(10);
/// Bodies of so many bytes are kept, so that the request can be repeated; longer ones pass through.
const KEPT: u64 = 64 * 1024;
/// Idle connections to one replica.
const IDLE: usize = 32;

impl Upstream {
    pub(crate) fn new(pool: Pool) -> Self {
        let shared = Mutex::new(Shared { pool, idle: BTreeMap::new() });
        Self { shared, changed: Notify::new(), origin: tokio::time::Instant::now() }
    }

    pub(crate) fn heed(&self, event: ServiceEvent) {
        let now = self.now();
        let mut shared = self.lock();
        for at in shared.pool.heed(event, now) {
            shared.idle.remove(&at);
        }
        drop(shared);
        self.changed.notify_one();
    }

    pub(crate) fn status(&self) -> Vec<(SocketAddr, String)> {
        self.lock().pool.status()
    }

    /// Whom to check now, and when the next check is due.
    pub(crate) fn due(&self) -> (Vec<(EndpointId, SocketAddr)>, Option<tokio::time::Instant>) {
        let now = self.now();
        let mut shared = self.lock();
        let due = shared.pool.due(now);
        (due, shared.pool.poll_timeout().map(|at| self.origin + (at - Instant::ZERO)))
    }

    pub(crate) fn checked(&self, id: EndpointId, is_well: bool) {
        self.lock().pool.checked(id, is_well);
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self, at: SocketAddr) -> Option<SendRequest<Body>> {
        let mut shared = self.lock();
        let idle = shared.idle.get_mut(&at)?;
        std::iter::from_fn(|| idle.pop()).find(SendRequest::is_ready)
    }

    /// Keeps a connection, once its answer was read, if its replica still takes requests.
    async fn keep(self: Arc<Self>, at: SocketAddr, mut connection: SendRequest<Body>) {
        if connection.ready().await.is_err() {
            return;
        }
        let mut shared = self.lock();
        if shared.pool.is_open(at) {
            let idle = shared.idle.entry(at).or_default();
            idle.truncate(IDLE - 1);
            idle.push(connection);
        }
    }

    /// Sends a request to one replica. What was not sent comes back.
    async fn once(
        self: &Arc<Self>,
        at: SocketAddr,
        mut request: Request<Body>,
        patience: Duration,
    ) -> Result<Response<Incoming>, (Failure, Option<Request<Body>>)> {
        loop {
            let (mut connection, is_new) = match self.idle(at) {
                Some(connection) => (connection, false),
                None => match connect(at).await {
                    Some(connection) => (connection, true),
                    None => return Err((Failure::Unreached, Some(request))),
                },
            };
            match timeout(patience, connection.try_send_request(request)).await {
                Ok(Ok(response)) => {
                    tokio::spawn(Arc::clone(self).keep(at, connection));
                    return Ok(response);
                }
                Ok(Err(mut error)) => match error.take_message() {
                    Some(unsent) if is_new => return Err((Failure::Unreached, Some(unsent))),
                    // It was closed while it was idle.
                    Some(unsent) => request = unsent,
                    None => return Err((Failure::Broken, None)),
                },
                Err(_) => return Err((Failure::Late, None)),
            }
        }
    }

    /// Sends a request to one replica after the other, as often as that does no harm.
    async fn ask(self: &Arc<Self>, parts: Parts, body: Asked, patience: Duration) -> Response<Body> {
        let (mut tried, mut said) = (BTreeSet::new(), StatusCode::SERVICE_UNAVAILABLE);
        let repeat = Repeat { idempotent: parts.method.is_idempotent(), kept: matches!(body, Asked::Kept(_)) };
        let kept = match &body {
            Asked::Kept(bytes) => Some(bytes.clone()),
            Asked::Passing(_) => None,
        };
        let mut request = Some(Request::from_parts(parts.clone(), body.into()));
        loop {
            let Some((id, at)) = self.lock().pool.choose(&tried) else { return plain(said) };
            tried.insert(id);
            let again_from = || Some(Request::from_parts(parts.clone(), Asked::Kept(kept.clone()?).into()));
            let Some(next) = request.take().or_else(again_from) else { return plain(said) };
            let failure = match self.once(at, next, patience).await {
                Ok(response) => return response.map(Either::Left),
                Err((failure, unsent)) => {
                    request = unsent;
                    failure
                }
            };
            if failure == Failure::Unreached {
                let now = self.now();
                self.lock().pool.unreached(id, now);
                self.changed.notify_one();
            }
            said = if failure == Failure::Late { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
            if !again(failure, repeat, tried.len()) {
                return plain(said);
            }
        }
    }
}

/// Asks a replica how it is, on a connection of its own.
pub(crate) async fn check(at: SocketAddr, path: PathAndQuery, patience: Duration) -> bool {
    let asked = async {
        let mut connection = connect(at).await?;
        let request = Request::get(Uri::from(path)).header(HOST, at.to_string()).body(Either::Right(Full::default()));
        connection.send_request(request.ok()?).await.ok()
    };
    let answered = timeout(patience, asked).await.ok().flatten();
    answered.is_some_and(|response| !response.status().is_server_error())
}

async fn connect(at: SocketAddr) -> Option<SendRequest<Body>> {
    let stream = timeout(CONNECT, TcpStream::connect(at)).await.ok()?.ok()?;
    let _ = stream.set_nodelay(true); // it is only slower without
    let (connection, driven) = handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(async move { drop(driven.await) });
    Some(connection)
}

/// The body of a request.
enum Asked {
    Kept(Bytes),
    Passing(Incoming),
}

impl From<Asked> for Body {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Kept(bytes) => Self::Right(Full::new(bytes)),
            Asked::Passing(body) => Self::Left(body),
        }
    }
}

/// Where requests go.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) routes: Vec<Route>,
    /// One for each route; some share one.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// How long a replica may take until it begins to answer.
    pub(crate) patience: Duration,
}

impl Proxy {
    pub(crate) async fn answer(
        self: Arc<Self>,
        from: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        if request.method() == Method::CONNECT {
            return Ok(plain(StatusCode::NOT_IMPLEMENTED));
        }
        let host = host(&request);
        let Some(upstream) =
            routes::find(&self.routes, &host, request.uri().path()).and_then(|at| self.upstreams.get(at))
        else {
            return Ok(plain(StatusCode::NOT_FOUND));
        };
        let (mut parts, body) = request.into_parts();
        if let Err(status) = forwarded(&mut parts, &host, from) {
            return Ok(plain(status));
        }
        let body = match body.size_hint().upper() {
            Some(..=KEPT) => match timeout(BODY, body.collect()).await {
                Ok(Ok(whole)) => Asked::Kept(whole.to_bytes()),
                Ok(Err(_)) => return Ok(plain(StatusCode::BAD_REQUEST)),
                Err(_) => return Ok(plain(StatusCode::REQUEST_TIMEOUT)),
            },
            _ => Asked::Passing(body),
        };
        let mut response = upstream.ask(parts, body, self.patience).await;
        *response.version_mut() = Version::HTTP_11;
        strip(response.headers_mut());
        Ok(response)
    }
}

/// The host that was asked for; empty if none was named.
fn host(request: &Request<Incoming>) -> String {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(|it| it.as_str()).or(named).unwrap_or_default().to_owned()
}

/// Makes of a client's request one of ours.
fn forwarded(parts: &mut Parts, host: &str, from: SocketAddr) -> Result<(), StatusCode> {
    let bad = |_| StatusCode::BAD_REQUEST;
    strip(&mut parts.headers);
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    (parts.uri, parts.version) = (Uri::from(path), Version::HTTP_11);
    parts.headers.insert(HOST, HeaderValue::from_str(host).map_err(bad)?);
    let before = parts.headers.get(&FORWARDED_FOR).and_then(|before| before.to_str().ok());
    let all = before.map_or_else(|| from.ip().to_string(), |before| format!("{before}, {}", from.ip()));
    parts.headers.insert(FORWARDED_FOR, HeaderValue::from_str(&all).map_err(bad)?);
    Ok(())
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Takes away what is of one connection only (RFC 9110 §7.6.1).
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"] {
        headers.remove(name);
    }
}

/// An answer of our own.
pub(crate) fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(format!("{status}\n"))));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(request: hyper::http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_is_of_one_connection_stays_there_and_who_asked_is_told() {
        let request = Request::get("http://Shop.example:80/a?b=1").header("connection", "close, X-Mine, ,");
        let request = request.header("x-mine", "1").header("te", "trailers").header("x-forwarded-for", "192.0.2.7");
        let mut parts = parts(request.header("accept", "*/*"));
        forwarded(&mut parts, "Shop.example:80", ([10, 0, 0, 1], 9).into()).unwrap();
        assert_eq!(parts.uri, "/a?b=1");
        let mut headers: Vec<String> =
            parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        assert_eq!(headers, ["accept: */*", "host: Shop.example:80", "x-forwarded-for: 192.0.2.7, 10.0.0.1"]);
    }
}
