//! What is sent is what arrives.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::testing::judge;

use crate::pair::{ENDPOINT, Pair, inner, vtep};

const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of which each tells where it stands.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// Sends `len` bytes by TCP and has them read at the other end, as they were.
fn pour(pair: &Pair, from: usize, len: usize) {
    let listener = pair.containers[1 - from].run(|| TcpListener::bind((inner(1 - from), 9_000))).unwrap().unwrap();
    let reads = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).unwrap();
        told
    });
    let mut stream = pair.containers[from].run(|| TcpStream::connect((inner(1 - from), 9_000))).unwrap().unwrap();
    let sent = text(len);
    stream.write_all(&sent).unwrap();
    drop(stream);
    assert!(reads.join().unwrap() == sent, "not what was sent");
}

/// Sends datagrams of many sizes, each answered with itself.
fn echo(pair: &Pair, from: usize) {
    let answers = pair.containers[1 - from].run(|| UdpSocket::bind((inner(1 - from), 9_001))).unwrap().unwrap();
    let asks = pair.containers[from].run(|| UdpSocket::bind((inner(from), 0))).unwrap().unwrap();
    asks.connect((inner(1 - from), 9_001)).unwrap();
    for socket in [&answers, &asks] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let mut room = vec![0; 65_536];
    for len in [0, 1, 2, 17, 1_421, 1_422, 1_423, 4_000, 20_000] {
        let sent = text(len);
        asks.send(&sent).unwrap();
        let (came, peer) = answers.recv_from(&mut room).unwrap();
        assert!(room[..came] == sent, "{len} bytes");
        answers.send_to(&sent, peer).unwrap();
        let came = asks.recv(&mut room).unwrap();
        assert!(room[..came] == sent, "{len} bytes back");
    }
}

#[test]
fn what_taps_send_arrives_as_it_was_in_few_sends() {
    kernel_test(Kernel::Host, "packets::what_taps_send_arrives_as_it_was", || {
        let pair = Pair::in_user_space();
        assert!(pair.pings(0) && pair.pings(1));
        [0, 1].iter().for_each(|from| echo(&pair, *from));
        pour(&pair, 0, 20 << 20);
        pour(&pair, 1, 20 << 20);
        for carrier in pair.carriers.iter().flatten() {
            let counts = carrier.counts();
            let packets = counts.datapath.drops().map(|(_, count)| count).sum::<u64>();
            assert!(packets < 100, "{counts:?}");
            assert_eq!((counts.malformed, counts.too_long, counts.unwritten), (0, 0, 0), "{counts:?}");
            // 20 MiB in segments of 1,398 bytes are 15,001 packets.
            assert!(counts.frames_read < 12_000 && counts.sends < 12_000, "{counts:?}");
        }
    });
}

#[test]
fn where_the_cable_takes_one_packet_at_a_time_they_arrive_as_well() {
    kernel_test(Kernel::Host, "packets::where_the_cable_takes_one_packet_at_a_time", || {
        let pair = Pair::in_user_space();
        pair.cut_on_the_cable();
        [0, 1].iter().for_each(|from| echo(&pair, *from));
        pour(&pair, 0, 4 << 20);
    });
}

#[test]
fn a_kernel_s_vxlan_and_a_carrier_understand_each_other_with_offloads() {
    kernel_test(Kernel::Host, "packets::a_kernel_s_vxlan_and_a_carrier_understand_each_other", || {
        let pair = Pair::mixed();
        assert!(pair.pings(0) && pair.pings(1));
        [0, 1].iter().for_each(|from| echo(&pair, *from));
        pour(&pair, 0, 10 << 20);
        pour(&pair, 1, 10 << 20);
        pair.cut_on_the_cable();
        pour(&pair, 0, 2 << 20);
        pour(&pair, 1, 2 << 20);
    });
}

#[test]
fn a_connection_outlives_the_carrier() {
    kernel_test(Kernel::Host, "packets::a_connection_outlives_the_carrier", || {
        let mut pair = Pair::in_user_space();
        let listener = pair.containers[1].run(|| TcpListener::bind((inner(1), 9_000))).unwrap().unwrap();
        let mut asks = pair.containers[0].run(|| TcpStream::connect((inner(1), 9_000))).unwrap().unwrap();
        let (mut answers, _) = listener.accept().unwrap();
        answers.set_read_timeout(Some(PATIENCE)).unwrap();
        pair.carriers[0] = None; // the tap stays, and its addresses
        asks.write_all(b"before").unwrap();
        pair.carry(0);
        asks.write_all(b" and after").unwrap();
        let mut told = [0; 16];
        answers.read_exact(&mut told).unwrap();
        assert_eq!(&told, b"before and after");
        // A port that is plugged out carries nothing.
        pair.carriers[0].as_ref().unwrap().unplug(ENDPOINT);
        let begun = Instant::now();
        assert!(!pair.pings(0) && begun.elapsed() < PATIENCE);
    });
}

#[test]
fn a_tap_that_is_deleted_is_let_go_and_another_takes_its_place() {
    kernel_test(Kernel::Host, "packets::a_tap_that_is_deleted_is_let_go", || {
        let pair = Pair::in_user_space();
        assert!(pair.pings(0));
        judge(&pair.containers[0], "ip", &["link", "del", "eth0"]);
        let carrier = pair.carriers[0].as_ref().unwrap();
        let wakes = carrier.counts().wakes;
        thread::sleep(Duration::from_millis(200));
        assert!(carrier.counts().wakes < wakes + 100, "it wakes all the time: {:?}", carrier.counts());
        pair.tap(0);
        pair.plug(0);
        assert!(pair.pings(0) && pair.pings(1));
    });
}

#[test]
fn a_datagram_without_payload_is_refused_and_counted() {
    kernel_test(Kernel::Host, "packets::a_datagram_without_payload_is_refused_and_counted", || {
        let pair = Pair::in_user_space();
        let drops = || {
            let counts = pair.carriers[0].as_ref().unwrap().counts();
            counts.datapath.drops().map(|(_, count)| count).sum::<u64>()
        };
        let before = drops();
        let stranger = pair.hosts[1].run(|| UdpSocket::bind((vtep(1), 0))).unwrap().unwrap();
        (0..50).for_each(|_| assert_eq!(stranger.send_to(&[], (vtep(0), 4_789)).unwrap(), 0));
        let until = Instant::now() + PATIENCE;
        while drops() < before + 50 {
            assert!(Instant::now() < until, "{} of 50 were counted", drops() - before);
            thread::yield_now();
        }
        assert_eq!(pair.carriers[0].as_ref().unwrap().ended(), None);
    });
}
