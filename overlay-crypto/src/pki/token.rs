//! What a node that knows nobody joins by.

use std::fmt;
use std::str::FromStr;

use overlay_core::{NodeId, UnixTime};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{Certificate, KeyDigest, Role, Trust, Usage, VerifyError, base36};
use crate::provider::digest::{SHA256, digest};

/// `SWMTKN-1-` with the digest of the root's key and a secret: with it a node knows whom to believe before it has heard anybody, and is let in.
///
/// The digest is of the root's public key ([`KeyDigest`]), so the manager that is called proves itself in the handshake, by a [chain](Self::trust) that ends
/// in that root. The secret is 16 bytes. The token is shown by `to_string`, not by `{:?}`.
///
/// ```
/// use overlay_crypto::pki::{JoinToken, KeyDigest};
///
/// let root = KeyDigest::from_bytes([7; 32]);
/// let token = JoinToken::generate(root, |bytes| bytes.fill(9));
/// let text = token.to_string();
/// assert!(text.starts_with("SWMTKN-1-"));
/// assert_eq!(text.parse::<JoinToken>()?.root(), root);
/// # Ok::<(), overlay_crypto::pki::TokenError>(())
/// ```
#[derive(Clone)]
pub struct JoinToken {
    root: KeyDigest,
    secret: Zeroizing<[u8; 16]>,
}

/// A text that is no token. It is not repeated: it may be most of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a join token is SWMTKN-1-, 50 letters and digits, -, and 25: was all of it copied?")]
pub struct TokenError;

/// What managers keep of a token, and whom it lets in: the secret's digest, never the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    secret: [u8; 32],
    /// What a node becomes by it.
    pub role: Role,
    /// Until when it lets in; for good if nothing is said.
    pub until: Option<UnixTime>,
    /// How many more nodes it lets in; any number if nothing is said.
    pub uses: Option<u32>,
    /// The only node that it lets in; any if nothing is said.
    pub node: Option<NodeId>,
}

/// Why a token lets nobody in. Nothing was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRefusal {
    /// Not one of this cluster's, or it was rotated.
    #[error("a valid join token is necessary to join this cluster: ask a manager for the present one")]
    Unknown,
    /// It was for a time that is over.
    #[error("the join token was good until {until}, and it is {now}: ask a manager for another")]
    Expired {
        /// Until when.
        until: UnixTime,
        /// The time.
        now: UnixTime,
    },
    /// As many have joined by it as may.
    #[error("the join token is spent: ask a manager for another")]
    Spent,
    /// It is for one node.
    #[error("the join token is for another node")]
    OtherNode,
}

const PREFIX: &str = "SWMTKN-1-";

impl JoinToken {
    /// A token of a cluster with that root, its secret by chance.
    pub fn generate(root: KeyDigest, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut secret = Zeroizing::new([0; 16]);
        fill(secret.as_mut_slice());
        Self { root, secret }
    }

    /// The digest of the root's key.
    pub fn root(&self) -> KeyDigest {
        self.root
    }

    /// The digest of its secret, by which a record of it is found: who does not know the secret cannot tell what it is.
    pub(super) fn secret_digest(&self) -> [u8; 32] {
        hashed(&self.secret)
    }

    /// What managers keep of it: it lets any number in, at any time.
    pub fn admission(&self, role: Role) -> Admission {
        Admission { secret: hashed(&self.secret), role, until: None, uses: None, node: None }
    }

    /// The trust that follows from a chain that a manager shows: it is for a manager, and ends in the root that this token names, which is among what is shown.
    ///
    /// # Errors
    /// [`VerifyError`]; [`Foreign`](VerifyError::Foreign) where the root is another, or not shown.
    pub fn trust(&self, chain: &[Certificate], now: UnixTime) -> Result<Trust, VerifyError> {
        if chain.len() > Trust::CHAIN {
            return Err(VerifyError::TooMany { have: chain.len() });
        }
        let own = chain.first().ok_or(VerifyError::Missing)?;
        let root = chain.iter().find(|it| it.key() == self.root && it.is_authority() && it.is_self_signed());
        let foreign = || own.cluster().map_or(VerifyError::Nobody, |cluster| VerifyError::Foreign { cluster });
        let trust = Trust::new(root.cloned()).map_err(|_| foreign())?;
        trust.verify_as(Role::Manager, chain, Usage::Server, now)?;
        Ok(trust)
    }
}

impl Admission {
    /// Lets a node in by the secret of `token`, and gives what is to be kept from then on: with a use less. `node` is the one that joins, if it has an id already.
    ///
    /// It takes as long whatever of the secret is wrong.
    ///
    /// # Errors
    /// See [`TokenRefusal`].
    pub fn admit(&self, token: &JoinToken, node: Option<NodeId>, now: UnixTime) -> Result<Self, TokenRefusal> {
        if !self.is_of(token) {
            return Err(TokenRefusal::Unknown);
        }
        if let Some(until) = self.until.filter(|until| *until < now) {
            return Err(TokenRefusal::Expired { until, now });
        }
        if self.node.is_some() && self.node != node {
            return Err(TokenRefusal::OtherNode);
        }
        let uses = match self.uses {
            None => None,
            Some(uses) => Some(uses.checked_sub(1).ok_or(TokenRefusal::Spent)?),
        };
        Ok(Self { uses, ..self.clone() })
    }

    /// Whether it is kept of that token. It takes as long whatever of the secret is wrong.
    pub fn is_of(&self, token: &JoinToken) -> bool {
        self.secret.ct_eq(&hashed(&token.secret)).into()
    }
}

/// A secret of 128 bits of chance needs no salt.
fn hashed(secret: &[u8; 16]) -> [u8; 32] {
    let mut hashed = [0; 32];
    hashed.iter_mut().zip(digest(&SHA256, secret).as_ref()).for_each(|(to, from)| *to = *from);
    hashed
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (root, secret) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).ok_or(TokenError)?;
        let root = KeyDigest::from_bytes(base36::decode(root).ok_or(TokenError)?);
        Ok(Self { root, secret: Zeroizing::new(base36::decode(secret).ok_or(TokenError)?) })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = Zeroizing::new(base36::encode(self.secret.as_slice()));
        write!(f, "{PREFIX}{}-{}", base36::encode(&self.root.to_bytes()), *secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("root", &self.root).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(secret: u8) -> JoinToken {
        JoinToken::generate(KeyDigest::from_bytes([7; 32]), |bytes| bytes.fill(secret))
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_millis(seconds * 1000)
    }

    proptest! {
        #[test]
        fn a_token_is_the_same_after_its_way_through_text(root: [u8; 32], secret: [u8; 16]) {
            let token = JoinToken::generate(KeyDigest::from_bytes(root), |bytes| bytes.copy_from_slice(&secret));
            let again: JoinToken = token.to_string().parse().unwrap();
            prop_assert_eq!((again.root, &again.secret), (token.root, &token.secret));
            prop_assert_eq!(token.to_string().len(), 85);
        }

        #[test]
        fn a_text_with_one_letter_less_or_another_letter_is_no_token_or_another(at in 0_usize..85) {
            let text = token(9).to_string();
            let mut shorter = text.clone();
            shorter.remove(at);
            prop_assert!(shorter.parse::<JoinToken>().is_err());
            let mut other = text.into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            if let Ok(other) = String::from_utf8(other).unwrap().parse::<JoinToken>() {
                prop_assert!(other.root != token(9).root || !token(9).admission(Role::Worker).is_of(&other));
            }
        }
    }

    #[test]
    fn a_token_shows_its_secret_only_where_it_is_asked_for_it() {
        let (shown, text) = (format!("{:?}", token(9)), token(9).to_string());
        assert!(!shown.contains(text.rsplit('-').next().unwrap()) && !shown.contains("9, 9"));
        assert!(!format!("{:?}", token(9).admission(Role::Worker)).contains("9, 9, 9"));
        assert!(!TokenError.to_string().contains("0000"));
    }

    #[test]
    fn wrong_expired_spent_and_anothers_are_each_refused_by_name() {
        let (ann, bob) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        let open = token(9).admission(Role::Worker);
        assert_eq!(open.admit(&token(9), None, at(1)), Ok(open.clone()));
        assert_eq!(open.admit(&token(8), None, at(1)), Err(TokenRefusal::Unknown));
        let timed = Admission { until: Some(at(10)), ..open };
        assert!(timed.admit(&token(9), None, at(10)).is_ok());
        let expired = timed.admit(&token(9), None, at(11));
        assert_eq!(expired, Err(TokenRefusal::Expired { until: at(10), now: at(11) }));
        assert_eq!(timed.admit(&token(8), None, at(11)), Err(TokenRefusal::Unknown), "a stranger learns nothing of it");
        let bound = Admission { node: Some(ann), ..open };
        assert!(bound.admit(&token(9), Some(ann), at(1)).is_ok());
        assert_eq!(bound.admit(&token(9), Some(bob), at(1)), Err(TokenRefusal::OtherNode));
        assert_eq!(bound.admit(&token(9), None, at(1)), Err(TokenRefusal::OtherNode));
        let twice = Admission { uses: Some(2), ..open };
        let once = twice.admit(&token(9), None, at(1)).unwrap();
        let none = once.admit(&token(9), None, at(1)).unwrap();
        assert_eq!((once.uses, none.uses), (Some(1), Some(0)));
        assert_eq!(none.admit(&token(9), None, at(1)), Err(TokenRefusal::Spent));
    }
}
