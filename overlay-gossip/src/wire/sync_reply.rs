//! The answer in a comparison of membership.

use crate::Malformed;
use crate::wire::{Reader, Update};

/// What the asked node knows of the members that differ; long answers come in several messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncReply {
    /// Whether this is the last part, to be answered by a [`SyncPush`](crate::wire::SyncPush).
    pub(crate) last: bool,
    /// The buckets that differ, one bit each.
    pub(crate) buckets: u64,
    pub(crate) updates: Vec<Update>,
}

impl SyncReply {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let last = match reader.u8("last")? {
            0 => false,
            1 => true,
            found => return Err(Malformed::Range { field: "last", found: found.into(), least: 0, most: 1 }),
        };
        let buckets = reader.u64("buckets")?;
        Ok(Self { last, buckets, updates: Update::parse_all(reader)? })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.last.into());
        out.extend_from_slice(&self.buckets.to_be_bytes());
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
        fn what_is_encoded_parses_back(
            last: bool,
            buckets: u64,
            updates in proptest::collection::vec(any_update(), 0..5)
        ) {
            let reply = SyncReply { last, buckets, updates };
            let mut out = Vec::new();
            reply.encode(&mut out);
            prop_assert_eq!(SyncReply::parse(&out), Ok(reply));
        }
    }
}
