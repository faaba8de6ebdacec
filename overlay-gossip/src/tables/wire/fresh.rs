//! News of the tables.

use overlay_core::NetworkId;

use crate::Malformed;
use crate::tables::wire::Group;
use crate::wire::Reader;

/// Fresh changes, told to some so that they tell others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(crate) groups: Vec<(NetworkId, Group)>,
}

impl Fresh {
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut groups = Vec::new();
        while !reader.is_empty() {
            groups.push((reader.network_id("network")?, Group::parse(reader)?));
        }
        Ok(Self { groups })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for (network, group) in &self.groups {
            out.extend_from_slice(&network.to_bytes());
            group.encode(out);
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        self.groups.iter().map(|(_, group)| 16 + group.encoded_len()).sum()
    }
}
