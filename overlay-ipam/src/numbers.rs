//! VNIs and published ports: numbers that a cluster has one set of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{NodeId, Port, PortRange, Prefix, Protocol, Store, UnixTime, Vni};

use crate::allocator::RootError;
use crate::ledger::Ledger;
use crate::ledger::block::Rest;
use crate::ledger::claim::{Outcome, Want};
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
    ground: Ground,
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
        let ground = ground(0, window.1, window);
        Ok(Self { ledger: ledger(store, root, manager, rest)?, ground })
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
        claim(&self.ledger, &self.ground, owner, wanted, now).await
    }

    /// Gives one back.
    ///
    /// # Errors
    /// If it could not be decided.
    pub async fn release(&self, lease: &NumberLease<Vni>, now: UnixTime) -> Result<Release, IpamError> {
        release(&self.ledger, &self.ground, lease, now).await
    }

    /// All that are leased.
    ///
    /// # Errors
    /// If they could not be read whole.
    pub async fn leases(&self) -> Result<Vec<NumberLease<Vni>>, IpamError> {
        leases(&self.ledger, &self.ground).await
    }

    /// How many of those that are handed out are in use.
    ///
    /// # Errors
    /// If it could not be read.
    pub async fn usage(&self, now: UnixTime) -> Result<Usage, IpamError> {
        usage(&self.ledger, &self.ground, now).await
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
    grounds: [Ground; 3],
}

impl Ports {
    /// The first and the last that are handed out unless [`with_range`](Self::with_range) says otherwise.
    pub const DYNAMIC: (u16, u16) = (30_000, 32_767);

    /// The ports whose records are under `root`. `manager` is who works here; a port rests after its release.
    ///
    /// # Errors
    /// If the root is longer than 512 bytes.
    pub fn new(store: Arc<dyn Store>, root: &Prefix, manager: NodeId, rest: Duration) -> Result<Self, RootError> {
        let grounds = PROTOCOLS.map(|protocol| port_ground(protocol, Self::DYNAMIC));
        Ok(Self { ledger: ledger(store, root, manager, rest)?, grounds })
    }

    /// Hands out these ports. All managers must say the same.
    #[must_use]
    pub fn with_range(self, range: PortRange) -> Self {
        let ends = (range.first().get(), range.last().get());
        Self { grounds: PROTOCOLS.map(|protocol| port_ground(protocol, ends)), ..self }
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
        claim(&self.ledger, self.ground(protocol), owner, wanted, now).await
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
        release(&self.ledger, self.ground(protocol), lease, now).await
    }

    /// All of a protocol that are leased.
    ///
    /// # Errors
    /// If they could not be read whole.
    pub async fn leases(&self, protocol: Protocol) -> Result<Vec<NumberLease<Port>>, IpamError> {
        leases(&self.ledger, self.ground(protocol)).await
    }

    /// How many of those of a protocol that are handed out are in use.
    ///
    /// # Errors
    /// If it could not be read.
    pub async fn usage(&self, protocol: Protocol, now: UnixTime) -> Result<Usage, IpamError> {
        usage(&self.ledger, self.ground(protocol), now).await
    }

    fn ground(&self, protocol: Protocol) -> &Ground {
        &self.grounds[PROTOCOLS.iter().position(|of| *of == protocol).unwrap_or(0)]
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

async fn claim<T: Item>(
    ledger: &Ledger,
    ground: &Ground,
    owner: &LeaseOwner,
    wanted: Option<T>,
    now: UnixTime,
) -> Result<NumberLease<T>, ClaimError<T>> {
    let want = Want { owner, purpose: Use::Endpoint, exact: wanted.map(|wanted| (0, wanted.number())) };
    let outcome = ledger.claim(ground, &[want], now).await?.and_then(|outcomes| outcomes.first().copied());
    let refusal = match (outcome, wanted) {
        (Some(Outcome::Granted(held)), _) => {
            if let Some(lease) = lease(owner, held) {
                return Ok(lease);
            }
            None
        }
        (Some(Outcome::Full { used, resting }), _) => {
            Some(ClaimRefusal::Exhausted { pool: T::pool(ground), in_use: used, resting })
        }
        (Some(Outcome::Taken), Some(wanted)) => Some(ClaimRefusal::Taken { wanted }),
        (Some(Outcome::Resting(until)), Some(wanted)) => Some(ClaimRefusal::Resting { wanted, until }),
        (Some(Outcome::Other(held)), Some(wanted)) => T::of(held.number).map(|has| ClaimRefusal::Other { wanted, has }),
        _ => None,
    };
    Err(refusal.map_or(ClaimError::Failed(IpamError::Contended { attempts: 1 }), ClaimError::Refused))
}

async fn release<T: Item>(
    ledger: &Ledger,
    ground: &Ground,
    lease: &NumberLease<T>,
    now: UnixTime,
) -> Result<Release, IpamError> {
    let of = Return { owner: &lease.owner, generation: lease.generation, of: Some((0, lease.item.number())) };
    let answers = ledger.release(ground, &[of], now).await?;
    answers.and_then(|answers| answers.first().copied()).ok_or(IpamError::Contended { attempts: 1 })
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
