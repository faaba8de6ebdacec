//! What a cluster's authority does, wherever its root is.

use std::fmt;

use async_trait::async_trait;
use overlay_core::{NodeId, UnixTime};
use serde::{Deserialize, Serialize};

use super::{
    Denied, Invitation, JoinRefusal, Member, NextRoot, Proof, RemoveRefusal, Removed, RenewRefusal, RoleRefusal,
    RootProgress, RootRefusal, SealingKey, Standing, Trouble,
};
use crate::pki::{
    Certificate, Identity, JoinToken, Refusals, Role, SigningRequest, Trust, TrustError, Usage, VerifyError,
};

/// Who lets nodes into a cluster, renews their certificates, and changes the root that all believe: [`StoreAuthority`](super::StoreAuthority)
/// over a store, with the root's key in it or with a signer elsewhere.
///
/// It is asked by a manager's server, which knows by the handshake who asks: what is for managers only, and for which node, is the server's to
/// check, but for what is said below. A call may be repeated when its answer was lost, and finds what it did; but for those that make a token, or generate a root, which make another.
/// `now` is the manager's clock.
///
/// A node's certificate is granted by a commit under its key's digest. Asked again for the same key, the same is signed again: its number, times and names,
/// without another use of a token.
#[async_trait]
pub trait CertificateAuthority: Send + Sync + fmt::Debug {
    /// Whom to believe now. Any manager can say it.
    ///
    /// # Errors
    /// If it cannot be read.
    async fn trusted(&self) -> Result<Trusted, Trouble>;

    /// Lets a node in that shows a token. It need not be known who asks: the token says it.
    ///
    /// # Errors
    /// [`JoinRefusal`]: nothing was used up then.
    async fn join(&self, joining: &Joining, now: UnixTime) -> Result<Issued, Denied<JoinRefusal>>;

    /// Whether [`join`](Self::join) would let it in now. Nothing is used up or written. Who shows no good token is told the same of each id: so whoever asks looks here before
    /// anything else that depends on the id.
    ///
    /// # Errors
    /// [`JoinRefusal`], as `join` would give it.
    async fn admits(&self, joining: &Joining, now: UnixTime) -> Result<(), Denied<JoinRefusal>>;

    /// Many at once, each with its own answer, in their order: as few commits as the store takes.
    async fn join_all(&self, joining: &[Joining], now: UnixTime) -> Vec<Result<Issued, Denied<JoinRefusal>>> {
        let mut answers = Vec::with_capacity(joining.len());
        for joining in joining {
            answers.push(self.join(joining, now).await);
        }
        answers
    }

    /// Gives a node its next certificate, of the role that it is to have.
    ///
    /// # Errors
    /// [`RenewRefusal`].
    async fn renew(&self, renewing: &Renewing, now: UnixTime) -> Result<Issued, Denied<RenewRefusal>>;

    /// Notes that a node shows this certificate, which the caller has verified and the handshake has proved: so it has it. To be called once for each session, and
    /// now and then while it lasts; it rarely writes anything. Gives how the node stands: whether it is to ask for another at once.
    ///
    /// # Errors
    /// [`RenewRefusal::Removed`] or [`Stranger`](RenewRefusal::Stranger): then the session is to end.
    async fn seen(&self, shown: &Certificate, now: UnixTime) -> Result<Standing, Denied<RenewRefusal>>;

    /// The token that lets in nodes of a role, as long as it is not rotated. For managers.
    ///
    /// # Errors
    /// If it cannot be read or unsealed.
    async fn token(&self, role: Role) -> Result<JoinToken, Trouble>;

    /// Puts another in its place; the former lets nobody in any more.
    ///
    /// # Errors
    /// What was in the way.
    async fn rotate_token(&self, role: Role) -> Result<JoinToken, Trouble>;

    /// A token for a time, so many nodes, or one: it is shown this once. A change of the root ends it.
    ///
    /// # Errors
    /// What was in the way.
    async fn invite(&self, invitation: &Invitation) -> Result<JoinToken, Trouble>;

    /// All nodes that were let in and not removed.
    ///
    /// # Errors
    /// If they cannot be read.
    async fn members(&self, now: UnixTime) -> Result<Vec<Member>, Trouble>;

    /// Promotes or demotes a node: its next certificate says so, and [`seen`](Self::seen) tells it to ask for that at once.
    ///
    /// # Errors
    /// [`RoleRefusal`].
    async fn set_role(&self, node: NodeId, role: Role) -> Result<(), Denied<RoleRefusal>>;

    /// Has a node ask for another certificate at once.
    ///
    /// # Errors
    /// [`RoleRefusal::Stranger`].
    async fn force_renewal(&self, node: NodeId) -> Result<(), Denied<RoleRefusal>>;

    /// Removes a node: it gets no certificate from now on, and [`trusted`](Self::trusted) refuses it until those it has have expired. Gives what it knew that is to be
    /// changed now. Its id is never given again.
    ///
    /// # Errors
    /// [`RemoveRefusal`].
    async fn remove(&self, node: NodeId, now: UnixTime) -> Result<Removed, Denied<RemoveRefusal>>;

    /// Begins to change the root, or says how far that is. From now on the next root signs, the present one has signed it, and all nodes are to renew; once every one that
    /// lives has shown a certificate of it, [`tend`](Self::tend) lets the present root go and changes both tokens. Another root given meanwhile takes the next one's place, and
    /// the present one given takes it back.
    ///
    /// # Errors
    /// [`RootRefusal`].
    async fn rotate_root(&self, next: &NextRoot, now: UnixTime) -> Result<RootProgress, Denied<RootRefusal>>;

    /// Takes the change of the root back: the present root signs again, and nodes that have a certificate of the other are to renew.
    ///
    /// # Errors
    /// [`RootRefusal::NoRotation`].
    async fn abort_root(&self, now: UnixTime) -> Result<RootProgress, Denied<RootRefusal>>;

    /// How far the change of the root is; `None` while there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    async fn root_progress(&self, now: UnixTime) -> Result<Option<RootProgress>, Trouble>;

    /// Does what is due: ends a change of the root that all have followed, forgets refusals of certificates that have expired and tokens that are over. To be
    /// called by the manager that leads, once a minute say.
    ///
    /// # Errors
    /// What was in the way; the next call goes on.
    async fn tend(&self, now: UnixTime) -> Result<Tended, Trouble>;

    /// What a manager needs to sign once it leads. To whom it is given is checked here: who is asking must have shown a manager's certificate, and be one still.
    ///
    /// # Errors
    /// [`RenewRefusal`].
    async fn sealing_key(&self, asking: &Certificate, now: UnixTime) -> Result<SealingKey, Denied<RenewRefusal>>;
}

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// Grows with each change of it: what has a lower one is older.
    pub revision: u64,
    /// The roots: one, or two while the root is changed.
    pub roots: Vec<Certificate>,
    /// Roots that another root has signed: to be shown after a node's own certificate, for those that have not heard of the root yet. Three at most: who has missed more changes of
    /// the root has to join anew.
    pub crosses: Vec<Certificate>,
    /// Nodes that were removed.
    pub refusals: Refusals,
    /// Nodes that are managers no more, each until its last certificate that may say so has expired: nobody is to call them as managers.
    #[serde(default)]
    pub demoted: Refusals,
}

/// A node's certificate, and what it needs with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Its own, then roots that another has signed: what it shows.
    pub chain: Vec<Certificate>,
    /// The roots to believe from now on. To be kept together with the certificate, or not at all.
    pub roots: Vec<Certificate>,
    /// When these roots came to be: whoever has [heard](Trusted::revision) of as much or more keeps those that it has.
    #[serde(default)]
    pub revision: u64,
}

/// What a node asks to be let in with.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Its token.
    pub token: JoinToken,
    /// For its key.
    pub request: SigningRequest,
    /// The id that it would like to have, as one that was at work before it joined; one that follows from its key if nothing is said.
    pub node: Option<NodeId>,
}

/// What a node asks for its next certificate with.
#[derive(Debug, Clone)]
pub struct Renewing {
    /// By what it is known who asks.
    pub proof: Proof,
    /// For its next key.
    pub request: SigningRequest,
}

/// What [`CertificateAuthority::tend`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tended {
    /// The change of the root has ended.
    pub root_changed: bool,
    /// Refusals that were forgotten.
    pub forgotten: usize,
    /// Tokens that were over.
    pub tokens: usize,
}

impl Trusted {
    /// The roots as what judges chains.
    ///
    /// # Errors
    /// If they are no roots of one cluster: from an authority they are.
    pub fn trust(&self) -> Result<Trust, TrustError> {
        Trust::new(self.roots.clone())
    }

    /// Who shows this chain: a node that a root has signed in and that was not removed; where it [serves](Usage::Server), one that was not demoted.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, chain: &[Certificate], usage: Usage, now: UnixTime) -> Result<Identity, VerifyError> {
        let trust = self.trust().map_err(|error| VerifyError::Malformed(error.to_string()))?;
        let identity = trust.verify(chain, usage, now)?;
        self.refusals.check(&identity)?;
        match usage {
            Usage::Server if self.demoted.is_refused(identity.node) => Err(VerifyError::Demoted(identity)),
            _ => Ok(identity),
        }
    }
}

impl Issued {
    /// The node's own certificate.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.chain.first()
    }
}
