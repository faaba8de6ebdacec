//! Why the cluster did not do what it was asked.

use overlay_core::NodeId;
use std::net::SocketAddr;

use overlay_crypto::pki::{
    Denied, JoinRefusal, RemoveRefusal, RenewRefusal, RoleRefusal, RootRefusal, TokenRefusal, Trouble,
};
use overlay_node::{ControlError, Refused};
use serde::{Deserialize, Serialize};

use crate::control::RemoteError;

/// What is in the way, by name and in words that say what would be right. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct ClusterRefusal {
    /// Its name.
    pub kind: RefusalKind,
    /// In words.
    pub text: String,
    /// Where other managers are, if this one does not lead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managers: Vec<SocketAddr>,
}

/// The name of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefusalKind {
    /// The token is none of this cluster's, or was rotated.
    TokenUnknown,
    /// The token's time is over.
    TokenExpired,
    /// As many have joined by the token as may.
    TokenSpent,
    /// The token is for another node.
    TokenOtherNode,
    /// The id is another node's.
    Taken,
    /// The node was removed.
    Removed,
    /// The node is no member.
    Stranger,
    /// The certificate has expired, for too long to be rescued perhaps.
    Expired,
    /// It was not proved who asks.
    Unproved,
    /// It is the last manager.
    LastManager,
    /// The root cannot be changed so.
    Root,
    /// What was sent makes no sense.
    Malformed,
    /// Another manager leads, which alone signs.
    NotLeading,
    /// Something is in the way for now: try again.
    Trouble,
    /// One that a later release has named, and this one does not know: the text says it.
    #[serde(other)]
    Other,
}

/// Why the cluster did not do what it was asked, or could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// It was refused. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] ClusterRefusal),
    /// No manager could be asked, or none answered. Ask again: what was done already is found.
    #[error("no manager could be asked")]
    Unreachable(#[source] RemoteError),
}

impl ClusterError {
    /// The name of the refusal, if that is what it is.
    pub const fn kind(&self) -> Option<RefusalKind> {
        match self {
            Self::Refused(refusal) => Some(refusal.kind),
            Self::Unreachable(_) => None,
        }
    }
}

impl ClusterRefusal {
    const fn named(kind: RefusalKind, text: String) -> Self {
        Self { kind, text, managers: Vec::new() }
    }

    pub(super) fn malformed(error: impl std::fmt::Display) -> Self {
        Self::named(RefusalKind::Malformed, error.to_string())
    }

    pub(super) fn in_the_way(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::named(RefusalKind::Trouble, overlay_core::told(error))
    }

    pub(super) fn trouble(error: &ControlError) -> Self {
        Self::named(RefusalKind::Trouble, overlay_core::told(error))
    }

    pub(super) fn last_manager(error: &Refused) -> Self {
        Self::named(RefusalKind::LastManager, error.to_string())
    }

    pub(super) fn taken(node: NodeId) -> Self {
        let text =
            format!("node {node} is in the catalogue and has never joined: remove it before another joins by its id");
        Self::named(RefusalKind::Taken, text)
    }

    pub(super) fn only_strangers() -> Self {
        Self::malformed("who has a certificate need not join: have it renewed")
    }
}

/// A refusal that has a name here.
pub(super) trait Named: std::fmt::Display {
    fn kind(&self) -> RefusalKind;
}

impl Named for JoinRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Token(TokenRefusal::Expired { .. }) => RefusalKind::TokenExpired,
            Self::Token(TokenRefusal::Spent) => RefusalKind::TokenSpent,
            Self::Token(TokenRefusal::OtherNode) => RefusalKind::TokenOtherNode,
            Self::Token(_) => RefusalKind::TokenUnknown,
            Self::Taken { .. } => RefusalKind::Taken,
            Self::Removed { .. } => RefusalKind::Removed,
            _ => RefusalKind::Unproved,
        }
    }
}

impl Named for RenewRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Removed { .. } => RefusalKind::Removed,
            Self::Stranger { .. } => RefusalKind::Stranger,
            Self::Expired { .. } | Self::Late { .. } => RefusalKind::Expired,
            _ => RefusalKind::Unproved,
        }
    }
}

impl Named for RoleRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::LastManager { .. } => RefusalKind::LastManager,
            _ => RefusalKind::Stranger,
        }
    }
}

impl Named for RemoveRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::LastManager { .. } => RefusalKind::LastManager,
            _ => RefusalKind::Stranger,
        }
    }
}

impl Named for RootRefusal {
    fn kind(&self) -> RefusalKind {
        RefusalKind::Root
    }
}

impl<R: Named> From<Denied<R>> for ClusterRefusal {
    fn from(denied: Denied<R>) -> Self {
        match denied {
            Denied::Refused(refusal) => Self::named(refusal.kind(), refusal.to_string()),
            Denied::Trouble(trouble) => trouble.into(),
        }
    }
}

impl From<Trouble> for ClusterRefusal {
    fn from(trouble: Trouble) -> Self {
        let kind = match trouble {
            Trouble::NotLeading | Trouble::Deposed => RefusalKind::NotLeading,
            _ => RefusalKind::Trouble,
        };
        Self::named(kind, overlay_core::told(&trouble))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_a_later_release_is_one_all_the_same() {
        let said = r#"{"kind":"full-moon","text":"not tonight"}"#;
        let refusal: ClusterRefusal = serde_json::from_str(said).unwrap();
        assert_eq!((refusal.kind, refusal.to_string().as_str()), (RefusalKind::Other, "not tonight"));
        let known: ClusterRefusal = serde_json::from_str(r#"{"kind":"last-manager","text":""}"#).unwrap();
        assert_eq!(known.kind, RefusalKind::LastManager);
    }
}
