//! Flows that a policy has let begin, so that their replies pass.

mod shares;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use overlay_core::{Instant, IpFamily};
use overlay_firewall::{Ends, Flow, Frame as At, Ip, Packet, Transport};
use overlay_vxlan::{Frame, Transport as Upper};

use self::shares::Shares;
use crate::content::Contents;
use crate::datapath::Way;
use crate::tables::NetworkTable;
use crate::{Buffer, Reason};

/// The flows of all networks that have a policy. Where there is no room for another, who has begun most gives one up: so who begins many takes nobody else's.
#[derive(Debug)]
pub(crate) struct Tracker {
    flows: HashMap<Key, Entry, Keyed>,
    /// Of which no packet needs to know that is not of a flow that begins, is answered, or ends.
    shares: Shares<Key>,
    most: usize,
    swept: Instant,
    displaced: u64,
}

/// Both ends of a flow, the lower first, so that both ways are one; packed, so that it is hashed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    low: u128,
    high: u128,
    /// The network, the protocol, and both ports.
    rest: u64,
}

impl Key {
    /// That of a packet from one end to another, and whether its lower end sends it.
    #[inline(always)]
    fn between((network, family, protocol): (usize, IpFamily, u8), from: Side, to: Side) -> (Self, bool) {
        let low_sends = from <= to;
        let (low, high) = if low_sends { (from, to) } else { (to, from) };
        let ports = u64::from(low.1) << 16 | u64::from(high.1);
        let of = (network as u64) << 1 | u64::from(family == IpFamily::V6);
        (Self { low: low.0, high: high.0, rest: of << 40 | u64::from(protocol) << 32 | ports }, low_sends)
    }

    const fn network(&self) -> usize {
        (self.rest >> 41) as usize
    }

    const fn in_network(self, network: usize) -> Self {
        Self { rest: (network as u64) << 41 | self.rest & ((1 << 41) - 1), ..self }
    }

    const fn protocol(&self) -> u8 {
        (self.rest >> 32) as u8
    }

    const fn low(&self) -> End {
        (narrow(self.low), (self.rest >> 16) as u16)
    }

    const fn high(&self) -> End {
        (narrow(self.high), self.rest as u16)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.low);
        state.write_u128(self.high);
        state.write_u64(self.rest);
    }
}

type End = (IpAddr, u16);

/// An end with its address as a number.
type Side = (u128, u16);

/// An address as a number: that of IPv4 as IPv6 has it mapped, which is nobody's in a packet (RFC 4291 §2.5.5.2).
const fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

const fn narrow(address: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(address)).to_canonical()
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Whether the lower end began it.
    low_began: bool,
    replied: bool,
    /// Whether it is TCP, and an end has closed or broken it off.
    closing: bool,
    /// Where it is among its owner's.
    slot: u32,
    seen: Instant,
    /// Which tables let it pass last.
    revision: u64,
}

impl Entry {
    /// Whether it was idle for too long (RFC 5382 §5, RFC 4787 §4.3): long where both ends of a connection are there and have not closed it.
    #[inline(always)]
    fn is_over(&self, protocol: u8, now: Instant) -> bool {
        match (protocol, self.replied && !self.closing) {
            (TCP, true) => now >= self.seen + Duration::from_secs(7_440),
            (TCP, false) => now >= self.seen + Duration::from_secs(240),
            _ => now >= self.seen + Duration::from_secs(300),
        }
    }
}

/// What the policy is asked about.
pub(crate) struct Passage<'p> {
    pub(crate) table: &'p NetworkTable,
    pub(crate) revision: u64,
    pub(crate) way: &'p Way<'p>,
    pub(crate) frame: At,
    pub(crate) contents: &'p Contents,
    /// Of the contents.
    pub(crate) ip: &'p Ip,
}

impl Tracker {
    pub(crate) fn new(most: usize, seed: [u8; 32], now: Instant) -> Self {
        let flows = HashMap::with_hasher(Keyed::new(seed));
        Self { flows, shares: Shares::default(), most, swept: now, displaced: 0 }
    }

    /// Networks have other numbers from now on; the flows of those that have none are forgotten. O(flows) if one has another, else O(networks).
    pub(crate) fn follow(&mut self, numbers: &[Option<usize>]) {
        if numbers.iter().enumerate().all(|(was, is)| *is == Some(was)) {
            return;
        }
        let hasher = self.flows.hasher().clone();
        let flows = std::mem::replace(&mut self.flows, HashMap::with_hasher(hasher));
        let shares = &mut self.shares;
        let kept = flows.into_iter().filter_map(|(key, entry)| {
            let Some(network) = numbers.get(key.network()).copied().flatten() else {
                shares.end(entry.slot);
                return None;
            };
            let key = key.in_network(network);
            shares.rename(entry.slot, key);
            Some((key, entry))
        });
        self.flows.extend(kept);
    }

    /// Whether a packet, which is no fragment, may pass its network, as the policy says of its flow.
    #[inline(always)]
    pub(crate) fn pass(&mut self, passage: &Passage<'_>, buffer: &Buffer, now: Instant) -> Result<(), Reason> {
        match key_of_ports(passage.network(), passage.ip) {
            Some(found) => self.pass_in(passage, &found, now),
            None => self.pass_without_ports(passage, buffer.packet(), now),
        }
    }

    /// In a flow: its key, and whether its lower end sends the packet.
    #[inline(always)]
    fn pass_in(&mut self, passage: &Passage<'_>, found: &(Key, bool), now: Instant) -> Result<(), Reason> {
        let flow = self.flow(passage, found, now);
        passage.permits(flow)?;
        match flow {
            Flow::New => self.begin(passage, found, now),
            _ => Ok(()),
        }
    }

    #[inline(never)]
    fn pass_without_ports(&mut self, passage: &Passage<'_>, bytes: &[u8], now: Instant) -> Result<(), Reason> {
        let frame = Frame::parse(bytes).map_err(|_| Reason::Malformed)?;
        if is_error(&frame) {
            return passage.permits(self.related(passage.network(), &frame, now));
        }
        match key(passage.network(), &frame, bytes) {
            Some(found) => self.pass_in(passage, &found, now),
            None => passage.permits(Flow::New),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// How many flows had to give way to others.
    pub(crate) const fn displaced(&self) -> u64 {
        self.displaced
    }

    /// What is known of a packet's flow. One that begins a connection is asked about anew, whatever was there before.
    #[inline(always)]
    fn flow(&mut self, passage: &Passage<'_>, found: &(Key, bool), now: Instant) -> Flow {
        let (key, low_sends) = found;
        if matches!(passage.ip.transport, Transport::Tcp { begins: true, .. }) {
            return Flow::New;
        }
        let Some(entry) = self.flows.get_mut(key).filter(|entry| !entry.is_over(key.protocol(), now)) else {
            return Flow::New;
        };
        if entry.revision != passage.revision {
            if !may_still(passage, key, entry.low_began) {
                self.forget(key);
                return Flow::New;
            }
            entry.revision = passage.revision;
        }
        entry.seen = now;
        if !entry.replied && *low_sends != entry.low_began {
            entry.replied = true;
            self.shares.set_answered(entry.slot, true);
        }
        entry.closing |= passage.contents.closes;
        if entry.replied { Flow::Established } else { Flow::New }
    }

    #[inline(never)]
    fn begin(&mut self, passage: &Passage<'_>, found: &(Key, bool), now: Instant) -> Result<(), Reason> {
        let (key, low_began) = *found;
        let fresh =
            |slot| Entry { low_began, replied: false, closing: false, slot, seen: now, revision: passage.revision };
        let Some(entry) = self.flows.get_mut(&key) else {
            let who = self.who(passage);
            self.make_room(who, now)?;
            self.flows.insert(key, fresh(self.shares.begin(who, key)));
            return Ok(());
        };
        let same = entry.low_began == low_began;
        let replied = entry.replied && same && key.protocol() != TCP; // a connection that begins has no replies yet
        let slot = entry.slot;
        *entry = Entry { replied, ..fresh(slot) };
        if same {
            self.shares.set_answered(slot, replied);
            return Ok(());
        }
        self.shares.end(slot);
        let slot = self.shares.begin(self.who(passage), key);
        self.flows.insert(key, fresh(slot));
        Ok(())
    }

    /// Who begins a flow: a port here; or of what comes from elsewhere, one of some that the senders are spread over, as they are not held to be who they say.
    fn who(&self, passage: &Passage<'_>) -> u64 {
        let (hasher, segment) = (self.flows.hasher(), passage.way.segment);
        let is_here = *passage.way.from != segment.tunnel;
        let sender = if is_here { 0 } else { hasher.hash_one(passage.ip.source()) % SENDERS };
        hasher.hash_one((segment.vni.get(), passage.way.from, sender))
    }

    /// Lets a flow end for one that begins, if it must.
    fn make_room(&mut self, who: u64, now: Instant) -> Result<(), Reason> {
        if self.flows.len() < self.most {
            return Ok(());
        }
        self.sweep(now);
        while self.flows.len() >= self.most {
            let gives = self.shares.giver(who).ok_or(Reason::Full)?;
            self.forget(&gives);
            self.displaced += 1;
        }
        Ok(())
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.flows.remove(key) {
            self.shares.end(entry.slot);
        }
    }

    /// An error tells of a flow, if what it quotes is of one, and it goes to who sent that: else whoever has one flow could write to all in its name.
    fn related(&self, network: usize, frame: &Frame<'_>, now: Instant) -> Flow {
        let to = frame.ip.map(|ip| ip.destination());
        let quoted = quoted(network, frame.payload).filter(|(_, sender)| Some(*sender) == to);
        let lives = |key: &Key| self.flows.get(key).is_some_and(|entry| !entry.is_over(key.protocol(), now));
        if quoted.is_some_and(|(key, _)| lives(&key)) { Flow::Related } else { Flow::Invalid }
    }

    /// Forgets what has been idle for too long. O(flows), but not more often than once a second.
    pub(crate) fn sweep(&mut self, now: Instant) {
        if now >= self.swept + SWEEP {
            self.swept = now;
            let shares = &mut self.shares;
            self.flows.retain(|key, entry| {
                let is_over = entry.is_over(key.protocol(), now);
                if is_over {
                    shares.end(entry.slot);
                }
                !is_over
            });
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (!self.flows.is_empty()).then(|| self.swept + SWEEP.saturating_mul(30))
    }
}

impl Passage<'_> {
    const fn network(&self) -> usize {
        self.way.segment.network
    }

    #[inline(always)]
    pub(crate) fn permits(&self, flow: Flow) -> Result<(), Reason> {
        let verdict = self.table.judge.judge_frame(self.way.gate, &self.frame, &self.contents.content, flow);
        if verdict.ruling.passes() { Ok(()) } else { Err(Reason::Policy) }
    }
}

/// Whether the flow would be let begin today.
#[cold]
fn may_still(passage: &Passage<'_>, key: &Key, low_began: bool) -> bool {
    let (from, to) = if low_began { (key.low(), key.high()) } else { (key.high(), key.low()) };
    let transport = match key.protocol() {
        TCP => Transport::tcp(from.1, to.1),
        UDP => Transport::udp(from.1, to.1),
        SCTP => Transport::Sctp { source: from.1, destination: to.1 },
        58 => Transport::Icmpv6(overlay_firewall::Icmpv6::Other),
        protocol => Transport::Other(protocol),
    };
    let Some(ip) = Ip::between(from.0, to.0, transport) else { return false };
    let bridge = passage.way.segment.bridge;
    let packet = Packet::passing(bridge, bridge, ip);
    passage.table.judge.judge(&packet, Flow::New).ruling.passes()
}

/// The flow of a packet of a protocol with ports, and whether its lower end sends it.
#[inline(always)]
fn key_of_ports(network: usize, ip: &Ip) -> Option<(Key, bool)> {
    let protocol = match ip.transport {
        Transport::Tcp { .. } => TCP,
        Transport::Udp { .. } => UDP,
        Transport::Sctp { .. } => SCTP,
        _ => return None,
    };
    let (from, to) = ip.transport.ports()?;
    Some(match ip.ends {
        Ends::V4 { source, destination } => {
            let wide = |address: Ipv4Addr| address.to_ipv6_mapped().to_bits();
            Key::between((network, IpFamily::V4, protocol), (wide(source), from), (wide(destination), to))
        }
        Ends::V6 { source, destination } => {
            Key::between((network, IpFamily::V6, protocol), (source.to_bits(), from), (destination.to_bits(), to))
        }
    })
}

/// The flow of a packet of any protocol.
fn key(network: usize, frame: &Frame<'_>, bytes: &[u8]) -> Option<(Key, bool)> {
    let ip = frame.ip?;
    let ports = match frame.transport {
        Some(Upper::Icmp(_)) => {
            let id = identifier(frame, bytes)?;
            (id, id)
        }
        Some(upper) => upper.ports()?,
        None => (0, 0),
    };
    Some(of_ends(network, ip.protocol(), (ip.source(), ports.0), (ip.destination(), ports.1)))
}

fn of_ends(network: usize, protocol: u8, from: End, to: End) -> (Key, bool) {
    let of = (network, IpFamily::of(from.0), protocol);
    Key::between(of, (wide(from.0), from.1), (wide(to.0), to.1))
}

/// The identifier of an echo request or reply; other messages of ICMP have no flow of their own, but 0.
fn identifier(frame: &Frame<'_>, bytes: &[u8]) -> Option<u16> {
    let Some(Upper::Icmp(icmp)) = frame.transport else { return None };
    if !matches!(icmp.kind(), 0 | 8 | 128 | 129) {
        return Some(0);
    }
    let at = end_of(frame)?.checked_sub(frame.payload.len() + 4)?;
    bytes.get(at..)?.first_chunk().map(|id| u16::from_be_bytes(*id))
}

/// Where a frame's IP packet ends.
pub(crate) fn end_of(frame: &Frame<'_>) -> Option<usize> {
    let start = frame.ethernet.header_len();
    Some(match frame.ip? {
        overlay_vxlan::Ip::V4(v4) => start + v4.total_len(),
        overlay_vxlan::Ip::V6(v6) => start + 40 + v6.payload_len(),
    })
}

fn is_error(frame: &Frame<'_>) -> bool {
    match (frame.ip, frame.transport) {
        (Some(overlay_vxlan::Ip::V4(_)), Some(Upper::Icmp(icmp))) => matches!(icmp.kind(), 3 | 11 | 12),
        (Some(overlay_vxlan::Ip::V6(_)), Some(Upper::Icmp(icmp))) => matches!(icmp.kind(), 1..=4),
        _ => false,
    }
}

/// The flow of the packet that an error quotes, which may be cut behind its ports; with a plain header in front of them. And who sent that packet.
fn quoted(network: usize, quote: &[u8]) -> Option<(Key, IpAddr)> {
    let address = |at: usize, len: usize| {
        let bytes = quote.get(at..at + len)?;
        match len {
            4 => bytes.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
            _ => bytes.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        }
    };
    let first = *quote.first()?;
    let (protocol, from, to, at) = match first >> 4 {
        4 => (*quote.get(9)?, address(12, 4)?, address(16, 4)?, usize::from(first & 15) * 4),
        6 => (*quote.get(6)?, address(8, 16)?, address(24, 16)?, 40),
        _ => return None,
    };
    let word = |at: usize| quote.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word));
    let (source, destination) = match protocol {
        TCP | UDP | SCTP => (word(at)?, word(at + 2)?),
        1 | 58 => (word(at + 4)?, word(at + 4)?),
        _ => (0, 0),
    };
    Some((of_ends(network, protocol, (from, source), (to, destination)).0, from))
}

/// A hash that only who knows the seed can steer: packets are strangers'. Folded multiplication, as in wyhash: not for cryptography, but
/// whoever sends packets knows no key and sees no hash.
#[derive(Debug, Clone)]
struct Keyed(Folding);

impl Keyed {
    fn new(seed: [u8; 32]) -> Self {
        let word = |at: usize| seed.iter().skip(at).take(8).fold(0, |word, byte| word << 8 | u64::from(*byte));
        let mixed = |at: usize| fold(word(at) ^ 0x9e37_79b9_7f4a_7c15, word(at + 8) ^ 0xbf58_476d_1ce4_e5b9);
        Self(Folding { state: mixed(0) ^ word(24), key: mixed(16) ^ word(0) })
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folding;

    #[inline]
    fn build_hasher(&self) -> Folding {
        self.0.clone()
    }
}

/// What was hashed so far.
#[derive(Debug, Clone)]
struct Folding {
    state: u64,
    key: u64,
}

impl Hasher for Folding {
    #[inline]
    fn write_u128(&mut self, word: u128) {
        self.state = fold(self.state ^ word as u64, self.key ^ (word >> 64) as u64);
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.key);
    }

    fn write(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        bytes.chunks(8).for_each(|bytes| self.write_u64(word(bytes)));
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

/// The halves of the product, laid over each other.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
/// As which the senders elsewhere of a network count: few, so that who sends in any name has no more than so many shares.
const SENDERS: u64 = 64;
const SWEEP: Duration = Duration::from_secs(1);
