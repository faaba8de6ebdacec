//! A root whose key a signer elsewhere has.
//!
//! The signer is spoken to as CFSSL's `sign` endpoint is: an HTTPS POST of JSON, `{"certificate_request": PEM, "hosts": [names], "subject": {"CN": …, "names": [{"O": …, "OU": …}]},
//! "profile": …}`, answered by `{"success": true, "result": {"certificate": PEM}}` or `{"success": false, "errors": [{"code": …, "message": …}]}`. The profile is `node`, or `CA` where
//! the next root is to be signed. What it answers is believed in nothing: whatever does not fit what was asked is refused.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use overlay_core::{NodeId, UnixTime};
use serde::{Deserialize, Serialize};

use super::SignerError;
use crate::pki::authority::span;
use crate::pki::identity::AUTHORITY;
use crate::pki::{
    Algorithm, Authority, Certificate, Grant, Identity, Life, Role, Serial, SigningKey, SigningRequest, Trust, Usage,
    Validity, VerifyError,
};

/// The way to a signer: HTTPS, which needs sockets and so is the caller's.
#[async_trait]
pub trait SignerTransport: Send + Sync + fmt::Debug {
    /// Posts `body`, JSON, to `url`, and gives what was answered, whatever its status. The server's certificate is to be verified, the manager's own to be shown to it; who waits longer
    /// than 5 s, or reads more than 256 KiB, gives up.
    ///
    /// # Errors
    /// Why there is no answer, for people.
    async fn post(&self, url: &str, body: Vec<u8>) -> Result<Vec<u8>, String>;
}

/// Bytes of an answer at most.
pub(super) const MOST: usize = 256 * 1024;
/// A certificate counts at least so long.
const LEAST: Duration = Duration::from_secs(3600);
/// By how much a signer's clock may differ.
const SKEW: Duration = Duration::from_secs(3600);

/// What is to be signed.
pub(super) struct Wanted<'a> {
    pub(super) request: &'a SigningRequest,
    pub(super) identity: Identity,
    pub(super) validity: Validity,
}

#[derive(Serialize)]
struct Ask<'a> {
    certificate_request: String,
    hosts: Vec<String>,
    subject: Subject,
    profile: &'a str,
}

#[derive(Serialize)]
struct Subject {
    #[serde(rename = "CN")]
    common_name: String,
    names: Vec<Name>,
}

#[derive(Serialize)]
struct Name {
    #[serde(rename = "O")]
    organisation: String,
    #[serde(rename = "OU", skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
}

#[derive(Deserialize)]
struct Answer {
    success: bool,
    #[serde(default)]
    result: Option<Signed>,
    #[serde(default)]
    errors: Option<Vec<Flaw>>,
}

#[derive(Deserialize)]
struct Signed {
    certificate: String,
}

#[derive(Deserialize)]
struct Flaw {
    #[serde(default)]
    message: String,
}

/// Has a node's certificate signed.
pub(super) async fn sign(
    transport: &dyn SignerTransport,
    url: &str,
    wanted: &Wanted<'_>,
    root: &Certificate,
    now: UnixTime,
) -> Result<Certificate, SignerError> {
    let Identity { node, role, cluster } = wanted.identity;
    let names = vec![Name { organisation: cluster.to_string(), unit: Some(role.unit()) }];
    let subject = Subject { common_name: node.to_string(), names };
    let certificate_request = wanted.request.to_pem();
    let ask = Ask { certificate_request, hosts: wanted.identity.names(), subject, profile: "node" };
    let signed = post(transport, url, &ask).await?;
    check(&signed, wanted, root, now)?;
    Ok(signed)
}

/// Has the next root, whose key is here, signed by the present one.
pub(super) async fn cross_sign(
    transport: &dyn SignerTransport,
    url: &str,
    (present, next): (&Certificate, &Authority),
    now: UnixTime,
) -> Result<Certificate, SignerError> {
    let cluster = next.certificate().cluster().map(|cluster| cluster.to_string()).unwrap_or_default();
    let subject =
        Subject { common_name: AUTHORITY.to_owned(), names: vec![Name { organisation: cluster, unit: None }] };
    let request = SigningRequest::create(next.key()).map_err(|_| SignerError::OtherName)?;
    let ask = Ask { certificate_request: request.to_pem(), hosts: Vec::new(), subject, profile: "CA" };
    let signed = post(transport, url, &ask).await?;
    if signed.key() != next.key().digest() {
        return Err(SignerError::OtherKey { asked: next.key().digest(), found: signed.key() });
    }
    if signed.cluster() != next.certificate().cluster() || !signed.is_authority() {
        return Err(SignerError::OtherName);
    }
    // It is of use if who believes the present root alone believes what the next has issued.
    let Some(cluster) = next.certificate().cluster() else { return Err(SignerError::OtherName) };
    let (node, serial) = (NodeId::from_bytes([0; 16]), Serial::generate(|_| {}));
    let grant = Grant { identity: Identity { node, role: Role::Worker, cluster }, life: Life::default(), serial };
    let tried = next.issue(&request, &grant, now).map_err(|_| SignerError::OtherName)?;
    let trust = Trust::new([present.clone()]).map_err(|_| SignerError::OtherName)?;
    trust.verify(&[tried, signed.clone()], Usage::Server, now).map_err(SignerError::OtherRoot)?;
    Ok(signed)
}

/// Whether a signer signs as that root: a certificate for nobody is asked for, and forgotten.
pub(super) async fn try_out(
    transport: &dyn SignerTransport,
    url: &str,
    root: &Certificate,
    now: UnixTime,
) -> Result<(), SignerError> {
    let cluster = root.cluster().ok_or(SignerError::OtherName)?;
    let unsigned = |_| SignerError::OtherRoot(VerifyError::Missing);
    let key = SigningKey::generate(Algorithm::EcdsaP256).map_err(unsigned)?;
    let request = SigningRequest::create(&key).map_err(|_| SignerError::OtherRoot(VerifyError::Missing))?;
    let identity = Identity { node: NodeId::from_bytes([0; 16]), role: Role::Worker, cluster };
    let validity = span(root.validity(), Life::default(), now)
        .map_err(|_| SignerError::OtherRoot(VerifyError::Root { cluster, now }))?;
    sign(transport, url, &Wanted { request: &request, identity, validity }, root, now).await.map(drop)
}

async fn post(transport: &dyn SignerTransport, url: &str, ask: &Ask<'_>) -> Result<Certificate, SignerError> {
    let unreachable = |why: String| SignerError::Unreachable { url: url.to_owned(), why };
    let body = serde_json::to_vec(ask).map_err(|error| unreachable(error.to_string()))?;
    let answer = transport.post(url, body).await.map_err(unreachable)?;
    if answer.len() > MOST {
        return Err(SignerError::TooLong { have: answer.len(), most: MOST });
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|error| unreachable(error.to_string()))?;
    match answer.result {
        Some(signed) if answer.success => Ok(Certificate::from_pem(&signed.certificate)?),
        _ => {
            let why = answer.errors.unwrap_or_default().into_iter().next().map(|flaw| flaw.message);
            Err(SignerError::Refuses { url: url.to_owned(), why: why.unwrap_or_else(|| "it does not say why".into()) })
        }
    }
}

/// Whether what was signed is what was asked for.
fn check(signed: &Certificate, wanted: &Wanted<'_>, root: &Certificate, now: UnixTime) -> Result<(), SignerError> {
    let (asked, found) = (wanted.request.key(), signed.key());
    if asked != found {
        return Err(SignerError::OtherKey { asked, found });
    }
    if signed.is_authority() {
        return Err(SignerError::Authority);
    }
    if signed.identity() != Some(wanted.identity) || signed.names() != wanted.identity.names() {
        return Err(SignerError::OtherName);
    }
    let validity = signed.validity();
    if validity.until > wanted.validity.until + SKEW || validity.until < now + LEAST {
        return Err(SignerError::Life(validity));
    }
    let trust = Trust::new([root.clone()]).map_err(|_| SignerError::OtherName)?;
    for usage in [Usage::Client, Usage::Server] {
        trust.verify(std::slice::from_ref(signed), usage, now).map_err(SignerError::OtherRoot)?;
    }
    Ok(())
}
