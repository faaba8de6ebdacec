//! `run --metrics`: a node's counts for Prometheus, over HTTP.

mod families;
mod gossip;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use overlay_driver::Driver;
use overlay_examples::exposition;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::Outcome;

/// Connections at once; further ones wait for the end of others, in the kernel's queue.
const CONNECTIONS: usize = 8;
/// How long a client may take to ask, and to take its answer.
const HEAD: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(10);
/// The longest head of a request.
const REQUEST: usize = 8192;
/// How long accepting rests after it failed.
const REST: Duration = Duration::from_millis(500);

/// Where it is asked for: a port of the loopback, or an address and a port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let wrong = |_| format!("{text} is neither PORT, of the loopback, nor IP:PORT");
    text.parse().map(loopback).or_else(|_| text.parse()).map_err(wrong)
}

/// Answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A socket for it, before anything else is begun.
pub(crate) async fn listen(at: Option<SocketAddr>) -> Outcome<Option<TcpListener>> {
    let Some(at) = at else { return Ok(None) };
    match TcpListener::bind(at).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => Err(format!("metrics at {at}: {error}: free it, or choose another").into()),
    }
}

/// Answers from now on.
pub(crate) fn serve(listener: TcpListener, driver: Driver) -> Outcome<Serving> {
    println!("metrics are at http://{}/metrics", listener.local_addr()?);
    Ok(Serving(tokio::spawn(accept(listener, driver))))
}

#[expect(clippy::infinite_loop, reason = "who started it ends it")]
async fn accept(listener: TcpListener, driver: Driver) {
    let (room, mut clients) = (Arc::new(Semaphore::new(CONNECTIONS)), JoinSet::new());
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let answered = answer_all(stream, driver.clone());
                clients.spawn(async move {
                    let _ = timeout(WHOLE, answered).await; // how a client ends is its affair
                    drop(permit);
                });
            }
            // No descriptors or no memory: some will be free again.
            Err(_) => sleep(REST).await,
        }
        while clients.try_join_next().is_some() {}
    }
}

async fn answer_all(stream: TcpStream, driver: Driver) {
    let answer = service_fn(move |request| answer(request, driver.clone()));
    let mut http = http1::Builder::new();
    let http = http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(REQUEST).keep_alive(false);
    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(request: Request<Incoming>, driver: Driver) -> Result<Response<Full<Bytes>>, Infallible> {
    let said = |status, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
        response
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = said(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    if request.uri().path() != "/metrics" {
        return Ok(said(StatusCode::NOT_FOUND, "there is /metrics, and nothing else\n".to_owned()));
    }
    Ok(match driver.metrics().await {
        Ok(metrics) => said(StatusCode::OK, families::page(driver.node(), &metrics)),
        Err(stopped) => said(StatusCode::SERVICE_UNAVAILABLE, format!("{stopped}\n")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_the_loopbacks() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 9464));
        assert_eq!(address("9464"), Ok(loopback));
        assert_eq!(address("[::]:9464").map(|it| it.ip().is_unspecified()), Ok(true));
        for wrong in ["", "localhost", "70000", "10.0.0.1"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
