//! Word to an owner of how far its changes have come.

use overlay_core::NetworkId;

use crate::Malformed;
use crate::wire::{Reader, put_varint, varint_len};

/// A subscriber's confirmations to the receiver, who is the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confirm {
    /// Which start of the sender speaks.
    pub(crate) incarnation: u64,
    pub(crate) networks: Vec<Confirmed>,
}

/// What is confirmed in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confirmed {
    pub(crate) network: NetworkId,
    /// The number of the change by which the sender subscribed.
    pub(crate) subscription: u64,
    /// Which start of the owner numbered what is confirmed.
    pub(crate) owner_incarnation: u64,
    /// All up to this number was seen.
    pub(crate) through: u64,
}

impl Confirmed {
    pub(crate) const fn encoded_len(&self) -> usize {
        16 + varint_len(self.subscription) + varint_len(self.owner_incarnation) + varint_len(self.through)
    }
}

impl Confirm {
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let incarnation = reader.varint("incarnation")?;
        let mut networks = Vec::new();
        while !reader.is_empty() {
            networks.push(Confirmed {
                network: reader.network_id("network")?,
                subscription: reader.varint("subscription")?,
                owner_incarnation: reader.varint("owner's incarnation")?,
                through: reader.varint("confirmed number")?,
            });
        }
        Ok(Self { incarnation, networks })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(self.incarnation, out);
        for confirmed in &self.networks {
            out.extend_from_slice(&confirmed.network.to_bytes());
            put_varint(confirmed.subscription, out);
            put_varint(confirmed.owner_incarnation, out);
            put_varint(confirmed.through, out);
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        varint_len(self.incarnation) + self.networks.iter().map(Confirmed::encoded_len).sum::<usize>()
    }
}
