//! The native state: tables, VIPs that are the namespace's own, and whether flows are still to be cut.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use overlay_core::{Name, Phase, Refusal, State, in_phases};
use overlay_kernel::link::{LocalStep, Locals};
use overlay_kernel::nft::{self, Set, Table};

use super::lower;

/// What a kernel holds for a [`State`](crate::State) of one place.
///
/// A replica that goes leaves flows that lead to it, and whether those are cut cannot be read back. So a *grave* is dug first:
/// a table of ours that packets never see, with the VIPs that something is taken from. Then the tables change, the
/// flows are cut, and the grave goes. Whoever finds a grave cuts, and so a crash anywhere is made good.
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
    pub(super) grave: Table,
    pub(super) meaning: Meaning,
    /// What rules have filled with clients.
    pub(super) remembered: Vec<Name>,
    /// Whether the table goes, which it does last: no flow may begin after those before it were cut.
    last: bool,
}

impl State for Native {
    type Step = NativeStep;

    /// O(n) for n elements.
    fn plan(&self, desired: &Self) -> Vec<NativeStep> {
        let grave = lower::grave().ok();
        let mut tables = self.tables.plan(&desired.tables);
        tables.retain(|step| Some(step.table()) != grave.as_ref());
        let held = |tables: &nft::State| grave.as_ref().and_then(|key| tables.tables.get(key)).cloned();
        let (dug, wanted) = (held(&self.tables), held(&desired.tables));
        let dug = dug.filter(|_| !tables.is_empty() || wanted.is_none());
        let mut steps = around(&self.tables, tables, dug, &desired.meaning);
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
            NativeStep::Bury(_) => Phase::Guard,
            NativeStep::Tables(step) => nft::State::phase(step),
            NativeStep::Local(step) => Locals::phase(step),
            NativeStep::Cut(withdrawn) if !withdrawn.last => Phase::Close,
            NativeStep::Cut(_) | NativeStep::Exhume(_) => Phase::Unguard,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        self.tables.check().and_then(|()| self.locals.check())
    }
}

/// A change of tables, and what must be done before and after it for flows that lead to no replica any more.
pub(super) fn around(
    now: &nft::State,
    tables: Vec<nft::Step>,
    grave: Option<Table>,
    meaning: &Meaning,
) -> Vec<NativeStep> {
    if grave.is_none() && !tables.iter().any(withdraws) {
        return tables.into_iter().map(NativeStep::Tables).collect();
    }
    let (before, dug) = (graveyard(grave.clone()), dig(grave.unwrap_or_default(), now, &tables));
    let after = graveyard(Some(dug.clone()));
    let mut steps: Vec<_> = before.plan(&after).into_iter().map(NativeStep::Bury).collect();
    let last = tables.iter().any(|step| matches!(step, nft::Step::RemoveTable(_)));
    steps.extend(tables.into_iter().map(NativeStep::Tables));
    let sets = lower::key().ok().and_then(|key| now.tables.get(&key)).map(|table| &table.sets);
    let remembered = sets.into_iter().flat_map(|sets| sets.keys()).filter(|set| lower::vouching(set).is_some());
    let remembered = remembered.cloned().collect();
    steps.push(NativeStep::Cut(Withdrawn { grave: dug, meaning: meaning.clone(), remembered, last }));
    steps.extend(after.plan(&graveyard(None)).into_iter().map(NativeStep::Exhume));
    steps
}

fn graveyard(grave: Option<Table>) -> nft::State {
    let tables = lower::grave().ok().zip(grave);
    nft::State { tables: tables.into_iter().collect() }
}

/// Whether a change of tables may take a replica away: what takes new flows, or drains.
fn withdraws(step: &nft::Step) -> bool {
    use nft::Step::*;
    let of_services = lower::key().is_ok_and(|key| key == *step.table());
    of_services
        && match step {
            TakeElements(_, set, _) | EmptySet(_, set) | ClearSet(_, set) | RemoveSet(_, set) => leads(set),
            ClearTable(_) | RemoveTable(_) => true,
            _ => false,
        }
}

/// Whether a set or map has replicas in it: those that get flows, that keep them, or that clients come back to.
fn leads(set: &Name) -> bool {
    ["slots", "drains", "stays"].iter().any(|kind| set.as_str().starts_with(kind))
}

/// A grave with what it had, and with the VIPs that a change takes something from.
fn dig(mut grave: Table, now: &nft::State, steps: &[nft::Step]) -> Table {
    let key = lower::key().ok();
    let steps = steps.iter().filter(|step| Some(step.table()) == key.as_ref());
    let sets = key.as_ref().and_then(|key| now.tables.get(key)).map(|table| &table.sets);
    for vips in steps.flat_map(|step| sets.into_iter().flat_map(|sets| taken(sets, step))) {
        let name = if vips.has_keys::<Ipv4Addr>() { "vips4" } else { "vips6" };
        let Ok(name) = lower::name(name) else { continue };
        match grave.sets.get_mut(&name) {
            Some(set) => set.absorb(vips),
            None if vips.is_empty() => {}
            None => drop(grave.sets.insert(name, vips)),
        }
    }
    grave
}

/// The VIPs that a step takes something from.
fn taken(sets: &BTreeMap<Name, Set>, step: &nft::Step) -> Vec<Set> {
    use nft::Step::*;
    let all = |only: Option<&Name>| -> Vec<Set> {
        let sets = sets.iter().filter(|(name, _)| leads(name) && only.is_none_or(|only| only == *name));
        sets.map(|(_, set)| set.first_parts()).collect()
    };
    match step {
        TakeElements(_, name, elements) => {
            let set = sets.get(name).filter(|_| leads(name));
            set.map(|set| set.only(elements).first_parts()).into_iter().collect()
        }
        EmptySet(_, name) | ClearSet(_, name) | RemoveSet(_, name) => all(Some(name)),
        ClearTable(_) | RemoveTable(_) => all(None),
        _ => Vec::new(),
    }
}

impl Withdrawn {
    /// Whether something was taken from a VIP.
    pub(super) fn is_about(&self, vip: IpAddr) -> bool {
        self.grave.sets.values().any(|set| match vip {
            IpAddr::V4(vip) => set.contains::<Ipv4Addr>(&vip),
            IpAddr::V6(vip) => set.contains::<Ipv6Addr>(&vip),
        })
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
