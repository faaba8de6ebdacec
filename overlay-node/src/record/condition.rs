//! How far an object is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far an object of the catalogue is: *accepted → allocated → ready*, or failed.
///
/// What `create` and `attach` report as done is at least [`Allocated`](Self::Allocated): nothing that can still be
/// refused is called a success.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It makes sense and has its name; addresses and numbers are being claimed. Left so by a manager that died in
    /// between, until one goes on with it.
    #[default]
    Accepted,
    /// It has all that it needs of the cluster.
    Allocated,
    /// It is in effect where it should be: an endpoint's node holds it; all endpoints of a network or service are ready.
    Ready,
    /// It cannot be had.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// It is being removed; what it has is given back.
    Removing,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.pad("accepted"),
            Self::Allocated => f.pad("allocated"),
            Self::Ready => f.pad("ready"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
            Self::Removing => f.pad("removing"),
        }
    }
}
