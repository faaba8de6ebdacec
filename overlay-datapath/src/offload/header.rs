//! The header in front of a TAP's frames.

/// What stands in front of each frame that a TAP with `IFF_VNET_HDR`, or a virtual machine's network device, gives and takes: `struct virtio_net_hdr`
/// (virtio 1.2 §5.1.6), little-endian, of 10 bytes.
///
/// It may be a guest's: whatever it says is held against the frame by whoever uses it.
///
/// ```
/// use overlay_datapath::offload::{Checksum, Gso, GsoKind, VnetHeader};
///
/// let header = VnetHeader {
///     checksum: Checksum::Partial { start: 34, offset: 16 },
///     gso: Some(Gso { kind: GsoKind::TcpV4, size: 1398, header_len: 66, congestion: false }),
/// };
/// let mut bytes = [0; VnetHeader::LEN];
/// header.write(&mut bytes);
/// assert_eq!(bytes, [1, 1, 66, 0, 0x76, 0x05, 34, 0, 16, 0]);
/// assert_eq!(VnetHeader::read(&bytes)?, header);
/// # Ok::<(), overlay_datapath::offload::VnetError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct VnetHeader {
    /// What is to be believed of the frame's transport checksum.
    pub checksum: Checksum,
    /// How the frame is to be cut, if it is several in one.
    pub gso: Option<Gso>,
}

/// What is known of a frame's transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Checksum {
    /// Nothing: it stands in the frame, right or wrong.
    #[default]
    Whole,
    /// It is right (`VIRTIO_NET_HDR_F_DATA_VALID`).
    Valid,
    /// It has to be completed (`VIRTIO_NET_HDR_F_NEEDS_CSUM`): the sum of all from `start` on, where the sum of the pseudo-header stands by now,
    /// belongs `offset` bytes behind `start`.
    Partial {
        /// Bytes of the frame in front of the transport header.
        start: u16,
        /// From there to the checksum: 16 in TCP, 6 in UDP.
        offset: u16,
    },
}

/// How a frame that is several in one is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gso {
    /// What it carries.
    pub kind: GsoKind,
    /// Bytes of payload of each segment, from 1; the last may have fewer.
    pub size: u16,
    /// Bytes of all headers, Ethernet's to the transport's: a hint.
    pub header_len: u16,
    /// Whether the sender takes part in congestion notification (`VIRTIO_NET_HDR_GSO_ECN`).
    pub congestion: bool,
}

/// What a frame that is several in one carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of one flow (Linux 6.2).
    UdpL4,
}

/// A header that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VnetError {
    /// Fewer bytes than it has.
    #[error("{found} bytes, a virtio_net_hdr has {}", VnetHeader::LEN)]
    Short {
        /// Bytes there.
        found: usize,
    },
    /// A kind of segmentation that was not offered.
    #[error("segmentation of kind {found}; 1 (TCP over IPv4), 4 (TCP over IPv6) and 5 (UDP) are taken")]
    Kind {
        /// The number.
        found: u8,
    },
    /// Segments without payload.
    #[error("segments of 0 bytes")]
    Size,
}

impl VnetHeader {
    /// Its bytes.
    pub const LEN: usize = 10;

    /// Reads it from the first bytes of what a TAP gave.
    ///
    /// # Errors
    /// [`VnetError`].
    pub fn read(bytes: &[u8]) -> Result<Self, VnetError> {
        let head: &[u8; Self::LEN] = bytes.first_chunk().ok_or(VnetError::Short { found: bytes.len() })?;
        let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let checksum = match head[0] {
            flags if flags & NEEDS_CSUM != 0 => Checksum::Partial { start: word(6), offset: word(8) },
            flags if flags & DATA_VALID != 0 => Checksum::Valid,
            _ => Checksum::Whole,
        };
        let (header_len, size, congestion) = (word(2), word(4), head[1] & GSO_ECN != 0);
        let kind = match head[1] & !GSO_ECN {
            0 => return Ok(Self { checksum, gso: None }),
            1 => GsoKind::TcpV4,
            4 => GsoKind::TcpV6,
            5 => GsoKind::UdpL4,
            found => return Err(VnetError::Kind { found }),
        };
        if size == 0 {
            return Err(VnetError::Size);
        }
        Ok(Self { checksum, gso: Some(Gso { kind, size, header_len, congestion }) })
    }

    /// Writes it.
    pub fn write(&self, to: &mut [u8; Self::LEN]) {
        let (flags, start, offset) = match self.checksum {
            Checksum::Whole => (0, 0, 0),
            Checksum::Valid => (DATA_VALID, 0, 0),
            Checksum::Partial { start, offset } => (NEEDS_CSUM, start, offset),
        };
        let (kind, header_len, size) = self.gso.map_or((0, 0, 0), |gso| {
            let congestion = if gso.congestion { GSO_ECN } else { 0 };
            (gso.kind.number() | congestion, gso.header_len, gso.size)
        });
        (to[0], to[1]) = (flags, kind);
        for (place, word) in to[2..].as_chunks_mut::<2>().0.iter_mut().zip([header_len, size, start, offset]) {
            *place = word.to_le_bytes();
        }
    }
}

impl GsoKind {
    const fn number(self) -> u8 {
        match self {
            Self::TcpV4 => 1,
            Self::TcpV6 => 4,
            Self::UdpL4 => 5,
        }
    }
}

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_read_is_written_as_it_was(bytes: [u8; VnetHeader::LEN]) {
            if let Ok(header) = VnetHeader::read(&bytes) {
                let mut written = [0; VnetHeader::LEN];
                header.write(&mut written);
                prop_assert_eq!(VnetHeader::read(&written), Ok(header));
            }
        }
    }

    #[test]
    fn what_is_no_header_is_said_to_be_none() {
        assert_eq!(VnetHeader::read(&[0; 9]), Err(VnetError::Short { found: 9 }));
        assert_eq!(VnetHeader::read(&[0, 3, 0, 0, 9, 0, 0, 0, 0, 0]), Err(VnetError::Kind { found: 3 }));
        assert_eq!(VnetHeader::read(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(VnetError::Size));
        assert_eq!(VnetHeader::read(&[0; 12]), Ok(VnetHeader::default()));
    }
}
