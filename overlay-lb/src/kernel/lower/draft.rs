//! A table in the making.

use overlay_core::{Name, Refusal};
use overlay_kernel::nft::{Base, Chain, Rule, Set, Table};

#[derive(Default)]
pub(super) struct Draft(Table);

impl Draft {
    /// Adds a set, and gives the name that rules look it up by.
    pub(super) fn set(&mut self, name: &str, set: Set) -> Result<Name, Refusal> {
        let name = self::name(name)?;
        self.0.sets.insert(name.clone(), set);
        Ok(name)
    }

    /// Adds a chain that packets come by.
    pub(super) fn chain(&mut self, name: &str, base: Base, rules: Vec<Rule>) -> Result<(), Refusal> {
        self.0.chains.insert(self::name(name)?, Chain::base(base, rules));
        Ok(())
    }

    /// Adds a chain that rules lead to, and gives its name.
    pub(super) fn part(&mut self, name: &str, rules: Vec<Rule>) -> Result<Name, Refusal> {
        let name = self::name(name)?;
        self.0.chains.insert(name.clone(), Chain::regular(rules));
        Ok(name)
    }

    /// The same by a name that there is already.
    pub(super) fn chain_of(&mut self, name: &Name, rules: Vec<Rule>) {
        self.0.chains.insert(name.clone(), Chain::regular(rules));
    }

    pub(super) fn finished(self) -> Table {
        self.0
    }
}

/// A name in a table.
pub(in crate::kernel) fn name(text: &str) -> Result<Name, Refusal> {
    Name::new(text).map_err(|error| Refusal::new("table", text.to_owned(), error.to_string()))
}

/// A rule without conditions yet.
pub(super) fn rule(id: &str) -> Result<Rule, Refusal> {
    Rule::new(id)
}
