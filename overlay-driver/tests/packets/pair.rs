//! Two hosts on a cable, each with a container that has a tap.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay_core::{DontFragment, EndpointId, Mac, Mtu, NetworkId, Owner, Vni, reconcile};
use overlay_datapath::{Sandbox, Tables, Wanted};
use overlay_driver::packets::{Carrier, CarrierConfig};
use overlay_kernel::testing::judge;
use overlay_kernel::{Namespace, QueueFlags, TapQueue};
use overlay_vxlan::{LocalPort, Peer, PortEnd, Segment, Vtep};

pub(crate) const ENDPOINT: EndpointId = EndpointId::from_bytes([7; 16]);
const VNI: u32 = 4096;

/// Two hosts, whose containers are neighbours.
pub(crate) struct Pair {
    pub(crate) hosts: [Namespace; 2],
    homes: [Namespace; 2],
    pub(crate) containers: [Namespace; 2],
    pub(crate) carriers: [Option<Carrier>; 2],
    kernel: [Option<overlay_vxlan::Sandbox>; 2],
}

pub(crate) const fn vtep(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 1 + host as u8)
}

pub(crate) const fn inner(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 9, 2 + host as u8)
}

fn namespace() -> Namespace {
    Namespace::create().unwrap()
}

impl Pair {
    /// With a cable; what the hosts carry packets by comes later.
    pub(crate) fn new() -> Self {
        let pair = || [namespace(), namespace()];
        let it =
            Self { hosts: pair(), homes: pair(), containers: pair(), carriers: [None, None], kernel: [None, None] };
        let other = format!("/proc/{}/fd/{}", std::process::id(), it.hosts[1].as_fd().as_raw_fd());
        judge(&it.hosts[0], "ip", &["link", "add", "u0", "type", "veth", "peer", "name", "u0", "netns", &other]);
        for (host, namespace) in it.hosts.iter().enumerate() {
            let address = format!("{}/24", vtep(host));
            judge(namespace, "ip", &["addr", "add", &address, "dev", "u0"]);
            judge(namespace, "ip", &["link", "set", "u0", "up"]);
        }
        it
    }

    /// Both in user space.
    pub(crate) fn in_user_space() -> Self {
        let mut it = Self::new();
        for host in [0, 1] {
            it.tap(host);
            it.carry(host);
        }
        it
    }

    /// The first in user space, the second by its kernel's VXLAN.
    pub(crate) fn mixed() -> Self {
        let mut it = Self::new();
        it.tap(0);
        it.carry(0);
        it.carry_by_kernel(1);
        // A virtual cable takes inner checksums unfinished, as a device would that finishes them before a wire; who reads them from a socket has them so.
        judge(&it.hosts[1], "ethtool", &["-K", "u0", "tx", "off"]);
        it
    }

    /// Without segmentation on the cable: each packet on it is one.
    pub(crate) fn cut_on_the_cable(&self) {
        for host in &self.hosts {
            judge(
                host,
                "ethtool",
                &["-K", "u0", "tso", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off"],
            );
        }
    }

    /// A tap in a host's container.
    pub(crate) fn tap(&self, host: usize) {
        let (container, mac) = (&self.containers[host], Mac::from_ipv4(inner(host)).to_string());
        let address = format!("{}/24", inner(host));
        judge(container, "ip", &["tuntap", "add", "dev", "eth0", "mode", "tap", "vnet_hdr"]);
        judge(container, "ip", &["link", "set", "eth0", "address", &mac, "mtu", "1450"]);
        judge(container, "ip", &["addr", "add", &address, "dev", "eth0"]);
        judge(container, "ip", &["link", "set", "eth0", "up"]);
        judge(container, "ip", &["link", "set", "lo", "up"]);
    }

    /// Starts a carrier for it, in place of one there was.
    pub(crate) fn carry(&mut self, host: usize) {
        self.carriers[host] = None;
        let socket = once_free(|| self.hosts[host].run(|| UdpSocket::bind((vtep(host), 4789))).unwrap());
        let carrier = Carrier::start(&CarrierConfig::default(), [host as u8; 32], vec![socket]).unwrap();
        carrier.publish(Arc::new(Tables::new(&wanted(host)).unwrap()));
        self.carriers[host] = Some(carrier);
        self.plug(host);
    }

    /// Has its carrier carry its tap.
    pub(crate) fn plug(&self, host: usize) {
        let flags = QueueFlags { vnet_hdr: true, ..QueueFlags::default() };
        let tap = once_free(|| TapQueue::open(&self.containers[host], "eth0".parse().unwrap(), flags));
        self.carriers[host].as_ref().unwrap().plug(ENDPOINT, tap).unwrap();
    }

    fn carry_by_kernel(&mut self, host: usize) {
        let owner = Owner::new("packets".parse().unwrap(), format!("node-{host}").parse().unwrap());
        let underlay = (self.hosts[host].key("host".parse().unwrap()), self.hosts[host].try_clone().unwrap());
        let mut sandbox =
            overlay_vxlan::Sandbox::open(&owner, self.homes[host].try_clone().unwrap(), underlay).unwrap();
        let namespace = self.containers[host].key("container".parse().unwrap());
        sandbox.reach(namespace.clone(), self.containers[host].try_clone().unwrap()).unwrap();
        let end = PortEnd::Namespace { namespace, interface: "eth0".parse().unwrap() };
        let state = overlay_vxlan::State { segments: [(vni(), segment(host, end))].into() };
        reconcile(&mut sandbox, &state).unwrap();
        self.kernel[host] = Some(sandbox);
    }

    /// Whether one reaches the other.
    pub(crate) fn pings(&self, from: usize) -> bool {
        let to = inner(1 - from).to_string();
        let said = self.containers[from]
            .run(|| std::process::Command::new("ping").args(["-n", "-c", "1", "-W", "2", &to]).output().unwrap());
        said.unwrap().status.success()
    }
}

/// A test beside this one may be starting a program, whose process holds whatever this one had open until that is executed.
fn once_free<T, E: std::fmt::Debug>(open: impl Fn() -> Result<T, E>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match open() {
            Ok(it) => return it,
            Err(error) => assert!(Instant::now() < until, "{error:?}"),
        }
        std::thread::yield_now();
    }
}

fn vni() -> Vni {
    Vni::new(VNI).unwrap()
}

fn segment(host: usize, end: PortEnd) -> Segment {
    let vtep_here = Vtep { dont_fragment: DontFragment::Set, ..Vtep::new(vtep(host).into()) };
    let mut segment = Segment::new(vtep_here, Mtu::new(1450).unwrap());
    let addresses = [format!("{}/24", inner(host)).parse().unwrap()].into();
    segment.ports.insert(ENDPOINT, LocalPort { mac: Mac::from_ipv4(inner(host)), addresses, end });
    let peer = Peer { vtep: vtep(1 - host).into(), addresses: [IpAddr::from(inner(1 - host))].into() };
    segment.peers.insert(Mac::from_ipv4(inner(1 - host)), peer);
    segment
}

fn wanted(host: usize) -> Wanted {
    let mut sandbox = Sandbox::default();
    let end = PortEnd::Tap { interface: "eth0".parse().unwrap() };
    sandbox.vxlan.segments.insert(vni(), segment(host, end));
    Wanted { networks: [(NetworkId::from_bytes([9; 16]), sandbox)].into(), ..Wanted::default() }
}
