//! `vxlan/kernel-observe-1k-ports`, `-plan-…`: what a sandbox with 1,000 ports and 20,000 peers on 100 nodes (20 and 400
//! when quick) costs to read back whole, and to plan one change of from a shadow. The yardstick is what iproute2 takes to
//! show the same.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use overlay_bench::{Bench, Pace};
use overlay_core::{Backend as _, EndpointId, Mac, Mtu, NsKey, Owner, Shadow, Table as _, Vni, reconcile};
use overlay_kernel::Namespace;
use overlay_vxlan::{LocalPort, Peer, PortEnd, Sandbox, Segment, State, Vtep};

use crate::vxlan_kernel::{Outcome, must, shell};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let (ports, peers) = if bench.pace() == Pace::Quick { (20, 400) } else { (1_000, 20_000) };
    let [home, host, container] = [(); 3].map(|()| must(Namespace::create().map_err(Into::into)));
    let wanted = must(state(&must(key(&container)), ports, peers));
    let sandbox = RefCell::new(must(sandbox(&home, &host, &container)));
    must(reconcile(&mut *sandbox.borrow_mut(), &wanted).map_err(Into::into));
    let all = [(&home, IN_HOME), (&container, IN_CONTAINER)];
    bench
        .figure("vxlan/kernel-observe-1k-ports-20k-peers", "ms")
        .once(|| (), |()| must(sandbox.borrow_mut().observe().map_err(Into::into)))
        .yardstick_once("ip, bridge show", || (), |()| all.map(|(namespace, script)| must(shell(namespace, script))))
        .report()?;

    let mut shadow = Shadow::new(sandbox.into_inner());
    let moved = must(state(&must(key(&container)), ports, peers - 1));
    bench
        .figure("vxlan/kernel-plan-1k-ports-20k-peers", "ms")
        .once(|| (), |()| must(shadow.plan(&moved).map_err(Into::into)))
        .report()
}

fn key(namespace: &Namespace) -> Outcome<NsKey> {
    Ok(namespace.key("container".parse()?))
}

fn sandbox(home: &Namespace, host: &Namespace, container: &Namespace) -> Outcome<Sandbox> {
    let owner = Owner::new("bench".parse()?, "node".parse()?);
    let underlay = (host.key("host".parse()?), host.try_clone()?);
    let mut sandbox = Sandbox::open(&owner, home.try_clone()?, underlay)?;
    sandbox.reach(key(container)?, container.try_clone()?)?;
    Ok(sandbox)
}

fn state(container: &NsKey, ports: u16, peers: u16) -> Outcome<State> {
    let mut segment = Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1450)?);
    segment.gateways.insert("10.0.0.1/14".parse()?);
    for number in 0..ports {
        let [high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(10, 1, high, low);
        let end = PortEnd::Namespace { namespace: container.clone(), interface: format!("eth{number}").parse()? };
        let port =
            LocalPort { mac: Mac::from_ipv4(address), addresses: [format!("{address}/14").parse()?].into(), end };
        let mut id = [0; 16];
        (id[0], id[1]) = (high, low);
        segment.ports.insert(EndpointId::from_bytes(id), port);
    }
    for number in 0..peers {
        let [high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(10, 2, high, low);
        let vtep = Ipv4Addr::new(192, 0, 2, (2 + number % 100) as u8);
        let peer = Peer { vtep: vtep.into(), addresses: [IpAddr::from(address)].into() };
        segment.peers.insert(Mac::from_ipv4(address), peer);
    }
    Ok(State { segments: [(Vni::new(4096)?, segment)].into() })
}

const IN_HOME: &str = "{ ip -d link; ip addr; ip route show table all; ip -6 route show table all; ip neigh show nud all; \
                       bridge fdb; } >/dev/null";
const IN_CONTAINER: &str = "{ ip -d link; ip addr; ip route show table all; ip -6 route show table all; } >/dev/null";
