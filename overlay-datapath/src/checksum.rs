//! The Internet checksum (RFC 1071), and how it follows a change (RFC 1624).

/// The sum of 16-bit words, not yet complemented. A last byte is the first of a word.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // In the machine's own order, as that makes no difference until the end (RFC 1071 §2 B), and in lanes of 32 bits that no block can fill.
    let mut total = 0;
    for block in bytes.chunks(BLOCK) {
        let (words, rest) = block.as_chunks::<4>();
        let whole: u32 =
            words.iter().map(|word| u32::from_ne_bytes(*word)).map(|word| (word & 0xffff) + (word >> 16)).sum();
        let mut last = [0; 4];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        total += u64::from(whole) + u64::from(u32::from_ne_bytes(last));
    }
    u64::from(u16::from_be(fold(total)))
}

/// The same of an IPv4 header without options, at once.
#[inline]
pub(crate) fn sum_header(header: &[u8; 20]) -> u64 {
    let (words, _) = header.as_chunks::<4>();
    words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum()
}

/// Each of its words is at most twice 65,535.
const BLOCK: usize = 1 << 14;

const fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of what has that sum.
pub(crate) const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The checksum after a word has changed (RFC 1624 §3).
pub(crate) const fn mended(checksum: u16, old: u16, new: u16) -> u16 {
    finish(!checksum as u64 + !old as u64 + new as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sum_is_that_of_its_words(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), whole: bool) {
            let bytes = if whole { bytes.repeat(BLOCK / 128) } else { bytes };
            let words = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)));
            prop_assert_eq!(finish(sum(&bytes)), finish(words.sum()));
        }

        #[test]
        fn a_mended_checksum_is_that_of_what_was_changed(mut words: [u16; 8], at in 0_usize..8, new: u16) {
            let of = |words: &[u16; 8]| finish(words.iter().map(|word| u64::from(*word)).sum());
            prop_assume!(words.iter().any(|word| *word != 0) && new != 0);
            let (before, old) = (of(&words), std::mem::replace(&mut words[at], new));
            prop_assert_eq!(mended(before, old, new), of(&words));
        }
    }
}
