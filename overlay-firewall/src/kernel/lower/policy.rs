//! A policy: rules about groups, which are sets of addresses.

use std::collections::BTreeSet;

use overlay_core::{Name, Refusal};
use overlay_kernel::nft::{Base, CtState, Hook, Icmp6Type, IpProtocol, Rule, Set, TcpFlags, meta, th};

use super::draft::{Draft, fingerprint, rule};
use super::host::{BEFORE_FILTERS, addresses};
use super::publish::protocol;
use super::version::{V4, V6, Version};
use crate::{Action, Mode, Policy, PolicyRule, Ports, Selector};

pub(super) fn policy(draft: &mut Draft, policy: &Policy) -> Result<(), Refusal> {
    if !policy.is_active() {
        return Ok(());
    }
    let neighbours = draft.set("neighbours", Set::of(NEIGHBOURS))?;
    let opens = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0 | TcpFlags::RST.0 | TcpFlags::FIN.0);
    let tcp = rule("policy/unbegun")?.eq(&meta::L4PROTO, IpProtocol::TCP);
    let mut rules = vec![
        rule("flow/known")?.ct_state(CtState::ESTABLISHED | CtState::RELATED).accept(),
        V6::only(rule("policy/neighbours")?)
            .eq(&meta::L4PROTO, IpProtocol::ICMPV6)
            .is_in(&th::ICMP6_TYPE, &neighbours)
            .accept(),
        rule("flow/invalid")?.ct_state(CtState::INVALID).counter().drop(),
        tcp.ne(&th::TCP_FLAGS.masked(opens), TcpFlags::SYN).counter().drop(),
    ];
    for (name, of) in policy.in_order() {
        rules.push(about::<V4>(draft, policy, (name, of))?);
        rules.push(about::<V6>(draft, policy, (name, of))?);
    }
    let otherwise = rule("policy/otherwise")?.counter();
    rules.push(match policy.otherwise {
        Action::Allow => otherwise.accept(),
        Action::Deny => otherwise.drop(),
    });
    draft.chain("policies", Base::filter(Hook::Forward, BEFORE_FILTERS), rules)
}

fn about<V: Version>(draft: &mut Draft, policy: &Policy, (name, of): (&Name, &PolicyRule)) -> Result<Rule, Refusal> {
    let from = group::<V>(draft, policy, &of.from)?;
    let to = group::<V>(draft, policy, &of.to)?;
    let mut rule =
        V::only(rule(&format!("policy/rule/{name}"))?).is_in(&V::source(), &from).is_in(&V::destination(), &to);
    if !of.ports.is_empty() {
        let ports = ports(draft, &of.ports)?;
        rule = rule.is_in(&(meta::L4PROTO, th::DPORT), &ports);
    }
    rule = rule.counter();
    Ok(match (of.mode, of.action) {
        (Mode::Audit, _) => rule,
        (Mode::Enforce, Action::Allow) => rule.accept(),
        (Mode::Enforce, Action::Deny) => rule.drop(),
    })
}

/// The addresses of those whom a selector selects: one set for all rules that have it.
fn group<V: Version>(draft: &mut Draft, policy: &Policy, selector: &Selector) -> Result<Name, Refusal> {
    let parts = selector.0.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]);
    let name = format!("{}-{}", V::named("group"), fingerprint(parts));
    if let Some(known) = draft.known(&name)? {
        return Ok(known);
    }
    let members = policy.members.values().filter(|member| selector.selects(member));
    draft.set(&name, Set::of(members.flat_map(|member| addresses::<V>(&member.addresses))))
}

/// Ports, none of them twice.
fn ports(draft: &mut Draft, ports: &BTreeSet<Ports>) -> Result<Name, Refusal> {
    let mut apart: Vec<Ports> = Vec::new();
    for next in ports {
        match apart.last_mut() {
            Some(last) if last.touches(next) => last.extend(next),
            _ => apart.push(*next),
        }
    }
    let texts: Vec<String> = apart.iter().map(ToString::to_string).collect();
    let name = format!("ports-{}", fingerprint(texts.iter().map(String::as_bytes)));
    let ranges = apart.iter().map(|ports| {
        let of = protocol(ports.protocol);
        (of, ports.range.first().get())..=(of, ports.range.last().get())
    });
    draft.set(&name, Set::ranges(ranges))
}

/// What neighbour discovery and the groups it needs are made of (RFC 4861 §4, RFC 2710 §3, RFC 3810 §5.2).
const NEIGHBOURS: [Icmp6Type; 8] = [
    Icmp6Type(131),
    Icmp6Type(132),
    Icmp6Type::ROUTER_SOLICITATION,
    Icmp6Type::ROUTER_ADVERTISEMENT,
    Icmp6Type::NEIGHBOUR_SOLICITATION,
    Icmp6Type::NEIGHBOUR_ADVERTISEMENT,
    Icmp6Type::REDIRECT,
    Icmp6Type(143),
];
