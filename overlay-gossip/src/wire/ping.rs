//! A probe.

use overlay_core::NodeId;

use crate::Malformed;
use crate::wire::Reader;

/// Asks for an [`Ack`](crate::wire::Ack).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ping {
    /// Comes back in the answer.
    pub(crate) sequence: u32,
    /// The sender's digest of all live members.
    pub(crate) digest: u64,
    /// Who is to answer; whoever is there, if nobody is named. So a node that took another's address is not taken for it.
    pub(crate) target: Option<NodeId>,
}

impl Ping {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let (sequence, digest) = (reader.u32("sequence")?, reader.u64("digest")?);
        let target = if reader.is_empty() { None } else { Some(reader.node_id("target")?) };
        reader.end("ping")?;
        Ok(Self { sequence, digest, target })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.digest.to_be_bytes());
        if let Some(target) = self.target {
            out.extend_from_slice(&target.to_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::testing::any::node_id;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_parses_back(sequence: u32, digest: u64, target in proptest::option::of(node_id())) {
            let ping = Ping { sequence, digest, target };
            let mut out = Vec::new();
            ping.encode(&mut out);
            prop_assert_eq!(Ping::parse(&out), Ok(ping));
            prop_assert!(Ping::parse(&out[1..]).is_err());
        }
    }
}
