//! VNIs and published ports: numbers that a cluster has one set of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{NodeId, Port, PortRange, Prefix, Protocol, Store, UnixTime, Vni};

use crate::allocator::RootError;
use crate::ledger::Few;
use crate::ledger::Ledger;
use crate::ledger::block::Rest;
use crate::ledger::claim::{Outcome, Want};
use crate::ledger::combine::{Combiner, Turn};
use crate::ledger::ground::{Ground, Keys, Plot};
use crate::ledger::record::Held;
use crate::ledger::release::Return;
use crate::{ClaimError, ClaimRefusal, IpamError, LeaseOwner, PickOrder, PoolName, Release, Usage, Use};

/// A number, leased to an owner until it is released.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumberLease<T> {
    /// The VNI or port.
    pub item: T,
    /// Who has it.
    pub owner: LeaseOwner,
    /// No other lease of this number has the same.
    pub generation: u64,
}

/// The VNIs of a cluster: 4096 to 2²⁴ − 1 are handed out, as Docker Swarm does (some systems refuse those that could be
/// VLAN ids), any from 1 on can be chosen.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use overlay_core::testing::block_on;
/// use overlay_core::{MemoryStore, NodeId, Prefix, UnixTime, Vni};
/// use overlay_ipam::Vnis;
///
/// let now = UnixTime::from_millis(1_767_225_600_000);
/// let node = NodeId::from_bytes([1; 16]);
/// let vnis = Vnis::new(Arc::new(MemoryStore::default()), &Prefix::new("vni/")?, node, Duration::from_secs(60))?;
/// let lease = block_on(vnis.claim(&"front".parse()?, None, now))?;
/// assert_eq!(lease.item.get(), 4096);
/// assert_eq!(block_on(vnis.claim(&"front".parse()?, None, now))?, lease); // the same again
/// let refused = block_on(vnis.claim(&"back".parse()?, Some(Vni::new(4096)?), now)).unwrap_err();
/// assert_eq!(refused.to_string(), "4096 is in use");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Vnis {
    ledger: Ledger,
    desk: Desk,
}

impl Vnis {
    /// The first that is handed out.
    pub const FIRST: u32 = 4096;

    /// The VNIs whose records are under `root`. `manager` is who works here; a VNI rests after its release.
    ///
    /// # Errors
    /// If the root is longer than 512 bytes.
    pub fn new(store: Arc<dyn Store>, root: &Prefix, manager: NodeId, rest: Duration) -> Result<Self, RootError> {
        let window = (Self::FIRST.into(), Vni::MAX.get().into());
        let desk = Desk::new(ground(0, window.1, window));
        Ok(Self { ledger: ledger(store, root, manager, rest)?, desk })
    }

    /// Leases `wanted`, or any. An owner that has one already gets that.
    ///
    /// # Errors
    /// Why it was refused, or could not be decided.
    pub async fn claim(
        &self,
        owner: &LeaseOwner,
        wanted: Option<Vni>,
        now: UnixTime,
    ) -> Result<NumberLease<Vni>, ClaimError<Vni>> {
        claim(&self.ledger, &self.desk, owner, wanted, now).await
    }

    /// Gives one back.
    ///
    /// # Errors
    /// If it could not be decided.
    pub async fn release(&self, lease: &NumberLease<Vni>, now: UnixTime) -> Result<Release, IpamError> {
        release(&self.ledger, &self.desk, lease, now).await
    }

    /// All that are leased.
    ///
    /// # Errors
    /// If they could not be read whole.
    pub async fn leases(&self) -> Result<Vec<NumberLease<Vni>>, IpamError> {
        leases(&self.ledger, &self.desk.ground).await
    }

    /// How many of those that are handed out are in use.
    ///
    /// # Errors
    /// If it could not be read.
    pub async fn usage(&self, now: UnixTime) -> Result<Usage, IpamError> {
        usage(&self.ledger, &self.desk.ground, now).await
    }
}

/// The published ports of a cluster, for each protocol its own: 30000 to 32767 are handed out, as Docker Swarm does, any can
/// be chosen.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use overlay_core::testing::block_on;
/// use overlay_core::{MemoryStore, NodeId, Port, Prefix, Protocol, UnixTime};
/// use overlay_ipam::Ports;
///
/// let now = UnixTime::from_millis(1_767_225_600_000);
/// let node = NodeId::from_bytes([1; 16]);
/// let ports = Ports::new(Arc::new(MemoryStore::default()), &Prefix::new("port/")?, node, Duration::ZERO)?;
/// let web = block_on(ports.claim(Protocol::Tcp, &"web".parse()?, Some(Port::new(443)?), now))?;
/// let any = block_on(ports.claim(Protocol::Udp, &"web".parse()?, None, now))?;
/// assert_eq!((web.item.get(), any.item.get()), (443, 30_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Ports {
    ledger: Ledger,
    desks: [Desk; 3],
}

impl Ports {
    /// The first and the last that are handed out unless [`with_range`](Self::with_range) says otherwise.
    pub const DYNAMIC: (u16, u16) = (30_000, 32_767);

    /// The ports whose records are under `root`. `manager` is who works here; a port rests after its release.
    ///
    /// # Errors
    /// If the root is longer than 512 bytes.
    pub fn new(store: Arc<dyn Store>, root: &Prefix, manager: NodeId, rest: Duration) -> Result<Self, RootError> {
        let desks = PROTOCOLS.map(|protocol| Desk::new(port_ground(protocol, Self::DYNAMIC)));
        Ok(Self { ledger: ledger(store, root, manager, rest)?, desks })
    }

    /// Hands out these ports. All managers must say the same.
    #[must_use]
    pub fn with_range(self, range: PortRange) -> Self {
        let ends = (range.first().get(), range.last().get());
        Self { desks: PROTOCOLS.map(|protocol| Desk::new(port_ground(protocol, ends))), ..self }
    }

    /// Leases `wanted`, or any. An owner that has one of the protocol already gets that: one that publishes several ports is
    /// several owners, `web/443` say.
    ///
    /// # Errors
    /// Why it was refused, or could not be decided.
    pub async fn claim(
        &self,
        protocol: Protocol,
        owner: &LeaseOwner,
        wanted: Option<Port>,
        now: UnixTime,
    ) -> Result<NumberLease<Port>, ClaimError<Port>> {
        claim(&self.ledger, self.desk(protocol), owner, wanted, now).await
    }

    /// Gives one back.
    ///
    /// # Errors
    /// If it could not be decided.
    pub async fn release(
        &self,
        protocol: Protocol,
        lease: &NumberLease<Port>,
        now: UnixTime,
    ) -> Result<Release, IpamError> {
        release(&self.ledger, self.desk(protocol), lease, now).await
    }

    /// All of a protocol that are leased.
    ///
    /// # Errors
    /// If they could not be read whole.
    pub async fn leases(&self, protocol: Protocol) -> Result<Vec<NumberLease<Port>>, IpamError> {
        leases(&self.ledger, &self.desk(protocol).ground).await
    }

    /// How many of those of a protocol that are handed out are in use.
    ///
    /// # Errors
    /// If it could not be read.
    pub async fn usage(&self, protocol: Protocol, now: UnixTime) -> Result<Usage, IpamError> {
        usage(&self.ledger, &self.desk(protocol).ground, now).await
    }

    fn desk(&self, protocol: Protocol) -> &Desk {
        &self.desks[PROTOCOLS.iter().position(|of| *of == protocol).unwrap_or(0)]
    }
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// A number that leases are made on.
trait Item: Copy + fmt::Display + fmt::Debug {
    /// `None` for a number that a damaged record has.
    fn of(number: u128) -> Option<Self>;
    fn number(self) -> u128;
    fn pool(ground: &Ground) -> PoolName;
}

impl Item for Vni {
    fn of(number: u128) -> Option<Self> {
        u32::try_from(number).ok().and_then(|number| Self::new(number).ok())
    }

    fn number(self) -> u128 {
        self.get().into()
    }

    fn pool(_: &Ground) -> PoolName {
        PoolName::Vnis
    }
}

impl Item for Port {
    fn of(number: u128) -> Option<Self> {
        u16::try_from(number).ok().and_then(|number| Self::new(number).ok())
    }

    fn number(self) -> u128 {
        self.get().into()
    }

    fn pool(ground: &Ground) -> PoolName {
        PoolName::Ports(Protocol::from_number(ground.kind).unwrap_or(Protocol::Tcp))
    }
}

/// Numbers of one kind, and where callers meet that want some of them at once.
#[derive(Debug)]
struct Desk {
    ground: Ground,
    line: Combiner<Job, Result<Done, IpamError>>,
}

#[derive(Debug, Clone)]
enum Job {
    Claim(LeaseOwner, Option<u128>, UnixTime),
    Release(LeaseOwner, u64, u128, UnixTime),
}

#[derive(Debug)]
enum Done {
    Claimed(Outcome),
    Released(Release),
}

impl Desk {
    fn new(ground: Ground) -> Self {
        Self { ground, line: Combiner::default() }
    }

    /// Does a job, together with those of others that wait: they write to the same blocks.
    async fn done(&self, ledger: &Ledger, job: Job) -> Result<Done, IpamError> {
        let ticket = self.line.join(job);
        loop {
            match ticket.turn().await {
                Turn::Answer(answer) => return answer,
                Turn::Work(work) => {
                    let jobs: Vec<&Job> = work.jobs().collect();
                    let answers = self.serve(ledger, &jobs).await;
                    work.done(answers);
                }
            }
        }
    }

    /// All releases first, then all claims, each as one. The latest of the callers' dates counts for all.
    async fn serve(&self, ledger: &Ledger, jobs: &[&Job]) -> Vec<Result<Done, IpamError>> {
        let (mut wants, mut returns, mut latest) = (Vec::new(), Vec::new(), UnixTime::EPOCH);
        for job in jobs {
            match job {
                Job::Claim(owner, wanted, now) => {
                    latest = latest.max(*now);
                    let exact = wanted.map(|wanted| (0, wanted));
                    wants.push(Want { owner, purpose: Use::Endpoint, exact });
                }
                Job::Release(owner, generation, number, now) => {
                    latest = latest.max(*now);
                    returns.push(Return { owner, generation: *generation, of: Some((0, *number)) });
                }
            }
        }
        let stale = || IpamError::Contended { attempts: 1 }; // never: these grounds rest on nothing
        let released = ledger.release(&self.ground, &returns, latest).await.and_then(|some| some.ok_or_else(stale));
        let claimed = match wants.is_empty() {
            true => Ok(Few::new()),
            false => ledger.claim(&self.ground, &wants, latest).await.and_then(|some| some.ok_or_else(stale)),
        };
        let (mut released, mut claimed) = (released.map(Vec::into_iter), claimed.map(Few::into_iter));
        let answer = |job: &&Job| match job {
            Job::Claim(..) => next(&mut claimed).map(Done::Claimed),
            Job::Release(..) => next(&mut released).map(Done::Released),
        };
        jobs.iter().map(answer).collect()
    }
}

/// The next of what came out, or why nothing did.
fn next<T>(all: &mut Result<impl Iterator<Item = T>, IpamError>) -> Result<T, IpamError> {
    match all {
        Ok(all) => all.next().ok_or(IpamError::Contended { attempts: 1 }),
        Err(error) => Err(error.clone()),
    }
}

async fn claim<T: Item>(
    ledger: &Ledger,
    desk: &Desk,
    owner: &LeaseOwner,
    wanted: Option<T>,
    now: UnixTime,
) -> Result<NumberLease<T>, ClaimError<T>> {
    let done = desk.done(ledger, Job::Claim(owner.clone(), wanted.map(Item::number), now)).await?;
    let Done::Claimed(outcome) = done else { return Err(IpamError::Contended { attempts: 1 }.into()) };
    let refusal = match (outcome, wanted) {
        (Outcome::Granted(held), _) => match lease(owner, held) {
            Some(lease) => return Ok(lease),
            None => None,
        },
        (Outcome::Full { used, resting }, _) => {
            Some(ClaimRefusal::Exhausted { pool: T::pool(&desk.ground), in_use: used, resting })
        }
        (Outcome::Taken, Some(wanted)) => Some(ClaimRefusal::Taken { wanted }),
        (Outcome::Resting(until), Some(wanted)) => Some(ClaimRefusal::Resting { wanted, until }),
        (Outcome::Other(held), Some(wanted)) => T::of(held.number).map(|has| ClaimRefusal::Other { wanted, has }),
        _ => None,
    };
    Err(refusal.map_or(ClaimError::Failed(IpamError::Contended { attempts: 1 }), ClaimError::Refused))
}

async fn release<T: Item>(
    ledger: &Ledger,
    desk: &Desk,
    lease: &NumberLease<T>,
    now: UnixTime,
) -> Result<Release, IpamError> {
    let job = Job::Release(lease.owner.clone(), lease.generation, lease.item.number(), now);
    match desk.done(ledger, job).await? {
        Done::Released(release) => Ok(release),
        Done::Claimed(_) => Err(IpamError::Contended { attempts: 1 }),
    }
}

async fn leases<T: Item>(ledger: &Ledger, ground: &Ground) -> Result<Vec<NumberLease<T>>, IpamError> {
    let all = ledger.leases(ground).await?;
    Ok(all.into_iter().filter_map(|(owner, held)| lease(&owner, held)).collect())
}

async fn usage(ledger: &Ledger, ground: &Ground, now: UnixTime) -> Result<Usage, IpamError> {
    let [plot] = &ground.plots[..] else { return Ok(Usage::default()) };
    let (in_use, resting, capacity) = ledger.count(ground, plot, Use::Endpoint, now).await?;
    Ok(Usage { capacity, in_use, resting })
}

fn lease<T: Item>(owner: &LeaseOwner, held: Held) -> Option<NumberLease<T>> {
    Some(NumberLease { item: T::of(held.number)?, owner: owner.clone(), generation: held.generation })
}

fn ledger(store: Arc<dyn Store>, root: &Prefix, manager: NodeId, rest: Duration) -> Result<Ledger, RootError> {
    let keys = Keys::new(root).ok_or(RootError { found: root.as_bytes().len() })?;
    let skew = if rest.is_zero() { Duration::ZERO } else { SKEW };
    Ok(Ledger::new(store, keys, manager, Rest { time: rest, skew }, PickOrder::NextFit))
}

/// By how much clocks may differ, as [`Config::skew`](crate::Config::skew) has it.
const SKEW: Duration = Duration::from_secs(5);

fn port_ground(protocol: Protocol, (first, last): (u16, u16)) -> Ground {
    ground(protocol.number(), u16::MAX.into(), (first.into(), last.into()))
}

/// 0 is none of the numbers.
fn ground(kind: u8, last: u128, window: (u128, u128)) -> Ground {
    let plot = Plot { index: 0, last, reserved: vec![0], windows: [vec![window], vec![window]] };
    Ground { number: 0, kind, plots: vec![plot], guard: None }
}
