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

/// The sum of an IPv4 header's words in this machine's byte order, which [`is_whole`] may be asked about: the order
/// does not change whether a sum is whole (RFC 1071 §2).
#[inline(always)]
pub(crate) fn sum_in_host_order(header: &[u8; 20]) -> u64 {
    let (words, _) = header.as_chunks::<4>();
    words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()
}

/// Whether a sum that covers a checksum says that it is right: it folds to 0xffff. For sums above zero only.
#[inline(always)]
pub(crate) const fn is_whole(sum: u64) -> bool {
    sum.is_multiple_of(0xffff)
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

        #[test]
        fn byte_order_does_not_matter_to_a_whole_sum(header in any::<[u8; 20]>(), mend in any::<bool>()) {
            let mut header = header;
            if mend {
                header[10..12].fill(0);
                let right = !fold(sum(&header));
                header[10..12].copy_from_slice(&right.to_be_bytes());
            }
            let whole = fold(sum(&header)) == 0xffff;
            prop_assert!(whole || !mend);
            prop_assert_eq!(is_whole(sum(&header)), whole);
            prop_assert_eq!(is_whole(sum_in_host_order(&header)), whole);
        }
    }
}
