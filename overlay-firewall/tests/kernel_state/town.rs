//! A host with an outside and a container behind a gateway, for real conversations.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use overlay_core::{Port, Protocol, Vni};
use overlay_firewall::{Firewall, Gateway, Published, State, Tunnel};
use overlay_kernel::Namespace;
use overlay_kernel::testing::{judge, once_free};

use crate::conformance::owner;

pub(crate) struct Town {
    pub(crate) host: Namespace,
    pub(crate) outside: Namespace,
    pub(crate) container: Namespace,
}

const PATIENCE: Duration = Duration::from_millis(300);

impl Town {
    pub(crate) fn new() -> Self {
        let [host, outside, container] = [(); 3].map(|()| Namespace::create().unwrap());
        let town = Self { host, outside, container };
        for (namespace, device, peer, to) in
            [(&town.outside, "eth0", "eth0", &town.host), (&town.container, "eth0", "c0", &town.host)]
        {
            let target = format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(to))
            );
            script(
                namespace,
                &format!("ip link set lo up; ip link add {device} type veth peer name {peer} netns {target}"),
            );
        }
        script(
            &town.host,
            "ip link set lo up; ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad; ip link set eth0 up
             ip link add ovgw0 type bridge; ip link set c0 master ovgw0; ip link set c0 up; ip link set ovgw0 up
             ip addr add 172.18.0.1/24 dev ovgw0; ip addr add fd00:18::1/64 dev ovgw0 nodad
             for s in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 > $s; done
             echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             echo 1 > /proc/sys/net/ipv4/conf/ovgw0/route_localnet",
        );
        script(
            &town.outside,
            "ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad; ip link set eth0 up
             ip route add 172.18.0.0/24 via 192.0.2.1; ip route add fd00:18::/64 via 2001:db8::1",
        );
        script(
            &town.container,
            "ip addr add 172.18.0.5/24 dev eth0; ip addr add fd00:18::5/64 dev eth0 nodad; ip link set eth0 up
             ip route add default via 172.18.0.1; ip route add default via fd00:18::1",
        );
        judge(&town.container, "ping", &["-c", "1", "-w", "5", "172.18.0.1"]);
        judge(&town.outside, "ping", &["-c", "1", "-w", "5", "192.0.2.1"]);
        judge(&town.container, "ping", &["-c", "1", "-w", "5", "fd00:18::1"]);
        judge(&town.outside, "ping", &["-c", "1", "-w", "5", "2001:db8::1"]);
        town
    }

    pub(crate) fn open(&self) -> Firewall {
        Firewall::of_host(&owner(), self.host.try_clone().unwrap()).unwrap()
    }
}

pub(crate) fn script(namespace: &Namespace, text: &str) {
    judge(namespace, "sh", &["-ec", text]);
}

/// A gateway, and port 8080 published for its container's port 80 of this protocol.
pub(crate) fn published(protocol: Protocol) -> State {
    let mut state = gateway();
    let web = Published::new(protocol, Port::new(8080).unwrap());
    let web = web.to("172.18.0.5:80".parse().unwrap()).to("[fd00:18::5]:80".parse().unwrap());
    state.published.insert("web".parse().unwrap(), web);
    state
}

pub(crate) fn gateway() -> State {
    let mut state = State::default();
    let subnets = ["172.18.0.0/24".parse().unwrap(), "fd00:18::/64".parse().unwrap()];
    state.gateways.insert("ovgw0".parse().unwrap(), Gateway::new(subnets));
    state
}

/// A tunnel of these members, of whose networks 7 is encrypted.
pub(crate) fn tunnel(members: &[&str]) -> State {
    let members = members.iter().map(|member| member.parse().unwrap()).collect();
    let guard = Tunnel { members, encrypted: [Vni::new(7).unwrap()].into() };
    State { tunnels: [(Port::VXLAN, guard)].into(), ..State::default() }
}

/// A server that tells who asks.
pub(crate) fn serve(namespace: &Namespace, at: &str) -> TcpListener {
    once_free(|| namespace.run(|| TcpListener::bind(at)).unwrap())
}

/// Asks a server, if it can be reached.
pub(crate) fn ask(namespace: &Namespace, at: &str) -> Option<TcpStream> {
    namespace.run(|| TcpStream::connect_timeout(&at.parse().unwrap(), PATIENCE).ok()).unwrap()
}

/// Whether a word comes through.
pub(crate) fn hears(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut word = [0];
    from.write_all(b"x").is_ok() && to.read_exact(&mut word).is_ok()
}

pub(crate) fn udp(namespace: &Namespace, at: &str) -> UdpSocket {
    let socket = once_free(|| namespace.run(|| UdpSocket::bind(at)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Whether a VXLAN datagram of a network comes through.
pub(crate) fn passes(from: &UdpSocket, to: (&UdpSocket, &str), vni: u8) -> bool {
    let mut word = [0; 64];
    from.send_to(&[8, 0, 0, 0, 0, 0, vni, 0, 1, 2, 3, 4], to.1).is_ok() && to.0.recv(&mut word).is_ok()
}
