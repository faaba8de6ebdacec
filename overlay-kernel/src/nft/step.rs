//! The steps between native states.

use std::fmt;

use overlay_core::{Name, Phase};

use super::set::{Datum, Form};
use super::value::Bytes;
use super::{Base, Policy, Rule, SetHead, TableKey};

/// A change of our tables. The steps of one phase are one transaction: packets see all of them or none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A table goes because it has something strange in it; another one follows.
    ClearTable(TableKey),
    /// A chain goes that is in the way of another one of its name.
    ClearChain(TableKey, Name),
    /// A set goes that is in the way of another one of its name.
    ClearSet(TableKey, Name),
    /// A table.
    AddTable(TableKey),
    /// A chain without rules; with a base, packets come by from then on.
    AddChain(TableKey, Name, Option<Base>),
    /// A chain whose rules will be somebody else's.
    AddOpenChain(TableKey, Name),
    /// A set without elements.
    AddSet(TableKey, Name, Box<SetHead>),
    /// A set gets elements, none of which it has with another value.
    PutElements(TableKey, Name, Elements),
    /// A set loses all its elements.
    EmptySet(TableKey, Name),
    /// A set loses elements.
    TakeElements(TableKey, Name, Elements),
    /// What becomes of packets that come to a chain's end.
    SetPolicy(TableKey, Name, Policy),
    /// These and no others are a chain's rules.
    SetRules(TableKey, Name, Vec<Rule>),
    /// A set goes.
    RemoveSet(TableKey, Name),
    /// A chain goes.
    RemoveChain(TableKey, Name),
    /// A table goes, with all that is in it.
    RemoveTable(TableKey),
}

/// Some elements of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elements {
    pub(super) form: Form,
    pub(super) all: Vec<(Bytes, Datum)>,
}

impl Elements {
    /// The most in one step.
    pub(super) const MAX: usize = 512;
}

impl Step {
    /// All that changes a table is one transaction, before traffic finds its way to what was built. A table that goes
    /// guards until the end.
    pub(super) const fn phase(&self) -> Phase {
        match self {
            Self::RemoveTable(_) => Phase::Unguard,
            _ => Phase::Build,
        }
    }
}

impl Step {
    /// The table it is a change of.
    pub const fn table(&self) -> &TableKey {
        match self {
            Self::ClearTable(table) | Self::AddTable(table) | Self::RemoveTable(table) => table,
            Self::ClearChain(table, _) | Self::RemoveChain(table, _) | Self::AddChain(table, ..) => table,
            Self::AddOpenChain(table, _) | Self::EmptySet(table, _) => table,
            Self::ClearSet(table, _) | Self::RemoveSet(table, _) | Self::AddSet(table, ..) => table,
            Self::PutElements(table, ..) | Self::TakeElements(table, ..) => table,
            Self::SetPolicy(table, ..) | Self::SetRules(table, ..) => table,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClearTable(table) => write!(f, "clear table {table}"),
            Self::ClearChain(table, chain) => write!(f, "clear chain {table} {chain}"),
            Self::ClearSet(table, set) => write!(f, "clear set {table} {set}"),
            Self::AddTable(table) => write!(f, "add table {table}"),
            Self::AddChain(table, chain, Some(base)) => write!(f, "add chain {table} {chain}: {base}"),
            Self::AddChain(table, chain, None) => write!(f, "add chain {table} {chain}"),
            Self::AddOpenChain(table, chain) => write!(f, "add open chain {table} {chain}"),
            Self::EmptySet(table, set) => write!(f, "empty set {table} {set}"),
            Self::AddSet(table, set, head) => write!(f, "add set {table} {set}: {head}"),
            Self::PutElements(table, set, elements) => write!(f, "put {elements} into {table} {set}"),
            Self::TakeElements(table, set, elements) => write!(f, "take {elements} from {table} {set}"),
            Self::SetPolicy(table, chain, policy) => write!(f, "set policy of {table} {chain} to {}", policy.text()),
            Self::SetRules(table, chain, rules) if rules.len() == 1 => write!(f, "set 1 rule of {table} {chain}"),
            Self::SetRules(table, chain, rules) => write!(f, "set {} rules of {table} {chain}", rules.len()),
            Self::RemoveSet(table, set) => write!(f, "remove set {table} {set}"),
            Self::RemoveChain(table, chain) => write!(f, "remove chain {table} {chain}"),
            Self::RemoveTable(table) => write!(f, "remove table {table}"),
        }
    }
}

impl fmt::Display for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = if self.all.len() == 1 { "" } else { "s" };
        write!(f, "{} element{many}", self.all.len())
    }
}
