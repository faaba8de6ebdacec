#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod class;
mod ids;
mod malformed;
mod member_change;
mod reason;
mod wire;

pub use class::Class;
pub use ids::{EntryKey, Key, KeyError, Sequence, TableId};
pub use malformed::Malformed;
pub use reason::Reason;
/// The longest message on a stream, in bytes: a value of 64 KiB with all that goes around it fits, and so do chunks of
/// what is compared.
pub const STREAM_LIMIT: usize = 256 * 1024;
