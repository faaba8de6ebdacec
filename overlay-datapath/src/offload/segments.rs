//! One frame, cut into what goes over the wire.

use overlay_core::IpFamily;

use super::shape::{Protocol, Shape};
use super::{Checksum, Gso, GsoKind, VnetHeader};
use crate::checksum;

/// The frames that one of a TAP's stands for: itself, its checksum completed, or the segments that it is to be cut into, as a network device would have.
///
/// ```
/// use etherparse::PacketBuilder;
/// use overlay_datapath::offload::{Checksum, Gso, GsoKind, Segments, VnetHeader};
///
/// let mut frame = Vec::new();
/// let headers = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 2], [10, 0, 0, 3], 64).tcp(40_000, 80, 1, 512);
/// headers.write(&mut frame, &[7; 30])?;
/// let gso = Gso { kind: GsoKind::TcpV4, size: 12, header_len: 54, congestion: false };
/// let header = VnetHeader { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) };
///
/// let segments = Segments::new(header, &frame)?;
/// let mut room = [0; 1_600];
/// let lens: Vec<_> = (0..segments.len()).filter_map(|at| segments.write(at, &mut room)).collect();
/// assert_eq!(lens, [54 + 12, 54 + 12, 54 + 6]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Segments<'f> {
    frame: &'f [u8],
    cut: Cut,
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    /// It is one; its checksum is completed from there to there.
    One(Option<(usize, usize)>),
    /// Pieces of so many bytes of payload.
    Pieces { shape: Shape, size: usize, count: usize },
}

/// A frame that is not what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The checksum is said to be outside the frame.
    #[error("a checksum {offset} bytes behind byte {start}, the frame has {len}")]
    Checksum {
        /// Where what it covers is said to begin.
        start: u16,
        /// From there to the checksum.
        offset: u16,
        /// Bytes of the frame.
        len: usize,
    },
    /// It is to be cut as what it is not.
    #[error("the frame is no {wanted:?} packet of exact length that could be cut")]
    Shape {
        /// What the header says.
        wanted: GsoKind,
    },
    /// It would be more frames than any sender has reason to ask for.
    #[error("{found} segments, {most} are the most", most = Segments::MOST)]
    TooMany {
        /// So many.
        found: usize,
    },
}

impl<'f> Segments<'f> {
    /// The most segments of one frame: 64 KiB in the smallest that Linux cuts TCP into, and some.
    pub const MOST: usize = 2_048;

    /// Those of a frame, as its header says.
    ///
    /// # Errors
    /// [`SegmentError`]: the frame is to be dropped.
    pub fn new(header: VnetHeader, frame: &'f [u8]) -> Result<Self, SegmentError> {
        let cut = match header.gso {
            Some(gso) => pieces(gso, frame)?,
            None => Cut::One(match header.checksum {
                Checksum::Whole | Checksum::Valid => None,
                Checksum::Partial { start, offset } => {
                    let (from, at) = (usize::from(start), usize::from(start) + usize::from(offset));
                    let inside = at + 2 <= frame.len();
                    Some(inside.then_some((from, at)).ok_or(SegmentError::Checksum {
                        start,
                        offset,
                        len: frame.len(),
                    })?)
                }
            }),
        };
        Ok(Self { frame, cut })
    }

    /// How many there are: 1 to [`MOST`](Self::MOST).
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub const fn len(&self) -> usize {
        match self.cut {
            Cut::One(_) => 1,
            Cut::Pieces { count, .. } => count,
        }
    }

    /// Bytes of the longest.
    pub fn longest(&self) -> usize {
        match self.cut {
            Cut::One(_) => self.frame.len(),
            Cut::Pieces { shape, size, .. } => shape.end.min(shape.payload + size),
        }
    }

    /// Writes one, and says how long it is. `None` if there is no such, or no room.
    pub fn write(&self, at: usize, to: &mut [u8]) -> Option<usize> {
        match self.cut {
            Cut::One(sum) => (at == 0).then(|| self.write_whole(sum, to)).flatten(),
            Cut::Pieces { shape, size, count } => (at < count).then(|| self.write_piece(shape, size, at, to)).flatten(),
        }
    }

    fn write_whole(&self, sum: Option<(usize, usize)>, to: &mut [u8]) -> Option<usize> {
        let to = to.get_mut(..self.frame.len())?;
        to.copy_from_slice(self.frame);
        if let Some((from, at)) = sum {
            let sum = never_none(checksum::finish(checksum::sum(to.get(from..)?)));
            to.get_mut(at..at + 2)?.copy_from_slice(&sum.to_be_bytes());
        }
        Some(self.frame.len())
    }

    fn write_piece(&self, shape: Shape, size: usize, at: usize, to: &mut [u8]) -> Option<usize> {
        let start = shape.payload + at * size;
        let payload = self.frame.get(start..shape.end.min(start + size))?;
        let len = shape.payload + payload.len();
        let to = to.get_mut(..len)?;
        let (headers, room) = to.split_at_mut(shape.payload);
        headers.copy_from_slice(self.frame.get(..shape.payload)?);
        room.copy_from_slice(payload);
        self.number(shape, (at, size, room.len()), headers)?;
        shape.set_len(headers, len)?;
        let transport = headers.get_mut(shape.transport..)?;
        let sum_at = shape.protocol.checksum_at();
        transport.get_mut(sum_at..sum_at + 2)?.fill(0);
        // The transport header has an even length, so its sum and the payload's add up.
        let sum =
            checksum::sum(transport) + checksum::sum(room) + shape.pseudo_header(self.frame, len - shape.transport);
        let sum = match shape.protocol {
            Protocol::Tcp => checksum::finish(sum),
            Protocol::Udp => never_none(checksum::finish(sum)),
        };
        transport.get_mut(sum_at..sum_at + 2)?.copy_from_slice(&sum.to_be_bytes());
        Some(len)
    }

    /// Writes what differs from segment to segment: IPv4's identification, TCP's sequence number and flags, UDP's length.
    fn number(&self, shape: Shape, (at, size, len): (usize, usize, usize), headers: &mut [u8]) -> Option<()> {
        if shape.family == IpFamily::V4 {
            let id: &mut [u8; 2] = headers.get_mut(shape.ip + 4..)?.first_chunk_mut()?;
            *id = u16::from_be_bytes(*id).wrapping_add(at as u16).to_be_bytes();
        }
        let transport = headers.get_mut(shape.transport..)?;
        match shape.protocol {
            Protocol::Tcp => {
                let sequence: &mut [u8; 4] = transport.get_mut(4..)?.first_chunk_mut()?;
                *sequence = u32::from_be_bytes(*sequence).wrapping_add((at * size) as u32).to_be_bytes();
                let is_last = shape.payload + at * size + len == shape.end;
                let of_others = if at == 0 { 0 } else { CWR } | if is_last { 0 } else { FIN | PSH };
                *transport.get_mut(13)? &= !of_others;
            }
            Protocol::Udp => {
                let of_datagram = u16::try_from(len + shape.payload - shape.transport).ok()?;
                transport.get_mut(4..6)?.copy_from_slice(&of_datagram.to_be_bytes());
            }
        }
        Some(())
    }
}

fn pieces(gso: Gso, frame: &[u8]) -> Result<Cut, SegmentError> {
    let wanted = gso.kind;
    let shape = Shape::of(frame).filter(|shape| match wanted {
        GsoKind::TcpV4 => (shape.protocol, shape.family) == (Protocol::Tcp, IpFamily::V4),
        GsoKind::TcpV6 => (shape.protocol, shape.family) == (Protocol::Tcp, IpFamily::V6),
        GsoKind::UdpL4 => shape.protocol == Protocol::Udp,
    });
    let shape = shape.ok_or(SegmentError::Shape { wanted })?;
    let size = usize::from(gso.size).max(1);
    let count = (shape.end - shape.payload).div_ceil(size).max(1);
    if count > Segments::MOST {
        return Err(SegmentError::TooMany { found: count });
    }
    Ok(Cut::Pieces { shape, size, count })
}

/// UDP says "none" by 0, so a sum of 0 is written as what is the same in one's complement (RFC 768). TCP's is the same both ways.
const fn never_none(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

pub(super) const FIN: u8 = 1;
pub(super) const PSH: u8 = 8;
pub(super) const CWR: u8 = 0x80;
