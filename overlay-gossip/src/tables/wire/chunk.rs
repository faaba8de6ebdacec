//! An answer with what was missing.

use overlay_core::NetworkId;

use crate::Malformed;
use crate::tables::Intervals;
use crate::tables::wire::Group;
use crate::tables::wire::change::within;
use crate::tables::wire::want::ascending;
use crate::wire::{Reader, put_varint, varint_len};

/// Entries that a [`Want`](super::Want) asked for, in its ascending owners' order; the last owner may be cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The request's.
    pub(crate) id: u64,
    pub(crate) network: NetworkId,
    pub(crate) parts: Vec<Part>,
}

/// One owner's entries, by ascending number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) group: Group,
    /// There if that is all the sender has.
    pub(crate) end: Option<End>,
}

/// What holds once all entries of an owner are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// All that the sender has seen of the owner, but for what came to it between its answers; now the receiver has too.
    pub(crate) seen: Intervals,
    /// The greatest number of a removal that is no longer kept; 0 if there is none.
    pub(crate) floor: u64,
    /// The numbers up to `floor` of all entries, told if the receiver may have missed a removal that is no longer kept. An entry
    /// of a number up to `floor`, in `seen` and not here, is removed. Whoever had nothing when it asked is told as well: late news
    /// may give it what was removed before the answer comes.
    pub(crate) alive: Option<Intervals>,
}

impl Chunk {
    /// Its number among the messages of the tables.
    pub(crate) const KIND: u8 = 6;

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = reader.varint("request")?;
        let network = reader.network_id("network")?;
        let mut parts = Vec::new();
        while !reader.is_empty() {
            let group = Group::parse(reader)?;
            ascending(parts.last().map(|last: &Part| last.group.owner), group.owner)?;
            let end = match within(reader.u8("end")?.into(), "end", 0, 2)? {
                0 => None,
                kind => Some(End {
                    seen: Intervals::parse(reader)?,
                    floor: reader.varint("floor")?,
                    alive: if kind == 2 { Some(Intervals::parse(reader)?) } else { None },
                }),
            };
            parts.push(Part { group, end });
        }
        Ok(Self { id, network, parts })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(self.id, out);
        out.extend_from_slice(&self.network.to_bytes());
        for part in &self.parts {
            part.group.encode(out);
            let Some(end) = &part.end else {
                out.push(0);
                continue;
            };
            out.push(if end.alive.is_some() { 2 } else { 1 });
            end.seen.encode(out);
            put_varint(end.floor, out);
            end.alive.iter().for_each(|alive| alive.encode(out));
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        let end = |end: &End| end.encoded_len();
        let part = |part: &Part| part.group.encoded_len() + 1 + part.end.as_ref().map_or(0, end);
        varint_len(self.id) + 16 + self.parts.iter().map(part).sum::<usize>()
    }
}

impl End {
    pub(crate) fn encoded_len(&self) -> usize {
        let alive = self.alive.as_ref().map_or(0, Intervals::encoded_len);
        self.seen.encoded_len() + varint_len(self.floor) + alive
    }
}
