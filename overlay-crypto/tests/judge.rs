//! Scapy, another's implementation of ESP over another's ciphers, as an independent judge: it opens what we seal, and we open what it seals.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use overlay_core::testing::{Kernel, kernel_test_judged_by};
use overlay_crypto::{Arrived, Cipher, Numbers, OpenError, Opener, SaKey, Sealer, Spi, UdpEncapsulation, WindowSize};
use serde_json::{Value, json};

const SPI: u32 = 0x00c0_ffee;
const LENGTHS: [usize; 7] = [8, 9, 10, 11, 64, 1400, 8900];

#[test]
fn scapy_opens_what_we_seal_and_we_open_what_scapy_seals() {
    kernel_test_judged_by(&["scapy"], Kernel::Host, "crypto::scapy_agrees_on_esp", || {
        for cipher in Cipher::ALL {
            for numbers in [Numbers::Short, Numbers::Extended] {
                for udp in [false, true] {
                    both_ways(cipher, numbers, udp);
                }
            }
        }
    });
}

fn both_ways(cipher: Cipher, numbers: Numbers, udp: bool) {
    let material: Vec<u8> = (0..cipher.material_len() as u8).map(|at| at * 7 + 1).collect();
    let key = || SaKey::new(cipher, &material).unwrap();
    let spi = Spi::new(SPI).unwrap();
    let mut sealer = Sealer::new(spi, &key(), numbers).unwrap();
    let datagrams = LENGTHS.map(datagram);
    let sealed: Vec<String> = datagrams.iter().map(|datagram| hex(&seal(&mut sealer, datagram, udp))).collect();
    // Out of order, and with 64 bits over the end of the first 2^32.
    let extended = numbers == Numbers::Extended;
    let last = if extended { (1, 9) } else { (0, u32::MAX) };
    let sent: [(u32, u32, usize); 4] = [(0, 2, 100), (0, 1, 1400), (0, u32::MAX - 2, 8900), (last.0, last.1, 7)];
    let answer = ask(&json!({
        "cipher": cipher.to_string(), "material": hex(&material), "spi": SPI, "extended": extended, "udp": udp,
        "sealed": sealed, "numbers": sent,
    }));

    let context = format!("{cipher} {numbers:?} udp {udp}");
    let expected: Vec<String> = datagrams.iter().map(|datagram| hex(datagram)).collect();
    assert_eq!(answer["opened"], json!(expected), "{context}");
    let mut opener = Opener::new(spi, &key(), numbers, WindowSize::MIN).unwrap();
    for ((high, low, _), pair) in sent.into_iter().zip(answer["sealed"].as_array().unwrap()) {
        let [plain, packet] = [&pair[0], &pair[1]].map(|text| bytes(text.as_str().unwrap()));
        let opened = |opener: &mut Opener| {
            let mut packet = packet.clone();
            let esp = if udp { within_udp(&mut packet) } else { &mut packet };
            opener.open(esp).map(|opened| (opened.payload.to_vec(), opened.next_header, opened.sequence))
        };
        let sequence = u64::from(high) << 32 | u64::from(low);
        assert_eq!(opened(&mut opener), Ok((plain, 17, sequence)), "{context}");
        assert_eq!(opened(&mut opener), Err(OpenError::Replayed { sequence }), "{context}");
    }
    assert_eq!((opener.counts().packets, opener.counts().replayed), (4, 4));
}

/// A UDP datagram of that length in all.
fn datagram(length: usize) -> Vec<u8> {
    let header = [49_200_u16, 4790, length as u16, 0].map(u16::to_be_bytes).concat();
    header.into_iter().chain((8..length).map(|at| at as u8)).collect()
}

/// The payload of an IP packet: ESP, or UDP with ESP in it.
fn seal(sealer: &mut Sealer, datagram: &[u8], udp: bool) -> Vec<u8> {
    let start = UdpEncapsulation::LEN + Sealer::HEADROOM;
    let mut buffer = vec![0; start + datagram.len() + Sealer::TAILROOM];
    buffer[start..start + datagram.len()].copy_from_slice(datagram);
    let mut packet = sealer.seal(&mut buffer, start..start + datagram.len(), 17).unwrap();
    if udp {
        let (headroom, esp) = buffer.split_at_mut(packet.start);
        assert_eq!(esp[..4], SPI.to_be_bytes());
        packet.start = UdpEncapsulation::default().prepend(headroom, packet.len()).unwrap();
    }
    buffer[packet].to_vec()
}

fn within_udp(datagram: &mut [u8]) -> &mut [u8] {
    assert_eq!(datagram[..4], [4500_u16, 4500].map(u16::to_be_bytes).concat());
    match Arrived::read(&mut datagram[UdpEncapsulation::LEN..]) {
        Arrived::Esp(packet) => packet,
        other => panic!("{other:?}"),
    }
}

fn ask(case: &Value) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judge.py");
    let mut command = Command::new("/usr/bin/python3"); // the system's, which has the system's packages
    let mut child = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{case}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{case}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
