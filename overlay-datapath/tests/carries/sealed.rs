//! Encrypted networks.

use overlay_core::Port;
use overlay_crypto::{
    Cipher, Direction, Epoch, Epochs, Numbers, Sa, SaId, SaKey, Spi, Tunnel, UdpEncapsulation, WindowSize,
};
use overlay_datapath::{Datapath, Fate, Hop, Reason, Wanted};

use crate::bytes::udp;
use crate::node::{cross, datapath, end, endpoint, nodes, send, take, vtep, wanted, with};

const PORT: u16 = 4_793;

/// A node whose network is encrypted; each makes the keys anew, as each is put to work once on a node.
pub(crate) fn sealed(node: u8, in_udp: bool) -> Wanted {
    let port = Port::new(PORT).unwrap();
    let mut wanted = with(wanted(node), |sandbox| {
        sandbox.vxlan.segments.values_mut().for_each(|segment| segment.vtep.port = port);
    });
    let (local, peer) = (vtep(node), vtep(3 - node));
    wanted.crypto.ports.insert(port);
    for (direction, source, destination) in [(Direction::In, peer, local), (Direction::Out, local, peer)] {
        let from = if source == vtep(1) { 1 } else { 2 };
        let sa = Sa {
            direction,
            source,
            port,
            numbers: Numbers::Extended,
            window: WindowSize::default(),
            udp: in_udp.then(UdpEncapsulation::default),
            limits: None,
            epochs: Epochs { sender: Epoch::FIRST, receiver: Epoch::FIRST },
            key: SaKey::new(Cipher::Aes256Gcm, &[from; 36]).unwrap(),
        };
        wanted.crypto.add(SaId { destination, spi: Spi::new(0x1000 + u32::from(from)).unwrap() }, sa).unwrap();
    }
    let spi = Spi::new(0x1000 + u32::from(node)).unwrap();
    wanted.crypto.tunnels.insert(Tunnel { port, local, peer }, vec![spi]);
    wanted
}

fn pair(in_udp: bool) -> [Datapath; 2] {
    [datapath(&sealed(1, in_udp)), datapath(&sealed(2, in_udp))]
}

#[test]
fn a_frame_crosses_in_esp_and_comes_as_it_was() {
    for in_udp in [false, true] {
        let [mut one, mut two] = pair(in_udp);
        for length in 0..40 {
            let frame = udp(end(1, 5_000), end(3, 53), &vec![b'x'; length]);
            let (fate, packet) = send(&mut one, 1, &frame);
            assert_eq!(fate, Fate::Underlay { from: vtep(1), to: vtep(2) });
            let ip = etherparse::Ipv4HeaderSlice::from_slice(&packet).unwrap().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!((ip.protocol.0, usize::from(ip.total_len)), (if in_udp { 17 } else { 50 }, packet.len()));
            assert!(!packet.windows(4).any(|four| four == &frame[..4]), "nothing of it in the clear");
            assert_eq!(take(&mut two, &packet), (Fate::Port(endpoint(3)), frame));
            assert_eq!(take(&mut two, &packet).0, Fate::Drop(Reason::Unopened), "not twice");
        }
        assert_eq!(one.counts().sealed, 40);
    }
}

#[test]
fn what_was_changed_under_way_is_not_taken() {
    let [mut one, mut two] = pair(false);
    let (_, packet) = send(&mut one, 1, &udp(end(1, 5_000), end(3, 53), b"hello"));
    for at in 20..packet.len() {
        let mut changed = packet.clone();
        changed[at] ^= 1;
        let fate = take(&mut two, &changed).0;
        assert!(matches!(fate, Fate::Drop(Reason::Unopened | Reason::ForeignSpi)), "byte {at}: {fate:?}");
    }
    assert_eq!(take(&mut two, &packet).0, Fate::Port(endpoint(3)));
}

#[test]
fn nothing_of_an_encrypted_network_passes_in_the_clear() {
    let [_, mut two] = pair(false);
    let clear = |node| {
        with(wanted(node), |sandbox| {
            sandbox.vxlan.segments.values_mut().for_each(|segment| segment.vtep.port = Port::new(PORT).unwrap());
        })
    };
    let (fate, packet) = send(&mut datapath(&clear(1)), 1, &udp(end(1, 5_000), end(3, 53), b"hello"));
    assert!(matches!(fate, Fate::Underlay { .. }));
    assert_eq!(take(&mut two, &packet).0, Fate::Drop(Reason::Clear));

    let mut lacking = sealed(1, false);
    lacking.crypto.tunnels.clear();
    let mut one = datapath(&lacking);
    assert_eq!(send(&mut one, 1, &udp(end(1, 5_000), end(3, 53), b"")).0, Fate::Drop(Reason::NoTunnel));
    let trace = one.trace(endpoint(1), &udp(end(1, 5_000), end(3, 53), b""));
    assert_eq!(trace.end(), Some(&Hop::Dropped(Reason::NoTunnel)));
    let [mut stranger, _] = nodes();
    assert!(cross((&mut stranger, 1), &mut two, &udp(end(1, 5_000), end(3, 53), b"")).is_err());
}

#[test]
fn a_key_that_was_put_to_work_elsewhere_carries_nothing_and_is_named() {
    let wanted = sealed(1, false);
    let mut first = datapath(&wanted);
    let mut second = datapath(&wanted);
    assert_eq!((first.lacking().count(), second.lacking().count()), (0, 2));
    let frame = udp(end(1, 5_000), end(3, 53), b"hello");
    assert!(matches!(send(&mut first, 1, &frame).0, Fate::Underlay { .. }));
    assert_eq!(send(&mut second, 1, &frame).0, Fate::Drop(Reason::NoAssociation));
}
