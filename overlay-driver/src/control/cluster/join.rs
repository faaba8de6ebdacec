//! Joining a cluster by a token.

use std::net::SocketAddr;
use std::sync::Arc;

use overlay_core::NodeId;
use overlay_crypto::pki::{
    Algorithm, Certificate, CertificateAuthority, Identity, Issued, JoinToken, Joining, KeyError, Proof, Renewing,
    RequestError, Role, SigningKey, SigningRequest, Trust, TrustError,
};
use overlay_kernel::Namespace;
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::refusal::{ClusterError, ClusterRefusal};
use super::words::{Ring, Token};
use crate::control::dial::Target;
use crate::control::{ControlClient, Credentials, CredentialsError, Managers};
use crate::driver::now;
use crate::spans;

/// A node that was let in.
#[derive(Debug)]
pub struct Joined {
    /// Who it is.
    pub identity: Identity,
    /// What it proves itself with from now on, and whom it believes.
    pub credentials: Credentials,
    /// The same as it was told: to be kept together with the key.
    pub issued: Issued,
    /// The key of its certificate.
    pub key: SigningKey,
    /// What gossip is sealed with; nothing if it is not.
    pub ring: Option<Ring>,
    /// Where managers are: those called, and those they told of.
    pub managers: Vec<SocketAddr>,
}

/// Why a node has not joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The cluster refused, or could not be asked: who answers may be no manager of the cluster that the token is of.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What was answered are no roots.
    #[error("the manager tells of roots that are none")]
    Roots(#[from] TrustError),
    /// What was answered is no certificate of this node's.
    #[error("the manager gave a certificate that is of no use")]
    Credentials(#[from] CredentialsError),
    /// The root that the token names is not among those that are to be believed.
    #[error("the manager tells of other roots than the token")]
    OtherRoot,
}

/// Joins the cluster that `token` is of, by a manager at one of these addresses: as `node`, or as who follows from its key. The manager proves in the handshake that it has the
/// root which the token names; before that, nothing is told it, the token least of all. Calls from the namespace `host`, if one is given.
///
/// # Errors
/// See [`JoinError`]. It may be repeated, with `node` where the first may have succeeded.
pub async fn join(
    managers: impl IntoIterator<Item = SocketAddr>,
    token: &JoinToken,
    node: Option<NodeId>,
    host: Option<Arc<Namespace>>,
) -> Result<Joined, JoinError> {
    let span = spans::join();
    let joined = join_as(managers, token, (node, host)).instrument(span.clone()).await?;
    spans::is_node(&span, joined.identity.node);
    Ok(joined)
}

async fn join_as(
    managers: impl IntoIterator<Item = SocketAddr>,
    token: &JoinToken,
    (node, host): (Option<NodeId>, Option<Arc<Namespace>>),
) -> Result<Joined, JoinError> {
    let key = SigningKey::generate(Algorithm::EcdsaP256)?;
    let request = SigningRequest::create(&key)?;
    let (called, pinned) = Managers::by_token(managers, token.clone())?;
    let called = match host {
        Some(host) => called.from_host(host),
        None => called,
    };
    let client = ControlClient::to(Target::Managers(called.clone()));
    let admitted = client.join(Token(Zeroizing::new(token.to_string())), &request, node).await?;
    let issued = admitted.issued;
    let trust = Trust::new(issued.roots.clone())?;
    let known = pinned.trust().is_some_and(|known| known.roots().iter().any(|root| trust.roots().contains(root)));
    if !known {
        return Err(JoinError::OtherRoot);
    }
    let credentials = Credentials::new(issued.chain.clone(), &key, trust)?;
    let mut managers = called.addresses();
    let news: Vec<SocketAddr> = admitted.managers.into_iter().filter(|it| !managers.contains(it)).collect();
    managers.extend(news);
    Ok(Joined { identity: credentials.identity(), credentials, issued, key, ring: admitted.ring, managers })
}

/// The first certificate of a manager whose own authority issues it: the one that has founded the cluster, as `node`.
///
/// # Errors
/// See [`JoinError`].
pub async fn found(authority: &dyn CertificateAuthority, node: NodeId) -> Result<Joined, JoinError> {
    let key = SigningKey::generate(Algorithm::EcdsaP256)?;
    let request = SigningRequest::create(&key)?;
    let token = authority.token(Role::Manager).await.map_err(refused)?;
    let issued = authority.join(&Joining { token, request, node: Some(node) }, now()).await.map_err(refused)?;
    let credentials = Credentials::new(issued.chain.clone(), &key, Trust::new(issued.roots.clone())?)?;
    Ok(Joined { identity: credentials.identity(), credentials, issued, key, ring: None, managers: Vec::new() })
}

/// Another certificate of a manager by its own authority, which it leads: for one whose own is over, as nobody would believe it who calls.
///
/// # Errors
/// See [`JoinError`].
pub async fn reissue(
    authority: &dyn CertificateAuthority,
    own: &Certificate,
    key: &SigningKey,
) -> Result<(Issued, SigningKey), JoinError> {
    let next = SigningKey::generate(Algorithm::EcdsaP256)?;
    let request = SigningRequest::create(&next)?;
    let proof = Proof::of_key(own.clone(), key, &request)?;
    let issued = authority.renew(&Renewing { proof, request }, now()).await.map_err(refused)?;
    Ok((issued, next))
}

fn refused(error: impl Into<ClusterRefusal>) -> JoinError {
    JoinError::Cluster(ClusterError::Refused(error.into()))
}
