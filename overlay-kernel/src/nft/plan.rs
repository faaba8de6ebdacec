//! The steps from one native state to another.

use std::collections::BTreeSet;

use overlay_core::{Change, Name, in_phases, keyed_diff};

use super::expr::Expr;
use super::set::{Datum, Form};
use super::step::Elements;
use super::value::Bytes;
use super::{Chain, Rule, Set, State, Step, Table, TableKey};

/// Steps in the order in which the kernel can take them: what is in the way goes first, then what nothing leads to yet
/// comes (it may be sent ahead), then the switch, then what is of no more use goes.
pub(super) fn steps(from: &State, to: &State) -> Vec<Step> {
    let mut order = Order::default();
    let nothing = Table::default();
    for (key, desired) in &to.tables {
        match from.tables.get(key) {
            Some(now) if now == desired => {}
            Some(now) if now.strange.is_empty() => Diff { key, now, desired }.plan(&mut order),
            found => {
                if found.is_some() {
                    order.clear.push(Step::ClearTable(key.clone()));
                }
                order.make.push(Step::AddTable(key.clone()));
                Diff { key, now: &nothing, desired }.plan(&mut order);
            }
        }
    }
    let gone = from.tables.keys().filter(|key| !to.tables.contains_key(key));
    order.go.extend(gone.map(|key| Step::RemoveTable(key.clone())));
    in_phases::<State>(order.joined())
}

/// The steps for elements alone, between parts of two states that differ in nothing else.
pub(super) fn of_parts(from: &State, to: &State) -> Vec<Step> {
    let mut order = Order::default();
    for ((key, now), desired) in from.tables.iter().zip(to.tables.values()) {
        let diff = Diff { key, now, desired };
        for ((name, now), set) in now.sets.iter().zip(desired.sets.values()).filter(|((_, now), set)| now != set) {
            let (taken, put) = changed((now, set), &Cleared::default());
            diff.in_parts((taken, set.head.form()), name, Step::TakeElements, &mut order.elements);
            diff.in_parts((put, set.head.form()), name, Step::PutElements, &mut order.elements);
        }
    }
    order.joined()
}

#[derive(Default)]
struct Order {
    clear: Vec<Step>,
    make: Vec<Step>,
    load: Vec<Step>,
    hook: Vec<Step>,
    elements: Vec<Step>,
    rules: Vec<Step>,
    go: Vec<Step>,
}

impl Order {
    fn joined(self) -> Vec<Step> {
        let mut steps = self.clear;
        for more in [self.make, self.load, self.hook, self.elements, self.rules, self.go] {
            steps.extend(more);
        }
        steps
    }
}

struct Diff<'a> {
    key: &'a TableKey,
    now: &'a Table,
    desired: &'a Table,
}

/// What of the table must go before another takes its name, and what must let it go.
#[derive(Default)]
struct Cleared<'a> {
    chains: BTreeSet<&'a Name>,
    sets: BTreeSet<&'a Name>,
    /// Chains whose rules are gone by then.
    bared: BTreeSet<&'a Name>,
}

impl<'a> Diff<'a> {
    fn plan(&self, order: &mut Order) {
        let cleared = self.clear(&mut order.clear);
        self.chains(&cleared, order);
        self.sets(&cleared, order);
        self.rules(&cleared, order);
        self.removals(order);
    }

    fn clear(&self, steps: &mut Vec<Step>) -> Cleared<'a> {
        let mut cleared = Cleared::default();
        for (name, chain) in &self.now.chains {
            if self.desired.chains.get(name).is_some_and(|new| !becomes(chain, new)) {
                cleared.chains.insert(name);
            }
        }
        for (name, set) in &self.now.sets {
            if self.desired.sets.get(name).is_some_and(|new| new.head != set.head) {
                cleared.sets.insert(name);
            }
        }
        if cleared.chains.is_empty() && cleared.sets.is_empty() {
            return cleared;
        }
        for (name, chain) in &self.now.chains {
            let holds = |expr: &Expr| match expr {
                Expr::Lookup { set, .. } | Expr::Update { set, .. } => cleared.sets.contains(set),
                Expr::Verdict(verdict) => verdict.chain().is_some_and(|chain| cleared.chains.contains(chain)),
                Expr::Strange(_) => true, // whatever it holds
                _ => false,
            };
            if chain.rules.iter().any(|rule| rule.exprs.iter().any(holds)) {
                cleared.bared.insert(name);
                steps.push(Step::SetRules(self.key.clone(), name.clone(), Vec::new()));
            }
        }
        for (name, set) in self.now.sets.iter().filter(|(name, _)| !cleared.sets.contains(name)) {
            let leads = |(_, datum): &(&Bytes, &Datum)| leads_to(datum, &cleared.chains);
            let taken = set.elements.iter().filter(leads).map(|(key, datum)| (key.clone(), datum.clone()));
            self.in_parts((taken.collect(), set.head.form()), name, Step::TakeElements, steps);
        }
        steps.extend(cleared.sets.iter().map(|name| Step::ClearSet(self.key.clone(), (*name).clone())));
        for name in &cleared.chains {
            cleared.bared.insert(name);
            steps.push(Step::ClearChain(self.key.clone(), (*name).clone()));
        }
        cleared
    }

    fn chains(&self, cleared: &Cleared<'_>, order: &mut Order) {
        for (name, chain) in &self.desired.chains {
            let now = self.now.chains.get(name).filter(|_| !cleared.chains.contains(name));
            match (now, &chain.base) {
                (None, None) if chain.open => order.make.push(Step::AddOpenChain(self.key.clone(), name.clone())),
                (None, None) => order.make.push(Step::AddChain(self.key.clone(), name.clone(), None)),
                (None, base) => order.hook.push(Step::AddChain(self.key.clone(), name.clone(), base.clone())),
                (Some(now), Some(base)) if now.base != chain.base => {
                    order.hook.push(Step::SetPolicy(self.key.clone(), name.clone(), base.policy));
                }
                _ => {}
            }
        }
    }

    fn sets(&self, cleared: &Cleared<'_>, order: &mut Order) {
        for (name, set) in &self.desired.sets {
            match self.now.sets.get(name).filter(|_| !cleared.sets.contains(name)) {
                None => {
                    order.make.push(Step::AddSet(self.key.clone(), name.clone(), Box::new(set.head.clone())));
                    let all = set.elements.iter().map(|(key, datum)| (key.clone(), datum.clone()));
                    self.in_parts((all.collect(), set.head.form()), name, Step::PutElements, &mut order.load);
                }
                Some(now) => self.elements(name, (now, set), cleared, &mut order.elements),
            }
        }
    }

    fn elements(&self, name: &Name, (now, set): (&Set, &Set), cleared: &Cleared<'_>, steps: &mut Vec<Step>) {
        let (mut taken, put) = changed((now, set), cleared);
        let form = set.head.form();
        if taken.len() > 1 && taken.len() == now.elements.len() {
            steps.push(Step::EmptySet(self.key.clone(), name.clone()));
            taken.clear();
        }
        self.in_parts((taken, form), name, Step::TakeElements, steps);
        self.in_parts((put, form), name, Step::PutElements, steps);
    }

    fn rules(&self, cleared: &Cleared<'_>, order: &mut Order) {
        for (name, chain) in &self.desired.chains {
            let now: &[Rule] = match self.now.chains.get(name) {
                Some(now) if !cleared.bared.contains(name) => &now.rules,
                _ => &[],
            };
            if now != chain.rules {
                order.rules.push(Step::SetRules(self.key.clone(), name.clone(), chain.rules.clone()));
            }
        }
    }

    /// What holds nothing any more goes: first rules, then sets, which chains may hold and which may lead to chains.
    fn removals(&self, order: &mut Order) {
        let gone = || self.now.chains.iter().filter(|(name, _)| !self.desired.chains.contains_key(*name));
        for (name, _) in gone().filter(|(_, chain)| !chain.rules.is_empty()) {
            order.rules.push(Step::SetRules(self.key.clone(), name.clone(), Vec::new()));
        }
        let sets = self.now.sets.keys().filter(|name| !self.desired.sets.contains_key(*name));
        order.go.extend(sets.map(|name| Step::RemoveSet(self.key.clone(), name.clone())));
        order.go.extend(gone().map(|(name, _)| Step::RemoveChain(self.key.clone(), name.clone())));
    }

    fn in_parts(
        &self,
        (elements, form): (Vec<(Bytes, Datum)>, Form),
        name: &Name,
        step: fn(TableKey, Name, Elements) -> Step,
        steps: &mut Vec<Step>,
    ) {
        let mut part = |all| steps.push(step(self.key.clone(), name.clone(), Elements { form, all }));
        match elements.len() {
            0 => {}
            few if few <= Elements::MAX => part(elements),
            many => {
                let mut elements = elements.into_iter();
                (0..many.div_ceil(Elements::MAX)).for_each(|_| part(elements.by_ref().take(Elements::MAX).collect()));
            }
        }
    }
}

/// Elements, and what they have besides their keys.
type All = Vec<(Bytes, Datum)>;

/// The elements that a set loses, and those that it gets.
fn changed((now, set): (&Set, &Set), cleared: &Cleared<'_>) -> (All, All) {
    let (mut taken, mut put) = (Vec::new(), Vec::new());
    // Those that led to a chain that was cleared are gone by then.
    let gone = |datum: &Datum| leads_to(datum, &cleared.chains);
    if !cleared.chains.is_empty() {
        let again = set.elements.iter().filter(|(key, datum)| now.elements.get(*key) == Some(*datum) && gone(datum));
        put.extend(again.map(|(key, datum)| (key.clone(), datum.clone())));
    }
    for change in keyed_diff(&now.elements, &set.elements) {
        match change {
            Change::Add(key, datum) => put.push((key.clone(), datum.clone())),
            Change::Replace(key, old, datum) => {
                if !gone(old) {
                    taken.push((key.clone(), old.clone()));
                }
                put.push((key.clone(), datum.clone()));
            }
            Change::Remove(_, old) if gone(old) => {}
            Change::Remove(key, old) => taken.push((key.clone(), old.clone())),
        }
    }
    (taken, put)
}

/// Whether the kernel can make one chain of the other, but for the rules.
fn becomes(now: &Chain, new: &Chain) -> bool {
    match (&now.base, &new.base) {
        (Some(now), Some(new)) => now.differs_in_policy_only(new),
        (None, None) => now.open == new.open,
        _ => false,
    }
}

fn leads_to(datum: &Datum, chains: &BTreeSet<&Name>) -> bool {
    matches!(datum, Datum::Verdict(verdict) if verdict.chain().is_some_and(|chain| chains.contains(chain)))
}
