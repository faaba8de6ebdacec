//! What is sealed is opened once, by who has the key, in whatever order it comes; all else is refused and counted.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use overlay_core::{Encapsulation, Esp, Icv, IpFamily};
use overlay_crypto::{
    Cipher, Lanes, Numbers, OpenCounts, OpenError, Opener, Openers, SaKey, Sealer, Sealers, Spi, UdpEncapsulation,
    WindowSize, sealed_len,
};
use proptest::prelude::*;

fn key(cipher: Cipher, seed: u8) -> SaKey {
    let material: Vec<u8> = (0..cipher.material_len()).map(|at| at as u8 ^ seed).collect();
    SaKey::new(cipher, &material).unwrap()
}

fn spi(number: u32) -> Spi {
    Spi::new(number).unwrap()
}

fn sealer(cipher: Cipher, numbers: Numbers) -> Sealer {
    Sealer::new(spi(0x1001), &key(cipher, 5), numbers).unwrap()
}

fn opener(cipher: Cipher, numbers: Numbers) -> Opener {
    Opener::new(spi(0x1001), &key(cipher, 5), numbers, WindowSize::MIN).unwrap()
}

fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; Sealer::HEADROOM + payload.len() + Sealer::TAILROOM];
    let range = Sealer::HEADROOM..Sealer::HEADROOM + payload.len();
    buffer[range.clone()].copy_from_slice(payload);
    let packet = sealer.seal(&mut buffer, range, 17).unwrap();
    buffer[packet].to_vec()
}

fn any_cipher() -> impl Strategy<Value = Cipher> {
    prop_oneof![Just(Cipher::Aes128Gcm), Just(Cipher::Aes256Gcm), Just(Cipher::ChaCha20Poly1305)]
}

fn any_numbers() -> impl Strategy<Value = Numbers> {
    prop_oneof![Just(Numbers::Short), Just(Numbers::Extended)]
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(
        cipher in any_cipher(),
        numbers in any_numbers(),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let packet = sealed(&mut sealer(cipher, numbers), &payload);
        prop_assert_eq!(packet.len(), sealed_len(payload.len()));
        let (mut opener, mut packet) = (opener(cipher, numbers), packet);
        let opened = opener.open(&mut packet).unwrap();
        prop_assert_eq!((&*opened.payload, opened.next_header, opened.sequence), (&payload[..], 17, 1));
    }

    /// In any order, with any repeats, and with some lost: each within the window once, in spite of forgeries between.
    #[test]
    fn each_packet_is_opened_once_in_whatever_order_it_comes(
        numbers in any_numbers(),
        order in proptest::collection::vec((0_usize..300, 0_usize..4), 1..600),
    ) {
        let mut sealer = sealer(Cipher::Aes128Gcm, numbers);
        let packets: Vec<_> = (0..300_u32).map(|number| sealed(&mut sealer, &number.to_be_bytes())).collect();
        let mut opener = opener(Cipher::Aes128Gcm, numbers);
        let (mut seen, mut expected) = ([false; 300], OpenCounts::default());
        for (number, fate) in order {
            let mut packet = packets[number].clone();
            if fate == 0 {
                packet[20] ^= 1;
            }
            let error = opener.open(&mut packet).map(|opened| opened.payload.to_vec());
            match (seen[number], fate) {
                (true, _) => {
                    prop_assert_eq!(error, Err(OpenError::Replayed { sequence: number as u64 + 1 }));
                    expected.replayed += 1;
                }
                (false, 0) => {
                    prop_assert_eq!(error, Err(OpenError::Forged));
                    expected.forged += 1;
                }
                (false, _) => {
                    prop_assert_eq!(error, Ok((number as u32).to_be_bytes().to_vec()));
                    (expected.packets, expected.bytes) = (expected.packets + 1, expected.bytes + 4);
                    seen[number] = true;
                }
            }
        }
        prop_assert_eq!(opener.counts(), expected);
    }

    /// Every bit counts: SPI, number, IV, text, check value; and so does the length.
    #[test]
    fn a_packet_that_was_changed_is_refused_and_the_true_one_is_still_taken(
        cipher in any_cipher(),
        numbers in any_numbers(),
        bit: prop::sample::Index,
        cut in 0_usize..20,
    ) {
        let mut packet = sealed(&mut sealer(cipher, numbers), b"sixteen bytes ..");
        let mut opener = opener(cipher, numbers);
        let mut changed = packet.clone();
        let bit = bit.index(packet.len() * 8);
        changed[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(opener.open(&mut changed).is_err());
        prop_assert!(opener.open(&mut packet[..packet.len() - 1 - cut].to_vec()).is_err());
        prop_assert_eq!(opener.highest(), 0);
        prop_assert!(opener.open(&mut packet).is_ok());
    }

    /// What overlay-core computes a network's MTU with.
    #[test]
    fn a_packet_is_as_long_as_the_mtu_reckons_with(inner in 0_usize..9_000, udp: bool) {
        let esp = Esp { icv: Icv::Octets16, udp_encapsulated: udp };
        let outer = Encapsulation::vxlan(IpFamily::V4).with_esp(esp).outer_len(inner);
        let encapsulated = if udp { UdpEncapsulation::LEN } else { 0 };
        prop_assert_eq!(outer, 20 + encapsulated + sealed_len(8 + 8 + 14 + inner));
    }

    #[test]
    fn no_bytes_are_taken_for_a_packet(bytes in proptest::collection::vec(any::<u8>(), 0..100), numbers in any_numbers()) {
        let mut opener = opener(Cipher::Aes256Gcm, numbers);
        prop_assert!(opener.open(&mut bytes.clone()).is_err());
        let mut ours = bytes;
        ours.iter_mut().zip(0x1001_u32.to_be_bytes()).for_each(|(to, from)| *to = from);
        prop_assert!(opener.open(&mut ours).is_err());
        prop_assert_eq!((opener.highest(), opener.counts().packets), (0, 0));
    }
}

#[test]
fn what_is_refused_is_refused_by_name_and_counted() {
    let mut sealer = sealer(Cipher::Aes256Gcm, Numbers::Extended);
    let mut opener = opener(Cipher::Aes256Gcm, Numbers::Extended);
    let packet = sealed(&mut sealer, b"abc");
    let mut refused = |packet: &[u8]| opener.open(&mut packet.to_vec()).unwrap_err();
    assert_eq!(refused(&packet[..35]), OpenError::Truncated { need: 36, have: 35 });
    assert_eq!(refused(&packet[..37]), OpenError::Alignment { have: 37 });
    let mut foreign = packet.clone();
    foreign[3] = 2;
    assert_eq!(refused(&foreign).to_string(), "it has SPI 0x00001002, no association here");
    let mut zero = packet.clone();
    zero[4..8].fill(0);
    assert_eq!(refused(&zero), OpenError::Replayed { sequence: 0 });
    let other_key = Sealer::new(spi(0x1001), &key(Cipher::Aes256Gcm, 6), Numbers::Extended);
    assert_eq!(refused(&sealed(&mut other_key.unwrap(), b"abc")), OpenError::Forged);
    let short = Sealer::new(spi(0x1001), &key(Cipher::Aes256Gcm, 5), Numbers::Short);
    assert_eq!(refused(&sealed(&mut short.unwrap(), b"abc")), OpenError::Forged);
    let expected = OpenCounts { malformed: 2, foreign: 1, replayed: 1, forged: 2, ..OpenCounts::default() };
    assert_eq!(opener.counts(), expected);
}

#[test]
fn a_dummy_packet_is_dropped_and_its_number_spent() {
    let mut buffer = [0; 64];
    let packet = sealer(Cipher::Aes128Gcm, Numbers::Extended).seal(&mut buffer, 16..20, 59).unwrap();
    let mut opener = opener(Cipher::Aes128Gcm, Numbers::Extended);
    assert_eq!(opener.open(&mut buffer[packet]).unwrap_err(), OpenError::Dummy);
    assert_eq!((opener.highest(), opener.counts().dummies, opener.counts().packets), (1, 1, 0));
}

#[test]
fn a_packet_that_is_late_by_the_window_is_refused_and_one_less_is_taken() {
    for numbers in [Numbers::Short, Numbers::Extended] {
        let mut sealer = sealer(Cipher::Aes128Gcm, numbers);
        let packets: Vec<_> = (0..1025).map(|_| sealed(&mut sealer, b"")).collect();
        let mut opener = opener(Cipher::Aes128Gcm, numbers);
        opener.open(&mut packets[1024].clone()).unwrap();
        assert_eq!(opener.open(&mut packets[0].clone()).unwrap_err(), OpenError::Replayed { sequence: 1 });
        assert_eq!(opener.open(&mut packets[1].clone()).unwrap().sequence, 2);
    }
}

#[test]
fn an_opener_is_found_by_the_packets_spi_and_strays_are_counted() {
    let cipher = Cipher::ChaCha20Poly1305;
    let mut openers = Openers::new();
    for number in 1..=3_u8 {
        let key = key(cipher, number);
        let opener = Opener::new(spi(0x1000 + u32::from(number)), &key, Numbers::Extended, WindowSize::MIN).unwrap();
        openers.insert(opener).unwrap();
    }
    let twin = Opener::new(spi(0x1002), &key(cipher, 9), Numbers::Extended, WindowSize::MIN).unwrap();
    assert_eq!(openers.insert(twin).unwrap_err().spi(), spi(0x1002));

    let mut second = Sealer::new(spi(0x1002), &key(cipher, 2), Numbers::Extended).unwrap();
    let (whose, opened) =
        openers.open(&mut sealed(&mut second, b"to the second")).map(|(spi, it)| (spi, it.payload.to_vec())).unwrap();
    assert_eq!((whose, &opened[..]), (spi(0x1002), &b"to the second"[..]));
    openers.remove(spi(0x1002)).unwrap();
    let error = openers.open(&mut sealed(&mut second, b"late")).unwrap_err();
    assert_eq!(error, OpenError::Foreign { spi: 0x1002 });
    assert_eq!(openers.open(&mut [0, 0, 0x10]).unwrap_err(), OpenError::Truncated { need: 36, have: 3 });
    assert_eq!((openers.strays().foreign, openers.strays().malformed), (1, 1));
    assert_eq!(openers.iter().map(Opener::spi).collect::<Vec<_>>(), [spi(0x1001), spi(0x1003)]);
}

#[test]
fn a_flow_stays_on_its_lane_and_flows_spread_over_all() {
    let cipher = Cipher::Aes128Gcm;
    let lane = |number: u32| Sealer::new(spi(0x1000 + number), &key(cipher, number as u8), Numbers::Extended).unwrap();
    let mut sealers = Sealers::new((0..4).map(lane).collect()).unwrap();
    assert_eq!(sealers.lanes(), Lanes::new(4).unwrap());
    for port in 49_152..49_252_u16 {
        for _ in 0..2 {
            let mut buffer = [0; 64];
            buffer[16..18].copy_from_slice(&port.to_be_bytes());
            let packet = sealers.seal(&mut buffer, 16..24).unwrap();
            assert_eq!(buffer[packet][..4], (0x1000 + u32::from(port % 4)).to_be_bytes());
        }
    }
    assert!(sealers.iter().all(|sealer| sealer.counts().packets == 50));
    assert!(sealers.seal(&mut [0; 64], 16..16).is_ok() && sealers.seal(&mut [0; 64], 60..80).is_err());
    assert!(Sealers::new(vec![lane(1), lane(2), lane(3)]).is_err());
    assert_eq!(sealers.into_lanes().len(), 4);
}

#[test]
fn nothing_that_is_printed_tells_of_a_key() {
    let shown =
        format!("{:?} {:?}", sealer(Cipher::Aes128Gcm, Numbers::Short), opener(Cipher::Aes128Gcm, Numbers::Short));
    assert!(!shown.contains("salt") && !shown.contains("key"), "{shown}");
}
