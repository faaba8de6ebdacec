//! Asks by what the signatures of members can be verified.

use std::net::SocketAddr;

use overlay_core::NodeId;

use crate::Malformed;
use crate::wire::Reader;
use crate::wire::update::{parse_address, put_address};

/// Asks whoever told of these members for [`Proofs`](crate::wire::Proofs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prove {
    /// Where to answer: whoever is asked may not know the sender yet.
    pub(crate) address: SocketAddr,
    pub(crate) members: Vec<NodeId>,
}

impl Prove {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let v6 = match reader.u8("family")? {
            found @ 0..=1 => found == 1,
            found => return Err(Malformed::Range { field: "family", found: found.into(), least: 0, most: 1 }),
        };
        let address = parse_address(&mut reader, v6)?;
        let mut members = Vec::with_capacity(reader.len() / 16);
        while !reader.is_empty() {
            members.push(reader.node_id("member")?);
        }
        Ok(Self { address, members })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.address.is_ipv6().into());
        put_address(self.address, out);
        self.members.iter().for_each(|id| out.extend_from_slice(&id.to_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::testing::any::node_id;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::update::tests::address;

    proptest! {
        #[test]
        fn what_is_encoded_parses_back(address in address(), members in proptest::collection::vec(node_id(), 0..5)) {
            let prove = Prove { address, members };
            let mut out = Vec::new();
            prove.encode(&mut out);
            prop_assert_eq!(Prove::parse(&out), Ok(prove));
            prop_assert!(Prove::parse(&out[..out.len() - 1]).is_err());
        }
    }
}
