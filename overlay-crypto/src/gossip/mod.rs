//! Sealed gossip: keys that all nodes of a cluster have, by which each seals what it sends.

mod generation;
mod heard;
mod key;
mod keyring;
mod record;
mod signed;
mod succession;
mod trailer;
mod wrap;

pub use generation::Generation;
pub use key::{GossipKey, GossipKeyError, KeyId};
pub use keyring::{Keyring, KeyringError, OpenError, Purpose, SealError};
pub use record::SuccessionRecord;
pub use signed::{Signer, SignerKey, StatementError, Verifier};
pub use succession::{Succession, SuccessionTextError};
pub use wrap::{Recipient, WrapError, WrappedKey};
