//! Bytes as digits and small letters, always as many.

/// How many characters `bytes` bytes need.
pub(super) const fn length(bytes: usize) -> usize {
    match bytes {
        16 => 25,
        32 => 50,
        _ => bytes * 2, // more than enough: 36² is above 256
    }
}

/// The number that the bytes are, highest first, in base 36, with zeros in front.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; length(bytes.len())];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u16;
        for byte in &mut number {
            let all = rest << 8 | u16::from(*byte);
            (*byte, rest) = ((all / 36) as u8, all % 36);
        }
        *digit = match rest as u8 {
            digit @ 0..10 => b'0' + digit,
            letter => b'a' + (letter - 10),
        };
    }
    String::from_utf8(digits).unwrap_or_default() // the same bytes, so that who wipes them wipes all
}

/// What [`encode`] wrote; `None` if it did not.
pub(super) fn decode<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    if text.len() != length(LEN) {
        return None;
    }
    let mut number = [0; LEN];
    for byte in text.bytes() {
        let mut carry = match byte {
            b'0'..=b'9' => u16::from(byte - b'0'),
            b'a'..=b'z' => u16::from(byte - b'a') + 10,
            _ => return None,
        };
        for byte in number.iter_mut().rev() {
            let all = u16::from(*byte) * 36 + carry;
            (*byte, carry) = (all as u8, all >> 8);
        }
        if carry > 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_the_same_after_their_way_through_text(short: [u8; 16], long: [u8; 32]) {
            prop_assert_eq!(decode(&encode(&short)), Some(short));
            prop_assert_eq!(decode(&encode(&long)), Some(long));
            prop_assert_eq!(encode(&short), overlay_core::NodeId::from_bytes(short).to_string());
        }

        #[test]
        fn any_text_is_read_as_what_it_is_the_text_of_or_not_at_all(text in "[0-9a-z]{50}") {
            if let Some(bytes) = decode::<32>(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }

    #[test]
    fn what_is_too_great_too_long_or_no_digit_is_not_read() {
        assert_eq!(decode::<16>(&"z".repeat(25)), None);
        for text in ["", "0", &"0".repeat(26), &format!("{}A", "0".repeat(24)), &format!("{}é", "0".repeat(23))] {
            assert_eq!(decode::<16>(text), None, "{text}");
        }
    }
}
