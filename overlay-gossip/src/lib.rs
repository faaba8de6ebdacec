#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod class;
mod config;
mod ids;
mod malformed;
mod member;
mod member_change;
mod reason;
mod wire;

pub use class::{Class, STREAM_LIMIT};
pub use config::{Config, ConfigError, Protocol};
pub use ids::{EntryKey, Key, KeyError, Sequence, TableId};
pub use malformed::Malformed;
pub use member::{Member, Metadata, MetadataError, Role, Standing};
pub use reason::Reason;
