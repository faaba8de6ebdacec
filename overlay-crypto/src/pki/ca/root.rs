//! The root, made and changed for another.

use std::time::Duration;

use overlay_core::{Commit, Key, NodeId, Snapshot, Undecided, UnixTime};

use super::error::root_of;
use super::nodes::only_trouble;
use super::record::{Keys, NodeRecord, Root, Roots, Where, encode};
use super::store::{Opened, Signs, StoreAuthority, trouble};
use super::tokens::Fresh;
use super::{Denied, NextRoot, RootProgress, RootRefusal, SignerError, Tended, Trouble, external};
use crate::pki::{Authority, Certificate, Role, Serial, SigningKey};

/// How long a root that is given has to count at least.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Cross-signed roots that are shown at most: so many changes of the root may a node miss, and believe managers still. A root says
/// that so many may be below it.
const CROSSES: usize = 3;

/// A root that was looked at, and its key if it is here.
struct Next {
    root: Root,
    authority: Option<Authority>,
}

impl StoreAuthority {
    /// Founds the cluster: its root and the tokens of both roles. This manager must lead, and hold a [`SealingKey`](super::SealingKey) that it has kept. One that is founded already stays as it is.
    ///
    /// # Errors
    /// [`RootRefusal`], or what was in the way.
    pub async fn found(&self, root: &NextRoot, now: UnixTime) -> Result<(), Denied<RootRefusal>> {
        let next = self.next(root, now).await?;
        let roots = Roots { present: next.root, next: None, crosses: Vec::new() };
        let digest = roots.present.certificate.key();
        let tokens = [self.fresh(Role::Manager, digest)?, self.fresh(Role::Worker, digest)?];
        let decide = |snapshot: &Snapshot| {
            if snapshot.get(&self.keys.roots)?.is_some() {
                return Ok((Commit::new(), ()));
            }
            let commit = Commit::new().put(self.keys.roots.clone(), encode(&roots));
            Ok((self.put_tokens(snapshot, commit, &tokens)?, ()))
        };
        self.run(self.root_keys(), decide).await
    }

    /// Both tokens, and that what is trusted has changed.
    fn put_tokens<R>(
        &self,
        snapshot: &Snapshot,
        mut commit: Commit,
        tokens: &[Fresh],
    ) -> Result<Commit, Undecided<Denied<R>>> {
        for fresh in tokens {
            commit = self.put_token(snapshot, commit, fresh)?;
        }
        snapshot.get(&self.keys.revision)?;
        Ok(commit.put(self.keys.revision.clone(), encode(&"roots")))
    }

    fn root_keys(&self) -> Vec<Key> {
        let Keys { roots, revision, .. } = &self.keys;
        let shown = Role::ALL.map(|role| self.keys.shown(role));
        [roots.clone(), revision.clone()].into_iter().chain(shown).collect()
    }

    pub(super) async fn change_root(
        &self,
        next: &NextRoot,
        now: UnixTime,
    ) -> Result<RootProgress, Denied<RootRefusal>> {
        let opened = self.load().await?;
        if let (Where::Elsewhere { .. }, NextRoot::Elsewhere { certificate, .. }) = (&opened.roots.present.key, next)
            && certificate.key() != opened.roots.present.certificate.key()
        {
            return Err(Denied::Refused(RootRefusal::BothElsewhere));
        }
        let next = self.next(next, now).await?;
        let (present, target) = (&opened.roots.present, next.root.certificate.key());
        if present.certificate.key() == target {
            let takes_back = opened.roots.next.is_some() && present.certificate == next.root.certificate;
            return match takes_back {
                true => self.keep_root(now).await,
                false => Err(Denied::Refused(RootRefusal::SameKey { key: target })),
            };
        }
        let is_begun = opened.roots.next.as_ref().is_some_and(|next| next.certificate.key() == target);
        if !is_begun {
            let cross = self.cross_sign(&opened, &next, now).await?;
            let living = opened.roots.completed().into_iter().filter(|cross| cross.validity().contains(now));
            let crosses = std::iter::once(cross).chain(living).take(CROSSES).collect();
            let roots = Roots { present: present.clone(), next: Some(next.root), crosses };
            self.put_roots(&opened, &roots).await?;
        }
        self.progress(now).await?.ok_or(Denied::Refused(RootRefusal::NoRotation))
    }

    pub(super) async fn keep_root(&self, now: UnixTime) -> Result<RootProgress, Denied<RootRefusal>> {
        let opened = self.load().await?;
        let Some(next) = &opened.roots.next else { return Err(Denied::Refused(RootRefusal::NoRotation)) };
        if *next != opened.roots.present {
            let (present, crosses) = (opened.roots.present.clone(), opened.roots.completed());
            self.put_roots(&opened, &Roots { next: Some(present.clone()), present, crosses }).await?;
        }
        self.progress(now).await?.ok_or(Denied::Refused(RootRefusal::NoRotation))
    }

    /// Other roots in place of those that were read.
    async fn put_roots<R: Send>(&self, before: &Opened, roots: &Roots) -> Result<(), Denied<R>> {
        let decide = |snapshot: &Snapshot| {
            let opened = self.opened(snapshot)?;
            if opened.roots == *roots {
                return Ok((Commit::new(), ())); // by an attempt whose answer was lost
            }
            if opened.revision != before.revision {
                return Err(trouble(Trouble::Contended));
            }
            snapshot.get(&self.keys.revision)?;
            let commit = Commit::new().put(self.keys.roots.clone(), encode(roots));
            Ok((commit.put(self.keys.revision.clone(), encode(&"roots")), ()))
        };
        self.run(vec![self.keys.roots.clone(), self.keys.revision.clone()], decide).await
    }

    /// The root that is to be next, if it may be.
    async fn next(&self, next: &NextRoot, now: UnixTime) -> Result<Next, Denied<RootRefusal>> {
        match next {
            NextRoot::Generate(algorithm) => {
                let key = SigningKey::generate(*algorithm).map_err(Trouble::from)?;
                let serial = Serial::generate(|to| self.draw(to));
                let authority = Authority::create(self.cluster, key, &serial, now).map_err(Trouble::from)?;
                Ok(Next { root: self.seal(&authority)?, authority: Some(authority) })
            }
            NextRoot::Given(given) => {
                self.check_root(given.certificate(), now)?;
                let key = SigningKey::from_pkcs8(&given.key().to_pkcs8()).map_err(Trouble::from)?;
                let authority = Authority::open(given.certificate().clone(), key).map_err(Trouble::from)?;
                Ok(Next { root: self.seal(&authority)?, authority: Some(authority) })
            }
            NextRoot::Elsewhere { certificate, url } => {
                self.check_root(certificate, now)?;
                let transport = self.transport.as_deref().ok_or(Trouble::Signer(SignerError::NoTransport))?;
                let tried = external::try_out(transport, url, certificate, now).await;
                tried.map_err(|error| Denied::Refused(RootRefusal::Signer(error)))?;
                let root = Root { certificate: certificate.clone(), key: Where::Elsewhere { url: url.clone() } };
                Ok(Next { root, authority: None })
            }
        }
    }

    fn check_root(&self, certificate: &Certificate, now: UnixTime) -> Result<(), Denied<RootRefusal>> {
        root_of(certificate, self.cluster).map_err(Denied::Refused)?;
        let validity = certificate.validity();
        if validity.until < now + YEAR {
            return Err(Denied::Refused(RootRefusal::Soon { validity }));
        }
        if !validity.contains(now) {
            return Err(Denied::Refused(RootRefusal::NotYet { validity }));
        }
        Ok(())
    }

    /// The next root, signed by the present one.
    async fn cross_sign(
        &self,
        opened: &Opened,
        next: &Next,
        now: UnixTime,
    ) -> Result<Certificate, Denied<RootRefusal>> {
        let present = &opened.roots.present.certificate;
        let serial = Serial::generate(|to| self.draw(to));
        match (opened.signer(present.key())?.ok_or(Trouble::Sealed)?, &next.authority) {
            (Signs::Here(root), _) => {
                let signed = root.cross_sign_certificate(&next.root.certificate, &serial, now);
                Ok(signed.map_err(Trouble::from)?)
            }
            (Signs::Elsewhere(root, url), Some(next)) => {
                let transport = self.transport.as_deref().ok_or(Trouble::Signer(SignerError::NoTransport))?;
                Ok(external::cross_sign(transport, url, (&root.certificate, next), now).await.map_err(Trouble::from)?)
            }
            (Signs::Elsewhere(..), None) => Err(Denied::Refused(RootRefusal::BothElsewhere)),
        }
    }

    pub(super) async fn progress(&self, now: UnixTime) -> Result<Option<RootProgress>, Trouble> {
        let opened = self.load().await?;
        if opened.roots.next.is_none() {
            return Ok(None);
        }
        let records = self.records().await?;
        Ok(Some(self.progress_of(&opened, &records, now)))
    }

    /// Whoever has shown a certificate of the root that signs follows; who has none that counts, by any clock, is lost.
    fn progress_of(&self, opened: &Opened, records: &[(NodeId, NodeRecord)], now: UnixTime) -> RootProgress {
        let (from, to) = (opened.roots.present.certificate.key(), opened.roots.signing().certificate.key());
        let mut progress = RootProgress { from, to, followed: 0, waiting: Vec::new(), lost: Vec::new() };
        for (node, record) in records {
            if record.held.root == to {
                progress.followed += 1;
            } else if record.until + self.config.skew < now {
                progress.lost.push(*node);
            } else {
                progress.waiting.push(*node);
            }
        }
        progress
    }

    pub(super) async fn tend_all(&self, now: UnixTime) -> Result<Tended, Trouble> {
        let root_changed = self.end_rotation(now).await?;
        let forgotten = self.forget_refusals(now).await?;
        let tokens = self.forget_tokens(now).await?;
        Ok(Tended { root_changed, forgotten, tokens })
    }

    /// Lets the present root go if every node that lives has followed. Nobody can fall behind once that is so: what is granted compares the roots, and the present one grants nothing
    /// since the change was begun.
    async fn end_rotation(&self, now: UnixTime) -> Result<bool, Trouble> {
        let opened = self.load().await?;
        let Some(next) = opened.roots.next.clone() else { return Ok(false) };
        let records = self.records().await?;
        if !self.progress_of(&opened, &records, now).is_complete() {
            return Ok(false);
        }
        let digest = next.certificate.key();
        let is_other = digest != opened.roots.present.certificate.key();
        let roots = Roots { present: next, next: None, crosses: opened.roots.crosses.clone() };
        let tokens = match is_other {
            true => vec![self.fresh(Role::Manager, digest)?, self.fresh(Role::Worker, digest)?],
            false => Vec::new(),
        };
        let decide = |snapshot: &Snapshot| {
            let now_there = self.opened(snapshot)?;
            if now_there.roots == roots {
                return Ok((Commit::new(), ())); // by an attempt whose answer was lost
            }
            if now_there.revision != opened.revision {
                return Err(trouble(Trouble::Contended));
            }
            let commit = Commit::new().put(self.keys.roots.clone(), encode(&roots));
            Ok((self.put_tokens(snapshot, commit, &tokens)?, ()))
        };
        self.run(self.root_keys(), decide).await.map_err(only_trouble)?;
        Ok(true)
    }
}
