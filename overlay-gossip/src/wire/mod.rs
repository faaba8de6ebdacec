//! Messages as they travel: one file per kind, all of one shape.

mod ack;
mod nack;
mod news;
mod packet;
mod ping;
mod ping_request;
mod proofs;
mod prove;
mod reader;
mod sync_push;
mod sync_reply;
mod sync_request;
mod update;
mod writer;

pub(crate) use ack::Ack;
pub(crate) use nack::Nack;
pub(crate) use news::News;
pub(crate) use packet::{Kind, Message, Packet, begin, bodies, frame_len, mark_signed, put_frame};
pub(crate) use ping::Ping;
pub(crate) use ping_request::PingRequest;
pub(crate) use proofs::Proofs;
pub(crate) use prove::Prove;
pub(crate) use reader::Reader;
pub(crate) use sync_push::SyncPush;
pub(crate) use sync_reply::SyncReply;
pub(crate) use sync_request::{BUCKETS, SyncRequest};
pub(crate) use update::{Number, Update, put_address};
pub(crate) use writer::{put_bytes, put_varint, varint_len};

#[cfg(test)]
pub(crate) use update::tests::update as any_update;
