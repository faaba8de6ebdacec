//! What nodes ask managers of their cluster itself: to be let in, for certificates, whom to believe.

mod client;
mod desk;
mod join;
mod refusal;
mod words;

pub use desk::Cluster;
pub use join::{JoinError, Joined, found, join, reissue};
pub use refusal::{ClusterError, ClusterRefusal, RefusalKind};
pub(super) use words::Ask;
pub use words::{Admitted, Gone, Ring, Stands};
