//! Two nodes on one cable: one whose kernel does it all, and one in user space with a container at its tap.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use overlay_core::{EndpointId, Instant, IpFamily, Mac, Mtu, NetworkId, Owner, Port, Vni, reconcile};
use overlay_crypto::kernel::Xfrm;
use overlay_crypto::{Cipher, Direction, Epoch, Epochs, Numbers, Sa, SaId, SaKey, Spi, State, Tunnel, WindowSize};
use overlay_datapath::{Buffer, Config, Counts, Datapath, Fate, Sandbox, Tables, Wanted};
use overlay_firewall::{BridgePort, Pin, Strangers};
use overlay_kernel::{Namespace, QueueFlags, TapQueue};
use overlay_vxlan::{LocalPort, Peer, PortEnd, Segment, Vtep, names};

use crate::cable::{self, Cable, Plug, sh};

const NETWORK: u32 = 4_096;
const NOW: Instant = Instant::ZERO;

/// What is between the nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) underlay: IpFamily,
    /// How it is encrypted, if it is.
    pub(crate) sealed: Option<(Cipher, Numbers)>,
    pub(crate) cable: Cable,
    /// Whether datagrams have a UDP checksum, and none without is taken in IPv6.
    pub(crate) checksum: bool,
}

/// The node in user space, and what it holds open.
pub(crate) struct World {
    look: Look,
    datapath: Datapath,
    tap: File,
    plug: Plug,
    ends: Ends,
}

/// Who talks: the other node, which is its own container, and ours.
pub(crate) struct Ends {
    pub(crate) there: Namespace,
    pub(crate) container: Namespace,
    /// The longest packet of the network.
    pub(crate) mtu: u32,
}

impl Look {
    /// What fits the cable, to the byte: the outer IP header, and VXLAN's (RFC 7348 §4.3), and ESP's (RFC 4303) with two bytes of trailer.
    fn mtu(self) -> u32 {
        let outer = if self.underlay == IpFamily::V4 { 20 } else { 40 };
        let esp = if self.sealed.is_some() { 8 + 8 + 2 + 16 } else { 0 };
        cable::MTU as u32 - outer - esp - (8 + 8 + 14)
    }

    const fn port(self) -> Port {
        if self.sealed.is_some() { Port::VXLAN_ENCRYPTED } else { Port::VXLAN }
    }
}

impl World {
    /// The other node has 10.0.9.1 and fd00:9::1 in the network, our container 10.0.9.2 and fd00:9::2.
    pub(crate) fn new(look: Look) -> Self {
        let [there, container] = [(); 2].map(|()| Namespace::create().unwrap());
        let plug = Plug::new(look.cable, &there, (look.underlay, look.port()));
        if look.sealed.is_some() {
            reconcile(&mut xfrm(&there), &protection(look, 1)).unwrap();
        }
        let mtu = look.mtu();
        let [one, two] = [1, 2].map(|number| node(number, look.underlay));
        let checksum = if look.checksum { "udpcsum" } else { "noudpcsum udp6zerocsumtx udp6zerocsumrx" };
        sh(
            &there,
            &format!(
                "ip link add vx0 address {} mtu {mtu} type vxlan id {NETWORK} dstport {} local {one} remote {two} nolearning {checksum};
                 {} ip neigh add 10.0.9.2 lladdr {to} dev vx0; ip neigh add fd00:9::2 lladdr {to} dev vx0",
                mac(1),
                look.port(),
                inhabit(1, "vx0"),
                to = mac(2)
            ),
        );
        // Its own interface takes longer packets than the network, which says so itself.
        let tap = format!("ip link set lo up; ip tuntap add tap0 mode tap; ip link set tap0 address {}", mac(2));
        sh(&container, &format!("{tap}; {} true", inhabit(2, "tap0")));
        let tap = TapQueue::open(&container, "tap0".parse().unwrap(), QueueFlags::default()).unwrap();
        let mut datapath = Datapath::new(Config::default(), [7; 32], NOW);
        datapath.handle_tables(Arc::new(Tables::new(&wanted(look)).unwrap()), NOW);
        let ends = Ends { there, container, mtu };
        Self { look, datapath, tap: File::from(OwnedFd::from(tap)), plug, ends }
    }

    /// Carries packets while they talk, and gives what it has counted.
    pub(crate) fn carry(self, talk: impl FnOnce(&Ends)) -> Counts {
        let Self { look, datapath, tap, plug, ends } = self;
        let mut carrier = Carrier { sealed: look.sealed.is_some(), datapath, tap, plug, buffer: Buffer::new(2_000) };
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let carries = scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    carrier.turn();
                }
                carrier.datapath.counts().clone()
            });
            let talked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| talk(&ends)));
            end.store(true, Ordering::Relaxed);
            let counts = carries.join().unwrap();
            talked.unwrap_or_else(|_| panic!("{look:?}: {counts:?}"));
            counts
        })
    }
}

/// Moves packets between a datapath, a tap and a cable.
struct Carrier {
    sealed: bool,
    datapath: Datapath,
    tap: File,
    plug: Plug,
    buffer: Buffer,
}

impl Carrier {
    fn turn(&mut self) {
        let mut fds = [self.tap.as_fd(), self.plug.fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::from(20_u8)).unwrap();
        let [frame, packet] = fds.map(|fd| fd.any().unwrap_or(false));
        if frame {
            let len = self.tap.read(self.buffer.room()).unwrap();
            self.buffer.filled(len).unwrap();
            self.datapath.handle_frames(endpoint(), std::slice::from_mut(&mut self.buffer), NOW);
            self.pass_on();
        }
        if packet && let Some(packet) = self.plug.take() {
            self.buffer.fill(&packet).unwrap();
            self.datapath.handle_packets(std::slice::from_mut(&mut self.buffer), NOW);
            self.pass_on();
        }
    }

    fn pass_on(&mut self) {
        match self.buffer.fate() {
            Fate::Port(to) => {
                assert_eq!(to, endpoint());
                assert_eq!(self.tap.write(self.buffer.packet()).unwrap(), self.buffer.packet().len());
            }
            Fate::Underlay { .. } => self.plug.send(self.buffer.packet(), self.sealed),
            Fate::Drop(_) | Fate::Copied | Fate::Waiting => {}
        }
    }
}

/// The other node's kernel forgets all of ESP, so that it sends in the clear.
pub(crate) fn unprotect(there: &Namespace) {
    reconcile(&mut xfrm(there), &State::default()).unwrap();
}

fn xfrm(there: &Namespace) -> Xfrm {
    let owner = Owner::new("datapath-test".parse().unwrap(), "there".parse().unwrap());
    Xfrm::open(&owner, there.try_clone().unwrap()).unwrap()
}

fn inhabit(number: u8, device: &str) -> String {
    format!(
        "ip addr add 10.0.9.{number}/24 dev {device}; ip addr add fd00:9::{number}/64 dev {device} nodad; ip link set {device} up;"
    )
}

fn endpoint() -> EndpointId {
    EndpointId::from_bytes([2; 16])
}

fn mac(number: u8) -> Mac {
    Mac::from_ipv4([10, 0, 9, number].into())
}

/// A container's addresses.
pub(crate) fn addresses(number: u8) -> [IpAddr; 2] {
    [[10, 0, 9, number].into(), [0xfd00, 9, 0, 0, 0, 0, 0, number.into()].into()]
}

/// A node's address.
pub(crate) fn node(number: u8, family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => [192, 0, 2, number].into(),
        IpFamily::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()].into(),
    }
}

/// What our node should hold.
fn wanted(look: Look) -> Wanted {
    let vni = Vni::new(NETWORK).unwrap();
    let vtep = Vtep { port: look.port(), udp_checksum: look.checksum, ..Vtep::new(node(2, look.underlay)) };
    let mut segment = Segment::new(vtep, Mtu::new(look.mtu()).unwrap());
    let interface = "tap0".parse().unwrap();
    let own = ["10.0.9.2/24", "fd00:9::2/64"].map(|net| net.parse().unwrap());
    let local = LocalPort { mac: mac(2), addresses: own.into(), end: PortEnd::Tap { interface } };
    segment.ports.insert(endpoint(), local);
    segment.peers.insert(mac(1), Peer { vtep: node(1, look.underlay), addresses: addresses(1).into() });
    let mut sandbox = Sandbox::default();
    sandbox.firewall.strangers = Strangers::Drop;
    sandbox.firewall.ports.insert(interface, BridgePort::Pinned(Pin::new(mac(2), addresses(2))));
    sandbox.firewall.ports.insert(names::tunnel(vni).unwrap(), BridgePort::Trunk);
    sandbox.vxlan.segments.insert(vni, segment);
    let crypto = if look.sealed.is_some() { protection(look, 2) } else { State::default() };
    Wanted { crypto, networks: [(NetworkId::from_bytes([9; 16]), sandbox)].into(), ..Wanted::default() }
}

/// The tunnel between the nodes, as one of them has it.
fn protection(look: Look, number: u8) -> State {
    let (cipher, numbers) = look.sealed.unwrap();
    let (port, [local, peer]) = (look.port(), [number, 3 - number].map(|number| node(number, look.underlay)));
    let mut state = State { ports: [port].into(), ..State::default() };
    let towards = |to: IpAddr| if to == node(1, look.underlay) { 1 } else { 2 };
    let spi = |to: IpAddr| Spi::new(0x1000 + towards(to)).unwrap();
    for (direction, source, destination) in [(Direction::In, peer, local), (Direction::Out, local, peer)] {
        let material = vec![towards(destination) as u8; cipher.material_len()];
        let sa = Sa {
            direction,
            source,
            port,
            numbers,
            window: WindowSize::default(),
            limits: None,
            udp: None,
            epochs: Epochs { sender: Epoch::FIRST, receiver: Epoch::FIRST },
            key: SaKey::new(cipher, &material).unwrap(),
        };
        state.add(SaId { destination, spi: spi(destination) }, sa).unwrap();
    }
    state.tunnels.insert(Tunnel { port, local, peer }, vec![spi(peer)]);
    state
}
