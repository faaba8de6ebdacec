//! The kernel as the holder of native tables.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use overlay_core::{Backend, BackendError, Lower, Meter, Name, Owner, Refusal, StepError, StepOf, Witness};

use super::wire::{self, At};
use super::{State, TableKey, Writers, carry, observe};
use crate::Namespace;
use crate::netlink::{Buffers, Family, NetlinkError, Socket};

/// Holds a [`State`] in the kernel: the tables of one namespace that carry an [`Owner`]'s mark in their names. It touches
/// no others.
///
/// An apply is one transaction. Where it does not fit the socket's buffer (which grows with `CAP_NET_ADMIN` in the first
/// user namespace; elsewhere `net.core.wmem_max` bounds it), new sets are loaded ahead, where nothing leads to them yet,
/// and the switch is one transaction still; if that alone is too large, it is refused with
/// [`ErrorKind::Limit`](overlay_core::ErrorKind::Limit) before anything is sent: give a set that changes wholly another
/// name instead.
///
/// What was planned from an observation is applied only if nobody changed any table since, ours or another's: the kernel
/// compares generations under the lock of the transaction. Otherwise it is
/// [`ErrorKind::Interrupted`](overlay_core::ErrorKind::Interrupted), nothing is in effect, and reconciling again helps.
///
/// In a place with [links](crate::link) too, tables come after them: a `netdev` chain wants its device, and tables are there
/// before devices are raised.
///
/// Its [`Meter`] reads counters. It needs `CAP_NET_ADMIN` over the namespace.
///
/// ```no_run
/// use overlay_core::{Owner, Shadow, reconcile};
/// use overlay_kernel::Namespace;
/// use overlay_kernel::nft::{Base, Chain, Family, Hook, Nft, Rule, State, Table, TableKey, meta};
///
/// let owner = Owner::new("demo".parse()?, "a".parse()?);
/// let mut nft = Shadow::new(Nft::open(&owner, &Namespace::create()?)?);
/// let mut table = Table::default();
/// let loopback = Rule::new("loopback")?.eq(&meta::IIFNAME, "lo".parse()?).accept();
/// table.chains.insert("input".parse()?, Chain::base(Base::filter(Hook::Input, 0).or_drop(), vec![loopback]));
/// let wanted = State { tables: [(TableKey::new(Family::Inet, "fw".parse()?), table)].into() };
/// print!("{}", reconcile(&mut nft, &wanted)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Nft {
    pub(super) mark: Mark,
    pub(super) socket: Socket,
    /// The generation of what was observed last, if only we have made others since.
    pub(super) generation: Option<u32>,
    /// The chains of devices that were there then: kernels before 6.16 take them along with their device, and make no
    /// new generation for it.
    pub(super) hooked: BTreeSet<(TableKey, Name)>,
    pub(super) writers: Writers,
}

impl Nft {
    /// Works in `namespace`.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`](overlay_core::ErrorKind::Permission) if it may not be entered.
    pub fn open(owner: &Owner, namespace: &Namespace) -> Result<Self, BackendError> {
        Self::with_buffers(owner, namespace, Buffers::default())
    }

    /// The same with socket buffers of a chosen size, where they may be had.
    pub fn with_buffers(owner: &Owner, namespace: &Namespace, buffers: Buffers) -> Result<Self, BackendError> {
        let socket = namespace.run(|| Socket::with_buffers(Family::Netfilter, buffers))?;
        let socket = socket.map_err(|error| error.during(format!("open nf_tables in {}", namespace.id())))?;
        Ok(Self {
            mark: Mark::of(owner),
            socket,
            generation: None,
            hooked: BTreeSet::new(),
            writers: Writers::default(),
        })
    }

    /// The same beside others that write tables of this namespace, none of them ours: what they do is no disturbance.
    #[must_use]
    pub fn among(self, writers: &Writers) -> Self {
        Self { writers: writers.clone(), ..self }
    }

    /// The name in the kernel of one of our tables: for `nft list table`.
    pub fn kernel_name(&self, table: &TableKey) -> String {
        self.mark.table(&table.name)
    }

    /// The generation of the namespace's tables, now.
    pub(super) fn now(&mut self) -> Result<u32, NetlinkError> {
        let found = self.socket.ask(&wire::generation(), wire::parse_generation)?;
        found.into_iter().next().ok_or_else(|| crate::netlink::Malformed::new("no generation").into())
    }
}

impl Backend for Nft {
    type State = State;

    fn observe(&mut self) -> Result<State, BackendError> {
        observe::state(self)
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        carry::out(self, steps)
    }
}

impl Witness for Nft {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.generation = None; // until the next observation
        Ok(())
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        let Some(known) = self.generation.map(|known| self.writers.since(known)) else { return Ok(false) };
        let now = self.now().map_err(|error| error.during("read nf_tables' generation"))?;
        self.generation = Some(known);
        Ok(now == known && observe::are_hooked(self).map_err(|error| error.during("read chains"))?)
    }
}

impl Lower<State> for Nft {
    type Native = State;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, State>, Refusal> {
        Ok(Cow::Borrowed(desired))
    }
}

/// What a rule's counter has counted since its chain's rules were set last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Packets that came as far.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The counters of all our rules that have one; of one with several, the last.
pub type Readings = BTreeMap<RuleKey, Reading>;

/// A rule by where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleKey {
    /// Its table.
    pub table: TableKey,
    /// Its chain.
    pub chain: Name,
    /// Its place there, from 0 on.
    pub place: usize,
    /// Its id.
    pub id: Box<str>,
}

impl Meter for Nft {
    type Reading = Readings;

    fn read(&mut self) -> Result<Readings, BackendError> {
        observe::readings(self).map_err(|error| error.during("read counters"))
    }
}

/// How tables of an owner are known: by their names.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    prefix: String,
    /// Whose they are, for people.
    pub(super) comment: String,
}

impl Mark {
    pub(super) fn of(owner: &Owner) -> Self {
        Self { prefix: format!("ov-{:016x}-", owner.tag()), comment: owner.to_string() }
    }

    pub(super) fn table(&self, name: &Name) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The comment of a rule of ours in somebody else's chain.
    pub(super) fn comment_of(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }

    /// The id of a rule of ours in somebody else's chain, by its comment; nothing for others.
    pub(super) fn id_of<'c>(&self, comment: &'c str) -> Option<&'c str> {
        comment.strip_prefix(&self.prefix)
    }

    /// Our name for a table of ours; nothing for others.
    pub(super) fn name(&self, table: &str) -> Option<Result<Name, ()>> {
        table.strip_prefix(&self.prefix).map(|name| name.parse().map_err(drop))
    }

    pub(super) const fn at<'a>(&self, key: &TableKey, table: &'a str) -> At<'a> {
        At { family: key.family, table }
    }
}
