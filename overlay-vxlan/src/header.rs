//! The VXLAN header.

use overlay_core::Vni;

use crate::malformed::{Flaw, Layer, Malformed};

/// The 8 bytes between an outer UDP header and an inner Ethernet frame (RFC 7348 §5).
///
/// The I flag must be set. The other flags and the reserved fields are zero when sent and ignored when received, as the
/// RFC wants; Linux drops a packet that has any of them set and whose meaning (GBP, GPE) its device was not told.
///
/// ```
/// use overlay_core::Vni;
/// use overlay_vxlan::Header;
///
/// let header = Header { vni: Vni::new(0x1001)? };
/// let mut datagram = header.encode().to_vec();
/// assert_eq!(datagram, [0x08, 0, 0, 0, 0x00, 0x10, 0x01, 0]);
///
/// datagram.extend(b"an Ethernet frame");
/// assert_eq!(Header::parse(&datagram), Ok((header, &b"an Ethernet frame"[..])));
/// # Ok::<(), overlay_core::VniError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// The network the frame belongs to.
    pub vni: Vni,
}

impl Header {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// Reads the header and gives the inner frame that follows it, which may be empty and is not looked at.
    ///
    /// # Errors
    /// [`Flaw::Truncated`] below 8 bytes, [`Flaw::NoVni`] without the I flag, [`Flaw::ZeroVni`] for VNI 0.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let Some((header, frame)) = datagram.split_first_chunk() else {
            return Err(Flaw::Truncated { need: Self::LEN, have: datagram.len() }.at(Layer::Vxlan));
        };
        Ok((Self::read(header)?, frame))
    }

    /// The header as it is sent.
    #[inline]
    pub const fn encode(self) -> [u8; Self::LEN] {
        ((I_FLAG as u64) << 56 | (self.vni.get() as u64) << 8).to_be_bytes()
    }

    /// Appends the header to `datagram`; the inner frame comes next.
    pub fn push(self, datagram: &mut Vec<u8>) {
        datagram.extend_from_slice(&self.encode());
    }

    /// Writes the header at the end of `headroom`, the bytes in front of an inner frame, and gives the offset in it where
    /// the header starts. `None`, and nothing written, if `headroom` is shorter than [`LEN`](Self::LEN).
    ///
    /// ```
    /// use overlay_core::Vni;
    /// use overlay_vxlan::Header;
    ///
    /// let mut buffer = *b"..........an Ethernet frame";
    /// let (headroom, _frame) = buffer.split_at_mut(10);
    /// assert_eq!(Header { vni: Vni::MAX }.prepend(headroom), Some(2));
    /// assert_eq!(&buffer[2..], b"\x08\0\0\0\xff\xff\xff\0an Ethernet frame");
    /// ```
    #[inline]
    pub fn prepend(self, headroom: &mut [u8]) -> Option<usize> {
        let (rest, header) = headroom.split_last_chunk_mut()?;
        *header = self.encode();
        Some(rest.len())
    }

    #[inline]
    pub(crate) const fn read(header: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        let [flags, _, _, _, a, b, c, _] = *header;
        if flags & I_FLAG == 0 {
            return Err(Flaw::NoVni.at(Layer::Vxlan));
        }
        match Vni::new(u32::from_be_bytes([0, a, b, c])) {
            Ok(vni) => Ok(Self { vni }),
            Err(_) => Err(Flaw::ZeroVni.at(Layer::Vxlan)),
        }
    }
}

const I_FLAG: u8 = 0x08; // RFC 7348 §5: the VNI is valid

#[cfg(test)]
mod tests {
    use overlay_core::testing::any::vni;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_header_says_what_it_needs_and_has() {
        for have in 0..Header::LEN {
            let malformed = Header::parse(&[0x08; 8][..have]).unwrap_err();
            assert_eq!(malformed, Malformed { layer: Layer::Vxlan, flaw: Flaw::Truncated { need: 8, have } });
        }
    }

    #[test]
    fn a_missing_i_flag_and_vni_0_are_refused_by_name() {
        let no_flag = Header::parse(&[0xf7, 0, 0, 0, 0, 0, 1, 0]).unwrap_err();
        assert_eq!(no_flag.to_string(), "VXLAN header: its I flag is clear, it must be set");
        let zero = Header::parse(&[0x08, 0, 0, 0, 0, 0, 0, 0xff]).unwrap_err();
        assert_eq!(zero.to_string(), "VXLAN header: its VNI is 0, a network's is 1 to 16777215");
    }

    #[test]
    fn too_little_headroom_stays_untouched() {
        let mut headroom = [7; 7];
        assert_eq!(Header { vni: Vni::MAX }.prepend(&mut headroom), None);
        assert_eq!(headroom, [7; 7]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_parses_back(vni in vni(), frame in proptest::collection::vec(any::<u8>(), 0..64)) {
            let header = Header { vni };
            let mut pushed = Vec::new();
            header.push(&mut pushed);
            pushed.extend(&frame);
            prop_assert_eq!(Header::parse(&pushed), Ok((header, &frame[..])));

            let mut prepended = vec![0; 11];
            prop_assert_eq!(header.prepend(&mut prepended), Some(3));
            prop_assert_eq!(&prepended[3..], &pushed[..8]);
        }

        #[test]
        fn reserved_bits_are_ignored_and_leave_as_zero(bytes in any::<[u8; 8]>()) {
            let [flags, _, _, _, a, b, c, _] = bytes;
            match Header::parse(&bytes) {
                Ok((header, rest)) => {
                    prop_assert!(rest.is_empty());
                    prop_assert_eq!(header.encode(), [0x08, 0, 0, 0, a, b, c, 0]);
                }
                Err(_) => prop_assert!(flags & 0x08 == 0 || [a, b, c] == [0; 3]),
            }
        }
    }
}
