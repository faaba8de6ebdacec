//! The native state: tables, what bridges do, and whether flows are still to be cut.

use std::fmt;
use std::sync::Arc;

use overlay_core::{Name, Phase, Refusal, State, in_phases};
use overlay_kernel::nft::{self, Burial, Buried, Cut, Grave, Set, Table};

use super::{BridgeNf, lower};
use crate::Judge;

/// What a kernel holds for a [`State`](crate::State) of one place.
///
/// A permission that goes leaves flows that it had let begin, which are to be cut: a [`Grave`] with the addresses that the old rules were about
/// says so until it is done.
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
    cut: Cut,
    pub(super) meaning: Meaning,
}

impl State for Native {
    type Step = NativeStep;

    /// O(n) for n rules and elements.
    fn plan(&self, desired: &Self) -> Vec<NativeStep> {
        let meaning = &desired.meaning;
        let buried = grave().map(|grave| grave.plan(&self.tables, &desired.tables, meaning));
        let mut steps = buried.map_or_else(Vec::new, |buried| steps_of(buried, meaning));
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
            NativeStep::SetBridgeNf(BridgeNf::Through | BridgeNf::Mixed) => Phase::Guard,
            // In one transaction with the change, as nothing comes in between.
            NativeStep::Bury(step) | NativeStep::Rules(step) => nft::State::phase(step),
            NativeStep::Cut(withdrawn) if !withdrawn.cut.last => Phase::Close,
            NativeStep::Cut(_) | NativeStep::Exhume(_) | NativeStep::SetBridgeNf(BridgeNf::Around) => Phase::Unguard,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        self.tables.check()
    }
}

/// A change of rules, and what must be done before and after it for flows that they permit no more.
pub(super) fn around(now: &nft::State, change: Vec<nft::Step>, meaning: &Meaning) -> Vec<NativeStep> {
    let buried = grave().map(|grave| grave.around(now, change, None, meaning));
    buried.map_or_else(Vec::new, |buried| steps_of(buried, meaning))
}

fn steps_of(Buried { dig, change, cut, exhume }: Buried, meaning: &Meaning) -> Vec<NativeStep> {
    let cut = cut.map(|cut| NativeStep::Cut(Withdrawn { cut, meaning: meaning.clone() }));
    let steps = dig.into_iter().map(NativeStep::Bury).chain(change.into_iter().map(NativeStep::Rules));
    steps.chain(cut).chain(exhume.into_iter().map(NativeStep::Exhume)).collect()
}

/// Where it is written down that flows are to be cut. Names that are fixed are names.
fn grave() -> Option<Grave> {
    lower::key().ok().zip(lower::grave().ok()).map(|(table, grave)| Grave { table, grave })
}

impl Meaning {
    /// A judge of it; one of a place that forbids nothing where nothing is known.
    pub(super) fn judge(&self) -> Judge {
        self.0.as_deref().map(Judge::new).unwrap_or_default()
    }
}

/// Of permissions that go, what the rules were about and will not be is buried: of the rest, the new rules know.
impl Burial for Meaning {
    /// Whether a change of rules may forbid what was permitted.
    fn withdraws(&self, step: &nft::Step) -> bool {
        use nft::Step::*;
        let about_flows = |name: &Name| !PACKETS.iter().any(|kind| name.as_str().starts_with(kind));
        let restricts = |name: &Name| {
            let denies = || self.0.as_ref().is_none_or(|state| state.policy.denies());
            let name = name.as_str();
            name == "internal" || name.starts_with("restricted") || name.starts_with("group") && denies()
        };
        match step {
            AddTable(_) | AddChain(..) | AddOpenChain(..) | AddSet(..) => false,
            PutElements(_, set, _) => restricts(set),
            TakeElements(_, set, _) | EmptySet(_, set) => about_flows(set),
            SetRules(_, chain, _) => !matches!(chain.as_str(), "raw" | "input" | "output"),
            _ => true,
        }
    }

    /// What tells whether a flow was one that our rules had let begin.
    fn is_remembered(&self, set: &Name) -> bool {
        ["subnets", "targets"].iter().any(|kind| set.as_str().starts_with(kind))
    }

    fn bury(&self, grave: &mut Table, name: &Name, lost: &Set) {
        if lost.is_empty() || grave.sets.values().any(|known| known == lost) {
            return;
        }
        let free = (0..).find_map(|number| {
            let name = Name::new(&format!("{name}-{number}")).ok()?;
            (!grave.sets.contains_key(&name)).then_some(name)
        });
        free.into_iter().for_each(|name| drop(grave.sets.insert(name, lost.clone())));
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
        self.cut.grave.sets.iter().filter(move |(name, _)| name.as_str().starts_with(kind)).map(|(_, set)| set)
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
