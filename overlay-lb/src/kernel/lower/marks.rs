//! Marks of what goes to VIPs at all ports, for IPVS.

use std::net::IpAddr;

use overlay_core::Refusal;
use overlay_kernel::nft::{self, Base, Family, Hook, Mark, Rule, Set, TableKey};

use super::draft::{Draft, name, rule};
use super::version::{V4, V6, Version};
use crate::kernel::Marks;
use crate::{Ports, State};

/// The VIPs of which all ports are served.
pub(in crate::kernel) fn at_all_ports(state: &State) -> impl Iterator<Item = IpAddr> + '_ {
    let services = state.services.values().filter(|service| service.ports == Ports::All);
    services.flat_map(|service| service.vips.iter().copied())
}

/// The table that marks, if anything is to be marked.
pub(in crate::kernel) fn marks(state: &State) -> Result<nft::State, Refusal> {
    let mut native = nft::State::default();
    if at_all_ports(state).next().is_none() {
        return Ok(native);
    }
    let mut draft = Draft::default();
    let rules = vec![of_version::<V4>(&mut draft, state)?, of_version::<V6>(&mut draft, state)?];
    draft.chain("arriving", Base::filter(Hook::Prerouting, Base::MANGLE), rules.clone())?;
    draft.chain("own", Base::filter(Hook::Output, Base::MANGLE), rules)?;
    native.tables.insert(TableKey::new(Family::Inet, name("marks")?), draft.finished());
    Ok(native)
}

fn of_version<V: Version>(draft: &mut Draft, state: &State) -> Result<Rule, Refusal> {
    let vips = at_all_ports(state).filter_map(|vip| Some((V::address(vip)?, Mark(Marks::of(vip)))));
    let marks = draft.set(&V::named("marks"), Set::map(vips))?;
    Ok(V::only(rule("mark")?).set_mark_by(&V::destination(), &marks))
}
