//! Changes of one owner.

use overlay_core::NodeId;

use crate::Malformed;
use crate::tables::wire::Change;
use crate::wire::{Reader, put_varint, varint_len};

/// Changes of one owner in one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) owner: NodeId,
    /// Which start of the owner numbered them.
    pub(crate) incarnation: u64,
    /// Through which number every live subscriber is known to have seen; tombstones up to it may go.
    pub(crate) stable: u64,
    pub(crate) changes: Vec<Change>,
}

impl Group {
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let owner = reader.node_id("owner")?;
        let incarnation = reader.varint("incarnation")?;
        let stable = reader.varint("stable number")?;
        let count = reader.varint("changes")?;
        let mut changes = Vec::new(); // not by `count`: a change has bytes, so the input bounds them
        for _ in 0..count {
            changes.push(Change::parse(reader)?);
        }
        Ok(Self { owner, incarnation, stable, changes })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.owner.to_bytes());
        put_varint(self.incarnation, out);
        put_varint(self.stable, out);
        put_varint(self.changes.len() as u64, out);
        self.changes.iter().for_each(|change| change.encode(out));
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        self.head_len() + self.changes.iter().map(Change::encoded_len).sum::<usize>()
    }

    fn head_len(&self) -> usize {
        16 + varint_len(self.incarnation) + varint_len(self.stable) + varint_len(self.changes.len() as u64)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use overlay_core::testing::any::node_id;
    use proptest::prelude::*;

    use super::*;
    use crate::tables::wire::any_change;

    pub(crate) fn group() -> impl Strategy<Value = Group> {
        (node_id(), any::<u64>(), any::<u64>(), proptest::collection::vec(any_change(), 0..4))
            .prop_map(|(owner, incarnation, stable, changes)| Group { owner, incarnation, stable, changes })
    }

    proptest! {
        #[test]
        fn what_is_encoded_parses_back_and_is_as_long_as_foretold(group in group()) {
            let mut out = Vec::new();
            group.encode(&mut out);
            prop_assert_eq!(out.len(), group.encoded_len());
            let mut reader = Reader::new(&out);
            prop_assert_eq!(Group::parse(&mut reader), Ok(group));
            prop_assert!(reader.is_empty());
        }
    }
}
