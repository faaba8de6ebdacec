//! Two hosts on a cable, each with a container that has a tap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;

use overlay_core::{DontFragment, EndpointId, Mac, Mtu, NetworkId, Owner, Port, Vni, reconcile};
use overlay_crypto::{Cipher, Direction, Epoch, Epochs, Numbers, Sa, SaId, SaKey, Spi, Tunnel, WindowSize};
use overlay_datapath::{Sandbox, Tables, Wanted};
use overlay_driver::packets::{Carrier, CarrierConfig};
use overlay_firewall::{Action, Member, Policy, PolicyRule, Selector};
use overlay_kernel::testing::{judge, once_free};
use overlay_kernel::{Namespace, QueueFlags, TapQueue};
use overlay_vxlan::{LocalPort, Peer, PortEnd, Segment, Vtep};

/// A host's container's.
pub(crate) const fn endpoint(host: usize) -> EndpointId {
    EndpointId::from_bytes([7 + host as u8; 16])
}

/// What is unusual about a pair.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kind {
    /// Beside the first.
    pub(crate) more_queues: usize,
    /// In ESP, without UDP around it.
    pub(crate) sealed: bool,
    /// The first may ask the second, and nobody may begin anything else.
    pub(crate) guarded: bool,
    /// All is IPv6.
    pub(crate) v6: bool,
}

const VNI: u32 = 4096;

/// Two hosts, whose containers are neighbours.
pub(crate) struct Pair {
    kind: Kind,
    pub(crate) hosts: [Namespace; 2],
    homes: [Namespace; 2],
    pub(crate) containers: [Namespace; 2],
    pub(crate) carriers: [Option<Carrier>; 2],
    kernel: [Option<overlay_vxlan::Sandbox>; 2],
}

impl Kind {
    const fn vtep(self, host: usize) -> IpAddr {
        let number = 1 + host as u8;
        match self.v6 {
            false => IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)),
            true => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16)),
        }
    }

    const fn inner(self, host: usize) -> IpAddr {
        let number = 2 + host as u8;
        match self.v6 {
            false => IpAddr::V4(Ipv4Addr::new(10, 0, 9, number)),
            true => IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, number as u16)),
        }
    }

    /// With the length of its prefix, as `ip` is told.
    fn beside(self, address: IpAddr) -> String {
        if self.v6 { format!("{address}/64 nodad") } else { format!("{address}/24") }
    }

    const fn mtu(self) -> u32 {
        if self.v6 || self.sealed { 1_380 } else { 1_450 }
    }
}

const fn mac(host: usize) -> Mac {
    Mac::new([2, 0, 0, 0, 9, 2 + host as u8])
}

fn namespace() -> Namespace {
    Namespace::create().unwrap()
}

impl Pair {
    pub(crate) const fn vtep(&self, host: usize) -> IpAddr {
        self.kind.vtep(host)
    }

    pub(crate) const fn inner(&self, host: usize) -> IpAddr {
        self.kind.inner(host)
    }

    /// With a cable; what the hosts carry packets by comes later.
    fn new(kind: Kind) -> Self {
        let pair = || [namespace(), namespace()];
        let it = Self {
            kind,
            hosts: pair(),
            homes: pair(),
            containers: pair(),
            carriers: [None, None],
            kernel: [None, None],
        };
        let other = format!("/proc/{}/fd/{}", std::process::id(), it.hosts[1].as_fd().as_raw_fd());
        judge(&it.hosts[0], "ip", &["link", "add", "u0", "type", "veth", "peer", "name", "u0", "netns", &other]);
        for (host, namespace) in it.hosts.iter().enumerate() {
            judge(namespace, "sh", &["-c", &format!("ip addr add {} dev u0", kind.beside(kind.vtep(host)))]);
            judge(namespace, "ip", &["link", "set", "u0", "up"]);
        }
        it
    }

    /// Both in user space.
    pub(crate) fn in_user_space() -> Self {
        Self::of(Kind::default())
    }

    /// Both in user space, in a way that is unusual.
    pub(crate) fn of(kind: Kind) -> Self {
        let mut it = Self::new(kind);
        for host in [0, 1] {
            it.tap(host);
            it.carry(host);
        }
        it
    }

    /// The first in user space, the second by its kernel's VXLAN.
    pub(crate) fn mixed(kind: Kind) -> Self {
        let mut it = Self::new(kind);
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
        let mode = if self.kind.more_queues > 0 { "vnet_hdr multi_queue" } else { "vnet_hdr" };
        self.tap_of(host, mode);
    }

    /// As [`tap`](Self::tap), of this mode.
    pub(crate) fn tap_of(&self, host: usize, mode: &str) {
        let (mac, mtu, address) = (mac(host), self.kind.mtu(), self.kind.beside(self.inner(host)));
        let commands = format!(
            "ip tuntap add dev eth0 mode tap {mode}; ip link set eth0 address {mac} mtu {mtu}
             ip addr add {address} dev eth0; ip link set eth0 up; ip link set lo up"
        );
        judge(&self.containers[host], "sh", &["-ec", &commands]);
    }

    /// Starts a carrier for it, in place of one there was.
    pub(crate) fn carry(&mut self, host: usize) {
        self.carriers[host] = None;
        let (at, there) = (SocketAddr::new(self.vtep(host), 4_789), &self.hosts[host]);
        let config = CarrierConfig { queues: 1 + self.kind.more_queues, ..CarrierConfig::default() };
        let sockets = match config.queues {
            1 => vec![once_free(|| there.run(|| UdpSocket::bind(at)).unwrap())],
            queues => there.udp_queues(at, queues).unwrap(),
        };
        let sources =
            (0..32 * self.kind.more_queues).map(|_| there.udp(SocketAddr::new(at.ip(), 0)).unwrap()).collect();
        let carrier = Carrier::start_spread(&config, [host as u8; 32], sockets, sources).unwrap();
        if self.kind.sealed {
            carrier.carry_esp(there.esp(at.ip()).unwrap()).unwrap();
        }
        carrier.publish(Arc::new(Tables::new(&wanted(self.kind, host)).unwrap()));
        self.carriers[host] = Some(carrier);
        self.plug(host);
    }

    /// Has its carrier carry its tap.
    pub(crate) fn plug(&self, host: usize) {
        let queues = 1 + self.kind.more_queues;
        let flags = QueueFlags { vnet_hdr: true, multi_queue: queues > 1 };
        let open = || TapQueue::open(&self.containers[host], "eth0".parse().unwrap(), flags);
        let taps = (0..queues).map(|_| once_free(open)).collect();
        self.carriers[host].as_ref().unwrap().plug_queues(endpoint(host), taps).unwrap();
    }

    fn carry_by_kernel(&mut self, host: usize) {
        let owner = Owner::new("packets".parse().unwrap(), format!("node-{host}").parse().unwrap());
        let underlay = (self.hosts[host].key("host".parse().unwrap()), self.hosts[host].try_clone().unwrap());
        let mut sandbox =
            overlay_vxlan::Sandbox::open(&owner, self.homes[host].try_clone().unwrap(), underlay).unwrap();
        let namespace = self.containers[host].key("container".parse().unwrap());
        sandbox.reach(namespace.clone(), self.containers[host].try_clone().unwrap()).unwrap();
        let end = PortEnd::Namespace { namespace, interface: "eth0".parse().unwrap() };
        let state = overlay_vxlan::State { segments: [(vni(), segment(self.kind, host, end))].into() };
        reconcile(&mut sandbox, &state).unwrap();
        self.kernel[host] = Some(sandbox);
    }

    /// Whether one reaches the other.
    pub(crate) fn pings(&self, from: usize) -> bool {
        let to = self.inner(1 - from).to_string();
        let said = self.containers[from]
            .run(|| std::process::Command::new("ping").args(["-n", "-c", "1", "-W", "2", &to]).output().unwrap());
        said.unwrap().status.success()
    }
}

fn vni() -> Vni {
    Vni::new(VNI).unwrap()
}

fn segment(kind: Kind, host: usize, end: PortEnd) -> Segment {
    let here = Vtep { dont_fragment: DontFragment::Set, ..Vtep::new(kind.vtep(host)) };
    let mut segment = Segment::new(here, Mtu::new(kind.mtu()).unwrap());
    let len = if kind.v6 { 64 } else { 24 };
    let addresses = [format!("{}/{len}", kind.inner(host)).parse().unwrap()].into();
    segment.ports.insert(endpoint(host), LocalPort { mac: mac(host), addresses, end });
    let peer = Peer { vtep: kind.vtep(1 - host), addresses: [kind.inner(1 - host)].into() };
    segment.peers.insert(mac(1 - host), peer);
    segment
}

fn wanted(kind: Kind, host: usize) -> Wanted {
    let mut sandbox = Sandbox::default();
    let end = PortEnd::Tap { interface: "eth0".parse().unwrap() };
    sandbox.vxlan.segments.insert(vni(), segment(kind, host, end));
    if kind.guarded {
        guard(kind, &mut sandbox.firewall.policy);
    }
    let mut wanted = Wanted { networks: [(NetworkId::from_bytes([9; 16]), sandbox)].into(), ..Wanted::default() };
    if kind.sealed {
        seal(kind, host, &mut wanted.crypto);
    }
    wanted
}

fn guard(kind: Kind, policy: &mut Policy) {
    policy.otherwise = Action::Deny;
    for host in [0, 1] {
        let labels = [("is".to_owned(), host.to_string())].into();
        policy.members.insert(endpoint(host), Member { addresses: [kind.inner(host)].into(), labels });
    }
    let of = |host: &str| Selector::labels([("is", host)]);
    policy.rules.insert("asks".parse().unwrap(), PolicyRule::allow(of("0"), of("1")));
}

fn seal(kind: Kind, host: usize, crypto: &mut overlay_crypto::State) {
    let ends = [kind.vtep(host), kind.vtep(1 - host)];
    let spi = |sender: usize| Spi::new(0x1000 + sender as u32).unwrap();
    crypto.ports.insert(Port::VXLAN);
    for (direction, source, destination, sender) in
        [(Direction::Out, ends[0], ends[1], host), (Direction::In, ends[1], ends[0], 1 - host)]
    {
        let sa = Sa {
            direction,
            source,
            port: Port::VXLAN,
            numbers: Numbers::Extended,
            window: WindowSize::default(),
            limits: None,
            udp: None,
            epochs: Epochs { sender: Epoch::FIRST, receiver: Epoch::FIRST },
            key: SaKey::new(Cipher::Aes256Gcm, &[sender as u8; 36]).unwrap(),
        };
        crypto.add(SaId { destination, spi: spi(sender) }, sa).unwrap();
    }
    crypto.tunnels.insert(Tunnel { port: Port::VXLAN, local: ends[0], peer: ends[1] }, vec![spi(host)]);
}
