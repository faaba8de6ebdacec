//! Places in the Linux kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overlay_core::{
    Backend, BackendError, ErrorKind, IfName, Name, NetworkId, NodeId, NsKey, Owner, Shadow, Table, reconcile, told,
};
use overlay_crypto::{SaId, Usage};
use overlay_dns::Listen;
use overlay_firewall::Firewall;
use overlay_kernel::link::{Tap, devices, raise_loopback};
use overlay_kernel::netlink::Notices;
use overlay_kernel::nft::Writers;
use overlay_kernel::{Namespace, NamespaceDir};
use overlay_lb::kernel::Nftables;
use overlay_link::{ContainerRoutes, LocalNetworks, Routes};
use overlay_node::{Break, Place, PlaceState, PlaceTables, Places};
use overlay_vxlan::Sandbox;

use super::flows::ContainerFlows;
use super::macvlans::Macvlans;
use super::nothing::{Lacking, Nothing};
use super::published::{self, Hindrances};
use super::reaching::Reaching;
use super::seldom::Seldom;
use super::services::Services;
use super::tunnels::{self, Spent};
use super::{FlowMeter, Ground};
use crate::Source;

/// A node's places in this machine's kernel: the host's namespace, a named namespace for each network's sandbox, and the containers'
/// own.
///
/// All it makes carries the mark of its node (KERNEL.md). Sandboxes outlive the process: a driver that starts again finds them. It
/// needs `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`, over containers' namespaces too.
#[derive(Debug, Clone)]
pub struct KernelPlaces {
    pub(super) host: Arc<Namespace>,
    cluster: Name,
    node: NodeId,
    pub(super) sandboxes: NamespaceDir,
    /// Namespaces of containers that were handed over.
    kept: NamespaceDir,
    pub(super) containers: Arc<Containers>,
    pub(super) taps: Tap,
    /// Whether the host's tunnels need other keys.
    pub(super) spent: Spent,
}

impl KernelPlaces {
    /// The places of a node whose host is the namespace `host`, with the sandboxes' names in a directory below `dir`, which is this
    /// node's alone and should be on a file system that is empty after a restart of the machine, below `/run` say.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] if `host` may not be entered.
    pub fn new(cluster: Name, node: NodeId, host: Namespace, dir: &Path) -> Result<Self, BackendError> {
        host.run(|| ()).map_err(privileged)?;
        let (sandboxes, kept) = (NamespaceDir::new(dir.join("networks")), NamespaceDir::new(dir.join("containers")));
        let (host, taps) = (Arc::new(host), Tap::new());
        let containers = Arc::new(Containers::beside(Arc::clone(&host)));
        let spent = Spent::default();
        Ok(Self { host, cluster, node, sandboxes, kept, containers, taps, spent })
    }

    /// The same with virtual machines' taps that are like this: for a monitor that has no privilege, say. Root's, of one queue,
    /// otherwise.
    #[must_use]
    pub fn with_taps(self, taps: Tap) -> Self {
        Self { taps, ..self }
    }

    /// Takes a container's namespace that somebody hands over as an open file, a runtime say, and gives it a name of ours, so that it is found
    /// again after a restart: that is the container's source. It is let go when nothing of the container is plugged in any more; until
    /// then it lives, whether the container does or not.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if it is no namespace's file, [`ErrorKind::Conflict`] if another of this name is kept.
    pub fn keep(&self, container: &Name, file: OwnedFd) -> Result<Source, BackendError> {
        let namespace = Namespace::from_fd(file)?;
        match self.kept.open(container) {
            Ok(kept) if kept.id() == namespace.id() => {}
            _ => self.kept.keep(container, &namespace)?,
        }
        Ok(Source::Path(self.kept.path(container)))
    }

    /// The file of a network's sandbox, for `nsenter` and `ip netns`.
    pub fn sandbox(&self, network: NetworkId) -> Option<PathBuf> {
        sandbox_name(network).map(|name| self.sandboxes.path(&name))
    }

    /// Each network needs an owner of its own: two sandboxes may reach into one container.
    pub(super) fn owner(&self, of: Option<NetworkId>) -> Result<Owner, BackendError> {
        self.instance(&match of {
            Some(network) => format!("{}-{}", self.node.short(), network.short()),
            None => self.node.short().to_string(),
        })
    }

    fn instance(&self, name: &str) -> Result<Owner, BackendError> {
        let instance = name.parse().map_err(|error| failed_name("name an owner", error))?;
        Ok(Owner::new(self.cluster.clone(), instance))
    }

    fn open_host(&self) -> Result<PlaceTables, BackendError> {
        let (owner, writers) = (self.owner(None)?, Writers::default()); // the firewall and the balancer have tables beside one another
        let firewall = Firewall::of_host(&owner, self.host.try_clone()?)?.among(&writers);
        let crypto = tunnels::open(&owner, self.host.try_clone()?, self.spent.clone())?;
        self.open_host_with(crypto, Box::new(Shadow::new(firewall)), &writers)
    }

    /// The host's tables, where tunnels and the firewall are held by these.
    pub(super) fn open_host_with(
        &self,
        crypto: Box<dyn Table<overlay_crypto::State>>,
        firewall: Box<dyn Table<overlay_firewall::State>>,
        writers: &Writers,
    ) -> Result<PlaceTables, BackendError> {
        let (owner, host) = (self.owner(None)?, self.host.try_clone()?);
        let lb = self.published(&host, writers)?;
        let link = LocalNetworks::open(&owner, host)?.with_taps(self.taps);
        Ok(PlaceTables {
            crypto,
            link: Box::new(Reaching::new(link, Arc::clone(&self.containers))),
            vxlan: Box::new(Nothing::because(SEGMENTS)),
            firewall,
            lb,
            routes: Box::new(Nothing::because("a host's routes are its own")),
        })
    }

    fn open_network(&self, network: NetworkId) -> Result<PlaceTables, BackendError> {
        let (owner, home) = (self.owner(Some(network))?, self.open_sandbox(network)?);
        let firewall = Firewall::of_sandbox(&owner, home.try_clone()?)?;
        let key = self.host.key(name("host")?);
        let sandbox = Sandbox::open(&owner, home, (key, self.host.try_clone()?))?.with_taps(self.taps);
        Ok(PlaceTables {
            crypto: Box::new(Nothing::because(TUNNELS)),
            link: Box::new(Nothing::because(LINKS)),
            vxlan: Box::new(Reaching::new(sandbox, Arc::clone(&self.containers))),
            firewall: Box::new(Shadow::new(firewall)),
            lb: Box::new(Nothing::because(SERVICES)),
            routes: Box::new(Nothing::because("a sandbox leads nowhere else")),
        })
    }

    pub(super) fn open_sandbox(&self, network: NetworkId) -> Result<Namespace, BackendError> {
        let name = sandbox_name(network).ok_or_else(|| BackendError::new(ErrorKind::Invalid, "name a sandbox"))?;
        match self.sandboxes.open(&name) {
            Err(error) if error.kind() == ErrorKind::Gone => self.sandboxes.create(&name),
            opened => opened,
        }
    }

    fn open_container(&self, container: &Name) -> Result<PlaceTables, BackendError> {
        self.open_container_with(container, |namespace, writers| {
            Ok(Box::new(self.services((container, namespace), writers)?))
        })
    }

    /// A container's tables, where its services are held by what `services` opens in its namespace.
    pub(super) fn open_container_with(
        &self,
        container: &Name,
        services: impl FnOnce(Arc<Namespace>, Writers) -> Result<Box<dyn Table<overlay_lb::State>>, BackendError>,
    ) -> Result<PlaceTables, BackendError> {
        const GONE: &str = "the container has ended";
        let crypto = Box::new(Nothing::because(TUNNELS));
        let vxlan = Box::new(Nothing::because(SEGMENTS));
        let Some(namespace) = self.containers.take_in(container, |old| self.clear(container, old))? else {
            let [link, firewall, routes] = [(); 3].map(|()| Box::new(Nothing::because(GONE)));
            return Ok(PlaceTables { crypto, link, vxlan, firewall, lb: Box::new(Nothing::because(GONE)), routes });
        };
        let link = Box::new(self.macvlans(container, Arc::clone(&namespace))?);
        raise_loopback(&namespace)?;
        let writers = Writers::default();
        let firewall: Box<dyn Table<overlay_firewall::State>> =
            match Firewall::of_host(&self.owner(None)?, namespace.try_clone()?) {
                Ok(firewall) => Box::new(Shadow::new(firewall.among(&writers))),
                Err(error) if error.kind() == ErrorKind::Unsupported => Box::new(Lacking(error.to_string())),
                Err(error) => return Err(error),
            };
        let lb = services(Arc::clone(&namespace), writers)?;
        let routes = Box::new(Shadow::new(ContainerRoutes::open(namespace.try_clone()?)?));
        Ok(PlaceTables { crypto, link, vxlan, firewall, lb, routes })
    }

    /// What balances the node's published ports.
    fn published(
        &self,
        host: &Namespace,
        writers: &Writers,
    ) -> Result<Box<dyn Table<overlay_lb::State>>, BackendError> {
        Ok(match Nftables::open(&self.owner(None)?, host.try_clone()?) {
            Ok(services) => Box::new(Shadow::new(services.among(writers))),
            Err(error) if error.kind() == ErrorKind::Unsupported => Box::new(Nothing::because(NO_TABLES)),
            Err(error) => return Err(error),
        })
    }

    fn services(
        &self,
        (container, namespace): (&Name, Arc<Namespace>),
        writers: Writers,
    ) -> Result<Seldom<Services>, BackendError> {
        let (owner, containers) = (self.owner(None)?, Arc::clone(&self.containers));
        Ok(Seldom::new(Services { owner, container: (container.clone(), namespace), writers, containers }))
    }

    fn macvlans(&self, container: &Name, namespace: Arc<Namespace>) -> Result<Seldom<Macvlans>, BackendError> {
        let tag = Owner::new(self.cluster.clone(), container.clone()).tag();
        let owner = self.instance(&format!("{}-{tag:016x}", self.node.short()))?;
        let (host, container) = (Arc::clone(&self.host), (container.clone(), namespace));
        Ok(Seldom::new(Macvlans { owner, host, container }))
    }

    /// Takes what is ours from a namespace that the container has left. If that fails it is because the namespace is gone too.
    fn clear(&self, container: &Name, namespace: &Arc<Namespace>) {
        let cleared = || -> Result<(), Box<dyn std::error::Error>> {
            self.macvlans(container, Arc::clone(namespace))?.clear()?;
            let mut firewall = Firewall::of_host(&self.owner(None)?, namespace.try_clone()?)?;
            reconcile(&mut firewall, &overlay_firewall::State::default())?;
            self.services((container, Arc::clone(namespace)), Writers::default())?.clear()?;
            reconcile(&mut ContainerRoutes::open(namespace.try_clone()?)?, &Routes::default())?;
            Ok(())
        };
        drop(cleared());
    }

    fn namespace_of(&self, place: &Place) -> Result<Option<Namespace>, BackendError> {
        match place {
            Place::Host => self.host.try_clone().map(Some),
            Place::Network(network) => match sandbox_name(*network).map(|name| self.sandboxes.open(&name)) {
                Some(Ok(namespace)) => Ok(Some(namespace)),
                Some(Err(error)) if error.kind() != ErrorKind::Gone => Err(error),
                _ => Ok(None),
            },
            Place::Container(container) => {
                self.containers.current(container).map(|namespace| namespace.try_clone()).transpose()
            }
        }
    }
}

impl Places for KernelPlaces {
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError> {
        match place {
            Place::Host => self.open_host(),
            Place::Network(network) => self.open_network(*network),
            Place::Container(container) => self.open_container(container),
        }
    }

    /// Where the host's kernel has ESP. It is asked, and loads what it has of it as modules.
    fn protects(&self) -> Result<(), String> {
        let there = self.owner(None).and_then(|owner| Ok((owner, self.host.try_clone()?)));
        let (owner, host) = there.map_err(|error| told(&error))?;
        tunnels::are_protected(&owner, host)
    }

    fn close(&mut self, place: &Place) -> Result<(), BackendError> {
        match place {
            Place::Host => Ok(()),
            Place::Network(network) => sandbox_name(*network).map_or(Ok(()), |name| self.sandboxes.remove(&name)),
            Place::Container(_) => Ok(()), // not ours to close; it is left once nothing of it is plugged in
        }
    }

    /// The sandboxes that are there, the containers that were entered, and the host if it holds something of ours.
    fn list(&mut self) -> Result<Vec<Place>, BackendError> {
        let networks = self.sandboxes.names()?.into_iter().filter_map(|name| name.as_str().parse().ok());
        let mut places: Vec<Place> = networks.map(Place::Network).collect();
        places.extend(self.containers.lock().keys().cloned().map(Place::Container));
        let firewall = Firewall::of_host(&self.owner(None)?, self.host.try_clone()?);
        let held = firewall.and_then(|mut firewall| firewall.observe()).map_err(privileged)?;
        let is_left = !held.tables.tables.is_empty() || tunnels::are_left(&self.owner(None)?, self.host.try_clone()?)?;
        let host = is_left.then_some(Place::Host);
        Ok(host.into_iter().chain(places).collect())
    }
}

impl Ground for KernelPlaces {
    fn host(&self) -> Option<Arc<Namespace>> {
        Some(Arc::clone(&self.host))
    }

    fn enter(&mut self, container: &Name, source: &Source) -> Result<Option<NsKey>, BackendError> {
        let Some(path) = source.path() else { return Ok(None) };
        let namespace = Namespace::open(path)?;
        if namespace.id() == self.host.id() {
            let cause = "it is the host's own; give the container's";
            return Err(BackendError::new(ErrorKind::Invalid, format!("enter {source}")).caused_by(cause));
        }
        namespace.run(|| ())?;
        let key = namespace.key(container.clone());
        self.containers.enter(container, namespace);
        Ok(Some(key))
    }

    fn leave(&mut self, container: &Name) {
        self.containers.lock().remove(container);
        let _ = self.kept.remove(container); // most were never kept; the next that is kept takes a name that stays over
    }

    fn is_there(&self, source: &Source, key: &NsKey) -> bool {
        source.leads_to(key.id)
    }

    fn interfaces(&mut self, container: &Name) -> Result<BTreeSet<IfName>, BackendError> {
        self.containers.current(container).map_or_else(|| Ok(BTreeSet::new()), |namespace| devices(&namespace))
    }

    fn needs_keys(&self) -> bool {
        self.spent.take()
    }

    fn usage(&mut self) -> Result<BTreeMap<SaId, Usage>, BackendError> {
        tunnels::usage(&self.owner(None)?, self.host.try_clone()?)
    }

    fn balancer(&self, place: &Place) -> Option<String> {
        let Place::Container(container) = place else { return None };
        self.containers.lock().get(container)?.balancer.clone()
    }

    fn flows(&mut self, container: &Name, at: BTreeSet<IpAddr>) -> Result<Option<FlowMeter>, BackendError> {
        let Some(namespace) = self.containers.current(container) else { return Ok(None) };
        Ok(Some(Box::new(ContainerFlows::open(&namespace, at)?)))
    }

    fn listen(&mut self, place: &Place, at: &[SocketAddr]) -> Result<Listen, BackendError> {
        let gone = || BackendError::new(ErrorKind::Gone, format!("listen in {place}")).caused_by("it is not there");
        let namespace = self.namespace_of(place)?.ok_or_else(gone)?;
        if matches!(place, Place::Container(_)) {
            raise_loopback(&namespace)?; // it may not have been opened since its runtime made it
        }
        let mut listen = Listen::default();
        for address in at {
            listen.udp.push(namespace.udp(*address)?);
            listen.tcp.push(namespace.listen(*address)?);
        }
        Ok(listen)
    }

    fn obstacles(&mut self, state: &PlaceState) -> Result<Vec<Break>, BackendError> {
        let (owner, host) = (self.owner(None)?, self.host.try_clone()?);
        let of_rules = Firewall::of_host(&owner, host.try_clone()?)?.obstacles(&state.firewall)?;
        let of_rules = of_rules.into_iter().map(|it| Break {
            missing: format!("{} of another program drops {}", it.chain, it.drops),
            repair: it.remedy,
        });
        let of_switches = LocalNetworks::open(&owner, host)?.obstacles(&state.link)?;
        let of_switches = of_switches.into_iter().map(|it| Break { missing: it.what(), repair: it.remedy() });
        Ok(of_rules.chain(of_switches).collect())
    }

    fn hindrances(&mut self, state: &PlaceState) -> Result<Hindrances, BackendError> {
        published::hindrances(&self.host, state)
    }

    fn hints(&mut self, place: &Place) -> Result<Vec<Notices>, BackendError> {
        let entries = matches!(place, Place::Network(_));
        let Some(namespace) = self.namespace_of(place)? else { return Ok(Vec::new()) };
        let mut hints = namespace.hints(entries)?;
        if *place == Place::Host {
            hints.extend(namespace.xfrm_hints()?);
        }
        Ok(hints)
    }
}

pub(super) const LINKS: &str = "local networks are the host's";
pub(super) const SERVICES: &str = "services are balanced in containers and at the host";
const NO_TABLES: &str = "this kernel has no nf_tables, which balance services";
pub(super) const TUNNELS: &str = "tunnels are protected at the host";
const SEGMENTS: &str = "segments are in a network's sandbox";

/// The namespaces of containers, by the containers' names, and the host's.
#[derive(Debug)]
pub(super) struct Containers {
    host: Arc<Namespace>,
    entered: Mutex<BTreeMap<Name, Entered>>,
}

#[derive(Debug)]
struct Entered {
    namespace: Arc<Namespace>,
    /// Those it was in before, in which something of ours may be left.
    left: Vec<Arc<Namespace>>,
    /// What balances services in it, once it was opened.
    balancer: Option<String>,
}

impl Containers {
    pub(super) fn beside(host: Arc<Namespace>) -> Self {
        Self { host, entered: Mutex::default() }
    }

    /// Whether it is the host's, which every sandbox reaches anyway.
    pub(super) fn is_hosts(&self, key: &NsKey) -> bool {
        self.host.id() == key.id
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Entered>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, container: &Name, namespace: Namespace) {
        let mut all = self.lock();
        let namespace = Arc::new(namespace);
        match all.get_mut(container) {
            Some(entered) if entered.namespace.id() == namespace.id() => {}
            Some(entered) => {
                entered.left.retain(|left| left.id() != namespace.id()); // where it is again
                entered.left.push(std::mem::replace(&mut entered.namespace, namespace));
                entered.balancer = None;
            }
            None => drop(all.insert(container.clone(), Entered { namespace, left: Vec::new(), balancer: None })),
        }
    }

    /// What balances services in a container's namespace, if it is still there.
    pub(super) fn balances(&self, container: &Name, namespace: &Namespace, balancer: String) {
        let mut all = self.lock();
        if let Some(entered) = all.get_mut(container).filter(|entered| entered.namespace.id() == namespace.id()) {
            entered.balancer = Some(balancer);
        }
    }

    pub(super) fn current(&self, container: &Name) -> Option<Arc<Namespace>> {
        self.lock().get(container).map(|entered| Arc::clone(&entered.namespace))
    }

    /// All that containers are in, by their keys.
    pub(super) fn all(&self) -> Vec<NsKey> {
        self.lock().iter().map(|(name, entered)| entered.namespace.key(name.clone())).collect()
    }

    /// The namespace of this key, if the container is in it or was.
    pub(super) fn namespace(&self, key: &NsKey) -> Option<Arc<Namespace>> {
        let is = |namespace: &&Arc<Namespace>| namespace.id() == key.id;
        self.lock()
            .get(&key.name)
            .and_then(|entered| [&entered.namespace].into_iter().chain(&entered.left).find(is).map(Arc::clone))
    }

    /// The namespace the container is in, once those it has left are cleared.
    fn take_in(
        &self,
        container: &Name,
        clear: impl Fn(&Arc<Namespace>),
    ) -> Result<Option<Arc<Namespace>>, BackendError> {
        let left: Vec<_> = self.lock().get_mut(container).map(|it| std::mem::take(&mut it.left)).unwrap_or_default();
        left.iter().for_each(clear);
        Ok(self.current(container))
    }
}

/// Says what is missing where a privilege is, and what to do.
fn privileged(error: BackendError) -> BackendError {
    const ADVICE: &str =
        "the host's namespace is changed with CAP_SYS_ADMIN and CAP_NET_ADMIN: be root, or enter a private world first";
    match error.kind() {
        ErrorKind::Permission => error.caused_by(ADVICE),
        _ => error,
    }
}

/// A network's id, in full.
pub(super) fn sandbox_name(network: NetworkId) -> Option<Name> {
    network.to_string().parse().ok()
}

pub(super) fn name(text: &str) -> Result<Name, BackendError> {
    text.parse().map_err(|error| failed_name("name the host", error))
}

fn failed_name(doing: &'static str, error: overlay_core::NameError) -> BackendError {
    BackendError::new(ErrorKind::Invalid, doing).caused_by(error)
}
