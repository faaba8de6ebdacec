//! Opening packets.

use std::fmt;

use super::{ALIGN, Aead, HEADER, ICV, IV, NO_NEXT_HEADER, Numbers, ReplayWindow, TRAILER, WindowSize};
use crate::{SaKey, Spent, Spi};

/// Opens packets of one security association, in place: each at most once.
///
/// What is not authentic changes nothing but a count: the window moves on for authentic packets alone, so nobody without the key can
/// push it.
///
/// ```
/// use overlay_crypto::{Cipher, Numbers, OpenError, Opener, SaKey, Sealer, Spi, WindowSize};
///
/// let (spi, bytes) = (Spi::new(0x1001)?, [7; 36]); // each end derives them from what it agreed upon
/// let mut sealer = Sealer::new(spi, &SaKey::new(Cipher::default(), &bytes)?, Numbers::Extended)?;
/// let mut opener = Opener::new(spi, &SaKey::new(Cipher::default(), &bytes)?, Numbers::Extended, WindowSize::MIN)?;
///
/// let mut buffer = *b"----------------hello---------------------";
/// let packet = sealer.seal(&mut buffer, 16..21, 17)?;
/// let mut again = buffer;
/// let opened = opener.open(&mut buffer[packet.clone()])?;
/// assert_eq!((&*opened.payload, opened.next_header, opened.sequence), (&b"hello"[..], 17, 1));
/// assert_eq!(opener.open(&mut again[packet]).unwrap_err(), OpenError::Replayed { sequence: 1 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Opener {
    aead: Aead,
    window: ReplayWindow,
    counts: OpenCounts,
}

/// What was in a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'p> {
    /// The payload, in the packet's buffer: in transport mode from the header behind the IP header on.
    pub payload: &'p mut [u8],
    /// Its protocol, 17 for UDP.
    pub next_header: u8,
    /// Its number.
    pub sequence: u64,
}

/// What an [`Opener`] has done, and what it refused and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// Packets opened.
    pub packets: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Packets that were no ESP: [`OpenError::Truncated`] and [`OpenError::Alignment`].
    pub malformed: u64,
    /// Packets of another association: [`OpenError::Foreign`].
    pub foreign: u64,
    /// Packets seen before, or too old to tell: [`OpenError::Replayed`].
    pub replayed: u64,
    /// Packets that are not of who has the key: [`OpenError::Forged`].
    pub forged: u64,
    /// Authentic packets whose inside is wrong: [`OpenError::Padding`].
    pub padding: u64,
    /// Authentic packets that carry nothing: [`OpenError::Dummy`].
    pub dummies: u64,
}

/// Why a packet was not opened. It is to be dropped; its bytes may be anything now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Shorter than the shortest ESP packet.
    #[error("{need} bytes are needed, {have} are there")]
    Truncated {
        /// The least.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// Not a multiple of 4 bytes (RFC 4303 §2.4).
    #[error("{have} bytes are no multiple of 4")]
    Alignment {
        /// Bytes there.
        have: usize,
    },
    /// Of another association.
    #[error("it has SPI {spi:#010x}, no association here")]
    Foreign {
        /// Its SPI.
        spi: u32,
    },
    /// Seen before, or so old that nobody knows, or 0, or past the last number.
    #[error("sequence number {sequence} was seen, or is too old to know")]
    Replayed {
        /// Its number: where it could not be [told](ReplayWindow::infer), its low half.
        sequence: u64,
    },
    /// Not sealed with this key, changed under way, or so far ahead that its number is not what it seems.
    #[error("it is not authentic")]
    Forged,
    /// Its sender wrote other padding than RFC 4303 §2.4 says, or more than there is. Its number is spent.
    #[error("its padding is not 1, 2, 3 …")]
    Padding,
    /// A dummy packet (RFC 4303 §2.6), to be dropped without a word. Its number is spent.
    #[error("it is a dummy")]
    Dummy,
}

impl Opener {
    /// Bytes of the shortest packet: without a payload.
    pub const MIN_LEN: usize = HEADER + IV + ALIGN + ICV;

    /// An opener that has seen nothing, and takes the key: one that forgot what it saw would take it again.
    ///
    /// # Errors
    /// [`Spent`] if the key was put to work before.
    pub fn new(spi: Spi, key: &SaKey, numbers: Numbers, window: WindowSize) -> Result<Self, Spent> {
        let aead = Aead::new(spi, key, numbers)?;
        Ok(Self { aead, window: ReplayWindow::new(window), counts: OpenCounts::default() })
    }

    /// Opens `packet`, from its SPI to the end of its check value, in place.
    ///
    /// # Errors
    /// See [`OpenError`]; each is counted.
    #[inline]
    pub fn open<'p>(&mut self, packet: &'p mut [u8]) -> Result<Opened<'p>, OpenError> {
        let opened = self.try_open(packet);
        self.counts.add(&opened);
        opened
    }

    #[inline]
    fn try_open<'p>(&mut self, packet: &'p mut [u8]) -> Result<Opened<'p>, OpenError> {
        let have = packet.len();
        let truncated = OpenError::Truncated { need: Self::MIN_LEN, have };
        if have < Self::MIN_LEN {
            return Err(truncated);
        }
        if !have.is_multiple_of(ALIGN) {
            return Err(OpenError::Alignment { have });
        }
        let (header, sealed) = packet.split_first_chunk_mut::<HEADER>().ok_or(truncated)?;
        let (iv, sealed) = sealed.split_first_chunk_mut::<IV>().ok_or(truncated)?;
        let (spi, low) = split(*header);
        if spi != self.aead.spi.get() {
            return Err(OpenError::Foreign { spi });
        }
        let sequence = self.new_sequence(low)?;
        let (nonce, associated) = (self.aead.nonce(*iv), self.aead.associated(sequence));
        let text = self.aead.key.open_in_place(nonce, associated, sealed);
        let text = text.map_err(|_| self.unauthentic(sequence))?;
        self.window.mark(sequence);
        let (payload, next_header) = strip(text)?;
        Ok(Opened { payload, next_header, sequence })
    }

    /// The number whose low half is `low`, if it was not seen.
    #[inline]
    fn new_sequence(&self, low: u32) -> Result<u64, OpenError> {
        let replayed = |low| OpenError::Replayed { sequence: u64::from(low) };
        let sequence = match self.aead.numbers {
            Numbers::Short => u64::from(low),
            Numbers::Extended => self.window.infer(low).ok_or_else(|| replayed(low))?,
        };
        if self.window.is_new(sequence) { Ok(sequence) } else { Err(OpenError::Replayed { sequence }) }
    }

    /// What a packet is that is not authentic as `sequence`. One that comes after the window has passed it is taken for one of the next 2^32, so
    /// its check fails; that is likelier than a jump by more than half of those.
    fn unauthentic(&self, sequence: u64) -> OpenError {
        match sequence.checked_sub(1 << 32) {
            Some(earlier) if sequence.saturating_sub(self.window.highest()) > 1 << 31 => {
                OpenError::Replayed { sequence: earlier }
            }
            _ => OpenError::Forged,
        }
    }

    /// The association's SPI.
    pub fn spi(&self) -> Spi {
        self.aead.spi
    }

    /// The highest number seen, 0 before the first.
    pub fn highest(&self) -> u64 {
        self.window.highest()
    }

    /// What was done and refused.
    pub fn counts(&self) -> OpenCounts {
        self.counts
    }

    /// As if it had seen that number.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, sequence: u64) {
        self.window.mark(sequence);
    }
}

/// SPI and sequence number, of a header or of the beginning of a packet.
pub(super) const fn split(header: [u8; HEADER]) -> (u32, u32) {
    let both = u64::from_be_bytes(header);
    ((both >> 32) as u32, both as u32)
}

/// The payload without padding and trailer, and the next header.
#[inline]
fn strip(text: &mut [u8]) -> Result<(&mut [u8], u8), OpenError> {
    let (rest, [padding, next_header]) = text.split_last_chunk_mut::<TRAILER>().ok_or(OpenError::Padding)?;
    let length = rest.len().checked_sub(usize::from(*padding)).ok_or(OpenError::Padding)?;
    let (payload, padding) = rest.split_at_mut(length);
    if !padding.iter().zip(1..=u8::MAX).all(|(found, right)| *found == right) {
        return Err(OpenError::Padding);
    }
    if *next_header == NO_NEXT_HEADER {
        return Err(OpenError::Dummy);
    }
    Ok((payload, *next_header))
}

impl OpenCounts {
    pub(super) fn add(&mut self, opened: &Result<Opened<'_>, OpenError>) {
        *match opened {
            Ok(opened) => {
                self.bytes += opened.payload.len() as u64;
                &mut self.packets
            }
            Err(OpenError::Truncated { .. } | OpenError::Alignment { .. }) => &mut self.malformed,
            Err(OpenError::Foreign { .. }) => &mut self.foreign,
            Err(OpenError::Replayed { .. }) => &mut self.replayed,
            Err(OpenError::Forged) => &mut self.forged,
            Err(OpenError::Padding) => &mut self.padding,
            Err(OpenError::Dummy) => &mut self.dummies,
        } += 1;
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { aead, window, counts } = self;
        let mut shown = f.debug_struct("Opener");
        shown.field("spi", &aead.spi).field("numbers", &aead.numbers);
        shown.field("window", window).field("counts", counts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Sealer;
    use super::*;
    use crate::Cipher;

    fn key() -> SaKey {
        SaKey::new(Cipher::Aes128Gcm, &[3; 20]).unwrap()
    }

    fn ends(numbers: Numbers, last: u64) -> (Sealer, Opener) {
        let mut sealer = Sealer::new(Spi::MIN, &key(), numbers).unwrap();
        let mut opener = Opener::new(Spi::MIN, &key(), numbers, WindowSize::MIN).unwrap();
        sealer.skip_to(last);
        if last > 0 {
            opener.skip_to(last);
        }
        (sealer, opener)
    }

    fn sealed(sealer: &mut Sealer) -> Vec<u8> {
        let mut buffer = [0; 64];
        let packet = sealer.seal(&mut buffer, 16..20, 17).unwrap();
        buffer[packet].to_vec()
    }

    proptest! {
        /// Over the ends of counts of 2^32 too, with up to 2^31 packets lost at once, and those within the window in any order.
        #[test]
        fn numbers_of_64_bits_go_on_over_losses_and_disorder(
            start in prop_oneof![Just(0_u64), (1_u64 << 32) - 2_000..(1 << 32) + 2_000, Just((1_u64 << 40) - 5)],
            bursts in proptest::collection::vec(
                (prop_oneof![Just(0_u64), 0..3_000_u64, Just(1 << 31), Just((1 << 32) - 1_100)], 1_usize..40, any::<u64>()),
                1..12,
            ),
        ) {
            let (mut sealer, mut opener) = ends(Numbers::Extended, start);
            for (lost, count, shuffle) in bursts {
                sealer.skip_to(sealer.last() + lost);
                let mut burst: Vec<_> = (0..count).map(|_| sealed(&mut sealer)).collect();
                burst.sort_by_key(|packet| u64::from(packet[7]).wrapping_mul(shuffle | 1) >> 3);
                for packet in &burst {
                    prop_assert!(opener.open(&mut packet.clone()).is_ok());
                    let again = opener.open(&mut packet.clone()).map(|opened| opened.sequence);
                    prop_assert!(matches!(again, Err(OpenError::Replayed { .. })), "{:?}", again);
                }
                prop_assert_eq!(opener.highest(), sealer.last());
            }
        }
    }

    #[test]
    fn a_forgery_is_one_wherever_its_number_is() {
        let (mut sealer, mut opener) = ends(Numbers::Extended, (1 << 40) + 5_000);
        let late = sealed(&mut sealer);
        sealer.skip_to((1 << 40) + 5_500);
        opener.open(&mut sealed(&mut sealer)).unwrap();
        for number in [5_001_u32, 5_502, 1 << 30] {
            let mut forged = late.clone();
            forged[4..8].copy_from_slice(&number.to_be_bytes());
            forged[20] ^= 1;
            assert_eq!(opener.open(&mut forged).unwrap_err(), OpenError::Forged, "{number}");
        }
        assert_eq!((opener.highest(), opener.counts().forged), ((1 << 40) + 5_501, 3));
    }

    #[test]
    fn the_last_number_is_taken_and_none_thereafter() {
        for (numbers, last) in [(Numbers::Short, u64::from(u32::MAX)), (Numbers::Extended, u64::MAX)] {
            let (mut sealer, mut opener) = ends(numbers, last - 1);
            let packet = sealed(&mut sealer);
            assert_eq!(opener.open(&mut packet.clone()).unwrap().sequence, last);
            assert!(matches!(opener.open(&mut packet.clone()), Err(OpenError::Replayed { .. })));
            let mut first = packet;
            first[4..8].copy_from_slice(&[0, 0, 0, 1]);
            assert_eq!(opener.open(&mut first).unwrap_err(), OpenError::Replayed { sequence: 1 });
        }
    }

    #[test]
    fn padding_that_is_not_as_it_should_be_is_refused() {
        let text = |bytes: &[u8]| strip(&mut bytes.to_vec()).map(|(payload, next)| (payload.to_vec(), next));
        assert_eq!(text(&[9, 1, 2, 2, 17]), Ok((vec![9], 17)));
        assert_eq!(text(&[0, 17]), Ok((vec![], 17)));
        for wrong in [&[9, 1, 3, 2, 17][..], &[1, 2, 17], &[1, 2, 3, 4, 17], &[17], &[]] {
            assert_eq!(text(wrong), Err(OpenError::Padding), "{wrong:?}");
        }
    }
}
