//! The Linux kernel as judge of our header, in a namespace of its own; iproute2 sets it up and tells its verdict.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Mac, Vni};
use overlay_vxlan::{Flaw, Flow, Frame, Header, Transport};

#[test]
fn the_kernel_takes_our_header() {
    kernel_test(Kernel::Host, "vxlan::the_kernel_takes_our_header", || in_namespace(takes_our_header));
}

#[test]
fn we_read_what_the_kernel_sends() {
    kernel_test(Kernel::Host, "vxlan::we_read_what_the_kernel_sends", || in_namespace(emits_what_we_read));
}

/// Echo requests in our header are answered in the kernel's; with a wrong VNI or without the I flag they are not.
fn takes_our_header() {
    let peer = vtep();
    run("ip neigh add 10.9.0.2 lladdr 02:42:0a:09:00:02 dev vx0");
    let header = Header { vni: NETWORK };

    peer.send_to(&[&header.encode()[..], &echo_request(1)].concat(), VTEP).unwrap();
    let answer = receive(&peer);
    let (answered, frame) = Header::parse(&answer).unwrap();
    assert_eq!(answered, header);
    assert_eq!(echo_sequence(frame), Some(1));
    assert_eq!(received(), 1);

    let wrong_vni = Header { vni: Vni::new(43).unwrap() }.encode();
    let mut no_flag = header.encode();
    no_flag[0] = 0;
    for refused in [wrong_vni, no_flag] {
        peer.send_to(&[&refused[..], &echo_request(2)].concat(), VTEP).unwrap();
    }
    peer.send_to(&[&header.encode()[..], &echo_request(3)].concat(), VTEP).unwrap();
    let answer = receive(&peer);
    assert_eq!(echo_sequence(Header::parse(&answer).unwrap().1), Some(3), "a refused header was answered");
    assert_eq!(received(), 2);
    assert_eq!(Header::parse(&no_flag).unwrap_err().flaw, Flaw::NoVni);
}

/// An ARP request that the kernel floods to its static remote is, to us, a frame of its network.
fn emits_what_we_read() {
    let peer = vtep();
    let kicked = UdpSocket::bind("10.9.0.1:0").unwrap();
    kicked.send_to(b"who has 10.9.0.2?", "10.9.0.2:9").unwrap();

    let datagram = receive(&peer);
    let (header, frame) = Header::parse(&datagram).unwrap();
    assert_eq!(header.vni, NETWORK);
    assert_eq!(datagram[..8], header.encode(), "the kernel's header has no bit that ours has not");
    let frame = Frame::parse(frame).unwrap();
    assert_eq!((frame.ethernet.ethertype(), frame.ethernet.destination()), (0x0806, Mac::BROADCAST));
    assert_eq!(frame.ethernet.source(), KERNEL_MAC);
}

/// The kernel's VTEP `vx0` for network 42 at 192.0.2.1, and a socket in a second namespace, at 192.0.2.2, as its only peer.
fn vtep() -> UdpSocket {
    run("ip link add u0 type veth peer name u1");
    run("ip addr add 192.0.2.1/24 dev u0");
    run("ip link set u0 up");
    run(
        "ip link add vx0 address 02:42:0a:09:00:01 type vxlan id 42 dstport 4789 local 192.0.2.1 remote 192.0.2.2 dev u0",
    );
    run("ip addr add 10.9.0.1/24 dev vx0");
    let (born, births) = mpsc::channel();
    let (moved, moves) = mpsc::channel();
    let peer = thread_in_namespace(move || {
        born.send(thread_id()).unwrap();
        moves.recv().unwrap();
        run("ip addr add 192.0.2.2/24 dev u1");
        run("ip link set u1 up");
        UdpSocket::bind("192.0.2.2:4789").unwrap()
    });
    run(&format!("ip link set u1 netns {}", births.recv().unwrap()));
    moved.send(()).unwrap();
    let peer = peer.join().unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    run("ip link set vx0 up");
    peer
}

/// The next datagram that is no IPv6 announcement of `vx0` coming up.
fn receive(peer: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    loop {
        let len = peer.recv(&mut buffer).expect("a datagram from the kernel within 10 s");
        let datagram = &buffer[..len];
        let frame = Header::parse(datagram).and_then(|(_, frame)| Frame::parse(frame));
        if frame.is_ok_and(|frame| frame.ethernet.ethertype() != 0x86dd) {
            return datagram.to_vec();
        }
    }
}

/// ICMP's echo request from 10.9.0.2 to 10.9.0.1, in an Ethernet frame.
fn echo_request(sequence: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(PEER_MAC.octets(), KERNEL_MAC.octets())
        .ipv4([10, 9, 0, 2], [10, 9, 0, 1], 64)
        .icmpv4_echo_request(7, sequence)
        .write(&mut frame, b"ping")
        .unwrap();
    frame
}

/// The sequence number, if `frame` is an echo reply to the peer.
fn echo_sequence(frame: &[u8]) -> Option<u16> {
    let read = Frame::parse(frame).unwrap();
    let Some(Transport::Icmp(icmp)) = read.transport else { return None };
    let reply = Flow::V4 {
        source: Ipv4Addr::new(10, 9, 0, 1),
        destination: Ipv4Addr::new(10, 9, 0, 2),
        protocol: 1,
        ports: None,
    };
    assert_eq!((icmp.kind(), Flow::of(frame), read.payload), (0, reply, &b"ping"[..]));
    let [.., high, low] = *frame.get(..42)? else { return None };
    Some(u16::from_be_bytes([high, low]))
}

/// Frames that `vx0` has received.
fn received() -> u64 {
    let statistics = Command::new("ip").args(["-s", "-o", "link", "show", "dev", "vx0"]).output().unwrap();
    let text = String::from_utf8(statistics.stdout).unwrap();
    let numbers = text.split("RX:").nth(1).and_then(|text| text.split('\\').nth(1)).unwrap();
    numbers.split_whitespace().nth(1).and_then(|packets| packets.parse().ok()).unwrap()
}

fn run(command: &str) {
    let (program, arguments) = command.split_once(' ').unwrap();
    let output = Command::new(program).args(arguments.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `body` in a network namespace of its own.
fn in_namespace(body: fn()) {
    if let Err(panic) = thread_in_namespace(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A thread made for a new namespace and thrown away after; what it opened keeps the namespace.
#[expect(clippy::disallowed_methods, reason = "the namespace must not stick to a thread of the test harness")]
fn thread_in_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        body()
    })
}

/// The kernel's number of this thread.
fn thread_id() -> String {
    let path = std::fs::read_link("/proc/thread-self").unwrap();
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

const VTEP: &str = "192.0.2.1:4789";
const NETWORK: Vni = match Vni::new(42) {
    Ok(vni) => vni,
    Err(_) => Vni::MAX,
};
const KERNEL_MAC: Mac = Mac::from_ipv4(Ipv4Addr::new(10, 9, 0, 1));
const PEER_MAC: Mac = Mac::from_ipv4(Ipv4Addr::new(10, 9, 0, 2));
