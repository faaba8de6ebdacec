//! What the kernel has.

use std::collections::{BTreeMap, BTreeSet};

use overlay_core::{BackendError, ErrorKind, Name};

use super::kernel::{Nft, Readings, RuleKey};
use super::set::{Datum, Form, SetKind};
use super::value::Bytes;
use super::wire::{At, chain, element, rule, set, table};
use super::{Chain, Family, Set, SetHead, State, Table, TableKey};
use crate::netlink::{NetlinkError, Socket};

/// Reads everything of ours, all of it of one generation.
pub(super) fn state(nft: &mut Nft) -> Result<State, BackendError> {
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
                nft.hooked = of_devices(&found).collect();
                return Ok(found);
            }
        }
    }
    let cause = NetlinkError::Changing { tries: TRIES };
    Err(BackendError::new(ErrorKind::Interrupted, "read tables").caused_by(cause))
}

fn of_devices(state: &State) -> impl Iterator<Item = (TableKey, Name)> {
    let tables = state.tables.iter().filter(|(key, _)| key.family == Family::Netdev);
    tables.flat_map(|(key, table)| table.chains.keys().map(|name| (key.clone(), name.clone())))
}

/// Whether the chains of devices are there that were.
pub(super) fn are_hooked(nft: &mut Nft) -> Result<bool, NetlinkError> {
    if nft.hooked.is_empty() {
        return Ok(true);
    }
    let mut state = State::default();
    for (key, _) in &nft.hooked {
        state.tables.entry(key.clone()).or_default();
    }
    chains(nft, &mut state)?;
    Ok(of_devices(&state).collect::<BTreeSet<_>>() == nft.hooked)
}

/// What the counters of our rules say. Rules that change meanwhile may be missing.
pub(super) fn readings(nft: &mut Nft) -> Result<Readings, NetlinkError> {
    let mut readings = Readings::new();
    let mut state = names(nft)?;
    chains(nft, &mut state)?;
    for (key, table) in &state.tables {
        let mut places = BTreeMap::<_, usize>::new();
        for found in rules_of(nft, key)? {
            let Ok(chain) = found.chain.parse::<Name>() else { continue };
            if table.chains.get(&chain).is_some_and(|chain| chain.open) {
                continue;
            }
            let next = places.entry(found.chain).or_default();
            if let Some(reading) = found.counters.last() {
                let id = found.rule.id().into();
                readings.insert(RuleKey { table: key.clone(), chain, place: *next, id }, *reading);
            }
            *next += 1;
        }
    }
    Ok(readings)
}

fn tables(nft: &mut Nft) -> Result<State, NetlinkError> {
    let mut state = names(nft)?;
    if state.tables.is_empty() {
        return Ok(state);
    }
    chains(nft, &mut state)?;
    for (key, table) in &mut state.tables {
        sets(nft, key, table)?;
        for found in rules_of(nft, key)? {
            // The chain of a name that is none of ours is strange already.
            if let Some(chain) = table.chains.get_mut(found.chain.as_str()).filter(|chain| !chain.open) {
                chain.rules.push(found.rule);
            }
        }
    }
    Ok(state)
}

/// Our tables, empty.
fn names(nft: &mut Nft) -> Result<State, NetlinkError> {
    let mut state = State::default();
    for one in nft.socket.dump(&table::dump(), table::parse)? {
        let Some(Ok(name)) = nft.mark.name(&one.name) else { continue };
        let mut table = Table::default();
        if one.flags != 0 {
            table.strange.insert(format!("flags {:#x}", one.flags).into());
        }
        state.tables.insert(TableKey::new(one.family, name), table);
    }
    Ok(state)
}

fn chains(nft: &mut Nft, state: &mut State) -> Result<(), NetlinkError> {
    let families: BTreeSet<_> = state.tables.keys().map(|key| key.family).collect();
    let mut found = Vec::new();
    for family in families {
        found.extend(nft.socket.dump(&chain::dump(family), chain::parse)?);
    }
    for one in found {
        let Some(Ok(table)) = nft.mark.name(&one.table) else { continue };
        let Some(table) = state.tables.get_mut(&TableKey::new(one.family, table)) else { continue };
        match (one.name.parse::<Name>(), one.base) {
            (Ok(name), Some(base)) => {
                drop(table.chains.insert(name, Chain { base, rules: Vec::new(), open: one.open }));
            }
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
        if !matches!(set.head.kind, SetKind::Strange(_)) && !set.head.filled {
            let (elements, known) = elements(&mut nft.socket, at, &one.name, &set.head)?;
            set.elements = elements;
            if !known {
                set.head.kind = SetKind::Strange("with elements that time out, count or hold objects".into());
            }
        }
        table.sets.insert(name, set);
    }
    Ok(())
}

/// The elements of a set, and whether all are such as we make.
///
/// The kernel tells the elements of a hash in several messages, and goes on in each after as many as it has told. A hash that grows
/// meanwhile, which is a matter of its own and makes no new generation, has them in another order then: some are told twice, and as many
/// not at all. So a set that is told one twice is asked again.
pub(super) fn elements(
    socket: &mut Socket,
    at: At<'_>,
    name: &str,
    head: &SetHead,
) -> Result<(BTreeMap<Bytes, Datum>, bool), NetlinkError> {
    for _ in 0..TRIES {
        let (mut told, mut known) = (Vec::new(), true);
        socket.dump(&element::dump(at, name), |message| {
            known &= element::parse(message, &mut told)?;
            Ok(None::<()>)
        })?;
        let count = told.len();
        let elements = element::assemble(head, told);
        // Ranges are in order, begin and end.
        if head.form() == Form::Ends || elements.len() == count {
            return Ok((elements, known));
        }
    }
    Err(NetlinkError::Changing { tries: TRIES })
}

fn rules_of(nft: &mut Nft, key: &TableKey) -> Result<Vec<rule::Found>, NetlinkError> {
    let kernel_name = nft.mark.table(&key.name);
    let at = nft.mark.at(key, &kernel_name);
    nft.socket.dump(&rule::dump(at), |message| rule::parse(message, &kernel_name))
}

const TRIES: usize = 16;
