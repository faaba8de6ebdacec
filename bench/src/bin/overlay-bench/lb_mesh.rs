//! `lb`, third part: the routing mesh in this machine's kernel, in namespaces of their own. Needs root; without, no figure.
//!
//! `mesh-conn`: new TCP connections a second from a client outside through a node that publishes a port to a replica on a network of the
//! node's; the replica sees the client, and answers through the node. The yardstick is the same topology with one rule by hand that translates the
//! destination and one that masquerades, as who publishes ports usually does: its replica sees the node.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant as Clock};

use overlay_bench::{Bench, Pace};
use overlay_core::{EndpointId, Mac, Owner, Port, Protocol, reconcile};
use overlay_kernel::Namespace;
use overlay_lb::kernel::Nftables;
use overlay_lb::{Arrivals, Replica, Service, State};
use socket2::SockRef;

use crate::firewall::{Outcome, must};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants("lb/mesh-conn") {
        return Ok(());
    }
    let count = if bench.pace() == Pace::Quick { 200 } else { 2_000 };
    let (mesh, hand) = (must(Road::new()), must(Road::new()));
    must(mesh.publish());
    must(hand.by_hand());
    bench
        .figure("lb/mesh-conn", "connections/s")
        .measured(|| mesh.rate(count))
        .yardstick_measured("translation and masquerade by hand", || hand.rate(count))
        .report()
}

/// A client outside, a node, and a replica.
struct Road {
    client: Namespace,
    node: Namespace,
    replica: Namespace,
}

/// The node's Ethernet address on the network that it shares with the replica.
const NODE: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const AT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80);
const REPLICA: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 9, 2));

impl Road {
    fn new() -> Outcome<Self> {
        let [client, node, replica] = [Namespace::create()?, Namespace::create()?, Namespace::create()?];
        let target = |of: &Namespace| format!("/proc/{}/fd/{}", std::process::id(), of.as_fd().as_raw_fd());
        let (outside, inside) = (target(&client), target(&replica));
        shell(
            &node,
            &format!(
                "ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward
                 ip link add eth0 type veth peer name eth0 netns {outside}; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up
                 ip link add m0 address {NODE} type veth peer name eth1 netns {inside}
                 ip addr add 10.0.9.1/24 dev m0; ip link set m0 up"
            ),
        )?;
        shell(&client, "ip link set lo up; ip addr add 192.0.2.9/24 dev eth0; ip link set eth0 up")?;
        shell(&replica, "ip link set lo up; ip addr add 10.0.9.2/24 dev eth1; ip link set eth1 up")?;
        let listener = replica.run(|| TcpListener::bind("0.0.0.0:8080"))??;
        #[expect(clippy::disallowed_methods, reason = "somebody must accept meanwhile")]
        thread::spawn(move || listener.incoming().for_each(drop));
        Ok(Self { client, node, replica })
    }

    /// As nodes and containers of ours have it: a published service, and marked ways back.
    fn publish(&self) -> Outcome<()> {
        let mut web = Service::published().port(Protocol::Tcp, Port::new(80)?, Port::new(8_080)?);
        web.replicas.insert(EndpointId::from_bytes([1; 16]), Replica::new([REPLICA]));
        let published = State { services: [("web".parse()?, web)].into_iter().collect(), ..State::default() };
        settle(&self.node, &published)?;
        let (interface, marks) = ("eth1".parse()?, [(NODE, 7)].into());
        let arrivals = Arrivals { interface, marks, answers: [].into(), inside: [].into() };
        settle(&self.replica, &State { arrivals: Some(arrivals), ..State::default() })?;
        // Containers have a default route of their own, which answers without a mark would take.
        let back = "ip link add out type veth peer name far; ip addr add 10.0.7.2/24 dev out; ip link set out up; ip link set far up
                    ip route add default via 10.0.7.1; echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark
                    echo 1 > /proc/sys/net/ipv4/tcp_fwmark_accept
                    ip route add default via 10.0.9.1 dev eth1 table 107; ip rule add fwmark 7 lookup 107";
        shell(&self.replica, back)
    }

    fn by_hand(&self) -> Outcome<()> {
        shell(
            &self.node,
            "nft 'add table ip hand; add chain ip hand in { type nat hook prerouting priority -100; }'
             nft 'add chain ip hand out { type nat hook postrouting priority 100; }'
             nft 'add rule ip hand in fib daddr type local tcp dport 80 dnat to 10.0.9.2:8080'
             nft 'add rule ip hand out oifname m0 masquerade'",
        )
    }

    /// Connections a second.
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn rate(&self, count: u32) -> f64 {
        let dial = || -> io::Result<f64> {
            let start = Clock::now();
            for _ in 0..count {
                let stream = TcpStream::connect(AT)?;
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?; // no port is kept waiting
            }
            Ok(f64::from(count) / start.elapsed().as_secs_f64())
        };
        must(must(self.client.run(dial).map_err(Into::into)).map_err(Into::into))
    }
}

fn settle(home: &Namespace, state: &State) -> Outcome<()> {
    let owner = Owner::new("bench".parse()?, "mesh".parse()?);
    reconcile(&mut Nftables::open(&owner, home.try_clone()?)?, state)?;
    Ok(())
}

fn shell(namespace: &Namespace, script: &str) -> Outcome<()> {
    let status = namespace.run(|| Command::new("sh").args(["-ec", script]).status())??;
    if status.success() { Ok(()) } else { Err(format!("{script}: {status}").into()) }
}
