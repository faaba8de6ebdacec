//! Two hosts of namespaces, an underlay between them, and containers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Command;

use overlay_core::{
    DontFragment, Encapsulation, EndpointId, IpFamily, Mac, Mtu, NsKey, Owner, Plan, Shadow, Vni, reconcile,
};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_vxlan::{IpNet, LocalPort, Peer, PortEnd, Sandbox, Segment, State, Vtep};

pub(crate) struct Place {
    pub(crate) key: NsKey,
    pub(crate) namespace: Namespace,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let namespace = Namespace::create().unwrap();
        Self { key: namespace.key(name.parse().unwrap()), namespace }
    }

    fn again(&self) -> Self {
        let (key, namespace) = self.both();
        Self { key, namespace }
    }

    fn both(&self) -> (NsKey, Namespace) {
        (self.key.clone(), self.namespace.try_clone().unwrap())
    }
}

/// Where a container is: on which host, in which of the network's segments.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub(crate) host: usize,
    pub(crate) segment: u8,
}

pub(crate) struct Lab {
    pub(crate) underlay: IpFamily,
    pub(crate) hosts: [Place; 2],
    pub(crate) homes: [Namespace; 2],
    pub(crate) containers: Vec<Place>,
    /// Of the owner; several labs may share hosts and containers.
    network: &'static str,
    /// What is special about the segments of a test.
    pub(crate) shape: fn(&mut Segment),
}

impl Lab {
    pub(crate) fn new(underlay: IpFamily, containers: usize) -> Self {
        let lab = Self {
            underlay,
            hosts: [Place::new("host-0"), Place::new("host-1")],
            homes: [Namespace::create().unwrap(), Namespace::create().unwrap()],
            containers: (0..containers).map(|number| Place::new(&format!("c{number}"))).collect(),
            network: "one",
            shape: |_| {},
        };
        lab.wire();
        lab
    }

    /// Another network between the same hosts for the same containers.
    pub(crate) fn another_network(&self, network: &'static str) -> Self {
        Self {
            underlay: self.underlay,
            hosts: self.hosts.each_ref().map(Place::again),
            homes: [Namespace::create().unwrap(), Namespace::create().unwrap()],
            containers: self.containers.iter().map(Place::again).collect(),
            network,
            shape: self.shape,
        }
    }

    /// A cable between the hosts. Its ends have indices that no device of a sandbox has.
    fn wire(&self) {
        let [here, there] = self.hosts.each_ref().map(|host| &host.namespace);
        let (near, far) = ("index 770 address 02:00:00:00:01:00", "index 771 address 02:00:00:00:01:01");
        let add = format!("ip link add u0 {near} type veth peer name u0 {far} netns {}", path(there));
        judge(here, "sh", &["-c", &add]);
        for (host, namespace) in [here, there].into_iter().enumerate() {
            let (len, options) = if self.underlay == IpFamily::V4 { (24, "") } else { (64, "nodad") };
            let address = format!("ip addr add {}/{len} dev u0 {options}", self.vtep(host));
            judge(namespace, "sh", &["-ec", &format!("ip link set u0 addrgenmode none up; {address}")]);
        }
        for namespace in [here, there] {
            while !judge(namespace, "ip", &["link", "show", "u0"]).contains("state UP") {}
        }
    }

    pub(crate) fn vtep(&self, host: usize) -> IpAddr {
        match self.underlay {
            IpFamily::V4 => Ipv4Addr::new(192, 0, 2, 1 + host as u8).into(),
            IpFamily::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1 + host as u16).into(),
        }
    }

    pub(crate) fn mtu(&self) -> Mtu {
        Encapsulation::vxlan(self.underlay).inner_mtu(Mtu::ETHERNET).unwrap()
    }

    /// What a host should hold with the containers so placed.
    pub(crate) fn wanted(&self, host: usize, placed: &[At]) -> State {
        let mut state = State::default();
        let segments: BTreeSet<_> = placed.iter().map(|at| at.segment).collect();
        for number in segments {
            let vtep = Vtep { dont_fragment: DontFragment::Set, ..Vtep::new(self.vtep(host)) };
            let mut segment = Segment::new(vtep, self.mtu());
            segment.gateways = addresses(number, 1);
            for (container, at) in placed.iter().enumerate().filter(|(_, at)| at.segment == number) {
                let addresses = addresses(number, 10 + container as u8);
                let mac = Mac::from_ipv4(Ipv4Addr::new(10, 0, number, 10 + container as u8));
                if at.host == host {
                    let port = LocalPort { mac, addresses, end: self.end(container) };
                    segment.ports.insert(EndpointId::from_bytes([1 + container as u8; 16]), port);
                } else {
                    let vtep = self.vtep(at.host);
                    segment.peers.insert(mac, Peer { vtep, addresses: addresses.iter().map(IpNet::addr).collect() });
                }
            }
            (self.shape)(&mut segment);
            state.segments.insert(vni(number), segment);
        }
        state
    }

    fn end(&self, container: usize) -> PortEnd {
        self.end_as(container, "eth1")
    }

    pub(crate) fn end_as(&self, container: usize, interface: &str) -> PortEnd {
        PortEnd::Namespace { namespace: self.containers[container].key.clone(), interface: interface.parse().unwrap() }
    }

    /// A backend that knows nothing yet, as a new process has.
    pub(crate) fn open(&self, host: usize) -> Sandbox {
        let owner = Owner::new("vxlan-test".parse().unwrap(), format!("{}-{host}", self.network).parse().unwrap());
        let home = self.homes[host].try_clone().unwrap();
        let mut sandbox = Sandbox::open(&owner, home, self.hosts[host].both()).unwrap();
        for container in &self.containers {
            let (key, namespace) = container.both();
            sandbox.reach(key, namespace).unwrap();
        }
        sandbox
    }

    /// Brings both hosts to where the containers are so placed. What leaves a host leaves it first.
    pub(crate) fn settle(&self, placed: &[At]) -> [Plan; 2] {
        [1, 0].map(|host| reconcile(&mut Shadow::new(self.open(host)), &self.wanted(host, placed)).unwrap())
    }

    pub(crate) fn clear(&self) {
        for host in [0, 1] {
            reconcile(&mut self.open(host), &State::default()).unwrap();
        }
    }

    /// Everything there is in all namespaces, as other tools show it.
    pub(crate) fn whole(&self) -> String {
        let hosts = self.hosts.iter().chain(&self.containers).map(|place| &place.namespace);
        hosts.chain(&self.homes).map(whole).collect()
    }

    /// The namespaces as another process can open them while this one lives, in the order that [`adopt`](Self::adopt) takes.
    pub(crate) fn paths(&self) -> String {
        let places = self.hosts.iter().chain(&self.containers).map(|place| &place.namespace);
        let all: Vec<_> = self.homes.iter().chain(places).map(path).collect();
        all.join(" ")
    }

    /// The same lab in another process.
    pub(crate) fn adopt(underlay: IpFamily, paths: &str) -> Self {
        let mut opened = paths.split(' ').map(|path| Namespace::open(path).unwrap());
        let homes = [opened.next().unwrap(), opened.next().unwrap()];
        let mut place = |name: &str| {
            let namespace = opened.next()?;
            Some(Place { key: namespace.key(name.parse().unwrap()), namespace })
        };
        let hosts = [place("host-0").unwrap(), place("host-1").unwrap()];
        let containers = (0..).map_while(|number| place(&format!("c{number}"))).collect();
        Self { underlay, hosts, homes, containers, network: "one", shape: |_| {} }
    }

    /// Pings from a container to another's addresses; says what share of the packets was lost, for each family.
    pub(crate) fn lost(&self, from: usize, to: usize, segment: u8) -> [String; 2] {
        let mut targets = addresses(segment, 10 + to as u8).into_iter();
        [(); 2].map(|()| lost(&self.ping(from, targets.next().unwrap().addr(), &["-c", "20", "-i", "0.01"])))
    }

    pub(crate) fn ping(&self, from: usize, to: IpAddr, options: &[&str]) -> String {
        self.ping_text(from, &to.to_string(), options)
    }

    pub(crate) fn ping_text(&self, from: usize, to: &str, options: &[&str]) -> String {
        let arguments = [&["-n", "-W", "2"], options, &[to]].concat();
        let answer = self.containers[from].namespace.run(|| Command::new("ping").args(arguments).output());
        let answer = answer.unwrap().unwrap();
        String::from_utf8_lossy(&answer.stdout).into_owned() + &String::from_utf8_lossy(&answer.stderr)
    }
}

fn path(namespace: &Namespace) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd())
}

pub(crate) fn vni(segment: u8) -> Vni {
    Vni::new(4096 + u32::from(segment)).unwrap()
}

pub(crate) fn addresses(segment: u8, host: u8) -> BTreeSet<IpNet> {
    let texts = [format!("10.0.{segment}.{host}/24"), format!("fd00:{segment}::{host}/64")];
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn lost(answer: &str) -> String {
    let line = answer.lines().find(|line| line.contains("packet loss"));
    line.and_then(|line| line.split(", ").find(|part| part.contains("packet loss"))).unwrap_or(answer).to_owned()
}

pub(crate) fn whole(namespace: &Namespace) -> String {
    let questions: [(&str, &[&str]); 8] = [
        ("ip", &["link"]),
        ("ip", &["addr"]),
        ("ip", &["route", "show", "table", "all"]),
        ("ip", &["-6", "route", "show", "table", "all"]),
        ("ip", &["rule"]),
        ("ip", &["neigh", "show", "nud", "permanent"]),
        ("bridge", &["fdb"]),
        ("sh", &["-c", "cat /proc/sys/net/ipv6/conf/all/forwarding"]),
    ];
    let text: String = questions.iter().map(|(tool, arguments)| judge(namespace, tool, arguments)).collect();
    // Times, who listens to what, and routes that the kernel makes of an IPv6 address when a work queue gets to it.
    let passing = ["_lft", "fe80:", "33:33:", "01:00:5e:", "multicast ff00::/8", "proto kernel"];
    text.lines()
        .filter(|line| !passing.iter().any(|passing| line.contains(passing)))
        .map(|line| format!("{line}\n"))
        .collect()
}
