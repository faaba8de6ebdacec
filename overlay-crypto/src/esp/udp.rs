//! ESP in UDP, for paths through NAT (RFC 3948).

use overlay_core::Port;
use serde::{Deserialize, Serialize};

/// The UDP header in front of an ESP packet (RFC 3948 §2.1), 8 bytes.
///
/// ```
/// use overlay_crypto::{Arrived, UdpEncapsulation};
///
/// let encapsulation = UdpEncapsulation::default();
/// let mut datagram = *b"........an ESP packet";
/// let (headroom, packet) = datagram.split_at_mut(8);
/// assert_eq!(encapsulation.prepend(headroom, packet.len()), Some(0));
/// assert_eq!(datagram[..8], [0x11, 0x94, 0x11, 0x94, 0, 21, 0, 0]);
/// assert!(matches!(Arrived::read(&mut datagram[8..]), Arrived::Esp(_)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UdpEncapsulation {
    /// The sender's port.
    pub source: Port,
    /// The receiver's port; where a NAT is between, what it made of it.
    pub destination: Port,
}

/// What came in a UDP datagram at the port of encapsulated ESP (RFC 3948 §2.2, §2.3).
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived<'p> {
    /// An ESP packet, for [`Opener::open`](crate::Opener::open).
    Esp(&'p mut [u8]),
    /// A single byte 0xff that keeps a NAT's entry alive. Nothing is to be done.
    Keepalive,
    /// Something else: of key exchange, whose marker is an SPI of 0, or too short to have an SPI.
    Other,
}

impl UdpEncapsulation {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// Writes the header at the end of `headroom`, the bytes in front of an ESP packet of `packet` bytes, and gives the offset in it where the
    /// header starts. Its checksum is 0, as it should be (RFC 3948 §2.1; RFC 6935 §5 over IPv6): the packet is authenticated. `None`, and nothing
    /// written, if there is no room or the datagram would be longer than 65,535 bytes.
    pub fn prepend(self, headroom: &mut [u8], packet: usize) -> Option<usize> {
        let length = u16::try_from(packet.checked_add(Self::LEN)?).ok()?;
        let (rest, header) = headroom.split_last_chunk_mut()?;
        let fields = [self.source.get(), self.destination.get(), length, 0];
        *header = fields.into_iter().fold(0_u64, |all, field| all << 16 | u64::from(field)).to_be_bytes();
        Some(rest.len())
    }
}

/// Port 4500 at both ends (RFC 3948 §2.1).
impl Default for UdpEncapsulation {
    fn default() -> Self {
        Self { source: NAT_TRAVERSAL, destination: NAT_TRAVERSAL }
    }
}

const NAT_TRAVERSAL: Port = match Port::new(4500) {
    Ok(port) => port,
    Err(_) => panic!("4500 is a port"),
};

impl<'p> Arrived<'p> {
    /// Tells what the payload of a datagram is.
    pub fn read(payload: &'p mut [u8]) -> Self {
        match payload {
            [0xff] => Self::Keepalive,
            [0, 0, 0, 0, ..] => Self::Other,
            [_, _, _, _, ..] => Self::Esp(payload),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_esp_is_told_from_it() {
        assert_eq!(Arrived::read(&mut [0xff]), Arrived::Keepalive);
        for other in [&mut [][..], &mut [0xfe], &mut [1, 2, 3], &mut [0, 0, 0, 0, 1, 2]] {
            assert_eq!(Arrived::read(other), Arrived::Other);
        }
        assert_eq!(Arrived::read(&mut [0, 0, 1, 0]), Arrived::Esp(&mut [0, 0, 1, 0]));
    }

    #[test]
    fn without_room_nothing_is_written() {
        let mut headroom = [7; 7];
        assert_eq!(UdpEncapsulation::default().prepend(&mut headroom, 40), None);
        assert_eq!(UdpEncapsulation::default().prepend(&mut [0; 8], 65_528), None);
        assert_eq!(UdpEncapsulation::default().prepend(&mut [0; 9], 65_527), Some(1));
        assert_eq!(headroom, [7; 7]);
    }
}
