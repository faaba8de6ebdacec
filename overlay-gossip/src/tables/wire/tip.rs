//! Word of an owner on how far its changes go.

use overlay_core::NetworkId;

use crate::Malformed;
use crate::wire::{Reader, put_varint, varint_len};

/// An owner's word to a subscriber that is behind, or that may forget tombstones. Answered by a [`Confirm`](super::Confirm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) network: NetworkId,
    pub(crate) incarnation: u64,
    /// The number of the owner's last change.
    pub(crate) through: u64,
    /// Through which number every live subscriber has confirmed.
    pub(crate) stable: u64,
}

impl Tip {
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            network: reader.network_id("network")?,
            incarnation: reader.varint("incarnation")?,
            through: reader.varint("last number")?,
            stable: reader.varint("stable number")?,
        })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.to_bytes());
        put_varint(self.incarnation, out);
        put_varint(self.through, out);
        put_varint(self.stable, out);
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) const fn encoded_len(&self) -> usize {
        16 + varint_len(self.incarnation) + varint_len(self.through) + varint_len(self.stable)
    }
}
