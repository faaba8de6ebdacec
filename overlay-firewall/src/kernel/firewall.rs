//! The kernel as the holder of what is allowed.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_core::{Amended, Applied, Backend, BackendError, Lower, Memo, Meter, Owner, Refusal, StepError, Witness};
use overlay_kernel::Namespace;
use overlay_kernel::conntrack::Conntrack;
use overlay_kernel::nft::{self, Nft, Reading, Writers};

use super::amend::Last;
use super::{BridgeNf, Meaning, Native, NativeStep, lower};
use crate::State;

/// Holds a [`State`] in the kernel: nf_tables of one place, in tables of its owner's own.
///
/// All rules of a place change in one transaction: packets see all of a change or nothing. Elements of sets carry what comes
/// and goes; there is no chain for a network, an endpoint or a port. When permissions go, the flows that they had let
/// begin are cut after the rules have changed, and a table named `withdrawn` says so until it is done: see
/// [`Native`].
///
/// Nothing in other programs' tables is changed, and what they drop stays dropped: [`obstacles`](Self::obstacles) finds
/// what of theirs is in the way. Chains stand at these priorities, between which there is room for an administrator's own
/// chains, in tables of his own, which are never touched: what these drop is gone, whatever is allowed here. One chain of
/// our table is his too, if [`State::admin`] says so: it decides before ours.
///
/// | hook | chain | priority |
/// |---|---|---|
/// | prerouting | `raw`: lies and routes into networks | -300 |
/// | | `sources`: of published ports | -115 |
/// | | `publish` | -105 |
/// | forward | `forward`, or `policies` in a sandbox | -5 |
/// | input, output | `input`, `output`: tunnels, ESP, limits | -300 |
/// | output | `publish-own` | -105 |
/// | postrouting | `masquerading` | 100 |
/// | bridge: prerouting, forward, input | `ingress`, `bridged`, `local`: pinned ports | -300 |
///
/// It needs `CAP_NET_ADMIN` over the namespace.
///
/// ```no_run
/// use overlay_core::{Owner, Shadow, reconcile};
/// use overlay_firewall::{Firewall, Gateway, State};
/// use overlay_kernel::Namespace;
///
/// let owner = Owner::new("demo".parse()?, "node-1".parse()?);
/// let mut host = Shadow::new(Firewall::of_host(&owner, Namespace::current()?)?);
/// let mut wanted = State::default();
/// wanted.gateways.insert("ovgw0".parse()?, Gateway::new(["172.18.0.0/24".parse()?]));
/// print!("{}", reconcile(&mut host, &wanted)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Who keeps the value and changes it a little has that brought to the kernel at the cost of what changed. Another program
/// that changes its own tables at the same moment makes it come second; then it tries again:
///
/// ```no_run
/// use std::time::Duration;
/// use overlay_core::{ReconcileError, Shadow, reconcile};
/// use overlay_firewall::{Firewall, State};
///
/// fn settle(host: &mut Shadow<Firewall>, wanted: &State) -> Result<(), ReconcileError> {
///     let mut patience = Duration::from_micros(500); // not the same in every process
///     for _ in 0..10 {
///         match reconcile(host, wanted) {
///             Err(error) if error.is_interrupted() => std::thread::sleep(patience),
///             done => return done.map(drop),
///         }
///         patience *= 2;
///     }
///     reconcile(host, wanted).map(drop)
/// }
/// ```
#[derive(Debug)]
pub struct Firewall {
    pub(super) nft: Nft,
    flows: Conntrack,
    namespace: Namespace,
    bridges: Bridges,
}

/// What this firewall may say to the bridges of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bridges {
    /// Nothing: they are a host's, and others' too.
    Foreign,
    /// Nothing, for they cannot hand packets to the IP hooks.
    Unable,
    /// Where their packets go; this is what they were last seen to do.
    Ours(Option<BridgeNf>),
}

/// What the counters of rules have counted, by the id of the rule, since their chain was set last.
pub type Counts = BTreeMap<String, Reading>;

impl Firewall {
    /// Works in the host's namespace, whose bridges' settings it leaves alone: a policy is refused there.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`](overlay_core::ErrorKind::Permission) if it may not be entered.
    pub fn of_host(owner: &Owner, namespace: Namespace) -> Result<Self, BackendError> {
        let (nft, flows) = (Nft::open(owner, &namespace)?, Conntrack::open(&namespace)?);
        Ok(Self { nft, flows, namespace, bridges: Bridges::Foreign })
    }

    /// Works in a namespace of ours, a sandbox or a container: there `net.bridge.bridge-nf-call-*` is set as the state
    /// needs it. A policy is refused if the kernel has no such settings, until it has them when this is opened anew.
    ///
    /// # Errors
    /// As [`of_host`](Self::of_host).
    pub fn of_sandbox(owner: &Owner, namespace: Namespace) -> Result<Self, BackendError> {
        let able = BridgeNf::read(&namespace)?.is_some();
        let bridges = if able { Bridges::Ours(None) } else { Bridges::Unable };
        Ok(Self { bridges, ..Self::of_host(owner, namespace)? })
    }

    /// The same beside others that write tables of the namespace: what they do is no disturbance, see [`Writers`].
    #[must_use]
    pub fn among(self, writers: &Writers) -> Self {
        Self { nft: self.nft.among(writers), ..self }
    }

    fn bridge_nf(&mut self) -> Result<BridgeNf, BackendError> {
        let Bridges::Ours(seen) = &mut self.bridges else { return Ok(BridgeNf::default()) };
        let found = BridgeNf::read(&self.namespace)?.unwrap_or_default();
        *seen = Some(found);
        Ok(found)
    }

    /// Where bridged packets must go for a state.
    fn bridges_for(&self, state: &State) -> Result<BridgeNf, Refusal> {
        let reason = match (self.bridges, state.policy.is_active()) {
            (Bridges::Foreign, true) => {
                "a policy is about a network's own bridges: it belongs to the network's sandbox"
            }
            (Bridges::Unable, true) => "flows are tracked at bridges by br_netfilter: load that module",
            (Bridges::Ours(_), active) if active || *state == State::default() => return Ok(BridgeNf::Through),
            (Bridges::Ours(_), _) => return Ok(BridgeNf::Around),
            (_, false) => return Ok(BridgeNf::default()),
        };
        Err(Refusal::new("policy", "rules", reason))
    }

    /// Carries out steps that are tables' alone, as one transaction.
    fn change(&mut self, first: usize, steps: &[NativeStep]) -> Result<(), StepError> {
        let steps: Vec<nft::Step> = steps.iter().filter_map(of_tables).cloned().collect();
        self.nft.apply(&steps).map_err(|error| match error.applied {
            Applied::Nothing if first > 0 => StepError { at: first, applied: Applied::Before, ..error },
            _ => StepError { at: first + error.at, ..error },
        })
    }

    fn carry_out(&mut self, step: &NativeStep) -> Result<(), BackendError> {
        match step {
            NativeStep::SetBridgeNf(to) => {
                if let Bridges::Ours(seen) = &mut self.bridges {
                    *seen = None;
                    to.write(&self.namespace)?;
                    *seen = Some(*to);
                }
                Ok(())
            }
            NativeStep::Cut(withdrawn) => {
                let judge = LazyCell::new(|| withdrawn.meaning.judge());
                self.flows.cut(|flow| withdrawn.goes(&judge, flow)).map(drop)
            }
            NativeStep::Bury(_) | NativeStep::Rules(_) | NativeStep::Exhume(_) => Ok(()),
        }
    }
}

const fn of_tables(step: &NativeStep) -> Option<&nft::Step> {
    match step {
        NativeStep::Bury(step) | NativeStep::Rules(step) | NativeStep::Exhume(step) => Some(step),
        NativeStep::SetBridgeNf(_) | NativeStep::Cut(_) => None,
    }
}

impl Backend for Firewall {
    type State = Native;

    fn observe(&mut self) -> Result<Native, BackendError> {
        let bridge_nf = self.bridge_nf()?;
        Ok(Native { tables: self.nft.observe()?, bridge_nf, meaning: Meaning::default() })
    }

    fn apply(&mut self, steps: &[NativeStep]) -> Result<(), StepError> {
        let mut at = 0;
        while let Some(step) = steps.get(at) {
            let together = steps[at..].iter().take_while(|step| of_tables(step).is_some()).count();
            if together > 0 {
                self.change(at, &steps[at..at + together])?;
                at += together;
                continue;
            }
            let applied = if at == 0 { Applied::Nothing } else { Applied::Before };
            self.carry_out(step).map_err(|source| StepError { at, applied: cautious(step, applied), source })?;
            at += 1;
        }
        Ok(())
    }
}

/// A setting is three files, of which some may be written.
const fn cautious(step: &NativeStep, applied: Applied) -> Applied {
    match step {
        NativeStep::SetBridgeNf(_) => Applied::Unknown,
        _ => applied,
    }
}

impl Witness for Firewall {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.nft.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        let seen = match self.bridges {
            Bridges::Ours(seen) => seen == BridgeNf::read(&self.namespace)?,
            Bridges::Foreign | Bridges::Unable => true,
        };
        Ok(seen && self.nft.undisturbed()?)
    }
}

impl Lower<State> for Firewall {
    type Native = Native;

    fn lower<'d>(&self, desired: &'d State) -> Result<Cow<'d, Native>, Refusal> {
        overlay_core::State::check(desired)?;
        let bridge_nf = self.bridges_for(desired)?;
        let meaning = Meaning(Some(Arc::new(desired.clone())));
        Ok(Cow::Owned(Native { tables: lower::tables(desired)?, bridge_nf, meaning }))
    }

    fn remember(&self, desired: &State) -> Option<Memo> {
        Some(Memo::new(Last::new(desired)))
    }

    /// Bridge ports, published ports and members of a policy that differ are lowered without the rest. O(m log n) for m of n
    /// where the values share the rest; where one was published otherwise or is no more, the published ports are gone
    /// through for others that lead to the same target.
    fn amend(&self, memo: &Memo, native: &Native, desired: &State) -> Option<Amended<NativeStep>> {
        let bridge_nf = self.bridges_for(desired).ok()?;
        let (steps, last) = memo.of::<Last>()?.amend(native, desired)?;
        (bridge_nf == native.bridge_nf).then(|| Amended { steps, memo: Memo::new(last) })
    }
}

impl Meter for Firewall {
    type Reading = Counts;

    fn read(&mut self) -> Result<Counts, BackendError> {
        let mut counts = Counts::new();
        for (key, reading) in self.nft.read()? {
            let count = counts.entry(key.id.into()).or_default();
            count.packets += reading.packets;
            count.bytes += reading.bytes;
        }
        Ok(counts)
    }
}
