//! What one payload holds: who sends it, then messages, each with its kind and length.
//!
//! ```text
//! version 1 | sender 16 | kind 1, length varint, body | kind 1, length varint, body | …
//! ```
//!
//! On a stream there is one message, and what may be long goes there only. In a datagram there is up to one message of
//! membership, one of its news, and any of the tables. So no payload asks for many answers.

use overlay_core::NodeId;

use crate::wire::{
    Ack, Nack, News, Ping, PingRequest, Proofs, Prove, Reader, SyncPush, SyncReply, SyncRequest, put_varint, varint_len,
};
use crate::{Class, Malformed, STREAM_LIMIT};

/// The formats that this crate reads; a change that others cannot read gets another number. What readers of the first can read is written in it, so that they
/// go on hearing probes and tables.
const VERSION: u8 = 2;
const FIRST: u8 = 1;

/// A payload, all of its membership messages read: nothing of it is acted upon unless all of it makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    pub(crate) from: NodeId,
    pub(crate) messages: Vec<Message<'a>>,
}

impl<'a> Packet<'a> {
    /// Bytes before the first message.
    pub(crate) const HEADER_LEN: usize = 17;

    pub(crate) fn parse(class: Class, payload: &'a [u8]) -> Result<Self, Malformed> {
        if payload.len() > STREAM_LIMIT {
            let (found, most) = (payload.len() as u64, STREAM_LIMIT as u64);
            return Err(Malformed::Range { field: "payload length", found, least: Self::HEADER_LEN as u64, most });
        }
        let mut reader = Reader::new(payload);
        match reader.u8("version")? {
            FIRST..=VERSION => {}
            found => return Err(Malformed::Version { found, read: VERSION }),
        }
        let from = reader.node_id("sender")?;
        let (mut messages, mut order) = (Vec::new(), Order::default());
        while !reader.is_empty() {
            let kind = Kind::parse(&mut reader)?;
            order.take(class, kind)?;
            messages.push(Message::parse(kind, reader.bytes("message")?)?);
        }
        Ok(Self { from, messages })
    }
}

/// What was in a payload so far.
#[derive(Debug, Default)]
struct Order {
    any: bool,
    membership: bool,
    news: bool,
}

impl Order {
    /// Notes a message, if it may be there.
    fn take(&mut self, class: Class, kind: Kind) -> Result<(), Malformed> {
        let (streamed, is_news) = (kind.is_streamed(), kind == Kind::News);
        let is_membership = !is_news && kind != Kind::Table;
        let misplaced = match class {
            Class::Stream => self.any || !(streamed || kind == Kind::Table),
            Class::Datagram => streamed || (self.news && is_news) || (self.membership && is_membership),
        };
        if misplaced {
            return Err(Malformed::Misplaced { message: kind.name() });
        }
        self.any = true;
        self.news |= is_news;
        self.membership |= is_membership;
        Ok(())
    }
}

/// Begins a payload of `from`.
pub(crate) fn begin(from: NodeId) -> Vec<u8> {
    let mut payload = Vec::with_capacity(64);
    payload.push(FIRST);
    payload.extend_from_slice(&from.to_bytes());
    payload
}

/// Notes that there is something in a payload that readers of the first format do not know: what members say of themselves, signed, and how that is proved.
pub(crate) fn mark_signed(payload: &mut [u8]) {
    payload.iter_mut().take(1).for_each(|version| *version = VERSION);
}

/// Appends a message.
pub(crate) fn put_frame(kind: Kind, body: &[u8], out: &mut Vec<u8>) {
    out.push(kind as u8);
    put_varint(body.len() as u64, out);
    out.extend_from_slice(body);
}

/// Bytes that [`put_frame`] appends for a body of `len` bytes.
pub(crate) const fn frame_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// The kind and the body's length of each message in a payload that makes sense.
pub(crate) fn bodies(payload: &[u8]) -> impl Iterator<Item = (Kind, usize)> {
    let mut reader = Reader::new(payload.get(Packet::HEADER_LEN..).unwrap_or_default());
    std::iter::from_fn(move || {
        let kind = Kind::of(reader.u8("kind").ok()?)?;
        Some((kind, reader.bytes("message").ok()?.len()))
    })
}

/// A message's kind, as its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Ping = 1,
    Ack = 2,
    PingRequest = 3,
    Nack = 4,
    News = 5,
    SyncRequest = 6,
    SyncReply = 7,
    SyncPush = 8,
    Table = 9,
    Foca = 10,
    Prove = 11,
    Proofs = 12,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Ping,
        Self::Ack,
        Self::PingRequest,
        Self::Nack,
        Self::News,
        Self::SyncRequest,
        Self::SyncReply,
        Self::SyncPush,
        Self::Table,
        Self::Foca,
        Self::Prove,
        Self::Proofs,
    ];

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let number = reader.u8("kind")?;
        let most = Self::ALL.len() as u64;
        Self::of(number).ok_or_else(|| Malformed::Range { field: "kind", found: number.into(), least: 1, most })
    }

    /// Whether it travels on streams: it may be long, or asks for what may be.
    const fn is_streamed(self) -> bool {
        matches!(self, Self::SyncRequest | Self::SyncReply | Self::SyncPush | Self::Prove | Self::Proofs)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Ack => "ack",
            Self::PingRequest => "ping request",
            Self::Nack => "nack",
            Self::News => "news",
            Self::SyncRequest => "sync request",
            Self::SyncReply => "sync reply",
            Self::SyncPush => "sync push",
            Self::Table => "message of the tables",
            Self::Foca => "message of foca's",
            Self::Prove => "request for proofs",
            Self::Proofs => "proofs",
        }
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// One message, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Ping(Ping),
    Ack(Ack),
    PingRequest(PingRequest),
    Nack(Nack),
    News(News),
    SyncRequest(SyncRequest),
    SyncReply(SyncReply),
    SyncPush(SyncPush),
    /// The tables' own; they read it.
    Table(&'a [u8]),
    /// foca's own; it reads it.
    Foca(&'a [u8]),
    Prove(Prove),
    Proofs(Proofs),
}

impl<'a> Message<'a> {
    fn parse(kind: Kind, body: &'a [u8]) -> Result<Self, Malformed> {
        Ok(match kind {
            Kind::Ping => Self::Ping(Ping::parse(body)?),
            Kind::Ack => Self::Ack(Ack::parse(body)?),
            Kind::PingRequest => Self::PingRequest(PingRequest::parse(body)?),
            Kind::Nack => Self::Nack(Nack::parse(body)?),
            Kind::News => Self::News(News::parse(body)?),
            Kind::SyncRequest => Self::SyncRequest(SyncRequest::parse(body)?),
            Kind::SyncReply => Self::SyncReply(SyncReply::parse(body)?),
            Kind::SyncPush => Self::SyncPush(SyncPush::parse(body)?),
            Kind::Table => Self::Table(body),
            Kind::Foca => Self::Foca(body),
            Kind::Prove => Self::Prove(Prove::parse(body)?),
            Kind::Proofs => Self::Proofs(Proofs::parse(body)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_version_is_refused_by_its_number() {
        let mut payload = begin(NodeId::from_bytes([7; 16]));
        for found in [0, 3] {
            payload[0] = found;
            let refused = Packet::parse(Class::Datagram, &payload);
            assert_eq!(refused, Err(Malformed::Version { found, read: VERSION }));
        }
        mark_signed(&mut payload);
        assert!(Packet::parse(Class::Datagram, &payload).is_ok());
    }

    proptest! {
        #[test]
        fn messages_come_back_in_order_and_are_as_long_as_foretold(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..5)
        ) {
            let from = NodeId::from_bytes([7; 16]);
            let mut payload = begin(from);
            prop_assert_eq!(payload.len(), Packet::HEADER_LEN);
            for body in &bodies {
                let before = payload.len();
                put_frame(Kind::Table, body, &mut payload);
                prop_assert_eq!(payload.len() - before, frame_len(body.len()));
            }
            let packet = Packet::parse(Class::Datagram, &payload).unwrap();
            prop_assert_eq!(packet.from, from);
            prop_assert_eq!(super::bodies(&payload).map(|(_, len)| len).collect::<Vec<_>>(), bodies.iter().map(Vec::len).collect::<Vec<_>>());
            prop_assert_eq!(packet.messages, bodies.iter().map(|body| Message::Table(body)).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut payload = begin(NodeId::from_bytes([7; 16]));
            payload.extend_from_slice(&bytes);
            for class in [Class::Datagram, Class::Stream] {
                let _ = Packet::parse(class, &payload);
                let _ = Packet::parse(class, &bytes);
            }
        }
    }
}
