//! The judgement of handshakes.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use overlay_core::UnixTime;
use overlay_crypto::pki::{Certificate, JoinToken, Trust, Usage, VerifyError};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    ServerConfig, SignatureScheme,
};

use super::{CONTROL, Credentials, JOIN};

/// What a server is set up with: for nodes, which show their certificate, or for those that ask for their first.
pub(super) fn server_config(credentials: &Credentials, alpn: &[u8]) -> Result<Arc<ServerConfig>, Error> {
    let nodes: Arc<dyn ClientCertVerifier> = match alpn {
        JOIN => rustls::server::WebPkiClientVerifier::no_client_auth(),
        _ => Arc::new(Nodes(credentials.clone())),
    };
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?;
    let own = Arc::new(Shown(credentials.clone()));
    let mut config = builder.with_client_cert_verifier(nodes).with_cert_resolver(own);
    config.alpn_protocols = vec![alpn.to_vec()];
    // A session that is taken up again shows no certificate, so a removed node would be let in.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What a node calls managers with.
pub(super) fn client_config(credentials: &Credentials) -> Result<Arc<ClientConfig>, Error> {
    let managers = Arc::new(Server(Arc::new(Believed(credentials.clone()))));
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(managers);
    let mut config = builder.with_client_cert_resolver(Arc::new(Shown(credentials.clone())));
    config.alpn_protocols = vec![CONTROL.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// What a node calls managers with whose certificate is over: it shows none.
pub(super) fn bare_config(credentials: &Credentials) -> Result<Arc<ClientConfig>, Error> {
    let managers = Arc::new(Server(Arc::new(Believed(credentials.clone()))));
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(managers).with_no_client_auth();
    config.alpn_protocols = vec![JOIN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// What somebody calls a manager with who has a join token alone, and where stands whom to believe, once the manager has proved itself.
pub(super) fn join_config(token: JoinToken, now: UnixTime) -> Result<(Arc<ClientConfig>, Arc<Pinned>), Error> {
    let pinned = Arc::new(Pinned { token, now, trust: Mutex::default() });
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Server(Arc::clone(&pinned))));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![JOIN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok((Arc::new(config), pinned))
}

/// TLS 1.3 alone (RFC 8446).
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What was shown in a handshake; what is `known` is not read anew.
pub(super) fn chain<'c>(
    shown: impl IntoIterator<Item = &'c CertificateDer<'c>>,
    known: impl Fn(&[u8]) -> Option<Certificate>,
) -> Result<Vec<Certificate>, VerifyError> {
    let mut chain = Vec::new();
    for der in shown {
        if chain.len() == Trust::CHAIN {
            return Err(VerifyError::TooMany { have: Trust::CHAIN + 1 });
        }
        let read = known(der).map_or_else(|| Certificate::from_der(der.as_ref().to_vec()), Ok);
        chain.push(read.map_err(|error| VerifyError::Malformed(error.to_string()))?);
    }
    Ok(chain)
}

/// Proves itself with what it has at that moment.
#[derive(Debug)]
struct Shown(Credentials);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.rooted())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Lets the nodes of the cluster in.
#[derive(Debug)]
struct Nodes(Credentials);

impl ClientCertVerifier for Nodes {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.judge([own].into_iter().chain(between), Usage::Client);
        verified.map(|()| ClientCertVerified::assertion()).map_err(|error| Error::InvalidCertificate(told(&error)))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Believes managers of its own cluster.
#[derive(Debug)]
struct Believed(Credentials);

/// Believes the manager that the token names the root of.
pub(in crate::control) struct Pinned {
    token: JoinToken,
    now: UnixTime,
    trust: Mutex<Option<Trust>>,
}

impl Pinned {
    /// Whom to believe from now on.
    pub(in crate::control) fn trust(&self) -> Option<Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Whose chain a client believes.
trait Judge: std::fmt::Debug + Send + Sync {
    fn judge<'c>(&self, shown: impl Iterator<Item = &'c CertificateDer<'c>>) -> Result<(), VerifyError>;
}

impl Judge for Believed {
    fn judge<'c>(&self, shown: impl Iterator<Item = &'c CertificateDer<'c>>) -> Result<(), VerifyError> {
        self.0.judge(shown, Usage::Server)
    }
}

impl Judge for Pinned {
    fn judge<'c>(&self, shown: impl Iterator<Item = &'c CertificateDer<'c>>) -> Result<(), VerifyError> {
        let trust = self.token.trust(&chain(shown, |_| None)?, self.now)?;
        *self.trust.lock().unwrap_or_else(PoisonError::into_inner) = Some(trust);
        Ok(())
    }
}

/// A client's verifier: whom this judge believes.
#[derive(Debug)]
struct Server<J>(Arc<J>);

impl<J: Judge> ServerCertVerifier for Server<J> {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.0.judge([own].into_iter().chain(between));
        // Ours to tell, so it is told as it is.
        let untrusted = |error| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))));
        judged.map(|()| ServerCertVerified::assertion()).map_err(untrusted)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// As TLS tells it to the other end: each in an alert of its own (RFC 8446 §6.2), as far as there are any.
fn told(error: &VerifyError) -> CertificateError {
    match error {
        VerifyError::Expired { .. } => CertificateError::Expired,
        VerifyError::NotYet { .. } => CertificateError::NotValidYet,
        VerifyError::Removed(_) => CertificateError::Revoked,
        VerifyError::Foreign { .. } | VerifyError::Cluster { .. } | VerifyError::SelfSigned => {
            CertificateError::UnknownIssuer
        }
        VerifyError::Usage(_) | VerifyError::Authority => CertificateError::InvalidPurpose,
        VerifyError::Role { .. } | VerifyError::Demoted(_) | VerifyError::Nobody => {
            CertificateError::ApplicationVerificationFailure
        }
        _ => CertificateError::BadEncoding,
    }
}

fn signature(
    message: &[u8],
    own: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
        LazyLock::new(|| ring::default_provider().signature_verification_algorithms);
    verify_tls13_signature(message, own, signed, &ALGORITHMS)
}

fn schemes() -> Vec<SignatureScheme> {
    vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
}

fn old() -> Error {
    PeerIncompatible::ServerDoesNotSupportTls12Or13.into()
}
