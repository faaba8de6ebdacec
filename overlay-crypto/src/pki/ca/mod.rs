//! A cluster's authority: who lets nodes in, over a store.

mod error;
mod seam;
mod words;

pub use error::{Denied, JoinRefusal, RemoveRefusal, RenewRefusal, RoleRefusal, RootRefusal, SignerError, Trouble};
pub use seam::{CertificateAuthority, Issued, Joining, Renewing, Tended, Trusted};
pub use words::{Cause, Held, Invitation, Known, Member, NextRoot, Proof, Removed, RootProgress, Standing};
