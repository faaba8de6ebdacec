//! TLS as anybody may speak it, and the alert by which he is refused.

use std::net::SocketAddr;

use overlay_crypto::pki::{Certificate, SigningKey};
use overlay_driver::testing::credulous;

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
    protocol: &[u8],
    bytes: &[u8],
) -> Result<Vec<u8>, Option<rustls::AlertDescription>> {
    let stream = credulous(address, own, protocol).await.map_err(|error| alert(&error))?;
    overlay_driver::testing::exchange(stream, bytes).await.map_err(|error| alert(&error))
}

fn alert(error: &std::io::Error) -> Option<rustls::AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}
