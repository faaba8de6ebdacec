//! The beginning of a comparison of membership.

use crate::Malformed;
use crate::wire::{Reader, Update};

/// How many parts membership is compared in.
pub(crate) const BUCKETS: usize = 64;

/// Asks for what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncRequest {
    /// The sender itself, so that whoever is asked knows it from now on.
    pub(crate) me: Update,
    /// The sender's digest of each bucket of live members; none if it knows nobody and wants all.
    pub(crate) digests: Option<Box<[u64; BUCKETS]>>,
}

impl SyncRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let me = Update::parse(&mut reader)?;
        let mut digests = None;
        if !reader.is_empty() {
            let mut read = Box::new([0; BUCKETS]);
            for digest in read.iter_mut() {
                *digest = reader.u64("digest")?;
            }
            digests = Some(read);
        }
        reader.end("sync request")?;
        Ok(Self { me, digests })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.me.encode(out);
        let digests = self.digests.iter().flat_map(|digests| digests.iter());
        digests.for_each(|digest| out.extend_from_slice(&digest.to_be_bytes()));
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
            me in any_update(),
            digests in proptest::option::of(proptest::collection::vec(any::<u64>(), BUCKETS))
        ) {
            let digests = digests.map(|digests| Box::new(digests.try_into().unwrap()));
            let request = SyncRequest { me, digests };
            let mut out = Vec::new();
            request.encode(&mut out);
            prop_assert_eq!(SyncRequest::parse(&out), Ok(request));
            prop_assert!(SyncRequest::parse(&out[..out.len() - 1]).is_err());
        }
    }
}
