//! What is asked and answered.

use std::fmt;
use std::net::SocketAddr;

use overlay_core::NodeId;
use overlay_crypto::gossip::GossipKey;
use overlay_crypto::pki::{Certificate, Invitation, Issued, Known, Role, Standing, Trusted};
use overlay_node::{Endpoint, Reference};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::control::allow::Open;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::control) enum Ask {
    /// A first certificate, by a token.
    Join {
        token: Token,
        request: Der,
        node: Option<NodeId>,
    },
    /// The next one, though the present one is over: by its key.
    Rescue {
        certificate: Certificate,
        signature: Der,
        request: Der,
    },
    /// The next one.
    Renew {
        request: Der,
    },
    /// How one stands, and what is news of whom to believe and of gossip's keys.
    Stand {
        revision: u64,
        ring: u64,
    },
    Token {
        role: Role,
    },
    RotateToken {
        role: Role,
    },
    Invite {
        invitation: Invitation,
    },
    Members {},
    SetRole {
        node: NodeId,
        role: Role,
    },
    /// As the call by which a node is removed, and what it knew.
    Remove {
        node: Reference,
    },
    RotateRoot {},
    AbortRoot {},
    RootProgress {},
    /// What a manager needs to sign once it leads.
    SealingKey {},
}

impl Ask {
    /// What people call it, and to whom it is open.
    pub(in crate::control) const fn open(&self) -> (&'static str, Open) {
        match self {
            Self::Join { .. } => ("join", Open::Strangers),
            Self::Rescue { .. } => ("be rescued", Open::Strangers),
            Self::Renew { .. } => ("renew the own certificate", Open::Nodes),
            Self::Stand { .. } => ("ask how one stands", Open::Nodes),
            Self::Token { .. } => ("see join tokens", Open::Managers),
            Self::RotateToken { .. } => ("rotate join tokens", Open::Managers),
            Self::Invite { .. } => ("make join tokens", Open::Managers),
            Self::Members {} => ("list members", Open::Managers),
            Self::SetRole { .. } => ("promote and demote nodes", Open::Managers),
            Self::Remove { .. } => ("remove a node, and hear what it knew", Open::Managers),
            Self::RotateRoot {} => ("rotate the root", Open::Managers),
            Self::AbortRoot {} => ("take the root's rotation back", Open::Managers),
            Self::SealingKey {} => ("be given the sealing key", Open::Managers),
            Self::RootProgress {} => ("see the root's rotation", Open::Managers),
        }
    }
}

/// What a node is told that was let in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admitted {
    /// Its certificate.
    pub issued: Issued,
    /// What gossip is sealed with; nothing if it is not.
    pub ring: Option<Ring>,
    /// Where the managers are that are known.
    pub managers: Vec<SocketAddr>,
}

/// How a node stands, and what is news to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stands {
    /// How it stands with the authority.
    pub standing: Standing,
    /// Whom to believe now, if that is another revision than it knew.
    pub trusted: Option<Trusted>,
    /// What gossip is sealed with now, if that is another revision than it knew.
    pub ring: Option<Ring>,
    /// Where the managers are that are known.
    pub managers: Vec<SocketAddr>,
}

/// A node that was removed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Gone {
    /// What it knew, which is to be changed for another now; the key of gossip is, by the nodes themselves. Nothing of one that never had a certificate.
    pub knew: Vec<Known>,
    /// Its endpoints, which have ended.
    pub ended: Vec<Endpoint>,
}

/// The keys that gossip is sealed with, the first of them, and opened with, any of them. How they are changed is not this one's affair.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    /// Grows with each change.
    pub revision: u64,
    /// The keys.
    pub keys: Vec<GossipKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRing {
    revision: u64,
    keys: Vec<Der>,
}

impl Serialize for Ring {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let keys = self.keys.iter().map(|key| Der::new(key.secret_bytes().to_vec())).collect();
        WrittenRing { revision: self.revision, keys }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Ring {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let WrittenRing { revision, keys } = WrittenRing::deserialize(deserializer)?;
        let key = |bytes: Der| <[u8; GossipKey::LEN]>::try_from(bytes.as_slice()).ok().map(GossipKey::from_bytes);
        let keys: Option<Vec<GossipKey>> = keys.into_iter().map(key).collect();
        let keys = keys.ok_or_else(|| de::Error::custom("a key of gossip has 32 bytes"))?;
        Ok(Self { revision, keys })
    }
}

/// Bytes, as hexadecimal digits on the wire. Secret ones among them, so they are wiped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::control) struct Der(Zeroizing<Vec<u8>>);

impl Der {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let text: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
        serializer.serialize_str(&Zeroizing::new(text))
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(de::Error::custom("an odd number of hexadecimal digits"));
        };
        let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
        bytes.map(Self::new).ok_or_else(|| de::Error::custom("something else than hexadecimal digits"))
    }
}

impl fmt::Debug for Der {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A join token as text, which is not printed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(in crate::control) struct Token(pub(super) Zeroizing<String>);

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0.as_str().to_owned()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_rings_are_the_same_after_their_way_and_are_not_printed() {
        let ring = Ring { revision: 7, keys: vec![GossipKey::from_bytes([0xab; 32]), GossipKey::from_bytes([1; 32])] };
        let text = serde_json::to_string(&ring).unwrap();
        let again: Ring = serde_json::from_str(&text).unwrap();
        assert_eq!((again.revision, again.keys.len()), (7, 2));
        assert!(again.keys.iter().zip(&ring.keys).all(|(one, other)| one.secret_bytes() == other.secret_bytes()));
        assert!(!format!("{again:?}").contains("abab") && !format!("{:?}", Der::new(vec![7; 9])).contains('7'));
        for wrong in ["\"a\"", "\"0g\"", "\"é\"", "7"] {
            assert!(serde_json::from_str::<Der>(wrong).is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Ring>(r#"{"revision":1,"keys":["00"]}"#).is_err());
        assert!(!format!("{:?}", Token(Zeroizing::new("SWMTKN-1-x".to_owned()))).contains("SWMTKN"));
    }
}
