//! What has been seen of each owner.

use overlay_core::{NetworkId, NodeId};

use crate::Malformed;
use crate::tables::Intervals;
use crate::tables::wire::Scope;
use crate::wire::{Reader, put_varint, varint_len};

/// What the sender has seen of some owners of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vectors {
    pub(crate) network: NetworkId,
    /// Those of whose owners all are named; who has more answers with it. None in an answer.
    pub(crate) whole: Scope,
    pub(crate) owners: Vec<Vector>,
}

/// What has been seen of one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vector {
    pub(crate) owner: NodeId,
    pub(crate) incarnation: u64,
    /// A hash of its entries: who has seen the same has the same entries.
    pub(crate) content: u64,
    pub(crate) seen: Intervals,
}

impl Vectors {
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let network = reader.network_id("network")?;
        let whole = Scope::parse(reader)?;
        let mut owners = Vec::new();
        while !reader.is_empty() {
            owners.push(Vector {
                owner: reader.node_id("owner")?,
                incarnation: reader.varint("incarnation")?,
                content: reader.u64("content")?,
                seen: Intervals::parse(reader)?,
            });
        }
        Ok(Self { network, whole, owners })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.to_bytes());
        self.whole.encode(out);
        for vector in &self.owners {
            out.extend_from_slice(&vector.owner.to_bytes());
            put_varint(vector.incarnation, out);
            out.extend_from_slice(&vector.content.to_be_bytes());
            vector.seen.encode(out);
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        let each = |vector: &Vector| 24 + varint_len(vector.incarnation) + vector.seen.encoded_len();
        16 + self.whole.encoded_len() + self.owners.iter().map(each).sum::<usize>()
    }
}
