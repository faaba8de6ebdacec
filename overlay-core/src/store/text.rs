//! Bytes of which the few lie in the value itself.

use std::cmp::Ordering;

use bytes::Bytes;

/// How many bytes lie in the value itself: what makes it five words.
const SHORT: usize = 38;

/// Bytes: few of them without a place of their own in memory, more of them shared among clones.
#[derive(Debug, Clone)]
pub(super) enum Text {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Bytes),
}

impl Text {
    pub(super) const EMPTY: Self = Self::Short { len: 0, bytes: [0; SHORT] };

    /// The parts one after the other, `len` bytes in all.
    pub(super) fn of<'p>(parts: impl Iterator<Item = &'p &'p [u8]>, len: usize) -> Self {
        if len > SHORT {
            return Self::Long(parts.flat_map(|part| part.iter().copied()).collect());
        }
        let mut bytes = [0; SHORT];
        let mut at = 0;
        parts.for_each(|part| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        });
        Self::Short { len: len as u8, bytes }
    }

    /// This and then `tail`.
    pub(super) fn with(&self, tail: &[u8]) -> Self {
        match self {
            Self::Short { len, bytes } if usize::from(*len) + tail.len() <= SHORT => {
                let (mut bytes, end) = (*bytes, usize::from(*len) + tail.len());
                bytes[usize::from(*len)..end].copy_from_slice(tail);
                Self::Short { len: end as u8, bytes }
            }
            _ => Self::of([self.as_bytes(), tail].iter(), self.as_bytes().len() + tail.len()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }

    /// The bytes, if they lie in the value itself.
    pub(super) fn short(&self) -> Option<&[u8]> {
        match self {
            Self::Short { .. } => Some(self.as_bytes()),
            Self::Long(_) => None,
        }
    }

    /// Tells most texts apart; the highest bits best.
    pub(super) fn hash64(&self) -> u64 {
        let mix = |sum: u64, word: u64| (sum.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let sum: u64 = match self {
            Self::Short { len, bytes } => WORDS.into_iter().fold(u64::from(*len), |sum, at| mix(sum, word(bytes, at))),
            Self::Long(bytes) => bytes.iter().fold(0, |sum, byte| mix(sum, (*byte).into())),
        };
        sum ^ sum >> 32
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        match self {
            Self::Short { .. } => Bytes::copy_from_slice(self.as_bytes()),
            Self::Long(bytes) => bytes.clone(),
        }
    }
}

impl From<Bytes> for Text {
    fn from(bytes: Bytes) -> Self {
        match bytes.len() > SHORT {
            true => Self::Long(bytes),
            false => Self::of([&bytes[..]].iter(), bytes.len()),
        }
    }
}

/// Where the words of a short text begin. The last overlaps the one before.
const WORDS: [usize; 5] = [0, 8, 16, 24, SHORT - 8];

/// Where two short texts differ first, word by word: what is the same at the beginning, as under one prefix, costs a comparison each 8
/// bytes.
#[inline]
fn differ(a: &[u8; SHORT], b: &[u8; SHORT]) -> Option<Ordering> {
    for at in WORDS {
        let (a, b) = (word(a, at), word(b, at));
        if a != b {
            return Some(a.to_be().cmp(&b.to_be()));
        }
    }
    None
}

/// Without a branch: who asks mostly has the same.
#[inline]
fn same(a: &[u8; SHORT], b: &[u8; SHORT]) -> bool {
    WORDS.into_iter().fold(0, |apart, at| apart | (word(a, at) ^ word(b, at))) == 0
}

#[inline]
fn word(bytes: &[u8; SHORT], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}

/// What follows a short text is zeros, so two of them compare as whole arrays; where these are alike, the shorter is first.
impl Ord for Text {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Short { len: a, bytes: x }, Self::Short { len: b, bytes: y }) => {
                differ(x, y).unwrap_or_else(|| a.cmp(b))
            }
            _ => self.as_bytes().cmp(other.as_bytes()),
        }
    }
}

impl PartialOrd for Text {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Text {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Short { len: a, bytes: x }, Self::Short { len: b, bytes: y }) => a == b && same(x, y),
            (Self::Long(x), Self::Long(y)) => x == y,
            _ => false, // what fits is short
        }
    }
}

impl Eq for Text {}
