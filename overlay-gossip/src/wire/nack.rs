//! A relay's word that a probed node has not answered it.

use crate::Malformed;
use crate::wire::Reader;

/// Says that the relay lives although the node it probed for another does not answer (Lifeguard): so whoever gets
/// neither acks nor nacks has itself to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nack {
    /// The request's.
    pub(crate) sequence: u32,
}

impl Nack {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let nack = Self { sequence: reader.u32("sequence")? };
        reader.end("nack")?;
        Ok(nack)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_parses_back(sequence: u32) {
            let mut out = Vec::new();
            Nack { sequence }.encode(&mut out);
            prop_assert_eq!(Nack::parse(&out), Ok(Nack { sequence }));
            prop_assert!(Nack::parse(&out[1..]).is_err());
        }
    }
}
