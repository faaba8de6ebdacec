//! The kernel does what the value says, packet by packet; user space seals what it opens and opens what it seals.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{IpFamily, reconcile};
use overlay_crypto::{
    Cipher, Datagram, Numbers, Opener, Reason, SaId, Sealer, Spi, State, Tunnel, Verdict, WindowSize,
};

use crate::town::{ESP, LOOK, Look, Packet, Town, UDP, address, both, datagram, port, sealed, spi};

const SAID: &[u8] = b"a datagram of some length";

/// Two tunnels to b, one of two lanes; one from c that only receives.
fn wanted(look: Look, family: IpFamily) -> State {
    let tunnel = |number, peer| Tunnel { port: port(number), local: address(1, family), peer: address(peer, family) };
    let to_b =
        both(look.tunnel(tunnel(4790, 2), 0x1001, &[0x2000, 0x2001]), look.tunnel(tunnel(4791, 2), 0x1002, &[0x2002]));
    both(to_b, look.tunnel(tunnel(4790, 3), 0x1003, &[]))
}

#[test]
fn what_leaves_is_what_the_value_says() {
    kernel_test(Kernel::Lab, "crypto::what_leaves_is_what_the_value_says", || {
        let town = Town::new();
        for (family, cipher) in [(IpFamily::V4, Cipher::Aes256Gcm), (IpFamily::V6, Cipher::ChaCha20Poly1305)] {
            let look = Look { cipher, ..LOOK };
            let state = wanted(look, family);
            reconcile(&mut town.a.xfrm(), &state).unwrap();
            let mut openers = [0x2000, 0x2001, 0x2002].map(|number| {
                let id = spi(number);
                (id, Opener::new(id, &look.key(id), look.numbers, WindowSize::MIN).unwrap())
            });
            let mut seen = [0; 3];
            for destination_port in [4789, 4790, 4791, 4792] {
                for (peer, source_port) in [(&town.b, 50_000), (&town.b, 50_001), (&town.b, 50_002), (&town.c, 50_001)]
                {
                    let (source, destination) = (town.a.address(family), peer.address(family));
                    let verdict = state.outgoing(&Datagram { source, destination, source_port, destination_port });
                    let heard = town.a.tells(peer, family, (source_port, destination_port), SAID);
                    let clear = datagram(source, destination, (source_port, destination_port), SAID);
                    seen[as_said(verdict, &heard, &clear, &mut openers)] += 1;
                }
            }
            assert_eq!(seen, [8, 6, 2], "passed, sealed, dropped");
        }
    });
}

/// Holds what was heard of a datagram against the verdict.
fn as_said(verdict: Verdict, heard: &[Packet], clear: &Packet, openers: &mut [(Spi, Opener)]) -> usize {
    match (verdict, heard) {
        (Verdict::Pass, [packet]) => {
            assert_eq!(packet.protocol, UDP);
            assert_eq!(packet.payload[8..], clear.payload[8..]);
            0
        }
        (Verdict::Seal(id), [packet]) => {
            assert_eq!((packet.protocol, &packet.payload[..4]), (ESP, &id.spi.get().to_be_bytes()[..]), "{clear:?}");
            let (_, opener) = openers.iter_mut().find(|(spi, _)| *spi == id.spi).unwrap();
            let mut bytes = packet.payload.clone();
            let opened = opener.open(&mut bytes).unwrap();
            assert_eq!((opened.next_header, &*opened.payload), (UDP, &clear.payload[..]), "with its checksum");
            1
        }
        (Verdict::Drop(_), []) => 2,
        other => panic!("{other:?} of {clear:?}"),
    }
}

#[test]
fn what_is_let_in_is_what_the_value_says() {
    kernel_test(Kernel::Lab, "crypto::what_is_let_in_is_what_the_value_says", || {
        let town = Town::new();
        for (family, cipher) in [(IpFamily::V4, Cipher::ChaCha20Poly1305), (IpFamily::V6, Cipher::Aes128Gcm)] {
            let look = Look { cipher, numbers: Numbers::Short };
            let state = wanted(look, family);
            reconcile(&mut town.a.xfrm(), &state).unwrap();
            let known = [0x1001, 0x1002, 0x1003, 0x2000, 0x3000].map(spi);
            let mut sealers = known.map(|id| Sealer::new(id, &look.key(id), look.numbers).unwrap());
            let (mut passed, mut reasons) = (0, Vec::new());
            let mut note = |verdict| match verdict {
                Verdict::Drop(reason) => reasons.push(reason),
                _ => passed += 1,
            };
            for (peer, number) in [2, 3].into_iter().flat_map(|peer| [4789, 4790, 4791].map(|port| (peer, port))) {
                let (source, destination) = (address(peer, family), address(1, family));
                let clear = datagram(source, destination, (50_000, number), SAID);
                let inside = Datagram { source, destination, source_port: 50_000, destination_port: number };
                let verdict = state.incoming(&inside);
                let hears = |packet: &Packet| town.a.hears(number, &town.c, packet).is_some();
                assert_eq!(hears(&clear), verdict == Verdict::Pass, "{clear:?} in the clear");
                note(verdict);
                for (id, sealer) in known.iter().zip(&mut sealers) {
                    let verdict = match state.sealed(destination, *id) {
                        Verdict::Open(id) => state.opened(&id, &inside),
                        refused => refused,
                    };
                    let arrived = hears(&sealed(sealer, &clear));
                    assert_eq!(arrived, verdict == Verdict::Pass, "{clear:?} by {id}: {verdict:?}");
                    note(verdict);
                }
            }
            let count = |of| reasons.iter().filter(|reason| **reason == of).count();
            let counts = [Reason::Clear, Reason::ForeignSpi, Reason::OfAnother].map(count);
            assert_eq!((passed, counts), (5, [4, 12, 15]), "2 in the clear elsewhere, one of each association");
        }
    });
}

#[test]
fn a_tunnel_that_is_closed_takes_nothing_that_its_associations_opened() {
    kernel_test(Kernel::Lab, "crypto::a_closed_tunnel_takes_nothing", || {
        let (town, family) = (Town::new(), IpFamily::V4);
        let mut state = wanted(LOOK, family);
        let clear = datagram(address(3, family), address(1, family), (50_000, 4790), SAID);
        let id = SaId { destination: clear.destination, spi: spi(0x1003) };
        let inside = Datagram {
            source: clear.source,
            destination: clear.destination,
            source_port: 50_000,
            destination_port: 4790,
        };
        let mut sealer = Sealer::new(id.spi, &LOOK.key(id.spi), LOOK.numbers).unwrap();
        let mut xfrm = town.a.xfrm();
        for open in [true, false, true] {
            let tunnel = Tunnel { port: port(4790), local: clear.destination, peer: clear.source };
            if open {
                state.tunnels.insert(tunnel, vec![]);
            } else {
                state.tunnels.remove(&tunnel);
            }
            reconcile(&mut xfrm, &state).unwrap();
            let blocked = town.a.counted("XfrmInPolBlock");
            let heard = town.a.hears(4790, &town.c, &sealed(&mut sealer, &clear));
            assert_eq!(heard.is_some(), state.opened(&id, &inside) == Verdict::Pass, "open: {open}");
            assert_eq!(town.a.counted("XfrmInPolBlock") - blocked, u64::from(!open));
        }
    });
}
