//! Flows that balancers of other places send here.

use std::collections::BTreeSet;

use ipnet::IpNet;
use overlay_core::{Name, Refusal};
use overlay_kernel::nft::{Base, ChainKind, CtDirection, CtState, Hook, IpProtocol, Mark, Rule, Set, ct, ether, meta};

use super::draft::{Draft, rule};
use super::version::{V4, V6, Version};
use crate::Arrivals;

/// Each packet that comes in marks its flow, before it is asked whether it may come from there; answers are routed by it. What no balancer sent,
/// or is said to be from inside, is dropped.
pub(super) fn flows(draft: &mut Draft, arrivals: &Arrivals, arriving: &mut Vec<Rule>) -> Result<(), Refusal> {
    let marks = arrivals.marks.iter().map(|(mac, mark)| (*mac, Mark(*mark)));
    let by = draft.set("balancers", Set::map(marks))?;
    let all: BTreeSet<u32> = arrivals.marks.values().copied().collect();
    let marks = draft.set("marks", Set::of(all.into_iter().map(Mark)))?;
    let flow = rule("arrival")?.set_mark_by(&ether::SADDR, &by).set_ct_mark(&meta::MARK).accept();
    let transports = draft.set("transports", Set::of([IpProtocol::TCP, IpProtocol::UDP, IpProtocol::SCTP]))?;
    let stranger = rule("arrival/stranger")?.is_in(&meta::L4PROTO, &transports).counter().drop();
    zones(draft, arrivals)?;
    let rules = vec![lies::<V4>(draft, arrivals)?, lies::<V6>(draft, arrivals)?, flow, stranger];
    let arrived = draft.part("arrived", rules)?;
    let comes = rule("arrival")?.eq(&meta::IIFNAME, arrivals.interface).eq(&ct::DIRECTION, CtDirection::Original);
    draft.chain("arrivals", Base::filter(Hook::Prerouting, Base::MANGLE), vec![comes.jump(&arrived)])?;
    let route = Base { kind: ChainKind::Route, ..Base::filter(Hook::Output, Base::MANGLE) };
    draft.chain("answers", route, vec![rule("answer")?.is_in(&ct::MARK, &marks).set_mark(&ct::MARK)])?;
    arriving.push(led::<V4>(draft, (arrivals, &marks))?);
    arriving.push(led::<V6>(draft, (arrivals, &marks))?);
    Ok(())
}

/// Two flows that differ only in the balancer they came by are of zones of their own, so none is taken for the other; towards the place's sockets, where
/// they would be alike, the second of them gets another source port, which is undone in its answers. A balancer's zone follows from its mark alone, so
/// that none's flows change theirs when others come and go. There are fewer zones than marks: of two balancers in 65,535 that share one, flows of a client
/// that has one port for both are taken for one.
fn zones(draft: &mut Draft, arrivals: &Arrivals) -> Result<(), Refusal> {
    let zones = arrivals.marks.iter().map(|(mac, mark)| (*mac, zone(*mark)));
    let zones = draft.set("zones", Set::map(zones))?;
    let comes = rule("arrival")?.eq(&meta::IIFNAME, arrivals.interface).set_zone_by(&ether::SADDR, &zones);
    draft.chain("zones", Base::filter(Hook::Prerouting, Base::RAW), vec![comes])
}

/// Flows have zones 1 to 65,535; 0 is where all others are.
const fn zone(mark: u32) -> Mark {
    Mark::zone((mark % u16::MAX as u32) as u16 + 1)
}

/// What begins with the source of somebody inside. What was answered did not, when it began.
fn lies<V: Version>(draft: &mut Draft, arrivals: &Arrivals) -> Result<Rule, Refusal> {
    let apart = IpNet::aggregate(&arrivals.inside.iter().copied().collect());
    let inside = draft.set(&V::named("inside"), Set::ranges(apart.into_iter().filter_map(V::range)))?;
    let begins = V::only(rule("arrival/inside")?).none(&ct::STATE, CtState::ESTABLISHED);
    Ok(begins.is_in(&V::source(), &inside).counter().drop())
}

/// What comes for one address gets to the one that is answered from.
fn led<V: Version>(draft: &mut Draft, (arrivals, marks): (&Arrivals, &Name)) -> Result<Rule, Refusal> {
    let pairs = arrivals.answers.iter().filter_map(|(at, from)| Some((V::address(*at)?, V::address(*from)?)));
    let answers = draft.set(&V::named("answers"), Set::map(pairs))?;
    let arrived = V::only(rule("arrival")?).eq(&meta::IIFNAME, arrivals.interface).is_in(&meta::MARK, marks);
    Ok(arrived.dnat_by::<V::Address, _>(&V::destination(), &answers))
}

#[cfg(test)]
mod tests {
    use overlay_core::Mac;

    use super::*;

    fn zones_of(marks: &[(Mac, u32)]) -> Set {
        let marks = marks.iter().copied().collect();
        let interface = "eth1".parse().unwrap();
        let arrivals = Arrivals { interface, marks, answers: [].into(), inside: [].into() };
        let mut draft = Draft::default();
        zones(&mut draft, &arrivals).unwrap();
        draft.finished().sets.values().next().cloned().unwrap()
    }

    #[test]
    fn a_balancers_zone_stays_what_it_is_whoever_else_comes_and_is_never_that_of_all_others() {
        let [a, b] = [1, 2].map(|last| Mac::new([2, 0, 0, 0, 0, last]));
        assert_eq!(zones_of(&[(b, 7)]), Set::map([(b, Mark::zone(8))]));
        let beside = zones_of(&[(a, 7 + 65_535), (b, 7)]);
        assert_eq!(
            beside,
            Set::map([(a, Mark::zone(8)), (b, Mark::zone(8))]),
            "of two in 65,535 with one zone, both keep it"
        );
        assert_eq!([0, 1, 65_534, 65_535, u32::MAX].map(zone), [1, 2, 65_535, 1, 1].map(Mark::zone));
    }
}
