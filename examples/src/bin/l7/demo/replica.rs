//! Containers that answer requests with their names.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use overlay_driver::testing::Container;
use tokio::task::{JoinHandle, JoinSet};

/// Where they listen.
pub(super) const PORT: u16 = 8080;

/// A server in a container. It ends with this, and its connections with it.
#[derive(Debug)]
pub(super) struct Replica {
    is_well: Arc<AtomicBool>,
    served: JoinHandle<()>,
}

impl Replica {
    /// Serves from now on. Called in a runtime.
    pub(super) fn start(container: &Container) -> io::Result<Self> {
        // A socket keeps the namespace that it was born in.
        let bound = container.namespace.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
        let listener = bound.map_err(io::Error::other)??;
        listener.set_nonblocking(true)?;
        let is_well = Arc::new(AtomicBool::new(true));
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let served = tokio::spawn(serve(listener, container.name.to_string(), Arc::clone(&is_well)));
        Ok(Self { is_well, served })
    }

    /// What it says when it is asked how it is.
    pub(super) fn set_well(&self, is_well: bool) {
        self.is_well.store(is_well, Ordering::Relaxed);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.served.abort();
    }
}

async fn serve(listener: tokio::net::TcpListener, name: String, is_well: Arc<AtomicBool>) {
    let mut clients = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (name, is_well) = (name.clone(), Arc::clone(&is_well));
        let answer = service_fn(move |request| {
            let answered = answer(&request, &name, is_well.load(Ordering::Relaxed));
            async { Ok::<_, Infallible>(answered) }
        });
        clients.spawn(async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await) });
        while clients.try_join_next().is_some() {}
    }
}

fn answer(request: &Request<Incoming>, name: &str, is_well: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(name.to_owned()));
    if request.uri().path() == "/health" && !is_well {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
