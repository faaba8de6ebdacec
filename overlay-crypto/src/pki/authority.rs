//! Who issues certificates.

use std::fmt;
use std::time::Duration;

use overlay_core::{ClusterId, UnixTime};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::identity::AUTHORITY;
use super::{Certificate, Identity, KeyDigest, Serial, SigningKey, SigningRequest, Validity};

/// The root of a cluster's certificates, with its key: it issues those of nodes. P-256 is usual.
///
/// ```
/// use overlay_core::{ClusterId, NodeId, UnixTime};
/// use overlay_crypto::pki::{Algorithm, Authority, Grant, Identity, Life, Role, Serial, SigningKey, SigningRequest, Trust, Usage};
///
/// # let random = |bytes: &mut [u8]| bytes.fill(7);
/// let (now, cluster) = (UnixTime::from_millis(1_800_000_000_000), ClusterId::generate(random));
/// let root = Authority::create(cluster, SigningKey::generate(Algorithm::EcdsaP256)?, &Serial::generate(random), now)?;
///
/// let key = SigningKey::generate(Algorithm::EcdsaP256)?; // the node's, which never leaves it
/// let request = SigningRequest::create(&key)?;
/// let ann = Identity { node: NodeId::from_bytes([1; 16]), role: Role::Worker, cluster };
/// let grant = Grant { identity: ann, life: Life::default(), serial: Serial::generate(random) };
/// let certificate = root.issue(&request, &grant, now)?;
///
/// let trust = Trust::new([root.certificate().clone()])?;
/// assert_eq!(trust.verify(&[certificate], Usage::Client, now)?, ann);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Authority {
    certificate: Certificate,
    key: SigningKey,
}

/// What a node is given by a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who it is from then on.
    pub identity: Identity,
    /// For how long.
    pub life: Life,
    /// Under which number: another for each certificate.
    pub serial: Serial,
}

/// How long a node's certificate counts: an hour to 10 years. 90 days is usual, hours where removal is to take effect by itself soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(Duration);

/// A life out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a certificate cannot count for {0:?}: an hour to 10 years")]
pub struct LifeError(pub Duration);

/// Why nothing was issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The root's own certificate does not count at that time.
    #[error("the root's certificate counts from {}, not at {now}: rotate the root", .validity)]
    Root {
        /// When it does.
        validity: Validity,
        /// The time.
        now: UnixTime,
    },
    /// For a node of another cluster.
    #[error("the root is of cluster {root}, the node of {asked}")]
    Cluster {
        /// The root's.
        root: ClusterId,
        /// The node's.
        asked: ClusterId,
    },
    /// The certificate and the key are not of each other.
    #[error("the certificate is for key {certificate}, this is key {key}")]
    OtherKey {
        /// The certificate's.
        certificate: KeyDigest,
        /// The key's.
        key: KeyDigest,
    },
    /// A certificate that is no root of ours.
    #[error("the certificate is no root: self-signed, for who signs others, with a cluster's id as its organisation")]
    NoRoot,
    /// The root that signs is the one that is to be signed.
    #[error("both roots have one key")]
    SameKey,
    /// The system gave no chance to sign with.
    #[error("it could not be signed")]
    Unsigned,
}

/// How far back a certificate counts: clocks differ.
const BACKDATED: Duration = Duration::from_secs(3600);
/// How long a root counts: 20 years.
const ROOT_LIFE: Duration = Duration::from_secs(630_720_000);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Life {
    /// A life of that length.
    ///
    /// # Errors
    /// If it is out of range.
    pub const fn new(life: Duration) -> Result<Self, LifeError> {
        let seconds = life.as_secs();
        if seconds < HOUR.as_secs() || seconds > 3650 * DAY.as_secs() { Err(LifeError(life)) } else { Ok(Self(life)) }
    }

    /// How long it is.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Default for Life {
    /// 90 days.
    fn default() -> Self {
        Self(90 * DAY)
    }
}

impl Authority {
    /// A new root of a cluster, for 20 years.
    ///
    /// # Errors
    /// If the system gives no chance to sign with.
    pub fn create(cluster: ClusterId, key: SigningKey, serial: &Serial, now: UnixTime) -> Result<Self, IssueError> {
        let params = root_params(cluster, serial, validity(now, ROOT_LIFE));
        let made = params.self_signed(&key.pair).map_err(|_| IssueError::Unsigned)?;
        let certificate = Certificate::from_der(made.der().to_vec()).map_err(|_| IssueError::Unsigned)?;
        Ok(Self { certificate, key })
    }

    /// The root of this certificate, whose key this is: one that was kept.
    ///
    /// # Errors
    /// If they are not of each other, or the certificate is no root of a cluster.
    pub fn open(certificate: Certificate, key: SigningKey) -> Result<Self, IssueError> {
        if certificate.key() != key.digest() {
            return Err(IssueError::OtherKey { certificate: certificate.key(), key: key.digest() });
        }
        let is_root = certificate.is_authority() && certificate.is_self_signed() && certificate.cluster().is_some();
        if is_root { Ok(Self { certificate, key }) } else { Err(IssueError::NoRoot) }
    }

    /// Its certificate, which all nodes of the cluster trust.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Issues what is granted: of the request, only the key goes into it. It counts from an hour ago for its life from now, and no longer than the root's. It is for
    /// digital signatures and key agreement, as server and as client.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn issue(&self, request: &SigningRequest, grant: &Grant, now: UnixTime) -> Result<Certificate, IssueError> {
        let Grant { identity, life, serial } = grant;
        let (root, asked) = (self.certificate.cluster().ok_or(IssueError::NoRoot)?, identity.cluster);
        if root != asked {
            return Err(IssueError::Cluster { root, asked });
        }
        self.certify(request, identity, serial, span(self.certificate.validity(), *life, now)?)
    }

    /// Signs what was granted before.
    pub(super) fn certify(
        &self,
        request: &SigningRequest,
        identity: &Identity,
        serial: &Serial,
        validity: Validity,
    ) -> Result<Certificate, IssueError> {
        self.sign(&request.public, &node_params(identity, serial, validity))
    }

    /// A certificate of another root's key, signed by this one: who trusts this root believes what the other has issued, if it is shown this with it. It
    /// counts as long as this root's.
    ///
    /// # Errors
    /// If both have one key, or are of two clusters, or this one does not count any more.
    pub fn cross_sign(&self, other: &Self, serial: &Serial, now: UnixTime) -> Result<Certificate, IssueError> {
        self.cross_sign_certificate(&other.certificate, serial, now)
    }

    /// As [`cross_sign`](Self::cross_sign), of a root whose key is not here.
    ///
    /// # Errors
    /// As there.
    pub fn cross_sign_certificate(
        &self,
        other: &Certificate,
        serial: &Serial,
        now: UnixTime,
    ) -> Result<Certificate, IssueError> {
        let (root, asked) = (self.certificate.cluster().ok_or(IssueError::NoRoot)?, other.cluster());
        let asked = asked.filter(|_| other.is_authority()).ok_or(IssueError::NoRoot)?;
        if root != asked {
            return Err(IssueError::Cluster { root, asked });
        }
        if self.key.digest() == other.key() {
            return Err(IssueError::SameKey);
        }
        let public = other.public_key().ok_or(IssueError::NoRoot)?;
        let validity = within(self.certificate.validity(), validity(now, ROOT_LIFE), now)?;
        self.sign(&public, &root_params(root, serial, validity))
    }

    fn sign(&self, public: &impl PublicKeyData, params: &CertificateParams) -> Result<Certificate, IssueError> {
        let own = root_params(
            self.certificate.cluster().ok_or(IssueError::NoRoot)?,
            &Serial::ZERO,
            self.certificate.validity(),
        );
        let issuer = Issuer::from_params(&own, &self.key.pair);
        let signed = params.signed_by(public, &issuer).map_err(|_| IssueError::Unsigned)?;
        Certificate::from_der(signed.der().to_vec()).map_err(|_| IssueError::Unsigned)
    }
}

/// When a certificate counts that is issued now: for its life, and no longer than the root's; whole seconds.
pub(super) fn span(root: Validity, life: Life, now: UnixTime) -> Result<Validity, IssueError> {
    let now = UnixTime::from_millis(now.as_secs().saturating_mul(1000));
    let Validity { from, until } = within(root, validity(now, life.0), now)?;
    Ok(Validity { from, until: UnixTime::from_millis(until.as_secs().saturating_mul(1000)) })
}

/// No certificate outlives the root's.
fn within(root: Validity, wanted: Validity, now: UnixTime) -> Result<Validity, IssueError> {
    if !root.contains(now) {
        return Err(IssueError::Root { validity: root, now });
    }
    Ok(Validity { from: wanted.from.max(root.from), until: wanted.until.min(root.until) })
}

fn validity(now: UnixTime, life: Duration) -> Validity {
    let from = UnixTime::from_millis(now.as_millis().saturating_sub(BACKDATED.as_millis() as u64));
    Validity { from, until: now + life }
}

fn params(serial: &Serial, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    (params.not_before, params.not_after) = (date(validity.from), date(validity.until));
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params
}

fn root_params(cluster: ClusterId, serial: &Serial, validity: Validity) -> CertificateParams {
    let mut params = params(serial, validity);
    params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(3)); // cross-signed roots are between it and a node's: as many as are shown
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn node_params(identity: &Identity, serial: &Serial, validity: Validity) -> CertificateParams {
    let mut params = params(serial, validity);
    params.distinguished_name.push(DnType::OrganizationName, identity.cluster.to_string());
    params.distinguished_name.push(DnType::OrganizationalUnitName, identity.role.unit());
    params.distinguished_name.push(DnType::CommonName, identity.node.to_string());
    let names = identity.names().into_iter().filter_map(|name| Some(SanType::DnsName(name.try_into().ok()?)));
    params.subject_alt_names = names.collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// Whole seconds; what is beyond the year 9999 is that.
fn date(time: UnixTime) -> OffsetDateTime {
    const LAST: i64 = 253_402_300_799; // RFC 5280 §4.1.2.5: 99991231235959Z
    let seconds = i64::try_from(time.as_secs()).unwrap_or(LAST).min(LAST);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}
