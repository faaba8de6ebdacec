//! `vxlan/kernel-build-network`: one node's part of a network in this machine's kernel, from nothing: sandbox, bridge,
//! VXLAN device, one container, one peer. Needs root; without, no figure. The yardstick is what iproute2 takes for the
//! same links and entries, one process per command as scripts do, the sandbox made the same way.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, id};

use overlay_bench::Bench;
use overlay_core::{BackendError, EndpointId, ErrorKind, Mac, Mtu, Owner, Vni, reconcile};
use overlay_kernel::Namespace;
use overlay_vxlan::{LocalPort, Peer, PortEnd, Sandbox, Segment, State, Vtep};

use crate::{vxlan_scale, vxlan_tcp};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    match Namespace::create() {
        Err(error) if error.kind() == ErrorKind::Permission => {
            eprintln!("vxlan: no figure of the kernel without root: {error}");
            return Ok(());
        }
        other => drop(other.map_err(io::Error::other)?),
    }
    bench
        .figure("vxlan/kernel-build-network", "ms")
        .once(Places::new, |places| must(places.build()))
        .yardstick_once("ip, bridge: a process per command", Places::new, |places| must(places.script()))
        .report()?;
    vxlan_scale::run(bench)?;
    vxlan_tcp::run(bench)
}

/// The host's and a container's namespace.
struct Places {
    host: Namespace,
    container: Namespace,
}

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

impl Places {
    fn new() -> Self {
        let create =
            || -> Result<_, BackendError> { Ok(Self { host: Namespace::create()?, container: Namespace::create()? }) };
        must(create().map_err(Into::into))
    }

    /// What it gives lives on, so that taking it down is not measured.
    fn build(self) -> Outcome<(Self, Namespace)> {
        let home = Namespace::create()?;
        let owner = Owner::new("bench".parse()?, "node".parse()?);
        let host = (self.host.key("host".parse()?), self.host.try_clone()?);
        let mut sandbox = Sandbox::open(&owner, home.try_clone()?, host)?;
        let namespace = self.container.key("web".parse()?);
        sandbox.reach(namespace.clone(), self.container.try_clone()?)?;

        let mut segment = Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1450)?);
        segment.gateways.insert("10.0.9.1/24".parse()?);
        let (here, there) = (Ipv4Addr::new(10, 0, 9, 2), Ipv4Addr::new(10, 0, 9, 3));
        let end = PortEnd::Namespace { namespace, interface: "eth1".parse()? };
        let port = LocalPort { mac: Mac::from_ipv4(here), addresses: ["10.0.9.2/24".parse()?].into(), end };
        segment.ports.insert(EndpointId::from_bytes([7; 16]), port);
        let peer = Peer { vtep: [192, 0, 2, 2].into(), addresses: [there.into()].into() };
        segment.peers.insert(Mac::from_ipv4(there), peer);
        reconcile(&mut sandbox, &State { segments: [(Vni::new(4096)?, segment)].into() })?;
        Ok((self, home))
    }

    fn script(self) -> Outcome<(Self, Namespace)> {
        let home = Namespace::create()?;
        shell(&self.host, &HOST.replace("SANDBOX", &path(&home)))?;
        shell(&home, &SANDBOX.replace("CONTAINER", &path(&self.container)))?;
        shell(&self.container, CONTAINER)?;
        Ok((self, home))
    }
}

/// Where another process finds a namespace while this one lives.
pub(crate) fn path(namespace: &Namespace) -> String {
    format!("/proc/{}/fd/{}", id(), namespace.as_fd().as_raw_fd())
}

pub(crate) fn shell(namespace: &Namespace, script: &str) -> Outcome<()> {
    let status = namespace.run(|| Command::new("sh").args(["-ec", script]).status())??;
    if status.success() { Ok(()) } else { Err(format!("{script}: {status}").into()) }
}

const HOST: &str = "ip link add vx-4096 mtu 1450 netns SANDBOX type vxlan id 4096 local 192.0.2.1 dstport 4789 \
                    nolearning proxy";
const SANDBOX: &str = "
    ip link add br-4096 mtu 1450 address 02:6f:76:00:10:00 type bridge mcast_snooping 0
    ip link set vx-4096 master br-4096 addrgenmode none
    ip link add p-1 mtu 1450 type veth peer name eth1 mtu 1450 address 02:42:0a:00:09:02 netns CONTAINER
    ip link set p-1 master br-4096 addrgenmode none
    bridge link set dev vx-4096 learning off flood off
    bridge link set dev p-1 learning off flood off
    ip neigh replace 10.0.9.3 lladdr 02:42:0a:00:09:03 dev vx-4096 nud permanent
    bridge fdb replace 02:42:0a:00:09:03 dev vx-4096 dst 192.0.2.2 self permanent
    bridge fdb replace 02:42:0a:00:09:03 dev vx-4096 master static
    bridge fdb replace 02:42:0a:00:09:02 dev p-1 master static
    ip addr add 10.0.9.1/24 dev br-4096
    ip link set br-4096 up
    ip link set p-1 up
    ip link set vx-4096 up";
const CONTAINER: &str = "
    ip addr add 10.0.9.2/24 dev eth1
    ip link set eth1 up";

pub(crate) fn must<T>(result: Outcome<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}: {:?}", error.source()))
}
