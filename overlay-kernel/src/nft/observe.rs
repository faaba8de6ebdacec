//! What the kernel has.

use std::collections::BTreeMap;

use overlay_core::{BackendError, ErrorKind, Name};

use super::kernel::{Nft, Readings, RuleKey};
use super::set::SetKind;
use super::wire::{chain, element, rule, set, table};
use super::{Chain, Set, State, Table, TableKey};
use crate::netlink::NetlinkError;

/// Our tables and what their counters say.
#[derive(Default)]
pub(super) struct Found {
    pub(super) state: State,
    pub(super) readings: Readings,
}

/// Reads everything of ours, all of it of one generation.
pub(super) fn state(nft: &mut Nft) -> Result<Found, BackendError> {
    nft.generation = None;
    for _ in 0..TRIES {
        let before = nft.now().map_err(|error| error.during("read nf_tables' generation"))?;
        let found = tables(nft);
        let after = nft.now().map_err(|error| error.during("read nf_tables' generation"))?;
        match found {
            _ if before != after => {} // it changed meanwhile: whatever was read, or failed
            Err(error) => return Err(error.during("read tables")),
            Ok(found) => {
                nft.generation = Some(after);
                return Ok(found);
            }
        }
    }
    let cause = NetlinkError::Changing { tries: TRIES };
    Err(BackendError::new(ErrorKind::Interrupted, "read tables").caused_by(cause))
}

fn tables(nft: &mut Nft) -> Result<Found, NetlinkError> {
    let mut found = Found::default();
    for one in nft.socket.dump(&table::dump(), table::parse)? {
        let Some(Ok(name)) = nft.mark.name(&one.name) else { continue };
        let key = TableKey::new(one.family, name);
        let mut table = Table::default();
        if one.flags != 0 {
            table.strange.insert(format!("flags {:#x}", one.flags).into());
        }
        found.state.tables.insert(key, table);
    }
    if found.state.tables.is_empty() {
        return Ok(found);
    }
    chains(nft, &mut found.state)?;
    for (key, table) in &mut found.state.tables {
        sets(nft, key, table)?;
        rules(nft, key, table, &mut found.readings)?;
    }
    Ok(found)
}

fn chains(nft: &mut Nft, state: &mut State) -> Result<(), NetlinkError> {
    for one in nft.socket.dump(&chain::dump(), chain::parse)? {
        let Some(Ok(table)) = nft.mark.name(&one.table) else { continue };
        let Some(table) = state.tables.get_mut(&TableKey::new(one.family, table)) else { continue };
        match (one.name.parse::<Name>(), one.base) {
            (Ok(name), Some(base)) => drop(table.chains.insert(name, Chain { base, rules: Vec::new() })),
            _ => drop(table.strange.insert(format!("chain {}", one.name).into())),
        }
    }
    Ok(())
}

fn sets(nft: &mut Nft, key: &TableKey, table: &mut Table) -> Result<(), NetlinkError> {
    let kernel_name = nft.mark.table(&key.name);
    let at = nft.mark.at(key, &kernel_name);
    for one in nft.socket.dump(&set::dump(at), set::parse)? {
        let Ok(name) = one.name.parse::<Name>() else {
            table.strange.insert(format!("set {}", one.name).into());
            continue;
        };
        let mut set = Set { head: one.head, elements: BTreeMap::new() };
        if !matches!(set.head.kind, SetKind::Strange(_)) {
            let (mut elements, mut known) = (Vec::new(), true);
            nft.socket.dump(&element::dump(at, &one.name), |message| {
                known &= element::parse(message, &mut elements)?;
                Ok(None::<()>)
            })?;
            set.elements = element::assemble(&set.head, elements);
            if !known {
                set.head.kind = SetKind::Strange("with elements that time out, count or hold objects".into());
            }
        }
        table.sets.insert(name, set);
    }
    Ok(())
}

fn rules(nft: &mut Nft, key: &TableKey, table: &mut Table, readings: &mut Readings) -> Result<(), NetlinkError> {
    let kernel_name = nft.mark.table(&key.name);
    let at = nft.mark.at(key, &kernel_name);
    for found in nft.socket.dump(&rule::dump(at), |message| rule::parse(message, &kernel_name))? {
        let Ok(name) = found.chain.parse::<Name>() else { continue }; // its chain is strange already
        let Some(chain) = table.chains.get_mut(&name) else { continue };
        if let Some(reading) = found.counters.last() {
            let (place, id) = (chain.rules.len(), found.rule.id().into());
            readings.insert(RuleKey { table: key.clone(), chain: name, place, id }, *reading);
        }
        chain.rules.push(found.rule);
    }
    Ok(())
}

const TRIES: usize = 16;
