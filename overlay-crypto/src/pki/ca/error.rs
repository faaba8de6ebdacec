//! Why an authority did not do what it was asked.

use overlay_core::{Key, NodeId, StoreError, TransactionError, UnixTime};

use crate::pki::{Certificate, CertificateError, IssueError, KeyDigest, KeyError, Role, TokenRefusal, Validity};

/// A refusal, or what was in the way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Denied<R> {
    /// What was asked for cannot be had. Nothing was changed.
    #[error("{0}")]
    Refused(R),
    /// It could not be done now.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

/// What was in the way. Nothing was changed, but where it says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// This manager does not lead: ask the one that does.
    #[error("this manager does not lead: only the one that leads signs")]
    NotLeading,
    /// Its term is over: somebody else leads. What was asked is to be asked there.
    #[error("this manager does not lead any more")]
    Deposed,
    /// The cluster has no root yet.
    #[error("the cluster has no root: found it first")]
    NoRoot,
    /// Others were faster, every time: try again.
    #[error("others were faster, too often: try again")]
    Contended,
    /// It may have been done: the same once more finds out.
    #[error("the answer of the store was lost: it may be done or not")]
    InDoubt(#[source] StoreError),
    /// The store could not be used.
    #[error("the store could not be used")]
    Store(#[source] StoreError),
    /// A record cannot be read: of a later release, or damaged.
    #[error("the record {key} cannot be read: {flaw}")]
    Damaged {
        /// Which.
        key: Key,
        /// What makes no sense.
        flaw: String,
    },
    /// The root's key is sealed with a key that this manager was not given.
    #[error("this manager has no key that unseals the root's: have it given by another manager")]
    Sealed,
    /// The root cannot sign.
    #[error("the root cannot sign: {0}")]
    Issue(#[from] IssueError),
    /// The system gave no chance.
    #[error(transparent)]
    Chance(#[from] KeyError),
    /// The signer elsewhere did not sign, or not what it was asked for.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// A mistake of ours.
    #[error("the authority made a commit that no store takes")]
    Commit,
}

/// Why a signer elsewhere was of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// There is no way to ask one: no transport was given.
    #[error("the root's key is elsewhere, and this manager was given no way to ask there")]
    NoTransport,
    /// It does not answer, or not with what a signer answers.
    #[error("the signer at {url} does not answer: {why}")]
    Unreachable {
        /// Where it was asked.
        url: String,
        /// Why, for people.
        why: String,
    },
    /// It answered that it does not sign.
    #[error("the signer at {url} refuses: {why}")]
    Refuses {
        /// Where it was asked.
        url: String,
        /// What it says.
        why: String,
    },
    /// More than any certificate of ours.
    #[error("the signer answered {have} bytes, {most} are the most")]
    TooLong {
        /// Bytes that it answered.
        have: usize,
        /// The most.
        most: usize,
    },
    /// What it signed is no certificate.
    #[error("the signer answered no certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// For another key than was asked.
    #[error("the signer signed key {found}, not {asked}")]
    OtherKey {
        /// Asked for.
        asked: KeyDigest,
        /// Signed.
        found: KeyDigest,
    },
    /// For somebody else than was asked.
    #[error("the signer signed for another than was asked")]
    OtherName,
    /// It lets its holder sign others.
    #[error("the signer gave a node the rights of a root")]
    Authority,
    /// Not of the root that nodes believe.
    #[error("what the signer signed is not believed: {0}")]
    OtherRoot(crate::pki::VerifyError),
    /// It counts for less than an hour, or for longer than was asked.
    #[error("what the signer signed counts from {0}: an hour at least, and no longer than asked")]
    Life(Validity),
}

/// Why a node is not let in. No use of its token was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinRefusal {
    /// Its token lets it not in.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// The id belongs to a node that is a member, with another key.
    #[error("node {node} is a member already: remove it first, or make a token for it alone")]
    Taken {
        /// The id.
        node: NodeId,
    },
    /// The id belonged to a node that was removed.
    #[error("node {node} was removed, and its id is never given again: join with a new key and no id")]
    Removed {
        /// The id.
        node: NodeId,
    },
}

/// Why a node gets no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenewRefusal {
    /// It was removed.
    #[error("node {node} was removed from the cluster")]
    Removed {
        /// Which.
        node: NodeId,
    },
    /// It is not a member.
    #[error("node {node} is no member of the cluster: join with a token")]
    Stranger {
        /// Which.
        node: NodeId,
    },
    /// Its certificate names nobody of this cluster.
    #[error("the certificate names no node of this cluster")]
    Nobody,
    /// Its certificate does not count any more, and it proves itself by nothing else.
    #[error("the certificate counted until {until}, and it is {now}: prove its key")]
    Expired {
        /// Until when.
        until: UnixTime,
        /// The time.
        now: UnixTime,
    },
    /// Its certificate has expired for longer than the grace.
    #[error("the certificate counted until {until}, which is too long ago: join with a token for node {node}")]
    Late {
        /// The node.
        node: NodeId,
        /// Until when.
        until: UnixTime,
    },
    /// The key is not that of a certificate that the node has.
    #[error("that is not the key of a certificate that node {node} has")]
    OtherKey {
        /// The node.
        node: NodeId,
    },
    /// The signature is not by that key over the request.
    #[error("the request is not signed with the key of the certificate")]
    Signature,
    /// It wants what only another role may have.
    #[error("only a {wanted} may do that")]
    Role {
        /// The one that may.
        wanted: Role,
    },
}

/// Why a node keeps its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoleRefusal {
    /// It is not a member.
    #[error("node {node} is no member of the cluster")]
    Stranger {
        /// Which.
        node: NodeId,
    },
    /// A cluster has one manager at least.
    #[error("node {node} is the last manager: promote another first")]
    LastManager {
        /// Which.
        node: NodeId,
    },
}

/// Why a node is not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveRefusal {
    /// It is not a member, and was none lately.
    #[error("node {node} is no member of the cluster")]
    Stranger {
        /// Which.
        node: NodeId,
    },
    /// A cluster has one manager at least.
    #[error("node {node} is the last manager: promote another first")]
    LastManager {
        /// Which.
        node: NodeId,
    },
}

/// Why the root is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootRefusal {
    /// The certificate given is no root of this cluster: self-signed, for who signs others, with this cluster's id as its organisation.
    #[error(
        "that is no root of this cluster: self-signed, for who signs others, with the cluster's id as its organisation"
    )]
    NoRoot,
    /// It does not count for another year.
    #[error("that root counts from {validity}: it expires too soon, another year is the least")]
    Soon {
        /// When it does.
        validity: Validity,
    },
    /// It does not count yet.
    #[error("that root counts from {validity} only")]
    NotYet {
        /// When it does.
        validity: Validity,
    },
    /// Another certificate of the present root's key: nothing would be changed.
    #[error("that root has the present one's key {key}: generate another")]
    SameKey {
        /// It.
        key: KeyDigest,
    },
    /// Neither root's key is here, so nobody signs the next with the present one.
    #[error(
        "rotating from one external CA to a different external CA is not supported: rotate to a root of the cluster's own first"
    )]
    BothElsewhere,
    /// The signer elsewhere does not sign as that root.
    #[error("that signer is not the root's: {0}")]
    Signer(SignerError),
    /// The root is not being changed.
    #[error("the root is not being changed")]
    NoRotation,
}

impl<R> Denied<R> {
    /// The refusal, if that is what it is.
    pub const fn refusal(&self) -> Option<&R> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Trouble(_) => None,
        }
    }
}

impl Trouble {
    /// Whether the same may work later with nothing else changed, here or at the manager that leads then.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NotLeading | Self::Deposed | Self::Contended | Self::InDoubt(_) | Self::Store(_) | Self::Signer(_)
        )
    }

    pub(super) fn damaged(key: &Key, flaw: impl ToString) -> Self {
        Self::Damaged { key: key.clone(), flaw: flaw.to_string() }
    }
}

impl<R> From<TransactionError<Denied<R>>> for Denied<R> {
    fn from(error: TransactionError<Self>) -> Self {
        Self::Trouble(match error {
            TransactionError::Refused(denied) => return denied,
            TransactionError::Contended { .. } => Trouble::Contended,
            TransactionError::Deposed => Trouble::Deposed,
            TransactionError::InDoubt(error) => Trouble::InDoubt(error),
            TransactionError::Store(error) => Trouble::Store(error),
            _ => Trouble::Commit,
        })
    }
}

/// The root that a certificate says it is, or why it is none.
pub(super) fn root_of(certificate: &Certificate, cluster: overlay_core::ClusterId) -> Result<(), RootRefusal> {
    let right = certificate.is_authority() && certificate.is_self_signed() && certificate.cluster() == Some(cluster);
    if right { Ok(()) } else { Err(RootRefusal::NoRoot) }
}
