//! What of other programs' tables is in the way: read only, never changed.

use std::collections::BTreeSet;

use overlay_core::{BackendError, IfName};

use super::expr::{Compare, Expr};
use super::wire::{At, chain, rule};
use super::{ChainKind, Family, Hook, Nft, Policy, Rule, Verdict};
use crate::netlink::NetlinkError;

/// A base chain of somebody else's that drops what none of its rules lets pass.
///
/// An accept in another chain does not help against it: at a hook, each chain has its say, and one that drops is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Barrier {
    /// The family of its table.
    pub family: Family,
    /// Its table, as the kernel has it.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Where it stands.
    pub hook: Hook,
    /// All chains of its table: they tell whose it is.
    pub chains: BTreeSet<String>,
    /// Devices that packets may leave by, as some rule of the table says and nothing else: it is none for these.
    pub passes: BTreeSet<IfName>,
}

impl Nft {
    /// The barriers at a hook of `ip`, `ip6` and `inet`. Those of the older iptables are not seen.
    ///
    /// # Errors
    /// If tables cannot be read.
    pub fn barriers(&mut self, hook: Hook) -> Result<Vec<Barrier>, BackendError> {
        find(self, hook).map_err(|error| error.during("read other programs' tables"))
    }
}

fn find(nft: &mut Nft, hook: Hook) -> Result<Vec<Barrier>, NetlinkError> {
    let mut barriers = Vec::new();
    for family in [Family::Ip, Family::Ip6, Family::Inet] {
        let chains = nft.socket.dump(&chain::dump(family), chain::parse)?;
        let foreign: Vec<_> = chains.into_iter().filter(|found| nft.mark.name(&found.table).is_none()).collect();
        for found in &foreign {
            let Some(Some(base)) = &found.base else { continue };
            if base.hook != hook || base.kind != ChainKind::Filter {
                continue;
            }
            let at = At { family, table: &found.table };
            let rules = nft.socket.dump(&rule::dump(at), |message| rule::parse(message, &found.table))?;
            let last = rules.iter().rfind(|rule| rule.chain == found.name).map(|found| &found.rule);
            if base.policy == Policy::Accept && !last.is_some_and(drops_all) {
                continue;
            }
            let of_table = foreign.iter().filter(|other| other.table == found.table);
            barriers.push(Barrier {
                family,
                table: found.table.clone(),
                chain: found.name.clone(),
                hook,
                chains: of_table.map(|other| other.name.clone()).collect(),
                passes: rules.iter().filter_map(|found| passes(&found.rule)).collect(),
            });
        }
    }
    Ok(barriers)
}

/// What a rule does besides looking on.
fn acts(rule: &Rule) -> Vec<&Expr> {
    rule.exprs.iter().filter(|expr| !matches!(expr, Expr::Counter | Expr::Log(_))).collect()
}

fn drops_all(rule: &Rule) -> bool {
    matches!(acts(rule)[..], [Expr::Verdict(Verdict::Drop) | Expr::Reject(_)])
}

/// The device that a rule lets everything leave by.
fn passes(rule: &Rule) -> Option<IfName> {
    let [
        Expr::Meta { key: OIFNAME, .. },
        Expr::Compare { how: Compare::Equal, bytes, .. },
        Expr::Verdict(Verdict::Accept),
    ] = acts(rule)[..]
    else {
        return None;
    };
    std::str::from_utf8(bytes).ok()?.trim_end_matches('\0').parse().ok()
}

const OIFNAME: u32 = 7;
