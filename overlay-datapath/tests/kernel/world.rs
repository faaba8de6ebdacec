//! Two nodes on one cable, and a container at a tap of the one in user space.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use overlay_core::{EndpointId, Instant, Mac, Mtu, NetworkId, Owner, Port, Vni, reconcile};
use overlay_crypto::kernel::Xfrm;
use overlay_crypto::{Cipher, Direction, Epoch, Epochs, Numbers, Sa, SaId, SaKey, Spi, State, Tunnel, WindowSize};
use overlay_datapath::{Buffer, Config, Counts, Datapath, Fate, Sandbox, Tables, Wanted};
use overlay_firewall::{BridgePort, Pin, Strangers};
use overlay_kernel::testing::judge;
use overlay_kernel::{Namespace, QueueFlags, TapQueue};
use overlay_vxlan::{LocalPort, Peer, PortEnd, Segment, Vtep, names};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const NETWORK: u32 = 4_096;
const MTU: u32 = 1_400; // that of the cable, less VXLAN, ESP and some
const NOW: Instant = Instant::ZERO;

/// The node in user space, and what it holds open.
pub(crate) struct World {
    datapath: Datapath,
    tap: File,
    /// IP packets from the cable, and to it.
    cable: [Socket; 2],
    container: Namespace,
    there: Namespace,
    sealed: bool,
    _deaf: UdpSocket,
    _here: Namespace,
}

impl World {
    /// The other node has 192.0.2.1 and 10.0.9.1; ours has 192.0.2.2, and its container 10.0.9.2.
    pub(crate) fn new(sealed: bool) -> Self {
        let [here, there, container] = [(); 3].map(|()| Namespace::create().unwrap());
        let fd = here.as_fd().as_raw_fd();
        let far = format!("/proc/{}/fd/{fd}", std::process::id());
        let quiet = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1";
        sh(&here, quiet);
        let cable = format!(
            "{quiet}; ip link add u0 type veth peer name u1 netns {far}; ip link set lo up; ip link set u0 up; ip addr add 192.0.2.1/24 dev u0"
        );
        sh(&there, &cable);
        sh(&here, "ip link set lo up; ip link set u1 up; ip addr add 192.0.2.2/24 dev u1");
        let vtep = format!(
            "ip link add vx0 address {} mtu {MTU} type vxlan id {NETWORK} dstport {} local 192.0.2.1 remote 192.0.2.2 nolearning;
             ip addr add 10.0.9.1/24 dev vx0; ip link set vx0 up; ip neigh add 10.0.9.2 lladdr {} dev vx0",
            mac(1),
            port(sealed),
            mac(2)
        );
        if sealed {
            let owner = Owner::new("datapath-test".parse().unwrap(), "there".parse().unwrap());
            let mut xfrm = Xfrm::open(&owner, there.try_clone().unwrap()).unwrap();
            reconcile(&mut xfrm, &protection(1)).unwrap();
        }
        sh(&there, &vtep);
        let plug = format!(
            "{quiet}; ip link set lo up; ip tuntap add tap0 mode tap; ip link set tap0 address {} mtu {MTU}; ip addr add 10.0.9.2/24 dev tap0; ip link set tap0 up",
            mac(2)
        );
        sh(&container, &plug);
        let tap = TapQueue::open(&container, "tap0".parse().unwrap(), QueueFlags::default()).unwrap();
        let mut datapath = Datapath::new(Config::default(), [7; 32], NOW);
        datapath.handle_tables(Arc::new(Tables::new(&wanted(sealed)).unwrap()), NOW);
        let deaf = here.run(|| UdpSocket::bind(("192.0.2.2", port(sealed).get()))).unwrap().unwrap();
        Self {
            datapath,
            tap: File::from(OwnedFd::from(tap)),
            cable: [packets(&here), raw(&here)],
            container,
            there,
            sealed,
            _deaf: deaf,
            _here: here,
        }
    }

    /// Both ping each other, with packets that are short and with such as just fit.
    pub(crate) fn converse(mut self) -> Counts {
        for (from, to) in
            [(&self.container, "10.0.9.1"), (&self.there, "10.0.9.2")].map(|(at, to)| (at.try_clone().unwrap(), to))
        {
            for size in ["8".to_owned(), (MTU - 28).to_string()] {
                let arguments = ["-c", "5", "-i", "0.05", "-W", "5", "-w", "20", "-M", "do", "-s", &size, to];
                let ping = || Command::new("ping").args(arguments).stdout(Stdio::piped()).spawn();
                let ping = from.run(ping).unwrap().unwrap();
                self.carry_during(ping);
            }
        }
        self.datapath.counts().clone()
    }

    fn carry_during(&mut self, mut ping: Child) {
        while ping.try_wait().unwrap().is_none() {
            let [frames, packets] = self.readable();
            let mut batch = [Buffer::new(2_000)];
            if frames {
                let len = self.tap.read(batch[0].room()).unwrap();
                batch[0].filled(len).unwrap();
                self.datapath.handle_frames(endpoint(), &mut batch, NOW);
                self.pass_on(&batch[0]);
            }
            if packets {
                let mut cable = &self.cable[0];
                let len = cable.read(batch[0].room()).unwrap();
                assert!(!self.sealed || batch[0].room()[9] != 17, "nothing is in the clear");
                batch[0].filled(len).unwrap();
                self.datapath.handle_packets(&mut batch, NOW);
                self.pass_on(&batch[0]);
            }
        }
        let said = ping.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(" 5 received, 0% packet loss"), "{said}{:?}", self.datapath.counts());
    }

    fn pass_on(&mut self, buffer: &Buffer) {
        match buffer.fate() {
            Fate::Port(to) => {
                assert_eq!(to, endpoint());
                assert_eq!(self.tap.write(buffer.packet()).unwrap(), buffer.packet().len());
            }
            Fate::Underlay { to, .. } => {
                assert!(!self.sealed || buffer.packet()[9] == 50, "all is in ESP");
                let sent = self.cable[1].send_to(buffer.packet(), &SockAddr::from(SocketAddr::new(to, 0)));
                assert_eq!(sent.unwrap(), buffer.packet().len());
            }
            Fate::Drop(_) | Fate::Copied | Fate::Waiting => {}
        }
    }

    /// What there is to read, of the tap and of the cable, after a moment at most.
    fn readable(&self) -> [bool; 2] {
        let mut fds = [self.tap.as_fd(), self.cable[0].as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::from(20_u8)).unwrap();
        fds.map(|fd| fd.any().unwrap_or(false))
    }
}

/// IP packets as they arrive.
fn packets(namespace: &Namespace) -> Socket {
    let kind = Protocol::from(i32::from(0x0800_u16.to_be()));
    namespace.run(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(kind))).unwrap().unwrap()
}

/// Sends IP packets as they are.
fn raw(namespace: &Namespace) -> Socket {
    namespace.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))).unwrap().unwrap()
}

fn sh(namespace: &Namespace, commands: &str) {
    judge(namespace, "sh", &["-ec", commands]);
}

fn endpoint() -> EndpointId {
    EndpointId::from_bytes([2; 16])
}

fn mac(number: u8) -> Mac {
    Mac::from_ipv4([10, 0, 9, number].into())
}

fn node(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

fn port(sealed: bool) -> Port {
    Port::new(if sealed { 4_793 } else { 4_789 }).unwrap()
}

/// What our node should hold.
fn wanted(sealed: bool) -> Wanted {
    let vni = Vni::new(NETWORK).unwrap();
    let mut segment = Segment::new(Vtep { port: port(sealed), ..Vtep::new(node(2)) }, Mtu::new(MTU).unwrap());
    let (interface, address) = ("tap0".parse().unwrap(), "10.0.9.2/24".parse().unwrap());
    let local = LocalPort { mac: mac(2), addresses: [address].into(), end: PortEnd::Tap { interface } };
    segment.ports.insert(endpoint(), local);
    segment.peers.insert(mac(1), Peer { vtep: node(1), addresses: [[10, 0, 9, 1].into()].into() });
    let mut sandbox = Sandbox::default();
    sandbox.firewall.strangers = Strangers::Drop;
    sandbox.firewall.ports.insert(interface, BridgePort::Pinned(Pin::new(mac(2), [[10, 0, 9, 2].into()])));
    sandbox.firewall.ports.insert(names::tunnel(vni).unwrap(), BridgePort::Trunk);
    sandbox.vxlan.segments.insert(vni, segment);
    let crypto = if sealed { protection(2) } else { State::default() };
    Wanted { crypto, networks: [(NetworkId::from_bytes([9; 16]), sandbox)].into(), ..Wanted::default() }
}

/// The tunnel between the nodes, as one of them has it.
fn protection(number: u8) -> State {
    let (port, local, peer) = (port(true), node(number), node(3 - number));
    let mut state = State { ports: [port].into(), ..State::default() };
    let spi = |to: IpAddr| Spi::new(if to == node(1) { 0x1001 } else { 0x1002 }).unwrap();
    for (direction, source, destination) in [(Direction::In, peer, local), (Direction::Out, local, peer)] {
        let key = [if destination == node(1) { 1 } else { 2 }; 36];
        let sa = Sa {
            direction,
            source,
            port,
            numbers: Numbers::Extended,
            window: WindowSize::default(),
            limits: None,
            udp: None,
            epochs: Epochs { sender: Epoch::FIRST, receiver: Epoch::FIRST },
            key: SaKey::new(Cipher::Aes256Gcm, &key).unwrap(),
        };
        state.add(SaId { destination, spi: spi(destination) }, sa).unwrap();
    }
    state.tunnels.insert(Tunnel { port, local, peer }, vec![spi(peer)]);
    state
}
