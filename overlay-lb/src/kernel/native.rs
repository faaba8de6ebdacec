//! The native state: tables, VIPs that are the namespace's own, and whether flows are still to be cut.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use overlay_core::{Name, Phase, Refusal, State, in_phases};
use overlay_kernel::conntrack::Flow;
use overlay_kernel::link::{LocalStep, Locals};
use overlay_kernel::nft::{self, Burial, Buried, Cut, Grave, IpProtocol, Set, Table};

use super::lower;

/// What a kernel holds for a [`State`](crate::State) of one place.
///
/// A replica that goes leaves flows that lead to it, which are to be cut: a [`Grave`] with the VIPs that something is taken from, and the replicas that are taken from
/// published ports, says so until it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Native {
    /// Tables, a grave among them if there is one.
    pub tables: nft::State,
    /// VIPs that are the namespace's own.
    pub locals: Locals,
    /// What it all means. Known of what was lowered.
    pub meaning: Meaning,
}

/// The services that tables mean, for judging flows by: no part of what is compared.
#[derive(Clone, Default)]
pub struct Meaning(pub(super) Option<Arc<crate::State>>);

/// One change of a [`Native`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NativeStep {
    /// The grave is dug, for flows that will be cut.
    Bury(nft::Step),
    /// The tables change.
    Tables(nft::Step),
    /// A VIP becomes the namespace's own, or is it no more.
    Local(LocalStep),
    /// Flows that lead to no replica any more are cut.
    Cut(Withdrawn),
    /// The grave goes.
    Exhume(nft::Step),
}

/// What flows are judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    cut: Cut,
    pub(super) meaning: Meaning,
    /// What rules have filled with clients.
    pub(super) remembered: Vec<Name>,
}

impl State for Native {
    type Step = NativeStep;

    /// O(n) for n elements.
    fn plan(&self, desired: &Self) -> Vec<NativeStep> {
        let buried = grave().map(|grave| grave.plan(&self.tables, &desired.tables, &Replicas));
        let mut steps = buried.map_or_else(Vec::new, |buried| steps_of(&self.tables, buried, &desired.meaning));
        steps.extend(self.locals.plan(&desired.locals).into_iter().map(NativeStep::Local));
        in_phases::<Self>(steps)
    }

    fn apply(&mut self, step: &NativeStep) {
        match step {
            NativeStep::Bury(step) | NativeStep::Tables(step) | NativeStep::Exhume(step) => self.tables.apply(step),
            NativeStep::Local(step) => self.locals.apply(step),
            NativeStep::Cut(_) => {} // it changes flows, which are no state
        }
    }

    fn phase(step: &NativeStep) -> Phase {
        match step {
            // In one transaction with the change, as nothing comes in between.
            NativeStep::Bury(step) | NativeStep::Tables(step) => nft::State::phase(step),
            NativeStep::Local(step) => Locals::phase(step),
            NativeStep::Cut(withdrawn) if !withdrawn.cut.last => Phase::Close,
            NativeStep::Cut(_) | NativeStep::Exhume(_) => Phase::Unguard,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        self.tables.check().and_then(|()| self.locals.check())
    }
}

/// A change of tables, and what must be done before and after it for flows that lead to no replica any more.
pub(super) fn around(now: &nft::State, change: Vec<nft::Step>, meaning: &Meaning) -> Vec<NativeStep> {
    let buried = grave().map(|grave| grave.around(now, change, None, &Replicas));
    buried.map_or_else(Vec::new, |buried| steps_of(now, buried, meaning))
}

fn steps_of(now: &nft::State, Buried { dig, change, cut, exhume }: Buried, meaning: &Meaning) -> Vec<NativeStep> {
    let cut = cut.map(|cut| {
        let sets = lower::key().ok().and_then(|key| now.tables.get(&key)).map(|table| &table.sets);
        let filled = sets.into_iter().flat_map(|sets| sets.keys()).filter(|set| lower::vouching(set).is_some());
        NativeStep::Cut(Withdrawn { cut, meaning: meaning.clone(), remembered: filled.cloned().collect() })
    });
    let steps = dig.into_iter().map(NativeStep::Bury).chain(change.into_iter().map(NativeStep::Tables));
    steps.chain(cut).chain(exhume.into_iter().map(NativeStep::Exhume)).collect()
}

/// Where it is written down that flows are to be cut. Names that are fixed are names.
fn grave() -> Option<Grave> {
    lower::key().ok().zip(lower::grave().ok()).map(|(table, grave)| Grave { table, grave })
}

/// Of replicas that go, the VIPs that they were behind are buried. A VIP's flows are all ours; those from a port of the machine's own may be anybody's, so
/// there the replicas are buried themselves.
struct Replicas;

impl Burial for Replicas {
    /// Whether a change may take a replica away: what takes new flows, drains, or is come back to.
    fn withdraws(&self, step: &nft::Step) -> bool {
        use nft::Step::*;
        match step {
            TakeElements(_, set, _) | EmptySet(_, set) | ClearSet(_, set) | RemoveSet(_, set) => {
                self.is_remembered(set)
            }
            ClearTable(_) | RemoveTable(_) => true,
            _ => false,
        }
    }

    fn is_remembered(&self, set: &Name) -> bool {
        let set = set.as_str();
        let kinds = ["slots", "drains", "stays", lower::REPLICAS];
        kinds.iter().any(|kind| set.starts_with(kind)) && !set.starts_with("slots-published")
    }

    fn bury(&self, grave: &mut Table, _: &Name, lost: &Set) {
        let vips = || lost.first_parts(1);
        let (name, lost) = match () {
            () if lost.has_keys::<lower::Published<Ipv4Addr>>() => ("published4", lost.clone()),
            () if lost.has_keys::<lower::Published<Ipv6Addr>>() => ("published6", lost.clone()),
            () if vips().has_keys::<Ipv4Addr>() => ("vips4", vips()),
            () => ("vips6", vips()),
        };
        let Ok(name) = lower::name(name) else { return };
        match grave.sets.get_mut(&name) {
            Some(set) => set.absorb(lost),
            None if lost.is_empty() => {}
            None => drop(grave.sets.insert(name, lost)),
        }
    }
}

impl Withdrawn {
    /// The published ports that something was taken from, in sets of these.
    pub(super) fn ports(&self) -> Vec<Set> {
        let published = |set: &&Set| set.first_parts(1).has_keys::<IpProtocol>();
        self.cut.grave.sets.values().filter(published).map(|set| set.first_parts(2)).collect()
    }

    /// Whether a flow goes from a published port to a replica that was taken from it.
    pub(super) fn has_taken_from(&self, flow: &Flow) -> bool {
        self.cut.grave.sets.values().any(|set| lower::leads(set, flow))
    }

    /// Whether something was taken from a VIP.
    pub(super) fn is_about(&self, vip: IpAddr) -> bool {
        self.cut.grave.sets.values().any(|set| lower::has_vip(set, vip))
    }
}

impl PartialEq for Meaning {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Meaning {}

impl fmt::Debug for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Meaning(known)" } else { "Meaning(unknown)" })
    }
}

impl fmt::Display for NativeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bury(step) | Self::Tables(step) | Self::Exhume(step) => step.fmt(f),
            Self::Local(step) => step.fmt(f),
            Self::Cut(_) => f.write_str("cut flows that lead to no replica any more"),
        }
    }
}
