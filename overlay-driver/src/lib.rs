#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod attach;
mod book;
mod builder;
mod chance;
pub mod control;
mod counted;
mod driver;
mod error;
mod events;
mod gateway;
mod ground;
mod heart;
mod hints;
mod home;
mod keys;
mod leading;
mod membership;
mod metrics;
mod open_vault;
pub mod packets;
mod replace;
mod reporter;
mod resolvers;
mod seal;
mod signed;
mod source;
mod spans;
mod status;
mod streams;
#[cfg(feature = "testing")]
pub mod testing;
mod watch;
mod works;

pub use attach::{Attach, Attached};
pub use book::Plugged;
pub use builder::Builder;
pub use driver::Driver;
pub use error::{AttachError, DrainError, GossipKeysError, PlugError, StartError, Stopped, TearDownError};
pub use ground::{FlowMeter, Ground, Hindrances, KernelPlaces, MemoryGround, UserspacePlaces};
pub use leading::Leading;
pub use membership::{Keep, Membership, MembershipConfig, MembershipEvent, MembershipParts};
pub use metrics::{DriverMetrics, PlaceMetrics};
pub use open_vault::{OpenVault, OpenVaultError};
pub use replace::{Replace, Replaced, replace};
pub use seal::{KeepGossipKeys, KeyFileError};
pub use signed::SignedStatus;
pub use source::Source;
pub use status::{DriverEvent, KeysStatus, MemberStatus, PlaceStatus, SealStatus, Status};
pub use watch::ServiceWatch;
