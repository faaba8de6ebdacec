//! The answer to a probe.

use crate::Malformed;
use crate::wire::Reader;

/// Says that the probed node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The probe's.
    pub(crate) sequence: u32,
    /// The sender's digest of all live members.
    pub(crate) digest: u64,
}

impl Ack {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let ack = Self { sequence: reader.u32("sequence")?, digest: reader.u64("digest")? };
        reader.end("ack")?;
        Ok(ack)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.digest.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_parses_back(sequence: u32, digest: u64) {
            let ack = Ack { sequence, digest };
            let mut out = Vec::new();
            ack.encode(&mut out);
            prop_assert_eq!(Ack::parse(&out), Ok(ack));
            prop_assert!(Ack::parse(&out[1..]).is_err());
        }
    }
}
