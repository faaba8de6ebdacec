//! What is sent is what arrives.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use overlay_core::ErrorKind;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::packets::{Carrier, CarrierCounts};
use overlay_kernel::testing::judge;
use overlay_kernel::{QueueFlags, TapQueue};

use crate::pair::{Kind, Pair, endpoint};

const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of which each tells where it stands.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// Sends `len` bytes by TCP and has them read at the other end, as they were.
///
/// Each time at another port: a program that a test beside this one starts holds
/// a listener until it is executed, so its port is not free at once.
fn pour(pair: &Pair, from: usize, len: usize) {
    let listener = pair.containers[1 - from].run(|| TcpListener::bind((pair.inner(1 - from), 0))).unwrap().unwrap();
    let there = listener.local_addr().unwrap();
    let reads = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).unwrap();
        told
    });
    let mut stream = pair.containers[from].run(|| TcpStream::connect(there)).unwrap().unwrap();
    let sent = text(len);
    stream.write_all(&sent).unwrap();
    drop(stream);
    assert!(reads.join().unwrap() == sent, "not what was sent");
}

/// Sends datagrams of many sizes, each answered with itself.
fn echo(pair: &Pair, from: usize) {
    let answers = pair.containers[1 - from].run(|| UdpSocket::bind((pair.inner(1 - from), 0))).unwrap().unwrap();
    let asks = pair.containers[from].run(|| UdpSocket::bind((pair.inner(from), 0))).unwrap().unwrap();
    asks.connect(answers.local_addr().unwrap()).unwrap();
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
        for v6 in [false, true] {
            let pair = Pair::mixed(Kind { v6, ..Kind::default() });
            assert!(pair.pings(0) && pair.pings(1));
            [0, 1].iter().for_each(|from| echo(&pair, *from));
            pour(&pair, 0, 10 << 20);
            pour(&pair, 1, 10 << 20);
            pair.cut_on_the_cable();
            pour(&pair, 0, 2 << 20);
            pour(&pair, 1, 2 << 20);
        }
    });
}

#[test]
fn a_connection_outlives_the_carrier() {
    kernel_test(Kernel::Host, "packets::a_connection_outlives_the_carrier", || {
        let mut pair = Pair::in_user_space();
        let listener = pair.containers[1].run(|| TcpListener::bind((pair.inner(1), 9_000))).unwrap().unwrap();
        let mut asks = pair.containers[0].run(|| TcpStream::connect((pair.inner(1), 9_000))).unwrap().unwrap();
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
        pair.carriers[0].as_ref().unwrap().unplug(endpoint(0));
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
        let until = Instant::now() + PATIENCE;
        while carrier.counts().taps_lost == 0 {
            assert!(Instant::now() < until, "nobody counted it: {:?}", carrier.counts());
            thread::yield_now();
        }
        let wakes = carrier.counts().wakes;
        thread::sleep(Duration::from_millis(200));
        assert!(carrier.counts().wakes < wakes + 100, "it wakes all the time: {:?}", carrier.counts());
        pair.tap(0);
        pair.plug(0);
        assert!(pair.pings(0) && pair.pings(1));
        assert_eq!(carrier.counts().taps_lost, 1);
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
        let stranger = pair.hosts[1].run(|| UdpSocket::bind((pair.vtep(1), 0))).unwrap().unwrap();
        (0..50).for_each(|_| assert_eq!(stranger.send_to(&[], (pair.vtep(0), 4_789)).unwrap(), 0));
        let until = Instant::now() + PATIENCE;
        while drops() < before + 50 {
            assert!(Instant::now() < until, "{} of 50 were counted", drops() - before);
            thread::yield_now();
        }
        assert_eq!(pair.carriers[0].as_ref().unwrap().ended(), None);
    });
}

#[test]
fn what_taps_send_in_ipv6_arrives_as_it_was() {
    kernel_test(Kernel::Host, "packets::what_taps_send_in_ipv6_arrives_as_it_was", || {
        let pair = Pair::of(Kind { v6: true, ..Kind::default() });
        [0, 1].iter().for_each(|from| echo(&pair, *from));
        [0, 1].iter().for_each(|from| pour(&pair, *from, 10 << 20));
        pair.cut_on_the_cable();
        [0, 1].iter().for_each(|from| pour(&pair, *from, 2 << 20));
        for counts in pair.carriers.iter().flatten().map(Carrier::counts) {
            assert!(counts.frames_read < 6_000 && counts.sends < 12_000, "{counts:?}");
        }
    });
}

#[test]
fn esp_that_is_in_no_udp_is_carried_too() {
    kernel_test(Kernel::Host, "packets::esp_that_is_in_no_udp_is_carried_too", || {
        for v6 in [false, true] {
            let pair = Pair::of(Kind { sealed: true, v6, ..Kind::default() });
            [0, 1].iter().for_each(|from| echo(&pair, *from));
            [0, 1].iter().for_each(|from| pour(&pair, *from, 4 << 20));
            for carrier in pair.carriers.iter().flatten() {
                let counts = carrier.counts();
                assert!(counts.datapath.sealed > 3_000, "{counts:?}");
                // What ends the connections may still be sealed between one count and the other.
                let used = || carrier.usage().values().map(|used| used.packets).sum::<u64>();
                let until = Instant::now() + PATIENCE;
                while used() != carrier.counts().datapath.sealed {
                    assert!(Instant::now() < until, "{} packets by usage: {:?}", used(), carrier.counts());
                    thread::yield_now();
                }
            }
        }
    });
}

#[test]
fn several_queues_carry_one_network_under_one_policy() {
    kernel_test(Kernel::Host, "packets::several_queues_carry_one_network_under_one_policy", || {
        let pair = Pair::of(Kind { more_queues: 1, guarded: true, ..Kind::default() });
        assert!(pair.pings(0) && !pair.pings(1), "only the first may begin");
        // Each connection is one of its own for who spreads them.
        (0..32).for_each(|_| pour(&pair, 0, 256 << 10));
        for carrier in pair.carriers.iter().flatten() {
            let counts = carrier.counts_by_queue();
            let works = |counts: &CarrierCounts| counts.frames_read > 0 && counts.frames_written > 0;
            assert!(counts.len() == 2 && counts.iter().all(works), "{counts:?}");
        }
    });
}

#[test]
fn several_queues_seal_by_one_sequence_of_numbers() {
    kernel_test(Kernel::Host, "packets::several_queues_seal_by_one_sequence_of_numbers", || {
        let pair = Pair::of(Kind { more_queues: 2, sealed: true, ..Kind::default() });
        [0, 1].iter().for_each(|from| echo(&pair, *from));
        let pair = &pair;
        thread::scope(|scope| [0, 1].map(|from| drop(scope.spawn(move || pour(pair, from, 4 << 20)))));
        let counts = pair.carriers.iter().flatten().map(Carrier::counts);
        let sealed: u64 = counts.map(|counts| counts.datapath.sealed).sum();
        assert!(sealed > 6_000, "{sealed}");
    });
}

#[test]
fn a_tap_of_one_queue_is_written_to_by_all() {
    kernel_test(Kernel::Host, "packets::a_tap_of_one_queue_is_written_to_by_all", || {
        let pair = Pair::of(Kind { more_queues: 1, ..Kind::default() });
        let carrier = pair.carriers[0].as_ref().unwrap();
        carrier.unplug(endpoint(0));
        judge(&pair.containers[0], "ip", &["link", "del", "eth0"]);
        pair.tap_of(0, "vnet_hdr");
        let flags = QueueFlags { vnet_hdr: true, ..QueueFlags::default() };
        let open = || TapQueue::open(&pair.containers[0], "eth0".parse().unwrap(), flags).unwrap();
        carrier.plug(endpoint(0), open()).unwrap();
        let before = carrier.counts_by_queue();
        (0..32).for_each(|_| pour(&pair, 0, 64 << 10));
        let after = carrier.counts_by_queue();
        let more = |of: fn(&CarrierCounts) -> u64| after.iter().zip(&before).filter(|(a, b)| of(a) > of(b)).count();
        assert_eq!((more(|it| it.frames_read), more(|it| it.frames_written)), (1, 2), "{after:?}");
        assert_eq!(carrier.plug_queues(endpoint(0), Vec::new()).unwrap_err().kind(), ErrorKind::Invalid);
    });
}
