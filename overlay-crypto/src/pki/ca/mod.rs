//! A cluster's authority: who lets nodes in, over a store.

mod error;
mod external;
mod issue;
mod nodes;
mod record;
mod root;
mod sealing;
mod seam;
mod store;
mod tokens;
mod words;

pub use error::{Denied, JoinRefusal, RemoveRefusal, RenewRefusal, RoleRefusal, RootRefusal, SignerError, Trouble};
pub use external::SignerTransport;
pub use sealing::SealingKey;
pub use seam::{CertificateAuthority, Issued, Joining, Renewing, Tended, Trusted};
pub use store::{AuthorityConfig, StoreAuthority};
pub use words::{Cause, Held, Invitation, Known, Member, NextRoot, Proof, Removed, RootProgress, Standing};
