//! What follows a sealed message.

use super::key::StartSalt;
use super::{KeyId, OpenError};

/// Which key a message is sealed with: the number of the message, the chance of its sender's start, the key's name, the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) number: u64,
    pub(super) salt: StartSalt,
    pub(super) id: KeyId,
}

impl Trailer {
    pub(super) const LEN: usize = 8 + 16 + KeyId::LEN + 1;
    /// The last byte: another if anything of a sealed message changes.
    pub(super) const FORMAT: u8 = 1;

    pub(super) fn encode(self) -> [u8; Self::LEN] {
        let Self { number, salt, id } = self;
        let mut bytes = [Self::FORMAT; Self::LEN];
        let from = number.to_be_bytes().into_iter().chain(salt).chain(id.to_bytes());
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        bytes
    }

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, OpenError> {
        let [a, b, c, d, e, f, g, h, salt @ .., i, j, k, l, format] = *bytes;
        if format != Self::FORMAT {
            return Err(OpenError::Format { found: format });
        }
        let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        Ok(Self { number, salt, id: KeyId::from_bytes([i, j, k, l]) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_trailer_is_the_same_after_its_way_through_bytes(number: u64, salt: [u8; 16], id: [u8; 4]) {
            let trailer = Trailer { number, salt, id: KeyId::from_bytes(id) };
            prop_assert_eq!(Trailer::parse(&trailer.encode()), Ok(trailer));
        }
    }
}
