//! The Internet checksum (RFC 1071).

/// The one's complement sum of `bytes` as big-endian 16-bit words, the last padded with zero, not yet folded.
/// Sums of several even-length pieces may be added.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let tail = match *rest {
        [a, b, c] => [a, b, c, 0],
        [a, b] => [a, b, 0, 0],
        [a] => [a, 0, 0, 0],
        _ => [0; 4],
    };
    total + u64::from(u32::from_be_bytes(tail))
}

/// A sum folded to the 16 bits a checksum is the complement of; below 2⁴⁸ only, which no packet's exceeds.
#[inline]
pub(crate) const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff); // below 2^18
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_words_one_by_one(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let mut slow = 0_u32;
            for pair in bytes.chunks(2) {
                slow += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
                slow = (slow >> 16) + (slow & 0xffff);
            }
            prop_assert_eq!(u32::from(fold(sum(&bytes))), slow);
        }
    }
}
