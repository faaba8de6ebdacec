//! What an authority is told, and what it says of nodes and roots.

use overlay_core::{NodeId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::pki::{
    Algorithm, Authority, Certificate, KeyDigest, RequestError, Role, Serial, SigningKey, SigningRequest,
};

/// By what it is known which node asks for a certificate.
#[derive(Debug, Clone)]
pub enum Proof {
    /// This certificate, which the handshake has proved and the caller has verified: it counts.
    Session(Certificate),
    /// The key of this certificate, which need not count any more: by that key's signature over the request, and the node being a member still.
    Key {
        /// The certificate, as its node has it.
        certificate: Certificate,
        /// The signature.
        signature: Vec<u8>,
    },
}

/// A token that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// What a node becomes by it.
    pub role: Role,
    /// Until when it lets in; for good if nothing is said.
    pub until: Option<UnixTime>,
    /// How many nodes it lets in; any number if nothing is said.
    pub uses: Option<u32>,
    /// The only node that it lets in; any if nothing is said. One that is a member is let in anew: with another key, where it has lost its own.
    pub node: Option<NodeId>,
}

/// How a node stands with the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What it is: its certificate may say otherwise still.
    pub role: Role,
    /// Why it is to ask for another certificate at once.
    pub renew: Option<Cause>,
    /// Of what is [trusted](super::Trusted::revision) now.
    pub revision: u64,
}

/// Why a node is to ask for another certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// It is of another role now.
    Role,
    /// Another root signs.
    Root,
    /// Somebody wants it so.
    Asked,
}

/// A node that was let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// The certificate that it has, as far as is known.
    pub held: Held,
    /// Why it is to ask for another.
    pub renew: Option<Cause>,
}

/// A certificate, as the authority remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its number.
    pub serial: Serial,
    /// The digest of the node's key.
    pub key: KeyDigest,
    /// The digest of the root's key.
    pub root: KeyDigest,
    /// The role that it says.
    pub role: Role,
    /// From when it counts.
    pub from: UnixTime,
    /// Until when.
    pub until: UnixTime,
}

/// A root that is to sign from now on.
#[derive(Debug)]
#[non_exhaustive]
pub enum NextRoot {
    /// A new one.
    Generate(Algorithm),
    /// This one, with its key.
    Given(Authority),
    /// One whose key a signer elsewhere has, at this URL.
    Elsewhere {
        /// The root's certificate.
        certificate: Certificate,
        /// Where the signer is asked.
        url: String,
    },
}

/// How far a change of the root is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootProgress {
    /// The digest of the present root's key.
    pub from: KeyDigest,
    /// That of the one that signs now.
    pub to: KeyDigest,
    /// Nodes that have shown a certificate of it.
    pub followed: usize,
    /// Nodes that live and have not: the change waits for them.
    pub waiting: Vec<NodeId>,
    /// Nodes whose certificates have expired: it does not wait for them. They can be rescued within the grace, or removed.
    pub lost: Vec<NodeId>,
}

/// A node that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Until when it is refused by name: its certificates have expired then.
    pub until: UnixTime,
    /// What it knew, which is to be changed for another now.
    pub knew: Vec<Known>,
}

/// What a node of a cluster knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Known {
    /// The key that seals gossip.
    GossipKey,
    /// The tokens that let nodes in: a worker may have kept its own, a manager sees both.
    Tokens,
    /// The root's key, which managers can unseal: whoever has it is any node.
    Root,
    /// What managers are unlocked with.
    UnlockKey,
}

const RESCUE: &[u8] = b"overlay-crypto certificate rescue 1\n";

impl Proof {
    /// Proves by a certificate's key, which need not count any more, that its node makes this request.
    ///
    /// # Errors
    /// If the system gives no chance to sign with.
    pub fn of_key(certificate: Certificate, key: &SigningKey, request: &SigningRequest) -> Result<Self, RequestError> {
        let signature = key.sign(&Self::signed(request)).ok_or(RequestError::Unsigned)?;
        Ok(Self::Key { certificate, signature })
    }

    /// Whose it is, as it says.
    pub fn certificate(&self) -> &Certificate {
        match self {
            Self::Session(certificate) | Self::Key { certificate, .. } => certificate,
        }
    }

    /// Whether what is to be signed was signed.
    pub(super) fn holds(&self, request: &SigningRequest) -> bool {
        match self {
            Self::Session(_) => true,
            Self::Key { certificate, signature } => certificate.has_signed(&Self::signed(request), signature),
        }
    }

    fn signed(request: &SigningRequest) -> Vec<u8> {
        [RESCUE, request.as_der()].concat()
    }
}

impl RootProgress {
    /// Whether nobody is waited for.
    pub fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }
}
