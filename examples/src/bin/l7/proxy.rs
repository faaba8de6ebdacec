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
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use overlay_core::{EndpointId, Instant};
use overlay_node::ServiceEvent;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::paced::{Paced, Progress};
use crate::pool::{Failure, Pool, Repeat, again};
use crate::routes::{self, Route};

pub(crate) type Body = Either<Paced<Incoming>, Full<Bytes>>;

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
/// How long a body that passes through may rest, either way.
const IDLE_BODY: Duration = Duration::from_secs(60);
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

    /// Sends a request to one replica. What was not sent comes back. Patience begins anew with whatever comes of the request's body.
    async fn once(
        self: &Arc<Self>,
        at: SocketAddr,
        mut request: Request<Body>,
        (patience, progress): (Duration, &Progress),
    ) -> Result<Response<Incoming>, (Failure, Option<Request<Body>>)> {
        loop {
            let (mut connection, is_new) = match self.idle(at) {
                Some(connection) => (connection, false),
                None => match connect(at).await {
                    Some(connection) => (connection, true),
                    None => return Err((Failure::Unreached, Some(request))),
                },
            };
            progress.made(); // it begins
            match progress.within(patience, connection.try_send_request(request)).await {
                Some(Ok(response)) => {
                    tokio::spawn(Arc::clone(self).keep(at, connection));
                    return Ok(response);
                }
                Some(Err(mut error)) => match error.take_message() {
                    Some(unsent) if is_new => return Err((Failure::Unreached, Some(unsent))),
                    // It was closed while it was idle.
                    Some(unsent) => request = unsent,
                    None => return Err((Failure::Broken, None)),
                },
                None => return Err((Failure::Late, None)),
            }
        }
    }

    /// Sends a request to one replica after the other, as often as that does no harm.
    async fn ask(self: &Arc<Self>, parts: Parts, body: Asked, patience: Duration) -> Response<Body> {
        let progress = match &body {
            Asked::Kept(_) => Progress::begin(),
            Asked::Passing(_, progress) => progress.clone(),
        };
        let (mut tried, mut said) = (BTreeSet::new(), StatusCode::SERVICE_UNAVAILABLE);
        let repeat = Repeat { idempotent: parts.method.is_idempotent(), kept: matches!(body, Asked::Kept(_)) };
        let kept = match &body {
            Asked::Kept(bytes) => Some(bytes.clone()),
            Asked::Passing(..) => None,
        };
        let mut request = Some(Request::from_parts(parts.clone(), body.into()));
        loop {
            let Some((id, at)) = self.lock().pool.choose(&tried) else { return plain(said) };
            tried.insert(id);
            let again_from = || Some(Request::from_parts(parts.clone(), Asked::Kept(kept.clone()?).into()));
            let Some(next) = request.take().or_else(again_from) else { return plain(said) };
            let failure = match self.once(at, next, (patience, &progress)).await {
                Ok(response) => {
                    return response.map(|body| Either::Left(Paced::new(body, IDLE_BODY, Progress::begin())));
                }
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
    Passing(Incoming, Progress),
}

impl From<Asked> for Body {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Kept(bytes) => Self::Right(Full::new(bytes)),
            Asked::Passing(body, progress) => Self::Left(Paced::new(body, IDLE_BODY, progress)),
        }
    }
}

/// Where requests go.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) routes: Vec<Route>,
    /// One for each route; some share one.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// How long a replica may take until it begins to answer, once it has the request.
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
        let Some(host) = host(&request).filter(|_| !routes::climbs(request.uri().path())) else {
            return Ok(plain(StatusCode::BAD_REQUEST));
        };
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
            Some(_) => Asked::Passing(body, Progress::begin()),
            None => {
                parts.headers.remove(CONTENT_LENGTH); // it came in pieces: whatever it said of its length, they count
                parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")); // else a GET would lose its body
                Asked::Passing(body, Progress::begin())
            }
        };
        let mut response = upstream.ask(parts, body, self.patience).await;
        *response.version_mut() = Version::HTTP_11;
        strip(response.headers_mut());
        Ok(response)
    }
}

/// The host that was asked for; empty if none was named, as HTTP/1.0 may. `None` if it is not clear which (RFC 9112 §3.2).
fn host(request: &Request<Incoming>) -> Option<String> {
    let mut named = request.headers().get_all(HOST).iter();
    let (first, more) = (named.next(), named.next());
    if more.is_some() || (first.is_none() && request.version() == Version::HTTP_11) {
        return None;
    }
    let named = first.map_or(Some(""), |host| host.to_str().ok())?;
    let asked = request.uri().authority().map_or(named, |it| it.as_str());
    (!asked.contains('@')).then(|| asked.to_owned()) // no host has a user (RFC 9110 §4.2.4)
}

/// Makes of a client's request one of ours.
fn forwarded(parts: &mut Parts, host: &str, from: SocketAddr) -> Result<(), StatusCode> {
    let bad = |_| StatusCode::BAD_REQUEST;
    strip(&mut parts.headers);
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    (parts.uri, parts.version) = (Uri::from(path), Version::HTTP_11);
    parts.headers.insert(HOST, HeaderValue::from_str(host).map_err(bad)?);
    OURS.iter().for_each(|name| drop(parts.headers.remove(*name)));
    parts.headers.insert("x-forwarded-host", HeaderValue::from_str(host).map_err(bad)?);
    parts.headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    let before =
        parts.headers.get_all(&FORWARDED_FOR).iter().filter_map(|before| before.to_str().ok().map(str::to_owned));
    let all: Vec<String> = before.chain([from.ip().to_string()]).collect();
    parts.headers.insert(FORWARDED_FOR, HeaderValue::from_str(&all.join(", ")).map_err(bad)?);
    Ok(())
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What replicas may take for our word, and so is nobody else's.
const OURS: [&str; 5] = ["forwarded", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip"];

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
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use overlay_core::{NetworkId, NodeId, Port, ServiceId};
    use overlay_dns::Health;
    use overlay_lb::Weight;
    use overlay_node::{EndpointChange, ServiceEndpoint, ServiceEndpoints};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::pool::{Checks, Target};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Replicas at addresses of loopback, and one port.
    struct World {
        upstream: Arc<Upstream>,
        proxy: Arc<Proxy>,
        listeners: Vec<TcpListener>,
    }

    impl World {
        async fn new(replicas: u8) -> Self {
            let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = first.local_addr().unwrap().port();
            let mut listeners = vec![first];
            for number in 1..replicas {
                listeners.push(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1 + number], port))).await.unwrap());
            }
            let endpoint = |number: u8| {
                let there = ServiceEndpoint {
                    network: NetworkId::from_bytes([9; 16]),
                    container: "web".parse().unwrap(),
                    node: NodeId::from_bytes([1; 16]),
                    node_address: [192, 0, 2, 1].into(),
                    addresses: [[127, 0, 0, 1 + number].into()].into(),
                    weight: Weight::ONE,
                    health: Health::Healthy,
                };
                (EndpointId::from_bytes([number; 16]), there)
            };
            let web = ServiceEndpoints {
                service: ServiceId::from_bytes([7; 16]),
                name: "web".parse().unwrap(),
                ports: Vec::new(),
                unheard: BTreeSet::new(),
                endpoints: (0..replicas).map(endpoint).collect(),
            };
            let checks = Checks { every: Duration::from_secs(3600), failures: 2 };
            let upstream = Arc::new(Upstream::new(Pool::new(Target::Number(Port::new(port).unwrap()), checks)));
            upstream.heed(ServiceEvent::All(Some(Arc::new(web))));
            let (routes, upstreams) = (vec!["*=web:80".parse().unwrap()], vec![Arc::clone(&upstream)]);
            let proxy = Arc::new(Proxy { routes, upstreams, patience: PATIENCE });
            Self { upstream, proxy, listeners }
        }

        /// What comes back of what a client says, with the proxy between.
        async fn exchange(&self, said: &[u8]) -> String {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let proxy = Arc::clone(&self.proxy);
            let answer = service_fn(move |request| Arc::clone(&proxy).answer(([192, 0, 2, 9], 1).into(), request));
            let served = http1::Builder::new().serve_connection(TokioIo::new(server), answer);
            let mut heard = Vec::new();
            let talk = async {
                client.write_all(said).await.unwrap();
                client.read_to_end(&mut heard).await.unwrap();
            };
            timeout(PATIENCE, async { tokio::join!(talk, async move { drop(served.await) }) }).await.unwrap();
            String::from_utf8(heard).unwrap()
        }
    }

    /// Reads a request up to this, and gives what was read.
    async fn hear(stream: &mut TcpStream, end: &str) -> String {
        let (mut heard, mut buffer) = (String::new(), [0; 4096]);
        while !heard.ends_with(end) {
            match timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap() {
                0 => break,
                read => heard.push_str(str::from_utf8(&buffer[..read]).unwrap()),
            }
        }
        heard
    }

    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

    fn asked(method: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), body.as_bytes()].concat()
    }

    #[tokio::test]
    async fn what_a_replica_took_and_did_not_answer_is_asked_of_another_if_that_does_no_harm() {
        for (method, status) in [("GET", "200 OK"), ("PUT", "200 OK"), ("POST", "502 Bad Gateway")] {
            let world = World::new(2).await;
            let replicas = async {
                let (mut first, _) = world.listeners[0].accept().await.unwrap();
                let heard = hear(&mut first, "hi").await;
                drop(first); // without a word
                if status == "200 OK" {
                    let (mut second, _) = world.listeners[1].accept().await.unwrap();
                    assert_eq!(hear(&mut second, "hi").await, heard);
                    second.write_all(GOOD).await.unwrap();
                }
            };
            let said = asked(method, "hi");
            let (answer, ()) = tokio::join!(world.exchange(&said), replicas);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{method}: {answer}");
        }
    }

    #[tokio::test]
    async fn what_could_not_be_sent_goes_to_another_whatever_it_is_and_as_long_as_it_is() {
        for body in ["hi".to_owned(), "x".repeat(200_000)] {
            let mut world = World::new(2).await;
            drop(world.listeners.remove(0)); // nobody listens there
            let replica = async {
                let (mut stream, _) = world.listeners[0].accept().await.unwrap();
                let heard = hear(&mut stream, &body).await;
                assert!(heard.starts_with("POST / HTTP/1.1\r\n") && heard.ends_with(&format!("\r\n\r\n{body}")));
                stream.write_all(GOOD).await.unwrap();
            };
            let said = asked("POST", &body);
            let (answer, ()) = tokio::join!(world.exchange(&said), replica);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("good"), "{answer}");
        }
    }

    #[tokio::test]
    async fn who_leaves_it_open_which_host_or_path_is_meant_is_refused() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b",
            "GET / HTTP/1.1\r\nAccept: a",
            "GET http://x@a/ HTTP/1.1\r\nHost: a",
            "GET /public/../admin HTTP/1.1\r\nHost: a",
            "GET /public/%2e%2E/admin HTTP/1.1\r\nHost: a",
            "GET /public/. HTTP/1.1\r\nHost: a",
            "GET /public/..%2Fadmin HTTP/1.1\r\nHost: a",
            "GET /public/..;x/admin HTTP/1.1\r\nHost: a",
            "GET /public/..%5cadmin HTTP/1.1\r\nHost: a",
        ] {
            let world = World::new(1).await;
            let answer = world.exchange(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}: {answer}");
        }
    }

    #[tokio::test]
    async fn what_a_client_says_of_itself_is_not_passed_on_as_ours() {
        let world = World::new(1).await;
        let replica = async {
            let (mut stream, _) = world.listeners[0].accept().await.unwrap();
            let heard = hear(&mut stream, "\r\n\r\n").await.to_ascii_lowercase();
            stream.write_all(GOOD).await.unwrap();
            heard
        };
        let said = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nForwarded: for=1\r\nX-Real-IP: 1.1.1.1\r\n\
            X-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n";
        let (answer, heard) = tokio::join!(world.exchange(said), replica);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for line in ["x-forwarded-for: 10.0.0.1, 192.0.2.9", "x-forwarded-proto: http", "x-forwarded-host: a"] {
            assert!(heard.lines().any(|it| it == line), "{line}: {heard}");
        }
        assert!(!heard.contains("\r\nforwarded:") && !heard.contains("x-real-ip"), "{heard}");
    }

    #[tokio::test]
    async fn a_body_in_pieces_reaches_the_replica_whatever_the_method() {
        for method in ["GET", "POST"] {
            let world = World::new(1).await;
            let replica = async {
                let (mut stream, _) = world.listeners[0].accept().await.unwrap();
                let heard = hear(&mut stream, "0\r\n\r\n").await;
                assert!(heard.ends_with("\r\n2\r\nhi\r\n0\r\n\r\n"), "{heard}");
                stream.write_all(GOOD).await.unwrap();
            };
            let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked");
            let said = format!("{head}\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
            let (answer, ()) = tokio::join!(world.exchange(said.as_bytes()), replica);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{method}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_connection_is_used_again_until_its_replica_drains_and_then_it_is_closed() {
        let world = World::new(1).await;
        let replica = async {
            let (mut stream, _) = world.listeners[0].accept().await.unwrap();
            for _ in 0..2 {
                hear(&mut stream, "\r\n\r\n").await;
                stream.write_all(GOOD).await.unwrap();
            }
            stream
        };
        let clients = async {
            for _ in 0..2 {
                assert!(world.exchange(&asked("GET", "")).await.ends_with("good"));
                // Its answer was read; that it is idle is seen a moment later.
                while world.upstream.lock().idle.values().all(Vec::is_empty) {
                    tokio::task::yield_now().await;
                }
            }
        };
        let both = async { tokio::join!(replica, clients) };
        let (mut stream, ()) = timeout(PATIENCE, both).await.unwrap();
        let drains = EndpointChange::Health(EndpointId::from_bytes([0; 16]), Health::Draining);
        world.upstream.heed(ServiceEvent::Changes(vec![drains]));
        assert_eq!(hear(&mut stream, "?").await, "", "it is closed");
        let answer = world.exchange(&asked("GET", "")).await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_as_long_as_they_are_whatever_else_is_said() {
        let world = World::new(1).await;
        let said = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
            5\r\nhello\r\n0\r\n\r\n";
        let replica = async {
            let (mut stream, _) = world.listeners[0].accept().await.unwrap();
            let heard = hear(&mut stream, "0\r\n\r\n").await;
            stream.write_all(GOOD).await.unwrap();
            heard
        };
        let (answer, heard) = tokio::join!(world.exchange(said), replica);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(!heard.contains("content-length") && heard.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{heard}");
    }

    #[tokio::test]
    async fn who_has_no_route_or_wants_a_tunnel_is_told_so() {
        let mut world = World::new(1).await;
        let tunnel = world.exchange(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(tunnel.starts_with("HTTP/1.1 501 "), "{tunnel}");
        let proxy = Proxy { routes: Vec::new(), upstreams: Vec::new(), patience: PATIENCE };
        world.proxy = Arc::new(proxy);
        let answer = world.exchange(&asked("GET", "")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }

    fn parts(request: hyper::http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_is_of_one_connection_stays_there_and_who_asked_is_told() {
        let request = Request::get("http://Shop.example:80/a?b=1").header("connection", "close, X-Mine, ,");
        let request = request
            .header("x-mine", "1")
            .header("te", "trailers")
            .header("x-forwarded-for", "192.0.2.7")
            .header("x-forwarded-for", "a, b");
        let mut parts = parts(request.header("accept", "*/*"));
        forwarded(&mut parts, "Shop.example:80", ([10, 0, 0, 1], 9).into()).unwrap();
        assert_eq!(parts.uri, "/a?b=1");
        let mut headers: Vec<String> =
            parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        let ours = ["x-forwarded-host: Shop.example:80", "x-forwarded-proto: http"];
        assert_eq!(headers[..2], ["accept: */*", "host: Shop.example:80"]);
        assert_eq!(headers[2], "x-forwarded-for: 192.0.2.7, a, b, 10.0.0.1");
        assert_eq!(headers[3..], ours);
    }
}
