//! A client asks its cluster.

use overlay_core::NodeId;
use overlay_crypto::pki::{
    Certificate, Invitation, Issued, Member, Proof, Role, RootProgress, SealingKey, SigningRequest,
};
use overlay_node::{ControlError, Reference, Refused};
use serde::de::DeserializeOwned;

use super::refusal::{ClusterError, ClusterRefusal, RefusalKind};
use super::words::{Admitted, Ask, Der, Gone, Stands, Token};
use crate::control::ControlClient;
use crate::control::call::Call;
use crate::control::dial::Target;
use crate::control::frame::{Fault, Outcome};

impl ControlClient {
    /// How this node stands, and what is news to it, which knows whom to believe as of that revision, and the keys of gossip as of that.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn stand(&self, revision: u64, ring: u64) -> Result<Stands, ClusterError> {
        self.asked(Ask::Stand { revision, ring }).await
    }

    /// This node's next certificate, for the key that has made this request.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn renew(&self, request: &SigningRequest) -> Result<Issued, ClusterError> {
        self.asked(Ask::Renew { request: Der::new(request.as_der().to_vec()) }).await
    }

    /// The token by which nodes of a role join. For managers, as all that follows.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn token(&self, role: Role) -> Result<String, ClusterError> {
        self.asked(Ask::Token { role }).await
    }

    /// Another in its place: the former lets nobody in any more.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn rotate_token(&self, role: Role) -> Result<String, ClusterError> {
        self.asked(Ask::RotateToken { role }).await
    }

    /// A token for a time, so many nodes, or one.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn invite(&self, invitation: Invitation) -> Result<String, ClusterError> {
        self.asked(Ask::Invite { invitation }).await
    }

    /// All nodes that were let in.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn members(&self) -> Result<Vec<Member>, ClusterError> {
        self.asked(Ask::Members {}).await
    }

    /// Promotes or demotes a node: it asks for a certificate that says so within seconds.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn set_role(&self, node: NodeId, role: Role) -> Result<(), ClusterError> {
        self.asked(Ask::SetRole { node, role }).await
    }

    /// Removes a node, as [`remove_node`](overlay_node::Control::remove_node) does, and says what it knew that is to be changed now.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn remove_member(&self, node: &Reference) -> Result<Gone, ClusterError> {
        self.asked(Ask::Remove { node: node.clone() }).await
    }

    /// Begins to change the root that all nodes believe for a new one.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn rotate_root(&self) -> Result<RootProgress, ClusterError> {
        self.asked(Ask::RotateRoot {}).await
    }

    /// Takes that back.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn abort_root(&self) -> Result<RootProgress, ClusterError> {
        self.asked(Ask::AbortRoot {}).await
    }

    /// How far that is; `None` if the root is not being changed.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn root_progress(&self) -> Result<Option<RootProgress>, ClusterError> {
        self.asked(Ask::RootProgress {}).await
    }

    /// What this node needs to sign once it leads: given to managers by their certificate, and to be kept by them alone.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn sealing_key(&self) -> Result<SealingKey, ClusterError> {
        let bytes: Der = self.asked(Ask::SealingKey {}).await?;
        let bytes = bytes.as_slice().try_into().map_err(|_| ClusterRefusal::malformed("a sealing key has 32 bytes"))?;
        Ok(SealingKey::from_bytes(bytes))
    }

    pub(super) async fn join(
        &self,
        token: Token,
        request: &SigningRequest,
        node: Option<NodeId>,
    ) -> Result<Admitted, ClusterError> {
        self.asked(Ask::Join { token, request: Der::new(request.as_der().to_vec()), node }).await
    }

    /// The next certificate of a node whose present one is over.
    pub(crate) async fn rescue(&self, proof: &Proof, request: &SigningRequest) -> Result<Issued, ClusterError> {
        let signature = match proof {
            Proof::Key { signature, .. } => signature.clone(),
            Proof::Session(_) => Vec::new(),
        };
        let certificate: Certificate = proof.certificate().clone();
        let request = Der::new(request.as_der().to_vec());
        self.asked(Ask::Rescue { certificate, signature: Der::new(signature), request }).await
    }

    /// Asks what another manager's process has asked, and gives the answer as it is.
    pub(super) async fn ask_again(&self, ask: Ask) -> Result<serde_json::Value, ClusterRefusal> {
        self.asked(ask).await.map_err(|error| match error {
            ClusterError::Refused(refusal) => refusal,
            unreachable => ClusterRefusal::in_the_way(&unreachable),
        })
    }

    /// Asks, and other managers where this one does not lead. All of it may be asked twice.
    async fn asked<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, ClusterError> {
        let call = Call::Cluster(ask);
        let managers = match &self.address.to {
            Target::Managers(managers) => Some(managers),
            Target::Path(_) => None,
        };
        let mut called = 0;
        loop {
            called += 1;
            let outcome = self.request::<T>(&call, false).await;
            let refusal = match outcome.map_err(|unanswered| ClusterError::Unreachable(unanswered.error))? {
                Outcome::Ok(answer) => return Ok(answer),
                Outcome::Error(fault) => match *fault {
                    Fault::Cluster(refusal) => refusal,
                    Fault::Control(ControlError::Refused(refused)) => match refused {
                        Refused::LastManager { .. } => ClusterRefusal::last_manager(&refused),
                        refused => ClusterRefusal::malformed(refused),
                    },
                    Fault::Control(error) => ClusterRefusal::trouble(&error),
                    fault => return Err(ClusterError::Unreachable(crate::control::client::undone(fault).error)),
                },
            };
            let managers = managers.filter(|_| refusal.kind == RefusalKind::NotLeading);
            let Some(managers) = managers else { return Err(refusal.into()) };
            managers.learn_more(refusal.managers.iter().copied());
            if called >= managers.addresses().len() {
                return Err(refusal.into());
            }
            self.call_another().await;
        }
    }
}
