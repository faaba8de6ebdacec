//! Where the managers are, for who calls them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use overlay_crypto::pki::{JoinToken, Usage, VerifyError};
use overlay_kernel::Namespace;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::verifier::{self, Pinned};
use super::{CONTROL, Credentials, CredentialsError, JOIN, Peer};
use crate::chance::random;
use crate::control::error::{RemoteError, Unwelcome};
use crate::control::transport::{Stream, of_tls};
use crate::home::Home;

/// The managers of a cluster, as a node calls them: any serves, so the one that answered last is called first, and then the others in turn. A clone is the same.
///
/// Each proves in the handshake that it is a manager of the node's cluster, by a root that the node believes.
#[derive(Clone)]
pub struct Managers(Arc<Known>);

struct Known {
    addresses: RwLock<Vec<Address>>,
    config: Arc<ClientConfig>,
    alpn: &'static [u8],
    home: Home,
    /// Whom their certificates are believed by while a connection stands; none for who has a token alone.
    credentials: Option<Credentials>,
}

#[derive(Debug, Clone, Copy)]
struct Address {
    at: SocketAddr,
    /// Whether only gossip says that a manager is there, and none has proved it yet.
    is_rumoured: bool,
}

impl Address {
    const fn told(at: SocketAddr) -> Self {
        Self { at, is_rumoured: false }
    }
}

impl Managers {
    /// How many are kept in mind.
    pub const MOST: usize = 64;
    /// And how many of them that gossip alone tells of: whoever claims there to be many managers keeps out nobody else.
    pub const RUMOURED: usize = 16;

    /// Managers at these addresses, called with these credentials.
    ///
    /// # Errors
    /// If TLS has no use for them.
    pub fn new(
        addresses: impl IntoIterator<Item = SocketAddr>,
        credentials: &Credentials,
    ) -> Result<Self, CredentialsError> {
        let config = verifier::client_config(credentials).map_err(|error| CredentialsError::Key(error.to_string()))?;
        Ok(Self::of(addresses, config, CONTROL, Some(credentials.clone())))
    }

    /// The same managers, called without a certificate: they prove themselves as they do to who has one.
    pub(in crate::control) fn without_certificate(&self, credentials: &Credentials) -> Result<Self, CredentialsError> {
        let config = verifier::bare_config(credentials).map_err(|error| CredentialsError::Key(error.to_string()))?;
        let (addresses, home) = (RwLock::new(self.known().clone()), self.0.home.clone());
        Ok(Self(Arc::new(Known { addresses, config, alpn: JOIN, home, credentials: Some(credentials.clone()) })))
    }

    /// Those that are called by who has a token alone.
    pub(in crate::control) fn by_token(
        addresses: impl IntoIterator<Item = SocketAddr>,
        token: JoinToken,
    ) -> Result<(Self, Arc<Pinned>), CredentialsError> {
        let config = verifier::join_config(token, crate::driver::now());
        let (config, pinned) = config.map_err(|error| CredentialsError::Key(error.to_string()))?;
        Ok((Self::of(addresses, config, JOIN, None), pinned))
    }

    fn of(
        addresses: impl IntoIterator<Item = SocketAddr>,
        config: Arc<ClientConfig>,
        alpn: &'static [u8],
        credentials: Option<Credentials>,
    ) -> Self {
        let addresses = RwLock::new(addresses.into_iter().take(Self::MOST).map(Address::told).collect());
        Self(Arc::new(Known { addresses, config, alpn, home: Home::default(), credentials }))
    }

    /// Calls them from this namespace, not from the process's own.
    #[must_use]
    pub fn from_host(self, host: Arc<Namespace>) -> Self {
        let Known { config, alpn, credentials, .. } = &*self.0;
        let (config, alpn, credentials) = (Arc::clone(config), *alpn, credentials.clone());
        let addresses = RwLock::new(self.known().clone());
        Self(Arc::new(Known { addresses, config, alpn, home: Home::of(Some(host)), credentials }))
    }

    /// Where they are, the one that is called next first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.known().iter().map(|it| it.at).collect()
    }

    fn known(&self) -> RwLockReadGuard<'_, Vec<Address>> {
        self.0.addresses.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Vec<Address>> {
        self.0.addresses.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns where they are now: those that it knew come first, in their order. None at all is no news.
    pub fn learn(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let news: Vec<SocketAddr> = addresses.into_iter().take(Self::MOST).collect();
        if news.is_empty() {
            return;
        }
        let mut known = self.known_mut();
        known.retain(|it| news.contains(&it.at));
        add(&mut known, news);
    }

    /// Learns of more of them, from one that has proved to be a manager, at the end of those that it knows.
    pub(crate) fn learn_more(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        add(&mut self.known_mut(), addresses);
    }

    /// Learns where gossip says that managers are now: some of them by chance, where there are too many. What it said before is forgotten, but for those that have proved it meanwhile.
    pub(crate) fn hear_of(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let mut known = self.known_mut();
        let mut said: Vec<SocketAddr> = addresses.into_iter().collect();
        let is_told = |known: &[Address], at| known.iter().any(|it| it.at == at && !it.is_rumoured);
        said.retain(|at| !is_told(&known, *at));
        while said.len() > Self::RUMOURED {
            let mut chance = [0; 8];
            random(&mut chance);
            let at = u64::from_be_bytes(chance) % said.len() as u64;
            said.swap_remove(at as usize);
        }
        known.retain(|it| !it.is_rumoured || said.contains(&it.at));
        for at in said {
            if !known.iter().any(|it| it.at == at) && known.len() < Self::MOST {
                known.push(Address { at, is_rumoured: true });
            }
        }
    }

    /// A connection to one that answers, as TLS, and who that is, where it matters longer than the handshake.
    pub(in crate::control) async fn open(&self) -> Result<(Stream, Option<Peer>), RemoteError> {
        let mut last = RemoteError::NoManager;
        for address in self.addresses() {
            let opened = timeout(EACH, self.open_to(address)).await;
            match opened.unwrap_or(Err(RemoteError::Late { after: EACH })) {
                Ok(opened) => {
                    let mut known = self.known_mut();
                    known.iter_mut().filter(|it| it.at == address).for_each(|it| it.is_rumoured = false);
                    return Ok(opened);
                }
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
        let mut known = self.known_mut();
        if let Some(at) = known.iter().position(|it| it.at == address) {
            let address = known.remove(at);
            known.push(address);
        }
    }

    async fn open_to(&self, address: SocketAddr) -> Result<(Stream, Option<Peer>), RemoteError> {
        let changes = self.0.credentials.as_ref().map(Credentials::changes);
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
            Some(spoken) if spoken == self.0.alpn => {
                let believed_by = self.0.credentials.clone().zip(changes);
                let peer = believed_by.map(|(own, changes)| {
                    let shown = own.read(tls.get_ref().1.peer_certificates().unwrap_or_default())?;
                    Ok(Peer::new(own, shown, Usage::Server, changes))
                });
                let peer = peer.transpose().map_err(RemoteError::Untrusted)?.flatten();
                Ok((of_tls(tls), peer))
            }
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

/// Those that are not known yet, in place of what is only rumoured where there is no room.
fn add(known: &mut Vec<Address>, news: impl IntoIterator<Item = SocketAddr>) {
    for at in news {
        match known.iter_mut().find(|it| it.at == at) {
            Some(it) => it.is_rumoured = false,
            None => {
                if known.len() >= Managers::MOST
                    && let Some(rumour) = known.iter().position(|it| it.is_rumoured)
                {
                    known.remove(rumour);
                }
                if known.len() < Managers::MOST {
                    known.push(Address::told(at));
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use overlay_crypto::pki::KeyDigest;

    use super::*;

    fn at(number: u16) -> SocketAddr {
        SocketAddr::new([192, 0, 2, 1].into(), number)
    }

    fn of(addresses: impl IntoIterator<Item = u16>) -> Managers {
        let token = JoinToken::generate(KeyDigest::from_bytes([7; 32]), |bytes| bytes.fill(1));
        Managers::by_token(addresses.into_iter().map(at), token).unwrap().0
    }

    #[test]
    fn many_who_say_in_gossip_that_they_are_managers_keep_out_none_that_is_one() {
        let managers = of([1, 2]);
        managers.hear_of((1000..9000).map(at));
        assert_eq!(managers.addresses().len(), 2 + Managers::RUMOURED);
        assert_eq!(managers.addresses()[..2], [at(1), at(2)], "who was told of is called first");
        managers.learn_more((100..180).map(at));
        let all = managers.addresses();
        assert_eq!(all.len(), Managers::MOST);
        assert!(all.iter().all(|it| it.port() < 1000), "what managers tell takes the place of rumours: {all:?}");
        // What gossip does not say any more is forgotten; what it says is not heard of twice.
        let managers = of([1]);
        managers.hear_of([at(1), at(5), at(6)]);
        managers.hear_of([at(1), at(6), at(7)]);
        assert_eq!(managers.addresses(), [at(1), at(6), at(7)]);
        managers.learn_more([at(6)]);
        managers.hear_of([]);
        assert_eq!(managers.addresses(), [at(1), at(6)], "a manager has told of it meanwhile");
    }

    #[test]
    fn whoever_is_told_of_by_gossip_alone_comes_to_be_called_though_there_are_many() {
        let managers = of([1]);
        let mut heard = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            managers.hear_of((1000..1100).map(at));
            heard.extend(managers.addresses());
        }
        assert_eq!(heard.len(), 101, "chance gives each a turn");
    }
}
