//! Sealing packets.

use std::fmt;
use std::ops::Range;

use super::{ALIGN, Aead, HEADER, ICV, IV, Numbers, TRAILER};
use crate::{SaKey, Spent, Spi};

/// Seals packets of one security association, in place.
///
/// It counts from 1 and sends each number once, as IV too: a nonce is the key's salt and that number, so no two packets have one. AES-GCM
/// and ChaCha20-Poly1305 need no more of an IV than that it never comes twice with a key (RFC 4106 §3.1, RFC 7634 §2), and a counter that begins with
/// the key and is nowhere else promises just that, where 64 random bits would not. A sealer is made from a key that nobody had before and cannot
/// be copied; there is none that begins at another number.
///
/// ```
/// use overlay_crypto::{Cipher, Numbers, SaKey, Sealer, Spi};
///
/// let key = SaKey::new(Cipher::Aes256Gcm, &[7; 36])?; // a test's: others come of a Pair
/// let mut sealer = Sealer::new(Spi::new(0x1001)?, &key, Numbers::Extended)?;
///
/// let mut buffer = [0; 16 + 11 + 21]; // headroom, a UDP datagram of 11 bytes, tailroom
/// buffer[16..27].copy_from_slice(b"\xc0\x00\x12\xb5\x00\x0b\0\0abc");
/// let packet = sealer.seal(&mut buffer, 16..27, 17)?;
/// assert_eq!(packet.len(), overlay_crypto::sealed_len(11));
/// assert_eq!(buffer[packet][..8], [0, 0, 0x10, 1, 0, 0, 0, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sealer {
    aead: Aead,
    last: u64,
    limit: u64,
    counts: SealCounts,
}

/// What a [`Sealer`] has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SealCounts {
    /// Packets sealed.
    pub packets: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// Why a packet was not sealed. Nothing was written and no number spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The association has sent all it may: the next number would be a repeat, or past the limit. It needs a new key.
    #[error("all {limit} sequence numbers are spent, a new key is needed")]
    Exhausted {
        /// How many packets it was to send.
        limit: u64,
    },
    /// The payload is not a range of the buffer.
    #[error("bytes {start} to {end} are not in a buffer of {have}")]
    Range {
        /// Where it starts.
        start: usize,
        /// Where it ends.
        end: usize,
        /// The buffer's length.
        have: usize,
    },
    /// Too few bytes in front of the payload.
    #[error("{need} bytes are needed in front of the payload, {have} are there")]
    Headroom {
        /// Bytes needed: [`Sealer::HEADROOM`].
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// Too few bytes behind the payload.
    #[error("{need} bytes are needed behind the payload, {have} are there")]
    Tailroom {
        /// Bytes needed: at most [`Sealer::TAILROOM`].
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// More than an IP packet carries.
    #[error("a payload of {have} bytes, {most} are the most", most = Sealer::MAX_PAYLOAD)]
    TooLong {
        /// Bytes of the payload.
        have: usize,
    },
}

/// Bytes of the ESP packet that carries a payload of `payload` bytes: header, IV, padding to 4 bytes, trailer, check value.
pub const fn sealed_len(payload: usize) -> usize {
    HEADER + IV + payload + padding(payload) + TRAILER + ICV
}

const fn padding(payload: usize) -> usize {
    payload.wrapping_neg().wrapping_sub(TRAILER) % ALIGN
}

impl Sealer {
    /// Bytes needed in front of a payload: SPI, sequence number, IV.
    pub const HEADROOM: usize = HEADER + IV;
    /// Bytes needed behind a payload at most: padding, trailer, integrity check value.
    pub const TAILROOM: usize = ALIGN - 1 + TRAILER + ICV;
    /// The longest payload whose ESP packet fits the length field of IPv6; over IPv4, the packet's header takes of it.
    pub const MAX_PAYLOAD: usize = {
        let room = u16::MAX as usize - (HEADER + IV + ICV);
        room - room % ALIGN - TRAILER
    };

    /// A sealer that begins with sequence number 1, and takes the key.
    ///
    /// # Errors
    /// [`Spent`] if the key was put to work before.
    pub fn new(spi: Spi, key: &SaKey, numbers: Numbers) -> Result<Self, Spent> {
        let limit = numbers.last();
        Ok(Self { aead: Aead::new(spi, key, numbers)?, last: 0, limit, counts: SealCounts::default() })
    }

    /// The same, to send no more than `packets`, if there are so many numbers: [`exhausted`](SealError::Exhausted) thereafter. How many keep
    /// the cipher's bounds is told in SECURITY.md.
    #[must_use]
    pub fn with_limit(self, packets: u64) -> Self {
        let limit = packets.min(self.aead.numbers.last());
        Self { limit, ..self }
    }

    /// Seals `buffer[payload]` in place and gives where the ESP packet is in `buffer`, from its SPI to the end of its check value. It is the
    /// payload of an IP packet with protocol 50, or of a [UDP datagram](crate::UdpEncapsulation).
    ///
    /// In transport mode the payload begins with the header that followed the IP header, and `next_header` is its protocol (17 for UDP).
    ///
    /// # Errors
    /// See [`SealError`].
    #[inline]
    pub fn seal(
        &mut self,
        buffer: &mut [u8],
        payload: Range<usize>,
        next_header: u8,
    ) -> Result<Range<usize>, SealError> {
        if self.last >= self.limit {
            return Err(SealError::Exhausted { limit: self.limit });
        }
        let sequence = self.last + 1;
        let length = payload.end.saturating_sub(payload.start);
        let packet = seal_as(&self.aead, sequence, sequence.to_be_bytes(), buffer, (payload, next_header))?;
        self.last = sequence;
        self.counts.packets += 1;
        self.counts.bytes += length as u64;
        Ok(packet)
    }

    /// The association's SPI.
    pub fn spi(&self) -> Spi {
        self.aead.spi
    }

    /// The number of the last packet sealed, 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How many more packets may be sealed.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.last)
    }

    /// What was done.
    pub fn counts(&self) -> SealCounts {
        self.counts
    }

    /// As if it had sealed so many packets.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, last: u64) {
        self.last = last;
    }
}

/// Seals with that number and IV.
#[inline]
pub(super) fn seal_as(
    aead: &Aead,
    sequence: u64,
    iv: [u8; IV],
    buffer: &mut [u8],
    (payload, next_header): (Range<usize>, u8),
) -> Result<Range<usize>, SealError> {
    let (Range { start, end }, have) = (payload, buffer.len());
    let outside = SealError::Range { start, end, have };
    let length = end.checked_sub(start).ok_or(outside)?;
    if length > Sealer::MAX_PAYLOAD {
        return Err(SealError::TooLong { have: length });
    }
    let Some((before, rest)) = buffer.split_at_mut_checked(start) else { return Err(outside) };
    let Some(behind) = have.checked_sub(end) else { return Err(outside) };
    let headroom = SealError::Headroom { need: Sealer::HEADROOM, have: start };
    let header = before.last_chunk_mut::<{ Sealer::HEADROOM }>().ok_or(headroom)?;
    let padding = padding(length);
    let tailroom = SealError::Tailroom { need: padding + TRAILER + ICV, have: behind };
    if behind < padding + TRAILER + ICV {
        return Err(tailroom);
    }
    let trailer = rest.get_mut(length..).and_then(|behind| behind.first_chunk_mut()).ok_or(tailroom)?;
    *trailer = self::trailer(padding, next_header);
    let (text, after) = rest.split_at_mut_checked(length + padding + TRAILER).ok_or(tailroom)?;
    let icv = after.first_chunk_mut::<ICV>().ok_or(tailroom)?;
    let sealed = aead.key.seal_in_place_separate_tag(aead.nonce(iv), aead.associated(sequence), text);
    let tag = sealed.map_err(|_| SealError::TooLong { have: length })?; // for a cipher only gigabytes are
    icv.copy_from_slice(tag.as_ref());
    let number = u64::from(aead.spi.get()) << 32 | u64::from(sequence as u32);
    *header = (u128::from(number) << 64 | u128::from(u64::from_be_bytes(iv))).to_be_bytes();
    Ok(start - Sealer::HEADROOM..end + padding + TRAILER + ICV)
}

/// Padding and trailer, and zeros where the check value begins: written at once. RFC 4303 §2.4: padding is 1, 2, 3 …
const fn trailer(padding: usize, next_header: u8) -> [u8; 8] {
    let bits = 8 * padding as u32;
    let numbers = 0x03_02_01 & ((1 << bits) - 1);
    (numbers | (padding as u64 | (next_header as u64) << 8) << bits).to_le_bytes()
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { aead, last, limit, counts } = self;
        let mut shown = f.debug_struct("Sealer");
        shown.field("spi", &aead.spi).field("numbers", &aead.numbers).field("last", last);
        shown.field("limit", limit).field("counts", counts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cipher;

    fn sealer(numbers: Numbers) -> Sealer {
        Sealer::new(Spi::MIN, &SaKey::new(Cipher::Aes128Gcm, &[3; 20]).unwrap(), numbers).unwrap()
    }

    #[test]
    fn numbers_end_before_one_comes_twice() {
        for (numbers, last) in [(Numbers::Short, u64::from(u32::MAX)), (Numbers::Extended, u64::MAX)] {
            let mut sealer = sealer(numbers);
            sealer.skip_to(last - 1);
            assert!(sealer.seal(&mut [0; 64], 16..20, 17).is_ok());
            let mut untouched = [7; 64];
            let refused = sealer.seal(&mut untouched, 16..20, 17);
            assert_eq!(refused, Err(SealError::Exhausted { limit: last }));
            assert_eq!((untouched, sealer.last(), sealer.remaining()), ([7; 64], last, 0));
        }
    }

    #[test]
    fn a_limit_is_kept_and_never_lengthens() {
        let mut limited = sealer(Numbers::Extended).with_limit(2);
        assert!((0..2).all(|_| limited.seal(&mut [0; 64], 16..20, 17).is_ok()));
        assert_eq!(limited.seal(&mut [0; 64], 16..20, 17), Err(SealError::Exhausted { limit: 2 }));
        assert_eq!(sealer(Numbers::Short).with_limit(u64::MAX).remaining(), u64::from(u32::MAX));
    }

    #[test]
    fn what_does_not_fit_is_refused_writes_nothing_and_spends_no_number() {
        let mut sealer = sealer(Numbers::Extended);
        let mut refused = |length: usize, payload: Range<usize>| {
            let mut buffer = vec![9; length];
            let error = sealer.seal(&mut buffer, payload, 17).unwrap_err();
            assert!(buffer.iter().all(|byte| *byte == 9) && sealer.last() == 0);
            error
        };
        assert_eq!(refused(64, 15..20), SealError::Headroom { need: 16, have: 15 });
        assert_eq!(refused(39, 16..20), SealError::Tailroom { need: 20, have: 19 });
        assert_eq!(refused(64, 16..65), SealError::Range { start: 16, end: 65, have: 64 });
        assert_eq!(refused(64, 70..80), SealError::Range { start: 70, end: 80, have: 64 });
        #[expect(clippy::reversed_empty_ranges, reason = "it is to be refused")]
        let backwards = 20..16;
        assert_eq!(refused(64, backwards), SealError::Range { start: 20, end: 16, have: 64 });
        assert_eq!(refused(70_000, 16..65_515), SealError::TooLong { have: 65_499 });
    }

    #[test]
    fn any_payload_is_padded_to_a_multiple_of_4() {
        for length in 0..70 {
            let mut buffer = vec![0; Sealer::HEADROOM + length + Sealer::TAILROOM];
            let packet = sealer(Numbers::Short).seal(&mut buffer, 16..16 + length, 17).unwrap();
            assert_eq!((packet.len(), packet.len() % 4), (sealed_len(length), 0));
        }
        assert!(sealed_len(Sealer::MAX_PAYLOAD) <= 65_535 && sealed_len(Sealer::MAX_PAYLOAD + 1) > 65_535);
    }
}
