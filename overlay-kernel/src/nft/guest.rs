//! Rules of ours in other programs' chains.

use std::fmt;

use overlay_core::BackendError;

use super::wire::{self, At, chain, rule};
use super::{Family, Nft, Rule};
use crate::netlink::{Flags, NetlinkError, Requests};

/// A chain of another program's, in which rules of ours may stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostChain {
    /// The family of its table.
    pub family: Family,
    /// Its table, as the kernel has it.
    pub table: String,
    /// Its name.
    pub chain: String,
}

impl fmt::Display for HostChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.chain)
    }
}

impl Nft {
    /// The rules of ours in somebody else's chain, in their order; `None` if there is no such chain. They are known by
    /// their comment, which is the owner's mark and the rule's id.
    ///
    /// # Errors
    /// If the chain cannot be read.
    pub fn guests(&mut self, at: &HostChain) -> Result<Option<Vec<Rule>>, BackendError> {
        let found = find(self, at).map_err(|error| error.during(format!("read chain {at}")))?;
        Ok(found.map(|found| found.into_iter().map(|(_, rule)| rule).collect()))
    }

    /// Makes these the rules of ours in somebody else's chain, before all others there, in one transaction: nothing else of
    /// the chain changes. If they are that already, nothing is done.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`](overlay_core::ErrorKind::Gone) if there is no such chain,
    /// [`ErrorKind::Interrupted`](overlay_core::ErrorKind::Interrupted) if somebody else changed tables meanwhile.
    pub fn set_guests(&mut self, at: &HostChain, rules: &[Rule]) -> Result<(), BackendError> {
        set(self, at, rules).map_err(|error| error.during(format!("put rules into chain {at}")))
    }
}

/// The rules of ours there, with their handles.
fn find(nft: &mut Nft, at: &HostChain) -> Result<Option<Vec<(u64, Rule)>>, NetlinkError> {
    let chains = nft.socket.dump(&chain::dump(at.family), chain::parse)?;
    if !chains.iter().any(|found| found.table == at.table && found.name == at.chain) {
        return Ok(None);
    }
    let table = At { family: at.family, table: &at.table };
    let rules = nft.socket.dump(&rule::dump(table), |message| rule::parse(message, &at.table))?;
    let ours = rules.into_iter().filter(|found| found.chain == at.chain).filter_map(|found| {
        let id = nft.mark.id_of(found.rule.id())?.into();
        Some((found.handle, Rule { id, ..found.rule }))
    });
    Ok(Some(ours.collect()))
}

fn set(nft: &mut Nft, at: &HostChain, rules: &[Rule]) -> Result<(), NetlinkError> {
    let generation = nft.now()?;
    let found = find(nft, at)?;
    if found.as_ref().is_some_and(|found| found.iter().map(|(_, rule)| rule).eq(rules)) {
        return Ok(());
    }
    let table = At { family: at.family, table: &at.table };
    let mut batch = Requests::default();
    wire::begin(&mut batch, Some(generation));
    found.into_iter().flatten().for_each(|(handle, _)| rule::remove(&mut batch, table, &at.chain, handle));
    for one in rules.iter().rev() {
        rule::insert(&mut batch, table, &at.chain, (one, &nft.mark.comment_of(one.id())));
    }
    if batch.len() == 1 {
        return Ok(()); // nothing of ours is there, nor wanted
    }
    batch.flag(batch.len() - 1, Flags::ACK);
    wire::end(&mut batch);
    nft.socket.transaction(&batch).map_err(|error| error.source)
}
