//! Where managers answer.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use overlay_core::{NodeId, UnixTime};
use overlay_crypto::pki::{
    Algorithm, Certificate, CertificateAuthority, Denied, JoinToken, Joining, NextRoot, Proof, RemoveRefusal, Renewing,
    Role, SigningRequest, Trouble,
};
use overlay_node::{Control, ControlError, Reference, Refused};
use serde_json::Value;

use super::refusal::{ClusterRefusal, RefusalKind};
use super::words::{Admitted, Ask, Der, Gone, Ring, Stands};
use crate::control::call::Reply;
use crate::control::frame::Fault;
use crate::control::tls::Peer;
use crate::control::{ControlClient, Credentials, Managers};

/// What a manager's servers have of its cluster beside the catalogue: who lets nodes in, the keys of gossip that they are given, and where the managers are. A
/// clone is the same.
#[derive(Clone)]
pub struct Cluster(Arc<Parts>);

struct Parts {
    authority: Arc<dyn CertificateAuthority>,
    credentials: Credentials,
    ring: RwLock<Option<Ring>>,
    managers: RwLock<Vec<SocketAddr>>,
    /// By whom what only the manager that leads may do is done, if that is another.
    others: RwLock<Option<ControlClient>>,
}

impl Cluster {
    /// A cluster with this authority, of which the node with these credentials is a manager.
    pub fn new(authority: Arc<dyn CertificateAuthority>, credentials: Credentials) -> Self {
        let (ring, managers, others) = Default::default();
        Self(Arc::new(Parts { authority, credentials, ring, managers, others }))
    }

    /// Who lets nodes in.
    pub fn authority(&self) -> &Arc<dyn CertificateAuthority> {
        &self.0.authority
    }

    /// What nodes are given to seal their gossip with, from now on.
    pub fn set_ring(&self, ring: Ring) {
        *self.0.ring.write().unwrap_or_else(PoisonError::into_inner) = Some(ring);
    }

    /// What nodes are given to seal their gossip with.
    pub fn ring(&self) -> Option<Ring> {
        self.0.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where nodes find managers, from now on.
    pub fn set_managers(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        *self.0.managers.write().unwrap_or_else(PoisonError::into_inner) = addresses.into_iter().collect();
    }

    /// Where nodes find managers.
    pub fn managers(&self) -> Vec<SocketAddr> {
        self.0.managers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has what a process on this machine asks for, and only the manager that leads may do, asked of these, where that is another: as this manager itself would ask.
    pub fn set_others(&self, managers: Managers) {
        let client = ControlClient::of_managers(managers);
        *self.0.others.write().unwrap_or_else(PoisonError::into_inner) = Some(client);
    }

    fn others(&self) -> Option<ControlClient> {
        self.0.others.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has this manager's servers believe whom the authority believes now: who was removed is let in no more.
    ///
    /// # Errors
    /// If that cannot be read. Then they believe whom they did.
    pub async fn heed(&self) -> Result<(), Trouble> {
        let trusted = self.0.authority.trusted().await?;
        self.0.credentials.heed(&trusted);
        Ok(())
    }

    /// Whether a node shows a manager's certificate and is no manager any more, by its record: such a certificate may count for long yet.
    pub(in crate::control) async fn was_demoted(&self, peer: &Peer, now: UnixTime) -> bool {
        let Some(shown) = peer.shown().filter(|_| peer.identity.role == Role::Manager) else { return false };
        match self.0.authority.seen(shown, now).await {
            Ok(standing) => standing.role != Role::Manager,
            Err(Denied::Refused(_)) => true,
            Err(Denied::Trouble(_)) => false, // what it asks meets the same
        }
    }

    /// Removes a node from the cluster: it gets no certificate and is let in no more, then its attachments end. One that has joined and never came to work is known by its id. Done before, it is
    /// found done.
    ///
    /// # Errors
    /// If it is the last manager, nothing is called so, or something is in the way.
    pub async fn remove_node(
        &self,
        control: &dyn Control,
        node: &Reference,
        now: UnixTime,
    ) -> Result<Gone, ControlError> {
        let removed = self.remove_here(control, node, now).await;
        let led = removed.as_ref().err().and_then(refusal_of).is_none_or(|it| it.kind != RefusalKind::NotLeading);
        match self.others() {
            Some(others) if !led => {
                let removed = others.remove_member(node).await;
                removed.map_err(|error| ControlError::Unreachable(Arc::new(error)))
            }
            _ => removed,
        }
    }

    /// That, if this manager leads.
    async fn remove_here(&self, control: &dyn Control, node: &Reference, now: UnixTime) -> Result<Gone, ControlError> {
        let id = match control.node(node).await {
            Ok(found) => found.id,
            Err(error) => match node.as_str().parse() {
                Ok(id) => id,
                Err(_) => return Err(error),
            },
        };
        let knew = match self.0.authority.remove(id, now).await {
            Ok(removed) => Some(removed.knew),
            Err(Denied::Refused(RemoveRefusal::Stranger { .. })) => None,
            Err(Denied::Refused(RemoveRefusal::LastManager { node })) => {
                return Err(Refused::LastManager { node }.into());
            }
            Err(error) => return Err(ControlError::Unreachable(Arc::new(ClusterRefusal::from(error)))),
        };
        drop(self.heed().await); // or a little later
        let is_missing = |error: &ControlError| matches!(error.refusal(), Some(Refused::NotFound { .. }));
        match control.remove_node(&id.into(), now).await {
            Err(error) if knew.is_none() || !is_missing(&error) => Err(error),
            ended => Ok(Gone { knew: knew.unwrap_or_default(), ended: ended.unwrap_or_default() }),
        }
    }

    /// Answers who has no certificate.
    pub(in crate::control) async fn let_in(
        &self,
        ask: Ask,
        control: &dyn Control,
        reply: Reply,
        now: UnixTime,
    ) -> Vec<u8> {
        let answer = match ask {
            Ask::Join { token, request, node } => said(self.join((&token.0, &request, node), control, now).await),
            Ask::Rescue { certificate, signature, request } => {
                let proof = Proof::Key { certificate, signature: signature.as_slice().to_vec() };
                said(self.renew(proof, &request, now).await)
            }
            other => {
                let (what, _) = other.open();
                Err(Fault::Unserved { what: format!("to {what} without a certificate") })
            }
        };
        reply.of(answer.map_err(|fault| self.leading_elsewhere(fault)))
    }

    /// Answers a node that shows this certificate. That it may ask this was looked at.
    pub(in crate::control) async fn answer(
        &self,
        ask: Ask,
        (shown, control): (Option<&Certificate>, &dyn Control),
        reply: Reply,
        now: UnixTime,
    ) -> Vec<u8> {
        reply.of(self.decide(ask, (shown, control), now).await.map_err(|fault| self.leading_elsewhere(fault)))
    }

    /// Answers a process on this machine: where another manager leads, with what that one says.
    pub(in crate::control) async fn answer_here(
        &self,
        ask: Ask,
        control: &dyn Control,
        reply: Reply,
        now: UnixTime,
    ) -> Vec<u8> {
        let again = self.others().map(|others| (others, ask.clone()));
        let decided = self.decide(ask, (None, control), now).await;
        let leads = !matches!(&decided, Err(Fault::Cluster(refusal)) if refusal.kind == RefusalKind::NotLeading);
        match again {
            Some((others, ask)) if !leads => reply.of(others.ask_again(ask).await.map_err(Fault::Cluster)),
            _ => reply.of(decided),
        }
    }

    /// Says where other managers are, if that is why something was refused.
    fn leading_elsewhere(&self, mut fault: Fault) -> Fault {
        if let Fault::Cluster(refusal) = &mut fault
            && refusal.kind == RefusalKind::NotLeading
        {
            refusal.managers = self.managers();
        }
        fault
    }

    async fn decide(
        &self,
        ask: Ask,
        (shown, control): (Option<&Certificate>, &dyn Control),
        now: UnixTime,
    ) -> Result<Value, Fault> {
        let authority = &self.0.authority;
        match (ask, shown) {
            (Ask::Renew { request }, Some(shown)) => {
                said(self.renew(Proof::Session(shown.clone()), &request, now).await)
            }
            (Ask::Stand { revision, ring }, Some(shown)) => said(self.stand((revision, ring), shown, now).await),
            (Ask::Token { role }, _) => said(authority.token(role).await.map(|token| token.to_string())),
            (Ask::RotateToken { role }, _) => said(authority.rotate_token(role).await.map(|token| token.to_string())),
            (Ask::Invite { invitation }, _) => said(authority.invite(&invitation).await.map(|token| token.to_string())),
            (Ask::Members {}, _) => said(authority.members(now).await),
            (Ask::Remove { node }, _) => match self.remove_here(control, &node, now).await {
                Ok(gone) => said::<_, ClusterRefusal>(Ok(gone)),
                Err(error) => Err(refusal_of(&error).cloned().map_or(Fault::Control(error), Fault::Cluster)),
            },
            (Ask::SetRole { node, role }, _) => said(authority.set_role(node, role).await),
            (Ask::RotateRoot {}, _) => {
                let begun = authority.rotate_root(&NextRoot::Generate(Algorithm::EcdsaP256), now).await;
                drop(self.heed().await); // or a little later
                said(begun)
            }
            (Ask::AbortRoot {}, _) => said(authority.abort_root(now).await),
            (Ask::SealingKey {}, Some(shown)) => {
                let given = authority.sealing_key(shown, now).await;
                said(given.map(|key| Der::new(key.to_bytes().to_vec())))
            }
            (Ask::RootProgress {}, _) => said(authority.root_progress(now).await),
            (Ask::Join { .. } | Ask::Rescue { .. }, _) => said::<(), _>(Err(ClusterRefusal::only_strangers())),
            (Ask::Renew { .. } | Ask::Stand { .. } | Ask::SealingKey {}, None) => {
                said::<(), _>(Err(ClusterRefusal::malformed("it is a node's to ask, by its certificate")))
            }
        }
    }

    /// Nobody joins as a node that is at work and has no certificate: whoever has a token would be given what is that node's.
    async fn check_id(&self, control: &dyn Control, node: NodeId, now: UnixTime) -> Result<(), ClusterRefusal> {
        match control.node(&node.into()).await {
            Ok(_) => {}
            Err(error) if error.refusal().is_some() => return Ok(()),
            Err(error) => return Err(ClusterRefusal::trouble(&error)),
        }
        let members = self.0.authority.members(now).await?;
        match members.iter().any(|it| it.node == node) {
            true => Ok(()), // whose it is, the authority knows
            false => Err(ClusterRefusal::taken(node)),
        }
    }

    async fn join(
        &self,
        (token, request, node): (&str, &Der, Option<NodeId>),
        control: &dyn Control,
        now: UnixTime,
    ) -> Result<Admitted, ClusterRefusal> {
        let token: JoinToken = token.parse().map_err(ClusterRefusal::malformed)?;
        let joining = Joining { token, request: read(request)?, node };
        if let Some(node) = node {
            // The token first: who has none is not told whether the id is anybody's.
            self.0.authority.admits(&joining, now).await?;
            self.check_id(control, node, now).await?;
        }
        let issued = self.0.authority.join(&joining, now).await?;
        Ok(Admitted { issued, ring: self.ring(), managers: self.managers() })
    }

    async fn renew(
        &self,
        proof: Proof,
        request: &Der,
        now: UnixTime,
    ) -> Result<overlay_crypto::pki::Issued, ClusterRefusal> {
        let request = read(request)?;
        Ok(self.0.authority.renew(&Renewing { proof, request }, now).await?)
    }

    async fn stand(
        &self,
        (revision, ring): (u64, u64),
        shown: &Certificate,
        now: UnixTime,
    ) -> Result<Stands, ClusterRefusal> {
        let standing = self.0.authority.seen(shown, now).await?;
        let trusted = match standing.revision == revision {
            true => None,
            false => Some(self.0.authority.trusted().await?),
        };
        let ring = self.ring().filter(|now| now.revision != ring);
        Ok(Stands { standing, trusted, ring, managers: self.managers() })
    }
}

fn read(request: &Der) -> Result<SigningRequest, ClusterRefusal> {
    SigningRequest::from_der(request.as_slice()).map_err(ClusterRefusal::malformed)
}

/// What the cluster has refused, if that is the error.
fn refusal_of(error: &ControlError) -> Option<&ClusterRefusal> {
    match error {
        ControlError::Unreachable(source) => source.downcast_ref(),
        _ => None,
    }
}

fn said<T: serde::Serialize, E: Into<ClusterRefusal>>(result: Result<T, E>) -> Result<Value, Fault> {
    let answer = result.map_err(|refusal| Fault::Cluster(refusal.into()))?;
    serde_json::to_value(answer).map_err(|error| Fault::Cluster(ClusterRefusal::in_the_way(&error)))
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("authority", &self.0.authority)
            .field("managers", &self.managers())
            .finish_non_exhaustive()
    }
}
