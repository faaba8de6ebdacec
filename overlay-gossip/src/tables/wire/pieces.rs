//! Which pieces of a part of the owners differ.

use overlay_core::NetworkId;

use crate::Malformed;
use crate::tables::wire::BUCKETS;
use crate::wire::Reader;

/// A number for each piece of some parts of a network's owners: among thousands, a difference in one of them costs one piece's
/// vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) network: NetworkId,
    /// The parts, a bit each; for each, the hashes of its pieces.
    pub(crate) parts: u32,
    pub(crate) hashes: Vec<[u64; BUCKETS]>,
}

impl Pieces {
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let network = reader.network_id("network")?;
        let parts = reader.u32("parts")?;
        let mut hashes = Vec::with_capacity(reader.len() / (8 * BUCKETS));
        for _ in 0..parts.count_ones() {
            let mut part = [0; BUCKETS];
            for hash in &mut part {
                *hash = reader.u64("hash of a piece")?;
            }
            hashes.push(part);
        }
        Ok(Self { network, parts, hashes })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.to_bytes());
        out.extend_from_slice(&self.parts.to_be_bytes());
        self.hashes.iter().flatten().for_each(|hash| out.extend_from_slice(&hash.to_be_bytes()));
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) const fn encoded_len(&self) -> usize {
        20 + 8 * BUCKETS * self.hashes.len()
    }
}
