//! Places whose packets are carried in user space.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overlay_core::{
    Backend as _, BackendError, ErrorKind, IfName, Mtu, Name, NetworkId, NodeId, NsKey, Refusal, Shadow, Table,
};
use overlay_crypto::{SaId, UdpEncapsulation, Usage};
use overlay_dns::Listen;
use overlay_firewall::Firewall;
use overlay_kernel::link::Tap;
use overlay_kernel::netlink::Notices;
use overlay_kernel::nft::Writers;
use overlay_kernel::{Namespace, TapQueue};
use overlay_lb::kernel::Nftables;
use overlay_node::{Break, Place, PlaceState, PlaceTables, Places};
use overlay_vxlan::{Ends, Sandbox, State as Segments};

use super::beside::{Beside, Carried, Step, untouched};
use super::kernel::{LINKS, SERVICES, TUNNELS, name, sandbox_name};
use super::met::Touched;
use super::nothing::Nothing;
use super::plane::{Plane, is_sealed};
use super::reaching::{Reach, Reaching};
use super::{FlowMeter, Ground, Hindrances, KernelPlaces};
use crate::Source;
use crate::packets::{CarrierConfig, CarrierCounts};

/// A node's places in which packets are carried in user space, by a [`Carrier`](crate::packets::Carrier): on a kernel with neither VXLAN, IPVS nor ESP.
///
/// Containers' interfaces are taps, which this process has open; segments, the networks' policies, virtual services and the protection of tunnels are
/// values in its memory, by which it carries. In the kernel stays, as of [`KernelPlaces`], what is a host's or a container's own: addresses and
/// routes, local networks, the way to the resolver, what the host publishes, its guards. Where it has no nf_tables a host can have but guards of tunnels,
/// and what needs more is refused.
///
/// Nodes of both kinds understand each other in networks that are not encrypted. In those that are, ESP crosses the underlay in UDP at port
/// 4500, which a kernel's ESP of ours does not take: all nodes of such a network carry in user space, or none. That costs packets 8 bytes. Its tunnels have the
/// ports that are for that, [`Port::VXLAN_ENCRYPTED`](overlay_core::Port::VXLAN_ENCRYPTED) or of
/// [`PortRange::VXLAN_ENCRYPTED`](overlay_core::PortRange::VXLAN_ENCRYPTED).
///
/// The interfaces stay when the process ends, and what they are sent is lost until another opens them: a node that is started again goes on where
/// it was. A virtual machine's tap ([`Source::Tap`]) is its own to open, in the network's sandbox as of [`KernelPlaces`]: a small bridge leads from it to one of
/// ours, by which its frames are carried, in pieces of up to 64 KiB where both ends can.
///
/// It needs `/dev/net/tun`, and the capabilities that [`KernelPlaces`] needs.
#[derive(Debug, Clone)]
pub struct UserspacePlaces {
    kernel: KernelPlaces,
    plane: Plane,
    /// A file for each network, as an earlier life of the node has taps where no desired value may lead.
    networks: PathBuf,
}

impl UserspacePlaces {
    /// The places of a node, as [`KernelPlaces::new`].
    ///
    /// # Errors
    /// As it, and as [`with_carrier`](Self::with_carrier).
    pub fn new(cluster: Name, node: NodeId, host: Namespace, dir: &Path) -> Result<Self, BackendError> {
        Self::with_carrier(&CarrierConfig::default(), KernelPlaces::new(cluster, node, host, dir)?, dir)
    }

    /// The same beside these places in the kernel, of the same directory, with a carrier that works like this.
    ///
    /// Where it has several [queues](CarrierConfig::queues), each container's interface is read by one of them, in turn, and what other nodes send is spread over all. VXLAN
    /// leaves by several ports then, so that what is on its way, and the other end's queues, tell flows apart; ESP in UDP leaves by its one.
    ///
    /// # Errors
    /// If `/dev/net/tun` is not there, or not for this user: as [`TapQueue::probe`].
    pub fn with_carrier(config: &CarrierConfig, kernel: KernelPlaces, dir: &Path) -> Result<Self, BackendError> {
        TapQueue::probe()?;
        let ends = (Arc::clone(&kernel.host), Arc::clone(&kernel.containers));
        let plane = Plane::new(ends, kernel.sandboxes.clone(), (config.clone(), kernel.spent.clone()));
        Ok(Self { kernel, plane, networks: dir.join("carried") })
    }

    /// The same with virtual machines' taps that are like this, as [`KernelPlaces::with_taps`].
    #[must_use]
    pub fn with_taps(self, taps: Tap) -> Self {
        Self { kernel: self.kernel.with_taps(taps), ..self }
    }

    /// The file of a network's sandbox, where virtual machines' taps are, as [`KernelPlaces::sandbox`].
    pub fn sandbox(&self, network: NetworkId) -> Option<PathBuf> {
        self.kernel.sandbox(network)
    }

    /// As [`KernelPlaces::keep`].
    ///
    /// # Errors
    /// As it.
    pub fn keep(&self, container: &Name, file: OwnedFd) -> Result<Source, BackendError> {
        self.kernel.keep(container, file)
    }

    /// Has the carrier end as if by itself: the kernel does not say any more what is ready. The places begin another when they next look.
    #[cfg(feature = "testing")]
    pub fn end_carrier(&self) {
        self.plane.end_carrier();
    }

    /// What each of the carrier's queues has done.
    pub fn counts_by_queue(&self) -> Vec<CarrierCounts> {
        self.plane.counts_by_queue()
    }

    /// What was carried since the carrier began.
    pub fn counts(&self) -> CarrierCounts {
        self.plane.counts()
    }

    fn open_host(&self) -> Result<PlaceTables, BackendError> {
        let (held, writers) = (self.plane.places().make(&Place::Host), Writers::default());
        let of_host = || (Place::Host, self.plane.clone());
        let crypto = Box::new(Carried::new(held.crypto, of_host(), in_udp));
        let owner = self.kernel.owner(None)?;
        let firewall = Firewall::of_host(&owner, self.kernel.host.try_clone()?);
        let firewall: Box<dyn Table<overlay_firewall::State>> =
            match firewall.and_then(|mut firewall| firewall.observe().map(|_| firewall)) {
                Ok(firewall) => {
                    let (kernel, held, (place, plane)) = (firewall.among(&writers), held.firewall, of_host());
                    Box::new(Shadow::new(Beside { kernel, held, split: guards, plane, place, touch: untouched }))
                }
                // Netfilter without nf_tables calls every question of theirs invalid.
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {
                    Box::new(Carried::new(held.firewall, of_host(), guards_only))
                }
                Err(error) => return Err(error),
            };
        self.kernel.open_host_with(crypto, firewall, &writers)
    }

    fn open_network(&self, network: NetworkId) -> Result<PlaceTables, BackendError> {
        let file = self.file(network)?;
        let is_left = file.exists();
        if !is_left {
            self.leave_kernel(network)?;
            let made = fs::create_dir_all(&self.networks).and_then(|()| fs::write(&file, ""));
            made.map_err(|error| of_file(&file, error))?;
        }
        let (place, plane) = (Place::Network(network), self.plane.clone());
        let held = self.plane.places().make(&place);
        let (key, host) = (self.kernel.host.key(name("host")?), self.kernel.host.try_clone()?);
        let home = self.kernel.open_sandbox(network)?;
        let kernel = Ends::open(&self.kernel.owner(Some(network))?, home, (key, host))?.with_taps(self.kernel.taps);
        let policy = Carried::new(held.firewall, (place.clone(), plane.clone()), whole);
        let sandbox = Beside { kernel, held: held.vxlan, split: with_room, plane, place, touch };
        let sandbox = Reaching::new(sandbox, Arc::clone(&self.kernel.containers));
        Ok(PlaceTables {
            crypto: Box::new(Nothing::because(TUNNELS)),
            link: Box::new(Nothing::because(LINKS)),
            vxlan: Box::new(if is_left { sandbox.anywhere()? } else { sandbox }),
            firewall: Box::new(policy),
            lb: Box::new(Nothing::because(SERVICES)),
            routes: Box::new(Nothing::because("a network leads nowhere else")),
        })
    }

    /// What an earlier life has of a network in the kernel goes: it has the containers' interfaces, and the port of the tunnels.
    fn leave_kernel(&self, network: NetworkId) -> Result<(), BackendError> {
        let sandbox = sandbox_name(network).filter(|name| self.kernel.sandboxes.open(name).is_ok());
        sandbox.map_or(Ok(()), |name| self.kernel.sandboxes.remove(&name))
    }

    fn open_container(&self, container: &Name) -> Result<PlaceTables, BackendError> {
        let place = Place::Container(container.clone());
        let held = self.plane.places().make(&place).lb;
        self.kernel.open_container_with(container, |namespace, writers| {
            self.kernel.containers.balances(container, &namespace, "user space".to_owned());
            let plane = self.plane.clone();
            Ok(match Nftables::open(&self.kernel.owner(None)?, namespace.try_clone()?) {
                Ok(services) => {
                    let kernel = services.among(&writers);
                    Box::new(Shadow::new(Beside { kernel, held, split: balanced, plane, place, touch: untouched }))
                }
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    Box::new(Carried::new(held, (place, plane), balanced_to_others))
                }
                Err(error) => return Err(error),
            })
        })
    }

    fn file(&self, network: NetworkId) -> Result<PathBuf, BackendError> {
        let name = sandbox_name(network).ok_or_else(|| BackendError::new(ErrorKind::Invalid, "name a network"))?;
        Ok(self.networks.join(name.as_str()))
    }
}

impl Places for UserspacePlaces {
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError> {
        match place {
            Place::Host => self.open_host(),
            Place::Network(network) => self.open_network(*network),
            Place::Container(container) => self.open_container(container),
        }
    }

    fn protects(&self) -> Result<(), String> {
        Ok(())
    }

    fn close(&mut self, place: &Place) -> Result<(), BackendError> {
        self.plane.close(place)?;
        let Place::Network(network) = place else { return self.kernel.close(place) };
        let file = self.file(*network)?;
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(of_file(&file, error)),
            _ => self.kernel.close(place),
        }
    }

    fn list(&mut self) -> Result<Vec<Place>, BackendError> {
        let mut places: BTreeSet<Place> = match self.kernel.list() {
            Ok(places) => places.into_iter().collect(),
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {
                let entered = self.kernel.containers.all();
                entered.into_iter().map(|key| Place::Container(key.name)).collect()
            }
            Err(error) => return Err(error),
        };
        match fs::read_dir(&self.networks) {
            Ok(entries) => {
                let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
                places.extend(names.map(Place::Network));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(of_file(&self.networks, error)),
        }
        Ok(places.into_iter().collect())
    }
}

impl Ground for UserspacePlaces {
    fn host(&self) -> Option<Arc<Namespace>> {
        self.kernel.host()
    }

    fn enter(&mut self, container: &Name, source: &Source) -> Result<Option<NsKey>, BackendError> {
        self.kernel.enter(container, source)
    }

    fn leave(&mut self, container: &Name) {
        self.kernel.leave(container);
    }

    fn is_there(&self, source: &Source, key: &NsKey) -> bool {
        self.kernel.is_there(source, key)
    }

    fn interfaces(&mut self, container: &Name) -> Result<BTreeSet<IfName>, BackendError> {
        self.kernel.interfaces(container)
    }

    fn balancer(&self, place: &Place) -> Option<String> {
        self.kernel.balancer(place)
    }

    fn needs_keys(&self) -> bool {
        self.kernel.needs_keys()
    }

    fn carried(&self) -> Option<CarrierCounts> {
        Some(self.counts())
    }

    fn usage(&mut self) -> Result<BTreeMap<SaId, Usage>, BackendError> {
        Ok(self.plane.usage())
    }

    fn flows(&mut self, container: &Name, at: BTreeSet<IpAddr>) -> Result<Option<FlowMeter>, BackendError> {
        self.kernel.flows(container, at)
    }

    fn listen(&mut self, place: &Place, at: &[SocketAddr]) -> Result<Listen, BackendError> {
        self.kernel.listen(place, at)
    }

    fn obstacles(&mut self, state: &PlaceState) -> Result<Vec<Break>, BackendError> {
        match self.kernel.obstacles(state) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Vec::new()), // nobody has rules there
            found => found,
        }
    }

    fn hindrances(&mut self, state: &PlaceState) -> Result<Hindrances, BackendError> {
        self.kernel.hindrances(state)
    }

    fn hints(&mut self, place: &Place) -> Result<Vec<Notices>, BackendError> {
        self.kernel.hints(place)
    }
}

impl Reach for Beside<Ends, Segments> {
    type Value = Segments;

    fn named(value: &Segments) -> BTreeSet<NsKey> {
        Sandbox::named(value)
    }

    fn reach(&mut self, key: NsKey, container: Namespace) -> Result<(), BackendError> {
        self.kernel.reach(key, container)
    }

    fn leave(&mut self, key: &NsKey) {
        self.kernel.leave(key);
    }
}

/// All of it meets packets.
fn whole<D: Clone>(value: &D) -> Result<D, Refusal> {
    Ok(value.clone())
}

/// Associations whose ESP crosses the underlay in UDP: it takes no privilege, and passes where nobody lets ESP pass.
fn in_udp(value: &overlay_crypto::State) -> Result<overlay_crypto::State, Refusal> {
    let mut state = value.clone();
    state.sas.values_mut().for_each(|sa| sa.udp = Some(UdpEncapsulation::default()));
    Ok(state)
}

/// The taps that a step is about.
fn touch(step: &Step<overlay_kernel::link::Step, overlay_vxlan::Step>, touched: &mut Touched) {
    match step {
        Step::Kernel(step) => touched.add_link(step),
        Step::Held(step) => touched.add_segment(step),
    }
}

/// Segments whose packets leave room for what UDP adds to ESP.
fn with_room(value: &Segments) -> (Segments, Segments) {
    let mut state = value.clone();
    for segment in state.segments.values_mut().filter(|segment| is_sealed(segment)) {
        let less = segment.mtu.get().saturating_sub(UdpEncapsulation::LEN as u32);
        segment.mtu = Mtu::new(less).unwrap_or(segment.mtu);
    }
    (state.clone(), state)
}

/// What the kernel need not guard, as nothing of ours leaves in the clear or arrives as ESP there, and what packets meet.
fn guards(value: &overlay_firewall::State) -> (overlay_firewall::State, overlay_firewall::State) {
    let mut kernel = overlay_firewall::State { esp: None, ..value.clone() };
    kernel.tunnels.values_mut().for_each(|tunnel| tunnel.encrypted.clear());
    (kernel, tunnels(value))
}

fn tunnels(value: &overlay_firewall::State) -> overlay_firewall::State {
    let (tunnels, esp) = (value.tunnels.clone(), value.esp.clone());
    overlay_firewall::State { tunnels, esp, ..overlay_firewall::State::default() }
}

/// What can be held of a host without nf_tables: there, packets that are not of tunnels are not looked at.
fn guards_only(value: &overlay_firewall::State) -> Result<overlay_firewall::State, Refusal> {
    let held = tunnels(value);
    match held == *value {
        true => Ok(held),
        false => Err(Refusal::new("host", "more than who may send to tunnels", NO_TABLES)),
    }
}

/// Services are balanced in user space, but for those that the container is a replica of: a kernel takes no packet from an address of its own that comes in by
/// a device, so what it picks itself for never leaves it. And whose flows come from balancers elsewhere has ways back in the kernel.
fn balanced(value: &overlay_lb::State) -> (overlay_lb::State, overlay_lb::State) {
    let (mut kernel, mut held) = (overlay_lb::State::default(), value.clone());
    kernel.arrivals = held.arrivals.take();
    for name in own_services(value) {
        let Some(service) = held.services.remove(&name) else { continue };
        for vip in &service.vips {
            if let Some(source) = held.sources.remove(vip) {
                kernel.sources.insert(*vip, source);
            }
        }
        kernel.services.insert(name, service);
    }
    (kernel, held)
}

/// Without nf_tables a replica that asks for its own service is led to the others.
fn balanced_to_others(value: &overlay_lb::State) -> Result<overlay_lb::State, Refusal> {
    if value.arrivals.is_some() {
        return Err(Refusal::new("container", "flows from balancers elsewhere", NO_TABLES));
    }
    let (mut held, own) = (value.clone(), own_addresses(value));
    for name in own_services(value) {
        let service = held.services.get_mut(&name).into_iter();
        service.for_each(|service| service.replicas.retain(|_, replica| !is_one(replica, &own)));
    }
    Ok(held)
}

/// The services that the container is a replica of.
fn own_services(value: &overlay_lb::State) -> Vec<Name> {
    let own = own_addresses(value);
    let is_own = |service: &overlay_lb::Service| service.replicas.values().any(|replica| is_one(replica, &own));
    value.services.iter().filter(|(_, service)| is_own(service)).map(|(name, _)| name.clone()).collect()
}

fn own_addresses(value: &overlay_lb::State) -> BTreeSet<IpAddr> {
    value.sources.values().copied().collect()
}

fn is_one(replica: &overlay_lb::Replica, own: &BTreeSet<IpAddr>) -> bool {
    replica.addresses.iter().any(|address| own.contains(address))
}

const NO_TABLES: &str = "that takes nf_tables, which this kernel has not";

fn of_file(path: &Path, error: io::Error) -> BackendError {
    BackendError::new(ErrorKind::Other, format!("write down {}", path.display())).caused_by(error)
}
