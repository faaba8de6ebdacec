//! What a node asks for a certificate with.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::{KeyDigest, SigningKey};

/// A request for a certificate (PKCS #10, RFC 2986) in DER. Of what it says only the key is believed, which signs it: names and rights come from who issues.
///
/// ```
/// use overlay_crypto::pki::{Algorithm, SigningKey, SigningRequest};
///
/// let key = SigningKey::generate(Algorithm::EcdsaP256)?;
/// let request = SigningRequest::create(&key)?;
/// assert_eq!(SigningRequest::from_der(request.as_der())?.key(), key.digest());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SigningRequest {
    der: Vec<u8>,
    key: KeyDigest,
    pub(super) public: SubjectPublicKeyInfo,
}

/// Bytes that are no request, or one that nobody should answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not of the form.
    #[error("not a request for a certificate in DER (RFC 2986): {0}")]
    Malformed(String),
    /// Longer than any of ours.
    #[error("a request of {have} bytes, {most} are the most", most = SigningRequest::MOST)]
    TooLong {
        /// Bytes there.
        have: usize,
    },
    /// Not signed with the key that it is for: who asks may not have it.
    #[error("it is not signed with the key that it is for")]
    Signature,
    /// For a key of another algorithm.
    #[error("it is for a key that is neither of ECDSA on P-256 nor of Ed25519")]
    Algorithm,
    /// It could not be signed.
    #[error("it could not be signed")]
    Unsigned,
}

impl SigningRequest {
    /// Bytes of a request at most.
    pub const MOST: usize = 16 * 1024;

    /// A request for a certificate of this key, which names nobody.
    ///
    /// # Errors
    /// If the system gives no chance to sign with.
    pub fn create(key: &SigningKey) -> Result<Self, RequestError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key.pair).map_err(|_| RequestError::Unsigned)?;
        Self::from_der(request.der().to_vec())
    }

    /// Reads a request, and proves that who made it has the key.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn from_der(der: impl Into<Vec<u8>>) -> Result<Self, RequestError> {
        let der = der.into();
        if der.len() > Self::MOST {
            return Err(RequestError::TooLong { have: der.len() });
        }
        let parsed = X509CertificationRequest::from_der(&der);
        let (rest, parsed) = parsed.map_err(|error| RequestError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed(format!("{} bytes follow its end", rest.len())));
        }
        let spki = parsed.certification_request_info.subject_pki.raw;
        let public = SubjectPublicKeyInfo::from_der(spki).map_err(|_| RequestError::Algorithm)?;
        let known = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519];
        if !known.contains(&rcgen::PublicKeyData::algorithm(&public)) {
            return Err(RequestError::Algorithm);
        }
        parsed.verify_signature().map_err(|_| RequestError::Signature)?;
        let key = KeyDigest::of(spki);
        Ok(Self { key, public, der })
    }

    /// Its bytes.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// As a text, as other programs read it (RFC 7468 §7).
    pub fn to_pem(&self) -> String {
        let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        pem::encode_config(&pem::Pem::new("CERTIFICATE REQUEST", self.der.clone()), lines)
    }

    /// The digest of the key that it is for.
    pub fn key(&self) -> KeyDigest {
        self.key
    }
}

impl fmt::Debug for SigningRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningRequest").field("key", &self.key).finish_non_exhaustive()
    }
}
