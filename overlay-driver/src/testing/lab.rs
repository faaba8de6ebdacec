//! Hosts, containers, and the cables between the hosts.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_core::{BackendError, ErrorKind, IfName, Mac, Mtu, Name, NsKey, Owner, ReconcileError, reconcile};
use overlay_kernel::link::{self, BridgePort, Dev, Kind, Link, Links, Route, RouteKey};
use overlay_kernel::{Namespace, NamespaceDir, Sysctl};

use crate::Source;

/// Hosts on one wire: a namespace for each, with `eth0` to a bridge in a namespace of its own. One more machine on the wire plays the
/// [outside](Self::outside): the hosts' default routes lead there, and they forward packets. All goes with this value; named containers and what
/// drivers make are in [`dir`](Self::dir).
///
/// Needs root, or the process to be in a [private world](overlay_kernel::enter_private).
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<(NsKey, Namespace)>,
    outside: (NsKey, Namespace),
    wire: Links,
    cut: BTreeSet<usize>,
    mtu: Mtu,
    dir: PathBuf,
    containers: NamespaceDir,
}

/// A namespace that plays a container.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub namespace: Namespace,
    /// How a driver finds it.
    pub source: Source,
}

/// What a lab could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// With namespaces.
    #[error(transparent)]
    Namespace(#[from] BackendError),
    /// With cables.
    #[error(transparent)]
    Wire(#[from] ReconcileError),
    /// With its directory.
    #[error("the lab's directory")]
    Dir(#[from] io::Error),
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] overlay_core::NameError),
    /// An interface's name that is none.
    #[error(transparent)]
    Interface(#[from] overlay_core::IfNameError),
}

impl Lab {
    /// So many hosts, up to 200, whose packets on the wire may have 1,500 bytes. `dir` is made if it is not there.
    ///
    /// # Errors
    /// Without the privilege to make namespaces.
    pub fn new(hosts: usize, dir: impl Into<PathBuf>) -> Result<Self, LabError> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir)?;
        let owner = Owner::new("lab".parse()?, "wire".parse()?);
        let mut wire = Links::open(&owner, Namespace::create()?)?;
        let mut machine = |name: String| -> Result<(NsKey, Namespace), LabError> {
            let namespace = Namespace::create()?;
            link::raise_loopback(&namespace)?;
            let key = namespace.key(name.parse()?);
            wire.reach(key.clone(), namespace.try_clone()?)?;
            Ok((key, namespace))
        };
        let outside = machine("outside".to_owned())?;
        let all =
            (1..=hosts.min(200)).map(|number| machine(format!("host-{number}"))).collect::<Result<Vec<_>, _>>()?;
        all.iter().try_for_each(|(_, host)| forward(host))?;
        let containers = NamespaceDir::new(dir.join("containers"));
        let mut lab = Self { hosts: all, outside, wire, cut: BTreeSet::new(), mtu: Mtu::ETHERNET, dir, containers };
        lab.lay()?;
        Ok(lab)
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// A host's namespace.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn host(&self, number: usize) -> &Namespace {
        &self.hosts[number].1
    }

    /// A host's address on the wire: 192.0.2.1 the first's (RFC 5737).
    pub fn address(&self, number: usize) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, 1 + number as u8).into()
    }

    /// The machine outside: nobody's host, and no container's.
    pub const fn outside(&self) -> &Namespace {
        &self.outside.1
    }

    /// Its addresses.
    pub const fn outside_addresses() -> [IpAddr; 2] {
        [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)), IpAddr::V6(v6(254))]
    }

    /// A directory of a host's own.
    pub fn dir(&self, number: usize) -> PathBuf {
        self.dir.join(format!("host-{}", number + 1))
    }

    /// The lab's directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Makes a container, which has nothing but a loopback device that is down.
    ///
    /// # Errors
    /// If there is one of this name.
    pub fn container(&self, name: &str) -> Result<Container, LabError> {
        let name: Name = name.parse()?;
        let namespace = self.containers.create(&name)?;
        let source = Source::Path(self.containers.path(&name));
        Ok(Container { name, namespace, source })
    }

    /// Ends a container. What holds its namespace still keeps it alive.
    ///
    /// # Errors
    /// If its name cannot be taken away.
    pub fn end(&self, name: &Name) -> Result<(), LabError> {
        Ok(self.containers.remove(name)?)
    }

    /// Cuts a host's cable: its interface stays up, as with a switch that fails.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn cut(&mut self, number: usize) -> Result<(), LabError> {
        self.cut.insert(number);
        self.lay()
    }

    /// Mends a host's cable.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn mend(&mut self, number: usize) -> Result<(), LabError> {
        self.cut.remove(&number);
        self.lay()
    }

    fn lay(&mut self) -> Result<(), LabError> {
        let mut wanted = link::State::default();
        let bridge: IfName = "wire".parse()?;
        let switch = Link::new(Kind::Bridge { multicast_snooping: false }, self.mtu, mac(1, 0));
        wanted.links.insert(Dev::home(bridge), switch);
        for (number, (key, _)) in self.hosts.iter().enumerate() {
            let number = number as u8 + 1;
            self.connect(&mut wanted, key, number)?;
            for via in Self::outside_addresses() {
                let everywhere = match via {
                    IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
                    IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
                };
                let site = link::Site::far(key.clone());
                let key = RouteKey { site, table: link::MAIN_TABLE, destination: everywhere, metric: 1024 };
                let route = Route::Via { device: "eth0".parse()?, gateway: Some(via), source: None, onlink: false };
                wanted.routes.insert(key, route);
            }
        }
        self.connect(&mut wanted, &self.outside.0, 254)?;
        reconcile(&mut self.wire, &wanted)?;
        Ok(())
    }

    /// A machine's cable, and its addresses.
    fn connect(&self, wanted: &mut link::State, key: &NsKey, number: u8) -> Result<(), LabError> {
        let (near, far) = (Dev::home(format!("port-{number}").parse()?), Dev::far(key.clone(), "eth0".parse()?));
        let pair = |peer: &Dev, kind| Link::new(Kind::Veth { peer: peer.clone() }, self.mtu, mac(kind, number));
        let port = pair(&far, 2);
        let is_cut = self.cut.contains(&(usize::from(number) - 1));
        let port = if is_cut { port } else { port.on_bridge(BridgePort::new("wire".parse()?)) };
        let v4 = Ipv4Net::new(Ipv4Addr::new(192, 0, 2, number), 24).map(IpNet::V4);
        let v6 = Ipv6Net::new(v6(number), 64).map(IpNet::V6);
        wanted.put_addresses(&far, mac(3, number), &[v4, v6].into_iter().flatten().collect());
        wanted.links.insert(far.clone(), Link { ipv4_forwarding: true, ..pair(&near, 3) });
        wanted.links.insert(near, port);
        Ok(())
    }
}

const fn mac(kind: u8, number: u8) -> Mac {
    Mac::new([2, 0, 0, kind, 0, number])
}

/// Of the documentation's prefix (RFC 3849).
const fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16)
}

/// Makes a router of a host, as those of containers are.
fn forward(host: &Namespace) -> Result<(), BackendError> {
    for family in ["ipv4", "ipv6"] {
        let switch = Sysctl::new(["net", family, "conf", "all", "forwarding"])?;
        match host.run(|| switch.set("1"))? {
            Err(error) if error.kind() == ErrorKind::Gone => {} // a kernel without IPv6
            set => set?,
        }
    }
    Ok(())
}

impl Drop for Lab {
    /// Takes the names of containers away, which keep namespaces alive, and the directory.
    fn drop(&mut self) {
        for name in self.containers.names().unwrap_or_default() {
            let _ = self.containers.remove(&name);
        }
        // What a driver that was killed has left there.
        for host in 0..self.hosts.len() {
            let networks = NamespaceDir::new(self.dir(host).join("networks"));
            for name in networks.names().unwrap_or_default() {
                let _ = networks.remove(&name);
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
