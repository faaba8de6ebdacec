//! What packets of a node's containers meet in user space, and who carries them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::net::if_::if_nametoindex;
use overlay_core::{
    Backend as _, BackendError, EndpointId, ErrorKind, IfName, Memory, Name, NetworkId, NsId, NsKey, PortRange, State,
    StepError, Vni,
};
use overlay_crypto::{SaId, UdpEncapsulation, Usage};
use overlay_datapath::{Sandbox, Tables, Wanted};
use overlay_kernel::{Namespace, NamespaceDir, QueueFlags, TapQueue};
use overlay_node::{MemoryPlaces, Place};
use overlay_vxlan::{LocalPort, PortEnd, Segment, names};

use super::kernel::{Containers, sandbox_name};
use super::tunnels::Spent;
use crate::chance::random;
use crate::packets::{Carrier, CarrierConfig, CarrierCounts};

/// What the places hold that packets meet, and the carrier that goes by it. A clone is the same.
///
/// Each change is published with the step that makes it, as one whole: so what packets meet is at each moment what the places held at one, in the
/// order of their phases, and a step is in effect when it says so.
#[derive(Clone)]
pub(super) struct Plane(Arc<Shared>);

struct Shared {
    host: Arc<Namespace>,
    containers: Arc<Containers>,
    sandboxes: NamespaceDir,
    config: CarrierConfig,
    places: MemoryPlaces,
    spent: Spent,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    carrier: Option<Carrier>,
    /// Where its sockets are bound.
    bound: BTreeSet<SocketAddr>,
    /// Where it has no socket for ESP, and why.
    unsealed: BTreeMap<SocketAddr, String>,
    /// The taps that it has.
    plugged: BTreeMap<EndpointId, Tap>,
    /// There was one, in whose place another has yet to begin, or to be told what packets meet.
    is_owed: bool,
}

/// A tap of ours: where it is, what it is called, and which of those that ever were called so it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tap {
    namespace: NsId,
    interface: IfName,
    index: u32,
}

impl Plane {
    pub(super) fn new(
        (host, containers): (Arc<Namespace>, Arc<Containers>),
        sandboxes: NamespaceDir,
        (config, spent): (CarrierConfig, Spent),
    ) -> Self {
        let (places, running) = Default::default();
        Self(Arc::new(Shared { host, containers, sandboxes, config, places, spent, running }))
    }

    /// What is held in memory.
    pub(super) fn places(&self) -> &MemoryPlaces {
        &self.0.places
    }

    /// A value changes by these steps, and packets meet it from then on. Without steps it is looked whether the taps are what they were.
    ///
    /// # Errors
    /// If it cannot be published, in which case it is as before; or a tap cannot be opened, whose port is then taken out again.
    pub(super) fn hold<D: State>(&self, held: &mut Memory<D>, steps: &[D::Step]) -> Result<(), BackendError> {
        let mut running = self.lock();
        if steps.is_empty() && running.carrier.is_some() && !running.is_lost() {
            return self.plug(&mut running); // what packets meet is what it was
        }
        let before = held.state();
        held.apply(steps).map_err(|StepError { source, .. }| source)?;
        if let Err(error) = self.publish(&mut running) {
            held.update(|state| *state = before);
            if running.is_lost() {
                let _ = self.begin_again(&mut running); // else when it is looked for next
            }
            return Err(error);
        }
        self.plug(&mut running)
    }

    /// Whether nothing carries that should: it has ended by itself, or none could begin in its place.
    pub(super) fn is_lost(&self) -> bool {
        self.lock().is_lost()
    }

    /// Has another carrier in place of one that is lost, if so.
    ///
    /// # Errors
    /// As [`hold`](Self::hold).
    pub(super) fn revive(&self) -> Result<(), BackendError> {
        let mut running = self.lock();
        if running.is_lost() { self.begin_again(&mut running) } else { Ok(()) }
    }

    /// Whatever of it cannot be carried, the rest is.
    fn begin_again(&self, running: &mut Running) -> Result<(), BackendError> {
        let published = self.publish(running);
        let plugged = self.plug(running);
        published.and(plugged)
    }

    /// What was sealed by each association.
    pub(super) fn usage(&self) -> BTreeMap<SaId, Usage> {
        self.lock().carrier.as_ref().map(Carrier::usage).unwrap_or_default()
    }

    /// Has the carrier end as if by itself.
    #[cfg(feature = "testing")]
    pub(super) fn end_carrier(&self) {
        if let Some(carrier) = &self.lock().carrier {
            carrier.fail();
        }
    }

    /// What each of the carrier's queues has done.
    pub(super) fn counts_by_queue(&self) -> Vec<CarrierCounts> {
        self.lock().carrier.as_ref().map(Carrier::counts_by_queue).unwrap_or_default()
    }

    /// What the carrier has done.
    pub(super) fn counts(&self) -> CarrierCounts {
        self.lock().carrier.as_ref().map(Carrier::counts).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has packets meet what is held now.
    fn publish(&self, running: &mut Running) -> Result<(), BackendError> {
        let wanted = wanted(&self.0.places);
        let tables = Tables::new(&wanted).map_err(|refusal| {
            BackendError::new(ErrorKind::Invalid, "have packets meet what places hold").caused_by(refusal)
        })?;
        self.start(running, &wanted)?;
        let conflict = running.unsealed.values().next().filter(|_| !wanted.crypto.sas.is_empty());
        let carries = conflict.map_or(Ok(()), |why| {
            Err(BackendError::new(ErrorKind::Conflict, "carry ESP in UDP").caused_by(why.clone()))
        });
        // What carries what it did goes on with that.
        if carries.is_err() && !running.is_owed {
            return carries;
        }
        running.is_owed = false;
        let Some(carrier) = &running.carrier else { return carries };
        let here: BTreeSet<EndpointId> = tables.endpoints().collect();
        let gone: Vec<EndpointId> = running.plugged.keys().filter(|it| !here.contains(it)).copied().collect();
        carrier.publish(Arc::new(tables));
        for endpoint in gone {
            carrier.unplug(endpoint);
            running.plugged.remove(&endpoint);
        }
        carries
    }

    /// Has a carrier that is bound where it should be. One that is to be bound elsewhere too is another, which opens all taps anew; what it
    /// knew of flows is lost, and keys that the last has used are not used again. If somebody else is where it is to be bound, the last goes on.
    fn start(&self, running: &mut Running, wanted: &Wanted) -> Result<(), BackendError> {
        let ends = Ends::of(wanted);
        if running.carrier.is_none() && ends.sealed.is_empty() {
            return Ok(());
        }
        let (mut sockets, mut bound) = (Vec::new(), BTreeSet::new());
        for at in ends.plain.difference(&running.bound) {
            sockets.extend(self.sockets(*at)?);
            bound.insert(*at);
        }
        let asks_again = !wanted.crypto.sas.is_empty();
        for at in &ends.sealed {
            if !running.bound.contains(at) && (asks_again || !running.unsealed.contains_key(at)) {
                running.seal(*at, self.sockets(*at), (&mut sockets, &mut bound));
            }
        }
        if running.carrier.is_some() && !running.is_lost() && sockets.is_empty() {
            return Ok(());
        }
        let mut former = std::mem::take(running);
        running.is_owed = true;
        running.unsealed = std::mem::take(&mut former.unsealed);
        if former.carrier.take().is_some_and(|carrier| carrier.may_have_sealed()) {
            self.0.spent.set();
        }
        for at in &former.bound {
            match self.sockets(*at) {
                found if ends.sealed.contains(at) => running.seal(*at, found, (&mut sockets, &mut bound)),
                Ok(_) if at.port() == of_esp() => {}
                Ok(more) => {
                    sockets.extend(more);
                    bound.insert(*at);
                }
                Err(error) if ends.plain.contains(at) => return Err(error),
                Err(_) => {} // nothing of ours is there any more
            }
        }
        self.begin(running, sockets, bound)
    }

    fn begin(
        &self,
        running: &mut Running,
        sockets: Vec<UdpSocket>,
        bound: BTreeSet<SocketAddr>,
    ) -> Result<(), BackendError> {
        let mut sources = Vec::new();
        for at in bound.iter().filter(|at| at.port() != of_esp()) {
            sources.extend(self.sources(at.ip())?);
        }
        let mut seed = [0; 32];
        random(&mut seed);
        let carrier = Carrier::start_spread(&self.0.config, seed, sockets, sources);
        let failed =
            |error: std::io::Error| BackendError::new(ErrorKind::Other, "carry packets in user space").caused_by(error);
        (running.carrier, running.bound) = (Some(carrier.map_err(failed)?), bound);
        Ok(())
    }

    /// One for each queue.
    fn sockets(&self, at: SocketAddr) -> Result<Vec<UdpSocket>, BackendError> {
        match self.0.config.queues {
            0 | 1 => Ok(vec![self.0.host.udp(at)?]), // which nobody else can bind beside it
            queues => self.0.host.udp_queues(at, queues),
        }
    }

    /// What VXLAN leaves by, where there are several queues.
    fn sources(&self, from: IpAddr) -> Result<Vec<UdpSocket>, BackendError> {
        let count = if self.0.config.queues > 1 { self.0.config.queues * SOURCES } else { 0 };
        (0..count).map(|_| self.0.host.udp((from, 0).into())).collect()
    }

    /// Has the carrier open the taps that it has not, or has another of. A port whose tap cannot be opened is not held.
    fn plug(&self, running: &mut Running) -> Result<(), BackendError> {
        let Running { carrier: Some(carrier), plugged, .. } = running else { return Ok(()) };
        let mut failure = Ok(());
        for (place, tables) in self.0.places.places() {
            let Place::Network(network) = place else { continue };
            let vxlan = tables.vxlan.state();
            let mut failed = BTreeSet::new();
            for (endpoint, tap) in taps(&vxlan) {
                if let Err(error) = self.plug_port(carrier, plugged, (endpoint, network, tap)) {
                    failed.insert(endpoint);
                    failure = Err(error);
                }
            }
            if !failed.is_empty() {
                tables.vxlan.update(|state| {
                    let all = state.segments.iter_mut();
                    all.for_each(|(vni, segment)| {
                        let guided = !failed.contains(&gateway(*vni));
                        let stays = |port: &LocalPort| guided || matches!(port.end, PortEnd::Namespace { .. });
                        segment.ports.retain(|endpoint, port| !failed.contains(endpoint) && stays(port));
                    });
                });
            }
        }
        failure
    }

    fn plug_port(
        &self,
        carrier: &Carrier,
        plugged: &mut BTreeMap<EndpointId, Tap>,
        (endpoint, network, (container, interface)): (EndpointId, NetworkId, (Option<&NsKey>, IfName)),
    ) -> Result<(), BackendError> {
        let namespace = match container {
            Some(key) if self.0.containers.is_hosts(key) => Arc::clone(&self.0.host),
            Some(key) => self.0.containers.namespace(key).ok_or_else(|| {
                BackendError::new(ErrorKind::Gone, format!("open tap {interface}")).caused_by("its container has ended")
            })?,
            None => match sandbox_name(network).map(|name| self.0.sandboxes.open(&name)) {
                Some(sandbox) => Arc::new(sandbox?),
                None => return Ok(()),
            },
        };
        let index = namespace.run(|| if_nametoindex(interface.as_str()).unwrap_or_default())?;
        let tap = Tap { namespace: namespace.id(), interface, index };
        if index == 0 || plugged.get(&endpoint) == Some(&tap) {
            return Ok(()); // it is not there yet, or not any more: then what makes it opens it
        }
        // The one that it had may have the name that this one has.
        carrier.unplug(endpoint);
        plugged.remove(&endpoint);
        let queue = TapQueue::open(&namespace, interface, QueueFlags { vnet_hdr: true, ..QueueFlags::default() })?;
        carrier.plug(endpoint, queue)?;
        plugged.insert(endpoint, tap);
        Ok(())
    }
}

impl Running {
    /// Whether nothing carries that should.
    fn is_lost(&self) -> bool {
        self.is_owed || self.carrier.as_ref().is_some_and(|carrier| carrier.ended().is_some())
    }

    /// Has sockets for ESP there, or why not.
    fn seal(
        &mut self,
        at: SocketAddr,
        found: Result<Vec<UdpSocket>, BackendError>,
        (sockets, bound): (&mut Vec<UdpSocket>, &mut BTreeSet<SocketAddr>),
    ) {
        match found {
            Ok(more) => {
                sockets.extend(more);
                bound.insert(at);
                self.unsealed.remove(&at);
            }
            Err(error) => drop(self.unsealed.insert(at, overlay_core::told(&error))),
        }
    }
}

/// Where segments' tunnels end here.
struct Ends {
    plain: BTreeSet<SocketAddr>,
    /// Of all addresses, as none is known to need none.
    sealed: BTreeSet<SocketAddr>,
}

impl Ends {
    fn of(wanted: &Wanted) -> Self {
        let segments = || wanted.networks.values().flat_map(|network| network.vxlan.segments.values());
        let plain = segments().filter(|segment| !is_sealed(segment));
        Self {
            plain: plain.map(|segment| (segment.vtep.local, segment.vtep.port.get()).into()).collect(),
            sealed: segments().map(|segment| (segment.vtep.local, of_esp()).into()).collect(),
        }
    }
}

/// The port of ESP in UDP.
fn of_esp() -> u16 {
    UdpEncapsulation::default().destination.get()
}

/// Ports that each queue sends VXLAN from, where there are several: so few of them seldom all meet one queue at the other end.
const SOURCES: usize = 8;

/// Our taps of a network's segments: in which container's namespace each is, or in none but the network's own, and what it is called.
fn taps(vxlan: &overlay_vxlan::State) -> Vec<(EndpointId, (Option<&NsKey>, IfName))> {
    let mut taps = Vec::new();
    for (vni, segment) in &vxlan.segments {
        for (endpoint, port) in &segment.ports {
            match &port.end {
                PortEnd::Namespace { namespace, interface } => taps.push((*endpoint, (Some(namespace), *interface))),
                PortEnd::Tap { .. } => taps.extend(names::port(*endpoint).map(|ours| (*endpoint, (None, ours)))),
            }
        }
        if has_machines(segment) {
            taps.extend(names::bridge(*vni).map(|ours| (gateway(*vni), (None, ours))));
        }
    }
    taps
}

fn has_machines(segment: &Segment) -> bool {
    segment.ports.values().any(|port| matches!(port.end, PortEnd::Tap { .. }))
}

/// What a segment's gateway is plugged in as.
const fn gateway(vni: Vni) -> EndpointId {
    let [a, b, c, d] = vni.get().to_be_bytes();
    EndpointId::from_bytes([0xff, b'g', b'a', b't', b'e', b'w', b'a', b'y', 0xff, 0xff, 0xff, 0xff, a, b, c, d])
}

/// Whether nothing of a segment passes in the clear: networks that are encrypted have ports of their own.
pub(super) fn is_sealed(segment: &Segment) -> bool {
    segment.vtep.port == overlay_core::Port::VXLAN_ENCRYPTED || PortRange::VXLAN_ENCRYPTED.contains(segment.vtep.port)
}

/// All that is held now.
fn wanted(places: &MemoryPlaces) -> Wanted {
    let mut wanted = Wanted::default();
    let mut services: BTreeMap<Name, Arc<overlay_lb::State>> = BTreeMap::new();
    for (place, held) in places.places() {
        match place {
            Place::Host => (wanted.crypto, wanted.host) = (held.crypto.state(), held.firewall.state()),
            Place::Network(network) => {
                let sandbox = Sandbox { vxlan: held.vxlan.state(), firewall: held.firewall.state() };
                wanted.networks.insert(network, sandbox);
            }
            Place::Container(name) => drop(services.insert(name, Arc::new(held.lb.state()))),
        }
    }
    let segments = wanted.networks.values().flat_map(|network| &network.vxlan.segments);
    wanted.gateways = segments.filter(|(_, it)| has_machines(it)).map(|(vni, _)| (*vni, gateway(*vni))).collect();
    let segments = wanted.networks.values().flat_map(|network| network.vxlan.segments.values());
    for (endpoint, port) in segments.flat_map(|segment| &segment.ports) {
        let PortEnd::Namespace { namespace, .. } = &port.end else { continue };
        if let Some(state) = services.get(&namespace.name) {
            wanted.services.insert(*endpoint, Arc::clone(state));
        }
    }
    wanted
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plane").finish_non_exhaustive()
    }
}
