//! What an authority keeps in its store: JSON that an operator can read, but for what is sealed.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use overlay_core::{Entry, Key, KeyError, NodeId, Prefix, UnixTime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Cause, Held, Trouble};
use crate::pki::{Admission, Certificate, KeyDigest, Role};

/// Where its records are.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    root: Prefix,
    pub(super) roots: Key,
    pub(super) revision: Key,
    pub(super) managers: Key,
}

impl Keys {
    pub(super) fn of(root: &Prefix) -> Result<Self, KeyError> {
        let root = root.join("ca/")?;
        root.key([0; 100])?; // whatever follows fits
        let (roots, revision, managers) =
            (root.key("trust/roots")?, root.key("trust/revision")?, root.key("managers")?);
        Ok(Self { root, roots, revision, managers })
    }

    pub(super) fn node(&self, node: NodeId) -> Key {
        self.key(format_args!("node/{node}"))
    }

    pub(super) fn refused(&self, node: NodeId) -> Key {
        self.key(format_args!("trust/refused/{node}"))
    }

    pub(super) fn demoted(&self, node: NodeId) -> Key {
        self.key(format_args!("trust/demoted/{node}"))
    }

    pub(super) fn token(&self, secret: &[u8; 32]) -> Key {
        self.key(format_args!("token/{}", KeyDigest::from_bytes(*secret)))
    }

    /// The token of a role, as text, sealed.
    pub(super) fn shown(&self, role: Role) -> Key {
        self.key(format_args!("shown/{role}"))
    }

    pub(super) fn prefix(&self, what: &str) -> Prefix {
        self.root.join(what).unwrap_or_else(|_| self.root.clone())
    }

    /// The node that a key below a prefix names.
    pub(super) fn named(key: &Key, prefix: &Prefix) -> Option<NodeId> {
        std::str::from_utf8(key.strip(prefix)?).ok()?.parse().ok()
    }

    fn key(&self, what: fmt::Arguments<'_>) -> Key {
        // The root was checked to leave room for it.
        self.root.key(what.to_string()).unwrap_or_else(|_| self.roots.clone())
    }
}

/// The cluster's roots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Roots {
    pub(super) present: Root,
    /// The one that signs from now on, while it is changed: the present one where a change is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<Root>,
    /// Roots that another has signed, the last first.
    #[serde(default)]
    pub(super) crosses: Vec<Certificate>,
}

/// A root, and where its key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Root {
    pub(super) certificate: Certificate,
    pub(super) key: Where,
}

/// Where a root's key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Where {
    /// Here, sealed.
    Sealed(Vec<u8>),
    /// With a signer.
    Elsewhere { url: String },
}

impl Roots {
    pub(super) fn signing(&self) -> &Root {
        self.next.as_ref().unwrap_or(&self.present)
    }

    /// The cross-signed roots that led to the present one. Who has a certificate of one that was given up shows what it was given with it.
    pub(super) fn completed(&self) -> Vec<Certificate> {
        let given_up = self.next.as_ref().map(|next| next.certificate.key());
        self.crosses
            .iter()
            .filter(|cross| Some(cross.key()) != given_up || given_up == Some(self.present.certificate.key()))
            .cloned()
            .collect()
    }

    /// All that are to be believed.
    pub(super) fn believed(&self) -> Vec<Certificate> {
        let next = self.next.as_ref().filter(|next| next.certificate != self.present.certificate);
        [Some(&self.present), next].into_iter().flatten().map(|root| root.certificate.clone()).collect()
    }
}

/// A node that was let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    pub(super) role: Role,
    /// How many certificates it was granted.
    pub(super) number: u64,
    /// The last that was granted.
    pub(super) issued: Held,
    /// The last that it is known to have.
    pub(super) held: Held,
    /// Which grant that was.
    pub(super) held_number: u64,
    /// When all that were ever granted have expired.
    pub(super) until: UnixTime,
    /// Another than this one, or one before, is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<u64>,
    /// What was granted, where a signer elsewhere has signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signed: Option<Certificate>,
    /// The token that it joined by last: whoever shows it again is answered again, though it may be spent meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<KeyDigest>,
}

impl NodeRecord {
    pub(super) fn new(held: Held) -> Self {
        let (role, until) = (held.role, held.until);
        let (issued, asked, signed, token) = (held.clone(), None, None, None);
        Self { role, number: 1, issued, held, held_number: 1, until, asked, signed, token }
    }

    /// The next certificate is granted.
    pub(super) fn grant(&mut self, held: Held) {
        self.number += 1;
        self.until = self.until.max(held.until);
        (self.issued, self.signed) = (held, None);
    }

    /// It shows a certificate. Whether that is news.
    pub(super) fn see(&mut self, shown: &Certificate) -> bool {
        let news = self.issued.serial == *shown.serial() && self.held.serial != self.issued.serial;
        if news {
            (self.held, self.held_number) = (self.issued.clone(), self.number);
            self.asked = self.asked.filter(|asked| self.held_number <= *asked);
        }
        news
    }

    /// Why it is to ask for another.
    pub(super) fn wants(&self, roots: &Roots) -> Option<Cause> {
        if self.held.role != self.role {
            return Some(Cause::Role);
        }
        if self.held.root != roots.signing().certificate.key() {
            return Some(Cause::Root);
        }
        self.asked.filter(|asked| self.held_number <= *asked).map(|_| Cause::Asked)
    }
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) admission: Admission,
    /// The digest of the key of the root that it names.
    pub(super) root: KeyDigest,
}

/// A node that was removed, or one that was demoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refused {
    pub(super) until: UnixTime,
    pub(super) role: Role,
}

/// The token of a role, as text, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) sealed: Vec<u8>,
    /// What its record is under.
    pub(super) secret: KeyDigest,
}

/// All managers, and whether each has said that it holds the sealing key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Managers(pub(super) BTreeMap<NodeId, bool>);

impl Managers {
    /// Without one, if the others can go on: one is left, and one that holds the sealing key, if any does.
    pub(super) fn without(&self, node: NodeId) -> Option<Self> {
        let mut left = self.0.clone();
        left.remove(&node);
        let somebody_holds = self.0.values().any(|holds| *holds);
        let can = if somebody_holds { left.values().any(|holds| *holds) } else { !left.is_empty() };
        can.then_some(Self(left))
    }
}

/// What is written. A reader refuses formats that it does not know.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    record: T,
}

const FORMAT: u32 = 1;

pub(super) fn encode<T: Serialize>(record: &T) -> Bytes {
    // Maps have text for keys, and nothing fails to be written.
    serde_json::to_vec(&Envelope { format: FORMAT, record }).unwrap_or_default().into()
}

pub(super) fn decode<T: DeserializeOwned>(key: &Key, entry: &Entry) -> Result<T, Trouble> {
    let read: Envelope<T> = serde_json::from_slice(&entry.value).map_err(|error| Trouble::damaged(key, &error))?;
    match read.format {
        FORMAT => Ok(read.record),
        other => Err(Trouble::damaged(key, &format_args!("format {other}, {FORMAT} is known here"))),
    }
}
