//! From what is allowed to tables. A pure function.
//!
//! Whatever comes and goes is an element of a set or map, so that a rule costs the same for one endpoint as for ten
//! thousand, and a change is an element. Only rules of a policy and limits are rules of chains.

mod bridge;
mod draft;
mod host;
mod input;
mod policy;
mod publish;
mod version;

use overlay_core::Refusal;
use overlay_kernel::nft::{self, Family, TableKey};

use self::draft::Draft;
use crate::State;

/// The tables that mean `state`.
pub(super) fn tables(state: &State) -> Result<nft::State, Refusal> {
    let mut native = nft::State::default();
    let mut rules = Draft::default();
    host::gateways(&mut rules, state)?;
    publish::ports(&mut rules, state)?;
    input::guards(&mut rules, state)?;
    policy::policy(&mut rules, &state.policy)?;
    let mut ports = Draft::default();
    bridge::ports(&mut ports, state)?;
    for (key, draft) in [(key()?, rules), (TableKey::new(Family::Bridge, draft::name("ports")?), ports)] {
        if let Some(table) = draft.finished() {
            native.tables.insert(key, table);
        }
    }
    Ok(native)
}

/// The table in which all rules about IP packets stand.
pub(super) fn key() -> Result<TableKey, Refusal> {
    Ok(TableKey::new(Family::Inet, draft::name("rules")?))
}

/// The table whose presence says that flows are still to be cut.
pub(super) fn grave() -> Result<TableKey, Refusal> {
    Ok(TableKey::new(Family::Inet, draft::name("withdrawn")?))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
