//! Sealed gossip: keys that all nodes of a cluster have, by which each seals what it sends.

mod heard;
mod key;
mod keyring;
mod trailer;

pub use key::{GossipKey, GossipKeyError, KeyId};
pub use keyring::{Keyring, KeyringError, OpenError, Purpose, SealError};
