//! Whom a node believes.

use std::time::Duration;

use overlay_core::{ClusterId, UnixTime};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring};

use super::{Certificate, Identity, Role, Validity};

/// The roots that a node believes: one, or two while the root is changed.
///
/// See [`Authority`](super::Authority) for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    roots: Vec<Certificate>,
    cluster: ClusterId,
}

/// Certificates that are no roots of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// There is none, or more than there may be.
    #[error("{have} roots, 1 to {most} is right", most = Trust::MOST)]
    Count {
        /// How many there are.
        have: usize,
    },
    /// One is no root of a cluster.
    #[error(
        "certificate {serial} is no root: self-signed, for who signs others, with a cluster's id as its organisation"
    )]
    NoRoot {
        /// Which.
        serial: super::Serial,
    },
    /// They are of several clusters.
    #[error("roots of cluster {one} and of cluster {other}")]
    Clusters {
        /// One.
        one: ClusterId,
        /// Another.
        other: ClusterId,
    },
}

/// What the other end does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// It was called.
    Server,
    /// It calls.
    Client,
}

/// Why a certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// None was shown.
    #[error("no certificate was shown")]
    Missing,
    /// More were shown than a chain has.
    #[error("{have} certificates, a chain has {most} at most", most = Trust::CHAIN)]
    TooMany {
        /// How many.
        have: usize,
    },
    /// No root of the cluster counts at that time.
    #[error("no root of cluster {cluster} counts at {now}: rotate the root, or set the clock right")]
    Root {
        /// The cluster.
        cluster: ClusterId,
        /// The time.
        now: UnixTime,
    },
    /// Signed by itself.
    #[error("it is signed with its own key, not by the cluster's root")]
    SelfSigned,
    /// Not signed by a root of this cluster, nor by what one has signed.
    #[error("no root of cluster {cluster} has signed it")]
    Foreign {
        /// The cluster.
        cluster: ClusterId,
    },
    /// Not yet.
    #[error("it counts from {from}, and it is {now}: are the clocks right?")]
    NotYet {
        /// From when.
        from: UnixTime,
        /// The time.
        now: UnixTime,
    },
    /// Not any more.
    #[error("it counted until {until}, and it is {now}: have it renewed")]
    Expired {
        /// Until when.
        until: UnixTime,
        /// The time.
        now: UnixTime,
    },
    /// A root's own, or one whose holder may sign others.
    #[error("it is a root's, not a node's")]
    Authority,
    /// Not for this.
    #[error("it is not for a {}", match .0 { Usage::Server => "server", Usage::Client => "client" })]
    Usage(Usage),
    /// Its subject names no node.
    #[error("its subject names no node, role and cluster")]
    Nobody,
    /// Of another cluster, though the root has signed it.
    #[error("it is of cluster {found}, not of {cluster}")]
    Cluster {
        /// Its.
        found: ClusterId,
        /// Ours.
        cluster: ClusterId,
    },
    /// Of another role.
    #[error("it is a {found}'s, and only a {wanted} may do that")]
    Role {
        /// Its.
        found: Role,
        /// The one that may.
        wanted: Role,
    },
    /// The node was removed from the cluster.
    #[error("node {} was removed from the cluster", .0.node)]
    Removed(Identity),
    /// The node was a manager, and is none any more, whatever its certificate says.
    #[error("node {} was demoted, and is no manager any more", .0.node)]
    Demoted(Identity),
    /// Not of the form, or signed in a way that nobody here understands.
    #[error("it cannot be understood: {0}")]
    Malformed(String),
}

pub(super) const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[ring::ECDSA_P256_SHA256, ring::ED25519];

impl Trust {
    /// Roots at most.
    pub const MOST: usize = 4;
    /// Certificates in a chain at most: a node's, cross-signed roots, a root.
    pub const CHAIN: usize = 6;

    /// Believes these roots, all of one cluster.
    ///
    /// # Errors
    /// If there is none, one is no root, or they are of several clusters.
    pub fn new(roots: impl IntoIterator<Item = Certificate>) -> Result<Self, TrustError> {
        let roots: Vec<Certificate> = roots.into_iter().collect();
        if roots.len() > Self::MOST {
            return Err(TrustError::Count { have: roots.len() });
        }
        let mut clusters = Vec::new();
        for root in &roots {
            let cluster = root.cluster().filter(|_| root.is_authority() && root.is_self_signed());
            clusters.push(cluster.ok_or_else(|| TrustError::NoRoot { serial: root.serial().clone() })?);
        }
        let Some(cluster) = clusters.first().copied() else { return Err(TrustError::Count { have: 0 }) };
        match clusters.into_iter().find(|other| *other != cluster) {
            Some(other) => Err(TrustError::Clusters { one: cluster, other }),
            None => Ok(Self { roots, cluster }),
        }
    }

    /// Them.
    pub fn roots(&self) -> &[Certificate] {
        &self.roots
    }

    /// Whose they are.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Who shows this chain, the node's own certificate first. That it has the key to it, the handshake proves.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, chain: &[Certificate], usage: Usage, now: UnixTime) -> Result<Identity, VerifyError> {
        let Some((own, others)) = chain.split_first() else { return Err(VerifyError::Missing) };
        if chain.len() > Self::CHAIN {
            return Err(VerifyError::TooMany { have: chain.len() });
        }
        if own.is_authority() {
            return Err(VerifyError::Authority);
        }
        let living = self.roots.iter().filter(|root| root.validity().contains(now));
        let ders: Vec<CertificateDer<'_>> = living.map(|root| CertificateDer::from(root.as_der())).collect();
        if ders.is_empty() {
            return Err(VerifyError::Root { cluster: self.cluster, now });
        }
        let anchors: Vec<_> = ders.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
        let between: Vec<_> = others.iter().map(|other| CertificateDer::from(other.as_der())).collect();
        let der = CertificateDer::from(own.as_der());
        let entity = EndEntityCert::try_from(&der).map_err(|error| VerifyError::Malformed(error.to_string()))?;
        let at = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()));
        let key_usage = match usage {
            Usage::Server => KeyUsage::server_auth(),
            Usage::Client => KeyUsage::client_auth(),
        };
        let verified = entity.verify_for_usage(ALGORITHMS, &anchors, &between, at, key_usage, None, None);
        verified.map_err(|error| self.refusal(own, usage, now, &error))?;
        let identity = own.identity().ok_or(VerifyError::Nobody)?;
        if identity.cluster != self.cluster {
            return Err(VerifyError::Cluster { found: identity.cluster, cluster: self.cluster });
        }
        Ok(identity)
    }

    /// As [`verify`](Self::verify), and of that role.
    ///
    /// # Errors
    /// Why it is not believed, or that it is another's.
    pub fn verify_as(
        &self,
        wanted: Role,
        chain: &[Certificate],
        usage: Usage,
        now: UnixTime,
    ) -> Result<Identity, VerifyError> {
        let identity = self.verify(chain, usage, now)?;
        if identity.role == wanted { Ok(identity) } else { Err(VerifyError::Role { found: identity.role, wanted }) }
    }

    fn refusal(&self, own: &Certificate, usage: Usage, now: UnixTime, error: &webpki::Error) -> VerifyError {
        let Validity { from, until } = own.validity();
        match error {
            webpki::Error::CertExpired { .. } if until < now => VerifyError::Expired { until, now },
            webpki::Error::CertNotValidYet { .. } if now < from => VerifyError::NotYet { from, now },
            webpki::Error::RequiredEkuNotFoundContext(_) => VerifyError::Usage(usage),
            webpki::Error::CaUsedAsEndEntity => VerifyError::Authority,
            _ if own.is_self_signed() => VerifyError::SelfSigned,
            // Roots have one name, so that of another's certificate may be of another algorithm.
            webpki::Error::UnknownIssuer
            | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | webpki::Error::InvalidSignatureForPublicKey
            | webpki::Error::CertExpired { .. }
            | webpki::Error::CertNotValidYet { .. } => VerifyError::Foreign { cluster: self.cluster },
            other => VerifyError::Malformed(other.to_string()),
        }
    }
}
