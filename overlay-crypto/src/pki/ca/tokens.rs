//! The tokens that let nodes in.

use overlay_core::{Commit, Snapshot, UnixTime};
use zeroize::Zeroizing;

use super::nodes::only_trouble;
use super::record::{Shown, Token, decode, encode};
use super::store::{StoreAuthority, trouble};
use super::{Invitation, Trouble};
use crate::pki::{JoinToken, KeyDigest, Role};

/// A role's token, with what is to be written of it.
pub(super) struct Fresh {
    pub(super) role: Role,
    pub(super) token: JoinToken,
    record: Token,
    shown: Shown,
}

impl StoreAuthority {
    pub(super) async fn shown_token(&self, role: Role) -> Result<JoinToken, Trouble> {
        let key = self.keys.shown(role);
        let entry = self.store.get(&key).await.map_err(Trouble::Store)?.ok_or(Trouble::NoRoot)?;
        let shown: Shown = decode(&key, &entry)?;
        let sealing = self.sealing().ok_or(Trouble::Sealed)?;
        let text = sealing.unseal(&shown.sealed, about(role)).ok_or(Trouble::Sealed)?;
        let text = std::str::from_utf8(&text).map_err(|error| Trouble::damaged(&key, error))?;
        text.parse().map_err(|error| Trouble::damaged(&key, error))
    }

    /// A new token of a role, not written down yet.
    pub(super) fn fresh(&self, role: Role, root: KeyDigest) -> Result<Fresh, Trouble> {
        let token = JoinToken::generate(root, |bytes| self.draw(bytes));
        let text = Zeroizing::new(token.to_string());
        let sealing = self.sealing().ok_or(Trouble::Sealed)?;
        let sealed = sealing.seal(text.as_bytes(), about(role), |salt| self.draw(salt)).ok_or(Trouble::Sealed)?;
        let shown = Shown { sealed, secret: KeyDigest::from_bytes(token.secret_digest()) };
        Ok(Fresh { role, record: Token { admission: token.admission(role), root }, token, shown })
    }

    /// Puts a token in the place of the one that there is.
    pub(super) fn put_token<R>(
        &self,
        snapshot: &Snapshot,
        commit: Commit,
        fresh: &Fresh,
    ) -> Result<Commit, overlay_core::Undecided<super::Denied<R>>> {
        let (at, new) = (self.keys.shown(fresh.role), self.keys.token(&fresh.token.secret_digest()));
        snapshot.get(&new)?;
        let mut commit = commit.put(new, encode(&fresh.record)).put(at.clone(), encode(&fresh.shown));
        if let Some(entry) = snapshot.get(&at)? {
            let old: Shown = decode(&at, entry).map_err(trouble)?;
            let old = self.keys.token(&old.secret.to_bytes());
            snapshot.get(&old)?;
            commit = commit.delete(old);
        }
        Ok(commit)
    }

    pub(super) async fn change_token(&self, role: Role) -> Result<JoinToken, Trouble> {
        let opened = self.load().await?;
        let fresh = self.fresh(role, opened.roots.present.certificate.key())?;
        let at = self.keys.shown(role);
        let decide = |snapshot: &Snapshot| {
            // It names the present root: while that is let go, the tokens are changed anyway.
            if self.opened(snapshot)?.revision != opened.revision {
                return Err(trouble(Trouble::Contended));
            }
            let is_there = match snapshot.get(&at)? {
                Some(entry) => {
                    decode::<Shown>(&at, entry).map_err(trouble)?.secret.to_bytes() == fresh.token.secret_digest()
                }
                None => false,
            };
            if is_there {
                return Ok((Commit::new(), ())); // by an attempt whose answer was lost
            }
            Ok((self.put_token(snapshot, Commit::new(), &fresh)?, ()))
        };
        self.run(vec![self.keys.roots.clone(), at.clone()], decide).await.map_err(only_trouble)?;
        Ok(fresh.token)
    }

    pub(super) async fn make_token(&self, invitation: &Invitation) -> Result<JoinToken, Trouble> {
        let opened = self.load().await?;
        let root = opened.roots.present.certificate.key();
        let token = JoinToken::generate(root, |bytes| self.draw(bytes));
        let Invitation { role, until, uses, node } = *invitation;
        let mut admission = token.admission(role);
        (admission.until, admission.uses, admission.node) = (until, uses, node);
        let (key, record) = (self.keys.token(&token.secret_digest()), encode(&Token { admission, root }));
        let decide = |snapshot: &Snapshot| match snapshot.get(&key)? {
            Some(_) => Ok((Commit::new(), ())), // by an attempt whose answer was lost
            None => Ok((Commit::new().put(key.clone(), record.clone()), ())),
        };
        self.run(vec![key.clone()], decide).await.map_err(only_trouble)?;
        Ok(token)
    }

    /// Tokens that let nobody in any more are forgotten.
    pub(super) async fn forget_tokens(&self, now: UnixTime) -> Result<usize, Trouble> {
        let opened = self.load().await?;
        let believed = opened.roots.believed();
        let prefix = self.keys.prefix("token/");
        let listing = self.store.list(&prefix).await.map_err(Trouble::Store)?;
        let mut forgotten = 0;
        for (key, entry) in &listing.entries {
            let Token { admission, root } = decode(key, entry)?;
            let is_over = admission.until.is_some_and(|until| until + self.config.skew < now);
            if !is_over && believed.iter().any(|certificate| certificate.key() == root) {
                continue;
            }
            let decide = |snapshot: &Snapshot| {
                let is_there = snapshot.get(key)?.is_some();
                Ok((if is_there { Commit::new().delete(key.clone()) } else { Commit::new() }, ()))
            };
            self.run(vec![key.clone()], decide).await.map_err(only_trouble)?;
            forgotten += 1;
        }
        Ok(forgotten)
    }
}

const fn about(role: Role) -> &'static [u8] {
    match role {
        Role::Manager => b"manager token",
        Role::Worker => b"worker token",
    }
}
