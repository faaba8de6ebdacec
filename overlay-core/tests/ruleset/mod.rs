//! The second toy: a ruleset as nf_tables has them, changed in whole transactions, its sets element by element;
//! several owners share one kernel.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use overlay_core::{
    Amended, Applied, Backend, BackendError, Change, ErrorKind, Lower, Memo, Owner, Phase, Refusal, State, StepError,
    Witness, in_phases, keyed_diff,
};

/// What is wanted: the ports that each group of clients may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Policy(pub(crate) BTreeMap<String, BTreeSet<u16>>);

/// What the kernel holds for one owner: rules in order, each naming a set, and the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) rules: Vec<String>,
    pub(crate) sets: BTreeMap<String, BTreeSet<u16>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    CreateSet(String),
    ReplaceRules(Vec<String>),
    AddElement(String, u16),
    RemoveElement(String, u16),
    RemoveSet(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateSet(set) => write!(f, "create set {set}"),
            Self::ReplaceRules(rules) => write!(f, "replace the rules by {}", rules.len()),
            Self::AddElement(set, port) => write!(f, "add {port} to set {set}"),
            Self::RemoveElement(set, port) => write!(f, "remove {port} from set {set}"),
            Self::RemoveSet(set) => write!(f, "remove set {set}"),
        }
    }
}

impl State for Ruleset {
    type Step = Step;

    fn plan(&self, desired: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        for change in keyed_diff(&self.sets, &desired.sets) {
            let (set, old, new) = match change {
                Change::Add(set, new) => {
                    steps.push(Step::CreateSet(set.clone()));
                    (set, None, Some(new))
                }
                Change::Replace(set, old, new) => (set, Some(old), Some(new)),
                Change::Remove(set, old) => (set, Some(old), None),
            };
            let (old, new) = (old.cloned().unwrap_or_default(), new.cloned());
            match &new {
                Some(new) => steps.extend(old.difference(new).map(|port| Step::RemoveElement(set.clone(), *port))),
                None => steps.push(Step::RemoveSet(set.clone())),
            }
            let new = new.unwrap_or_default();
            steps.extend(new.difference(&old).map(|port| Step::AddElement(set.clone(), *port)));
        }
        if self.rules != desired.rules {
            steps.push(Step::ReplaceRules(desired.rules.clone()));
        }
        in_phases::<Self>(steps)
    }

    fn apply(&mut self, step: &Step) {
        match step.clone() {
            Step::CreateSet(set) => drop(self.sets.entry(set).or_default()),
            Step::ReplaceRules(rules) => self.rules = rules,
            Step::AddElement(set, port) => drop(self.sets.get_mut(&set).map(|ports| ports.insert(port))),
            Step::RemoveElement(set, port) => drop(self.sets.get_mut(&set).map(|ports| ports.remove(&port))),
            Step::RemoveSet(set) => drop(self.sets.remove(&set)),
        }
    }

    fn phase(step: &Step) -> Phase {
        match step {
            Step::CreateSet(_) | Step::ReplaceRules(_) => Phase::Build,
            Step::AddElement(..) => Phase::Open,
            Step::RemoveElement(..) => Phase::Close,
            Step::RemoveSet(_) => Phase::Dismantle,
        }
    }
}

/// All owners' rulesets, and a number that every transaction raises.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) rulesets: BTreeMap<Owner, Ruleset>,
    pub(crate) generation: u64,
    /// How many elements one owner's sets hold at most, while something is in the way.
    pub(crate) room: Option<usize>,
}

/// One owner's door to the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    tables: Arc<Mutex<Tables>>,
    owner: Owner,
    expected: Option<u64>,
}

/// Most ports a set may have, so that there is something to refuse.
pub(crate) const MOST_PORTS: usize = 6;

impl Kernel {
    pub(crate) fn new(tables: Arc<Mutex<Tables>>, owner: Owner) -> Self {
        Self { tables, owner, expected: None }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }
}

impl Backend for Kernel {
    type State = Ruleset;

    fn observe(&mut self) -> Result<Ruleset, BackendError> {
        Ok(self.lock().rulesets.get(&self.owner).cloned().unwrap_or_default())
    }

    /// One transaction: a rule that names no set, or a set too many elements, takes the whole batch down.
    fn apply(&mut self, steps: &[Step]) -> Result<(), StepError> {
        let mut ruleset = self.observe().unwrap();
        let room = self.lock().room.unwrap_or(usize::MAX);
        for (at, step) in steps.iter().enumerate() {
            ruleset.apply(step);
            let dangling = ruleset.rules.iter().any(|rule| !ruleset.sets.contains_key(rule));
            let full = ruleset.sets.values().map(BTreeSet::len).sum::<usize>() > room;
            if dangling || full && matches!(step, Step::AddElement(..)) {
                let kind = if dangling { ErrorKind::Invalid } else { ErrorKind::Limit };
                let source = BackendError::new(kind, step.to_string());
                return Err(StepError { at, applied: Applied::Nothing, source });
            }
        }
        let mut tables = self.lock();
        let before = tables.generation;
        tables.generation += 1;
        match ruleset == Ruleset::default() {
            true => tables.rulesets.remove(&self.owner),
            false => tables.rulesets.insert(self.owner.clone(), ruleset),
        };
        drop(tables);
        self.expected = self.expected.filter(|expected| *expected == before).map(|_| before + 1);
        Ok(())
    }
}

impl Witness for Kernel {
    fn watch(&mut self) -> Result<(), BackendError> {
        let generation = self.lock().generation;
        self.expected = Some(generation);
        Ok(())
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        Ok(self.expected == Some(self.lock().generation))
    }
}

impl Lower<Policy> for Kernel {
    type Native = Ruleset;

    fn lower<'d>(&self, desired: &'d Policy) -> Result<Cow<'d, Ruleset>, Refusal> {
        if let Some((group, ports)) = desired.0.iter().find(|(_, ports)| ports.len() > MOST_PORTS) {
            let wanted = format!("{} ports", ports.len());
            return Err(Refusal::new(format!("group {group}"), wanted, "a set here holds 6 at most"));
        }
        Ok(Cow::Owned(Ruleset { rules: desired.0.keys().rev().cloned().collect(), sets: desired.0.clone() }))
    }

    fn remember(&self, desired: &Policy) -> Option<Memo> {
        Some(Memo::new(desired.clone()))
    }

    /// Ports of the same groups are elements of the same sets.
    fn amend(&self, memo: &Memo, _: &Ruleset, desired: &Policy) -> Option<Amended<Step>> {
        let last = &memo.of::<Policy>()?.0;
        if !last.keys().eq(desired.0.keys()) || desired.0.values().any(|ports| ports.len() > MOST_PORTS) {
            return None;
        }
        let mut steps = Vec::new();
        for (set, old, new) in last.iter().zip(desired.0.values()).map(|((set, old), new)| (set, old, new)) {
            steps.extend(new.difference(old).map(|port| Step::AddElement(set.clone(), *port)));
            steps.extend(old.difference(new).map(|port| Step::RemoveElement(set.clone(), *port)));
        }
        Some(Amended { steps, memo: Memo::new(desired.clone()) })
    }
}
