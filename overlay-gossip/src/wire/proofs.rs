//! By what the signatures of members can be verified.

use crate::Malformed;
use crate::tables::Group;
use crate::wire::Reader;

/// The answer to a [`Prove`](crate::wire::Prove): what members have shown of themselves, each as the tables pass it on. A long answer comes in several messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proofs {
    pub(crate) shown: Vec<Group>,
}

impl Proofs {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let (mut reader, mut shown) = (Reader::new(body), Vec::new());
        while !reader.is_empty() {
            shown.push(Group::parse(&mut reader)?);
        }
        Ok(Self { shown })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.shown.iter().for_each(|shown| shown.encode(out));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tables::any_group;

    proptest! {
        #[test]
        fn what_is_encoded_parses_back(shown in proptest::collection::vec(any_group(), 0..4)) {
            let proofs = Proofs { shown };
            let mut out = Vec::new();
            proofs.encode(&mut out);
            prop_assert_eq!(Proofs::parse(&out), Ok(proofs.clone()));
            prop_assert!(proofs.shown.is_empty() || Proofs::parse(&out[..out.len() - 1]).is_err());
        }
    }
}
