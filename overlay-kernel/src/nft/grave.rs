//! A table that says that flows are still to be cut.

use std::borrow::Cow;
use std::collections::BTreeMap;

use overlay_core::{Name, State as _};

use super::{Set, State, Step, Table, TableKey};

/// Where it is written down, across crashes, that flows are to be cut since a table changed.
///
/// Rules that go leave flows that they had let begin, and whether those are cut cannot be read back from the kernel. So a *grave* is dug first:
/// a table of ours that packets never see, with what the change takes from sets. Then the table changes, flows are cut, and
/// the grave goes. Whoever finds a grave cuts, and so a crash anywhere is made good. To dig and to change can be one transaction.
///
/// What of it is an area's own, a [`Burial`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grave {
    /// The table whose changes leave flows.
    pub table: TableKey,
    /// The grave.
    pub grave: TableKey,
}

/// What an area knows of its table, and of what it buries.
pub trait Burial {
    /// Whether a change of the table may leave flows that are to be cut.
    fn withdraws(&self, step: &Step) -> bool;

    /// Whether what a set of the table loses is to be remembered.
    fn is_remembered(&self, set: &Name) -> bool;

    /// Puts what a set loses into the grave.
    fn bury(&self, grave: &mut Table, set: &Name, lost: &Set);
}

/// A change, and what is to be done before and after it. In this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buried {
    /// The grave is dug.
    pub dig: Vec<Step>,
    /// The change.
    pub change: Vec<Step>,
    /// Flows are cut, by what is in the grave.
    pub cut: Option<Cut>,
    /// The grave goes.
    pub exhume: Vec<Step>,
}

/// That flows are to be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// What is in the grave.
    pub grave: Table,
    /// Whether the table goes, which it does last: no flow may begin after those before it were cut.
    pub last: bool,
}

impl Grave {
    /// The change from what is there to what is desired. A grave that is there is cut by if anything changes, and where none is desired.
    pub fn plan(&self, now: &State, desired: &State, burial: &impl Burial) -> Buried {
        let mut change = now.plan(desired);
        change.retain(|step| *step.table() != self.grave);
        let held = |state: &State| state.tables.get(&self.grave).cloned();
        let dug = held(now).filter(|_| !change.is_empty() || held(desired).is_none());
        self.around(now, change, dug, burial)
    }

    /// What is to be done around a change of what is there, with a grave that was found.
    pub fn around(&self, now: &State, change: Vec<Step>, found: Option<Table>, burial: &impl Burial) -> Buried {
        let leaves = |step: &Step| *step.table() == self.table && burial.withdraws(step);
        if found.is_none() && !change.iter().any(leaves) {
            return Buried { dig: Vec::new(), change, cut: None, exhume: Vec::new() };
        }
        let before = self.alone(found.clone());
        let grave = self.dig(found.unwrap_or_default(), now, &change, burial);
        let after = self.alone(Some(grave.clone()));
        let last = change.iter().any(|step| matches!(step, Step::RemoveTable(_)));
        Buried {
            dig: before.plan(&after),
            change,
            cut: Some(Cut { grave, last }),
            exhume: after.plan(&self.alone(None)),
        }
    }

    /// A grave with what it had, and with what a change takes from the table's sets.
    fn dig(&self, mut grave: Table, now: &State, change: &[Step], burial: &impl Burial) -> Table {
        let Some(table) = now.tables.get(&self.table) else { return grave };
        for step in change.iter().filter(|step| *step.table() == self.table) {
            for (name, lost) in lost(&table.sets, step, |name| burial.is_remembered(name)) {
                burial.bury(&mut grave, name, &lost);
            }
        }
        grave
    }

    fn alone(&self, grave: Option<Table>) -> State {
        State { tables: grave.map(|grave| (self.grave.clone(), grave)).into_iter().collect() }
    }
}

/// What a step takes from which of the sets that matter.
fn lost<'s>(
    sets: &'s BTreeMap<Name, Set>,
    step: &Step,
    matters: impl Fn(&Name) -> bool,
) -> Vec<(&'s Name, Cow<'s, Set>)> {
    let one = |name: &Name| sets.get_key_value(name).filter(|(name, _)| matters(name));
    let whole = |(name, set): (&'s Name, &'s Set)| (name, Cow::Borrowed(set));
    match step {
        Step::TakeElements(_, name, elements) => {
            one(name).map(|(name, set)| (name, Cow::Owned(set.only(elements)))).into_iter().collect()
        }
        Step::EmptySet(_, name) | Step::ClearSet(_, name) | Step::RemoveSet(_, name) => {
            one(name).map(whole).into_iter().collect()
        }
        Step::ClearTable(_) | Step::RemoveTable(_) => sets.keys().filter_map(one).map(whole).collect(),
        _ => Vec::new(),
    }
}
