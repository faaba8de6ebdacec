//! nf_tables as the holder of services.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::sync::Arc;

use overlay_core::{
    Amended, Applied, Backend, BackendError, ErrorKind, Lower, Memo, Meter, Owner, Refusal, StepError, Witness,
};
use overlay_kernel::Namespace;
use overlay_kernel::conntrack::Conntrack;
use overlay_kernel::link::KernelLocals;
use overlay_kernel::nft::{self, Nft, Set, Writers};

use super::amend::Last;
use super::standing::{self, Standing};
use super::{Meaning, Native, NativeStep, Withdrawn, in_runs, lower, owner_of};
use crate::{Capabilities, Readings, State};

/// Holds a [`State`] in a Linux kernel: nf_tables of one namespace, in a table of its owner's own.
///
/// The destination of a flow's first packet is translated, where the client is: on its way out of the namespace, and on its way
/// in where the namespace forwards for others. The source stays. Connection tracking remembers the choice, so a replica that
/// drains keeps its flows; when one goes, or is down, its flows are cut, and a table named `withdrawn` says so until
/// it is done: see [`Native`]. A TCP connection that was cut is reset when the client next speaks, a UDP flow goes to another
/// replica.
///
/// A service is elements of maps: there is no chain and no rule for one, and a change costs what changed. Its slots are a table of
/// its class: as many as its replicas weigh together, where these are 16 or fewer, and else 64, 256, 1,024 or 4,096,
/// four for each replica at least, dealt by weight as evenly as they can be. *Round robin* takes turns among all flows of a class
/// of services, so it is even over many flows, but one service's own flows do not go to its replicas in turn. *Maglev* and *source hash* have a
/// Maglev table of the class's size: with so few slots shares differ by up to a quarter. Schedulers that count flows, and timeouts, are refused:
/// see [`capabilities`](Self::capabilities).
///
/// A published service's rules ask for addresses that are the namespace's own, and not loopback's or IPv6's of a link: whoever listens there is not asked, and where no
/// replica is left, who asks is refused. Flows that [arrive](crate::Arrivals) from such a service elsewhere are marked, they and their answers.
/// *Affinity* is a map that rules fill, from a client and a place to the replica that it got: 65,535 clients of each kind at most, and who
/// comes then is not remembered. It is of each port by itself, of all ports together where a service has all. When a replica drains or goes, who came to it
/// is forgotten before flows are cut; in the moment between, a client may come to it still.
///
/// Its [`Meter`] counts the flows of replicas by connection tracking.
///
/// | hook | chain | priority |
/// |---|---|---|
/// | prerouting, output | `arriving`, `own`: translation | -108 |
/// | postrouting, with published services that masquerade | `leaving` | 92 |
/// | prerouting | `zones`: flows that arrive are known by who sent them here | -300 |
/// | prerouting, output | `arrivals`, `answers`: the marks of flows that arrive, and what may not arrive | -150 |
/// | prerouting, output, with affinity | `remember-arriving`, `remember-own` | -99 |
/// | input, for VIPs that are the namespace's own, and published ports | `refuse-input`: what no service takes | -20 |
/// | forward, output, for others | `refuse-forward`, `refuse-output` | -20 |
///
/// It needs `CAP_NET_ADMIN` over the namespace.
///
/// ```no_run
/// use overlay_core::{EndpointId, Owner, Port, Protocol, Shadow, reconcile};
/// use overlay_kernel::Namespace;
/// use overlay_lb::kernel::Nftables;
/// use overlay_lb::{Replica, Service, State};
///
/// let owner = Owner::new("demo".parse()?, "client".parse()?);
/// let mut container = Shadow::new(Nftables::open(&owner, Namespace::open("/run/netns/client")?)?);
/// let mut web = Service::new(["10.0.9.100".parse()?]).port(Protocol::Tcp, Port::new(80)?, Port::new(8080)?);
/// web.replicas.insert(EndpointId::from_bytes([1; 16]), Replica::new(["10.0.9.2".parse()?]));
/// let sources = [("10.0.9.100".parse()?, "10.0.9.5".parse()?)].into_iter().collect();
/// let services = [("web".parse()?, web)].into_iter().collect();
/// print!("{}", reconcile(&mut container, &State { services, sources, ..State::default() })?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Nftables {
    nft: Nft,
    locals: KernelLocals,
    flows: Conntrack,
}

impl Nftables {
    /// The most replicas of one service.
    pub const MAX_REPLICAS: usize = Capabilities::NF_TABLES_REPLICAS;

    /// Works in this namespace. Its tables are those of an owner of its own, whose instance is that of `owner` with `-lb` behind it: so
    /// a firewall of the same owner in the same namespace does not take them for its own.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] if it may not be entered, [`Invalid`](ErrorKind::Invalid) if the instance's
    /// name is longer than 60 bytes.
    pub fn open(owner: &Owner, namespace: Namespace) -> Result<Self, BackendError> {
        let owner = owner_of(owner, "lb")?;
        let (nft, flows) = (Nft::open(&owner, &namespace)?, Conntrack::open(&namespace)?);
        Ok(Self { nft, flows, locals: KernelLocals::open(namespace)? })
    }

    /// The same beside others that write tables of the namespace: what they do is no disturbance, see [`Writers`].
    #[must_use]
    pub fn among(self, writers: &Writers) -> Self {
        Self { nft: self.nft.among(writers), ..self }
    }

    /// What it can express.
    pub fn capabilities() -> Capabilities {
        Capabilities::nf_tables()
    }

    /// The sets of such a name that the kernel has for us, of each family.
    fn pair(&mut self, name: &str) -> Result<[Option<Set>; 2], BackendError> {
        let invalid = |refusal: Refusal| BackendError::new(ErrorKind::Invalid, "name a set").caused_by(refusal);
        let key = lower::key().map_err(invalid)?;
        let [v4, v6] = ["4", "6"].map(|family| lower::name(&format!("{name}{family}")).map_err(invalid));
        Ok([self.nft.set(&key, &v4?)?, self.nft.set(&key, &v6?)?])
    }

    /// Forgets which clients came to those that take no new flows any more: before flows are cut, which would find their way back.
    fn forget(&mut self, withdrawn: &Withdrawn) -> Result<(), BackendError> {
        for map in &withdrawn.remembered {
            let Some(vouching) = lower::vouching(map) else { continue };
            let key = lower::key()
                .map_err(|refusal| BackendError::new(ErrorKind::Invalid, "name a table").caused_by(refusal))?;
            match self.nft.prune(&key, map, &vouching) {
                Err(error) if error.kind() != ErrorKind::Gone => return Err(error),
                _ => {} // the map went by itself
            }
        }
        Ok(())
    }

    /// Carries out the steps from here on that are of one kind.
    fn some(&mut self, steps: &[NativeStep]) -> Result<usize, StepError> {
        match steps {
            [NativeStep::Cut(withdrawn), ..] => {
                let cut = self.forget(withdrawn).and_then(|()| {
                    let standing = LazyCell::new(|| Standing::new(&withdrawn.meaning, withdrawn));
                    self.flows.cut(|flow| standing.lacks(withdrawn, flow))
                });
                cut.map(|_| 1).map_err(|source| StepError { at: 0, applied: Applied::Nothing, source })
            }
            [NativeStep::Local(_), ..] => {
                let these: Vec<_> = steps.iter().map_while(of_locals).cloned().collect();
                self.locals.apply(&these).map(|()| these.len())
            }
            _ => {
                let these: Vec<_> = steps.iter().map_while(of_tables).cloned().collect();
                self.nft.apply(&these).map(|()| these.len())
            }
        }
    }
}

const fn of_tables(step: &NativeStep) -> Option<&nft::Step> {
    match step {
        NativeStep::Bury(step) | NativeStep::Tables(step) | NativeStep::Exhume(step) => Some(step),
        NativeStep::Local(_) | NativeStep::Cut(_) => None,
    }
}

const fn of_locals(step: &NativeStep) -> Option<&overlay_kernel::link::LocalStep> {
    match step {
        NativeStep::Local(step) => Some(step),
        _ => None,
    }
}

impl Backend for Nftables {
    type State = Native;

    fn observe(&mut self) -> Result<Native, BackendError> {
        Ok(Native { tables: self.nft.observe()?, locals: self.locals.observe()?, meaning: Meaning::default() })
    }

    fn apply(&mut self, steps: &[NativeStep]) -> Result<(), StepError> {
        in_runs(steps, |rest| self.some(rest))
    }
}

impl Meter for Nftables {
    type Reading = Readings;

    /// The flows that connection tracking has: of the VIPs that are served now, and those from published ports to replicas that these have now,
    /// by the address of the machine's own that was asked. O(flows of the machine + VIPs + published ports with each replica).
    fn read(&mut self) -> Result<Readings, BackendError> {
        let mut readings = Readings::default();
        let translated = self.flows.some(|flow| standing::is_translated(flow) && !flow.has_ended())?;
        if translated.is_empty() {
            return Ok(readings);
        }
        let sets = [self.pair("vips")?, self.pair(lower::REPLICAS)?];
        let sets: Vec<Set> = sets.into_iter().flatten().flatten().collect();
        for flow in translated {
            let ours = sets.iter().any(|set| lower::has_vip(set, flow.original.to) || lower::leads(set, &flow));
            readings.add(flow.original.to, flow.reply.from, ours.into());
        }
        Ok(readings)
    }
}

impl Witness for Nftables {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.locals.watch()?;
        self.nft.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        Ok(self.locals.undisturbed()? && self.nft.undisturbed()?)
    }
}

impl Lower<State> for Nftables {
    type Native = Native;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, Native>, Refusal> {
        overlay_core::State::check(desired)?;
        Self::capabilities().permit(desired)?;
        let meaning = Meaning(Some(Arc::new(desired.clone())));
        let tables = lower::tables(&lower::Wanted::all(desired))?;
        Ok(Cow::Owned(Native { tables, locals: lower::locals(desired), meaning }))
    }

    fn remember(&self, desired: &State) -> Option<Memo> {
        Some(Memo::new(Last::new(desired)))
    }

    /// Services that differ are lowered without the rest, as long as the classes of all are the same. O(m log n) for m of n
    /// where the values share the rest.
    fn amend(&self, memo: &Memo, native: &Native, desired: &State) -> Option<Amended<NativeStep>> {
        let (steps, last) = memo.of::<Last>()?.amend(native, desired)?;
        Some(Amended { steps, memo: Memo::new(last) })
    }
}

const _: () = assert!(Nftables::MAX_REPLICAS * lower::SLOTS_EACH == 4096, "the largest class has slots for all");
