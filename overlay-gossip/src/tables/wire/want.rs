//! A request for what is missing.

use overlay_core::{NetworkId, NodeId};

use crate::Malformed;
use crate::tables::Intervals;
use crate::wire::{Reader, put_varint, varint_len};

/// Asks for entries of some owners of a network, of all that the sender has not seen. It is answered by one
/// [`Chunk`](super::Chunk), and asked again from where that ended; so who answers remembers nothing. Owners ascend: one that is
/// named twice would be looked up twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    /// Told again by the answer.
    pub(crate) id: u64,
    pub(crate) network: NetworkId,
    pub(crate) owners: Vec<Missing>,
}

/// What is asked of one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) owner: NodeId,
    pub(crate) incarnation: u64,
    /// Entries with numbers up to this one were answered already.
    pub(crate) after: u64,
    /// Numbers that need no answer; a part of what was seen if that has very many gaps.
    pub(crate) seen: Intervals,
}

impl Want {
    /// Its number among the messages of the tables.
    pub(crate) const KIND: u8 = 5;

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = reader.varint("request")?;
        let network = reader.network_id("network")?;
        let mut owners = Vec::new();
        while !reader.is_empty() {
            let owner = ascending(owners.last().map(|last: &Missing| last.owner), reader.node_id("owner")?)?;
            owners.push(Missing {
                owner,
                incarnation: reader.varint("incarnation")?,
                after: reader.varint("cursor")?,
                seen: Intervals::parse(reader)?,
            });
        }
        Ok(Self { id, network, owners })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(self.id, out);
        out.extend_from_slice(&self.network.to_bytes());
        for missing in &self.owners {
            out.extend_from_slice(&missing.owner.to_bytes());
            put_varint(missing.incarnation, out);
            put_varint(missing.after, out);
            missing.seen.encode(out);
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        varint_len(self.id) + 16 + self.owners.iter().map(Missing::encoded_len).sum::<usize>()
    }
}

/// An owner that comes after the one before.
pub(crate) fn ascending(before: Option<NodeId>, owner: NodeId) -> Result<NodeId, Malformed> {
    match before {
        Some(before) if owner <= before => Err(Malformed::Misplaced { message: "owner" }),
        _ => Ok(owner),
    }
}

impl Missing {
    pub(crate) fn encoded_len(&self) -> usize {
        16 + varint_len(self.incarnation) + varint_len(self.after) + self.seen.encoded_len()
    }
}
