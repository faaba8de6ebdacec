//! Where the servers are, and how they are spoken to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use overlay_core::{KeyError, Prefix, StoreError};

/// Where the servers are, whose part of them this is, and how they are spoken to.
///
/// ```
/// use overlay_core::Prefix;
/// use overlay_store::{EtcdConfig, EtcdSecurity};
///
/// let ours = Prefix::new("overlay/prod/")?; // what another program keeps in the same etcd stays apart
/// let config = EtcdConfig::new(["127.0.0.1:2379"], ours, EtcdSecurity::PlaintextOnLoopback);
/// assert!(config.check().is_ok());
///
/// let config = EtcdConfig { endpoints: vec!["192.0.2.7:2379".to_owned()], ..config };
/// assert_eq!(config.check().unwrap_err().to_string(), "192.0.2.7:2379 is not an address of this host's loopback: use TLS");
/// # Ok::<(), overlay_core::KeyError>(())
/// ```
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// The servers, `HOST:PORT` each: calls go to those that answer.
    pub endpoints: Vec<String>,
    /// Under which prefix of etcd's keys the store's lie, at most 512 bytes: nothing outside it is read or written.
    pub prefix: Prefix,
    /// How calls are protected.
    pub security: EtcdSecurity,
    /// How long a request may take, and each page of a listing, 5 s if nothing else is said: etcd itself gives up after that, and elects a
    /// leader in 1 to 2 s.
    pub deadline: Duration,
}

/// How calls to etcd are protected.
#[derive(Clone)]
#[non_exhaustive]
pub enum EtcdSecurity {
    /// TLS, in which both sides show certificates.
    Tls {
        /// PEM: the authority that signed the servers' certificates. No other is trusted.
        authority: Vec<u8>,
        /// PEM: our certificate, and those between it and an authority that the servers trust.
        certificate: Vec<u8>,
        /// PEM: the private key of our certificate.
        key: Vec<u8>,
        /// The name in the servers' certificates, if it is not the host of the endpoint.
        server_name: Option<String>,
    },
    /// Nothing. Refused for endpoints that are not addresses like 127.0.0.1 or `[::1]`, names included.
    PlaintextOnLoopback,
}

/// Why a store on etcd cannot be had. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// There has to be a server.
    #[error("there are no endpoints")]
    NoEndpoints,
    /// Without TLS whoever is on the way reads and changes everything.
    #[error("{endpoint} is not an address of this host's loopback: use TLS")]
    PlaintextOffHost {
        /// The endpoint.
        endpoint: String,
    },
    /// An endpoint is `HOST:PORT`, without a scheme: what the security is decides that.
    #[error("{endpoint:?} is not HOST:PORT")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// The prefix is longer than 512 bytes.
    #[error("the prefix is too long")]
    Prefix(#[source] KeyError),
    /// The deadline is zero.
    #[error("a deadline of zero leaves no time for any call")]
    Deadline,
    /// It has to be opened inside a tokio runtime, which does its I/O.
    #[error("there is no tokio runtime here")]
    NoRuntime,
    /// Certificates or key could not be used.
    #[error("the certificates or the key cannot be used")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No server answered as it should.
    #[error("etcd could not be reached")]
    Unreachable(#[source] StoreError),
}

/// The longest prefix, in bytes.
const LONGEST: usize = 512;

impl EtcdConfig {
    /// These servers, a deadline of 5 s.
    pub fn new<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        prefix: Prefix,
        security: EtcdSecurity,
    ) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self { endpoints, prefix, security, deadline: Duration::from_secs(5) }
    }

    /// Whether it makes sense: [`EtcdStore::open`](crate::EtcdStore::open) asks before it connects.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), EtcdError> {
        if self.endpoints.is_empty() {
            return Err(EtcdError::NoEndpoints);
        }
        if self.deadline.is_zero() {
            return Err(EtcdError::Deadline);
        }
        let len = self.prefix.as_bytes().len();
        if len > LONGEST {
            return Err(EtcdError::Prefix(KeyError::TooLong { len }));
        }
        self.endpoints.iter().try_for_each(|endpoint| self.check_endpoint(endpoint))
    }

    fn check_endpoint(&self, endpoint: &str) -> Result<(), EtcdError> {
        let parts = endpoint.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/'));
        if parts.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(EtcdError::Endpoint { endpoint: endpoint.to_owned() });
        }
        let is_loopback =
            endpoint.parse::<SocketAddr>().map(|address| address.ip()).is_ok_and(|ip: IpAddr| ip.is_loopback());
        match self.security {
            EtcdSecurity::PlaintextOnLoopback if !is_loopback => {
                Err(EtcdError::PlaintextOffHost { endpoint: endpoint.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// With the scheme, so that nothing is guessed.
    pub(super) fn urls(&self) -> Vec<String> {
        let scheme = match self.security {
            EtcdSecurity::Tls { .. } => "https",
            EtcdSecurity::PlaintextOnLoopback => "http",
        };
        self.endpoints.iter().map(|endpoint| format!("{scheme}://{endpoint}")).collect()
    }

    /// A dead connection is noticed after 15 s, and left: etcd allows a ping every 5 s.
    pub(super) fn options(&self) -> ConnectOptions {
        let options = ConnectOptions::new()
            .with_connect_timeout(self.deadline)
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        match &self.security {
            EtcdSecurity::PlaintextOnLoopback => options,
            EtcdSecurity::Tls { authority, certificate, key, server_name } => {
                let tls = TlsOptions::new()
                    .ca_certificate(Certificate::from_pem(authority))
                    .identity(Identity::from_pem(certificate, key));
                options.with_tls(match server_name {
                    Some(name) => tls.domain_name(name),
                    None => tls,
                })
            }
        }
    }
}

impl fmt::Debug for EtcdSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { server_name, .. } => f
                .debug_struct("Tls")
                .field("key", &format_args!("Key(..)"))
                .field("server_name", server_name)
                .finish_non_exhaustive(),
            Self::PlaintextOnLoopback => f.write_str("PlaintextOnLoopback"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoint: &str) -> EtcdConfig {
        EtcdConfig::new([endpoint], Prefix::ALL, EtcdSecurity::PlaintextOnLoopback)
    }

    #[test]
    fn plaintext_is_for_loopback_addresses_only() {
        for fine in ["127.0.0.1:2379", "127.8.8.8:1", "[::1]:2379"] {
            assert!(config(fine).check().is_ok(), "{fine}");
        }
        for off in
            ["localhost:2379", "10.0.0.1:2379", "[2001:db8::1]:2379", "0.0.0.0:2379", "127.0.0.1.example.org:2379"]
        {
            let refused = config(off).check().unwrap_err();
            assert!(matches!(refused, EtcdError::PlaintextOffHost { .. }), "{off}: {refused:?}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_whatever_the_security() {
        let security =
            EtcdSecurity::Tls { authority: vec![], certificate: vec![], key: b"secret".to_vec(), server_name: None };
        for wrong in ["", ":2379", "host", "host:99999", "http://127.0.0.1:2379", "host:", "127.0.0.1:2379/"] {
            let config = EtcdConfig { security: security.clone(), ..config(wrong) };
            assert!(matches!(config.check(), Err(EtcdError::Endpoint { .. })), "{wrong}");
        }
        let shown = format!("{:?}", EtcdConfig { security, ..config("host:1") });
        assert!(shown.contains("Key(..)") && !shown.contains("secret") && !shown.contains("115"), "{shown}");
    }
}
