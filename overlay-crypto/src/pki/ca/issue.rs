//! Letting nodes in, and giving them their next certificates.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_core::{Commit, Key, NodeId, Snapshot, Undecided, UnixTime};

use super::record::{Managers, NodeRecord, Refused, Token, decode, encode};
use super::sealing::fingerprint;
use super::store::{Opened, Signs, StoreAuthority, refused, trouble};
use super::{
    Denied, Held, Issued, JoinRefusal, Joining, Proof, RenewRefusal, Renewing, SignerError, Trouble, external,
};
use crate::pki::authority::span;
use crate::pki::{Admission, Certificate, Identity, KeyDigest, Role, Serial, SigningRequest, TokenRefusal, Validity};

/// What was granted to a key.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    identity: Identity,
    held: Held,
    /// Where a signer elsewhere has signed it already.
    signed: Option<Certificate>,
}

/// What a decision is about to write.
#[derive(Debug, Default)]
struct Draft {
    nodes: BTreeMap<NodeId, NodeRecord>,
    tokens: BTreeMap<Key, Token>,
    managers: Option<Managers>,
}

/// What a decision of many joins came to: each one's answer, under the roots that were read.
type Joined = (Arc<Opened>, Vec<Result<Granted, JoinRefusal>>);

/// What a decision of one renewal came to.
type Renewed = (Arc<Opened>, Granted);

/// Joins in one commit at most.
const MOST: usize = 256;

impl StoreAuthority {
    /// As many in one commit as the store takes. Where that does not work, each is tried alone: what is wrong with one is not the others'.
    pub(super) async fn join_many(
        &self,
        joining: &[Joining],
        now: UnixTime,
    ) -> Vec<Result<Issued, Denied<JoinRefusal>>> {
        // Each compares its node, its refusal and its token, and all the fence, the roots and the managers.
        let most = (self.store.limits().operations.saturating_sub(4) / 3).clamp(1, MOST);
        let mut answers = Vec::with_capacity(joining.len());
        for some in joining.chunks(most) {
            match self.join_some(some, now).await {
                Ok(more) => answers.extend(more),
                Err(denied) if some.len() == 1 => answers.push(Err(denied)),
                Err(_) => {
                    for one in some {
                        let answer = self.join_some(std::slice::from_ref(one), now).await;
                        answers.extend(answer.unwrap_or_else(|denied| vec![Err(denied)]));
                    }
                }
            }
        }
        answers
    }

    /// In one commit.
    pub(super) async fn join_some(
        &self,
        joining: &[Joining],
        now: UnixTime,
    ) -> Result<Vec<Result<Issued, Denied<JoinRefusal>>>, Denied<JoinRefusal>> {
        let keys = self.read_for(joining);
        let (opened, granted) = self.run(keys, |snapshot| self.decide_joins(snapshot, joining, now)).await?;
        let mut answers = Vec::with_capacity(joining.len());
        for (granted, ask) in granted.into_iter().zip(joining) {
            answers.push(match granted {
                Ok(granted) => self.sign(&opened, granted, &ask.request, now).await.map_err(Denied::Trouble),
                Err(refusal) => Err(Denied::Refused(refusal)),
            });
        }
        Ok(answers)
    }

    /// Whether it would be let in.
    pub(super) async fn would_admit(&self, joining: &Joining, now: UnixTime) -> Result<(), Denied<JoinRefusal>> {
        let joining = std::slice::from_ref(joining);
        let decide = |snapshot: &Snapshot| {
            let (_, (_, answers)) = self.decide_joins(snapshot, joining, now)?;
            Ok((Commit::new(), answers))
        };
        let answers = self.run(self.read_for(joining), decide).await?;
        answers.into_iter().try_for_each(|answer| answer.map(drop).map_err(Denied::Refused))
    }

    /// What a decision of these reads.
    fn read_for(&self, joining: &[Joining]) -> Vec<Key> {
        let mut keys = vec![self.keys.roots.clone(), self.keys.managers.clone()];
        for ask in joining {
            let node = self.node_of(ask);
            let token = self.keys.token(&ask.token.secret_digest());
            keys.extend([self.keys.node(node), self.keys.refused(node), token]);
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn decide_joins(
        &self,
        snapshot: &Snapshot,
        joining: &[Joining],
        now: UnixTime,
    ) -> Result<(Commit, Joined), Undecided<Denied<JoinRefusal>>> {
        let opened = self.opened(snapshot)?;
        self.check_signer(&opened)?;
        let (mut draft, mut answers) = (Draft::default(), Vec::with_capacity(joining.len()));
        for ask in joining {
            answers.push(match self.admit((snapshot, &opened), &mut draft, ask, now) {
                Ok(granted) => Ok(granted),
                Err(Undecided::Refused(Denied::Refused(refusal))) => Err(refusal),
                Err(other) => return Err(other),
            });
        }
        Ok((draft.commit(self), (opened, answers)))
    }

    /// Grants one what its token lets it have.
    fn admit(
        &self,
        (snapshot, opened): (&Snapshot, &Opened),
        draft: &mut Draft,
        ask: &Joining,
        now: UnixTime,
    ) -> Result<Granted, Undecided<Denied<JoinRefusal>>> {
        let (node, asked) = (self.node_of(ask), ask.request.key());
        let known = match draft.nodes.get(&node) {
            Some(known) => Some(known.clone()),
            None => self.record(snapshot, node)?,
        };
        let shown = KeyDigest::from_bytes(ask.token.secret_digest());
        let again = known.as_ref().and_then(|known| self.again(opened, (node, known), asked, now));
        // Whoever shows another token than the first time is asked for a right one, as anybody.
        let is_same = known.as_ref().is_some_and(|known| known.token == Some(shown));
        if let Some(again) = again.clone().filter(|_| is_same) {
            return Ok(again);
        }
        let at = self.keys.token(&ask.token.secret_digest());
        let token = match draft.tokens.get(&at) {
            Some(token) => token.clone(),
            None => {
                let entry = snapshot.get(&at)?.ok_or_else(|| refused(TokenRefusal::Unknown.into()))?;
                decode::<Token>(&at, entry).map_err(trouble)?
            }
        };
        if !opened.roots.believed().iter().any(|root| root.key() == token.root) {
            return Err(refused(TokenRefusal::Unknown.into()));
        }
        let admission = token.admission.admit(&ask.token, ask.node, now).map_err(|no| refused(no.into()))?;
        if snapshot.get(&self.keys.refused(node))?.is_some() {
            return Err(refused(JoinRefusal::Removed { node }));
        }
        if let Some(again) = again {
            return Ok(again);
        }
        let role = self.role_of(known.as_ref(), &admission, (node, asked)).map_err(refused)?;
        let held = self.grant(opened, known.as_ref(), (node, role, asked), now).map_err(trouble)?;
        if role == Role::Manager && known.is_none() {
            draft.managers(self, snapshot)?.0.insert(node, false);
        }
        if admission != token.admission {
            draft.tokens.insert(at, Token { admission, ..token });
        }
        draft.nodes.insert(node, NodeRecord { token: Some(shown), ..granted_to(known, held.clone()) });
        Ok(Granted { identity: self.identity(node, role), held, signed: None })
    }

    /// What it joins as: who is a member joins again with its own key, or where a token is for it alone, and stays what it is.
    fn role_of(
        &self,
        known: Option<&NodeRecord>,
        admission: &Admission,
        (node, asked): (NodeId, KeyDigest),
    ) -> Result<Role, JoinRefusal> {
        match known {
            None => Ok(admission.role),
            Some(known) if known.held.key == asked || admission.node == Some(node) => Ok(known.role),
            Some(known) if known.issued.key == asked => Ok(known.role),
            Some(_) => Err(JoinRefusal::Taken { node }),
        }
    }

    /// Its next certificate.
    pub(super) async fn renew_one(&self, renewing: &Renewing, now: UnixTime) -> Result<Issued, Denied<RenewRefusal>> {
        let node = self.node_of_certificate(renewing.proof.certificate())?;
        if !renewing.proof.holds(&renewing.request) {
            return Err(Denied::Refused(RenewRefusal::Signature));
        }
        let keys = vec![self.keys.roots.clone(), self.keys.node(node), self.keys.refused(node)];
        let decide = |snapshot: &Snapshot| self.decide_renewal(snapshot, node, renewing, now);
        let (opened, granted) = self.run(keys, decide).await?;
        Ok(self.sign(&opened, granted, &renewing.request, now).await?)
    }

    fn decide_renewal(
        &self,
        snapshot: &Snapshot,
        node: NodeId,
        Renewing { proof, request }: &Renewing,
        now: UnixTime,
    ) -> Result<(Commit, Renewed), Undecided<Denied<RenewRefusal>>> {
        let opened = self.opened(snapshot)?;
        self.check_signer(&opened)?;
        let mut record = self.member(snapshot, node)?;
        let before = record.clone();
        record.see(proof.certificate());
        self.check_proof(&before, node, proof, now).map_err(refused)?;
        let granted = match self.again(&opened, (node, &record), request.key(), now) {
            Some(again) => again,
            None => {
                let role = record.role;
                let held = self.grant(&opened, Some(&record), (node, role, request.key()), now).map_err(trouble)?;
                record.grant(held.clone());
                Granted { identity: self.identity(node, role), held, signed: None }
            }
        };
        let commit =
            if record == before { Commit::new() } else { Commit::new().put(self.keys.node(node), encode(&record)) };
        Ok((commit, (opened, granted)))
    }

    /// Whether that proves who asks.
    fn check_proof(&self, record: &NodeRecord, node: NodeId, proof: &Proof, now: UnixTime) -> Result<(), RenewRefusal> {
        let until = proof.certificate().validity().until;
        match proof {
            Proof::Session(_) if until.as_secs() < now.as_secs() => Err(RenewRefusal::Expired { until, now }),
            Proof::Session(_) => Ok(()),
            Proof::Key { .. } if until + self.config.grace < now => Err(RenewRefusal::Late { node, until }),
            Proof::Key { certificate, .. } => {
                let known = [record.held.key, record.issued.key].contains(&certificate.key());
                if known { Ok(()) } else { Err(RenewRefusal::OtherKey { node }) }
            }
        }
    }

    /// A member's record.
    pub(super) fn member(
        &self,
        snapshot: &Snapshot,
        node: NodeId,
    ) -> Result<NodeRecord, Undecided<Denied<RenewRefusal>>> {
        match self.record(snapshot, node)? {
            Some(record) => Ok(record),
            None if snapshot.get(&self.keys.refused(node))?.is_some() => Err(refused(RenewRefusal::Removed { node })),
            None => Err(refused(RenewRefusal::Stranger { node })),
        }
    }

    pub(super) fn record<R>(
        &self,
        snapshot: &Snapshot,
        node: NodeId,
    ) -> Result<Option<NodeRecord>, Undecided<Denied<R>>> {
        let key = self.keys.node(node);
        snapshot.get(&key)?.map(|entry| decode(&key, entry)).transpose().map_err(trouble)
    }

    /// What was granted to this key before and counts still: an answer that was lost is given again.
    fn again(
        &self,
        opened: &Opened,
        (node, record): (NodeId, &NodeRecord),
        asked: KeyDigest,
        now: UnixTime,
    ) -> Option<Granted> {
        let issued = &record.issued;
        let same = issued.key == asked && issued.role == record.role && now < issued.until;
        let is_new = record.held_number < record.number || record.number == 1;
        let can = matches!(opened.signer(issued.root), Ok(Some(_)));
        let identity = self.identity(node, record.role);
        (same && is_new && can).then(|| Granted { identity, held: issued.clone(), signed: record.signed.clone() })
    }

    /// The next certificate of a node: its number follows from the node's own count of them, which a commit compares.
    fn grant(
        &self,
        opened: &Opened,
        record: Option<&NodeRecord>,
        (node, role, key): (NodeId, Role, KeyDigest),
        now: UnixTime,
    ) -> Result<Held, Trouble> {
        let root = &opened.roots.signing().certificate;
        let Validity { from, until } = span(root.validity(), self.config.life, now)?;
        let number = record.map_or(0, |record| record.number) + 1;
        let (from_ms, count) = (from.as_millis().to_be_bytes(), number.to_be_bytes());
        let (of_root, of_key) = (root.key().to_bytes(), key.to_bytes());
        let bytes = fingerprint(&[b"serial", &of_root, &node.to_bytes(), &count, &of_key, &from_ms]);
        let serial = Serial::generate(|to| to.copy_from_slice(&bytes));
        Ok(Held { serial, key, root: root.key(), role, from, until })
    }

    /// Signs what was granted.
    async fn sign(
        &self,
        opened: &Opened,
        granted: Granted,
        request: &SigningRequest,
        now: UnixTime,
    ) -> Result<Issued, Trouble> {
        let Granted { identity, held, signed } = granted;
        let validity = Validity { from: held.from, until: held.until };
        let certificate = match (opened.signer(held.root)?.ok_or(Trouble::Sealed)?, signed) {
            (Signs::Here(root), _) => root.certify(request, &identity, &held.serial, validity)?,
            (Signs::Elsewhere(..), Some(signed)) => signed,
            (Signs::Elsewhere(root, url), None) => {
                let transport = self.transport.as_deref().ok_or(SignerError::NoTransport)?;
                let wanted = external::Wanted { request, identity, validity };
                let signed = external::sign(transport, url, &wanted, &root.certificate, now).await?;
                self.note_signed(identity.node, &held, signed).await?
            }
        };
        let chain = std::iter::once(certificate).chain(opened.roots.crosses.iter().cloned()).collect();
        Ok(Issued { chain, roots: opened.roots.believed(), revision: opened.revision.0 })
    }

    /// Writes down what a signer elsewhere has signed: the first for a grant counts.
    async fn note_signed(&self, node: NodeId, held: &Held, signed: Certificate) -> Result<Certificate, Trouble> {
        let key = self.keys.node(node);
        let decide = |snapshot: &Snapshot| {
            let mut record = self.member(snapshot, node)?;
            let same = record.issued.key == held.key && record.issued.root == held.root;
            match &record.signed {
                Some(first) if same => return Ok((Commit::new(), first.clone())),
                _ if !same || record.issued.serial != held.serial => return Err(trouble(Trouble::Contended)),
                _ => {}
            }
            let Validity { from, until } = signed.validity();
            let noted = Held { serial: signed.serial().clone(), from, until, ..held.clone() };
            if record.held == record.issued {
                record.held = noted.clone();
            }
            (record.issued, record.signed, record.until) = (noted, Some(signed.clone()), record.until.max(until));
            Ok((Commit::new().put(key.clone(), encode(&record)), signed.clone()))
        };
        let noted: Result<_, Denied<RenewRefusal>> = self.run(vec![key.clone(), self.keys.refused(node)], decide).await;
        noted.map_err(|denied| match denied {
            Denied::Trouble(trouble) => trouble,
            Denied::Refused(_) => Trouble::Contended, // removed meanwhile: the next attempt says so
        })
    }

    /// Nothing is granted that cannot be signed.
    fn check_signer<R>(&self, opened: &Opened) -> Result<(), Undecided<Denied<R>>> {
        match opened.signer(opened.roots.signing().certificate.key()).map_err(trouble)? {
            Some(Signs::Elsewhere(..)) if self.transport.is_none() => Err(trouble(SignerError::NoTransport)),
            _ => Ok(()),
        }
    }

    /// The id that it would like to have, or the one that follows from its key.
    pub(super) fn node_of(&self, ask: &Joining) -> NodeId {
        let of_key = || fingerprint(&[b"node", &self.cluster.to_bytes(), &ask.request.key().to_bytes()]);
        ask.node.unwrap_or_else(|| NodeId::from_bytes(of_key()))
    }

    pub(super) fn node_of_certificate(&self, certificate: &Certificate) -> Result<NodeId, Denied<RenewRefusal>> {
        let identity = certificate.identity().filter(|identity| identity.cluster == self.cluster);
        identity.map(|identity| identity.node).ok_or(Denied::Refused(RenewRefusal::Nobody))
    }

    fn identity(&self, node: NodeId, role: Role) -> Identity {
        Identity { node, role, cluster: self.cluster }
    }

    pub(super) fn managers<R>(&self, snapshot: &Snapshot) -> Result<Managers, Undecided<Denied<R>>> {
        let entry = snapshot.get(&self.keys.managers)?;
        entry.map_or(Ok(Managers::default()), |entry| decode(&self.keys.managers, entry)).map_err(trouble)
    }

    /// What a removed node is remembered by.
    pub(super) fn refusal<R>(
        &self,
        snapshot: &Snapshot,
        node: NodeId,
    ) -> Result<Option<Refused>, Undecided<Denied<R>>> {
        let key = self.keys.refused(node);
        snapshot.get(&key)?.map(|entry| decode(&key, entry)).transpose().map_err(trouble)
    }
}

fn granted_to(known: Option<NodeRecord>, held: Held) -> NodeRecord {
    let Some(mut known) = known else { return NodeRecord::new(held) };
    known.grant(held);
    known
}

impl Draft {
    fn managers<R>(
        &mut self,
        authority: &StoreAuthority,
        snapshot: &Snapshot,
    ) -> Result<&mut Managers, Undecided<Denied<R>>> {
        if self.managers.is_none() {
            self.managers = Some(authority.managers(snapshot)?);
        }
        Ok(self.managers.get_or_insert_default())
    }

    fn commit(self, authority: &StoreAuthority) -> Commit {
        let keys = &authority.keys;
        let nodes = self.nodes.iter().map(|(node, record)| (keys.node(*node), encode(record)));
        let tokens = self.tokens.into_iter().map(|(key, token)| (key, encode(&token)));
        let managers = self.managers.map(|managers| (keys.managers.clone(), encode(&managers)));
        nodes.chain(tokens).chain(managers).fold(Commit::new(), |commit, (key, value)| commit.put(key, value))
    }
}
