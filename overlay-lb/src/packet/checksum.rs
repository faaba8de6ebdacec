//! Checksums: the Internet's, whole (RFC 1071) and by what changes (RFC 1624), and SCTP's CRC32c (RFC 9260 appendix A).

/// What changes of a sum in one's complement: the new words, and the old ones turned. Words of 32 bits have the same sum as their halves
/// (RFC 1071 §2 C).
#[derive(Clone, Copy, Default)]
pub(super) struct Delta(u64);

impl Delta {
    /// Both changes together.
    #[inline]
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// `bytes`, of an even length, become `new`, of the same.
    #[inline(always)]
    pub(super) fn replace(bytes: &mut [u8], new: &[u8]) -> Self {
        let mut delta = 0;
        let ((words, halves), (new_words, new_halves)) = (bytes.as_chunks_mut::<4>(), new.as_chunks::<4>());
        for (old, new) in words.iter_mut().zip(new_words) {
            delta += u64::from(!u32::from_be_bytes(*old)) + u64::from(u32::from_be_bytes(*new));
            *old = *new;
        }
        for (old, new) in halves.as_chunks_mut().0.iter_mut().zip(new_halves.as_chunks().0) {
            delta += u64::from(!u16::from_be_bytes(*old)) + u64::from(u16::from_be_bytes(*new));
            *old = *new;
        }
        Self(delta)
    }

    /// The checksum after the change: RFC 1624, equation 3.
    #[inline]
    pub(super) const fn of(self, checksum: u16) -> u16 {
        !fold(self.0 + !checksum as u64)
    }

    /// Brings the checksum field at `at`, if it is there, to what it must be after the change. Says how the field itself changes.
    #[inline(always)]
    pub(super) fn mend(self, bytes: &mut [u8], at: usize) -> Self {
        match bytes.get_mut(at..at + 2) {
            Some(field) => Self::replace(field, &self.of(u16::from_be_bytes([field[0], field[1]])).to_be_bytes()),
            None => Self::default(),
        }
    }
}

#[inline]
const fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of `bytes` in network order, to be folded; an odd one counts as if a zero followed.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|word| match *word {
        [a, b] => u32::from(u16::from_be_bytes([a, b])),
        [a] => u32::from(a) << 8,
        _ => 0,
    });
    words.sum()
}

/// The checksum of parts that together have this sum.
pub(super) const fn finish(sum: u32) -> u16 {
    !fold(sum as u64)
}

/// SCTP's checksum of a packet whose own field is zero, as it stands in the field.
pub(super) fn crc32c<'b>(parts: impl IntoIterator<Item = &'b [u8]>) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in parts.into_iter().flatten() {
        crc = CRC[usize::from(crc as u8 ^ byte)] ^ crc >> 8;
    }
    (!crc).to_le_bytes()
}

const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sum_follows_what_is_replaced(old in any::<[u8; 32]>(), new in any::<[u8; 32]>(), words in 0..17_usize, rest in 1_u16..) {
            let (mut bytes, new) = (old[..2 * words].to_vec(), &new[..2 * words]);
            let before = finish(sum(&bytes) + u32::from(rest));
            let after = Delta::replace(&mut bytes, new).of(before);
            prop_assert_eq!((after, &bytes[..]), (finish(sum(new) + u32::from(rest)), new));
        }
    }

    /// RFC 3720 appendix B.4: 32 bytes of zeroes, of ones, and counting up.
    #[test]
    fn crc32c_is_as_its_examples_have_it() {
        assert_eq!(crc32c([&[0; 32][..]]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(crc32c([&[0xff; 32][..]]), [0x43, 0xab, 0xa8, 0x62]);
        let counting: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c([&counting[..10], &counting[10..]]), [0x4e, 0x79, 0xdd, 0x46]);
    }

    /// RFC 1624 §4: the example that equation 2 gets wrong.
    #[test]
    fn a_sum_that_becomes_zero_is_not_turned() {
        let mut word = [0x55, 0x55];
        let delta = Delta::replace(&mut word, &[0x32, 0x85]);
        assert_eq!((delta.of(0xdd2f), word), (0x0000, [0x32, 0x85]));
    }
}
