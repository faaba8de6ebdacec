//! A node's membership of its cluster, kept up while it runs.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Port, UnixTime, told};
use overlay_crypto::pki::{
    Algorithm, Identity, Issued, Proof, Renewal, RenewalConfig, RenewalConfigError, RenewalEvent, Role, SigningKey,
    SigningRequest, Validity,
};
use overlay_node::GossipKeyChange;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::chance::random;
use crate::control::{
    Cluster, ClusterError, ControlClient, Credentials, Joined, Managers, RefusalKind, RemoteError, Ring, Stands,
    Unwelcome,
};
use crate::events::log_membership;
use crate::{Driver, DriverEvent, Stopped};

/// Where a node keeps its certificate and key from one start to the next.
pub trait Keep: Send + Sync {
    /// Keeps these in place of those before: both or neither, whatever happens meanwhile. May take as long as a disk does.
    ///
    /// # Errors
    /// If it could not. Those before are kept then.
    fn keep(&self, issued: &Issued, key: &SigningKey) -> io::Result<()>;
}

/// When a [`Membership`] speaks with managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembershipConfig {
    /// How often it is asked how the node stands: 5 s, a fifth more or less. So long it takes until a node hears that another was removed, or that it has another role.
    pub beat: Duration,
    /// How long it rests after the first time that no manager answered; twice as long after each further: 0.2 s.
    pub rest_first: Duration,
    /// And no longer than that: 10 s.
    pub rest_most: Duration,
    /// When the certificate is renewed.
    pub renewal: RenewalConfig,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(5),
            rest_first: Duration::from_millis(200),
            rest_most: Duration::from_secs(10),
            renewal: RenewalConfig::default(),
        }
    }
}

/// Something that happened, for a log, or for a program that does what a role asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MembershipEvent {
    /// Managers answer, after they did not.
    Heard,
    /// No manager answers. It is tried again.
    Unheard {
        /// Why.
        reason: String,
    },
    /// The node has another certificate.
    Renewed {
        /// When it counts.
        validity: Validity,
    },
    /// There was none. It is tried again.
    NotRenewed {
        /// Why.
        reason: String,
    },
    /// The node has another role, by its new certificate.
    Role(Role),
    /// The node believes other roots, or refuses other nodes.
    Trusts {
        /// The revision.
        revision: u64,
    },
    /// The certificate is over. The node goes on asking for another.
    Expired {
        /// Since when.
        until: UnixTime,
    },
    /// The node was removed from the cluster, or its certificate is over for too long: it has to join anew. Nothing more comes.
    Lost {
        /// Why.
        reason: String,
    },
}

/// Keeps a node a member: asks managers every few seconds how it stands, believes whom they believe, has its certificate renewed in time and when its role or the root changes, and finds
/// managers that come and go. Connections with other nodes stay as certificates change. It ends with the last handle.
#[derive(Debug, Clone)]
pub struct Membership {
    credentials: Credentials,
    client: ControlClient,
    ring: watch::Receiver<Ring>,
    events: broadcast::Sender<MembershipEvent>,
    _task: Arc<Task>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a [`Membership`] begins with.
#[derive(Debug)]
pub struct MembershipParts {
    /// What the node proves itself with: the same that its servers and clients have.
    pub credentials: Credentials,
    /// The key of its certificate.
    pub key: SigningKey,
    /// The managers it calls; a manager calls itself, too.
    pub managers: Managers,
    /// The keys of gossip that it knows.
    pub ring: Ring,
}

impl Membership {
    /// Begins, on the runtime that it is called in.
    ///
    /// # Errors
    /// If the settings of the renewal make no sense.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn begin(
        parts: MembershipParts,
        keep: Arc<dyn Keep>,
        config: MembershipConfig,
    ) -> Result<Self, RenewalConfigError> {
        let MembershipParts { credentials, key, managers, ring } = parts;
        let client = ControlClient::of_managers(managers.clone());
        let (ring_told, ring) = watch::channel(ring);
        let events = broadcast::Sender::new(64);
        let mut seed = [0; 32];
        random(&mut seed);
        let renewal = Renewal::new(config.renewal, credentials.validity(), seed, credentials.now())?;
        let keeper = Keeper {
            client: client.clone(),
            credentials: credentials.clone(),
            keep,
            key,
            managers,
            renewal,
            config,
            revision: 0,
            ring: ring_told,
            events: events.clone(),
            rest: config.rest_first,
            is_heard: true,
        };
        let task = Task(tokio::spawn(keeper.run()));
        Ok(Self { credentials, client, ring, events, _task: Arc::new(task) })
    }

    /// What a node begins with that has just joined.
    ///
    /// # Errors
    /// If TLS has no use for its credentials.
    pub fn parts_of(joined: Joined) -> Result<MembershipParts, crate::control::CredentialsError> {
        let managers = Managers::new(joined.managers, &joined.credentials)?;
        Ok(MembershipParts {
            credentials: joined.credentials,
            key: joined.key,
            managers,
            ring: joined.ring.unwrap_or_default(),
        })
    }

    /// Who the node is, by its present certificate.
    pub fn identity(&self) -> Identity {
        self.credentials.identity()
    }

    /// What it proves itself with.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The managers' control: whichever answers.
    pub fn client(&self) -> &ControlClient {
        &self.client
    }

    /// The keys of gossip, as managers tell them.
    pub fn ring(&self) -> watch::Receiver<Ring> {
        self.ring.clone()
    }

    /// What happens from now on. Who does not listen for long misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<MembershipEvent> {
        self.events.subscribe()
    }

    /// Keeps a driver and the cluster at the same keys of gossip, as long as both are there: nodes that join by this manager's `cluster` are given what the driver has changed to; and a
    /// driver that was away as the key was changed, and lacks what others seal with, is given it by the managers.
    pub fn carry_gossip_keys(&self, driver: Driver, cluster: Option<Cluster>) -> JoinHandle<()> {
        let (mut told, mut events) = (self.ring.clone(), driver.events());
        tokio::spawn(async move {
            loop {
                if let Some(cluster) = &cluster {
                    let Ok(ring) = driver.gossip_keys().await else { return };
                    ring.into_iter().for_each(|ring| cluster.set_ring(ring));
                }
                let known = told.borrow_and_update().clone();
                if give(&driver, known).await.is_err() {
                    return;
                }
                let is_over = tokio::select! {
                    changed = told.changed() => changed.is_err(),
                    () = of_keys(&mut events) => false,
                };
                if is_over {
                    return;
                }
            }
        })
    }

    /// Learns from a driver's gossip where managers are, as long as both are there: those that are alive, at this port. That one says it is a manager is not believed: it proves it.
    pub fn find_managers(&self, managers: Managers, driver: Driver, port: Port) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut now_and_then = tokio::time::interval(DISCOVERY);
            loop {
                now_and_then.tick().await;
                let Ok(status) = driver.status().await else { return };
                let alive = status.members.iter().filter(|it| it.manager && it.standing == "alive");
                managers.hear_of(alive.map(|it| SocketAddr::new(it.address.ip(), port.get())));
            }
        })
    }
}

/// Returns when something happened to a driver's keys of gossip, or when it has stopped.
async fn of_keys(events: &mut broadcast::Receiver<DriverEvent>) {
    loop {
        match events.recv().await {
            Ok(DriverEvent::GossipKey { .. } | DriverEvent::LackingGossipKey { .. }) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Gives a driver these keys, and has it seal with the one that it lacks, if that is among them.
async fn give(driver: &Driver, ring: Ring) -> Result<(), Stopped> {
    let Some(seal) = driver.status().await?.seal else { return Ok(()) };
    for key in ring.keys {
        let (id, name) = (key.id(), key.id().to_string());
        if !seal.keys.contains(&name) {
            let _ = driver.change_gossip_keys(GossipKeyChange::Remember(key)).await; // it may have come by gossip meanwhile
        }
        if seal.lacking.as_ref() == Some(&name) {
            let _ = driver.change_gossip_keys(GossipKeyChange::Promote(id)).await;
        }
    }
    Ok(())
}

/// The task.
struct Keeper {
    client: ControlClient,
    credentials: Credentials,
    keep: Arc<dyn Keep>,
    key: SigningKey,
    managers: Managers,
    renewal: Renewal,
    config: MembershipConfig,
    /// Of whom it believes.
    revision: u64,
    ring: watch::Sender<Ring>,
    events: broadcast::Sender<MembershipEvent>,
    rest: Duration,
    is_heard: bool,
}

/// There is nothing more to be done: why.
struct Over(String);

impl Keeper {
    async fn run(mut self) {
        let mut next_beat = Instant::now();
        loop {
            if let Err(Over(reason)) = self.step(&mut next_beat).await {
                return self.tell(MembershipEvent::Lost { reason });
            }
            // A date that is set anew is seen within this time.
            let due = self.renewal.poll_timeout() - self.credentials.now();
            sleep_until(next_beat.min(Instant::now() + due.min(DATE))).await;
        }
    }

    async fn step(&mut self, next_beat: &mut Instant) -> Result<(), Over> {
        self.renewal.handle_timeout(self.credentials.now());
        while let Some(event) = self.renewal.poll_event() {
            match event {
                RenewalEvent::Ask => self.renew(false).await?,
                RenewalEvent::Rescue => self.renew(true).await?,
                RenewalEvent::Expired { until } => self.tell(MembershipEvent::Expired { until }),
                RenewalEvent::Lost => return Err(Over("the certificate is over for too long".to_owned())),
                _ => {}
            }
        }
        if *next_beat <= Instant::now() {
            let wait = self.stand().await?;
            *next_beat = Instant::now() + wait;
        }
        Ok(())
    }

    /// Asks how the node stands, and how long it rests then.
    async fn stand(&mut self) -> Result<Duration, Over> {
        let ring = self.ring.borrow().revision;
        match self.client.stand(self.revision, ring).await {
            Ok(stands) => {
                if !std::mem::replace(&mut self.is_heard, true) {
                    self.tell(MembershipEvent::Heard);
                }
                self.rest = self.config.rest_first;
                self.heed(stands);
                Ok(about(self.config.beat))
            }
            Err(error) => {
                self.check(&error)?;
                if std::mem::replace(&mut self.is_heard, false) {
                    self.tell(MembershipEvent::Unheard { reason: told(&error) });
                }
                let rest = about(self.rest);
                self.rest = (self.rest * 2).min(self.config.rest_most);
                Ok(rest)
            }
        }
    }

    fn heed(&mut self, stands: Stands) {
        if let Some(trusted) = stands.trusted.filter(|trusted| trusted.revision > self.revision) {
            self.credentials.heed(&trusted);
            self.revision = trusted.revision;
            self.tell(MembershipEvent::Trusts { revision: trusted.revision });
        }
        if let Some(ring) = stands.ring {
            self.ring.send_replace(ring);
        }
        self.managers.learn_more(stands.managers);
        if stands.standing.renew.is_some() {
            self.renewal.force(self.credentials.now());
        }
    }

    /// Asks for the next certificate: by the present one, or by its key if that is over.
    async fn renew(&mut self, rescue: bool) -> Result<(), Over> {
        let before = self.credentials.identity().role;
        match self.next(rescue).await {
            Ok(validity) => {
                self.renewal.handle_renewed(validity, self.credentials.now());
                self.tell(MembershipEvent::Renewed { validity });
                let role = self.credentials.identity().role;
                if role != before {
                    self.tell(MembershipEvent::Role(role));
                }
            }
            Err(failure) => {
                if let Failure::Cluster(error) = &failure {
                    self.check(error)?;
                }
                self.renewal.handle_failed(self.credentials.now());
                self.tell(MembershipEvent::NotRenewed { reason: failure.to_string() });
            }
        }
        Ok(())
    }

    async fn next(&mut self, rescue: bool) -> Result<Validity, Failure> {
        let key = SigningKey::generate(Algorithm::EcdsaP256).map_err(Failure::of)?;
        let request = SigningRequest::create(&key).map_err(Failure::of)?;
        let issued = match rescue {
            false => self.client.renew(&request).await?,
            true => {
                let own =
                    self.credentials.chain().into_iter().next().ok_or_else(|| Failure::Other("none".to_owned()))?;
                let proof = Proof::of_key(own, &self.key, &request).map_err(Failure::of)?;
                let by_key =
                    ControlClient::without_certificate(&self.managers, &self.credentials).map_err(Failure::of)?;
                by_key.rescue(&proof, &request).await?
            }
        };
        // Both are kept before either is used: else a node that dies now would come back with what it has shown nobody.
        let usable = self.credentials.check(&issued, &key).map_err(Failure::of)?;
        let (keep, news) = (Arc::clone(&self.keep), issued.revision >= self.revision);
        let key = tokio::task::spawn_blocking(move || keep.keep(&issued, &key).map(|()| key))
            .await
            .map_err(|_| Failure::Other("it could not be kept".to_owned()))?
            .map_err(Failure::of)?;
        self.credentials.take(usable, news);
        self.key = key;
        self.client.connect_anew().await;
        Ok(self.credentials.validity())
    }

    /// Whether there is any use in going on.
    fn check(&self, error: &ClusterError) -> Result<(), Over> {
        let is_over = match error {
            ClusterError::Refused(refusal) => matches!(refusal.kind, RefusalKind::Removed | RefusalKind::Stranger),
            ClusterError::Unreachable(RemoteError::Unwelcome(why)) => *why == Unwelcome::Removed,
            ClusterError::Unreachable(_) => false,
        };
        if is_over { Err(Over(told(error))) } else { Ok(()) }
    }

    fn tell(&self, event: MembershipEvent) {
        log_membership(self.credentials.identity().node, &event);
        drop(self.events.send(event));
    }
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", told(.0))]
    Cluster(#[from] ClusterError),
    #[error("{0}")]
    Other(String),
}

impl Failure {
    fn of(error: impl std::error::Error) -> Self {
        Self::Other(told(&error))
    }
}

/// That, a fifth more or less: by chance, so that nodes do not all come at once.
pub(crate) fn about(span: Duration) -> Duration {
    let mut byte = [0];
    random(&mut byte);
    let [chance] = byte;
    span.mul_f64(0.8 + 0.4 * f64::from(chance) / 255.0)
}

impl fmt::Display for MembershipEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heard => f.write_str("managers answer again"),
            Self::Unheard { reason } => write!(f, "no manager answers: {reason}"),
            Self::Renewed { validity } => write!(f, "the node's certificate counts from {validity}"),
            Self::NotRenewed { reason } => write!(f, "the node's certificate is not renewed yet: {reason}"),
            Self::Role(role) => write!(f, "the node is a {role} now"),
            Self::Trusts { revision } => write!(f, "whom to believe is known as of revision {revision}"),
            Self::Expired { until } => write!(f, "the node's certificate counted until {until}"),
            Self::Lost { reason } => write!(f, "the node is no member any more: {reason}"),
        }
    }
}

/// How often gossip is looked at for managers.
const DISCOVERY: Duration = Duration::from_secs(2);
/// Within which a date that was set anew is seen.
const DATE: Duration = Duration::from_secs(30);
