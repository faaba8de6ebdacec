//! The tables' messages as they travel: one file per kind, all of one shape.

mod change;
mod chunk;
mod confirm;
mod digest;
mod fresh;
mod group;
mod pieces;
mod scope;
mod summary;
mod tip;
mod vectors;
mod want;

pub(crate) use change::Change;
pub(crate) use chunk::{Chunk, End, Part};
pub(crate) use confirm::{Confirm, Confirmed};
pub(crate) use digest::{Digest, Root};
pub(crate) use fresh::Fresh;
pub(crate) use group::Group;
pub(crate) use pieces::Pieces;
pub(crate) use scope::{PIECES, Place, Scope};
pub(crate) use summary::{BUCKETS, Summary};
pub(crate) use tip::Tip;
pub(crate) use vectors::{Vector, Vectors};
pub(crate) use want::{Missing, Want};

use crate::Malformed;
use crate::wire::Reader;

#[cfg(test)]
pub(crate) use change::tests::change as any_change;
#[cfg(test)]
pub(crate) use group::tests::group as any_group;
#[cfg(test)]
pub(crate) use scope::tests::scope as any_scope;

/// One message of the tables: a number for its kind, then its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Fresh(Fresh),
    Digest(Digest),
    Summary(Box<Summary>),
    Vectors(Vectors),
    Want(Want),
    Chunk(Chunk),
    Confirm(Confirm),
    Tip(Tip),
    Pieces(Pieces),
}

impl Message {
    /// Reads one message, to its last byte.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let message = match reader.u8("kind of message")? {
            1 => Self::Fresh(Fresh::parse(&mut reader)?),
            2 => Self::Digest(Digest::parse(&mut reader)?),
            3 => Self::Summary(Box::new(Summary::parse(&mut reader)?)),
            4 => Self::Vectors(Vectors::parse(&mut reader)?),
            Want::KIND => Self::Want(Want::parse(&mut reader)?),
            Chunk::KIND => Self::Chunk(Chunk::parse(&mut reader)?),
            7 => Self::Confirm(Confirm::parse(&mut reader)?),
            8 => Self::Tip(Tip::parse(&mut reader)?),
            9 => Self::Pieces(Pieces::parse(&mut reader)?),
            found => {
                return Err(Malformed::Range { field: "kind of message", found: found.into(), least: 1, most: 9 });
            }
        };
        reader.end("message")?;
        Ok(message)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        match self {
            Self::Fresh(fresh) => fresh.encode(out),
            Self::Digest(digest) => digest.encode(out),
            Self::Summary(summary) => summary.encode(out),
            Self::Vectors(vectors) => vectors.encode(out),
            Self::Want(want) => want.encode(out),
            Self::Chunk(chunk) => chunk.encode(out),
            Self::Confirm(confirm) => confirm.encode(out),
            Self::Tip(tip) => tip.encode(out),
            Self::Pieces(pieces) => pieces.encode(out),
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        1 + match self {
            Self::Fresh(fresh) => fresh.encoded_len(),
            Self::Digest(digest) => digest.encoded_len(),
            Self::Summary(summary) => summary.encoded_len(),
            Self::Vectors(vectors) => vectors.encoded_len(),
            Self::Want(want) => want.encoded_len(),
            Self::Chunk(chunk) => chunk.encoded_len(),
            Self::Confirm(confirm) => confirm.encoded_len(),
            Self::Tip(tip) => tip.encoded_len(),
            Self::Pieces(pieces) => pieces.encoded_len(),
        }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Fresh(_) => 1,
            Self::Digest(_) => 2,
            Self::Summary(_) => 3,
            Self::Vectors(_) => 4,
            Self::Want(_) => Want::KIND,
            Self::Chunk(_) => Chunk::KIND,
            Self::Confirm(_) => 7,
            Self::Tip(_) => 8,
            Self::Pieces(_) => 9,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use overlay_core::NodeId;
    use overlay_core::testing::any::{network_id, node_id};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::tables::any_intervals;

    fn end() -> impl Strategy<Value = Option<End>> {
        let end = (any_intervals(), any::<u64>(), proptest::option::of(any_intervals()));
        proptest::option::of(end.prop_map(|(seen, floor, alive)| End { seen, floor, alive }))
    }

    fn root() -> impl Strategy<Value = Root> {
        (network_id(), any::<u64>(), any::<u64>()).prop_map(|(network, subscription, hash)| Root {
            network,
            subscription,
            hash,
        })
    }

    fn vector() -> impl Strategy<Value = Vector> {
        (node_id(), any::<u64>(), any::<u64>(), any_intervals())
            .prop_map(|(owner, incarnation, content, seen)| Vector { owner, incarnation, content, seen })
    }

    fn missing() -> impl Strategy<Value = Missing> {
        (node_id(), any::<u64>(), any::<u64>(), any_intervals()).prop_map(|(owner, incarnation, after, seen)| Missing {
            owner,
            incarnation,
            after,
            seen,
        })
    }

    fn confirmed() -> impl Strategy<Value = Confirmed> {
        (network_id(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
            |(network, subscription, owner_incarnation, through)| Confirmed {
                network,
                subscription,
                owner_incarnation,
                through,
            },
        )
    }

    pub(crate) fn message() -> impl Strategy<Value = Message> {
        let part = (any_group(), end()).prop_map(|(group, end)| Part { group, end });
        prop_oneof![
            vec((network_id(), any_group()), 0..3).prop_map(|groups| Message::Fresh(Fresh { groups })),
            (any::<u64>(), vec(root(), 0..5))
                .prop_map(|(incarnation, roots)| Message::Digest(Digest { incarnation, roots })),
            (network_id(), any::<[u64; BUCKETS]>())
                .prop_map(|(network, hashes)| Message::Summary(Box::new(Summary { network, hashes }))),
            (network_id(), any_scope(), vec(vector(), 0..4))
                .prop_map(|(network, whole, owners)| Message::Vectors(Vectors { network, whole, owners })),
            (network_id(), vec(any::<[u64; BUCKETS]>(), 0..3), any::<u32>()).prop_map(|(network, hashes, shift)| {
                let parts = ((1 << hashes.len()) - 1_u32).rotate_left(shift);
                Message::Pieces(Pieces { network, parts, hashes })
            }),
            (any::<u64>(), network_id(), vec(missing(), 0..4)).prop_map(|(id, network, owners)| {
                let owners: BTreeMap<NodeId, Missing> = owners.into_iter().map(|each| (each.owner, each)).collect();
                Message::Want(Want { id, network, owners: owners.into_values().collect() })
            }),
            (any::<u64>(), network_id(), vec(part, 0..3)).prop_map(|(id, network, parts)| {
                let parts: BTreeMap<NodeId, Part> = parts.into_iter().map(|each| (each.group.owner, each)).collect();
                Message::Chunk(Chunk { id, network, parts: parts.into_values().collect() })
            }),
            (any::<u64>(), vec(confirmed(), 0..4))
                .prop_map(|(incarnation, networks)| Message::Confirm(Confirm { incarnation, networks })),
            (network_id(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
                |(network, incarnation, through, stable)| Message::Tip(Tip { network, incarnation, through, stable })
            ),
        ]
    }

    proptest! {
        #[test]
        fn every_message_parses_back_and_is_as_long_as_foretold(message in message()) {
            let mut out = Vec::new();
            message.encode(&mut out);
            prop_assert_eq!(out.len(), message.encoded_len());
            prop_assert_eq!(Message::parse(&out), Ok(message));
        }

        #[test]
        fn what_parses_is_the_one_encoding(bytes in vec(any::<u8>(), 0..60), kind in 0..11_u8) {
            let bytes = [&[kind], &bytes[..]].concat();
            if let Ok(message) = Message::parse(&bytes) {
                let mut again = Vec::new();
                message.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
