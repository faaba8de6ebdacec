//! The kernel as the holder of the protection of tunnels.

use std::borrow::Cow;
use std::collections::BTreeMap;

use overlay_core::{Backend, BackendError, ErrorKind, Lower, Meter, Owner, Refusal, StepError, StepOf, Witness};
use overlay_kernel::Namespace;
use overlay_kernel::xfrm::{self, Reading};

use super::Esp;
use super::lower::{Mark, native_id};
use crate::{SaId, Spi, State, Usage};

/// Holds a [`State`] in the kernel: XFRM of one namespace, which is where tunnels' UDP sockets are.
///
/// | of the value | in XFRM |
/// |---|---|
/// | a guarded port | six policies that block, for each family: UDP to the port, in and out, and from the port, out, with the ICMP errors that would quote what came to it |
/// | an association | an ESP association in transport mode, for UDP from its source to its destination's port alone |
/// | a tunnel | a policy for what arrives, which takes what any association of its opened; one for each lane, by source ports with a mask, which sends by the lane's association |
///
/// A tunnel's policies count before guards, and guards before all policies of a priority from 40,000 on. So whatever goes away,
/// guards block what it let pass: associations that somebody flushes, a tunnel's policies, and all rules of nf_tables, which have no part in it. Guards are
/// the first to come and the last to go. They block what is forwarded to the port, too.
///
/// Sockets with policies of their own (`IP_XFRM_POLICY`) are asked before all that, which needs `CAP_NET_ADMIN`. A VXLAN device keeps
/// the route of a peer for each core, and with it the association that its first datagram took: there, lanes are of cores more than of flows.
///
/// # Keys
///
/// A key is spent by the step that adds its association, and by nothing else: a value that is lowered, a plan that is made,
/// looked at or dropped take no key. If the kernel refuses that step, the key stays as it was, and the next
/// plan may use it. If the kernel's answer is lost, it is spent, for it may be in use.
///
/// What is observed is compared by its parameters, since a kernel tells keys to no one, or only to some. An association is never changed: one that is there with other
/// parameters, or is gone after its key was spent, is an [`ErrorKind::Conflict`] of the step that would put it, and needs another
/// SPI, so another epoch. [`lost`](Self::lost) tells which are gone so.
///
/// # What is refused
///
/// A kernel without ESP for an association, or without any for a guarded port, by name and with the remedy; ESP in UDP. It needs `CAP_NET_ADMIN` over the
/// namespace.
///
/// ```no_run
/// use overlay_core::{Owner, Port, Shadow, reconcile};
/// use overlay_crypto::State;
/// use overlay_crypto::kernel::Xfrm;
/// use overlay_kernel::Namespace;
///
/// let owner = Owner::new("demo".parse()?, "node-1".parse()?);
/// let mut host = Shadow::new(Xfrm::open(&owner, Namespace::current()?)?);
/// let wanted = State { ports: [Port::new(4790)?].into(), ..State::default() };
/// print!("{}", reconcile(&mut host, &wanted)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Xfrm {
    xfrm: xfrm::Xfrm,
    mark: Mark,
    esp: Esp,
}

/// What was counted, by association.
pub type Readings = BTreeMap<SaId, Reading>;

impl Xfrm {
    /// Works in this namespace, and asks the kernel what ESP it has; what it has as modules, it loads.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the kernel has no XFRM, [`ErrorKind::Permission`] if the namespace may not be entered, or without
    /// `CAP_NET_ADMIN`.
    pub fn open(owner: &Owner, namespace: Namespace) -> Result<Self, BackendError> {
        let mark = Mark::new(owner);
        let opened = xfrm::Xfrm::open(namespace, mark.claim());
        let mut xfrm = opened.map_err(|error| match error.kind() {
            ErrorKind::Unsupported => BackendError::new(ErrorKind::Unsupported, NO_XFRM).caused_by(error),
            _ => error,
        })?;
        let esp = Esp::of(&mut xfrm)?;
        Ok(Self { xfrm, mark, esp })
    }

    /// The same, and what ESP the kernel has is believed to be this: what it refuses is then told by the step.
    #[must_use]
    pub fn with_esp(self, esp: Esp) -> Self {
        Self { esp, ..self }
    }

    /// What ESP the kernel has.
    pub const fn esp(&self) -> &Esp {
        &self.esp
    }

    /// What was sealed or opened by each association so far: what [`Rotation::handle_usage`](crate::Rotation::handle_usage) is to hear of. One dump. The kernel tells who
    /// [listens](Namespace::xfrm_hints) when one reaches its [soft limit](crate::Limits).
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn usage(&mut self) -> Result<BTreeMap<SaId, Usage>, BackendError> {
        let read = self.read()?.into_iter();
        Ok(read.map(|(id, reading)| (id, Usage { bytes: reading.bytes, packets: reading.packets })).collect())
    }

    /// Which associations of a value are not there though their keys were put to work: they were flushed, have expired, or the step that
    /// added them had no answer. Each needs a new epoch; until then the value cannot be had. Two dumps.
    ///
    /// # Errors
    /// As [`observe`](Backend::observe).
    pub fn lost(&mut self, desired: &State) -> Result<Vec<SaId>, BackendError> {
        let there = self.observe()?.sas;
        let spent = desired.sas.iter().filter(|(_, sa)| sa.key.is_spent()).map(|(id, _)| *id);
        Ok(spent.filter(|id| !there.contains_key(&native_id(id))).collect())
    }
}

impl Backend for Xfrm {
    type State = xfrm::State;

    fn observe(&mut self) -> Result<xfrm::State, BackendError> {
        self.xfrm.observe()
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        self.xfrm.apply(steps)
    }
}

impl Witness for Xfrm {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.xfrm.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        self.xfrm.undisturbed()
    }
}

impl Lower<State> for Xfrm {
    type Native = xfrm::State;

    /// O(n log n) for n ports, associations and tunnels. Takes no key.
    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, xfrm::State>, Refusal> {
        overlay_core::State::check(desired)?;
        self.esp.permit(desired)?;
        self.mark.lower(desired).map(Cow::Owned)
    }
}

impl Meter for Xfrm {
    type Reading = Readings;

    fn read(&mut self) -> Result<Readings, BackendError> {
        let named = |(id, reading): (xfrm::SaId, Reading)| {
            Some((SaId { destination: id.destination, spi: Spi::new(id.spi).ok()? }, reading))
        };
        Ok(self.xfrm.read()?.into_iter().filter_map(named).collect())
    }
}

const NO_XFRM: &str = "open XFRM, which this kernel lacks: load its module xfrm_user (CONFIG_XFRM_USER)";
