//! The resolvers of containers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{BackendError, Port, told};
use overlay_dns::{Config, Limits, Listen, Metrics, Resolver, Server, Upstreams, View};
use overlay_node::{Place, PlaceState, RESOLVER};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

use crate::ground::Ground;
use crate::home::Home;

/// A resolver for each container that is plugged in, and each sandbox with virtual machines.
#[derive(Debug)]
pub(crate) struct Resolvers<G> {
    ground: G,
    home: Home,
    upstreams: Vec<SocketAddr>,
    seeds: Seeds,
    serving: BTreeMap<Place, Serving>,
    /// What those have counted that have ended.
    past: Metrics,
    bound: UnboundedSender<Bound>,
    binding: JoinSet<()>,
}

/// Sockets that were asked for.
#[derive(Debug)]
pub(crate) struct Bound {
    place: Place,
    /// Which time they were asked for.
    number: u64,
    listen: Result<Listen, BackendError>,
}

#[derive(Debug)]
struct Serving {
    state: Arc<PlaceState>,
    at: Vec<SocketAddr>,
    number: u64,
    server: Server,
}

#[derive(Debug)]
struct Seeds {
    seed: [u8; 32],
    given: u64,
}

impl Seeds {
    /// One that was not given before.
    fn next(&mut self) -> ([u8; 32], u64) {
        self.given += 1;
        let mut seed = self.seed;
        seed.iter_mut().zip(self.given.to_le_bytes()).for_each(|(byte, more)| *byte ^= more);
        (seed, self.given)
    }
}

impl<G: Ground> Resolvers<G> {
    pub(crate) fn new(
        ground: G,
        home: Home,
        upstreams: Vec<SocketAddr>,
        seed: [u8; 32],
        bound: UnboundedSender<Bound>,
    ) -> Self {
        let seeds = Seeds { seed, given: 0 };
        Self {
            ground,
            home,
            upstreams,
            seeds,
            serving: BTreeMap::new(),
            past: Metrics::default(),
            bound,
            binding: JoinSet::new(),
        }
    }

    /// These names are seen from a place from now on. Where it is `direct`, nothing leads from port 53 to elsewhere. Gives
    /// whether it asks for sockets now.
    pub(crate) fn publish(&mut self, place: &Place, state: &Arc<PlaceState>, direct: bool) -> bool {
        let at = addresses(place, state, direct);
        if let Some(serving) = self.serving.get_mut(place)
            && serving.at == at
        {
            if serving.state.view != state.view {
                serving.server.set_source(state.view.clone());
            }
            serving.state = Arc::clone(state);
            return false;
        }
        let (seed, number) = self.seeds.next();
        // What is asked before there is a socket is asked again.
        let Some(server) = self.start(place, Listen::default(), state.view.clone(), seed) else { return false };
        let former = self.serving.insert(place.clone(), Serving { state: Arc::clone(state), at, number, server });
        self.remember(former.map(|former| former.server));
        self.bind(place, number);
        true
    }

    /// No names are seen from there any more.
    pub(crate) fn withdraw(&mut self, place: &Place) {
        let former = self.serving.remove(place);
        self.remember(former.map(|former| former.server));
    }

    /// What all have counted, those too that have ended.
    pub(crate) fn metrics(&self) -> Metrics {
        self.serving.values().fold(self.past.clone(), |all, serving| all.and(&serving.server.metrics()))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.serving.len()
    }

    fn remember(&mut self, former: Option<Server>) {
        if let Some(former) = former {
            self.past = std::mem::take(&mut self.past).and(&former.metrics().ended());
        }
    }

    /// Sockets are there, or cannot be had, in which case it says why.
    pub(crate) fn take(&mut self, bound: Bound) -> Option<(Place, Result<(), String>)> {
        let Bound { place, number, listen } = bound;
        let serving = self.serving.get(&place).filter(|serving| serving.number == number)?;
        let view = serving.state.view.clone();
        let listen = match listen {
            Ok(listen) => listen,
            Err(error) => return Some((place, Err(told(&error)))),
        };
        let (seed, _) = self.seeds.next();
        let server = self.start(&place, listen, view, seed)?;
        let former = std::mem::replace(&mut self.serving.get_mut(&place)?.server, server);
        self.remember(Some(former));
        Some((place, Ok(())))
    }

    /// Tries once more for a place that has no sockets.
    pub(crate) fn bind_again(&mut self, place: &Place) {
        let (_, number) = self.seeds.next();
        if let Some(serving) = self.serving.get_mut(place) {
            serving.number = number;
            self.bind(place, number);
        }
    }

    /// Ends: answers what is being asked, and closes the sockets.
    pub(crate) async fn end(mut self) {
        let mut stopping: JoinSet<_> = self.serving.into_values().map(|serving| serving.server.stop()).collect();
        while stopping.join_next().await.is_some() {}
        while self.binding.join_next().await.is_some() {}
    }

    fn bind(&mut self, place: &Place, number: u64) {
        while self.binding.try_join_next().is_some() {}
        let Some(serving) = self.serving.get(place) else { return };
        let (mut ground, place, at) = (self.ground.clone(), place.clone(), serving.at.clone());
        let bound = self.bound.clone();
        self.binding.spawn_blocking(move || {
            let listen = ground.listen(&place, &at);
            let _ = bound.send(Bound { place, number, listen });
        });
    }

    fn start(&self, place: &Place, listen: Listen, view: View, seed: [u8; 32]) -> Option<Server> {
        let mut ourselves: Vec<SocketAddr> = listen.udp.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        if matches!(place, Place::Container(_)) {
            ourselves.push(SocketAddr::new(IpAddr::V4(RESOLVER), Port::DNS.get()));
        }
        let mut resolver = Resolver::new(view, Config::default(), seed).ok()?; // the default is in range
        resolver.set_upstreams(&Upstreams { servers: self.upstreams.clone(), ourselves });
        Server::start(listen, resolver, self.home.clone(), LIMITS).ok()
    }
}

/// Of each resolver: a container has its own, and all of a node are in one process, whose open files they share.
const LIMITS: Limits = Limits {
    connections: 32,
    upstream_connections: 16,
    idle: Duration::from_secs(10),
    pipelined: 64,
    grace: Duration::from_secs(4),
};

/// Where a container's resolver listens, as its firewall leads there, if it does; where virtual machines ask: their gateway.
fn addresses(place: &Place, state: &PlaceState, direct: bool) -> Vec<SocketAddr> {
    let address = |ip: IpAddr| SocketAddr::new(ip, Port::DNS.get());
    match place {
        Place::Host => Vec::new(),
        Place::Network(_) => {
            let segments = state.vxlan.segments.values();
            segments.flat_map(|segment| &segment.gateways).map(|gateway| address(gateway.addr())).collect()
        }
        Place::Container(_) => {
            let led = state.firewall.published.values().find_map(|published| published.v4).filter(|_| !direct);
            vec![led.map_or_else(|| address(RESOLVER.into()), SocketAddr::V4)]
        }
    }
}
