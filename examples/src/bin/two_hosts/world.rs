//! Hosts, containers, and the cable between the hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_core::{DontFragment, Encapsulation, EndpointId, IpFamily, Mac, Mtu, NsKey, Owner, Vni, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::link::{self, Dev, Kind, Link, Links};
use overlay_vxlan::{IpNet, LocalPort, Peer, PortEnd, Sandbox, Segment, State, Vtep};

use crate::Outcome;

pub(crate) const CONTAINERS: [&str; 2] = ["web", "db"];

pub(crate) struct World {
    pub(crate) underlay: IpFamily,
    hosts: [Namespace; 2],
    sandboxes: [Namespace; 2],
    containers: [Namespace; 2],
}

impl World {
    pub(crate) fn new(underlay: IpFamily) -> Outcome<Self> {
        let pair = || Ok::<_, overlay_core::BackendError>([Namespace::create()?, Namespace::create()?]);
        let world = Self { underlay, hosts: pair()?, sandboxes: pair()?, containers: pair()? };
        world.wire()?;
        Ok(world)
    }

    pub(crate) const fn host(&self, host: usize) -> &Namespace {
        &self.hosts[host]
    }

    pub(crate) const fn container(&self, container: usize) -> &Namespace {
        &self.containers[container]
    }

    /// What somebody else does in real life.
    fn wire(&self) -> Outcome {
        let owner = Owner::new("two-hosts".parse()?, "cable".parse()?);
        let mut links = Links::open(&owner, self.hosts[0].try_clone()?)?;
        let (key, there) = self.host_key(1)?;
        links.reach(key.clone(), there)?;
        let ends = [Dev::home("eth0".parse()?), Dev::far(key, "eth0".parse()?)];
        let mut wanted = link::State::default();
        for (host, end) in ends.iter().enumerate() {
            let kind = Kind::Veth { peer: ends[1 - host].clone() };
            let mac = Mac::new([2, 0, 0, 0, 1, host as u8 + 1]);
            wanted.links.insert(end.clone(), Link::new(kind, Mtu::ETHERNET, mac));
            wanted.addresses.insert((end.clone(), self.vtep(host)), if self.vtep(host).is_ipv4() { 24 } else { 64 });
        }
        reconcile(&mut links, &wanted)?;
        Ok(())
    }

    pub(crate) fn vtep(&self, host: usize) -> IpAddr {
        match self.underlay {
            IpFamily::V4 => Ipv4Addr::new(192, 0, 2, 1 + host as u8).into(),
            IpFamily::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1 + host as u16).into(),
        }
    }

    pub(crate) fn mtu(&self) -> Outcome<Mtu> {
        Ok(Encapsulation::vxlan(self.underlay).inner_mtu(Mtu::ETHERNET)?)
    }

    pub(crate) fn topology(&self) -> Outcome<String> {
        let [[web, web6], [db, db6]] = [addresses(0)?, addresses(1)?];
        let ([a, b], mtu) = ([self.vtep(0), self.vtep(1)], self.mtu()?);
        Ok(format!(
            "web {web} {web6}\n  | eth1, mtu {mtu}\nsandbox 1: br-4096 with vx-4096\n  | VXLAN 4096\nhost 1: {a}\n  | eth0, mtu 1500\n\
             host 2: {b}\n  | VXLAN 4096\nsandbox 2: br-4096 with vx-4096\n  | eth1, mtu {mtu}\ndb  {db} {db6}\n"
        ))
    }

    /// What a host should hold with the containers on these hosts.
    pub(crate) fn wanted(&self, host: usize, placed: &[usize; 2]) -> Outcome<State> {
        let vtep = Vtep { dont_fragment: DontFragment::Set, ..Vtep::new(self.vtep(host)) };
        let mut segment = Segment::new(vtep, self.mtu()?);
        segment.gateways = ["10.0.9.1/24".parse()?, "fd00:9::1/64".parse()?].into();
        for (container, at) in placed.iter().enumerate() {
            let mac = Mac::from_ipv4(Ipv4Addr::new(10, 0, 9, 2 + container as u8));
            let addresses = addresses(container)?;
            if *at == host {
                let (namespace, _) = self.container_key(container)?;
                let end = PortEnd::Namespace { namespace, interface: "eth1".parse()? };
                let id = EndpointId::from_bytes([37 * (1 + container as u8); 16]);
                segment.ports.insert(id, LocalPort { mac, addresses: addresses.into(), end });
            } else {
                let addresses = addresses.iter().map(IpNet::addr).collect();
                segment.peers.insert(mac, Peer { vtep: self.vtep(*at), addresses });
            }
        }
        Ok(State { segments: [(Vni::new(4096)?, segment)].into() })
    }

    /// The backend of a host, as a new process opens it.
    pub(crate) fn open(&self, host: usize) -> Outcome<Sandbox> {
        let owner = Owner::new("two-hosts".parse()?, format!("host-{}", host + 1).parse()?);
        let mut sandbox = Sandbox::open(&owner, self.sandboxes[host].try_clone()?, self.host_key(host)?)?;
        for container in [0, 1] {
            let (key, namespace) = self.container_key(container)?;
            sandbox.reach(key, namespace)?;
        }
        Ok(sandbox)
    }

    fn host_key(&self, host: usize) -> Outcome<(NsKey, Namespace)> {
        let namespace = self.hosts[host].try_clone()?;
        Ok((namespace.key(format!("host-{}", host + 1).parse()?), namespace))
    }

    fn container_key(&self, container: usize) -> Outcome<(NsKey, Namespace)> {
        let namespace = self.containers[container].try_clone()?;
        Ok((namespace.key(CONTAINERS[container].parse()?), namespace))
    }

    /// Whether sandboxes and containers have no device but the loopback, and hosts the cable besides.
    pub(crate) fn is_bare(&self) -> Outcome<bool> {
        let others = self.sandboxes.iter().chain(&self.containers).map(|namespace| (namespace, 1));
        for (namespace, devices) in self.hosts.iter().map(|namespace| (namespace, 2)).chain(others) {
            let table = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
            if table.lines().filter(|line| line.contains(':')).count() != devices {
                println!("left over:\n{table}");
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(crate) fn addresses(container: usize) -> Outcome<[IpNet; 2]> {
    let number = container + 2;
    Ok([format!("10.0.9.{number}/24").parse()?, format!("fd00:9::{number}/64").parse()?])
}
