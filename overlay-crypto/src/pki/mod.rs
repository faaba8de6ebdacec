//! Who is a node of the cluster: certificates, who issues them, and how one is asked for.

mod authority;
mod base36;
mod ca;
mod certificate;
mod identity;
mod key;
mod lock;
mod refusals;
mod renewal;
mod request;
mod token;
mod trust;
mod vault;
mod voucher;

pub use authority::{Authority, Grant, IssueError, Life, LifeError};
pub use ca::{
    AuthorityConfig, Cause, CertificateAuthority, Denied, Held, Invitation, Issued, JoinRefusal, Joining, Known,
    Member, NextRoot, Proof, RemoveRefusal, Removed, RenewRefusal, Renewing, RoleRefusal, RootProgress, RootRefusal,
    SealingKey, SignerError, SignerTransport, Standing, StoreAuthority, Tended, Trouble, Trusted,
};
pub use certificate::{Certificate, CertificateError, Serial, Validity};
pub use identity::{Identity, Role, RoleError};
pub use key::{Algorithm, KeyDigest, KeyError, SigningKey};
pub use lock::{LockError, Locked, UnlockKey};
pub use refusals::Refusals;
pub use renewal::{Renewal, RenewalConfig, RenewalConfigError, RenewalEvent};
pub use request::{RequestError, SigningRequest};
pub use token::{Admission, JoinToken, TokenError, TokenRefusal};
pub use trust::{Trust, TrustError, Usage, VerifyError};
pub use vault::{Kept, Vault, VaultError};
pub use voucher::{VouchError, Voucher, VoucherError};
