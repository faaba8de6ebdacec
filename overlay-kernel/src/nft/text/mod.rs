//! Tables as people read them, in the language of `nft`.

mod rule;
mod value;

use std::fmt::{self, Write as _};

use overlay_core::Owner;

use self::value::{concatenated, ranged};
use super::kernel::Mark;
use super::set::{Datum, Form, SetKind, Types};
use super::{Chain, Set, State, Table, TableKey};

impl State {
    /// The tables of an owner in the language of `nft`, as `nft list` shows them and `nft -f` takes them.
    ///
    /// What `nft` says of a field it says with a check of the protocol before it, and adds that check where a rule of ours
    /// lacks it: a field without its protocol is written by its place instead (`@nh,96,32`), except where it is looked up.
    ///
    /// ```
    /// use overlay_core::Owner;
    /// use overlay_kernel::nft::{Base, Chain, Family, Hook, Rule, State, Table, TableKey, meta};
    ///
    /// let mut table = Table::default();
    /// let rules = vec![Rule::new("loopback")?.eq(&meta::IIFNAME, "lo".parse()?).accept()];
    /// table.chains.insert("input".parse()?, Chain::base(Base::filter(Hook::Input, 0).or_drop(), rules));
    /// let state = State { tables: [(TableKey::new(Family::Inet, "fw".parse()?), table)].into() };
    /// let text = state.to_nft(&Owner::new("prod".parse()?, "node-1".parse()?));
    /// assert!(text.contains("iifname \"lo\" accept comment \"loopback\""));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_nft(&self, owner: &Owner) -> String {
        let mark = Mark::of(owner);
        let mut text = String::new();
        for (key, table) in &self.tables {
            // Writing to a text does not fail.
            let _ = write_table(&mut text, &mark, key, table);
        }
        text
    }
}

fn write_table(text: &mut String, mark: &Mark, key: &TableKey, table: &Table) -> fmt::Result {
    writeln!(text, "table {} {} {{", key.family, mark.table(&key.name))?;
    writeln!(text, "\tcomment \"{}\"", mark.comment)?;
    for what in &table.strange {
        writeln!(text, "\t# strange: {what}")?;
    }
    // A map's verdicts name chains, and a chain's rules sets: the chains that are led to are declared first.
    for (name, _) in table.chains.iter().filter(|(_, chain)| chain.base.is_none()) {
        writeln!(text, "\tchain {name} {{\n\t}}")?;
    }
    for (name, set) in &table.sets {
        write_set(text, name.as_str(), set)?;
    }
    for (name, chain) in &table.chains {
        write_chain(text, key, table, (name.as_str(), chain))?;
    }
    writeln!(text, "}}")
}

fn write_chain(text: &mut String, key: &TableKey, table: &Table, (name, chain): (&str, &Chain)) -> fmt::Result {
    writeln!(text, "\tchain {name} {{")?;
    if chain.open {
        writeln!(text, "\t\tcomment \"{}\"", super::wire::chain::OPEN)?;
    }
    if let Some(base) = &chain.base {
        writeln!(text, "\t\t{base}")?;
    }
    for one in &chain.rules {
        writeln!(text, "\t\t{}", rule::text(key.family, table, one))?;
    }
    writeln!(text, "\t}}")
}

fn write_set(text: &mut String, name: &str, set: &Set) -> fmt::Result {
    let keys = Types(&set.head.key);
    match &set.head.kind {
        SetKind::Plain => writeln!(text, "\tset {name} {{\n\t\ttype {keys}")?,
        SetKind::Verdicts => writeln!(text, "\tmap {name} {{\n\t\ttype {keys} : verdict")?,
        SetKind::Map(types) => writeln!(text, "\tmap {name} {{\n\t\ttype {keys} : {}", Types(types))?,
        SetKind::Strange(what) => return writeln!(text, "\t# set {name}: {what}"),
    }
    if set.head.filled {
        writeln!(text, "\t\tsize {}\n\t\tflags dynamic,timeout", super::wire::set::FILLED)?;
    }
    if set.head.intervals {
        writeln!(text, "\t\tflags interval")?;
    }
    for (number, (key, datum)) in set.elements.iter().enumerate() {
        text.push_str(if number == 0 { "\t\telements = { " } else { ",\n\t\t\t     " });
        match set.head.form() {
            Form::Single => text.push_str(&concatenated(&set.head.key, key)),
            Form::Ends | Form::Span => text.push_str(&ranged(&set.head.key, key)),
        }
        match (datum, &set.head.kind) {
            (Datum::Value(value), SetKind::Map(types)) => write!(text, " : {}", concatenated(types, value))?,
            (Datum::Verdict(verdict), _) => write!(text, " : {verdict}")?,
            _ => {}
        }
    }
    writeln!(text, "{}\t}}", if set.is_empty() { "" } else { " }\n" })
}
