//! `vxlan/kernel-tcp`: what TCP carries between two containers on two hosts of namespaces, by iperf3. The yardstick is
//! the same topology with the same settings, built by iproute2.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};

use overlay_bench::{Bench, Pace};
use overlay_core::{BackendError, DontFragment, EndpointId, Mac, Mtu, Owner, Vni, reconcile};
use overlay_kernel::Namespace;
use overlay_vxlan::{LocalPort, Peer, PortEnd, Sandbox, Segment, State, Vtep};

use crate::vxlan_kernel::{Outcome, must, path, shell};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    if Command::new("iperf3").arg("--version").output().is_err() {
        eprintln!("SKIPPED vxlan/kernel-tcp: iperf3 is not installed, and it is what measures");
        return Ok(());
    }
    let bytes = if bench.pace() == Pace::Quick { "32M" } else { "256M" };
    let mut ours = must(Pair::ours());
    let mut theirs = must(Pair::script());
    bench
        .figure("vxlan/kernel-tcp", "Gb/s")
        .reading(|| must(ours.carries(bytes)))
        .yardstick_reading("the same by ip, bridge", || must(theirs.carries(bytes)))
        .report()
}

/// Two hosts with a cable, a sandbox on each, and a container on each with an iperf3 in the second.
pub(crate) struct Pair {
    pub(crate) hosts: [Namespace; 2],
    homes: [Namespace; 2],
    pub(crate) containers: [Namespace; 2],
    server: Option<Child>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill().and_then(|()| server.wait());
        }
    }
}

pub(crate) const fn vtep(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 1 + host as u8)
}

pub(crate) const fn inner(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 9, 2 + host as u8)
}

impl Pair {
    pub(crate) fn new() -> Outcome<Self> {
        let two = || -> Result<_, BackendError> { Ok([Namespace::create()?, Namespace::create()?]) };
        let pair = Self { hosts: two()?, homes: two()?, containers: two()?, server: None };
        let cable = format!("ip link add u0 type veth peer name u0 netns {}", path(&pair.hosts[1]));
        shell(&pair.hosts[0], &cable)?;
        for (host, namespace) in pair.hosts.iter().enumerate() {
            shell(namespace, &format!("ip addr add {}/24 dev u0; ip link set u0 up", vtep(host)))?;
        }
        Ok(pair)
    }

    pub(crate) fn ours() -> Outcome<Self> {
        let pair = Self::new()?;
        for host in [0, 1] {
            let owner = Owner::new("bench".parse()?, format!("node-{host}").parse()?);
            let underlay = (pair.hosts[host].key("host".parse()?), pair.hosts[host].try_clone()?);
            let mut sandbox = Sandbox::open(&owner, pair.homes[host].try_clone()?, underlay)?;
            let namespace = pair.containers[host].key("container".parse()?);
            sandbox.reach(namespace.clone(), pair.containers[host].try_clone()?)?;
            let vtep_here = Vtep { dont_fragment: DontFragment::Set, ..Vtep::new(vtep(host).into()) };
            let mut segment = Segment::new(vtep_here, Mtu::new(1450)?);
            let end = PortEnd::Namespace { namespace, interface: "eth1".parse()? };
            let addresses = [format!("{}/24", inner(host)).parse()?].into();
            let port = LocalPort { mac: Mac::from_ipv4(inner(host)), addresses, end };
            segment.ports.insert(EndpointId::from_bytes([7; 16]), port);
            let peer = Peer { vtep: vtep(1 - host).into(), addresses: [IpAddr::from(inner(1 - host))].into() };
            segment.peers.insert(Mac::from_ipv4(inner(1 - host)), peer);
            reconcile(&mut sandbox, &State { segments: [(Vni::new(4096)?, segment)].into() })?;
        }
        pair.serve()
    }

    fn script() -> Outcome<Self> {
        let pair = Self::new()?;
        for host in [0, 1] {
            let (home, container) = (&pair.homes[host], &pair.containers[host]);
            let (here, there) = (Mac::from_ipv4(inner(host)), Mac::from_ipv4(inner(1 - host)));
            let tunnel = format!(
                "ip link add vx mtu 1450 netns {} type vxlan id 4096 local {} dstport 4789 nolearning proxy \
                 noudpcsum df set srcport 49152 65535",
                path(home),
                vtep(host)
            );
            shell(&pair.hosts[host], &tunnel)?;
            let mut script = format!(
                "ip link add port mtu 1450 type veth peer name eth1 mtu 1450 address {here} netns {}\n",
                path(container)
            );
            script.push_str(SANDBOX);
            let (to, address) = (vtep(1 - host), inner(1 - host));
            writeln!(script, "bridge fdb replace {there} dev vx dst {to} self permanent")?;
            writeln!(script, "bridge fdb replace {there} dev vx master static")?;
            writeln!(script, "bridge fdb replace {here} dev port master static")?;
            writeln!(script, "ip neigh replace {address} lladdr {there} dev vx nud permanent")?;
            shell(home, &script)?;
            shell(container, &format!("ip addr add {}/24 dev eth1; ip link set eth1 up", inner(host)))?;
        }
        pair.serve()
    }

    pub(crate) fn serve(mut self) -> Outcome<Self> {
        let mut server = Command::new("iperf3");
        server.args(["-s", "-p", PORT, "--forceflush"]).stdout(Stdio::piped()).stderr(Stdio::null());
        self.server = Some(self.containers[1].run(|| server.spawn())??);
        Ok(self)
    }

    /// Gigabits per second that one connection carries.
    fn carries(&mut self, bytes: &str) -> Outcome<f64> {
        let report = self.measures(&["-n", bytes])?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(bits.ok_or_else(|| format!("iperf3: {report}"))? / 1e9)
    }

    /// What iperf3 reports, asked so.
    pub(crate) fn measures(&mut self, arguments: &[&str]) -> Outcome<serde_json::Value> {
        self.await_listening()?;
        let target = inner(1).to_string();
        let mut client = Command::new("iperf3");
        client.args(["-J", "-c", &target, "-p", PORT]).args(arguments);
        let output = self.containers[0].run(|| client.output())??;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The server says so once it listens, and again after each test.
    fn await_listening(&mut self) -> Outcome<()> {
        let said = self.server.as_mut().and_then(|server| server.stdout.as_mut()).ok_or("no server")?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"Server listening") {
            said.read_exact(&mut byte)?;
            line.extend(byte);
        }
        Ok(())
    }
}

const PORT: &str = "5201";
const SANDBOX: &str = "
    ip link add name br0 mtu 1450 type bridge mcast_snooping 0
    ip link set vx master br0 addrgenmode none
    ip link set port master br0 addrgenmode none
    bridge link set dev vx learning off flood off
    bridge link set dev port learning off flood off
    ip link set br0 up
    ip link set port up
    ip link set vx up\n";
