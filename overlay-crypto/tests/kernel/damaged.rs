//! Packets that are not as they should be: refused, and counted by the kernel.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{IpFamily, Meter as _, reconcile};
use overlay_crypto::{Cipher, Numbers, SaId, Sealer, Tunnel};
use overlay_kernel::xfrm::Reading;

use crate::town::{Look, Packet, Town, datagram, port, sealed, spi};

/// A host that takes from c by one association, and c's end of it.
struct Ends {
    town: Town,
    look: Look,
    sealer: Sealer,
}

const FAMILY: IpFamily = IpFamily::V4;
const SPI: u32 = 0x1003;
const PORT: u16 = 4790;

impl Ends {
    fn new(look: Look) -> Self {
        let town = Town::new();
        let tunnel = Tunnel { port: port(PORT), local: town.a.address(FAMILY), peer: town.c.address(FAMILY) };
        reconcile(&mut town.a.xfrm(), &look.tunnel(tunnel, SPI, &[0x2000])).unwrap();
        let sealer = Sealer::new(spi(SPI), &look.key(spi(SPI)), look.numbers).unwrap();
        Self { town, look, sealer }
    }

    fn clear(&self, ports: (u16, u16), said: &[u8]) -> Packet {
        datagram(self.town.c.address(FAMILY), self.town.a.address(FAMILY), ports, said)
    }

    fn next(&mut self, said: &[u8]) -> Packet {
        let clear = self.clear((50_000, PORT), said);
        sealed(&mut self.sealer, &clear)
    }

    fn hears(&self, packet: &Packet) -> Option<Vec<u8>> {
        self.town.a.hears(PORT, &self.town.c, packet)
    }

    fn reading(&self) -> Reading {
        let id = SaId { destination: self.town.a.address(FAMILY), spi: spi(SPI) };
        self.town.a.xfrm().read().unwrap()[&id]
    }

    /// Refused, and counted as that.
    fn refuses(&self, packet: &Packet, count: &str) {
        let before = self.town.a.counted(count);
        assert_eq!(self.hears(packet), None, "{count}");
        assert_eq!(self.town.a.counted(count) - before, 1, "{count}");
    }
}

#[test]
fn each_packet_is_taken_once_in_whatever_order_and_damaged_ones_are_refused_and_counted() {
    kernel_test(Kernel::Lab, "crypto::damaged_packets_are_refused_and_counted", || {
        for cipher in Cipher::ALL {
            for numbers in [Numbers::Short, Numbers::Extended] {
                damage(&mut Ends::new(Look { cipher, numbers }));
            }
        }
    });
}

fn damage(ends: &mut Ends) {
    let packets: Vec<Packet> = (0..6_u8).map(|n| ends.next(&[n; 100])).collect();
    for at in [2, 0, 5, 1, 4, 3] {
        assert_eq!(ends.hears(&packets[at]), Some(vec![at as u8; 100]), "reordered");
    }
    for packet in &packets {
        ends.refuses(packet, "XfrmInStateSeqError");
    }
    assert_eq!((ends.reading().packets, ends.reading().replayed), (6, 6));

    let whole = ends.next(b"seven");
    for cut in [1, 4, whole.payload.len() - 28] {
        let mut packet = whole.clone();
        packet.payload.truncate(whole.payload.len() - cut);
        ends.refuses(&packet, "XfrmInStateProtoError");
    }
    for at in [4, 8, 16, whole.payload.len() - 1] {
        let mut packet = whole.clone();
        packet.payload[at] ^= 1; // the number, the IV, what is sealed, the check value
        assert_eq!(ends.hears(&packet), None, "byte {at}");
    }
    let foreign = sealed(
        &mut Sealer::new(spi(0x7777), &ends.look.key(spi(0x7777)), ends.look.numbers).unwrap(),
        &ends.clear((50_000, PORT), b"foreign"),
    );
    ends.refuses(&foreign, "XfrmInNoStates");

    let forged = ends.reading().forged;
    let mut other_key = Sealer::new(spi(SPI), &ends.look.key(spi(0x7777)), ends.look.numbers).unwrap();
    let clear = ends.clear((50_000, PORT), b"forged");
    (0..9).for_each(|_| drop(sealed(&mut other_key, &clear)));
    ends.refuses(&sealed(&mut other_key, &clear), "XfrmInStateProtoError");
    assert_eq!(ends.reading().forged - forged, 1);

    let elsewhere = ends.clear((50_000, 22), b"to another port");
    let elsewhere = sealed(&mut ends.sealer, &elsewhere);
    ends.refuses(&elsewhere, "XfrmInStateMismatch");
    assert_eq!(ends.hears(&whole), Some(b"seven".to_vec()), "nothing of that moved the window");
    late(ends);
}

/// Behind the window: with numbers of 32 bits it is known to be late, with 64 it is taken for one to come, which is not authentic.
fn late(ends: &mut Ends) {
    let old = ends.next(b"old");
    (0..1100).for_each(|_| drop(ends.next(b"lost")));
    let new = ends.next(b"new");
    assert_eq!(ends.hears(&new), Some(b"new".to_vec()));
    let before = ends.reading();
    assert_eq!(ends.hears(&old), None);
    let after = ends.reading();
    let counted = (after.late - before.late, after.forged - before.forged);
    assert_eq!(counted, if ends.look.numbers == Numbers::Short { (1, 0) } else { (0, 1) });
}
