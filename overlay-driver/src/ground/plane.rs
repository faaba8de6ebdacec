//! What packets of a node's containers meet in user space, and who carries them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::net::if_::if_nametoindex;
use overlay_core::{
    Applied, Backend as _, BackendError, EndpointId, ErrorKind, IfName, Memory, NetworkId, NsId, PortRange, State,
    StepError,
};
use overlay_crypto::{SaId, UdpEncapsulation, Usage};
use overlay_datapath::{Tables, Wanted};
use overlay_kernel::{Namespace, NamespaceDir, QueueFlags, TapQueue};
use overlay_node::{MemoryPlaces, Place, Places as _};
use overlay_vxlan::{LocalPort, PortEnd, Segment};

use super::kernel::{Containers, sandbox_name};
use super::met::{At, Met, Touched, gateway, taps};
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
    now: Mutex<Now>,
}

/// What packets meet, and what carries by it.
#[derive(Default)]
struct Now {
    met: Met,
    running: Running,
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
    /// It has yet to open the taps of all networks.
    is_bare: bool,
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
        let (places, now) = Default::default();
        Self(Arc::new(Shared { host, containers, sandboxes, config, places, spent, now }))
    }

    /// What is held in memory.
    pub(super) fn places(&self) -> &MemoryPlaces {
        &self.0.places
    }

    /// A value of a place changes by these steps, and packets meet it from then on. The taps that steps touched are opened, where they are not what they were; those
    /// of other places are left alone.
    ///
    /// # Errors
    /// If it cannot be published, in which case [nothing](Applied::Nothing) has changed; or a tap of the place's cannot be opened: then its port is taken out
    /// again, and all else is in effect. What a carrier has begun with that cannot carry all of it is as before, and met all the same.
    pub(super) fn hold<D: State>(
        &self,
        place: &Place,
        held: &mut Memory<D>,
        steps: &[D::Step],
        touched: &Touched,
    ) -> Result<(), StepError> {
        let at = steps.len().saturating_sub(1);
        let mut now = self.lock();
        let is_carried = now.running.carrier.is_some() && !now.running.is_lost();
        if !steps.is_empty() || !is_carried {
            let before = held.state();
            held.apply(steps)?;
            now.met.take(&self.0.places, place);
            let failed = match self.publish(&mut now) {
                Ok(Ok(())) => None,
                Ok(Err(source)) => Some(StepError { at, applied: Applied::Unknown, source }),
                Err(source) => Some(StepError { at: 0, applied: Applied::Nothing, source }),
            };
            if let Some(failed) = failed {
                held.update(|state| *state = before);
                now.met = Met::of(&self.0.places);
                // One that has just begun is to be told what is held after all, and has no tap yet.
                now.running.is_owed |= now.running.is_bare && now.running.carrier.is_some();
                if now.running.is_lost() {
                    let _ = self.begin_again(&mut now); // else when it is looked for next
                }
                return Err(failed);
            }
        }
        let plugged = match place {
            _ if now.running.is_bare => self.plug_all(&mut now, Some(place)),
            Place::Network(network) if !touched.is_empty() => self.plug(&mut now, *network, Some(touched)),
            _ => Ok(()),
        };
        plugged.map_err(|source| StepError { at, applied: Applied::Unknown, source })
    }

    /// A place is no more.
    ///
    /// # Errors
    /// None in practice: it is memory.
    pub(super) fn close(&self, place: &Place) -> Result<(), BackendError> {
        let mut now = self.lock();
        self.0.places.clone().close(place)?;
        now.met.take(&self.0.places, place);
        Ok(())
    }

    /// Whether nothing carries that should: it has ended by itself, or none could begin in its place.
    pub(super) fn is_lost(&self) -> bool {
        self.lock().running.is_lost()
    }

    /// Has another carrier in place of one that is lost, if so.
    ///
    /// # Errors
    /// If what packets meet cannot be published. Ports whose taps cannot be opened are taken out: who holds them finds that.
    pub(super) fn revive(&self) -> Result<(), BackendError> {
        let mut now = self.lock();
        if now.running.is_lost() { self.begin_again(&mut now) } else { Ok(()) }
    }

    /// Whatever of it cannot be carried, the rest is.
    fn begin_again(&self, now: &mut Now) -> Result<(), BackendError> {
        let published = self.publish(now);
        let _ = self.plug_all(now, None); // each to its own
        published?
    }

    /// What was sealed by each association.
    pub(super) fn usage(&self) -> BTreeMap<SaId, Usage> {
        self.lock().running.carrier.as_ref().map(Carrier::usage).unwrap_or_default()
    }

    /// Has the carrier end as if by itself.
    #[cfg(feature = "testing")]
    pub(super) fn end_carrier(&self) {
        if let Some(carrier) = &self.lock().running.carrier {
            carrier.fail();
        }
    }

    /// What each of the carrier's queues has done.
    pub(super) fn counts_by_queue(&self) -> Vec<CarrierCounts> {
        self.lock().running.carrier.as_ref().map(Carrier::counts_by_queue).unwrap_or_default()
    }

    /// What the carrier has done.
    pub(super) fn counts(&self) -> CarrierCounts {
        self.lock().running.carrier.as_ref().map(Carrier::counts).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has packets meet what is held now; inside, whether all of it can be carried, or that all but that is met.
    fn publish(&self, Now { met, running }: &mut Now) -> Result<Result<(), BackendError>, BackendError> {
        let wanted = met.wanted();
        let tables = Tables::new(wanted).map_err(|refusal| {
            BackendError::new(ErrorKind::Invalid, "have packets meet what places hold").caused_by(refusal)
        })?;
        self.start(running, wanted)?;
        let conflict = running.unsealed.values().next().filter(|_| !wanted.crypto.sas.is_empty());
        let carries = conflict.map_or(Ok(()), |why| {
            Err(BackendError::new(ErrorKind::Conflict, "carry ESP in UDP").caused_by(why.clone()))
        });
        // What carries what it did goes on with that.
        if carries.is_err() && !running.is_owed {
            return carries.map(Ok);
        }
        running.is_owed = false;
        let Some(carrier) = &running.carrier else { return Ok(carries) };
        let here: BTreeSet<EndpointId> = tables.endpoints().collect();
        let gone: Vec<EndpointId> = running.plugged.keys().filter(|it| !here.contains(it)).copied().collect();
        carrier.publish(Arc::new(tables));
        for endpoint in gone {
            carrier.unplug(endpoint);
            running.plugged.remove(&endpoint);
        }
        Ok(carries)
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
        (running.is_owed, running.is_bare) = (true, true);
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

    /// Has a carrier that is new open the taps of all networks. Fails where one of the place's cannot be opened; what fails of others is found by these.
    fn plug_all(&self, now: &mut Now, place: Option<&Place>) -> Result<(), BackendError> {
        let mut plugged = Ok(());
        for network in now.met.networks() {
            let done = self.plug(now, network, None);
            if place == Some(&Place::Network(network)) {
                plugged = done;
            }
        }
        now.running.is_bare = now.running.carrier.is_none();
        plugged
    }

    /// Has the carrier open a network's taps that it has not, or has another of: those that were touched, or all. A port whose tap cannot be opened is not held.
    fn plug(&self, now: &mut Now, network: NetworkId, touched: Option<&Touched>) -> Result<(), BackendError> {
        let Now { met, running: Running { carrier: Some(carrier), plugged, .. } } = now else { return Ok(()) };
        let (mut failed, mut failure) = (BTreeSet::new(), Ok(()));
        for (endpoint, at) in met.segments(network).map(taps).into_iter().flatten() {
            if touched.is_some_and(|touched| !touched.is(endpoint, at)) {
                continue;
            }
            if let Err(error) = self.plug_port(carrier, plugged, (endpoint, network, at)) {
                failed.insert(endpoint);
                failure = Err(error);
            }
        }
        if !failed.is_empty() {
            self.take_out(network, &failed);
            met.take(&self.0.places, &Place::Network(network));
        }
        failure
    }

    /// Ports are not held any more; machines' are not without their gateway.
    fn take_out(&self, network: NetworkId, failed: &BTreeSet<EndpointId>) {
        let Some(tables) = self.0.places.place(&Place::Network(network)) else { return };
        tables.vxlan.update(|state| {
            for (vni, segment) in &mut state.segments {
                let guided = !failed.contains(&gateway(*vni));
                let stays = |port: &LocalPort| guided || matches!(port.end, PortEnd::Namespace { .. });
                segment.ports.retain(|endpoint, port| !failed.contains(endpoint) && stays(port));
            }
        });
    }

    fn plug_port(
        &self,
        carrier: &Carrier,
        plugged: &mut BTreeMap<EndpointId, Tap>,
        (endpoint, network, (container, interface)): (EndpointId, NetworkId, At<'_>),
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

/// Whether nothing of a segment passes in the clear: networks that are encrypted have ports of their own.
pub(super) fn is_sealed(segment: &Segment) -> bool {
    segment.vtep.port == overlay_core::Port::VXLAN_ENCRYPTED || PortRange::VXLAN_ENCRYPTED.contains(segment.vtep.port)
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plane").finish_non_exhaustive()
    }
}
