//! The native state: tables, what bridges do, and whether flows are still to be cut.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use overlay_core::{Name, Phase, Refusal, State, in_phases};
use overlay_kernel::nft::{self, Set, Table};

use super::{BridgeNf, lower};
use crate::Judge;

/// What a kernel holds for a [`State`](crate::State) of one place.
///
/// A permission that goes leaves flows that it had let begin, and whether those are cut cannot be read back. So a *grave*
/// is dug first: a table of ours that packets never see, with the addresses that the old rules were about. Then the rules
/// change, the flows are cut, and the grave goes. Whoever finds a grave cuts, and so a crash anywhere is made good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Native {
    /// Tables, a grave among them if there is one.
    pub tables: nft::State,
    /// Whether bridged packets are seen by rules about flows.
    pub bridge_nf: BridgeNf,
    /// What it all means. Known of what was lowered.
    pub meaning: Meaning,
}

/// What tables mean, for judging flows by: no part of what is compared.
#[derive(Clone, Default)]
pub struct Meaning(pub(super) Option<Arc<crate::State>>);

/// One change of a [`Native`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NativeStep {
    /// The grave is dug, for flows that will be cut.
    Bury(nft::Step),
    /// What bridges do changes.
    SetBridgeNf(BridgeNf),
    /// The rules change.
    Rules(nft::Step),
    /// Flows that nothing permits any more are cut.
    Cut(Withdrawn),
    /// The grave goes.
    Exhume(nft::Step),
}

/// What flows are judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    pub(super) grave: Table,
    pub(super) meaning: Meaning,
    /// Whether a table goes, which it does last: no flow may begin after those before it were cut.
    last: bool,
}

impl State for Native {
    type Step = NativeStep;

    /// O(n) for n rules and elements.
    fn plan(&self, desired: &Self) -> Vec<NativeStep> {
        let grave = lower::grave().ok();
        let mut rules = self.tables.plan(&desired.tables);
        rules.retain(|step| Some(step.table()) != grave.as_ref());
        let held = |tables: &nft::State| grave.as_ref().and_then(|key| tables.tables.get(key)).cloned();
        let (dug, wanted) = (held(&self.tables), held(&desired.tables));
        let dug = dug.filter(|_| !rules.is_empty() || wanted.is_none());
        let mut steps = around(&self.tables, rules, dug, &desired.meaning);
        if self.bridge_nf != desired.bridge_nf {
            steps.push(NativeStep::SetBridgeNf(desired.bridge_nf));
        }
        in_phases::<Self>(steps)
    }

    fn apply(&mut self, step: &NativeStep) {
        match step {
            NativeStep::Bury(step) | NativeStep::Rules(step) | NativeStep::Exhume(step) => self.tables.apply(step),
            NativeStep::SetBridgeNf(to) => self.bridge_nf = *to,
            NativeStep::Cut(_) => {} // it changes flows, which are no state
        }
    }

    fn phase(step: &NativeStep) -> Phase {
        match step {
            NativeStep::Bury(_) | NativeStep::SetBridgeNf(BridgeNf::Through | BridgeNf::Mixed) => Phase::Guard,
            NativeStep::Rules(step) => nft::State::phase(step),
            NativeStep::Cut(withdrawn) if !withdrawn.last => Phase::Close,
            NativeStep::Cut(_) | NativeStep::Exhume(_) | NativeStep::SetBridgeNf(BridgeNf::Around) => Phase::Unguard,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        self.tables.check()
    }
}

/// A change of rules, and what must be done before and after it for flows that they permit no more.
pub(super) fn around(
    now: &nft::State,
    rules: Vec<nft::Step>,
    grave: Option<Table>,
    meaning: &Meaning,
) -> Vec<NativeStep> {
    if grave.is_none() && !rules.iter().any(|step| meaning.withdraws(step)) {
        return rules.into_iter().map(NativeStep::Rules).collect();
    }
    let (before, dug) = (graveyard(grave.clone()), dig(grave.unwrap_or_default(), now, &rules));
    let after = graveyard(Some(dug.clone()));
    let mut steps: Vec<_> = before.plan(&after).into_iter().map(NativeStep::Bury).collect();
    let last = rules.iter().any(|step| matches!(step, nft::Step::RemoveTable(_)));
    steps.extend(rules.into_iter().map(NativeStep::Rules));
    steps.push(NativeStep::Cut(Withdrawn { grave: dug, meaning: meaning.clone(), last }));
    steps.extend(after.plan(&graveyard(None)).into_iter().map(NativeStep::Exhume));
    steps
}

fn graveyard(grave: Option<Table>) -> nft::State {
    let tables = lower::grave().ok().zip(grave);
    nft::State { tables: tables.into_iter().collect() }
}

/// A grave with what it had, and with what the rules are about now and will not be: of the rest, the new rules know.
fn dig(mut grave: Table, now: &nft::State, rules: &[nft::Step]) -> Table {
    let key = lower::key().ok();
    let rules = rules.iter().filter(|step| Some(step.table()) == key.as_ref());
    let sets = key.as_ref().and_then(|key| now.tables.get(key)).map(|table| &table.sets);
    for (name, set) in rules.flat_map(|step| sets.into_iter().flat_map(|sets| gone(sets, step))) {
        if grave.sets.values().any(|known| *known == set) || set.is_empty() {
            continue;
        }
        let free = (0..).find_map(|number| {
            let name = Name::new(&format!("{name}-{number}")).ok()?;
            (!grave.sets.contains_key(&name)).then_some(name)
        });
        free.into_iter().for_each(|name| drop(grave.sets.insert(name, set.clone())));
    }
    grave
}

/// What a step takes of the sets that are remembered.
fn gone<'s>(sets: &'s BTreeMap<Name, Set>, step: &nft::Step) -> Vec<(&'s Name, Set)> {
    use nft::Step::*;
    let remembered = sets.iter().filter(|(name, _)| is_remembered(name));
    match step {
        TakeElements(_, name, elements) => {
            remembered.filter(|it| it.0 == name).map(|(name, set)| (name, set.only(elements))).collect()
        }
        EmptySet(_, name) | ClearSet(_, name) | RemoveSet(_, name) => {
            remembered.filter(|it| it.0 == name).map(|(name, set)| (name, set.clone())).collect()
        }
        ClearTable(_) | RemoveTable(_) => remembered.map(|(name, set)| (name, set.clone())).collect(),
        _ => Vec::new(),
    }
}

/// What tells whether a flow was one that our rules had let begin.
fn is_remembered(name: &Name) -> bool {
    ["subnets", "targets"].iter().any(|kind| name.as_str().starts_with(kind))
}

impl Meaning {
    /// A judge of it; one of a place that forbids nothing where nothing is known.
    pub(super) fn judge(&self) -> Judge {
        self.0.as_deref().map(Judge::new).unwrap_or_default()
    }

    /// Whether a change of rules may forbid what was permitted.
    fn withdraws(&self, step: &nft::Step) -> bool {
        use nft::Step::*;
        let about_flows = |name: &Name| !PACKETS.iter().any(|kind| name.as_str().starts_with(kind));
        let restricts = |name: &Name| {
            let denies = || self.0.as_ref().is_none_or(|state| state.policy.denies());
            let name = name.as_str();
            name == "internal" || name.starts_with("restricted") || name.starts_with("group") && denies()
        };
        let of_rules = lower::key().is_ok_and(|key| key == *step.table());
        of_rules
            && match step {
                AddTable(_) | AddChain(..) | AddOpenChain(..) | AddSet(..) => false,
                PutElements(_, set, _) => restricts(set),
                TakeElements(_, set, _) | EmptySet(_, set) => about_flows(set),
                SetRules(_, chain, _) => !matches!(chain.as_str(), "raw" | "input" | "output"),
                _ => true,
            }
    }
}

/// Sets that are asked about every packet, whatever its flow.
const PACKETS: [&str; 6] = ["members", "encrypted", "tunnels", "known", "esp", "local"];

impl Withdrawn {
    /// Whether an address was in one of the subnets that rules were about.
    pub(super) fn was_inside<K: nft::Value>(&self, address: &K) -> bool {
        self.sets("subnets").any(|set| set.contains(address))
    }

    /// Whether a published port had led to a target.
    pub(super) fn was_target<K: nft::Value>(&self, target: &K) -> bool {
        self.sets("targets").any(|set| set.contains(target))
    }

    fn sets(&self, kind: &str) -> impl Iterator<Item = &Set> {
        self.grave.sets.iter().filter(move |(name, _)| name.as_str().starts_with(kind)).map(|(_, set)| set)
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
            Self::Bury(step) | Self::Rules(step) | Self::Exhume(step) => step.fmt(f),
            Self::SetBridgeNf(to) => write!(f, "bridged packets {to}"),
            Self::Cut(_) => f.write_str("cut flows that nothing permits any more"),
        }
    }
}
