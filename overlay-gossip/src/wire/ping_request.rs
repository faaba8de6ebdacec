//! Asks another node to probe a third.

use std::net::SocketAddr;

use overlay_core::NodeId;

use crate::Malformed;
use crate::wire::Reader;
use crate::wire::update::{address_len, parse_address, put_address};

/// Asks for a probe in one's stead; answered by an [`Ack`](crate::wire::Ack) or a [`Nack`](crate::wire::Nack).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PingRequest {
    /// Comes back in the answer.
    pub(crate) sequence: u32,
    /// Whom to probe.
    pub(crate) target: NodeId,
    /// Where it is.
    pub(crate) address: SocketAddr,
}

impl PingRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let (sequence, target) = (reader.u32("sequence")?, reader.node_id("target")?);
        let v6 = reader.len() > address_len(false);
        let address = parse_address(&mut reader, v6)?;
        reader.end("ping request")?;
        Ok(Self { sequence, target, address })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.target.to_bytes());
        put_address(self.address, out);
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
        fn what_is_encoded_parses_back(sequence: u32, target in node_id(), address in address()) {
            let request = PingRequest { sequence, target, address };
            let mut out = Vec::new();
            request.encode(&mut out);
            prop_assert_eq!(PingRequest::parse(&out), Ok(request));
            prop_assert!(PingRequest::parse(&out[1..]).is_err());
        }
    }
}
