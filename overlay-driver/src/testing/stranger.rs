//! TLS as anybody may speak it to a node.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use overlay_crypto::pki::{Certificate, SigningKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection in TLS that believes whoever answers: by a certificate and those that vouch for it, or without. It offers that protocol (ALPN), or none if that is empty.
///
/// # Errors
/// If there is no connection, it is refused, or the key is not the certificate's.
pub async fn credulous(
    address: SocketAddr,
    own: Option<(&[Certificate], &SigningKey)>,
    protocol: &[u8],
) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?.dangerous().with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = chain.iter().map(|it| CertificateDer::from(it.as_der().to_vec())).collect();
            let key = PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec());
            builder.with_client_auth_cert(chain, key.into()).map_err(io::Error::other)?
        }
    };
    config.alpn_protocols = if protocol.is_empty() { Vec::new() } else { vec![protocol.to_vec()] };
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::IpAddress(address.ip().into()), stream).await
}

/// Says that and nothing else, and gives all that is answered until the other end closes.
///
/// # Errors
/// If reading fails before anything came. What was not read at the other end resets a connection, so after that it is an end like any other.
pub async fn exchange(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let speaks = async {
        // The server may have closed before it has read all.
        drop(writer.write_all(bytes).await);
        drop(writer.shutdown().await);
    };
    let mut told = Vec::new();
    let ((), read) = tokio::join!(speaks, reader.read_to_end(&mut told));
    match read {
        Err(error) if told.is_empty() => Err(error),
        _ => Ok(told),
    }
}

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
        _: UnixTime,
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
