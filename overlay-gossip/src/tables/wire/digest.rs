//! Everything in a few bytes.

use overlay_core::NetworkId;

use crate::Malformed;
use crate::wire::{Reader, put_varint, varint_len};

/// For each of some networks, one number for all that the sender has of it: who has the same has the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Which start of the sender speaks.
    pub(crate) incarnation: u64,
    pub(crate) roots: Vec<Root>,
}

/// One network's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) network: NetworkId,
    /// The number of the change by which the sender subscribed, so that no word from before counts after; or
    /// [none](Self::NO_WORD).
    pub(crate) subscription: u64,
    pub(crate) hash: u64,
}

impl Root {
    /// That the sender has seen the same is no word on having acted upon it. Changes are numbered from 1.
    pub(crate) const NO_WORD: u64 = 0;
}

impl Digest {
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let incarnation = reader.varint("incarnation")?;
        let mut roots = Vec::new();
        while !reader.is_empty() {
            roots.push(Root {
                network: reader.network_id("network")?,
                subscription: reader.varint("subscription")?,
                hash: reader.u64("hash")?,
            });
        }
        Ok(Self { incarnation, roots })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(self.incarnation, out);
        for root in &self.roots {
            out.extend_from_slice(&root.network.to_bytes());
            put_varint(root.subscription, out);
            out.extend_from_slice(&root.hash.to_be_bytes());
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        varint_len(self.incarnation) + self.roots.iter().map(|root| 24 + varint_len(root.subscription)).sum::<usize>()
    }
}
