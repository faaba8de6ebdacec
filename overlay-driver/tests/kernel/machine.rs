//! Virtual machines, as it were.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::testing::{Carried, Container};
use overlay_driver::{Attach, Attached, Source};
use overlay_kernel::testing::judge;
use overlay_kernel::{Namespace, QueueFlags, TapQueue};
use overlay_node::{Encryption, Endpoint, Network, NetworkSpec};

use crate::userspace::{address, connected, passes};
use crate::world::{World, attachable, pings};

const SOON: Duration = Duration::from_secs(15);

/// Carries frames from one tap to another, until one of them is gone.
fn carry(from: &OwnedFd, to: &OwnedFd) {
    let (mut from, mut to) = (File::from(from.try_clone().unwrap()), File::from(to.try_clone().unwrap()));
    std::thread::spawn(move || {
        let mut frame = [0; 2048];
        loop {
            match from.read(&mut frame) {
                Ok(length) => drop(to.write_all(&frame[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(_) => return,
            }
        }
    });
}

/// A machine of its own kernel's, as it were: a namespace whose interface is a tap, which somebody carries frames to from the node's.
pub(crate) fn machine(sandbox: &Namespace, endpoint: &Endpoint) -> Namespace {
    let inside = Namespace::create().unwrap();
    let addresses = endpoint.addresses.iter().map(|net| format!("ip addr add {net} dev eth0; "));
    let (addresses, mac) = (addresses.collect::<String>(), endpoint.mac);
    let script = format!(
        "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; ip link set lo up; ip tuntap add dev eth0 mode tap
         ip link set eth0 address {mac} mtu 1400; {addresses}ip link set eth0 up"
    );
    judge(&inside, "sh", &["-ec", &script]);
    let open = |place: &Namespace, name: String| -> OwnedFd {
        TapQueue::open(place, name.parse().unwrap(), QueueFlags::default()).unwrap().into()
    };
    let [ours, its] = [open(sandbox, format!("t-{}", endpoint.id.short())), open(&inside, "eth0".to_owned())];
    carry(&ours, &its);
    carry(&its, &ours);
    inside
}

/// A machine that is attached to a network, on a host, as a container is looked at.
fn run(world: &World, host: usize, name: &str, network: &Network) -> (Container, Attached) {
    let name: overlay_core::Name = name.parse().unwrap();
    let attach = Attach::new(name.clone(), Source::Tap, network.spec.name.as_str());
    let attached = world.wait(world.driver(host).attach(attach)).unwrap();
    let namespace = machine(&world.sandbox(host, network.id), &attached.endpoint);
    (Container { name, namespace, source: Source::Tap }, attached)
}

fn gateway(network: &Network) -> IpAddr {
    network.subnets[0].gateway().unwrap()
}

/// What a machine is answered by its gateway, by UDP and by TCP.
fn asks(machine: &Container, gateway: IpAddr, name: &str) -> [String; 2] {
    let at = format!("@{gateway}");
    ["+notcp", "+tcp"].map(|by| {
        let script = format!("dig {at} {by} +short +time=1 +tries=1 {name} || true");
        judge(&machine.namespace, "sh", &["-c", &script]).trim().to_owned()
    })
}

/// What holds of machines, whoever carries.
fn machines_are_as_containers(world: &World, spec: NetworkSpec) {
    let network = world.network(spec);
    let name = network.spec.name.as_str();
    let called = |what: &str| format!("{what}-{name}");
    let machine = |host, what| run(world, host, &called(what), &network);
    let ((one, at_one), (two, at_two), (beside, at_beside)) =
        (machine(0, "one"), machine(1, "two"), machine(0, "beside"));
    let (web, at_web) = world.run(1, &called("web"), name);
    for (from, to) in [(&one, &at_two), (&two, &at_one), (&one, &at_beside), (&beside, &at_web), (&web, &at_beside)] {
        world.until(SOON, |_| pings(from, address(to)));
    }
    world.until(SOON, |world| world.reaches(&web, &called("one")));
    let known = address(&at_web).to_string();
    for machine in [&one, &two] {
        world.until(SOON, |_| asks(machine, gateway(&network), &called("web")).iter().all(|answer| *answer == known));
        assert!(pings(machine, gateway(&network)));
    }
    let (mut stream, mut other) = connected(&one, &web, address(&at_web));
    (0..64).for_each(|_| passes(&mut stream, &mut other, &[7; 16 << 10]));
    (0..64).for_each(|_| passes(&mut other, &mut stream, &[9; 16 << 10]));

    // Who says it is another is not heard, and is not found.
    let (stolen, net) = (address(&at_beside), at_beside.endpoint.addresses.first().unwrap().to_string());
    judge(&one.namespace, "ip", &["addr", "add", &net, "dev", "eth0"]);
    let from = stolen.to_string();
    let to = address(&at_two).to_string();
    let script = format!("ping -n -c 2 -i 0.2 -W 1 -I {from} {to} && echo heard || true");
    assert!(!judge(&one.namespace, "sh", &["-c", &script]).contains("heard"));
    assert!(pings(&web, stolen), "it is where it was");
    for attached in [at_one, at_beside] {
        world.wait(world.driver(0).detach(attached.endpoint.id)).unwrap();
    }
    world.until(SOON, |world| world.status(0).places.is_empty());
}

#[test]
fn virtual_machines_are_reached_and_ask_their_gateway_for_names() {
    kernel_test(Kernel::Host, "driver::virtual_machines_are_reached", || {
        machines_are_as_containers(&World::new(2), attachable("front"));
    });
}

#[test]
fn virtual_machines_are_as_well_where_packets_are_carried_in_user_space() {
    kernel_test(Kernel::Host, "driver::virtual_machines_are_as_well_in_user_space", || {
        let world = World::carried(2, Carried::InUserSpace);
        machines_are_as_containers(&world, attachable("front"));
        machines_are_as_containers(&world, NetworkSpec { encryption: Encryption::Shared, ..attachable("vault") });
    });
}

#[test]
fn a_machines_connection_outlives_the_node_that_carries_it() {
    kernel_test(Kernel::Host, "driver::a_machines_connection_outlives_the_node_that_carries_it", || {
        let mut world = World::carried(2, Carried::InUserSpace);
        let network = world.network(attachable("front"));
        let ((vm, _), (web, at_web)) = (run(&world, 0, "vm", &network), world.run(1, "web", "front"));
        world.until(SOON, |_| pings(&vm, address(&at_web)));
        let (mut stream, mut other) = connected(&vm, &web, address(&at_web));
        passes(&mut stream, &mut other, b"before");
        let stopped = world.hosts_mut().take(0).unwrap();
        world.wait(stopped.stop());
        assert!(!pings(&vm, address(&at_web)), "nobody carries");
        world.start(0);
        world.until(SOON, |_| pings(&vm, address(&at_web)));
        passes(&mut stream, &mut other, b"after");
        let known = address(&at_web).to_string();
        world.until(SOON, |_| asks(&vm, gateway(&network), "web").iter().all(|answer| *answer == known));
    });
}
