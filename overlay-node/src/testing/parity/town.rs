//! Who is there: nodes, networks, services and containers, each with addresses of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_core::{IpFamily, Name, NetworkId, Port, Protocol};
use overlay_ipam::{AddressRange, SubnetRequest};

use crate::{Encryption, EndpointMode, EndpointSpec, NetworkSpec, PublishedPort, ServiceSpec};

/// How many nodes.
pub const NODES: usize = 3;
/// The longest packet of a network in the clear: what an underlay of 1,500 bytes leaves.
pub const MTU: u32 = 1_450;
/// Where the service `shop` is reached from outside, by TCP.
pub const PUBLISHED: u16 = 8_000;

/// Who asks from outside, as those see him who are asked.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254));

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    /// Its name.
    pub name: &'static str,
    /// What its subnets are made of.
    pub number: u8,
    /// See [`NetworkSpec::internal`].
    pub internal: bool,
    /// See [`NetworkSpec::encryption`].
    pub encryption: Encryption,
}

const fn net(name: &'static str, number: u8) -> Net {
    Net { name, number, internal: false, encryption: Encryption::None }
}

/// All networks.
pub const NETWORKS: [Net; 4] = [
    net("front", 50),
    net("back", 51),
    Net { internal: true, ..net("vault", 52) },
    Net { encryption: Encryption::Shared, ..net("secret", 53) },
];

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Its name.
    pub name: &'static str,
    /// Its network.
    pub network: &'static str,
    /// What its name stands for.
    pub mode: EndpointMode,
    /// Whether it has [`PUBLISHED`].
    pub published: bool,
}

const fn served(name: &'static str, network: &'static str) -> Served {
    Served { name, network, mode: EndpointMode::Vip, published: false }
}

/// All services. Those that are published are for who is reached from outside.
pub const SERVICES: [Served; 4] = [
    served("web", "front"),
    served("api", "back"),
    Served { mode: EndpointMode::RoundRobin, ..served("rr", "front") },
    Served { published: true, ..served("shop", "front") },
];

/// A container, and where it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// Its name.
    pub name: &'static str,
    /// What its addresses end with.
    pub number: u8,
    /// Its node.
    pub node: usize,
    /// Its networks.
    pub on: &'static [&'static str],
    /// What it serves.
    pub service: Option<&'static str>,
    /// Whether it is not there at first.
    pub later: bool,
}

const fn at(node: usize, name: &'static str, number: u8, on: &'static [&'static str]) -> Home {
    Home { name, number, node, on, service: None, later: false }
}

const fn serves(service: &'static str, home: Home) -> Home {
    Home { service: Some(service), ..home }
}

/// All containers.
pub const CONTAINERS: [Home; 17] = [
    at(0, "a", 101, &["front"]),
    at(1, "b", 102, &["front"]),
    at(0, "c", 103, &["front"]),
    Home { later: true, ..at(2, "d", 104, &["front"]) },
    at(2, "g", 105, &["front", "back"]),
    at(0, "x", 111, &["back"]),
    at(1, "y", 112, &["back"]),
    at(0, "v", 121, &["vault"]),
    at(1, "w", 122, &["vault"]),
    at(0, "s", 131, &["secret"]),
    at(1, "t", 132, &["secret"]),
    serves("web", at(1, "web-1", 141, &["front"])),
    serves("web", at(2, "web-2", 142, &["front"])),
    serves("api", at(0, "api-1", 151, &["back"])),
    serves("rr", at(0, "rr-1", 161, &["front"])),
    serves("rr", at(1, "rr-2", 162, &["front"])),
    serves("shop", at(1, "shop-1", 171, &["front"])),
];

/// The container of a name.
///
/// # Panics
/// If there is none.
#[expect(clippy::expect_used, reason = "the names are fixed")]
pub fn home(name: &str) -> &'static Home {
    CONTAINERS.iter().find(|home| home.name == name).expect("a container of the town")
}

/// The address that a container has on a network, and by which others there see it.
///
/// # Panics
/// If there is no such container or network.
pub fn seen_as(container: &str, network: &str, family: IpFamily) -> IpAddr {
    Net::of(network).address(home(container).number, family)
}

impl Net {
    /// The network of a name.
    ///
    /// # Panics
    /// If there is none.
    #[expect(clippy::expect_used, reason = "the names are fixed")]
    pub fn of(name: &str) -> &'static Self {
        NETWORKS.iter().find(|net| net.name == name).expect("a network of the town")
    }

    fn address(&self, number: u8, family: IpFamily) -> IpAddr {
        match family {
            IpFamily::V4 => Ipv4Addr::new(10, self.number, 0, number).into(),
            IpFamily::V6 => Ipv6Addr::new(0xfd00 + u16::from(self.number), 0, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// What a manager is told of it: subnets of both families, whose VIPs are none of the containers' addresses.
    ///
    /// # Panics
    /// Never.
    #[expect(clippy::expect_used, reason = "the texts are fixed")]
    pub fn spec(&self) -> NetworkSpec {
        let subnet = |family: IpFamily| {
            let length = if family == IpFamily::V4 { 24 } else { 64 };
            let net = format!("{}/{length}", self.address(0, family)).parse().expect("a subnet");
            let vips = AddressRange::new(self.address(200, family), self.address(250, family)).ok();
            SubnetRequest { vips, ..SubnetRequest::this(net) }
        };
        NetworkSpec {
            attachable: true,
            internal: self.internal,
            encryption: self.encryption,
            subnets: [IpFamily::V4, IpFamily::V6].map(subnet).into(),
            ..NetworkSpec::overlay(name(self.name))
        }
    }
}

impl Served {
    /// What a manager is told of it.
    ///
    /// # Panics
    /// Never.
    pub fn spec(&self, network: NetworkId, target: Port) -> ServiceSpec {
        let published = Port::new(PUBLISHED).ok();
        let port = || PublishedPort { published, ..PublishedPort::new(Protocol::Tcp, target) };
        let ports = self.published.then(port).into_iter().collect();
        ServiceSpec { mode: self.mode, ports, ..ServiceSpec::new(name(self.name), [network]) }
    }
}

impl Home {
    /// Its addresses on a network.
    ///
    /// # Panics
    /// If there is no such network.
    pub fn addresses(&self, network: &str) -> [IpAddr; 2] {
        [IpFamily::V4, IpFamily::V6].map(|family| Net::of(network).address(self.number, family))
    }

    /// What a manager is told of one of its endpoints; the node is to be put in.
    ///
    /// # Panics
    /// If there is no such network.
    pub fn endpoint(&self, network: &str, spec: EndpointSpec) -> EndpointSpec {
        EndpointSpec { addresses: self.addresses(network).into(), ..spec }
    }
}

#[expect(clippy::expect_used, reason = "the names are fixed")]
fn name(text: &str) -> Name {
    text.parse().expect("a name")
}
