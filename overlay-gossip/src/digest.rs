//! What two nodes compare to find where their knowledge of members differs.

use overlay_core::NodeId;

use crate::wire::{BUCKETS, Number, SyncReply, Update};

/// A bit for each bucket whose digest is another.
pub(crate) fn differing(mine: &[u64; BUCKETS], theirs: &[u64; BUCKETS]) -> u64 {
    let pairs = mine.iter().zip(theirs).enumerate();
    pairs.fold(0, |bits, (bucket, (mine, theirs))| bits | u64::from(mine != theirs) << bucket)
}

/// The messages of an answer: one at least, the last of them marked.
pub(crate) fn replies(buckets: u64, updates: Vec<Update>) -> Vec<SyncReply> {
    let mut replies: Vec<_> = chunks(updates, Update::encoded_len)
        .into_iter()
        .map(|updates| SyncReply { last: false, buckets, updates })
        .collect();
    match replies.last_mut() {
        Some(reply) => reply.last = true,
        None => replies.push(SyncReply { last: true, buckets, updates: Vec::new() }),
    }
    replies
}

/// Cuts parts into messages of [`CHUNK`] bytes.
pub(crate) fn chunks<T>(parts: Vec<T>, encoded_len: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut chunks = Vec::new();
    let (mut chunk, mut len) = (Vec::new(), 0);
    for part in parts {
        let more = encoded_len(&part);
        if len + more > CHUNK && !chunk.is_empty() {
            chunks.push(std::mem::take(&mut chunk));
            len = 0;
        }
        len += more;
        chunk.push(part);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// Bytes of one message of an answer: large enough to be few, small enough that news need not wait long.
const CHUNK: usize = 64 * 1024;

/// Which part of a comparison a node belongs to.
pub(crate) fn bucket(id: NodeId) -> usize {
    (mix(fold(id)) % BUCKETS as u64) as usize
}

/// A member's part of the digests of live members, which are combined by XOR. Against chance, not against malice: whoever may send has the cluster's key.
pub(crate) fn digest(id: NodeId, number: Number) -> u64 {
    mix(fold(id) ^ mix(number.incarnation ^ mix(number.revision.into())))
}

fn fold(id: NodeId) -> u64 {
    let bits = u128::from_be_bytes(id.to_bytes());
    mix((bits >> 64) as u64) ^ bits as u64
}

/// The finalizer of SplitMix64: every bit of the input reaches every bit of the output.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
