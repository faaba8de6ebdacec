//! The proxy at work.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use overlay_driver::control::{ControlClient, RemoteWatch};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{AcquireError, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::Outcome;
use crate::arguments::Serve;
use crate::pool::{Pool, Target};
use crate::proxy::{Proxy, Upstream, check};

/// Clients' connections at once; further ones wait.
const CONNECTIONS: usize = 4096;
/// Descriptors for what is no client's: checks, idle connections, the control socket.
const OTHERS: usize = 256;
/// How long a client may take to say what it wants.
const HEAD: Duration = Duration::from_secs(10);
/// How long requests may go on once the proxy is to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long following rests after it failed, and accepting.
const REST: Duration = Duration::from_millis(500);
/// How long a check may take.
const CHECK: Duration = Duration::from_secs(1);

pub(crate) fn run(serve: Serve) -> Outcome {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(begin(serve))
}

async fn begin(serve: Serve) -> Outcome {
    let node = ControlClient::new(&serve.control);
    node.connect().await?; // who may not, or errs, is told so at once
    let listener = TcpListener::bind(serve.listen).await?;
    let mut tasks = JoinSet::new();
    let mut shared: BTreeMap<String, BTreeMap<Target, Arc<Upstream>>> = BTreeMap::new();
    let upstreams = serve.routes.iter().map(|route| {
        let of_service = shared.entry(route.service.clone()).or_default();
        let upstream = of_service.entry(route.target.clone()).or_insert_with(|| {
            let upstream = Arc::new(Upstream::new(Pool::new(route.target.clone(), serve.checks)));
            tasks.spawn(check_all(Arc::clone(&upstream), serve.check.clone()));
            upstream
        });
        Arc::clone(upstream)
    });
    let upstreams = upstreams.collect();
    // A service is followed once, whatever its ports.
    for (service, of_service) in shared {
        tasks.spawn(follow(node.watch(service.as_str()), service, of_service.into_values().collect()));
    }
    let proxy = Arc::new(Proxy { routes: serve.routes, upstreams, patience: serve.patience });
    println!("l7: listens at {}", listener.local_addr()?);
    accept(listener, proxy).await
}

/// Until it is told to stop; then requests that were begun are ended.
async fn accept(listener: TcpListener, proxy: Arc<Proxy>) -> Outcome {
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (stop, stopping) = watch::channel(false);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let (room, mut clients) = (Arc::new(Semaphore::new(room(&limits))), JoinSet::new());
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await?;
            Ok::<_, AcquireError>((permit, listener.accept().await))
        };
        tokio::select! {
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
            next = next => match next? {
                (permit, Ok((stream, from))) => {
                    let served = serve_client(stream, from, Arc::clone(&proxy), stopping.clone());
                    clients.spawn(async move {
                        served.await;
                        drop(permit);
                    });
                }
                // No descriptors or no memory: some will be free again.
                (_, Err(_)) => sleep(REST).await,
            },
        }
        while clients.try_join_next().is_some() {}
    }
    drop(listener);
    stop.send_replace(true);
    let all = async { while clients.join_next().await.is_some() {} };
    let _ = timeout(GRACE, all).await;
    Ok(())
}

/// How many clients there is room for: each has two descriptors, its own and a replica's; some are for what else there is. What a process may have is a line of its limits.
fn room(limits: &str) -> usize {
    let open = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = open.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    soft.map_or(CONNECTIONS, |soft| (soft.saturating_sub(OTHERS) / 2).clamp(1, CONNECTIONS))
}

async fn serve_client(stream: TcpStream, from: SocketAddr, proxy: Arc<Proxy>, mut stopping: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true); // it is only slower without
    let answer = service_fn(move |request| Arc::clone(&proxy).answer(from, request));
    let mut http = http1::Builder::new();
    let served = http.timer(TokioTimer::new()).header_read_timeout(HEAD).serve_connection(TokioIo::new(stream), answer);
    let mut served = pin!(served);
    tokio::select! {
        _ = served.as_mut() => return, // how a client ends is its affair
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

/// Takes what is told of a service, for good. While nobody tells, what was told last is the best that is known.
async fn follow(mut watch: RemoteWatch, service: String, upstreams: Vec<Arc<Upstream>>) {
    let mut told = BTreeMap::new();
    #[expect(clippy::infinite_loop, reason = "who started it ends it")]
    loop {
        match watch.next().await {
            Ok(event) => upstreams.iter().for_each(|upstream| upstream.heed(event.clone())),
            Err(error) => {
                println!("l7: {service}: nothing is heard of it: {error}");
                sleep(REST).await;
                continue;
            }
        }
        let now: BTreeMap<SocketAddr, String> = upstreams.iter().flat_map(|it| it.status()).collect();
        now.iter()
            .filter(|(at, how)| told.get(*at) != Some(*how))
            .for_each(|(at, how)| println!("l7: {service}: {at} is {how}"));
        told.keys().filter(|at| !now.contains_key(*at)).for_each(|at| println!("l7: {service}: {at} is gone"));
        told = now;
    }
}

/// Asks replicas how they are, now and then, each by itself.
async fn check_all(upstream: Arc<Upstream>, path: PathAndQuery) {
    let mut checks = JoinSet::new();
    loop {
        let (due, next) = upstream.due();
        for (id, at) in due {
            let (upstream, path) = (Arc::clone(&upstream), path.clone());
            checks.spawn(async move { upstream.checked(id, check(at, path, CHECK).await) });
        }
        while checks.try_join_next().is_some() {}
        let wait = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => {}
            () = upstream.changed.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_as_many_clients_as_descriptors_suffice_for() {
        let limits = |soft| {
            format!("Limit  Soft Limit  Hard Limit  Units\nMax open files            {soft}   1048576   files\n")
        };
        let rooms = ["1024", "100", "1048576", "unlimited"].map(|soft| room(&limits(soft)));
        assert_eq!(rooms, [384, 1, CONNECTIONS, CONNECTIONS]);
        assert!(std::fs::read_to_string("/proc/self/limits").unwrap().contains("Max open files"));
    }
}
