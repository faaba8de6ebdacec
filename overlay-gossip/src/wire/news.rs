//! Changes of membership, spread from node to node.

use crate::Malformed;
use crate::wire::{Reader, Update};

/// Several updates, the sender's own first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) updates: Vec<Update>,
}

impl News {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        Update::parse_all(Reader::new(body)).map(|updates| Self { updates })
    }

    /// A machine encodes update by update, as far as there is room.
    #[cfg(test)]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.updates.iter().for_each(|update| update.encode(out));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::any_update;

    proptest! {
        #[test]
        fn what_is_encoded_parses_back(updates in proptest::collection::vec(any_update(), 0..5)) {
            let news = News { updates };
            let mut out = Vec::new();
            news.encode(&mut out);
            prop_assert_eq!(News::parse(&out), Ok(news));
        }
    }
}
