//! What a node that was taken over may say.

use bytes::Bytes;
use overlay_core::NodeId;

use crate::EntryKey;
use crate::tables::{forged, forged_statement};

/// A change of an entry, in the name of whomever.
///
/// ```
/// use overlay_core::{NetworkId, NodeId};
/// use overlay_gossip::testing::Forgery;
/// use overlay_gossip::{EntryKey, Key, TableId};
///
/// let (victim, liar) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
/// let at = EntryKey { network: NetworkId::from_bytes([9; 16]), table: TableId(1), key: Key::new("10.0.9.3")? };
/// let mut forgery = Forgery { owner: victim, incarnation: 1, sequence: 7, at, value: Some("a lie".into()), signature: "".into() };
/// assert!(!forgery.statement().is_empty()); // for the liar to sign
/// forgery.signature = vec![7; 64].into();
/// assert!(!forgery.news(liar).is_empty()); // a datagram to send
/// # Ok::<(), overlay_gossip::KeyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgery {
    /// In whose name.
    pub owner: NodeId,
    /// Of which start of it.
    pub incarnation: u64,
    /// Its number.
    pub sequence: u64,
    /// Of which entry.
    pub at: EntryKey,
    /// Its value; `None`: it is removed.
    pub value: Option<Bytes>,
    /// With which signature; none if it is empty.
    pub signature: Bytes,
}

impl Forgery {
    /// What its owner would sign.
    pub fn statement(&self) -> Vec<u8> {
        forged_statement(self)
    }

    /// The payload of a datagram that tells it, from that node.
    pub fn news(&self, from: NodeId) -> Bytes {
        let mut payload = crate::wire::begin(from);
        crate::wire::put_frame(crate::wire::Kind::Table, &forged(self), &mut payload);
        payload.into()
    }
}
