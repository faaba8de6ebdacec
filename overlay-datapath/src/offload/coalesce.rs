//! Many frames of a flow, made one.

use std::collections::VecDeque;

use overlay_core::IpFamily;

use super::segments::{CWR, FIN, PSH};
use super::shape::{Protocol, Shape};
use super::{Checksum, Gso, GsoKind, VnetHeader};
use crate::checksum;

/// What a [`Coalescer`] makes one of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merging {
    /// Segments of TCP.
    pub tcp: bool,
    /// Datagrams of UDP, of one length: only for who takes [`GsoKind::UdpL4`].
    pub udp: bool,
    /// How many flows are gathered at once, from 1. One more has the first of them go on.
    pub flows: usize,
}

impl Default for Merging {
    /// Both, of eight flows.
    fn default() -> Self {
        Self { tcp: true, udp: true, flows: 8 }
    }
}

/// Gathers frames on their way to one port, so that what a sender cut is given to the receiver in one piece: what network devices call GRO.
///
/// Nothing is lost by it: what [`Segments`](super::Segments) makes of a gathered frame are the frames that came, byte for byte, but for IPv4's identification where it has no
/// meaning (RFC 6864 §4). Frames of a flow stay in order. Only those are gathered whose checksum is right, that follow one another without a gap, and that differ
/// in nothing but what a cut changes; others go as they came.
///
/// ```
/// use etherparse::PacketBuilder;
/// use overlay_datapath::offload::{Coalescer, Merging};
///
/// let segment = |sequence| {
///     let mut frame = Vec::new();
///     let headers = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 2], [10, 0, 0, 3], 64);
///     headers.tcp(40_000, 80, sequence, 512).ack(9).write(&mut frame, &[7; 100]).map(|()| frame)
/// };
/// let mut coalescer = Coalescer::new(Merging::default());
/// let mut given = Vec::new();
/// for sequence in [1_000, 1_200] {
///     coalescer.push(&segment(sequence)?, |_, frame| given.push(frame.len()));
/// }
/// coalescer.flush(|_, frame| given.push(frame.len()));
/// assert_eq!(given, [154, 154]); // there is a gap between them
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Coalescer {
    merging: Merging,
    /// The one that was begun first is in front.
    trains: VecDeque<Train>,
    /// Room of those that went.
    spare: Vec<Vec<u8>>,
}

/// Frames of one flow, one behind the other.
#[derive(Debug)]
struct Train {
    /// The first frame's headers, and the payload of all.
    bytes: Vec<u8>,
    shape: Shape,
    /// Bytes of payload of each but the last.
    size: usize,
    count: usize,
}

/// What becomes of a frame beside a train of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// It is of another flow.
    Another,
    /// It is of the flow, and must go behind the train.
    Behind,
    /// It is the train's next, and there may be more.
    Next,
    /// It is the train's last.
    Last,
}

impl Coalescer {
    /// One that has gathered nothing. Each flow takes 64 KiB from its first frame on.
    pub const fn new(merging: Merging) -> Self {
        Self { merging, trains: VecDeque::new(), spare: Vec::new() }
    }

    /// Takes a frame, and gives those that are not to wait any more.
    pub fn push(&mut self, frame: &[u8], mut give: impl FnMut(VnetHeader, &[u8])) {
        let Some(shape) = Shape::of(frame) else {
            self.flush(&mut give); // it may be a part of something that must not come before what waits
            return give(VnetHeader::default(), frame);
        };
        let carried = self.carries(&shape, frame);
        let found = self.trains.iter().enumerate().find_map(|(at, train)| match train.fit(&shape, frame, carried) {
            Fit::Another => None,
            fit => Some((at, fit)),
        });
        match found {
            Some((at, fit @ (Fit::Next | Fit::Last))) => {
                if let Some(train) = self.trains.get_mut(at) {
                    train.append(&shape, frame);
                }
                if fit == Fit::Last {
                    self.release(at, &mut give);
                }
                return;
            }
            Some((at, _)) => self.release(at, &mut give),
            None => {}
        }
        match carried {
            Carried::Whole(checksum) => give(VnetHeader { checksum, gso: None }, frame),
            Carried::Gathered => {
                if self.trains.len() >= self.merging.flows.max(1) {
                    self.release(0, &mut give);
                }
                let room = self.spare.pop().unwrap_or_default();
                self.trains.push_back(Train::begin(room, shape, frame));
            }
        }
    }

    /// Gives all that waits: at the end of a batch.
    pub fn flush(&mut self, mut give: impl FnMut(VnetHeader, &[u8])) {
        while !self.trains.is_empty() {
            self.release(0, &mut give);
        }
    }

    fn release(&mut self, at: usize, give: &mut impl FnMut(VnetHeader, &[u8])) {
        let Some(mut train) = self.trains.remove(at) else { return };
        let header = train.finish();
        give(header, &train.bytes);
        train.bytes.clear();
        self.spare.push(train.bytes);
    }

    /// Whether a frame may be gathered with others, and what is known of its checksum.
    fn carries(&self, shape: &Shape, frame: &[u8]) -> Carried {
        let wanted = match shape.protocol {
            Protocol::Tcp => {
                self.merging.tcp
                    && frame.get(shape.transport + 13).is_some_and(|flags| flags & LONE == 0 && flags & ACK != 0)
            }
            Protocol::Udp => self.merging.udp && frame.get(shape.transport + 6..shape.transport + 8) != Some(&[0; 2]),
        };
        let may = wanted && shape.plain && shape.payload < shape.end && !is_fragmentable_v4(shape, frame);
        if !may {
            return Carried::Whole(Checksum::Whole);
        }
        let datagram = frame.get(shape.transport..shape.end).unwrap_or_default();
        let sum = checksum::sum(datagram) + shape.pseudo_header(frame, datagram.len());
        if checksum::finish(sum) != 0 || !has_right_header(shape, frame) {
            return Carried::Whole(Checksum::Whole);
        }
        let ends = shape.protocol == Protocol::Tcp
            && frame.get(shape.transport + 13).is_some_and(|flags| flags & (FIN | PSH) != 0);
        if ends { Carried::Whole(Checksum::Valid) } else { Carried::Gathered }
    }
}

/// How a frame goes that fits nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    /// At once.
    Whole(Checksum),
    /// With those that follow it.
    Gathered,
}

impl Train {
    fn begin(mut bytes: Vec<u8>, shape: Shape, frame: &[u8]) -> Self {
        bytes.reserve(MOST + shape.ip);
        bytes.extend_from_slice(frame.get(..shape.end).unwrap_or_default());
        Self { bytes, shape, size: shape.end - shape.payload, count: 1 }
    }

    fn fit(&self, shape: &Shape, frame: &[u8], carried: Carried) -> Fit {
        if !self.is_flow_of(shape, frame) {
            return Fit::Another;
        }
        let len = shape.end - shape.payload;
        let fits = len != 0
            && len <= self.size
            && carried != Carried::Whole(Checksum::Whole)
            && self.bytes.len() + len - self.shape.ip <= MOST
            && self.is_next(shape, frame) == Some(true);
        let udp_full = self.shape.protocol == Protocol::Udp && self.count + 1 >= MOST_DATAGRAMS;
        match fits {
            false => Fit::Behind,
            true if len < self.size || carried != Carried::Gathered || udp_full => Fit::Last,
            true => Fit::Next,
        }
    }

    /// Of the same addresses and ports.
    fn is_flow_of(&self, shape: &Shape, frame: &[u8]) -> bool {
        let ends = |shape: &Shape, bytes: &[u8]| {
            let ports: &[u8; 4] = bytes.get(shape.transport..)?.first_chunk()?;
            Some((shape.family, shape.protocol, *ports))
        };
        ends(&self.shape, &self.bytes) == ends(shape, frame)
            && self.shape.addresses(&self.bytes) == shape.addresses(frame)
    }

    /// Whether it is what comes behind what is here, and has the same headers but for what a cut changes.
    fn is_next(&self, shape: &Shape, frame: &[u8]) -> Option<bool> {
        let (first, ip, transport) = (&self.bytes, shape.ip, shape.transport);
        let same = |from: usize, to: usize| first.get(from..to) == frame.get(from..to);
        let word = |bytes: &[u8], at: usize| bytes.get(at..)?.first_chunk().map(|it| u16::from_be_bytes(*it));
        let ip_is_same = match shape.family {
            // Type of service; flags; time to live, protocol. Not its length, its identification and its checksum.
            IpFamily::V4 => same(ip, ip + 2) && same(ip + 6, ip + 10),
            IpFamily::V6 => same(ip, ip + 4) && same(ip + 6, ip + 8),
        };
        if !(same(0, ip) && ip_is_same && shape.payload == self.shape.payload) {
            return Some(false);
        }
        Some(match shape.protocol {
            Protocol::Udp => true,
            Protocol::Tcp => {
                let sequence =
                    |bytes: &[u8]| bytes.get(transport + 4..)?.first_chunk().map(|it| u32::from_be_bytes(*it));
                let carried = u32::try_from(first.len() - self.shape.payload).ok()?;
                let flags = (word(first, transport + 12)? ^ word(frame, transport + 12)?) & !u16::from(FIN | PSH);
                sequence(frame)? == sequence(first)?.wrapping_add(carried)
                    && flags == 0
                    && same(transport + 8, transport + 12) // what is acknowledged
                    && same(transport + 14, transport + 16) // the window
                    && same(transport + 18, shape.payload) // urgent pointer, options: timestamps too
            }
        })
    }

    fn append(&mut self, shape: &Shape, frame: &[u8]) {
        self.bytes.extend_from_slice(frame.get(shape.payload..shape.end).unwrap_or_default());
        self.count += 1;
        if let (Protocol::Tcp, Some(flags)) = (shape.protocol, frame.get(shape.transport + 13))
            && let Some(ours) = self.bytes.get_mut(shape.transport + 13)
        {
            *ours |= flags & (FIN | PSH);
        }
    }

    /// Makes the headers those of all.
    fn finish(&mut self) -> VnetHeader {
        let whole = VnetHeader { checksum: Checksum::Valid, gso: None };
        if self.count == 1 {
            return whole;
        }
        self.seal().unwrap_or(whole)
    }

    fn seal(&mut self) -> Option<VnetHeader> {
        let (shape, len) = (self.shape, self.bytes.len());
        let of_datagram = len - shape.transport;
        shape.set_len(&mut self.bytes, len)?;
        if shape.protocol == Protocol::Udp {
            let field = self.bytes.get_mut(shape.transport + 4..shape.transport + 6)?;
            field.copy_from_slice(&u16::try_from(of_datagram).ok()?.to_be_bytes());
        }
        let pseudo = !checksum::finish(shape.pseudo_header(&self.bytes, of_datagram));
        let sum_at = shape.transport + shape.protocol.checksum_at();
        self.bytes.get_mut(sum_at..sum_at + 2)?.copy_from_slice(&pseudo.to_be_bytes());
        let kind = match (shape.protocol, shape.family) {
            (Protocol::Udp, _) => GsoKind::UdpL4,
            (Protocol::Tcp, IpFamily::V4) => GsoKind::TcpV4,
            (Protocol::Tcp, IpFamily::V6) => GsoKind::TcpV6,
        };
        let (size, header_len) = (u16::try_from(self.size).ok()?, u16::try_from(shape.payload).ok()?);
        let start = u16::try_from(shape.transport).ok()?;
        let checksum = Checksum::Partial { start, offset: shape.protocol.checksum_at() as u16 };
        Some(VnetHeader { checksum, gso: Some(Gso { kind, size, header_len, congestion: false }) })
    }
}

/// Whether routers may cut it, so that its identification has a meaning that gathering would lose.
fn is_fragmentable_v4(shape: &Shape, frame: &[u8]) -> bool {
    const DF: u8 = 0x40;
    shape.family == IpFamily::V4 && frame.get(shape.ip + 6).is_none_or(|flags| flags & DF == 0)
}

fn has_right_header(shape: &Shape, frame: &[u8]) -> bool {
    let header = frame.get(shape.ip..shape.transport).unwrap_or_default();
    shape.family == IpFamily::V6 || checksum::finish(checksum::sum(header)) == 0
}

/// Bytes of an IP packet.
const MOST: usize = 65_535;
/// As many datagrams as Linux cuts one into (`UDP_MAX_SEGMENTS`).
const MOST_DATAGRAMS: usize = 64;
const ACK: u8 = 0x10;
/// What never goes with others: URG, RST, SYN, and CWR, which a cut leaves to the first.
const LONE: u8 = CWR | 0x20 | 4 | 2;
