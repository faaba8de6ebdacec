//! XFRM's messages (`linux/xfrm.h`), written and read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::IpFamily;
use zeroize::Zeroizing;

use super::{
    Action, Aead, Direction, Lifetimes, Limits, Mode, Policy, PolicyKey, Ports, Reading, Sa, SaId, Selector, Template,
    UdpPorts,
};
use crate::netlink::{Attribute, Body, Flags, Malformed, Message, Requests};

/// An association as it was read; nothing of one that no state can have.
#[derive(Debug)]
pub(super) struct FoundSa {
    pub(super) id: SaId,
    pub(super) reqid: u32,
    pub(super) sa: Option<Sa>,
    pub(super) reading: Reading,
}

/// A policy as it was read; nothing of one that no state can have.
#[derive(Debug)]
pub(super) struct FoundPolicy {
    pub(super) priority: u32,
    pub(super) known: Option<(PolicyKey, Policy)>,
}

pub(super) fn sas() -> Requests {
    Requests::one(GET_SA, Flags::NONE, |_| {})
}

pub(super) fn policies() -> Requests {
    Requests::one(GET_POLICY, Flags::NONE, |_| {})
}

pub(super) fn get_sa(id: &SaId) -> Requests {
    Requests::one(GET_SA, Flags::NONE, |body| sa_id(body, id))
}

pub(super) fn remove_sa(id: &SaId) -> Requests {
    Requests::one(DEL_SA, Flags::NONE, |body| sa_id(body, id))
}

pub(super) fn get_policy(key: &PolicyKey) -> Requests {
    Requests::one(GET_POLICY, Flags::NONE, |body| policy_id(body, key))
}

pub(super) fn remove_policy(key: &PolicyKey) -> Requests {
    Requests::one(DEL_POLICY, Flags::NONE, |body| policy_id(body, key))
}

/// `struct xfrm_usersa_info` and its attributes, with the key.
pub(super) fn add_sa(id: &SaId, sa: &Sa, key: &[u8]) -> Requests {
    Requests::one(NEW_SA, Flags::CREATE | Flags::EXCLUSIVE, |body| {
        match &sa.selector {
            Some(selector) => self::selector(body, selector),
            None => drop(body.raw(&[0; 40]).raw(&family(id.destination).to_ne_bytes()).raw(&[0; 14])), // all
        }
        body.raw(&octets(id.destination)).raw(&id.spi.to_be_bytes()).raw(&[IPPROTO_ESP, 0, 0, 0]);
        body.raw(&octets(sa.source));
        limits(body, &sa.lifetimes);
        body.raw(&[0; 32 + 12 + 4]).raw(&sa.reqid.to_ne_bytes()).raw(&family(id.destination).to_ne_bytes());
        body.raw(&[mode(sa.mode), 0, if sa.extended { ESN } else { 0 }]).raw(&[0; 7]);
        let mut aead = Zeroizing::new(Vec::with_capacity(72 + key.len()));
        aead.extend(padded(sa.aead.name()));
        [bits(key.len()), ICV_BITS].iter().for_each(|word| aead.extend(word.to_ne_bytes()));
        aead.extend(key);
        body.attribute(ALGORITHM_AEAD, &aead);
        let (low, high) = (sa.counted as u32, (sa.counted >> 32) as u32);
        let words = sa.window.div_ceil(32);
        let mut replay = Vec::with_capacity(24 + 4 * words as usize);
        [words, low, low, high, high, sa.window].iter().for_each(|word| replay.extend(word.to_ne_bytes()));
        replay.resize(24 + 4 * words as usize, 0);
        body.attribute(REPLAY_ESN, &replay);
        if let Some(UdpPorts { source, destination }) = sa.udp {
            let mut encap = UDP_ENCAP_ESPINUDP.to_ne_bytes().to_vec();
            [source, destination].iter().for_each(|port| encap.extend(port.to_be_bytes()));
            encap.resize(24, 0); // two bytes of padding, no original address
            body.attribute(ENCAP, &encap);
        }
    })
}

/// An association that no kernel makes, as it has extended numbers and no window; what is wrong besides is said before.
pub(super) fn add_impossible_sa(family: IpFamily, aead: Aead) -> Requests {
    let (source, destination): (IpAddr, IpAddr) = match family {
        IpFamily::V4 => (Ipv4Addr::new(127, 0, 0, 8).into(), Ipv4Addr::new(127, 0, 0, 9).into()),
        IpFamily::V6 => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
    };
    let sa = Sa {
        source,
        reqid: 1,
        mode: Mode::Transport,
        aead,
        extended: true,
        window: 0,
        lifetimes: Lifetimes::default(),
        udp: None,
        selector: None,
        counted: 0,
        key: None,
    };
    add_sa(&SaId { destination, spi: 256 }, &sa, &vec![0; aead.material_len()])
}

/// `struct xfrm_userpolicy_info` and its templates.
pub(super) fn put_policy(key: &PolicyKey, policy: &Policy, replace: bool) -> Requests {
    let kind = if replace { UPDATE_POLICY } else { NEW_POLICY };
    Requests::one(kind, Flags::CREATE | Flags::EXCLUSIVE, |body| {
        selector(body, &key.selector);
        limits(body, &Lifetimes::default());
        let action = if policy.action == Action::Block { BLOCK } else { ALLOW };
        body.raw(&[0; 32]).raw(&policy.priority.to_ne_bytes()).raw(&[0; 4]);
        body.raw(&[direction(key.direction), action, flags(key.direction, action), 0]).raw(&[0; 4]);
        if let Action::Protect(templates) = &policy.action {
            body.attribute(TEMPLATES, &templates.iter().flat_map(template).collect::<Vec<_>>());
        }
    })
}

fn template(template: &Template) -> Vec<u8> {
    let Template { source, destination, reqid, spi, mode } = template;
    let mut bytes = octets(*destination).to_vec();
    bytes.extend(spi.unwrap_or(0).to_be_bytes());
    bytes.extend([IPPROTO_ESP, 0, 0, 0]);
    bytes.extend(family(*source).to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(octets(*source));
    bytes.extend(reqid.to_ne_bytes());
    bytes.extend([self::mode(*mode), 0, 0, 0]);
    bytes.extend([0xff; 12]); // any algorithm
    bytes
}

fn sa_id(body: &mut Body<'_>, id: &SaId) {
    body.raw(&octets(id.destination)).raw(&id.spi.to_be_bytes()).raw(&family(id.destination).to_ne_bytes());
    body.raw(&[IPPROTO_ESP, 0]);
}

fn policy_id(body: &mut Body<'_>, key: &PolicyKey) {
    selector(body, &key.selector);
    body.raw(&[0; 4]).raw(&[direction(key.direction), 0, 0, 0]);
}

fn selector(body: &mut Body<'_>, selector: &Selector) {
    let Selector { source, destination, protocol, source_port, destination_port } = selector;
    body.raw(&octets(destination.addr())).raw(&octets(source.addr()));
    for ports in [destination_port, source_port] {
        let Ports { bits, mask } = ports.unwrap_or(Ports { bits: 0, mask: 0 });
        body.raw(&bits.to_be_bytes()).raw(&mask.to_be_bytes());
    }
    body.raw(&family(source.addr()).to_ne_bytes()).raw(&[destination.prefix_len(), source.prefix_len(), *protocol]);
    body.raw(&[0; 3 + 8]);
}

fn limits(body: &mut Body<'_>, lifetimes: &Lifetimes) {
    let Lifetimes { soft, hard } = lifetimes;
    let of = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    for value in [of(soft.bytes), of(hard.bytes), of(soft.packets), of(hard.packets)] {
        body.raw(&value.to_ne_bytes());
    }
    for value in [soft.seconds, hard.seconds, None, None] {
        body.raw(&value.unwrap_or(0).to_ne_bytes());
    }
}

/// An association in a dump or an answer.
pub(super) fn parse_sa(message: &Message<'_>) -> Result<Option<FoundSa>, Malformed> {
    if message.kind != NEW_SA {
        return Ok(None);
    }
    let head = message.head::<SA_HEAD>()?;
    let family = half(&head, 212);
    let at = |start| address(&head, start, family);
    let (Some(destination), Some(source)) = (at(56), at(80)) else { return Ok(None) };
    let id = SaId { destination, spi: u32::from_be_bytes(part(&head, 72)) };
    let reqid = word(&head, 208);
    let mut reading = Reading {
        bytes: long(&head, 160),
        packets: long(&head, 168),
        replayed: word(&head, 196),
        ..Reading::default()
    };
    (reading.late, reading.forged) = (word(&head, 192), word(&head, 200));
    let attributes = SaAttributes::read(message, &mut reading)?;
    if !attributes.has_algorithm {
        return Ok(None); // none yet: what the kernel asks those for who agree on keys, and forgets
    }
    let lifetimes = read_limits(&head, 96);
    let mode = read_mode(head[214]);
    let known = head[76] == IPPROTO_ESP && head[216] & !ESN == 0 && !attributes.unknown;
    let selector = read_selector(&head);
    let sa = match (attributes.aead, attributes.window, mode, lifetimes, selector) {
        (Some(aead), Some(window), Some(mode), Some(lifetimes), Some(selector)) if known => Some(Sa {
            source,
            reqid,
            mode,
            aead,
            extended: head[216] & ESN != 0,
            window,
            lifetimes,
            udp: attributes.udp,
            selector: (!is_all(&selector)).then_some(selector),
            counted: 0,
            key: None,
        }),
        _ => None,
    };
    Ok(Some(FoundSa { id, reqid, sa, reading }))
}

/// What a notice says of an association that expires: which, whose, and whether it is gone.
pub(super) fn parse_expiry(message: &Message<'_>) -> Result<Option<(SaId, u32, bool)>, Malformed> {
    if message.kind != EXPIRE {
        return Ok(None);
    }
    let head = message.head::<{ SA_HEAD + 8 }>()?;
    let Some(destination) = address(&head, 56, half(&head, 212)) else { return Ok(None) };
    let id = SaId { destination, spi: u32::from_be_bytes(part(&head, 72)) };
    Ok(Some((id, word(&head, 208), head[SA_HEAD] != 0)))
}

#[derive(Default)]
struct SaAttributes {
    aead: Option<Aead>,
    window: Option<u32>,
    udp: Option<UdpPorts>,
    has_algorithm: bool,
    unknown: bool,
}

impl SaAttributes {
    fn read(message: &Message<'_>, reading: &mut Reading) -> Result<Self, Malformed> {
        let mut found = Self::default();
        for attribute in message.attributes(SA_HEAD)? {
            let attribute = attribute?;
            found.has_algorithm |= ALGORITHMS.contains(&attribute.kind);
            match attribute.kind {
                ALGORITHM_AEAD => found.aead = read_aead(&attribute),
                REPLAY_ESN => {
                    let head: [u8; 24] = first(&attribute)?;
                    found.window = Some(word(&head, 20));
                    reading.sent = u64::from(word(&head, 12)) << 32 | u64::from(word(&head, 4));
                    reading.received = u64::from(word(&head, 16)) << 32 | u64::from(word(&head, 8));
                }
                ENCAP => {
                    let head: [u8; 6] = first(&attribute)?;
                    let port = |at| u16::from_be_bytes([head[at], head[at + 1]]);
                    found.udp = Some(UdpPorts { source: port(2), destination: port(4) });
                    found.unknown |=
                        half(&head, 0) != UDP_ENCAP_ESPINUDP || attribute.value.iter().skip(8).any(|byte| *byte != 0);
                }
                HARMLESS_LAST_USED | HARMLESS_PAD | HARMLESS_THRESHOLD | HARMLESS_DIRECTION => {}
                _ => found.unknown = true,
            }
        }
        Ok(found)
    }
}

fn read_aead(attribute: &Attribute<'_>) -> Option<Aead> {
    let head: [u8; 72] = attribute.value.first_chunk().copied()?;
    let (key_bits, icv) = (word(&head, 64), word(&head, 68));
    let is_it = |aead: &Aead| head[..64] == padded(aead.name()) && key_bits == bits(aead.material_len());
    Aead::ALL.into_iter().find(is_it).filter(|_| icv == ICV_BITS)
}

/// A policy in a dump or an answer.
pub(super) fn parse_policy(message: &Message<'_>) -> Result<Option<FoundPolicy>, Malformed> {
    if message.kind != NEW_POLICY {
        return Ok(None);
    }
    let head = message.head::<POLICY_HEAD>()?;
    let Some(direction) = read_direction(head[160]) else { return Ok(None) }; // a socket's own
    let priority = word(&head, 152);
    let (mut templates, mut strange) = (Some(Vec::new()), false);
    for attribute in message.attributes(POLICY_HEAD)? {
        let attribute = attribute?;
        match attribute.kind {
            TEMPLATES => templates = attribute.value.chunks(TEMPLATE).map(read_template).collect(),
            POLICY_TYPE => strange |= attribute.value.first() != Some(&0),
            HARMLESS_LAST_USED | HARMLESS_PAD => {}
            _ => strange = true,
        }
    }
    let action = match (head[161], templates) {
        (BLOCK, Some(templates)) if templates.is_empty() => Some(Action::Block),
        (ALLOW, Some(templates)) if !templates.is_empty() => Some(Action::Protect(templates)),
        _ => None,
    };
    let plain = !strange
        && head[162..164] == [flags(direction, head[161]), 0]
        && read_limits(&head, 56) == Some(Lifetimes::default());
    let known = read_selector(&head).zip(action).filter(|_| plain);
    let known = known.map(|(selector, action)| (PolicyKey { direction, selector }, Policy { priority, action }));
    Ok(Some(FoundPolicy { priority, known }))
}

fn read_template(bytes: &[u8]) -> Option<Template> {
    let bytes: [u8; TEMPLATE] = bytes.try_into().ok()?;
    let family = half(&bytes, 24);
    let spi = u32::from_be_bytes(part(&bytes, 16));
    let plain = bytes[20] == IPPROTO_ESP && bytes[49..51] == [0, 0] && bytes[52..].iter().all(|byte| *byte == 0xff);
    plain.then_some(Template {
        source: address(&bytes, 28, family)?,
        destination: address(&bytes, 0, family)?,
        reqid: word(&bytes, 44),
        spi: (spi != 0).then_some(spi),
        mode: read_mode(bytes[48])?,
    })
}

/// `struct xfrm_selector`, with which both heads begin.
fn read_selector(head: &[u8]) -> Option<Selector> {
    let family = half(head, 40);
    let net = |at, length| IpNet::new(address(head, at, family)?, length).ok();
    let ports = |at| match [at, at + 2].map(|at| u16::from_be_bytes(part(head, at))) {
        [_, 0] => None,
        [bits, mask] => Some(Ports { bits, mask }),
    };
    let [destination, source, protocol] = part(head, 42);
    let plain = part::<8>(head, 48) == [0; 8]; // no interface, no user
    plain.then_some(Selector {
        source: net(16, source)?,
        destination: net(0, destination)?,
        protocol,
        source_port: ports(36),
        destination_port: ports(32),
    })
}

fn is_all(selector: &Selector) -> bool {
    let Selector { source, destination, protocol, source_port, destination_port } = selector;
    let ports = [source_port, destination_port].into_iter().all(Option::is_none);
    source.prefix_len() == 0 && destination.prefix_len() == 0 && *protocol == 0 && ports
}

fn read_limits(head: &[u8], at: usize) -> Option<Lifetimes> {
    let amount = |index: usize| Some(long(head, at + 8 * index)).filter(|value| *value != u64::MAX);
    let seconds = |index: usize| Some(long(head, at + 8 * index)).filter(|value| *value != 0);
    let soft = Limits { bytes: amount(0), packets: amount(2), seconds: seconds(4) };
    let hard = Limits { bytes: amount(1), packets: amount(3), seconds: seconds(5) };
    (seconds(6).is_none() && seconds(7).is_none()).then_some(Lifetimes { soft, hard })
}

fn first<const N: usize>(attribute: &Attribute<'_>) -> Result<[u8; N], Malformed> {
    attribute.value.first_chunk().copied().ok_or(Malformed::new("a cut attribute of XFRM"))
}

/// `N` bytes from `at` on: zeros where there are none, which heads of a fixed length never lack.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(part(bytes, at))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(part(bytes, at))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(part(bytes, at))
}

fn address(bytes: &[u8], at: usize, family: u16) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(part::<4>(bytes, at)).into()),
        AF_INET6 => Some(Ipv6Addr::from(part::<16>(bytes, at)).into()),
        _ => None,
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}

const fn family(address: IpAddr) -> u16 {
    match IpFamily::of(address) {
        IpFamily::V4 => AF_INET,
        IpFamily::V6 => AF_INET6,
    }
}

fn padded(name: &str) -> [u8; 64] {
    let mut padded = [0; 64];
    padded.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    padded
}

const fn bits(bytes: usize) -> u32 {
    bytes as u32 * 8
}

const fn mode(mode: Mode) -> u8 {
    match mode {
        Mode::Transport => 0,
        Mode::Tunnel => 1,
    }
}

const fn read_mode(byte: u8) -> Option<Mode> {
    match byte {
        0 => Some(Mode::Transport),
        1 => Some(Mode::Tunnel),
        _ => None,
    }
}

/// What blocks what leaves blocks errors about what came the other way too: they quote it, opened if it was sealed.
const fn flags(direction: Direction, action: u8) -> u8 {
    if matches!(direction, Direction::Out) && action == BLOCK { OF_ERRORS } else { 0 }
}

const fn direction(direction: Direction) -> u8 {
    match direction {
        Direction::In => 0,
        Direction::Out => 1,
        Direction::Forward => 2,
    }
}

const fn read_direction(byte: u8) -> Option<Direction> {
    match byte {
        0 => Some(Direction::In),
        1 => Some(Direction::Out),
        2 => Some(Direction::Forward),
        _ => None,
    }
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_ESP: u8 = 50;
const UDP_ENCAP_ESPINUDP: u16 = 2;
const ICV_BITS: u32 = 128;
const SA_HEAD: usize = 224;
const POLICY_HEAD: usize = 168;
const TEMPLATE: usize = 64;
const ESN: u8 = 128; // XFRM_STATE_ESN
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;
const OF_ERRORS: u8 = 2; // XFRM_POLICY_ICMP

// Messages.
const NEW_SA: u16 = 0x10;
const DEL_SA: u16 = 0x11;
const GET_SA: u16 = 0x12;
const NEW_POLICY: u16 = 0x13;
const DEL_POLICY: u16 = 0x14;
const GET_POLICY: u16 = 0x15;
const EXPIRE: u16 = 0x18;
const UPDATE_POLICY: u16 = 0x19;

// Attributes.
const ENCAP: u16 = 4;
const TEMPLATES: u16 = 5;
const HARMLESS_THRESHOLD: u16 = 11;
const HARMLESS_LAST_USED: u16 = 15;
const POLICY_TYPE: u16 = 16;
const ALGORITHM_AEAD: u16 = 18;
const ALGORITHMS: [u16; 5] = [1, 2, 3, ALGORITHM_AEAD, 20]; // of authentication, encryption, compression
const REPLAY_ESN: u16 = 23;
const HARMLESS_PAD: u16 = 27;
const HARMLESS_DIRECTION: u16 = 33;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Messages;
    use crate::xfrm::testing;

    fn read<T>(requests: &Requests, parse: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>) -> T {
        let mut bytes = Vec::new();
        requests.copy_all(&mut bytes);
        parse(&Messages::new(&bytes).next().unwrap().unwrap()).unwrap().unwrap()
    }

    proptest! {
        /// What the kernel answers has the form of what makes it.
        #[test]
        fn what_is_written_is_what_is_read(state in testing::state(true), counted: u64) {
            for (id, sa) in &state.sas {
                let sa = Sa { counted, ..sa.clone() };
                let found = read(&add_sa(id, &sa, &vec![9; sa.aead.material_len()]), parse_sa);
                prop_assert_eq!((found.id, found.reqid, found.sa), (*id, sa.reqid, Some(sa)));
                prop_assert_eq!((found.reading.sent, found.reading.received), (counted, counted));
            }
            for (key, policy) in &state.policies {
                let found = read(&put_policy(key, policy, false), parse_policy);
                prop_assert_eq!(found.known, Some((*key, policy.clone())));
            }
        }

        #[test]
        fn no_bytes_make_a_reader_panic(kind in 0_usize..3, bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let requests = Requests::one([NEW_SA, NEW_POLICY, EXPIRE][kind], Flags::NONE, |body| {
                body.raw(&bytes);
            });
            let mut bytes = Vec::new();
            requests.copy_all(&mut bytes);
            for message in Messages::new(&bytes).flatten() {
                let _ = (parse_sa(&message), parse_policy(&message), parse_expiry(&message));
            }
        }
    }
}
