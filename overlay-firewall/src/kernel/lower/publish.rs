//! Published ports: who may ask, and where they get to.

use std::ops::RangeInclusive;

use overlay_core::{Name, Protocol, Refusal};
use overlay_kernel::nft::{
    AddressType, Base, CtState, Field, Hook, IpProtocol, Operand, Rule, Scalar, Set, ct, fib, meta, th,
};

use super::draft::{Draft, rule};
use super::host::{apart, lo};
use super::version::{V4, V6, Version};
use crate::{Bind, Published, State};

/// Before translations of others, so that a port of ours is ours.
const BEFORE_DNAT: i32 = Base::DSTNAT - 5;
/// Before that, when flows are known already.
const SOURCES: i32 = Base::DSTNAT - 15;

pub(super) fn ports(draft: &mut Draft, state: &State) -> Result<(), Refusal> {
    if state.published.is_empty() {
        return Ok(());
    }
    let (v4, v6) = (sets::<V4>(draft, state)?, sets::<V6>(draft, state)?);
    let mut sources = vec![
        rule("loopback")?.eq(&meta::IIFNAME, lo()?).accept(),
        rule("not first")?.none(&ct::STATE, CtState::NEW).accept(),
        rule("not here")?.ne(&fib::DADDR_TYPE, AddressType::LOCAL).accept(),
    ];
    v4.sources::<V4>(&mut sources)?;
    v6.sources::<V6>(&mut sources)?;
    draft.chain("sources", Base::filter(Hook::Prerouting, SOURCES), sources)?;

    let not_here = rule("not here")?.ne(&fib::DADDR_TYPE, AddressType::LOCAL).accept();
    let mut arriving = vec![not_here.clone()];
    v4.translations::<V4>(&mut arriving, true)?;
    v6.translations::<V6>(&mut arriving, true)?;
    draft.chain("publish", Base::nat(Hook::Prerouting, BEFORE_DNAT), arriving)?;
    let mut own = vec![not_here];
    v4.translations::<V4>(&mut own, false)?;
    v6.translations::<V6>(&mut own, false)?;
    draft.chain("publish-own", Base::nat(Hook::Output, BEFORE_DNAT), own)
}

pub(super) const fn protocol(of: Protocol) -> IpProtocol {
    match of {
        Protocol::Tcp => IpProtocol::TCP,
        Protocol::Udp => IpProtocol::UDP,
        Protocol::Sctp => IpProtocol::SCTP,
    }
}

/// Where published ports lead.
pub(super) fn targets<V: Version>(draft: &mut Draft, state: &State) -> Result<Name, Refusal> {
    let targets = state.published.values().filter_map(|published| {
        let target = published.target(V::FAMILY)?;
        Some((V::address(target.ip())?, protocol(published.protocol), target.port()))
    });
    draft.set(&V::named("targets"), Set::of(targets))
}

/// For each kind of place, what rules look into.
struct Sets {
    address: Kind,
    interface: Kind,
    any: Kind,
}

/// Ports at one kind of place: where they lead, which are for some sources only, and for which.
struct Kind {
    to: Name,
    /// All of them, where another kind is asked after this one.
    places: Option<Name>,
    restricted: Name,
    allowed: Name,
}

fn sets<V: Version>(draft: &mut Draft, state: &State) -> Result<Sets, Refusal> {
    let all = || state.published.values().filter(|it| it.target(V::FAMILY).is_some());
    let at = |it: &'_ Published| (protocol(it.protocol), it.port.get());
    let address = all().filter_map(|it| match it.bind {
        Bind::Address(address) => Some((it, (V::address(address)?, at(it).0, at(it).1))),
        _ => None,
    });
    let interface = all().filter_map(|it| match it.bind {
        Bind::Interface(interface) => Some((it, (interface, at(it).0, at(it).1))),
        _ => None,
    });
    targets::<V>(draft, state)?; // which flows are ours
    let any = all().filter(|it| it.bind == Bind::Any).map(|it| (it, at(it)));
    Ok(Sets {
        address: triples::<V, _>(draft, "address", &address.collect::<Vec<_>>())?,
        interface: triples::<V, _>(draft, "interface", &interface.collect::<Vec<_>>())?,
        any: pairs::<V>(draft, &any.collect::<Vec<_>>())?,
    })
}

type Triple<T> = (T, IpProtocol, u16);

fn triples<V: Version, T: Scalar>(
    draft: &mut Draft,
    kind: &str,
    ports: &[(&Published, Triple<T>)],
) -> Result<Kind, Refusal> {
    let restricted = || ports.iter().filter(|(it, _)| !it.sources.is_empty());
    let allowed = restricted().flat_map(|(it, (place, protocol, port))| {
        let range = move |low, high| (*place, *protocol, *port, low)..=(*place, *protocol, *port, high);
        apart::<V>(it.sources.iter().copied()).map(move |net| range(*net.start(), *net.end()))
    });
    let allowed = Set::ranges(allowed);
    let places = draft.set(&V::named(&format!("at-{kind}")), Set::of(ports.iter().map(|(_, key)| *key)))?;
    let kind = kind_of::<V, _>(draft, kind, (ports, Set::of(restricted().map(|(_, key)| *key)), allowed))?;
    Ok(Kind { places: Some(places), ..kind })
}

fn pairs<V: Version>(draft: &mut Draft, ports: &[(&Published, (IpProtocol, u16))]) -> Result<Kind, Refusal> {
    let restricted = || ports.iter().filter(|(it, _)| !it.sources.is_empty());
    let allowed = restricted().flat_map(|(it, (protocol, port))| {
        let range = move |low, high| (*protocol, *port, low)..=(*protocol, *port, high);
        apart::<V>(it.sources.iter().copied()).map(move |net| range(*net.start(), *net.end()))
    });
    let allowed = Set::ranges(allowed);
    kind_of::<V, _>(draft, "any", (ports, Set::of(restricted().map(|(_, key)| *key)), allowed))
}

fn kind_of<V: Version, K: overlay_kernel::nft::Value + Copy>(
    draft: &mut Draft,
    kind: &str,
    (ports, restricted, allowed): (&[(&Published, K)], Set, Set),
) -> Result<Kind, Refusal> {
    let targets = ports.iter().filter_map(|(it, key)| {
        let target = it.target(V::FAMILY)?;
        Some((*key, V::target(V::address(target.ip())?, target.port())))
    });
    Ok(Kind {
        to: draft.set(&V::named(&format!("to-{kind}")), Set::map(targets))?,
        places: None,
        restricted: draft.set(&V::named(&format!("restricted-{kind}")), restricted)?,
        allowed: draft.set(&V::named(&format!("allowed-{kind}")), allowed)?,
    })
}

impl Sets {
    /// An address is asked first, then an interface: what is published there is not published at every address.
    fn sources<V: Version>(&self, rules: &mut Vec<Rule>) -> Result<(), Refusal> {
        let (protocol, port) = (meta::L4PROTO, th::DPORT);
        let at = V::destination();
        self.address.sources::<V, _, _>(
            rules,
            &(at.clone(), protocol.clone(), port.clone()),
            &(at, protocol.clone(), port.clone(), V::source()),
        )?;
        rules.extend(near::<V>()?);
        let from = meta::IIFNAME;
        self.interface.sources::<V, _, _>(
            rules,
            &(from.clone(), protocol.clone(), port.clone()),
            &(from, protocol.clone(), port.clone(), V::source()),
        )?;
        self.any.sources::<V, _, _>(rules, &(protocol.clone(), port.clone()), &(protocol, port, V::source()))
    }

    fn translations<V: Version>(&self, rules: &mut Vec<Rule>, arriving: bool) -> Result<(), Refusal> {
        let new = || rule("published").map(V::only);
        let (protocol, port): (Field<IpProtocol>, Field<u16>) = (meta::L4PROTO, th::DPORT);
        let key = (V::destination(), protocol.clone(), port.clone());
        rules.push(new()?.dnat_by::<V::Target, _>(&key, &self.address.to));
        rules.extend(near::<V>()?);
        if arriving {
            let key = (meta::IIFNAME, protocol.clone(), port.clone());
            rules.push(new()?.dnat_by::<V::Target, _>(&key, &self.interface.to));
        }
        rules.push(new()?.dnat_by::<V::Target, _>(&(protocol, port), &self.any.to));
        Ok(())
    }
}

/// What no port takes that is at every address.
fn near<V: Version>() -> Result<Vec<Rule>, Refusal> {
    let left = |range: &RangeInclusive<V::Address>| {
        let rule = V::only(rule("not here")?);
        Ok(rule.within(&V::destination(), *range.start(), *range.end()).accept())
    };
    V::NEAR.iter().map(left).collect()
}

impl Kind {
    fn sources<V: Version, K: Operand, S: Operand>(
        &self,
        rules: &mut Vec<Rule>,
        key: &K,
        with_source: &S,
    ) -> Result<(), Refusal> {
        let drop = V::only(rule("published/sources")?).is_in(key, &self.restricted);
        rules.push(drop.not_in(with_source, &self.allowed).counter().drop());
        if let Some(places) = &self.places {
            rules.push(V::only(rule("published")?).is_in(key, places).accept());
        }
        Ok(())
    }
}
