//! Services at ports of the machine's own addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use overlay_core::{Name, Refusal};
use overlay_kernel::conntrack::Flow;
use overlay_kernel::nft::{
    AddressType, CtDirection, CtState, CtStatus, IpProtocol, Mark, NatFlags, Operand, Reject, Rule, Set, Unreachable,
    Value, Verdict, ct, fib, meta, th,
};

use super::class::{Reach, Slots};
use super::draft::{Draft, name, rule};
use super::version::{Published, V4, V6, Version};
use super::{Wanted, draw, protocol_of};
use crate::{Bind, Condition, ServedPort, Service};

/// The rules of the hooks that have a part in it.
#[derive(Default)]
pub(super) struct Hooks {
    /// Translation of what comes in.
    pub(super) arriving: Vec<Rule>,
    /// Translation of what begins here.
    pub(super) own: Vec<Rule>,
    /// What no service takes.
    pub(super) input: Vec<Rule>,
    /// Sources of what leaves.
    pub(super) leaving: Vec<Rule>,
}

/// Who asks for one is led to a replica; who is not is refused, whoever listens there; who may not ask is dropped.
pub(super) fn services(draft: &mut Draft, wanted: &Wanted<'_>, hooks: &mut Hooks) -> Result<(), Refusal> {
    let all: Vec<&Service> = wanted.services.iter().copied().filter(|service| service.is_published()).collect();
    let restricted =
        all.iter().filter(|service| !service.sources.is_empty()).flat_map(|it| it.ports.named()).map(place);
    let restricted: BTreeSet<Place> = restricted.collect();
    let restricts = !restricted.is_empty();
    if restricts {
        draft.set(RESTRICTED, Set::of(restricted))?;
    }
    draft.part(
        REFUSE,
        vec![
            rule("refused")?.eq(&meta::L4PROTO, IpProtocol::TCP).reject(Reject::TcpReset),
            rule("refused")?.reject(Reject::Unreachable(Unreachable::Port)),
        ],
    )?;
    slots::<V4>(draft, &all, wanted)?;
    slots::<V6>(draft, &all, wanted)?;
    of_version::<V4>(draft, (&all, restricts), hooks)?;
    of_version::<V6>(draft, (&all, restricts), hooks)?;
    if all.iter().any(|service| service.masquerade) {
        hooks.leaving.push(masquerade::<V4>(draft, &all)?);
        hooks.leaving.push(masquerade::<V6>(draft, &all)?);
    }
    Ok(())
}

/// What is led to a replica that is to see the machine leaves as the machine's.
fn masquerade<V: Version>(draft: &mut Draft, services: &[&Service]) -> Result<Rule, Refusal> {
    let as_machine = services.iter().filter(|service| service.masquerade);
    let led = draft.set(&V::named("masqueraded"), Set::of(as_machine.flat_map(|service| replicas::<V>(service))))?;
    let key = (meta::L4PROTO, ct::proto_dst(CtDirection::Original), V::destination(), th::DPORT);
    Ok(V::only(rule("masquerade")?).any(&ct::STATUS, CtStatus::DNAT).is_in(&key, &led).masquerade(NatFlags::default()))
}

/// A service's ports, each with each replica that may have flows.
fn replicas<V: Version>(service: &Service) -> Vec<V::Published> {
    let stay = service.replicas.values().filter(|replica| replica.condition != Condition::Down);
    let stay: Vec<_> = stay.filter_map(|it| V::address(it.address(V::FAMILY)?)).collect();
    let of_port = |served: &ServedPort| {
        let (place, target) = (place(served), served.target.get());
        stay.iter().map(|it| V::published(place, (*it, target))).collect::<Vec<_>>()
    };
    service.ports.named().flat_map(of_port).collect()
}

/// What begins, and is for an address of the machine's own: what was begun before a port was published goes on.
fn refused<V: Version>() -> Result<Rule, Refusal> {
    Ok(here::<V>("refused")?.ct_state(CtState::NEW))
}

fn here<V: Version>(id: &str) -> Result<Rule, Refusal> {
    let here = V::only(rule(id)?).eq(&fib::DADDR_TYPE, AddressType::LOCAL);
    Ok(V::NEAR.iter().fold(here, |here, near| here.outside(&V::destination(), *near.start(), *near.end())))
}

/// Where ports are found: at any address, at some, or by some interfaces. No two services have one port.
fn of_version<V: Version>(
    draft: &mut Draft,
    (services, restricts): (&[&Service], bool),
    hooks: &mut Hooks,
) -> Result<(), Refusal> {
    if restricts {
        let allowed = services.iter().flat_map(|service| allowed::<V>(service));
        draft.set(&V::named(ALLOWED), Set::ranges(allowed))?;
    }
    let (protocol, port) = (meta::L4PROTO, th::DPORT);
    let at_any = |bind: &Bind, place: Place| (*bind == Bind::Any).then_some(place).into_iter().collect();
    let at_any = Kind::of::<V>(draft, ("", services), at_any)?;
    at_any.rules::<V>(&(protocol.clone(), port.clone()), (restricts, true), hooks)?;
    if services.iter().any(|service| matches!(service.bind, Bind::Addresses(_))) {
        let at_some = |bind: &Bind, (protocol, port): Place| match bind {
            Bind::Addresses(all) => all.iter().filter_map(|it| Some((V::address(*it)?, protocol, port))).collect(),
            _ => Vec::new(),
        };
        let at_some = Kind::of::<V>(draft, ("-bound", services), at_some)?;
        at_some.rules::<V>(&(V::destination(), protocol.clone(), port.clone()), (restricts, true), hooks)?;
    }
    if services.iter().any(|service| matches!(service.bind, Bind::Interfaces(_))) {
        let by_some = |bind: &Bind, (protocol, port): Place| match bind {
            Bind::Interfaces(all) => all.iter().map(|by| (*by, protocol, port)).collect(),
            _ => Vec::new(),
        };
        let by_some = Kind::of::<V>(draft, ("-by", services), by_some)?;
        by_some.rules::<V>(&(meta::IIFNAME, protocol, port), (restricts, false), hooks)?;
    }
    Ok(())
}

/// For those that are found in one way, the maps that rules ask.
struct Kind<K> {
    /// Where those lead that somebody takes.
    leads: Name,
    /// All of them.
    places: Name,
    keys: PhantomData<K>,
}

impl<K: Value + Copy> Kind<K> {
    fn of<V: Version>(
        draft: &mut Draft,
        (suffix, services): (&str, &[&Service]),
        keys: impl Fn(&Bind, Place) -> Vec<K>,
    ) -> Result<Self, Refusal> {
        let (mut leads, mut places) = (Vec::new(), Vec::new());
        for service in services {
            let chain = Slots::of(service, V::FAMILY).map(|slots| name(&slots.class.name())).transpose()?;
            for key in service.ports.named().flat_map(|served| keys(&service.bind, place(served))) {
                places.push(key);
                leads.extend(chain.clone().map(|chain| (key, Verdict::Goto(chain))));
            }
        }
        let leads = draft.set(&V::named(&format!("leads-published{suffix}")), Set::verdicts(leads))?;
        let places = draft.set(&V::named(&format!("published{suffix}")), Set::of(places))?;
        Ok(Self { leads, places, keys: PhantomData })
    }

    /// Of those found by an interface, nothing that begins here is one.
    fn rules<V: Version>(
        &self,
        key: &impl Operand<Value = K>,
        (restricts, own): (bool, bool),
        hooks: &mut Hooks,
    ) -> Result<(), Refusal> {
        if restricts {
            let asks = (meta::L4PROTO, th::DPORT, V::source());
            let stranger = here::<V>("published/sources")?.is_in(key, &self.places);
            let stranger = stranger.is_in(&(meta::L4PROTO, th::DPORT), &name(RESTRICTED)?);
            hooks.arriving.push(stranger.not_in(&asks, &name(&V::named(ALLOWED))?).counter().drop());
        }
        let led = here::<V>("published")?.verdict_by(key, &self.leads);
        if own {
            hooks.own.push(led.clone());
        }
        hooks.arriving.push(led);
        hooks.input.push(refused::<V>()?.is_in(key, &self.places).jump(&name(REFUSE)?));
        Ok(())
    }
}

/// Who may ask for a service's ports, where that is not everybody.
fn allowed<V: Version>(service: &Service) -> Vec<RangeInclusive<(IpProtocol, u16, V::Address)>> {
    let apart = IpNet::aggregate(&service.sources.iter().copied().collect());
    let ranges: Vec<_> = apart.into_iter().filter_map(V::range).collect();
    let of_port = |(protocol, port): Place| {
        let ranges = ranges.iter().map(move |net| (protocol, port, *net.start())..=(protocol, port, *net.end()));
        ranges.collect::<Vec<_>>()
    };
    service.ports.named().map(place).flat_map(of_port).collect()
}

/// Who takes which number of each class, and the rules that draw one.
fn slots<V: Version>(draft: &mut Draft, services: &[&Service], wanted: &Wanted<'_>) -> Result<(), Refusal> {
    let mut slots = BTreeMap::<u32, Vec<((IpProtocol, u16, Mark), V::Target)>>::new();
    for service in services {
        let Some(taken) = Slots::of(service, V::FAMILY) else { continue };
        for served in service.ports.named() {
            let ((protocol, port), target) = (place(served), served.target.get());
            let takers = taken.takers.iter().filter_map(|taker| V::address(*taker));
            let numbered = (0..).map(Mark).zip(takers);
            let numbered = numbered.map(|(slot, to)| ((protocol, port, slot), V::target(to, target)));
            slots.entry(taken.class.size).or_default().extend(numbered);
        }
    }
    let classes = wanted.classes.iter().filter(|it| (it.family, it.reach) == (V::FAMILY, Reach::Published));
    for class in classes {
        let map = draft.set(&class.map(), Set::map(slots.get(&class.size).cloned().unwrap_or_default()))?;
        let key = (meta::L4PROTO, th::DPORT, draw::<V>(*class));
        let rule = V::only(rule(class.draws.text())?).dnat_by::<V::Target, _>(&key, &map);
        draft.part(&class.name(), vec![rule])?;
    }
    let replicas = services.iter().flat_map(|service| replicas::<V>(service));
    draft.set(&V::named(REPLICAS), Set::of(replicas))?;
    Ok(())
}

/// A protocol and a port.
pub(in crate::kernel) type Place = (IpProtocol, u16);

/// A served port as rules have it.
pub(in crate::kernel) const fn place(served: &ServedPort) -> Place {
    (protocol_of(served.protocol), served.port.get())
}

/// Whether a flow goes from a published port to one of the replicas that a set has for it.
pub(in crate::kernel) fn leads(set: &Set, flow: &Flow) -> bool {
    let (protocol, port, target) = (IpProtocol(flow.protocol), flow.original.to_port, flow.reply.from_port);
    match flow.reply.from {
        IpAddr::V4(replica) => set.contains::<Published<Ipv4Addr>>(&(protocol, port, replica, target)),
        IpAddr::V6(replica) => set.contains::<Published<Ipv6Addr>>(&(protocol, port, replica, target)),
    }
}

/// What begins the names of the sets of all replicas of published services that may have flows. No rule asks them.
pub(in crate::kernel) const REPLICAS: &str = "replicas-published";
/// The ports that are not for everybody.
const RESTRICTED: &str = "restricted";
/// Who they are for.
const ALLOWED: &str = "allowed";
const REFUSE: &str = "refuse-published";
