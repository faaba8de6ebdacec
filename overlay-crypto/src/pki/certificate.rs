//! Certificates, as bytes and as what they say.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use overlay_core::{ClusterId, NodeId, UnixTime};
use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use webpki::EndEntityCert;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, GeneralName, X509Certificate, X509Name};

use super::trust::ALGORITHMS;
use super::{Identity, KeyDigest, Role};

/// An X.509 certificate (RFC 5280) in DER. Its form was read; whether to believe it says [`Trust`](super::Trust).
#[derive(Clone)]
pub struct Certificate(Arc<Read>);

struct Read {
    der: Vec<u8>,
    serial: Serial,
    validity: Validity,
    key: KeyDigest,
    identity: Option<Identity>,
    cluster: Option<ClusterId>,
    is_authority: bool,
    /// Looked at when it is asked for first: a signature costs more than all else that is read, and handshakes do not ask.
    is_of_itself: OnceLock<bool>,
}

/// The number of a certificate: 16 bytes of chance, the first bit 0 (RFC 5280 §4.1.2.2). Two are the same by chance once in 2¹²⁷.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Serial(Vec<u8>);

/// From when until when a certificate counts, both included; whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Validity {
    /// The first moment.
    pub from: UnixTime,
    /// The last.
    pub until: UnixTime,
}

/// Bytes that are no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not of the form.
    #[error("not an X.509 certificate in DER (RFC 5280): {0}")]
    Malformed(String),
    /// Longer than any of ours.
    #[error("a certificate of {have} bytes, {most} are the most", most = Certificate::MOST)]
    TooLong {
        /// Bytes there.
        have: usize,
    },
    /// A time before 1970.
    #[error("its time is before 1970")]
    Time,
}

const TAG: &str = "CERTIFICATE";

impl Certificate {
    /// Bytes of a certificate at most.
    pub const MOST: usize = 16 * 1024;

    /// Reads a certificate.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_der(der: impl Into<Vec<u8>>) -> Result<Self, CertificateError> {
        let der = der.into();
        if der.len() > Self::MOST {
            return Err(CertificateError::TooLong { have: der.len() });
        }
        let malformed = |error: String| CertificateError::Malformed(error);
        let (rest, parsed) = X509Certificate::from_der(&der).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes follow its end", rest.len())));
        }
        let time = |seconds: i64| {
            let seconds = u64::try_from(seconds).map_err(|_| CertificateError::Time)?;
            Ok(UnixTime::from_millis(seconds.saturating_mul(1000)))
        };
        let (from, until) = (parsed.validity.not_before.timestamp(), parsed.validity.not_after.timestamp());
        let read = Read {
            serial: Serial(parsed.raw_serial().to_vec()),
            validity: Validity { from: time(from)?, until: time(until)? },
            key: KeyDigest::of(parsed.public_key().raw),
            identity: identity(parsed.subject()),
            cluster: cluster(parsed.subject()),
            is_authority: parsed.is_ca(),
            is_of_itself: OnceLock::new(),
            der: Vec::new(),
        };
        Ok(Self(Arc::new(Read { der, ..read })))
    }

    /// Reads the first certificate of a text (RFC 7468 §5).
    ///
    /// # Errors
    /// If there is none.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        let malformed = |error: String| CertificateError::Malformed(error);
        let read = pem::parse(text).map_err(|error| malformed(error.to_string()))?;
        if read.tag() != TAG {
            return Err(malformed(format!("a {} is no certificate", read.tag())));
        }
        Self::from_der(read.into_contents())
    }

    /// As a text, as other programs read it (RFC 7468 §5).
    pub fn to_pem(&self) -> String {
        let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        pem::encode_config(&pem::Pem::new(TAG, self.0.der.clone()), lines)
    }

    /// Its bytes.
    pub fn as_der(&self) -> &[u8] {
        &self.0.der
    }

    /// Its number.
    pub fn serial(&self) -> &Serial {
        &self.0.serial
    }

    /// When it counts.
    pub fn validity(&self) -> Validity {
        self.0.validity
    }

    /// The digest of the key that it is for.
    pub fn key(&self) -> KeyDigest {
        self.0.key
    }

    /// Whom it is for, if its subject names a node as ours do: what it says, not what is true.
    pub fn identity(&self) -> Option<Identity> {
        self.0.identity
    }

    /// The cluster that its subject names: a root's, or a node's.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.0.cluster
    }

    /// Whether it is for who signs others.
    pub fn is_authority(&self) -> bool {
        self.0.is_authority
    }

    /// The key that it is for, if it is of an algorithm that we know.
    pub(super) fn public_key(&self) -> Option<SubjectPublicKeyInfo> {
        let (_, parsed) = X509Certificate::from_der(self.as_der()).ok()?;
        SubjectPublicKeyInfo::from_der(parsed.public_key().raw).ok()
    }

    /// The names that it is for, if they are all DNS names.
    pub(super) fn names(&self) -> Vec<String> {
        let Ok((_, parsed)) = X509Certificate::from_der(self.as_der()) else { return Vec::new() };
        let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
        let dns = names.value.general_names.iter().map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        dns.collect::<Option<_>>().unwrap_or_default()
    }

    /// Whether `signature` is of `message` by the key that it is for.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let der = CertificateDer::from(self.as_der());
        let Ok(entity) = EndEntityCert::try_from(&der) else { return false };
        ALGORITHMS.iter().any(|algorithm| entity.verify_signature(*algorithm, message, signature).is_ok())
    }

    /// Whether it is signed with the key that it is for. The first call verifies a signature, further ones are free.
    pub fn is_self_signed(&self) -> bool {
        *self.0.is_of_itself.get_or_init(|| {
            let Ok((_, parsed)) = X509Certificate::from_der(self.as_der()) else { return false };
            parsed.subject().as_raw() == parsed.issuer().as_raw() && parsed.verify_signature(None).is_ok()
        })
    }
}

fn identity(subject: &X509Name<'_>) -> Option<Identity> {
    let node: NodeId = only(subject.iter_common_name())?.parse().ok()?;
    let role = Role::of_unit(only(subject.iter_organizational_unit())?)?;
    Some(Identity { node, role, cluster: cluster(subject)? })
}

fn cluster(subject: &X509Name<'_>) -> Option<ClusterId> {
    only(subject.iter_organization())?.parse().ok()
}

/// The text of the only attribute of its kind.
fn only<'n>(mut attributes: impl Iterator<Item = &'n AttributeTypeAndValue<'n>>) -> Option<&'n str> {
    let first = attributes.next()?.as_str().ok()?;
    attributes.next().is_none().then_some(first)
}

impl Serial {
    pub(super) const ZERO: Self = Self(Vec::new());

    /// A number by chance.
    pub fn generate(fill: impl FnOnce(&mut [u8])) -> Self {
        let mut bytes = [0; 16];
        fill(&mut bytes);
        bytes[0] = bytes[0] & 0x7f | 0x40; // positive, and as long as all others
        Self(bytes.to_vec())
    }

    /// Its bytes, highest first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Validity {
    /// How long it is.
    pub fn life(&self) -> Duration {
        self.until - self.from
    }

    /// Whether that moment is in it.
    pub fn contains(&self, now: UnixTime) -> bool {
        (self.from.as_secs()..=self.until.as_secs()).contains(&now.as_secs())
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Read { serial, validity, identity, is_authority, .. } = &*self.0;
        let mut shown = f.debug_struct("Certificate");
        shown.field("serial", serial).field("validity", validity).field("identity", identity);
        shown.field("is_authority", is_authority).finish_non_exhaustive()
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hex::show(&self.0, f)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.until)
    }
}

impl Serialize for Certificate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.der.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Certificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_der(Vec::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
