//! Services at ports of the machine's own addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_core::Refusal;
use overlay_kernel::conntrack::Flow;
use overlay_kernel::nft::{
    AddressType, CtState, IpProtocol, Mark, Reject, Rule, Set, Unreachable, Verdict, fib, meta, th,
};

use super::class::{Reach, Slots};
use super::draft::{Draft, name, rule};
use super::version::{Published, V4, V6, Version};
use super::{Wanted, draw, protocol_of};
use crate::{Condition, ServedPort, Service};

/// Who asks for one is led to a replica; who is not is refused, whoever listens there.
pub(super) fn services(
    draft: &mut Draft,
    wanted: &Wanted<'_>,
    (first, input): (&mut Vec<Rule>, &mut Vec<Rule>),
) -> Result<(), Refusal> {
    let all: Vec<&Service> = wanted.services.iter().copied().filter(|service| service.is_published()).collect();
    of_version::<V4>(draft, (&all, wanted), first)?;
    of_version::<V6>(draft, (&all, wanted), first)?;
    let places = all.iter().flat_map(|service| service.ports.named()).map(place);
    let places = draft.set("published", Set::of(places))?;
    let refuse = draft.part(
        "refuse-published",
        vec![
            rule("refused")?.eq(&meta::L4PROTO, IpProtocol::TCP).reject(Reject::TcpReset),
            rule("refused")?.reject(Reject::Unreachable(Unreachable::Port)),
        ],
    )?;
    input.push(refused::<V4>()?.is_in(&(meta::L4PROTO, th::DPORT), &places).jump(&refuse));
    input.push(refused::<V6>()?.is_in(&(meta::L4PROTO, th::DPORT), &places).jump(&refuse));
    Ok(())
}

/// What begins, and is for an address of the machine's own: what was begun before a port was published goes on.
fn refused<V: Version>() -> Result<Rule, Refusal> {
    Ok(here::<V>("refused")?.ct_state(CtState::NEW))
}

fn here<V: Version>(id: &str) -> Result<Rule, Refusal> {
    let here = V::only(rule(id)?).eq(&fib::DADDR_TYPE, AddressType::LOCAL);
    Ok(V::NEAR.iter().fold(here, |here, near| here.outside(&V::destination(), *near.start(), *near.end())))
}

fn of_version<V: Version>(
    draft: &mut Draft,
    (services, wanted): (&[&Service], &Wanted<'_>),
    first: &mut Vec<Rule>,
) -> Result<(), Refusal> {
    let (mut leads, mut replicas) = (Vec::<(Place, Verdict)>::new(), Vec::new());
    let mut slots = BTreeMap::<u32, Vec<((IpProtocol, u16, Mark), V::Target)>>::new();
    for service in services {
        let taken = Slots::of(service, V::FAMILY);
        let chain = taken.as_ref().map(|slots| name(&slots.class.chain())).transpose()?;
        let stay = service.replicas.values().filter(|replica| replica.condition != Condition::Down);
        let stay: Vec<_> = stay.filter_map(|it| V::address(it.address(V::FAMILY)?)).collect();
        for served in service.ports.named() {
            let ((protocol, port), target) = (place(served), served.target.get());
            leads.extend(chain.clone().map(|chain| ((protocol, port), Verdict::Goto(chain))));
            replicas.extend(stay.iter().map(|it| V::published((protocol, port), (*it, target))));
            let Some(taken) = &taken else { continue };
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
        draft.part(&class.chain(), vec![rule])?;
    }
    draft.set(&V::named(REPLICAS), Set::of(replicas))?;
    let leads = draft.set(&V::named("leads-published"), Set::verdicts(leads))?;
    first.push(here::<V>("published")?.verdict_by(&(meta::L4PROTO, th::DPORT), &leads));
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
