//! A node's word, by its certificate, on the key that it signs with.

use overlay_core::{ClusterId, Malformed, NodeId, UnixTime};

use super::{Certificate, CertificateError, SigningKey, Trust, Usage, VerifyError};
use crate::gossip::SignerKey;
use crate::version;

/// Says that what a key of [`Signer`](crate::gossip::Signer) has signed is a node's word: signed with the key of the node's certificate, which goes along. So whoever believes the cluster's
/// roots needs nothing else to verify what the node says, of whomever he hears it.
///
/// A certificate is renewed while what was said before goes on being passed on: so the key is another than the certificate's, and a new voucher is of the same key.
#[derive(Debug, Clone)]
pub struct Voucher {
    key: SignerKey,
    signature: Vec<u8>,
    chain: Vec<Certificate>,
}

/// Why a voucher was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VouchError {
    /// The certificate is for another key, or names no node.
    #[error("the certificate is not a node's, or for another key than this one")]
    OtherKey,
    /// The system gives no chance for the signature.
    #[error("the system gives no random numbers")]
    NoChance,
    /// The chain is longer than others take, or one of it.
    #[error("a voucher has 1 to {most} certificates, {limit} bytes together at most", most = Trust::CHAIN, limit = Voucher::MOST)]
    TooLong,
}

/// Why a voucher is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VoucherError {
    /// It is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A certificate of it is none.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Its certificate is not believed.
    #[error(transparent)]
    Untrusted(#[from] VerifyError),
    /// It is of another node.
    #[error("it is of node {found}")]
    Other {
        /// Which.
        found: NodeId,
    },
    /// It was not signed with the certificate's key.
    #[error("it was not signed with the key of its certificate")]
    Forged,
}

const VERSION: u8 = 1;
const FIELD: &str = "a voucher";

impl Voucher {
    /// Bytes of a voucher at most.
    pub const MOST: usize = 8 * 1024;

    /// The word of the node whose certificate is the first of the chain, and whose key this is.
    ///
    /// # Errors
    /// If it is not, or the chain is too long.
    pub fn create(key: SignerKey, chain: Vec<Certificate>, own: &SigningKey) -> Result<Self, VouchError> {
        let certificate = chain.first().ok_or(VouchError::TooLong)?;
        let identity = certificate.identity().filter(|_| certificate.key() == own.digest());
        let identity = identity.ok_or(VouchError::OtherKey)?;
        let statement = statement(identity.cluster, identity.node, &key);
        let signature = own.sign(&statement).ok_or(VouchError::NoChance)?;
        let voucher = Self { key, signature, chain };
        let fits = voucher.chain.len() <= Trust::CHAIN && voucher.encode().len() <= Self::MOST;
        fits.then_some(voucher).ok_or(VouchError::TooLong)
    }

    /// Version and key, then the signature after its length in a byte, then each certificate after its length in two.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.key.to_bytes());
        bytes.push(self.signature.len() as u8);
        bytes.extend_from_slice(&self.signature);
        for certificate in &self.chain {
            let der = certificate.as_der();
            bytes.extend_from_slice(&(der.len() as u16).to_be_bytes());
            bytes.extend_from_slice(der);
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, VoucherError> {
        let have = bytes.len();
        if have > Self::MOST {
            return Err(Malformed::Trailing { field: FIELD, extra: have - Self::MOST }.into());
        }
        let truncated =
            |rest: &[u8], more: usize| Malformed::Truncated { field: FIELD, need: have - rest.len() + more, have };
        let rest = version::behind(VERSION, FIELD, bytes)?;
        let (head, rest) = rest.split_first_chunk::<33>().ok_or_else(|| truncated(rest, 33))?;
        let [key @ .., length] = *head;
        let (signature, mut rest) =
            rest.split_at_checked(length.into()).ok_or_else(|| truncated(rest, length.into()))?;
        let mut chain = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<2>().ok_or_else(|| truncated(rest, 2))?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (der, after) = after.split_at_checked(length).ok_or_else(|| truncated(after, length))?;
            if chain.len() == Trust::CHAIN {
                return Err(VerifyError::TooMany { have: chain.len() + 1 }.into());
            }
            chain.push(Certificate::from_der(der)?);
            rest = after;
        }
        Ok(Self { key: SignerKey::from_bytes(key), signature: signature.to_vec(), chain })
    }

    /// The certificates, the node's own first.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// The key that is vouched for, if it is a node's of the cluster, and this node's.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, node: NodeId, trust: &Trust, now: UnixTime) -> Result<SignerKey, VoucherError> {
        let identity = trust.verify(&self.chain, Usage::Client, now)?;
        if identity.node != node {
            return Err(VoucherError::Other { found: identity.node });
        }
        let statement = statement(identity.cluster, identity.node, &self.key);
        let is_signed = self.chain.first().is_some_and(|own| own.has_signed(&statement, &self.signature));
        is_signed.then_some(self.key).ok_or(VoucherError::Forged)
    }
}

fn statement(cluster: ClusterId, node: NodeId, key: &SignerKey) -> Vec<u8> {
    [b"overlay-crypto gossip voucher 1\0", &cluster.to_bytes()[..], &node.to_bytes(), &key.to_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::{Algorithm, Authority, Grant, Identity, Life, Role, Serial, SigningRequest};
    use super::*;
    use crate::gossip::Signer;

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn root(cluster: u8) -> Authority {
        let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
        Authority::create(ClusterId::from_bytes([cluster; 16]), key, &serial(1), NOW).unwrap()
    }

    fn serial(number: u8) -> Serial {
        Serial::generate(|bytes| bytes.fill(number))
    }

    /// A node's key, and its certificate.
    fn member(root: &Authority, cluster: u8, number: u8) -> (SigningKey, Vec<Certificate>) {
        let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
        let identity =
            Identity { node: node(number), role: Role::Worker, cluster: ClusterId::from_bytes([cluster; 16]) };
        let grant = Grant { identity, life: Life::default(), serial: serial(number) };
        let certificate = root.issue(&SigningRequest::create(&key).unwrap(), &grant, NOW).unwrap();
        (key, vec![certificate])
    }

    fn voucher(root: &Authority, cluster: u8, number: u8) -> Voucher {
        let (key, chain) = member(root, cluster, number);
        Voucher::create(Signer::from_seed(&[number; 32]).key(), chain, &key).unwrap()
    }

    #[test]
    fn a_node_is_believed_on_its_own_key_by_whoever_believes_the_root() {
        let root = root(5);
        let trust = Trust::new([root.certificate().clone()]).unwrap();
        let bytes = voucher(&root, 5, 1).encode();
        assert!(bytes.len() < 1_000, "{} bytes: it goes in a datagram", bytes.len());
        let read = Voucher::parse(&bytes).unwrap();
        assert_eq!(read.encode(), bytes);
        assert_eq!(read.verify(node(1), &trust, NOW), Ok(Signer::from_seed(&[1; 32]).key()));
    }

    #[test]
    fn no_node_vouches_for_another_nor_after_its_certificate_nor_in_another_cluster() {
        let root_of_5 = root(5);
        let trust = Trust::new([root_of_5.certificate().clone()]).unwrap();
        let ours = voucher(&root_of_5, 5, 1);
        assert_eq!(ours.verify(node(2), &trust, NOW), Err(VoucherError::Other { found: node(1) }));
        let late = ours.chain()[0].validity().until + std::time::Duration::from_secs(1);
        assert!(matches!(ours.verify(node(1), &trust, late), Err(VoucherError::Untrusted(_))));
        let theirs = voucher(&root(6), 6, 1);
        assert!(matches!(theirs.verify(node(1), &trust, NOW), Err(VoucherError::Untrusted(_))));
        let other_key = Voucher { key: Signer::from_seed(&[9; 32]).key(), ..ours.clone() };
        assert_eq!(other_key.verify(node(1), &trust, NOW), Err(VoucherError::Forged));
        let other_chain = Voucher { chain: member(&root_of_5, 5, 1).1, ..ours };
        assert_eq!(other_chain.verify(node(1), &trust, NOW), Err(VoucherError::Forged));
        let (key, _) = member(&root_of_5, 5, 1);
        let (_, chain) = member(&root_of_5, 5, 1);
        let made = Voucher::create(Signer::from_seed(&[1; 32]).key(), chain, &key);
        assert_eq!(made.err(), Some(VouchError::OtherKey));
    }

    #[test]
    fn what_is_cut_or_of_another_release_is_no_voucher() {
        let bytes = voucher(&root(5), 5, 1).encode();
        for cut in 0..bytes.len() {
            let read = Voucher::parse(&bytes[..cut]);
            assert!(read.is_err() || read.is_ok_and(|voucher| voucher.chain().is_empty()), "{cut}");
        }
        let mut other = bytes;
        other[0] = 2;
        assert_eq!(Voucher::parse(&other).err(), Some(Malformed::Version { found: 2, read: 1 }.into()));
    }
}
