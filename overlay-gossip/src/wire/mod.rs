//! Messages as they travel: one file per kind, all of one shape.

mod reader;
mod writer;

pub(crate) use reader::Reader;
pub(crate) use writer::{put_bytes, put_varint, varint_len};
