//! The native state: our tables, whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use overlay_core::{Name, Phase, Refusal};

use super::{Chain, Set, Step, check, plan};

/// The tables of one namespace that are ours, as the kernel has them.
///
/// What may change often belongs in sets and maps, where a change costs the same however many there are: an endpoint, a
/// published port, a service is an element, never a chain and never a rule. (Chains that a map jumps to cost the kernel
/// 0.08 s per transaction at 1,000 of them and more than 10 s at 10,000, under a lock that all nf_tables users share.)
///
/// ```
/// use overlay_core::{Memory, reconcile};
/// use overlay_kernel::nft::{Base, Chain, CtState, Family, Hook, Rule, Set, State, Table, TableKey, ip};
///
/// let allowed = "allowed".parse()?;
/// let mut table = Table::default();
/// table.sets.insert("allowed".parse()?, Set::of([std::net::Ipv4Addr::new(10, 0, 9, 2)]));
/// let rules = vec![
///     Rule::new("replies")?.ct_state(CtState::ESTABLISHED).accept(),
///     Rule::new("members")?.is_in(&ip::SADDR, &allowed).accept(),
/// ];
/// table.chains.insert("forward".parse()?, Chain::base(Base::filter(Hook::Forward, 0).or_drop(), rules));
/// let mut wanted = State::default();
/// wanted.tables.insert(TableKey::new(Family::Ip, "fw".parse()?), table);
///
/// let done = reconcile(&mut Memory::<State>::default(), &wanted)?;
/// assert_eq!(
///     done.to_string(),
///     "build      add table ip fw\n\
///      build      add set ip fw allowed: set ipv4_addr\n\
///      build      put 1 element into ip fw allowed\n\
///      build      add chain ip fw forward: type filter hook forward priority 0; policy drop;\n\
///      build      set 2 rules of ip fw forward\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Tables.
    pub tables: BTreeMap<TableKey, Table>,
}

/// A table by what it is in and what we call it. In the kernel its name is `ov-TAG-NAME`, TAG the owner's tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableKey {
    /// Which packets it sees.
    pub family: Family,
    /// Our name for it.
    pub name: Name,
}

impl TableKey {
    /// The table of this family and name.
    pub const fn new(family: Family, name: Name) -> Self {
        Self { family, name }
    }
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// Frames that bridges pass.
    Bridge,
    /// Frames that devices receive or send.
    Netdev,
}

impl Family {
    pub(super) const ALL: [(Self, u8, &'static str); 5] = [
        (Self::Ip, 2, "ip"),
        (Self::Ip6, 10, "ip6"),
        (Self::Inet, 1, "inet"),
        (Self::Bridge, 7, "bridge"),
        (Self::Netdev, 5, "netdev"),
    ];

    pub(super) fn number(self) -> u8 {
        Self::ALL.iter().find(|row| row.0 == self).map_or(0, |row| row.1)
    }

    pub(super) fn by_number(number: u8) -> Option<Self> {
        Self::ALL.iter().find(|row| row.1 == number).map(|row| row.0)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::ALL.iter().find(|row| row.0 == *self).map_or("", |row| row.2))
    }
}

/// A table: chains, and the sets that their rules look into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Chains.
    pub chains: BTreeMap<Name, Chain>,
    /// Sets and maps.
    pub sets: BTreeMap<Name, Set>,
    /// What was found in the table that no state holds, in words: observed only, and the table is made anew for it.
    pub strange: BTreeSet<Box<str>>,
}

impl State {
    /// Whether both have the same tables, chains, rules and sets, whatever is in the sets.
    pub fn differs_in_elements_only(&self, other: &Self) -> bool {
        let heads = |sets: &BTreeMap<Name, Set>, others: &BTreeMap<Name, Set>| {
            sets.len() == others.len() && sets.iter().zip(others).all(|(a, b)| (a.0, &a.1.head) == (b.0, &b.1.head))
        };
        let alike = |a: &Table, b: &Table| a.chains == b.chains && a.strange == b.strange && heads(&a.sets, &b.sets);
        self.tables.len() == other.tables.len()
            && self.tables.iter().zip(&other.tables).all(|(a, b)| a.0 == b.0 && alike(a.1, b.1))
    }

    /// The steps that this state needs where a part of it, `was`, is to become `is`; none if it, or they, differ in more than
    /// elements. What both parts leave out stays as it is; what `is` brings that is there already is no step.
    pub fn amended(&self, was: &Self, is: &Self) -> Option<Vec<Step>> {
        let alike = is.differs_in_elements_only(was) && is.differs_in_elements_only(self);
        alike.then(|| self.not_idle(plan::of_parts(was, is)))
    }

    /// Some steps without elements that sets of this state have already, and without steps that put no others.
    fn not_idle(&self, steps: Vec<Step>) -> Vec<Step> {
        let put = |step| {
            let Step::PutElements(key, name, mut elements) = step else { return Some(step) };
            if let Some(set) = self.tables.get(&key).and_then(|table| table.sets.get(&name)) {
                elements.all.retain(|(key, datum)| set.elements.get(key) != Some(datum));
            }
            (!elements.all.is_empty()).then_some(Step::PutElements(key, name, elements))
        };
        steps.into_iter().filter_map(put).collect()
    }

    fn table(&mut self, key: &TableKey) -> Option<&mut Table> {
        self.tables.get_mut(key)
    }

    fn chain(&mut self, key: &TableKey, name: &Name) -> Option<&mut Chain> {
        self.table(key)?.chains.get_mut(name)
    }

    fn set(&mut self, key: &TableKey, name: &Name) -> Option<&mut Set> {
        self.table(key)?.sets.get_mut(name)
    }
}

impl overlay_core::State for State {
    type Step = Step;

    /// O(n) for n rules and elements.
    fn plan(&self, desired: &Self) -> Vec<Step> {
        plan::steps(self, desired)
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::AddTable(key) => drop(self.tables.entry(key.clone()).or_default()),
            Step::ClearTable(key) | Step::RemoveTable(key) => drop(self.tables.remove(key)),
            Step::AddChain(key, name, base) => {
                if let Some(table) = self.table(key) {
                    table.chains.entry(name.clone()).or_default().base.clone_from(base);
                }
            }
            Step::SetPolicy(key, name, policy) => {
                if let Some(base) = self.chain(key, name).and_then(|chain| chain.base.as_mut()) {
                    base.policy = *policy;
                }
            }
            Step::SetRules(key, name, rules) => {
                if let Some(chain) = self.chain(key, name) {
                    chain.rules.clone_from(rules);
                }
            }
            Step::ClearChain(key, name) | Step::RemoveChain(key, name) => {
                self.table(key).into_iter().for_each(|table| drop(table.chains.remove(name)));
            }
            Step::AddSet(key, name, head) => {
                if let Some(table) = self.table(key) {
                    let empty = || Set { head: (**head).clone(), elements: BTreeMap::new() };
                    table.sets.entry(name.clone()).or_insert_with(empty);
                }
            }
            Step::ClearSet(key, name) | Step::RemoveSet(key, name) => {
                self.table(key).into_iter().for_each(|table| drop(table.sets.remove(name)));
            }
            Step::AddOpenChain(key, name) => {
                if let Some(table) = self.table(key) {
                    table.chains.entry(name.clone()).or_insert_with(Chain::open);
                }
            }
            Step::EmptySet(key, name) => {
                self.set(key, name).into_iter().for_each(|set| set.elements.clear());
            }
            Step::PutElements(key, name, elements) => {
                if let Some(set) = self.set(key, name) {
                    set.elements.extend(elements.all.iter().cloned());
                }
            }
            Step::TakeElements(key, name, elements) => {
                if let Some(set) = self.set(key, name) {
                    elements.all.iter().for_each(|(key, _)| drop(set.elements.remove(key)));
                }
            }
        }
    }

    fn phase(step: &Step) -> Phase {
        step.phase()
    }

    fn check(&self) -> Result<(), Refusal> {
        check::state(self)
    }
}
