//! Which part of the owners differs.

use overlay_core::NetworkId;

use crate::Malformed;
use crate::wire::Reader;

/// Into how many parts the owners of a network are split, by a hash of their ids: a difference in one owner among thousands
/// costs one part's vectors.
pub(crate) const BUCKETS: usize = 32;

/// A number for each part of a network's owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) network: NetworkId,
    pub(crate) hashes: [u64; BUCKETS],
}

impl Summary {
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let network = reader.network_id("network")?;
        let mut hashes = [0; BUCKETS];
        for hash in &mut hashes {
            *hash = reader.u64("hash")?;
        }
        Ok(Self { network, hashes })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.to_bytes());
        self.hashes.iter().for_each(|hash| out.extend_from_slice(&hash.to_be_bytes()));
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) const fn encoded_len(&self) -> usize {
        16 + 8 * self.hashes.len()
    }
}
