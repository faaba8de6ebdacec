//! A table in the making.

use overlay_core::{Name, Refusal};
use overlay_kernel::nft::{Base, Chain, Rule, Set, Table};

/// A table in the making.
#[derive(Default)]
pub(super) struct Draft(Table);

impl Draft {
    /// Adds a set, and gives the name that rules look it up by.
    pub(super) fn set(&mut self, name: &str, set: Set) -> Result<Name, Refusal> {
        let name = self::name(name)?;
        self.0.sets.insert(name.clone(), set);
        Ok(name)
    }

    /// The name of a set that is there already.
    pub(super) fn known(&self, name: &str) -> Result<Option<Name>, Refusal> {
        let name = self::name(name)?;
        Ok(self.0.sets.contains_key(&name).then_some(name))
    }

    /// Adds a chain, if it has any rules.
    pub(super) fn chain(&mut self, name: &str, base: Base, rules: Vec<Rule>) -> Result<(), Refusal> {
        if !rules.is_empty() {
            self.0.chains.insert(self::name(name)?, Chain::base(base, rules));
        }
        Ok(())
    }

    /// Adds a chain that rules jump to, and gives its name.
    pub(super) fn part(&mut self, name: &str, rules: Vec<Rule>) -> Result<Name, Refusal> {
        let name = self::name(name)?;
        self.0.chains.insert(name.clone(), Chain::regular(rules));
        Ok(name)
    }

    /// Adds a chain whose rules are somebody else's, and gives its name to jump to.
    pub(super) fn open(&mut self, name: &str) -> Result<Name, Refusal> {
        let name = self::name(name)?;
        self.0.chains.insert(name.clone(), Chain::open());
        Ok(name)
    }

    /// The table, if anything is in it.
    pub(super) fn finished(self) -> Option<Table> {
        (self.0 != Table::default()).then_some(self.0)
    }
}

/// A name in a table.
pub(super) fn name(text: &str) -> Result<Name, Refusal> {
    Name::new(text).map_err(|error| Refusal::new("table", text.to_owned(), error.to_string()))
}

/// A rule without conditions yet.
pub(super) fn rule(id: &str) -> Result<Rule, Refusal> {
    Rule::new(id)
}

/// A name for what is made of `parts`: the same for the same parts, as other things come and go. FNV-1a, 64 bits.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&(part.len() as u32).to_be_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}
