//! What a packet lies in, and what becomes of it.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use overlay_core::EndpointId;

use crate::Reason;

/// A packet with room in front of it and behind it, so that headers come and go without a copy.
///
/// The caller owns it and uses it again and again: a datapath allocates nothing for a packet.
///
/// ```
/// use overlay_datapath::{Buffer, Fate};
///
/// let mut buffer = Buffer::new(1_600);
/// buffer.fill(b"a frame")?;
/// assert_eq!((buffer.packet(), buffer.fate()), (&b"a frame"[..], Fate::Waiting));
/// buffer.room()[..4].copy_from_slice(b"next"); // as a socket reads it
/// buffer.filled(4)?;
/// assert_eq!(buffer.packet(), b"next");
/// assert_eq!(buffer.fill(&[0; 1_601]).unwrap_err().to_string(), "1601 bytes, the buffer takes 1600");
/// # Ok::<(), overlay_datapath::TooLong>(())
/// ```
#[derive(Clone)]
pub struct Buffer {
    bytes: Box<[u8]>,
    packet: Range<usize>,
    fate: Fate,
}

/// What becomes of the packet in a [`Buffer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// No datapath has seen it yet.
    Waiting,
    /// The buffer has a whole IP packet, to be sent to that node.
    Underlay {
        /// This node's address, which the packet is from.
        from: IpAddr,
        /// The other node's.
        to: IpAddr,
    },
    /// The buffer has an Ethernet frame for that endpoint: one that was sent to it, or an answer to its own.
    Port(EndpointId),
    /// Copies of it go to several, and are fetched by [`poll_transmit`](crate::Datapath::poll_transmit). The buffer is free.
    Copied,
    /// It goes no further. The buffer is free, what it has of no meaning.
    Drop(Reason),
}

/// The proof that a packet has [met](Buffer::meet) its fate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Met;

/// A packet that a buffer has no room for. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} bytes, the buffer takes {most}")]
pub struct TooLong {
    /// Bytes of the packet.
    pub found: usize,
    /// The most that the buffer takes.
    pub most: usize,
}

impl Buffer {
    /// Bytes in front of a packet that was filled in: all outer headers, ESP's in UDP included, or those of an ICMP error.
    pub const HEADROOM: usize = 128;
    /// Bytes behind the longest packet: ESP's padding, trailer and check value.
    pub const TAILROOM: usize = 32;

    /// One for packets of up to `most` bytes: frames from ports, or IP packets from the underlay, whichever are longer.
    pub fn new(most: usize) -> Self {
        let bytes = vec![0; Self::HEADROOM + most + Self::TAILROOM].into_boxed_slice();
        Self { bytes, packet: Self::HEADROOM..Self::HEADROOM, fate: Fate::Waiting }
    }

    /// Takes a copy of a packet.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn fill(&mut self, packet: &[u8]) -> Result<(), TooLong> {
        if let Some(room) = self.room().get_mut(..packet.len()) {
            room.copy_from_slice(packet);
        }
        self.filled(packet.len())
    }

    /// Where the next packet may be written, in place of this one; then [`filled`](Self::filled) says how long it is.
    pub fn room(&mut self) -> &mut [u8] {
        let end = self.bytes.len() - Self::TAILROOM;
        &mut self.bytes[Self::HEADROOM..end]
    }

    /// Says that the first `len` bytes of [`room`](Self::room) are a packet.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn filled(&mut self, len: usize) -> Result<(), TooLong> {
        let most = self.bytes.len() - Self::HEADROOM - Self::TAILROOM;
        if len > most {
            return Err(TooLong { found: len, most });
        }
        self.packet = Self::HEADROOM..Self::HEADROOM + len;
        self.fate = Fate::Waiting;
        Ok(())
    }

    /// The packet.
    pub fn packet(&self) -> &[u8] {
        self.bytes.get(self.packet.clone()).unwrap_or_default()
    }

    /// What becomes of it.
    pub const fn fate(&self) -> Fate {
        self.fate
    }

    /// Bytes of the packet.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.packet.end.saturating_sub(self.packet.start)
    }

    pub(crate) fn packet_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.packet.clone()).unwrap_or_default()
    }

    /// Where its packet's way ends: the fate is written once, and here.
    #[inline(always)]
    pub(crate) const fn meet(&mut self, fate: Fate) -> Met {
        self.fate = fate;
        Met
    }

    pub(crate) const fn met(&self) -> &Fate {
        &self.fate
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.packet.clone()
    }

    /// The bytes in front of the packet.
    pub(crate) fn headroom(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.packet.start).unwrap_or_default()
    }

    /// All bytes there are, in which [`range`](Self::range) is the packet.
    pub(crate) fn whole(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Says where the packet is; nothing if that is not in the buffer.
    pub(crate) fn set(&mut self, packet: Range<usize>) -> Option<()> {
        self.bytes.get(packet.clone())?;
        self.packet = packet;
        Some(())
    }

    /// The packet begins so many bytes earlier.
    pub(crate) fn grow(&mut self, more: usize) -> Option<()> {
        self.packet.start = self.packet.start.checked_sub(more)?;
        Some(())
    }

    /// The packet ends after so many bytes, if it is longer.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.packet.end = self.packet.end.min(self.packet.start.saturating_add(len));
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("packet", &self.packet).field("fate", &self.fate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_keeps_within_its_buffer() {
        let mut buffer = Buffer::new(10);
        buffer.fill(b"0123456789").unwrap();
        assert_eq!(buffer.fill(&[0; 11]), Err(TooLong { found: 11, most: 10 }));
        assert_eq!(buffer.packet(), b"0123456789", "what is refused changes nothing");
        assert_eq!(buffer.grow(Buffer::HEADROOM + 1), None);
        assert_eq!(buffer.set(0..Buffer::HEADROOM + 10 + Buffer::TAILROOM + 1), None);
        buffer.truncate(3);
        assert_eq!(buffer.packet(), b"012");
    }
}
