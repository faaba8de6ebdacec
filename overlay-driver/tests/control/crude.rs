//! TLS as anybody may speak it, who believes whoever answers.

use std::net::SocketAddr;
use std::sync::Arc;

use overlay_crypto::pki::{Certificate, SigningKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Believes whoever answers.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}

/// Says that in TLS, by this certificate or as somebody who would join, and nothing else; what is answered, or the alert.
pub(crate) async fn exchange(
    address: SocketAddr,
    own: Option<(&[Certificate], &SigningKey)>,
    bytes: &[u8],
) -> Result<Vec<u8>, Option<rustls::AlertDescription>> {
    speak(address, own, b"overlay-control/1", bytes).await
}

/// As that, in this protocol.
pub(crate) async fn speak(
    address: SocketAddr,
    own: Option<(&[Certificate], &SigningKey)>,
    alpn: &[u8],
    bytes: &[u8],
) -> Result<Vec<u8>, Option<rustls::AlertDescription>> {
    let mut stream = open(address, own, alpn).await.map_err(|error| alert(&error))?;
    drop(stream.write_all(bytes).await);
    drop(stream.shutdown().await);
    let mut told = Vec::new();
    match stream.read_to_end(&mut told).await {
        Ok(_) => Ok(told),
        Err(_) if !told.is_empty() => Ok(told),
        Err(error) => Err(alert(&error)),
    }
}

fn alert(error: &std::io::Error) -> Option<rustls::AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// A connection in TLS, by this certificate or as somebody who would join, in this protocol.
pub(crate) async fn open(
    address: SocketAddr,
    own: Option<(&[Certificate], &SigningKey)>,
    alpn: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = chain.iter().map(|it| CertificateDer::from(it.as_der().to_vec())).collect();
            let key = PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec());
            builder.with_client_auth_cert(chain, key.into()).unwrap()
        }
    };
    config.alpn_protocols = if alpn.is_empty() { Vec::new() } else { vec![alpn.to_vec()] };
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("x").unwrap(), stream).await
}

/// Somebody without a certificate, who says nothing.
pub(crate) async fn idle_stranger(address: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"overlay-join/1".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("x").unwrap(), stream).await.unwrap()
}
