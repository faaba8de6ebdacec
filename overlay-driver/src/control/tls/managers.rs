//! Where the managers are, for who calls them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use overlay_crypto::pki::{JoinToken, VerifyError};
use overlay_kernel::Namespace;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::verifier::{self, Pinned};
use super::{CONTROL, Credentials, CredentialsError, JOIN};
use crate::control::error::{RemoteError, Unwelcome};
use crate::control::transport::{Stream, of_tls};
use crate::home::Home;

/// The managers of a cluster, as a node calls them: any serves, so the one that answered last is called first, and then the others in turn. A clone is the same.
///
/// Each proves in the handshake that it is a manager of the node's cluster, by a root that the node believes.
#[derive(Clone)]
pub struct Managers(Arc<Known>);

struct Known {
    addresses: RwLock<Vec<SocketAddr>>,
    config: Arc<ClientConfig>,
    alpn: &'static [u8],
    home: Home,
}

impl Managers {
    /// How many are kept in mind.
    pub const MOST: usize = 64;

    /// Managers at these addresses, called with these credentials.
    ///
    /// # Errors
    /// If TLS has no use for them.
    pub fn new(
        addresses: impl IntoIterator<Item = SocketAddr>,
        credentials: &Credentials,
    ) -> Result<Self, CredentialsError> {
        let config = verifier::client_config(credentials).map_err(|error| CredentialsError::Key(error.to_string()))?;
        Ok(Self::of(addresses, config, CONTROL))
    }

    /// The same managers, called without a certificate: they prove themselves as they do to who has one.
    pub(in crate::control) fn without_certificate(&self, credentials: &Credentials) -> Result<Self, CredentialsError> {
        let config = verifier::bare_config(credentials).map_err(|error| CredentialsError::Key(error.to_string()))?;
        let (addresses, home) = (RwLock::new(self.addresses()), self.0.home.clone());
        Ok(Self(Arc::new(Known { addresses, config, alpn: JOIN, home })))
    }

    /// Those that are called by who has a token alone.
    pub(in crate::control) fn by_token(
        addresses: impl IntoIterator<Item = SocketAddr>,
        token: JoinToken,
    ) -> Result<(Self, Arc<Pinned>), CredentialsError> {
        let config = verifier::join_config(token, crate::driver::now());
        let (config, pinned) = config.map_err(|error| CredentialsError::Key(error.to_string()))?;
        Ok((Self::of(addresses, config, JOIN), pinned))
    }

    fn of(addresses: impl IntoIterator<Item = SocketAddr>, config: Arc<ClientConfig>, alpn: &'static [u8]) -> Self {
        let addresses = RwLock::new(addresses.into_iter().take(Self::MOST).collect());
        Self(Arc::new(Known { addresses, config, alpn, home: Home::default() }))
    }

    /// Calls them from this namespace, not from the process's own.
    #[must_use]
    pub fn from_host(self, host: Arc<Namespace>) -> Self {
        let Known { config, alpn, .. } = &*self.0;
        let (config, alpn) = (Arc::clone(config), *alpn);
        let addresses = RwLock::new(self.addresses());
        Self(Arc::new(Known { addresses, config, alpn, home: Home::of(Some(host)) }))
    }

    /// Where they are, the one that is called next first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.addresses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Learns where they are now: those that it knew come first, in their order. None at all is no news.
    pub fn learn(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let news: Vec<SocketAddr> = addresses.into_iter().take(Self::MOST).collect();
        if news.is_empty() {
            return;
        }
        let mut known = self.0.addresses.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|address| news.contains(address));
        for address in news {
            if !known.contains(&address) {
                known.push(address);
            }
        }
    }

    /// Learns of more of them, at the end of those that it knows.
    pub(crate) fn learn_more(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let mut known = self.0.addresses.write().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            if !known.contains(&address) && known.len() < Self::MOST {
                known.push(address);
            }
        }
    }

    /// A connection to one that answers, as TLS.
    pub(in crate::control) async fn open(&self) -> Result<Stream, RemoteError> {
        let mut last = RemoteError::NoManager;
        for address in self.addresses() {
            let opened = timeout(EACH, self.open_to(address)).await;
            match opened.unwrap_or(Err(RemoteError::Late { after: EACH })) {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    self.put_last(address);
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Has another called next.
    pub(in crate::control) fn put_last(&self, address: SocketAddr) {
        let mut known = self.0.addresses.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.iter().position(|it| *it == address) {
            let address = known.remove(at);
            known.push(address);
        }
    }

    async fn open_to(&self, address: SocketAddr) -> Result<Stream, RemoteError> {
        let unreachable = |source| RemoteError::ConnectTo { address, source: Arc::new(source) };
        let stream = self.connect(address).await.map_err(unreachable)?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = TlsConnector::from(Arc::clone(&self.0.config)).connect(name, stream).await;
        let tls = tls.map_err(|error| match failed(&error).unwrap_or_else(|| unreachable(error)) {
            // Whoever is there has not proved yet that it is a manager: anybody on the way can say so.
            RemoteError::Unwelcome(why @ (Unwelcome::Removed | Unwelcome::Expired)) => {
                RemoteError::Unwelcome(Unwelcome::Other(format!("{why}, says who has not proved to be a manager")))
            }
            other => other,
        })?;
        match tls.get_ref().1.alpn_protocol() {
            Some(spoken) if spoken == self.0.alpn => Ok(of_tls(tls)),
            _ => Err(RemoteError::Unwelcome(Unwelcome::Protocol)),
        }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.0.home.stream(address)?;
        let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// What TLS says of an error that is its own.
pub(in crate::control) fn failed(error: &io::Error) -> Option<RemoteError> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<VerifyError>() {
                Some(error) => RemoteError::Untrusted(error.clone()),
                None => return None,
            }
        }
        rustls::Error::AlertReceived(alert) => RemoteError::Unwelcome(unwelcome(*alert)),
        rustls::Error::NoApplicationProtocol => RemoteError::Unwelcome(Unwelcome::Protocol),
        rustls::Error::PeerIncompatible(_) => RemoteError::Unwelcome(Unwelcome::Version),
        other => RemoteError::Garbled { flaw: other.to_string() },
    })
}

fn unwelcome(alert: AlertDescription) -> Unwelcome {
    match alert {
        AlertDescription::CertificateRequired => Unwelcome::NoCertificate,
        AlertDescription::UnknownCA => Unwelcome::Foreign,
        AlertDescription::CertificateExpired => Unwelcome::Expired,
        AlertDescription::CertificateRevoked => Unwelcome::Removed,
        AlertDescription::NoApplicationProtocol => Unwelcome::Protocol,
        AlertDescription::ProtocolVersion => Unwelcome::Version,
        other => Unwelcome::Other(format!("{other:?}")),
    }
}

impl fmt::Debug for Managers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Managers").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

/// How long one may take to answer, before the next is called.
const EACH: Duration = Duration::from_millis(1500);
