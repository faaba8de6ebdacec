#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod chance;
mod class;
mod config;
mod digest;
mod event;
mod foca_core;
mod gossip;
mod ids;
mod member;
mod member_change;
mod membership;
mod metrics;
mod rate_limit;
mod reason;
mod room;
mod swim;
mod tables;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;

pub use class::{Class, STREAM_LIMIT};
pub use config::{Config, ConfigError, Protocol};
pub use event::Event;
pub use gossip::{Gossip, Transmit};
pub use ids::{EntryKey, Heard, Key, KeyError, Sequence, TableId};
pub use member::{Member, Metadata, MetadataError, Role, Standing};
pub use metrics::{Count, MembershipMetrics, Metrics, Traffic};
pub use overlay_core::Malformed;
pub use reason::Reason;
pub use tables::{
    Disbelief, Refused, RefusedMetrics, Signature, SignatureLengthError, TableEvent, TablesConfig, TablesMetrics,
    Verify,
};
