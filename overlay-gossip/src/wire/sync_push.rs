//! The last part of a comparison of membership.

use crate::Malformed;
use crate::wire::{Reader, Update};

/// What the asking node knows of the members that differed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncPush {
    pub(crate) updates: Vec<Update>,
}

impl SyncPush {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        Update::parse_all(Reader::new(body)).map(|updates| Self { updates })
    }

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
            let push = SyncPush { updates };
            let mut out = Vec::new();
            push.encode(&mut out);
            prop_assert_eq!(SyncPush::parse(&out), Ok(push));
        }
    }
}
