//! The Internet checksum (RFC 1071), and how it follows a change (RFC 1624).

/// The sum of 16-bit words, not yet folded.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let whole: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    whole + rest.first().map_or(0, |last| u64::from(*last) << 8)
}

/// The checksum of what has that sum.
pub(crate) const fn finish(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
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
        fn a_mended_checksum_is_that_of_what_was_changed(mut words: [u16; 8], at in 0_usize..8, new: u16) {
            let of = |words: &[u16; 8]| finish(words.iter().map(|word| u64::from(*word)).sum());
            prop_assume!(words.iter().any(|word| *word != 0) && new != 0);
            let (before, old) = (of(&words), std::mem::replace(&mut words[at], new));
            prop_assert_eq!(mended(before, old, new), of(&words));
        }
    }
}
