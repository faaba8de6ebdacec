//! This machine's own ports: tunnels, ESP, and those with a limit.

use std::collections::BTreeSet;
use std::net::IpAddr;

use overlay_core::{Name, Refusal, Vni};
use overlay_kernel::nft::{Base, CtState, Hook, IpProtocol, Limit, Rule, Set, meta, rt, th, vxlan};

use super::draft::{Draft, rule};
use super::host::addresses;
use super::publish::protocol;
use super::version::{V4, V6, Version};
use crate::State;

/// The first to be asked at its hook, so that nobody has looked at what is dropped here.
const FIRST: i32 = Base::RAW;

pub(super) fn guards(draft: &mut Draft, state: &State) -> Result<(), Refusal> {
    let mut rules = Vec::new();
    tunnels(draft, state, &mut rules)?;
    if let Some(members) = &state.esp {
        esp::<V4>(draft, members, &mut rules)?;
        esp::<V6>(draft, members, &mut rules)?;
    }
    limits(draft, state, &mut rules)?;
    draft.chain("input", Base::filter(Hook::Input, FIRST), rules)
}

/// Cleartext first, then strangers: a member may send no cleartext either.
fn tunnels(draft: &mut Draft, state: &State, rules: &mut Vec<Rule>) -> Result<(), Refusal> {
    if state.tunnels.is_empty() {
        return Ok(());
    }
    let networks = |(port, tunnel): (&overlay_core::Port, &crate::Tunnel)| -> Vec<(u16, u16, u16)> {
        let key = |vni: &Vni| vxlan::key(*vni);
        tunnel.encrypted.iter().map(key).map(|(high, low)| (port.get(), high, low)).collect()
    };
    let encrypted = draft.set("encrypted", Set::of(state.tunnels.iter().flat_map(networks)))?;
    let tunnels = ports(draft, state)?;
    let clear = || -> Result<Rule, Refusal> {
        let datagram = rule("tunnel/cleartext")?.eq(&meta::L4PROTO, IpProtocol::UDP);
        let (high, low) = vxlan::vni();
        Ok(datagram.is_in(&(th::DPORT, high, low), &encrypted))
    };
    if state.tunnels.values().any(|tunnel| !tunnel.encrypted.is_empty()) {
        // IPv6 joins fragments after this hook, unless flows are tracked: then before all. Nothing else comes of this rule.
        rules.push(rule("flow/joined")?.ct_state(CtState::INVALID));
    }
    rules.push(clear()?.eq(&meta::SECPATH, false).counter().drop());
    members::<V4>(draft, state, &tunnels, rules)?;
    members::<V6>(draft, state, &tunnels, rules)?;
    let leaving = vec![clear()?.eq(&rt::IPSEC, false).counter().drop()];
    draft.chain("output", Base::filter(Hook::Output, FIRST), leaving)
}

/// The ports of tunnels.
pub(super) fn ports(draft: &mut Draft, state: &State) -> Result<Name, Refusal> {
    draft.set("tunnels", Set::of(state.tunnels.keys().map(|port| port.get())))
}

fn members<V: Version>(draft: &mut Draft, state: &State, tunnels: &Name, rules: &mut Vec<Rule>) -> Result<(), Refusal> {
    let all = state
        .tunnels
        .iter()
        .flat_map(|(port, tunnel)| addresses::<V>(&tunnel.members).map(|member| (port.get(), member)));
    let members = draft.set(&V::named("members"), Set::of(all))?;
    let datagram = V::only(rule("tunnel/members")?).eq(&meta::L4PROTO, IpProtocol::UDP).is_in(&th::DPORT, tunnels);
    rules.push(datagram.not_in(&(th::DPORT, V::source()), &members).counter().drop());
    Ok(())
}

fn esp<V: Version>(draft: &mut Draft, members: &BTreeSet<IpAddr>, rules: &mut Vec<Rule>) -> Result<(), Refusal> {
    let members = draft.set(&V::named("esp"), Set::of(addresses::<V>(members)))?;
    let packet = V::only(rule("esp/members")?).eq(&meta::L4PROTO, IpProtocol::ESP);
    rules.push(packet.not_in(&V::source(), &members).counter().drop());
    Ok(())
}

/// A bucket for each port, of which members take nothing.
fn limits(draft: &mut Draft, state: &State, rules: &mut Vec<Rule>) -> Result<(), Refusal> {
    let mut v4 = BTreeSet::new();
    let mut v6 = BTreeSet::new();
    for limit in state.limits.values() {
        let at = (protocol(limit.protocol), limit.port.get());
        v4.extend(addresses::<V4>(&limit.members).map(|member| (at.0, at.1, member)));
        v6.extend(addresses::<V6>(&limit.members).map(|member| (at.0, at.1, member)));
    }
    if state.limits.is_empty() {
        return Ok(());
    }
    let (v4, v6) = (draft.set("known4", Set::of(v4))?, draft.set("known6", Set::of(v6))?);
    let known = |id| -> Result<Rule, Refusal> { rule(id) };
    rules.push(V4::only(known("limit/members")?).is_in(&(meta::L4PROTO, th::DPORT, V4::source()), &v4).accept());
    rules.push(V6::only(known("limit/members")?).is_in(&(meta::L4PROTO, th::DPORT, V6::source()), &v6).accept());
    for (name, limit) in &state.limits {
        let beyond = Limit::packets(limit.per_second.get().into(), limit.burst.max(1)).exceeded();
        let packet = rule(&format!("limit/{name}"))?.eq(&meta::L4PROTO, protocol(limit.protocol));
        rules.push(packet.eq(&th::DPORT, limit.port.get()).limit(beyond).counter().drop());
    }
    Ok(())
}
