//! Gateways: what passes between them and the world.

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IfName, Name, Refusal};
use overlay_kernel::nft::{Base, CtState, CtStatus, Hook, IpProtocol, NatFlags, Rule, Set, ct, meta, th};

use super::draft::{Draft, rule};
use super::version::{V4, V6, Version};
use crate::{Egress, Gateway, State};

/// Before filters of others at the same hook, which all have their say too: what one drops is gone.
pub(super) const BEFORE_FILTERS: i32 = Base::FILTER - 5;

pub(super) fn gateways(draft: &mut Draft, state: &State) -> Result<(), Refusal> {
    let mut forward = Vec::new();
    if state.admin {
        forward.push(rule("admin")?.jump(&draft.open("admin")?));
    }
    if state.gateways.is_empty() {
        draft.chain("forward", Base::filter(Hook::Forward, BEFORE_FILTERS), forward)?;
        return raw_of_published(draft, state);
    }
    let devices = |wanted: fn(&Gateway) -> bool| {
        Set::of(state.gateways.iter().filter(move |(_, gateway)| wanted(gateway)).map(|(device, _)| *device))
    };
    let gateways = draft.set("gateways", devices(|_| true))?;
    let internal = draft.set("internal", devices(|gateway| gateway.egress == Egress::Internal))?;
    let together = Set::of(state.gateways.iter().filter(|(_, it)| it.together).map(|(device, _)| (*device, *device)));
    let together = draft.set("together", together)?;
    let balanced = draft.set("balanced", devices(|gateway| gateway.balanced))?;
    let (v4, v6) = (sets::<V4>(draft, state)?, sets::<V6>(draft, state)?);

    let lo = lo()?;
    let mut raw = vec![rule("loopback")?.eq(&meta::IIFNAME, lo).accept()];
    raw_rules::<V4>(&mut raw, &gateways, &v4)?;
    raw_rules::<V6>(&mut raw, &gateways, &v6)?;
    draft.chain("raw", Base::filter(Hook::Prerouting, Base::RAW), raw)?;

    if !state.tunnels.is_empty() {
        let tunnels = super::input::ports(draft, state)?;
        let datagram = rule("tunnel/endpoint")?.is_in(&meta::IIFNAME, &gateways).eq(&meta::L4PROTO, IpProtocol::UDP);
        forward.push(datagram.is_in(&th::DPORT, &tunnels).counter().drop());
    }
    let known = rule("flow/known")?.ct_state(CtState::ESTABLISHED | CtState::RELATED).accept();
    forward.extend([
        known,
        published::<V4>(&v4)?,
        published::<V6>(&v6)?,
        rule("gateway/balanced")?.is_in(&meta::OIFNAME, &balanced).any(&ct::STATUS, CtStatus::DNAT).accept(),
        rule("gateway/within")?.is_in(&(meta::IIFNAME, meta::OIFNAME), &together).accept(),
        rule("gateway/between")?.is_in(&meta::IIFNAME, &gateways).is_in(&meta::OIFNAME, &gateways).counter().drop(),
        rule("gateway/ingress")?.is_in(&meta::OIFNAME, &gateways).counter().drop(),
        rule("flow/invalid")?.is_in(&meta::IIFNAME, &gateways).ct_state(CtState::INVALID).counter().drop(),
        rule("gateway/internal")?.is_in(&meta::IIFNAME, &internal).counter().drop(),
    ]);
    draft.chain("forward", Base::filter(Hook::Forward, BEFORE_FILTERS), forward)?;

    let mut masquerade = vec![rule("loopback")?.eq(&meta::OIFNAME, lo).accept()];
    masquerade_rules::<V4>(&mut masquerade, &gateways, &v4)?;
    masquerade_rules::<V6>(&mut masquerade, &gateways, &v6)?;
    draft.chain("masquerading", Base::nat(Hook::Postrouting, Base::SRCNAT), masquerade)
}

/// Without gateways, ports that are for this machine alone are kept from others all the same.
fn raw_of_published(draft: &mut Draft, state: &State) -> Result<(), Refusal> {
    if !state.published.values().any(|published| published.bind.is_loopback()) {
        return Ok(());
    }
    let lo = lo()?;
    let raw = vec![
        rule("loopback")?.eq(&meta::IIFNAME, lo).accept(),
        local_rule::<V4>(&local::<V4>(draft, state)?)?,
        local_rule::<V6>(&local::<V6>(draft, state)?)?,
    ];
    draft.chain("raw", Base::filter(Hook::Prerouting, Base::RAW), raw)
}

pub(super) fn lo() -> Result<IfName, Refusal> {
    IfName::new("lo").map_err(|error| Refusal::new("device", "lo", error.to_string()))
}

/// The sets of one version that rules about gateways look into.
struct Sets {
    /// Subnets with their gateway's device.
    home: Name,
    /// Subnets.
    subnets: Name,
    /// Those of gateways with a way out.
    masqueraded: Name,
    /// Where published ports lead.
    targets: Name,
    /// Ports that are published for this machine alone.
    local: Name,
}

fn sets<V: Version>(draft: &mut Draft, state: &State) -> Result<Sets, Refusal> {
    let subnets = |wanted: fn(&Gateway) -> bool| {
        let gateways = state.gateways.iter().filter(move |(_, gateway)| wanted(gateway));
        gateways.flat_map(|(device, gateway)| {
            gateway.subnets.iter().filter_map(|net| V::range(*net)).map(|range| (*device, range))
        })
    };
    let home = subnets(|_| true).map(|(device, range)| (device, *range.start())..=(device, *range.end()));
    let all = subnets(|_| true).map(|(_, range)| range);
    let out = subnets(|gateway| gateway.egress == Egress::Masquerade).map(|(_, range)| range);
    Ok(Sets {
        home: draft.set(&V::named("home"), Set::ranges(home))?,
        subnets: draft.set(&V::named("subnets"), Set::ranges(all))?,
        masqueraded: draft.set(&V::named("masqueraded"), Set::ranges(out))?,
        targets: super::publish::targets::<V>(draft, state)?,
        local: local::<V>(draft, state)?,
    })
}

fn local<V: Version>(draft: &mut Draft, state: &State) -> Result<Name, Refusal> {
    let ports = state.published.values().filter(|it| it.bind.is_loopback() && it.target(V::FAMILY).is_some());
    let keys = ports.map(|it| (super::publish::protocol(it.protocol), it.port.get()));
    draft.set(&V::named("local"), Set::of(keys))
}

/// Before flows are known: nobody reaches loopback, lies about his side, or is routed in.
fn raw_rules<V: Version>(rules: &mut Vec<Rule>, gateways: &Name, sets: &Sets) -> Result<(), Refusal> {
    let (low, high) = (*V::LOOPBACK.start(), *V::LOOPBACK.end());
    let new = |id: &str| rule(id).map(V::only);
    let (here, there) = ((meta::IIFNAME, V::source()), (meta::IIFNAME, V::destination()));
    let loopback = new("gateway/loopback")?.is_in(&meta::IIFNAME, gateways);
    rules.push(loopback.within(&V::destination(), low, high).counter().drop());
    rules.push(local_rule::<V>(&sets.local)?);
    let mut lies = new("gateway/source")?.is_in(&meta::IIFNAME, gateways).not_in(&here, &sets.home);
    for unsettled in V::UNSETTLED {
        lies = lies.outside(&V::source(), *unsettled.start(), *unsettled.end());
    }
    rules.push(lies.counter().drop());
    rules.push(new("gateway/source")?.is_in(&V::source(), &sets.subnets).not_in(&here, &sets.home).counter().drop());
    rules.push(
        new("gateway/route")?.is_in(&V::destination(), &sets.subnets).not_in(&there, &sets.home).counter().drop(),
    );
    Ok(())
}

fn local_rule<V: Version>(local: &Name) -> Result<Rule, Refusal> {
    let rule = V::only(rule("published/local")?).within(&V::destination(), *V::LOOPBACK.start(), *V::LOOPBACK.end());
    Ok(rule.is_in(&(meta::L4PROTO, th::DPORT), local).counter().drop())
}

/// What was translated, and to where it may be.
fn published<V: Version>(sets: &Sets) -> Result<Rule, Refusal> {
    let rule = V::only(rule("published")?).any(&ct::STATUS, CtStatus::DNAT);
    Ok(rule.is_in(&(V::destination(), meta::L4PROTO, th::DPORT), &sets.targets).accept())
}

/// What goes out; what comes back in to a published port from inside, and from this machine's loopback, so that its
/// replies come back here.
fn masquerade_rules<V: Version>(rules: &mut Vec<Rule>, gateways: &Name, sets: &Sets) -> Result<(), Refusal> {
    let new = |id: &str| rule(id).map(V::only);
    let flags = NatFlags::default();
    let out = new("gateway/egress")?.is_in(&V::source(), &sets.masqueraded).not_in(&meta::OIFNAME, gateways);
    rules.push(out.masquerade(flags));
    let inside = new("published/inside")?.any(&ct::STATUS, CtStatus::DNAT).is_in(&V::source(), &sets.subnets);
    rules.push(inside.is_in(&meta::OIFNAME, gateways).masquerade(flags));
    let loopback = new("published/loopback")?.within(&V::source(), *V::LOOPBACK.start(), *V::LOOPBACK.end());
    rules.push(loopback.is_in(&meta::OIFNAME, gateways).masquerade(flags));
    Ok(())
}

/// Those of some subnets that are of one version, with none inside another.
pub(super) fn apart<V: Version>(
    nets: impl IntoIterator<Item = IpNet>,
) -> impl Iterator<Item = std::ops::RangeInclusive<V::Address>> {
    IpNet::aggregate(&nets.into_iter().collect()).into_iter().filter_map(V::range)
}

/// Those of some addresses that are of one version.
pub(super) fn addresses<'a, V: Version + 'a>(
    of: impl IntoIterator<Item = &'a IpAddr> + 'a,
) -> impl Iterator<Item = V::Address> + 'a {
    of.into_iter().filter_map(|address| V::address(*address))
}
