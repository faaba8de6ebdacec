//! Bodies for overlay-crypto: no bytes make an opener or a keyring panic or take what nobody sealed, and records are read and written alike.

use overlay_crypto::gossip::{
    GossipKey, Keyring, Purpose, Recipient, Signer, Succession, SuccessionRecord, Verifier, WrappedKey,
};
use overlay_crypto::pki::{Certificate, JoinToken, SigningRequest, UnlockKey, Voucher};
use overlay_crypto::{
    Arrived, Chance, Cipher, EpochRecord, EpochRecords, Numbers, OpenCounts, OpenError, Opener, Openers, SaKey, Sealer,
    Spi, WindowSize,
};

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] = &[
    ("crypto_gossip", gossip),
    ("crypto_open", open),
    ("crypto_pki", pki),
    ("crypto_record", record),
    ("crypto_signed", signed),
    ("crypto_succession", succession),
];

/// Packets, each after a byte that says what it is and one of its length: as they are, with our SPI in front, or sealed by the peer, and then
/// perhaps changed. What is opened is what was sealed, once; each is counted once.
fn open(data: &[u8]) {
    for (cipher, numbers) in [
        (Cipher::Aes128Gcm, Numbers::Extended),
        (Cipher::Aes256Gcm, Numbers::Short),
        (Cipher::ChaCha20Poly1305, Numbers::Extended),
    ] {
        let Ok(mut sealer) = Sealer::new(Spi::MIN, &key(cipher), numbers) else { panic!("a new key is spent") };
        let mut openers = Openers::new();
        match Opener::new(Spi::MIN, &key(cipher), numbers, WindowSize::MIN) {
            Ok(opener) => assert!(openers.insert(opener).is_ok()),
            Err(spent) => panic!("{spent}"),
        }
        let (mut rest, mut taken, mut count) = (data, 0, 0);
        while let [kind, length, after @ ..] = rest {
            let (bytes, after) = after.split_at(after.len().min(usize::from(*length)));
            rest = after;
            count += 1;
            taken += u64::from(arrive(&mut openers, &mut sealer, *kind, bytes));
        }
        let ours = openers.get(Spi::MIN).map(Opener::counts).unwrap_or_default();
        assert_eq!((ours.packets, total(ours) + total(openers.strays())), (taken, count));
    }
}

/// Whether it was opened.
fn arrive(openers: &mut Openers, sealer: &mut Sealer, kind: u8, bytes: &[u8]) -> bool {
    let (mut packet, true_one) = match kind % 4 {
        0 => (bytes.to_vec(), false),
        1 => ([&Spi::MIN.get().to_be_bytes(), bytes].concat(), false),
        two_or_three => (sealed(sealer, bytes), two_or_three == 2),
    };
    if kind % 4 == 3 {
        let at = usize::from(kind) % packet.len();
        packet[at] ^= 1 << (kind >> 5);
    }
    let highest = |openers: &Openers| openers.get(Spi::MIN).map(Opener::highest);
    let before = highest(openers);
    match Arrived::read(&mut packet.clone()) {
        Arrived::Keepalive => assert_eq!(packet, [0xff]),
        Arrived::Other => assert!(packet.len() < 4 || packet.starts_with(&[0; 4])),
        Arrived::Esp(all) => assert_eq!(all, packet),
    }
    match openers.open(&mut packet) {
        Ok((spi, opened)) => {
            assert!(true_one, "it was not sealed");
            assert_eq!((spi, &*opened.payload, opened.next_header), (Spi::MIN, bytes, 17));
            assert_eq!(opened.sequence, sealer.last());
            true
        }
        Err(error) => {
            assert!(!true_one, "{error}");
            assert_eq!(highest(openers), before, "what is not authentic moves nothing");
            assert_ne!(error, OpenError::Padding);
            false
        }
    }
}

fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    let range = Sealer::HEADROOM..Sealer::HEADROOM + payload.len();
    let mut buffer = vec![0; range.end + Sealer::TAILROOM];
    buffer[range.clone()].copy_from_slice(payload);
    match sealer.seal(&mut buffer, range, 17) {
        Ok(packet) => buffer[packet].to_vec(),
        Err(refused) => panic!("{refused}"),
    }
}

fn key(cipher: Cipher) -> SaKey {
    match SaKey::new(cipher, &[7; 36][..cipher.material_len()]) {
        Ok(key) => key,
        Err(refused) => panic!("{refused}"),
    }
}

fn total(counts: OpenCounts) -> u64 {
    let OpenCounts { packets, bytes: _, malformed, foreign, replayed, forged, padding, dummies } = counts;
    packets + malformed + foreign + replayed + forged + padding + dummies
}

/// A message of gossip: as it is, with the end of a sealed one behind, or sealed and one bit of it changed. Only what was sealed is opened.
fn gossip(data: &[u8]) {
    let keyring = |start| Keyring::new(GossipKey::from_bytes([7; 32]), &mut Chance::new([start; 32]));
    let (mut ours, mut theirs) = (keyring(1), keyring(2));
    let seal = |keyring: &mut Keyring, text: &[u8]| {
        let mut message = text.to_vec();
        assert!(keyring.seal(Purpose::Datagram, &mut message).is_ok());
        message
    };
    assert!(ours.open(Purpose::Datagram, &mut data.to_vec()).is_err(), "nobody sealed it");
    let end = seal(&mut theirs, b"").split_off(16);
    assert!(ours.open(Purpose::Datagram, &mut [data, &end].concat()).is_err(), "nobody sealed it");
    let mut message = seal(&mut theirs, data);
    let [first, second, ..] = *data else { return };
    let at = usize::from(u16::from_be_bytes([first, second])) % message.len();
    message[at] ^= 1 << (first % 8);
    assert!(ours.open(Purpose::Datagram, &mut message.clone()).is_err(), "it was changed");
    message[at] ^= 1 << (first % 8);
    assert!(ours.open(Purpose::Stream, &mut message.clone()).is_err(), "it is no stream's");
    assert_eq!(ours.open(Purpose::Datagram, &mut message).ok(), Some(ours.primary()));
    assert_eq!(message, data);
}

/// Certificates, requests, tokens, unlock keys and things locked: what is read is written as it was. The first byte says which.
fn pki(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    match kind % 4 {
        0 => {
            if let Ok(certificate) = Certificate::from_der(data) {
                assert_eq!(certificate.as_der(), data);
                assert_eq!(Certificate::from_pem(&certificate.to_pem()).ok(), Some(certificate));
            }
            let _ = Certificate::from_pem(&text);
        }
        1 => {
            if let Ok(request) = SigningRequest::from_der(data) {
                assert_eq!(request.as_der(), data);
            }
        }
        2 => {
            if let Ok(token) = text.parse::<JoinToken>() {
                assert_eq!(token.to_string(), text);
            }
        }
        _ => {
            if let Ok(key) = text.parse::<UnlockKey>() {
                assert_eq!(key.to_string(), text);
            }
        }
    }
}

/// Words on keys of gossip, wrapped keys, and files of them: what is read is written alike, nothing is opened that nobody wrapped, and no word takes the key that seals. The first byte says which.
fn succession(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(record) = SuccessionRecord::parse(data) else { return };
            assert_eq!(SuccessionRecord::parse(&record.encode()).ok(), Some(record.clone()));
            let mut keys = Succession::new(GossipKey::from_bytes([7; 32]));
            let first = keys.primary().id;
            keys.hear(&record);
            assert_eq!(keys.primary().id, first, "there is no other");
            assert!(keys.succeed(GossipKey::from_bytes([8; 32])).is_ok() && keys.primary() >= keys.floor());
            keys.hear(&record);
            assert!(keys.get(keys.primary().id).is_some());
            assert_eq!(keys.to_text().parse::<Succession>().ok().as_ref(), Some(&keys));
        }
        1 => {
            let Ok(wrapped) = WrappedKey::parse(data) else { return };
            assert_eq!(wrapped.encode(), data);
            let node = overlay_core::NodeId::from_bytes([1; 16]);
            assert!(Recipient::generate(node, &mut Chance::new([1; 32])).open(&wrapped).is_err(), "nobody wrapped it");
        }
        _ => {
            if let Ok(keys) = String::from_utf8_lossy(data).parse::<Succession>() {
                assert_eq!(keys.to_text().parse::<Succession>().ok(), Some(keys));
            }
        }
    }
}

/// A node's published keys, and one of them alone: what parses is written as it was.
fn record(data: &[u8]) {
    if let Ok(record) = EpochRecord::parse(data) {
        assert_eq!(record.encode(), data);
    }
    if let Ok(records) = EpochRecords::parse(data) {
        assert_eq!(records.encode(), data);
    }
}

/// Signatures of statements, and vouchers of who signs. The first byte says which: a signature that nobody made is not believed, nor one that was changed or is of another statement; a voucher that is read is written as
/// it was.
fn signed(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    if kind % 2 == 1 {
        if let Ok(voucher) = Voucher::parse(data) {
            assert_eq!(voucher.encode(), data);
        }
        return;
    }
    let (signer, verifier) = (Signer::from_seed(&[7; 32]), Verifier::default());
    assert!(verifier.verify(&signer.key(), b"", b"said", data).is_err(), "nobody signed it");
    let statements: Vec<&[u8]> = data.chunks(5).take(Signer::MOST).collect();
    let signatures = signer.sign(b"", &statements);
    for (statement, signature) in statements.iter().zip(&signatures) {
        assert_eq!(verifier.verify(&signer.key(), b"", statement, signature), Ok(()));
    }
    let [first, second, ..] = *data else { return };
    let (Some(mut changed), Some(statement)) = (signatures.first().cloned(), statements.first()) else { return };
    let at = usize::from(second) % changed.len();
    assert!(verifier.verify(&signer.key(), b"other", statement, &changed).is_err(), "it is of another cluster");
    changed[at] ^= 1 << (first % 8);
    // Of what was signed twice at once each signature can be the other's: its third byte says which.
    let is_the_others = at == 2 && statements.iter().filter(|it| *it == statement).count() > 1;
    assert!(is_the_others || verifier.verify(&signer.key(), b"", statement, &changed).is_err(), "it was changed");
}
