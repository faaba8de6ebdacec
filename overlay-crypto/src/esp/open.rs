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
/// assert_eq!((&*opened.payload, opened.next_header, opened.sequence), (&mut b"hello"[..], 17, 1));
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
        let text = self.aead.key.open_in_place(nonce, associated, sealed).map_err(|_| OpenError::Forged)?;
        self.window.mark(sequence);
        let (payload, next_header) = strip(text)?;
        Ok(Opened { payload, next_header, sequence })
    }

    /// The number whose low half is `low`, if it was not seen.
    #[inline]
    fn new_sequence(&self, low: u32) -> Result<u64, OpenError> {
        let sequence = match self.aead.numbers {
            Numbers::Short => u64::from(low),
            Numbers::Extended => self.window.infer(low).ok_or(OpenError::Replayed { sequence: u64::from(low) })?,
        };
        if self.window.is_new(sequence) { Ok(sequence) } else { Err(OpenError::Replayed { sequence }) }
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
