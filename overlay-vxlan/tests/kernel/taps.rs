//! Virtual machines in segments.

use std::net::{SocketAddr, UdpSocket};
use std::panic::UnwindSafe;
use std::thread;
use std::time::{Duration, Instant};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{EndpointId, IpFamily, Mac, Plan, reconcile};
use overlay_kernel::link::Tap;
use overlay_kernel::testing::{judge, once_free};
use overlay_kernel::{Feature, probe};
use overlay_vxlan::{PortEnd, Segment};

use crate::elsewhere::is_root_outside;
use crate::lab::{At, Lab, addresses, lost};
use crate::machine::{Machine, Nature};
use crate::{HERE, NONE_LOST, THERE};

/// Runs a test where taps can be made: as root, and as an ordinary user who may open `/dev/net/tun`.
fn test(name: &str, body: impl FnOnce() + UnwindSafe) {
    kernel_test(Kernel::Host, name, || {
        let found = probe().of(Feature::Tun).cloned();
        if found.is_some_and(|found| found.is_available()) || is_root_outside() {
            body();
        }
    });
}

/// In place of the container 0 there is a virtual machine.
fn machine(segment: &mut Segment) {
    if let Some(port) = segment.ports.get_mut(&EndpointId::from_bytes([1; 16])) {
        port.end = PortEnd::Tap { interface: "tap0".parse().unwrap() };
    }
}

fn lab(underlay: IpFamily) -> Lab {
    let mut lab = Lab::new(underlay, 3);
    lab.shape = machine;
    lab
}

/// The machine in place of container 0, which greets others.
fn boot(lab: &Lab, host: usize, greets: Vec<SocketAddr>) -> Machine {
    let mac = Mac::from_ipv4([10, 0, 9, 10].into());
    let nature = Nature { mac, mtu: lab.mtu(), addresses: addresses(9, 10), greets };
    Machine::boot(&lab.homes[host], "tap0", nature)
}

/// The same port at both addresses of a container.
fn doors(container: u8) -> Vec<SocketAddr> {
    addresses(9, 10 + container).iter().map(|net| SocketAddr::new(net.addr(), 7000)).collect()
}

/// Answers who greets a container, at one of its addresses; once.
fn answer(lab: &Lab, container: usize, at: SocketAddr) -> SocketAddr {
    let socket = once_free(|| lab.containers[container].namespace.run(|| UdpSocket::bind(at)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut word = [0; 8];
    let (len, from) = socket.recv_from(&mut word).unwrap();
    assert_eq!(&word[..len], b"hello");
    socket.send_to(b"welcome", from).unwrap();
    from
}

/// Pings the machine from a container, once it knows who that is: what it would answer before, its stack drops.
fn pinged(lab: &Lab, from: usize) -> [String; 2] {
    for net in addresses(9, 10) {
        lab.ping(from, net.addr(), &["-c", "1", "-w", "10"]);
    }
    lab.lost(from, 0, 9)
}

fn await_words(machine: &Machine, words: usize) {
    let began = Instant::now();
    while machine.words() < words {
        assert!(began.elapsed() < Duration::from_secs(10), "{} words", machine.words());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_virtual_machine_reaches_containers_on_two_hosts_and_is_reached() {
    test("vxlan::a_virtual_machine_reaches_containers_on_two_hosts", || {
        for underlay in [IpFamily::V4, IpFamily::V6] {
            let lab = lab(underlay);
            let before = lab.whole();
            let placed = [HERE, THERE, HERE];
            lab.settle(&placed);
            assert_eq!(lab.lost(1, 0, 9), ["100% packet loss"; 2], "nobody has the tap open");
            let machine = boot(&lab, 0, [doors(1), doors(2)].concat());
            for from in [1, 2] {
                assert_eq!(pinged(&lab, from), NONE_LOST, "from {from} over {underlay}");
            }
            let mut words = 0;
            for container in [1, 2] {
                for (at, own) in doors(container).into_iter().zip(addresses(9, 10)) {
                    assert_eq!(answer(&lab, container.into(), at).ip(), own.addr());
                    words += 1;
                    await_words(&machine, words);
                }
            }
            let whole = (lab.mtu().get() - 28).to_string();
            let ping = lab.ping_text(1, "10.0.9.10", &["-c", "3", "-i", "0.01", "-M", "do", "-s", &whole]);
            assert_eq!(lost(&ping), "0% packet loss", "{ping}");
            assert_eq!(lab.lost(1, 2, 9), NONE_LOST);
            assert_eq!(machine.strange(), 0, "what others say to each other");
            assert!(lab.settle(&placed).iter().all(Plan::is_empty));
            lab.clear(); // while it runs
            drop(machine);
            assert_eq!(lab.whole(), before);
        }
    });
}

#[test]
fn a_virtual_machine_that_ends_leaves_its_tap_to_the_next() {
    test("vxlan::a_virtual_machine_that_ends_leaves_its_tap", || {
        let lab = lab(IpFamily::V4);
        let placed = [HERE, THERE];
        lab.settle(&placed);
        for _ in 0..3 {
            let _machine = boot(&lab, 0, Vec::new());
            assert_eq!(pinged(&lab, 1), NONE_LOST);
            assert!(lab.settle(&placed).iter().all(Plan::is_empty));
        }
        judge(&lab.homes[0], "ip", &["link", "del", "tap0"]);
        lab.settle(&placed);
        let _machine = boot(&lab, 0, Vec::new());
        assert_eq!(pinged(&lab, 1), NONE_LOST);
    });
}

#[test]
fn a_virtual_machine_that_moves_is_reached_where_it_is() {
    test("vxlan::a_virtual_machine_that_moves_is_reached_where_it_is", || {
        let lab = lab(IpFamily::V4);
        let others = [THERE, HERE];
        let mut before = None;
        for host in [0, 1, 0] {
            let placed = [At { host, ..HERE }, others[0], others[1]];
            lab.settle(&placed);
            let here = boot(&lab, host, Vec::new());
            assert_eq!([pinged(&lab, 1), pinged(&lab, 2)], [NONE_LOST; 2], "at {host}");
            before = Some(here); // its tap goes with the next state, while it has it open
        }
        drop(before);
    });
}

#[test]
fn taps_are_as_the_sandbox_is_told_they_be() {
    test("vxlan::taps_are_as_the_sandbox_is_told_they_be", || {
        if !is_root_outside() {
            return; // who has no other users
        }
        let lab = lab(IpFamily::V4);
        let wanted = lab.wanted(0, &[HERE, THERE]);
        let tap = Tap { multi_queue: true, owner: Some(7654), group: Some(8765) };
        reconcile(&mut lab.open(0).with_taps(tap), &wanted).unwrap();
        let text = judge(&lab.homes[0], "ip", &["-d", "link", "show", "dev", "tap0"]);
        for part in ["multi_queue", "persist on", "user 7654", "group 8765", "master br-4105", "link/ether 06:6f:76"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(reconcile(&mut lab.open(0).with_taps(tap), &wanted).unwrap().is_empty());
        let plan = reconcile(&mut lab.open(0), &wanted).unwrap().to_string();
        assert!(plan.contains("add link tap0: tap of user 0 06:6f:76"), "{plan}");
    });
}
