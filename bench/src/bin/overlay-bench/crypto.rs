//! `crypto`: ESP in memory, and plans of tunnels' protection.
//!
//! Payload bytes per second on one core. The yardstick is the same library's AEAD alone, over as many bytes: no header, no padding, no replay
//! window, nothing authenticated besides; a second one is given padding, trailer and 12 bytes to authenticate, so what is between the two is the cipher's. All work through the same 64 buffers in turn, by the same rounds. Opening spoils a packet, so packets are
//! sealed anew outside the measurement.
//!
//! `gossip-seal`, `gossip-open-of-1000`: a datagram of 1,400 bytes by a keyring, what it opens of 1,000 nodes in turn; the yardstick is the same AEAD alone. `gossip-wrap-1000`: the next key
//! wrapped for 1,000 nodes, beside as many secrets made and agreed with.
//!
//! `xfrm-plan-1000`, as root: what protects tunnels to 1,000 peers, lowered to XFRM's objects and planned, from nothing; `-next-epoch` in place of
//! the present, `-nothing` where it is there already. `rotate-1000`: the three plans of a rotation, one after the other, without the keys' own making, which `agree` measures. The yardstick is a copy of the objects. Nothing is carried out.

#![expect(clippy::expect_used, reason = "values that are right by construction")]

use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use overlay_bench::{Bench, Pace};
use overlay_core::{ErrorKind, Lower as _, NetworkId, NodeId, Owner, Port, State as _};
use overlay_crypto::gossip::{Generation, GossipKey, Keyring, Purpose, Recipient, WrappedKey};
use overlay_crypto::kernel::{Esp, Xfrm};
use overlay_crypto::{
    Chance, Cipher, Direction, Epoch, EpochSecret, Epochs, Lane, Numbers, Opener, Sa, SaId, SaKey, Sealer, Spi, State,
    Tunnel, Use, WindowSize, sealed_len,
};
use overlay_kernel::{Namespace, xfrm};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    for (cipher, suffix) in
        [(Cipher::Aes256Gcm, ""), (Cipher::Aes128Gcm, "-aes128"), (Cipher::ChaCha20Poly1305, "-chacha20")]
    {
        for size in [64, 1400, 8900] {
            seal(bench, cipher, size, suffix)?;
            open(bench, cipher, size, suffix)?;
        }
    }
    gossip_seal(bench)?;
    gossip_open(bench)?;
    gossip_wrap(bench)?;
    crate::pki::run(bench)?;
    crate::control::handshake(bench)?;
    plan(bench)?;
    xfrm_plan(bench)?;
    agree(bench)
}

const RING: usize = 64;
const ALONE: &str = "ring's AEAD alone";
const AS_MUCH: &str = "ring's AEAD over all that ESP has it do";

fn seal(bench: &mut Bench<'_>, cipher: Cipher, size: usize, suffix: &str) -> io::Result<()> {
    let round = round(bench.pace());
    let mut buffers = [(); 3].map(|()| buffers(size));
    let [ours, bare, full] = &mut buffers;
    let mut sealer = sealer(cipher);
    let (mut alone, mut as_much) = (Bare::alone(cipher), Bare::as_much(cipher));
    let none = |_: &mut [u8]| {};
    bench
        .figure(format!("crypto/esp-seal-{size}{suffix}"), "Gb/s")
        .measured(move || {
            gigabits(size, round, ours, none, |buffer| {
                black_box(sealer.seal(black_box(buffer), 16..16 + size, 17).is_ok());
            })
        })
        .yardstick_measured(ALONE, move || {
            gigabits(size, round, bare, none, |buffer| alone.seal(black_box(buffer), size))
        })
        .yardstick_measured(AS_MUCH, move || {
            gigabits(size, round, full, none, |buffer| as_much.seal(black_box(buffer), size))
        })
        .report()
}

fn open(bench: &mut Bench<'_>, cipher: Cipher, size: usize, suffix: &str) -> io::Result<()> {
    let round = round(bench.pace());
    let mut buffers = [(); 3].map(|()| buffers(size));
    let [ours, bare, full] = &mut buffers;
    let mut sealer = sealer(cipher);
    let mut opener = Opener::new(Spi::MIN, &key(cipher), Numbers::Extended, WindowSize::default()).expect("a new key");
    let packet = sealed_len(size);
    let bare_one = |ends: fn(Cipher) -> Bare| (ends(cipher), ends(cipher));
    let ((mut seals, mut opens), (mut seals_all, mut opens_all)) = (bare_one(Bare::alone), bare_one(Bare::as_much));
    bench
        .figure(format!("crypto/esp-open-{size}{suffix}"), "Gb/s")
        .measured(move || {
            let prepare = |buffer: &mut [u8]| assert!(sealer.seal(buffer, 16..16 + size, 17).is_ok());
            gigabits(size, round, ours, prepare, |buffer| {
                assert!(opener.open(black_box(&mut buffer[..packet])).is_ok());
            })
        })
        .yardstick_measured(ALONE, move || {
            let prepare = |buffer: &mut [u8]| seals.seal(buffer, size);
            gigabits(size, round, bare, prepare, |buffer| opens.open(black_box(buffer), size))
        })
        .yardstick_measured(AS_MUCH, move || {
            let prepare = |buffer: &mut [u8]| seals_all.seal(buffer, size);
            gigabits(size, round, full, prepare, |buffer| opens_all.open(black_box(buffer), size))
        })
        .report()
}

/// A datagram of gossip, as full as most are; beside it, the AEAD alone.
fn gossip_seal(bench: &mut Bench<'_>) -> io::Result<()> {
    let round = round(bench.pace());
    let [mut ours, mut bare] = [(); 2].map(|()| buffers(DATAGRAM));
    let (mut keyring, mut alone) = (keyring(1), Bare::alone(Cipher::Aes256Gcm));
    bench
        .figure("crypto/gossip-seal", "ns")
        .measured(move || {
            seconds(round, &mut ours, plain, |message| {
                black_box(keyring.seal(Purpose::Datagram, black_box(message)).is_ok());
            })
        })
        .yardstick_measured(ALONE, move || {
            seconds(round, &mut bare, |_| {}, |buffer| alone.seal(black_box(buffer), DATAGRAM))
        })
        .report()
}

/// The same, of one of 1,000 nodes in turn.
fn gossip_open(bench: &mut Bench<'_>) -> io::Result<()> {
    let round = round(bench.pace());
    let [mut ours, mut bare] = [(); 2].map(|()| buffers(DATAGRAM));
    let (mut all, mut keyring) = ((0..1000).map(keyring).collect::<Vec<_>>(), keyring(1000));
    let (mut seals, mut opens) = (Bare::alone(Cipher::Aes256Gcm), Bare::alone(Cipher::Aes256Gcm));
    let mut next = 0;
    bench
        .figure("crypto/gossip-open-of-1000", "ns")
        .measured(move || {
            let prepare = |message: &mut Vec<u8>| {
                plain(message);
                next = (next + 1) % all.len();
                assert!(all[next].seal(Purpose::Datagram, message).is_ok());
            };
            seconds(round, &mut ours, prepare, |message| {
                assert!(keyring.open(Purpose::Datagram, black_box(message)).is_ok());
            })
        })
        .yardstick_measured(ALONE, move || {
            let prepare = |buffer: &mut Vec<u8>| seals.seal(buffer, DATAGRAM);
            seconds(round, &mut bare, prepare, |buffer| opens.open(black_box(buffer), DATAGRAM))
        })
        .report()
}

/// The next key on its way to 1,000 nodes; beside it, the X25519 that it takes.
fn gossip_wrap(bench: &mut Bench<'_>) -> io::Result<()> {
    const NODES: u16 = 1000;
    let id = |node: u16| NodeId::from_bytes(u128::from(node).to_be_bytes());
    let all: Vec<_> = (1..=NODES).map(|node| Recipient::generate(id(node), &mut chance(node))).collect();
    let secret = |node: u16| EpochSecret::generate(id(node), Epoch::FIRST, |to| chance(node).draw(to));
    let theirs = secret(u16::MAX).record();
    let (key, mut ours) = (GossipKey::from_bytes([7; 32]), chance(0));
    let generation = Generation { number: 2, id: key.id() };
    bench
        .figure("crypto/gossip-wrap-1000", "ms")
        .once(
            || (),
            |()| {
                let wrap = |to: &Recipient| WrappedKey::wrap(&key, generation, (to.node(), to.public()), &mut ours);
                all.iter().map(wrap).collect::<Result<Vec<_>, _>>().expect("all are keys")
            },
        )
        .yardstick_once(
            "1,000 secrets of X25519, each made and agreed with",
            || (),
            |()| {
                let agreed = |node| secret(node).agree(id(u16::MAX), theirs).expect("a key");
                (1..=NODES).map(agreed).collect::<Vec<_>>()
            },
        )
        .report()
}

const DATAGRAM: usize = 1400;

/// A message that is not sealed yet, with room for its seal.
fn plain(message: &mut Vec<u8>) {
    message.resize(DATAGRAM, 0x5a);
    message.reserve(Keyring::OVERHEAD);
}

/// Of one of many nodes, each its own: who would draw like another had the other's key.
fn chance(node: u16) -> Chance {
    let mut start = [0; 32];
    start[..2].copy_from_slice(&node.to_be_bytes());
    Chance::new(start)
}

/// That of one of many nodes.
fn keyring(node: u16) -> Keyring {
    Keyring::new(GossipKey::from_bytes([7; 32]), &mut chance(node))
}

/// How many seconds one takes: works through all buffers, prepared first, again and again for `round` of measured time.
fn seconds(
    round: Duration,
    buffers: &mut [Vec<u8>],
    mut prepare: impl FnMut(&mut Vec<u8>),
    mut work: impl FnMut(&mut Vec<u8>),
) -> f64 {
    let (mut took, mut count) = (Duration::ZERO, 0_u32);
    while took < round {
        buffers.iter_mut().for_each(&mut prepare);
        let start = now();
        buffers.iter_mut().for_each(&mut work);
        took += start.elapsed();
        count += buffers.len() as u32;
    }
    took.as_secs_f64() / f64::from(count)
}

/// The same as payload bits per second.
fn gigabits(
    size: usize,
    round: Duration,
    buffers: &mut [Vec<u8>],
    mut prepare: impl FnMut(&mut [u8]),
    mut work: impl FnMut(&mut [u8]),
) -> f64 {
    let each = seconds(round, buffers, |buffer| prepare(buffer), |buffer| work(buffer));
    (size * 8) as f64 / each / 1e9
}

/// Room for a packet of that payload, each in its own place.
fn buffers(size: usize) -> Vec<Vec<u8>> {
    vec![vec![0x5a; Sealer::HEADROOM + size + Sealer::TAILROOM]; RING]
}

fn key(cipher: Cipher) -> SaKey {
    SaKey::new(cipher, &[7; 36][..cipher.material_len()]).expect("its length")
}

fn sealer(cipher: Cipher) -> Sealer {
    Sealer::new(Spi::MIN, &key(cipher), Numbers::Extended).expect("a new key")
}

/// The library's AEAD with a counter for a nonce.
struct Bare {
    key: LessSafeKey,
    next: u64,
    besides: &'static [u8],
}

impl Bare {
    fn alone(cipher: Cipher) -> Self {
        Self::new(cipher, &[])
    }

    fn as_much(cipher: Cipher) -> Self {
        Self::new(cipher, &[7; 12])
    }

    fn new(cipher: Cipher, besides: &'static [u8]) -> Self {
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &AES_128_GCM,
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, &[7; 32][..cipher.key_len()]).expect("its length");
        Self { key: LessSafeKey::new(key), next: 0, besides }
    }

    fn nonce(&mut self) -> Nonce {
        self.next += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.next.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Bytes to encrypt for a payload of that many.
    fn text(&self, size: usize) -> usize {
        if self.besides.is_empty() { size } else { sealed_len(size) - 32 }
    }

    fn seal(&mut self, buffer: &mut [u8], size: usize) {
        let nonce = self.nonce();
        let (text, tag) = buffer[16..].split_at_mut(self.text(size));
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(self.besides), text).expect("it is short");
        tag[..16].copy_from_slice(sealed.as_ref());
    }

    fn open(&mut self, buffer: &mut [u8], size: usize) {
        let (nonce, text) = (self.nonce(), self.text(size));
        let opened = self.key.open_in_place(nonce, Aad::from(self.besides), &mut buffer[16..16 + text + 16]);
        assert!(opened.is_ok_and(|opened| opened.len() == text));
    }
}

/// What protects tunnels to 1,000 peers, from nothing, and a later epoch of them in place of the present.
fn plan(bench: &mut Bench<'_>) -> io::Result<()> {
    let (none, now, later) = (State::default(), protected(1, 1..=1), protected(2, 1..=2));
    bench.figure("crypto/sa-plan-1000", "ms").once(|| (), |()| none.plan(&now)).report()?;
    bench.figure("crypto/sa-plan-1000-next-epoch", "ms").once(|| (), |()| now.plan(&later)).report()?;
    bench.figure("crypto/sa-check-1000", "ms").once(|| (), |()| assert_eq!(later.check(), Ok(()))).report()
}

fn xfrm_plan(bench: &mut Bench<'_>) -> io::Result<()> {
    let opened = Namespace::create().and_then(|home| Xfrm::open(&owner(), home));
    let xfrm = match opened {
        Err(error) if [ErrorKind::Permission, ErrorKind::Unsupported].contains(&error.kind()) => {
            eprintln!("crypto: no figure of XFRM without root and XFRM: {error}");
            return Ok(());
        }
        opened => opened.map_err(io::Error::other)?.with_esp(Esp::default()),
    };
    let lowered = |state: &State| xfrm.lower(state).expect("a kernel with all ESP can have it").into_owned();
    let (none, now, later) = (State::default(), protected(1, 1..=1), protected(2, 1..=2));
    for (suffix, from, to) in [("", &none, &now), ("-next-epoch", &now, &later), ("-nothing", &now, &now)] {
        let (from, copied) = (lowered(from), lowered(to));
        bench
            .figure(format!("crypto/xfrm-plan-1000{suffix}"), "ms")
            .once(|| (), |()| from.plan(&lowered(to)))
            .yardstick_once("a copy of the objects", || (), |()| copied.clone())
            .report()?;
    }
    rotate(bench, lowered)
}

/// One rotation: what the next key needs, what it is sealed with, what goes with the old one; each lowered and planned.
fn rotate(bench: &mut Bench<'_>, lowered: impl Fn(&State) -> xfrm::State) -> io::Result<()> {
    let stages = [protected(1, 1..=1), protected(1, 1..=2), protected(2, 1..=2), protected(2, 2..=2)];
    let held: Vec<xfrm::State> = stages.iter().map(&lowered).collect();
    let all = || held.iter().zip(&stages[1..]).map(|(from, to)| from.plan(&lowered(to))).collect::<Vec<_>>();
    bench
        .figure("crypto/rotate-1000", "ms")
        .once(|| (), |()| all())
        .yardstick_once("three copies of the objects", || (), |()| held[1..].to_vec())
        .report()
}

fn owner() -> Owner {
    Owner::new("bench".parse().expect("a name"), "a".parse().expect("a name"))
}

fn protected(sends: u32, epochs: std::ops::RangeInclusive<u32>) -> State {
    let port = Port::new(4790).expect("a port");
    let local = IpAddr::from([10, 0, 0, 1]);
    let mut state = State { ports: [port].into(), ..State::default() };
    for peer in 0..1000_u32 {
        let tunnel = Tunnel { port, local, peer: Ipv4Addr::from(0x0a01_0000 + peer).into() };
        let spi = |epoch: u32, direction| {
            Spi::of_chance((peer + 1) << 8 | epoch << 4 | u32::from(direction == Direction::In))
        };
        for epoch in epochs.clone() {
            for direction in [Direction::In, Direction::Out] {
                let (source, destination) = match direction {
                    Direction::In => (tunnel.peer, local),
                    Direction::Out => (local, tunnel.peer),
                };
                let spi = spi(epoch, direction);
                let mut material = [7; 36];
                material[..4].copy_from_slice(&spi.get().to_be_bytes());
                let number = Epoch::new(epoch.into()).expect("above 0");
                let sa = Sa {
                    direction,
                    source,
                    port,
                    numbers: Numbers::Extended,
                    window: WindowSize::default(),
                    limits: None,
                    udp: None,
                    epochs: Epochs { sender: number, receiver: number },
                    key: SaKey::new(Cipher::Aes256Gcm, &material).expect("its length"),
                };
                state.sas.insert(SaId { destination, spi }, sa);
            }
        }
        state.tunnels.insert(tunnel, vec![spi(sends, Direction::Out)]);
    }
    state
}

/// All keys of one network with one peer: the secret, and both directions' keys.
fn agree(bench: &mut Bench<'_>) -> io::Result<()> {
    let secret = |node: u8| {
        EpochSecret::generate(NodeId::from_bytes([node; 16]), Epoch::FIRST, |bytes: &mut [u8]| bytes.fill(node))
    };
    let (mut ours, theirs) = (secret(1), secret(2).record());
    let mut peer = 0_u128;
    let network = NetworkId::from_bytes([9; 16]);
    bench
        .figure("crypto/agree", "us")
        .each(|_| {
            peer += 1;
            let mut pair = ours.agree(NodeId::from_bytes((peer << 64).to_be_bytes()), theirs).expect("a new peer");
            for direction in [Direction::In, Direction::Out] {
                let r#use = Use { network, lane: Lane::default(), direction };
                black_box(pair.issue(r#use, Cipher::Aes256Gcm).expect("a new use"));
            }
        })
        .report()
}

const fn round(pace: Pace) -> Duration {
    match pace {
        Pace::Full => Duration::from_millis(15),
        Pace::Quick => Duration::from_micros(1_500),
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
