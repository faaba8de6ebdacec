//! What a node proves itself with, and whom it believes, now.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use overlay_core::{NodeId, UnixTime};
use overlay_crypto::gossip::SignerKey;
use overlay_crypto::pki::{
    Certificate, Identity, Issued, KeyDigest, Refusals, Role, SigningKey, Trust, Trusted, Usage, Validity, VerifyError,
    Voucher,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey as Signing};
use tokio::sync::watch;

use super::recent::Recent;
use super::verifier::chain;
use crate::driver::now;

/// A node's certificate with its key, and whom it believes: what its connections with other nodes are made with. A clone is the same.
///
/// What is changed counts for the next handshake, without a new server or client. Connections that stand are checked at each call: they go on while
/// the certificate that they were made with counts, its root is believed and its node was not removed.
///
/// ```
/// # use overlay_core::{ClusterId, NodeId, UnixTime};
/// use overlay_crypto::pki::{Algorithm, Authority, Grant, Identity, Life, Role, Serial, SigningKey, SigningRequest, Trust};
/// use overlay_driver::control::Credentials;
///
/// # let now = UnixTime::from_millis(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64);
/// # let cluster = ClusterId::from_bytes([5; 16]);
/// # let serial = || Serial::generate(|bytes| bytes.fill(7));
/// let root = Authority::create(cluster, SigningKey::generate(Algorithm::EcdsaP256)?, &serial(), now)?;
/// let key = SigningKey::generate(Algorithm::EcdsaP256)?;
/// let identity = Identity { node: NodeId::from_bytes([1; 16]), role: Role::Worker, cluster };
/// let grant = Grant { identity, life: Life::default(), serial: serial() };
/// let certificate = root.issue(&SigningRequest::create(&key)?, &grant, now)?;
///
/// let trust = Trust::new([root.certificate().clone()])?;
/// let credentials = Credentials::new(vec![certificate, root.certificate().clone()], &key, trust)?;
/// assert_eq!(credentials.identity(), identity);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Credentials(Arc<Held>);

struct Held {
    own: RwLock<Arc<Own>>,
    belief: RwLock<Arc<Belief>>,
    /// The revision of whom it believes, as far as that was heard of the authority.
    heard: Mutex<u64>,
    /// What it has shown by gossip last, of which key and chain; and that it has another certificate to show.
    voucher: Mutex<Option<(SignerKey, Vec<Certificate>, Bytes)>>,
    renewed: watch::Sender<()>,
    recent: Recent,
    clock: Box<dyn Fn() -> UnixTime + Send + Sync>,
}

/// What it proves itself with.
struct Own {
    identity: Identity,
    validity: Validity,
    chain: Vec<Certificate>,
    certified: Arc<CertifiedKey>,
    rooted: Arc<CertifiedKey>,
    key: Arc<SigningKey>,
}

/// A new certificate, and the roots that came with it.
pub(crate) struct Usable {
    new: Own,
    trust: Trust,
}

/// Whom it believes.
struct Belief {
    trust: Trust,
    refusals: Refusals,
    /// Who is no manager any more.
    demoted: Refusals,
    /// How often that has changed.
    changes: u64,
}

/// What cannot be proved with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Others would not believe it either.
    #[error("the node's own certificate is not believed")]
    Untrusted(#[from] VerifyError),
    /// The certificate and the key are not of each other.
    #[error("the certificate is for key {certificate}, this is key {key}")]
    OtherKey {
        /// The certificate's.
        certificate: KeyDigest,
        /// The key's.
        key: KeyDigest,
    },
    /// Another node's certificate, or another cluster's.
    #[error("the certificate is of {found}, and this is {own}")]
    Other {
        /// Whose it is.
        found: Box<Identity>,
        /// Who we are.
        own: Box<Identity>,
    },
    /// What came with it are no roots.
    #[error("{0}")]
    Roots(String),
    /// A key that TLS has no use for.
    #[error("TLS cannot sign with the key: {0}")]
    Key(String),
}

impl Credentials {
    /// A node's certificate, what is between it and a root and the root itself behind it; its key; and the roots that it believes. The time is the system's.
    ///
    /// # Errors
    /// If those roots have not signed the certificate, or the key is another's. One that has expired is taken: nobody believes it any more, but by its key the node can
    /// still [be rescued](crate::Membership).
    pub fn new(chain: Vec<Certificate>, key: &SigningKey, trust: Trust) -> Result<Self, CredentialsError> {
        Self::with_clock(chain, key, trust, now)
    }

    /// As [`new`](Self::new), with the time by this clock.
    ///
    /// # Errors
    /// As there.
    pub fn with_clock(
        chain: Vec<Certificate>,
        key: &SigningKey,
        trust: Trust,
        clock: impl Fn() -> UnixTime + Send + Sync + 'static,
    ) -> Result<Self, CredentialsError> {
        let own = RwLock::new(Arc::new(Own::new(chain, key, &trust, clock())?));
        let belief = RwLock::new(Arc::new(Belief {
            trust,
            refusals: Refusals::default(),
            demoted: Refusals::default(),
            changes: 0,
        }));
        let (heard, voucher, renewed) = (Mutex::default(), Mutex::default(), watch::Sender::new(()));
        let (recent, clock) = (Recent::default(), Box::new(clock));
        Ok(Self(Arc::new(Held { own, belief, heard, voucher, renewed, recent, clock })))
    }

    /// Who the node is, by its present certificate.
    pub fn identity(&self) -> Identity {
        self.own().identity
    }

    /// When its present certificate counts.
    pub fn validity(&self) -> Validity {
        self.own().validity
    }

    /// Its present certificate, and what is shown behind it.
    pub fn chain(&self) -> Vec<Certificate> {
        self.own().chain.clone()
    }

    /// The roots that it believes.
    pub fn trust(&self) -> Trust {
        self.belief().trust.clone()
    }

    /// Proves itself with another certificate of the same node from the next handshake on: of another role, perhaps.
    ///
    /// # Errors
    /// If it is not believed, another's, or of another key. Then all stays as it is.
    pub fn renew(&self, chain: Vec<Certificate>, key: &SigningKey) -> Result<(), CredentialsError> {
        let new = self.own_of(chain, key, &self.belief().trust)?;
        self.prove_with(new);
        Ok(())
    }

    /// What could be used of a new certificate.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub(crate) fn check(&self, issued: &Issued, key: &SigningKey) -> Result<Usable, CredentialsError> {
        let trust = Trust::new(issued.roots.clone()).map_err(|error| CredentialsError::Roots(error.to_string()))?;
        let new = self.own_of(issued.chain.clone(), key, &trust)?;
        Ok(Usable { new, trust })
    }

    /// Uses it from the next handshake on, and believes the roots that came with it if they are `news`: others may have been heard of since it was issued.
    pub(crate) fn take(&self, usable: Usable, news: bool) {
        if news {
            let refusals = self.belief().refusals.clone();
            self.believe(usable.trust, refusals);
        }
        self.prove_with(usable.new);
    }

    fn prove_with(&self, own: Own) {
        *self.0.own.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(own);
        self.0.renewed.send_replace(());
    }

    fn own_of(&self, chain: Vec<Certificate>, key: &SigningKey, trust: &Trust) -> Result<Own, CredentialsError> {
        let new = Own::new(chain, key, trust, self.now())?;
        let own = self.identity();
        match (new.identity.node, new.identity.cluster) == (own.node, own.cluster) {
            true => Ok(new),
            false => Err(CredentialsError::Other { found: Box::new(new.identity), own: Box::new(own) }),
        }
    }

    /// Believes these roots, and none of those that were removed, from now on: connections that stand with others end at their next call.
    pub fn believe(&self, trust: Trust, refusals: Refusals) {
        let demoted = self.belief().demoted.clone();
        self.set_belief(trust, refusals, demoted);
    }

    fn set_belief(&self, trust: Trust, refusals: Refusals, demoted: Refusals) {
        let mut belief = self.0.belief.write().unwrap_or_else(PoisonError::into_inner);
        if (&belief.trust, &belief.refusals, &belief.demoted) != (&trust, &refusals, &demoted) {
            *belief = Arc::new(Belief { trust, refusals, demoted, changes: belief.changes + 1 });
        }
    }

    /// Believes whom the cluster's authority believes, and shows how its roots are signed to those that have not heard of them yet.
    pub fn heed(&self, trusted: &Trusted) {
        let Ok(trust) = trusted.trust() else { return };
        let mut heard = self.0.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if trusted.revision < *heard {
            return; // it was read before, and took longer
        }
        *heard = trusted.revision;
        let mut own = self.0.own.write().unwrap_or_else(PoisonError::into_inner);
        *own = Arc::new(own.with(&trusted.crosses, &trust));
        drop(own);
        self.0.renewed.send_replace(());
        self.set_belief(trust, trusted.refusals.clone(), trusted.demoted.clone());
    }

    /// Whether to believe who shows this in a handshake: who serves has to be a manager.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(super) fn judge<'c>(
        &self,
        shown: impl Iterator<Item = &'c CertificateDer<'c>>,
        usage: Usage,
    ) -> Result<(), VerifyError> {
        let belief = self.belief();
        let chain = chain(shown, |der| self.known(&belief, der))?;
        belief.verify(&chain, usage, self.now())?;
        chain.first().into_iter().for_each(|own| self.0.recent.put(own));
        Ok(())
    }

    /// What was shown in a handshake that is over.
    ///
    /// # Errors
    /// If it is not of the form.
    pub(super) fn read<'c>(
        &self,
        shown: impl IntoIterator<Item = &'c CertificateDer<'c>>,
    ) -> Result<Vec<Certificate>, VerifyError> {
        let belief = self.belief();
        chain(shown, |der| self.known(&belief, der))
    }

    /// A certificate that need not be read, as it was.
    fn known(&self, belief: &Belief, der: &[u8]) -> Option<Certificate> {
        belief.root(der).or_else(|| self.0.recent.get(der))
    }

    /// What is shown as a client.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.own().certified)
    }

    /// What is shown as a server: with the roots, of which one that joins knows the digest alone.
    pub(super) fn rooted(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.own().rooted)
    }

    /// How often it has changed whom it believes.
    pub(super) fn changes(&self) -> u64 {
        self.belief().changes
    }

    /// Its word on the key by which it signs what it says by gossip: the same until it has another certificate.
    pub(crate) fn vouched(&self, key: SignerKey) -> Option<Bytes> {
        let own = self.own();
        let mut last = self.0.voucher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, chain, voucher)) = &*last
            && (of, chain) == (&key, &own.chain)
        {
            return Some(voucher.clone());
        }
        let voucher = Bytes::from(Voucher::create(key, own.chain.clone(), &own.key).ok()?.encode());
        *last = Some((key, own.chain.clone(), voucher.clone()));
        Some(voucher)
    }

    /// The key by which another node of the cluster signs, if this is its word on it.
    pub(crate) fn believes(&self, node: NodeId, voucher: &Voucher) -> Option<SignerKey> {
        let belief = self.belief();
        let key = voucher.verify(node, &belief.trust, self.now()).ok()?;
        let identity = voucher.chain().first()?.identity()?;
        belief.refusals.check(&identity).ok().map(|()| key)
    }

    /// Changes when there is another certificate to be shown.
    pub(crate) fn shown(&self) -> watch::Receiver<()> {
        self.0.renewed.subscribe()
    }

    pub(crate) fn now(&self) -> UnixTime {
        (self.0.clock)()
    }

    fn own(&self) -> Arc<Own> {
        Arc::clone(&self.0.own.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn belief(&self) -> Arc<Belief> {
        Arc::clone(&self.0.belief.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Own {
    fn new(chain: Vec<Certificate>, key: &SigningKey, trust: &Trust, now: UnixTime) -> Result<Self, CredentialsError> {
        let own = chain.first().ok_or(VerifyError::Missing)?;
        // Others do not believe one that has expired, but by its key the node is rescued.
        let at = now.min(own.validity().until).max(own.validity().from);
        let identity = trust.verify(&chain, Usage::Client, at)?;
        if own.key() != key.digest() {
            return Err(CredentialsError::OtherKey { certificate: own.key(), key: key.digest() });
        }
        let pkcs8 = key.to_pkcs8();
        let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        let signing = default_provider().key_provider.load_private_key(der.clone_key().into());
        let signing = signing.map_err(|error| CredentialsError::Key(error.to_string()))?;
        let own = SigningKey::from_pkcs8(&pkcs8).map_err(|error| CredentialsError::Key(error.to_string()))?;
        Ok(Self::of(identity, chain, trust, (signing, Arc::new(own))))
    }

    fn of(
        identity: Identity,
        chain: Vec<Certificate>,
        trust: &Trust,
        (signing, key): (Arc<dyn Signing>, Arc<SigningKey>),
    ) -> Self {
        let validity =
            chain.first().map_or(Validity { from: UnixTime::EPOCH, until: UnixTime::EPOCH }, |own| own.validity());
        let missing = trust.roots().iter().filter(|root| !chain.contains(root));
        let rooted: Vec<_> = chain.iter().chain(missing).take(Trust::CHAIN).map(der).collect();
        let certified = Arc::new(CertifiedKey::new(chain.iter().map(der).collect(), Arc::clone(&signing)));
        let rooted = Arc::new(CertifiedKey::new(rooted, signing));
        Self { identity, validity, chain, certified, rooted, key }
    }

    /// The same with other roots, and certificates of how they are signed.
    fn with(&self, crosses: &[Certificate], trust: &Trust) -> Self {
        let chain = self.chain.iter().take(1).chain(crosses).cloned().collect();
        Self::of(self.identity, chain, trust, (Arc::clone(&self.certified.key), Arc::clone(&self.key)))
    }
}

fn der(certificate: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from(certificate.as_der().to_vec())
}

impl Belief {
    /// The root of these bytes.
    fn root(&self, der: &[u8]) -> Option<Certificate> {
        self.trust.roots().iter().find(|root| root.as_der() == der).cloned()
    }

    fn verify(&self, chain: &[Certificate], usage: Usage, now: UnixTime) -> Result<Identity, VerifyError> {
        let identity = self.trust.verify(chain, usage, now)?;
        self.refusals.check(&identity)?;
        match (usage, identity.role) {
            (Usage::Client, _) => Ok(identity),
            (Usage::Server, Role::Worker) => Err(VerifyError::Role { found: identity.role, wanted: Role::Manager }),
            (Usage::Server, Role::Manager) if self.demoted.is_refused(identity.node) => {
                Err(VerifyError::Demoted(identity))
            }
            (Usage::Server, Role::Manager) => Ok(identity),
        }
    }
}

/// The node at the other end of a connection, as its certificate says.
#[derive(Debug)]
pub(in crate::control) struct Peer {
    pub(in crate::control) identity: Identity,
    chain: Vec<Certificate>,
    /// What it does there.
    usage: Usage,
    /// After how many changes it was believed last.
    believed: Mutex<u64>,
    credentials: Credentials,
}

impl Peer {
    /// Who was verified in a handshake that began after so many changes.
    pub(super) fn new(credentials: Credentials, chain: Vec<Certificate>, usage: Usage, changes: u64) -> Option<Self> {
        let identity = chain.first()?.identity()?;
        Some(Self { identity, chain, usage, believed: Mutex::new(changes), credentials })
    }

    /// Its certificate, as the handshake has proved it.
    pub(in crate::control) fn shown(&self) -> Option<&Certificate> {
        self.chain.first()
    }

    /// Whether it is believed still: looked at anew where whom we believe has changed.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::control) fn check(&self) -> Result<Identity, VerifyError> {
        let (belief, now) = (self.credentials.belief(), self.credentials.now());
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = self.chain.first().is_some_and(|own| own.validity().contains(now));
        if *believed != belief.changes || !counts {
            belief.verify(&self.chain, self.usage, now)?;
            *believed = belief.changes;
        }
        Ok(self.identity)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, belief) = (self.own(), self.belief());
        f.debug_struct("Credentials")
            .field("identity", &own.identity)
            .field("validity", &own.validity)
            .field("trust", &belief.trust)
            .field("refusals", &belief.refusals)
            .finish_non_exhaustive()
    }
}
