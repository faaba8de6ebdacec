//! The authority over a store.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use overlay_core::{
    ClusterId, Commit, Key, KeyError, NodeId, Prefix, Snapshot, Store, Term, Transaction, Undecided, UnixTime,
};

use super::record::{Keys, Refused, Root, Roots, Where, decode};
use super::{
    CertificateAuthority, Denied, Invitation, Issued, JoinRefusal, Joining, Member, NextRoot, RemoveRefusal, Removed,
    RenewRefusal, Renewing, RoleRefusal, RootProgress, RootRefusal, SealingKey, SignerTransport, Standing, Tended,
    Trouble, Trusted,
};
use crate::Chance;
use crate::pki::{Authority, Certificate, JoinToken, KeyDigest, Life, Refusals, Role, SigningKey};

/// The authority of a cluster whose managers share a store: nodes, tokens and roots are records there, the root's key sealed with a [`SealingKey`] that managers
/// hold, or with a signer elsewhere.
///
/// Whatever is granted is granted by a commit that the present [`Term`] fences, before anything is signed: so one manager signs, the one that [leads](Self::lead), and one that was
/// deposed and does not know it grants nothing. It remembers nothing but what it has read.
///
/// ```
/// use std::sync::Arc;
/// use overlay_core::testing::block_on;
/// use overlay_core::{ClusterId, MemoryStore, NodeId, Prefix, Seat, Store, Term, UnixTime};
/// use overlay_crypto::pki::{
///     Algorithm, AuthorityConfig, CertificateAuthority, Joining, NextRoot, Role, SealingKey, SigningKey, SigningRequest,
///     StoreAuthority, Usage,
/// };
///
/// # let of_chance = [7; 32];
/// let (now, me) = (UnixTime::from_millis(1_800_000_000_000), NodeId::from_bytes([1; 16]));
/// let (store, cluster): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::default()), ClusterId::from_bytes([5; 16]));
/// let authority = StoreAuthority::new(Arc::clone(&store), &Prefix::ALL, cluster, of_chance)?;
/// authority.hold(SealingKey::generate(|bytes| bytes.fill(8))); // of chance, and kept before
///
/// block_on(async {
///     authority.lead(Term::campaign(&store, &Seat::new(&Prefix::new("manager/")?, me)?, now).await?);
///     authority.found(&NextRoot::Generate(Algorithm::EcdsaP256), now).await?;
///
///     let (token, key) = (authority.token(Role::Worker).await?, SigningKey::generate(Algorithm::EcdsaP256)?);
///     let joining = Joining { token, request: SigningRequest::create(&key)?, node: None };
///     let issued = authority.join(&joining, now).await?;
///     let node = authority.trusted().await?.verify(&issued.chain, Usage::Client, now)?;
///     assert_eq!(node.role, Role::Worker);
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # let _ = AuthorityConfig::default();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StoreAuthority {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Keys,
    pub(super) cluster: ClusterId,
    pub(super) config: AuthorityConfig,
    pub(super) transport: Option<Arc<dyn SignerTransport>>,
    holds: Mutex<Holds>,
}

/// How an authority grants; the same with all managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityConfig {
    /// How long certificates count: 90 days.
    pub life: Life,
    /// How long after its end a certificate's key proves who asks: 30 days.
    pub grace: Duration,
    /// By how much clocks may differ: what has expired is taken to count for so much longer where that is safer. An hour.
    pub skew: Duration,
}

impl Default for AuthorityConfig {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { life: Life::default(), grace: 30 * day, skew: day / 24 }
    }
}

struct Holds {
    term: Option<Term>,
    sealing: Option<SealingKey>,
    chance: Chance,
    /// What was read last, opened.
    opened: Option<Arc<Opened>>,
}

/// The roots, read, with the keys that are here.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) revision: overlay_core::Revision,
    pub(super) roots: Roots,
    present: Option<Authority>,
    next: Option<Authority>,
}

/// Who signs as a root.
pub(super) enum Signs<'a> {
    Here(&'a Authority),
    Elsewhere(&'a Root, &'a str),
}

impl Opened {
    /// Who signs as the root of this key, if it is one of ours.
    pub(super) fn signer(&self, key: KeyDigest) -> Result<Option<Signs<'_>>, Trouble> {
        let all = [(self.roots.next.as_ref(), &self.next), (Some(&self.roots.present), &self.present)];
        let Some((root, authority)) = all
            .into_iter()
            .find_map(|(root, authority)| Some((root.filter(|root| root.certificate.key() == key)?, authority)))
        else {
            return Ok(None);
        };
        match (&root.key, authority) {
            (Where::Elsewhere { url }, _) => Ok(Some(Signs::Elsewhere(root, url))),
            (Where::Sealed(_), Some(authority)) => Ok(Some(Signs::Here(authority))),
            (Where::Sealed(_), None) => Err(Trouble::Sealed),
        }
    }
}

impl StoreAuthority {
    /// The authority of a cluster, with its records below `root`. `seed` is 32 bytes of chance from the operating system.
    ///
    /// # Errors
    /// If the root is longer than 900 bytes.
    pub fn new(store: Arc<dyn Store>, root: &Prefix, cluster: ClusterId, seed: [u8; 32]) -> Result<Self, KeyError> {
        let holds = Holds { term: None, sealing: None, chance: Chance::new(seed), opened: None };
        let (keys, config) = (Keys::of(root)?, AuthorityConfig::default());
        Ok(Self { store, keys, cluster, config, transport: None, holds: Mutex::new(holds) })
    }

    /// Grants so.
    #[must_use]
    pub fn with_config(self, config: AuthorityConfig) -> Self {
        Self { config, ..self }
    }

    /// Asks signers elsewhere by this.
    #[must_use]
    pub fn with_transport(self, transport: Arc<dyn SignerTransport>) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// This manager leads: from now on it signs. To be given each term that is begun; one that was renewed needs not be given again.
    pub fn lead(&self, term: Term) {
        self.holds().term = Some(term);
    }

    /// This manager does not lead any more.
    pub fn follow(&self) {
        self.holds().term = None;
    }

    /// This manager was given the key that unseals the root's.
    pub fn hold(&self, key: SealingKey) {
        let mut holds = self.holds();
        (holds.sealing, holds.opened) = (Some(key), None);
    }

    pub(super) fn sealing(&self) -> Option<SealingKey> {
        self.holds().sealing.clone()
    }

    pub(super) fn draw(&self, to: &mut [u8]) {
        self.holds().chance.draw(to);
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides, as the manager that leads.
    pub(super) async fn run<T: Send, R: Send>(
        &self,
        keys: Vec<Key>,
        decide: impl FnMut(&Snapshot) -> Result<(Commit, T), Undecided<Denied<R>>> + Send,
    ) -> Result<T, Denied<R>> {
        let term = self.holds().term.clone().ok_or(Trouble::NotLeading)?;
        let done = Transaction::on(&*self.store).fenced(&term).reading(keys).run(decide).await?;
        Ok(done.output)
    }

    /// The roots, as a decision has read them.
    pub(super) fn opened<R>(&self, snapshot: &Snapshot) -> Result<Arc<Opened>, Undecided<Denied<R>>> {
        let entry = snapshot.get(&self.keys.roots)?;
        let entry = entry.ok_or_else(|| trouble(Trouble::NoRoot))?;
        self.open(entry).map_err(trouble)
    }

    /// The roots as they are.
    pub(super) async fn load(&self) -> Result<Arc<Opened>, Trouble> {
        let entry = self.store.get(&self.keys.roots).await.map_err(Trouble::Store)?;
        self.open(&entry.ok_or(Trouble::NoRoot)?)
    }

    fn open(&self, entry: &overlay_core::Entry) -> Result<Arc<Opened>, Trouble> {
        if let Some(opened) = self.holds().opened.as_ref().filter(|opened| opened.revision == entry.revision) {
            return Ok(Arc::clone(opened));
        }
        let roots: Roots = decode(&self.keys.roots, entry)?;
        let unsealed = |root: &Root| self.unseal(root).transpose();
        let present = unsealed(&roots.present).transpose()?;
        let next = roots.next.as_ref().and_then(unsealed).transpose()?;
        let opened = Arc::new(Opened { revision: entry.revision, roots, present, next });
        self.holds().opened = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// A root's key, if it is here and this manager has what unseals it.
    fn unseal(&self, root: &Root) -> Result<Option<Authority>, Trouble> {
        let (Where::Sealed(sealed), Some(sealing)) = (&root.key, self.sealing()) else { return Ok(None) };
        let Some(key) = sealing.unseal(sealed, &root.certificate.key().to_bytes()) else { return Ok(None) };
        let key = SigningKey::from_pkcs8(&key)?;
        Ok(Some(Authority::open(root.certificate.clone(), key)?))
    }

    /// A root whose key is to be kept here.
    pub(super) fn seal(&self, root: &Authority) -> Result<Root, Trouble> {
        let sealing = self.sealing().ok_or(Trouble::Sealed)?;
        let about = root.certificate().key().to_bytes();
        let sealed = sealing.seal(&root.key().to_pkcs8(), &about, |salt| self.draw(salt)).ok_or(Trouble::Sealed)?;
        Ok(Root { certificate: root.certificate().clone(), key: Where::Sealed(sealed) })
    }
}

pub(super) fn trouble<R>(trouble: impl Into<Trouble>) -> Undecided<Denied<R>> {
    Undecided::Refused(Denied::Trouble(trouble.into()))
}

pub(super) fn refused<R>(refusal: R) -> Undecided<Denied<R>> {
    Undecided::Refused(Denied::Refused(refusal))
}

#[async_trait]
impl CertificateAuthority for StoreAuthority {
    async fn trusted(&self) -> Result<Trusted, Trouble> {
        let prefix = self.keys.prefix("trust/");
        let listing = self.store.list(&prefix).await.map_err(Trouble::Store)?;
        let (refused, demoted) = (self.keys.prefix("trust/refused/"), self.keys.prefix("trust/demoted/"));
        let (mut refusals, mut demotions, mut roots, mut revision) =
            (Refusals::default(), Refusals::default(), None, 0);
        for (key, entry) in &listing.entries {
            if *key == self.keys.roots {
                roots = Some(self.open(entry)?);
            } else if *key == self.keys.revision {
                revision = entry.revision.0;
            } else if let Some(node) = Keys::named(key, &refused) {
                refusals.refuse(node, decode::<Refused>(key, entry)?.until);
            } else if let Some(node) = Keys::named(key, &demoted) {
                demotions.refuse(node, decode::<Refused>(key, entry)?.until);
            }
        }
        let opened = roots.ok_or(Trouble::NoRoot)?;
        let (roots, crosses) = (opened.roots.believed(), opened.roots.crosses.clone());
        Ok(Trusted { revision, roots, crosses, refusals, demoted: demotions })
    }

    async fn join(&self, joining: &Joining, now: UnixTime) -> Result<Issued, Denied<JoinRefusal>> {
        let answer = self.join_some(std::slice::from_ref(joining), now).await?.pop();
        answer.unwrap_or(Err(Denied::Trouble(Trouble::Commit)))
    }

    async fn admits(&self, joining: &Joining, now: UnixTime) -> Result<(), Denied<JoinRefusal>> {
        self.would_admit(joining, now).await
    }

    async fn join_all(&self, joining: &[Joining], now: UnixTime) -> Vec<Result<Issued, Denied<JoinRefusal>>> {
        self.join_many(joining, now).await
    }

    async fn renew(&self, renewing: &Renewing, now: UnixTime) -> Result<Issued, Denied<RenewRefusal>> {
        self.renew_one(renewing, now).await
    }

    async fn seen(&self, shown: &Certificate, now: UnixTime) -> Result<Standing, Denied<RenewRefusal>> {
        self.see(shown, now).await
    }

    async fn token(&self, role: Role) -> Result<JoinToken, Trouble> {
        self.shown_token(role).await
    }

    async fn rotate_token(&self, role: Role) -> Result<JoinToken, Trouble> {
        self.change_token(role).await
    }

    async fn invite(&self, invitation: &Invitation) -> Result<JoinToken, Trouble> {
        self.make_token(invitation).await
    }

    async fn members(&self, _now: UnixTime) -> Result<Vec<Member>, Trouble> {
        self.all_members().await
    }

    async fn set_role(&self, node: NodeId, role: Role) -> Result<(), Denied<RoleRefusal>> {
        self.change_role(node, role).await
    }

    async fn force_renewal(&self, node: NodeId) -> Result<(), Denied<RoleRefusal>> {
        self.ask_for_renewal(node).await
    }

    async fn remove(&self, node: NodeId, now: UnixTime) -> Result<Removed, Denied<RemoveRefusal>> {
        self.remove_node(node, now).await
    }

    async fn rotate_root(&self, next: &NextRoot, now: UnixTime) -> Result<RootProgress, Denied<RootRefusal>> {
        self.change_root(next, now).await
    }

    async fn abort_root(&self, now: UnixTime) -> Result<RootProgress, Denied<RootRefusal>> {
        self.keep_root(now).await
    }

    async fn root_progress(&self, now: UnixTime) -> Result<Option<RootProgress>, Trouble> {
        self.progress(now).await
    }

    async fn tend(&self, now: UnixTime) -> Result<Tended, Trouble> {
        self.tend_all(now).await
    }

    async fn sealing_key(&self, asking: &Certificate, now: UnixTime) -> Result<SealingKey, Denied<RenewRefusal>> {
        self.give_sealing_key(asking, now).await
    }
}

impl fmt::Debug for StoreAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreAuthority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}
