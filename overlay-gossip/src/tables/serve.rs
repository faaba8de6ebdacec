//! Answers with entries.

use overlay_core::NodeId;

use crate::STREAM_LIMIT;
use crate::tables::wire::{Chunk, End, Group, Message, Missing, Part, Want};
use crate::tables::{Replica, Tables};

impl Tables {
    /// Answers a request with up to a chunk of entries. Nothing is remembered of it: the other asks on from where this ends.
    pub(super) fn handle_want(&mut self, from: NodeId, want: &Want) {
        if self.is_overloaded() {
            return;
        }
        let Some(replica) = self.replicas.get(&want.network) else {
            self.counts.refused.foreign_network += 1;
            return;
        };
        let room = self.config.chunk_room();
        let mut chunk = Chunk { id: want.id, network: want.network, parts: Vec::new() };
        let mut len = 0;
        for missing in &want.owners {
            let part = part(replica, missing, room.saturating_sub(len), chunk.parts.is_empty());
            len += part.group.encoded_len() + 1 + part.end.as_ref().map_or(0, End::encoded_len);
            let cut = part.end.is_none();
            chunk.parts.push(part);
            if cut || len >= room {
                break;
            }
        }
        self.counts.chunks += 1;
        self.outbox.push_stream(from, &Message::Chunk(chunk));
    }
}

/// The longest end: fits a message by itself. None of an owner that numbers its changes one by one is longer.
const END_LEN: usize = STREAM_LIMIT - 2 * 1_024;

/// One owner's entries that are missing, up to `room` bytes and one entry; with an end if that is all and has room, or comes
/// `first` and alone.
fn part(replica: &Replica, missing: &Missing, room: usize, first: bool) -> Part {
    let Missing { owner, incarnation, after, seen } = missing;
    let empty = Group { owner: *owner, incarnation: *incarnation, stable: 0, changes: Vec::new() };
    let Some(chain) = replica.chain(*owner).filter(|chain| chain.incarnation == *incarnation) else {
        return Part { group: empty, end: Some(End::default()) };
    };
    let mut group = Group { stable: chain.stable, ..empty };
    let mut len = 0;
    for change in chain.missing(seen, *after) {
        if len >= room {
            return Part { group, end: None };
        }
        len += change.encoded_len();
        group.changes.push(change);
    }
    let end = Some(chain.end_for(seen, *after)).filter(|end| end.encoded_len() <= END_LEN).unwrap_or_default();
    let fits = len + end.encoded_len() <= room || (first && group.changes.is_empty());
    Part { group, end: fits.then_some(end) } // else it comes by itself, when asked on
}
