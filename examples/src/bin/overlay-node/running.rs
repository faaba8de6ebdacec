//! A node at work, from its beginning to its end.

use std::sync::Arc;

use overlay_crypto::pki::Role;
use overlay_driver::control::{ControlClient, ControlServer, Serving};
use overlay_driver::{Driver, KernelPlaces, UserspacePlaces};
use overlay_kernel::Namespace;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::agent::{Beginning, Catalogue, folder, gossip_key, open, own_id, root, seat};
use crate::arguments::Run;
use crate::cluster::{Held, Place};
use crate::metrics;
use crate::question::{End, Node, NodeQuestion};

/// What has begun, and goes on until somebody says how to end.
pub(crate) struct Running {
    driver: Driver,
    place: Option<Place>,
    serving: Serving,
    metrics: Option<metrics::Serving>,
    ended: mpsc::Receiver<End>,
    log: JoinHandle<()>,
    /// What a node of a cluster does beside it.
    follows: Vec<JoinHandle<()>>,
}

impl Running {
    /// With what a node has kept that ran before in this process, if one did in a cluster.
    pub(crate) async fn begin(run: &Run, held: Option<Held>) -> Outcome<Self> {
        let mut keys = run.keys.iter().map(|file| gossip_key(file)).collect::<Outcome<Vec<_>>>()?;
        folder(&run.dir)?;
        folder(&run.state)?;
        let id = own_id(&run.state)?;
        let (held, unable) = held.map(|held| (held.seat, held.unable)).unzip();
        let seat = if held.is_some() { held } else { seat(run).await? };
        if seat.is_some() && !keys.is_empty() {
            return Err(TWO_SOURCES.into());
        }
        let (place, Catalogue { control, feed, manager, store, leads }) = open(run, (seat, unable), id).await?;
        if let Some(place) = &place {
            keys = place.keys();
        }
        let metrics = metrics::listen(run.metrics).await?;
        let beginning =
            Beginning { run, id, keys, place: place.as_ref(), catalogue: (Arc::clone(&control), feed), manager, leads };
        let (cluster, host) = ("overlay".parse()?, Namespace::current()?);
        let driver = match run.in_user_space {
            false => beginning.on(KernelPlaces::new(cluster, id, host, &run.dir)?).await?,
            true => beginning.on(UserspacePlaces::new(cluster, id, host, &run.dir)?).await?,
        };
        println!("node {} at {}", id, driver.address());
        let metrics = metrics.map(|listener| metrics::serve(listener, driver.clone())).transpose()?;
        let log = tokio::spawn(log(driver.events()));
        for file in driver.status().await?.unreadable {
            eprintln!("overlay-node: a plug cannot be read from {file}; detach it, and attach its container again");
        }
        let seeds =
            if run.join.is_empty() { place.as_ref().map(Place::seeds).unwrap_or_default() } else { run.join.clone() };
        driver.join(seeds.into_iter().filter(|seed| *seed != driver.address())).await?;
        let (end, ended) = mpsc::channel(ENDS);
        let follows = place.iter().flat_map(|place| place.follow(&driver, end.clone())).collect();
        let node = Node {
            driver: driver.clone(),
            end,
            vault: place.as_ref().map(|place| Arc::clone(&place.seat.vault)),
            managers: place.as_ref().filter(|place| place.role() == Role::Manager).map(Place::client),
        };
        let mut server =
            ControlServer::new(control).with_local::<NodeQuestion>(Arc::new(node)).with_driver(driver.clone());
        if let Some(store) = store {
            server = server.with_feed(store, &root()?)?;
        }
        if let Some(cluster) = place.as_ref().and_then(Place::cluster) {
            server = server.with_cluster(cluster);
        }
        let serving = server.bind(run.dir.join("control.sock")).await?;
        println!("commands are heard at {}", serving.path().display());
        Ok(Self { driver, place, serving, metrics, ended, log, follows })
    }

    /// Goes on until a signal, or somebody, says that it is to end; then ends it, and says how (`None` for a signal), and what
    /// it keeps of its cluster.
    pub(crate) async fn until_its_end(mut self, signals: &mut Signals) -> Outcome<(Option<End>, Option<Held>)> {
        let first = tokio::select! {
            () = signals.told() => None,
            end = self.ended.recv() => end,
        };
        drop(self.metrics);
        self.follows.iter().for_each(JoinHandle::abort);
        let mut serving = Some(self.serving);
        if first == Some(End::Again) {
            stop(serving.take()).await; // whoever is answered until then is heeded
        }
        self.ended.close(); // who says something later is told that it is too late
        let end = how(first, &mut self.ended);
        end_driver(self.driver, end, self.place.as_ref().and_then(managers)).await?;
        if let (Some(End::Leave), Some(place)) = (end, &self.place) {
            place.seat.leave()?;
        }
        stop(serving).await; // those that wait for the driver have heard from it
        self.log.abort();
        Ok((end, self.place.map(Place::held)))
    }
}

async fn stop(serving: Option<Serving>) {
    if let Some(serving) = serving {
        serving.stop().await;
    }
}

/// How to end, of all that was said, a signal (`None`) among it: who has told the node to leave has been answered that it does.
fn how(first: Option<End>, ended: &mut mpsc::Receiver<End>) -> Option<End> {
    let said = first.into_iter().chain(std::iter::from_fn(|| ended.try_recv().ok()));
    said.filter(|end| *end != End::Again).max_by_key(|end| *end == End::Leave).or(first)
}

/// Ends that may be said before the first is heeded.
const ENDS: usize = 8;

const TWO_SOURCES: &str =
    "this node is in a cluster, whose managers give it the keys of gossip: run it without --gossip-key";

/// How a manager that serves asks the others.
fn managers(place: &Place) -> Option<ControlClient> {
    place.managing.as_ref().map(|_| place.client())
}

/// Ends what the driver does, and what it has made if that is asked for.
async fn end_driver(driver: Driver, end: Option<End>, managers: Option<ControlClient>) -> Outcome {
    let node = driver.node();
    if matches!(end, None | Some(End::Again)) {
        driver.stop().await;
        println!("stopped; containers go on to reach each other where the kernel carries their packets");
        return Ok(());
    }
    match driver.tear_down().await {
        Ok(()) => println!("all that this node had made is removed"),
        // Who was removed from its cluster is not asked to take itself out of it.
        Err(error) if end == Some(End::Leave) => println!("left, though: {}", overlay_core::told(&error)),
        Err(error) => return Err(error.into()),
    }
    // A manager's catalogue is its own, so its certificate is still to be ended; of a worker, both were.
    if let Some(managers) = managers
        && let Err(error) = managers.remove_member(&node.into()).await
    {
        println!("the cluster keeps this node's certificate: {}", overlay_core::told(&error));
    }
    Ok(())
}

async fn log(mut events: broadcast::Receiver<overlay_driver::DriverEvent>) {
    loop {
        match events.recv().await {
            Ok(event) => println!("{event}"),
            Err(broadcast::error::RecvError::Lagged(lost)) => println!("… {lost} lines more"),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// The signals by which a process is told to end. From the first on they do nothing else.
pub(crate) struct Signals {
    interrupted: Signal,
    terminated: Signal,
}

impl Signals {
    pub(crate) fn new() -> Outcome<Self> {
        Ok(Self { interrupted: signal(SignalKind::interrupt())?, terminated: signal(SignalKind::terminate())? })
    }

    /// Ready once there is one.
    pub(crate) async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_to_leave_while_it_was_to_begin_anew_or_to_stop_leaves() {
        let said = |first: Option<End>, ends: &[End]| {
            let (end, mut ended) = mpsc::channel(ENDS);
            ends.iter().for_each(|said| end.try_send(*said).unwrap());
            how(first, &mut ended)
        };
        for first in [None, Some(End::Again)] {
            assert_eq!(said(first, &[]), first);
            assert_eq!(said(first, &[End::Again, End::Again]), first);
            assert_eq!(said(first, &[End::Again, End::Leave, End::Again]), Some(End::Leave));
            assert_eq!(said(first, &[End::TearDown]), Some(End::TearDown));
        }
        assert_eq!(said(Some(End::TearDown), &[End::Leave]), Some(End::Leave), "which removes all too");
    }
}
