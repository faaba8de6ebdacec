//! Hashes that nodes compare: the same on every machine and in every version of the wire.

use std::hash::Hasher;

use overlay_core::NodeId;
use siphasher::sip::SipHasher13;

use crate::tables::Intervals;
use crate::tables::wire::Place;
use crate::{Key, TableId};

/// The hash of one entry. A chain's content is the sum of them, so that one change costs one entry.
pub(crate) fn of_entry(sequence: u64, table: TableId, key: &Key, value: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(1, 0);
    hasher.write_u64(sequence.to_be());
    hasher.write_u16(table.0.to_be());
    hasher.write_u8(key.as_bytes().len() as u8);
    hasher.write(key.as_bytes());
    hasher.write(value);
    hasher.finish()
}

/// The hash of all that is known of one owner. A network's root is the sum of them.
pub(crate) fn of_chain(owner: NodeId, incarnation: u64, seen: &Intervals, content: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(2, 0);
    hasher.write(&owner.to_bytes());
    hasher.write_u64(incarnation.to_be());
    hasher.write_u64(content.to_be());
    for (first, last) in seen.iter() {
        hasher.write_u64(first.to_be());
        hasher.write_u64(last.to_be());
    }
    hasher.finish()
}

/// The piece of a network's owners that this one is in.
pub(crate) fn place(owner: NodeId) -> Place {
    let mut hasher = SipHasher13::new_with_keys(3, 0);
    hasher.write(&owner.to_bytes());
    Place::of_hash(hasher.finish())
}
