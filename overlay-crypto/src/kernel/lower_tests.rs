//! What XFRM makes of the lowered objects is what the value says, at each step of a plan too.

use std::net::IpAddr;

use overlay_core::{IpFamily, State as _};
use proptest::prelude::*;

use super::*;
use crate::testing::kernel_state;
use crate::{Datagram, Verdict};

const MARK: Mark = Mark { reqid: 7, priority: 10 };

fn matches(selector: &Selector, datagram: &Datagram) -> bool {
    let within = |ports: Option<Ports>, port| ports.is_none_or(|it| port & it.mask == it.bits);
    selector.protocol == UDP
        && selector.source.contains(&datagram.source)
        && selector.destination.contains(&datagram.destination)
        && within(selector.source_port, datagram.source_port)
        && within(selector.destination_port, datagram.destination_port)
}

/// The policies that count: all of the smallest priority that match.
fn found<'n>(native: &'n xfrm::State, direction: Direction, datagram: &Datagram) -> Vec<&'n Action> {
    let is_for = |key: &PolicyKey| key.direction == direction && matches(&key.selector, datagram);
    let fit: Vec<_> = native.policies.iter().filter(|(key, _)| is_for(key)).map(|(_, policy)| policy).collect();
    let first = fit.iter().map(|policy| policy.priority).min();
    fit.into_iter().filter(|policy| Some(policy.priority) == first).map(|policy| &policy.action).collect()
}

/// What XFRM may do with what is sent: whichever of several policies it takes.
fn sent(native: &xfrm::State, datagram: &Datagram) -> Vec<Option<xfrm::SaId>> {
    let by = |template: &Template| {
        let id = xfrm::SaId { destination: template.destination, spi: template.spi? };
        let sa = native.sas.get(&id)?;
        let fits = sa.reqid == template.reqid && sa.selector.is_none_or(|selector| matches(&selector, datagram));
        fits.then_some(id)
    };
    let outcome = |action: &&Action| match action {
        Action::Block => None,
        Action::Protect(templates) => by(&templates[0]),
    };
    found(native, Direction::Out, datagram).iter().map(outcome).collect()
}

/// Whether XFRM lets in what an association opened, or what came in the clear.
fn lets_in(native: &xfrm::State, by: Option<&xfrm::SaId>, datagram: &Datagram) -> bool {
    let sa = by.map(|id| native.sas.get(id));
    let sa = match sa {
        Some(None) => return false,
        Some(Some(sa)) if sa.selector.is_some_and(|only| !matches(&only, datagram)) => return false,
        sa => sa.flatten(),
    };
    found(native, Direction::In, datagram).iter().all(|action| match action {
        Action::Block => false,
        Action::Protect(templates) => sa.is_some_and(|sa| sa.reqid == templates[0].reqid),
    })
}

fn host(family: IpFamily, number: u8) -> IpAddr {
    match family {
        IpFamily::V4 => [192, 0, 2, number].into(),
        IpFamily::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// Datagrams from here to each peer of the states, to ports of theirs and others.
fn datagrams() -> impl Iterator<Item = Datagram> {
    let ends = (1_u8..7).flat_map(|peer| [IpFamily::V4, IpFamily::V6].map(|family| (family, peer)));
    ends.flat_map(|(family, peer)| {
        (4788..4794).flat_map(move |destination_port| {
            (50_000..50_004).chain([4790]).map(move |source_port| {
                let (source, destination) = (host(family, 100), host(family, peer));
                Datagram { source, destination, source_port, destination_port }
            })
        })
    })
}

fn back(sent: Datagram) -> Datagram {
    Datagram { source: sent.destination, destination: sent.source, ..sent }
}

proptest! {
    #[test]
    fn xfrm_does_what_the_value_says(state in kernel_state()) {
        let native = MARK.lower(&state).unwrap();
        prop_assert_eq!(native.check(), Ok(()));
        for datagram in datagrams() {
            let expected = match state.outgoing(&datagram) {
                Verdict::Pass => vec![],
                Verdict::Seal(id) => vec![Some(native_id(&id))],
                _ => vec![None],
            };
            let mut outcome = sent(&native, &datagram);
            outcome.dedup();
            prop_assert_eq!(outcome, expected, "{:?}", datagram);
            let arriving = back(datagram);
            prop_assert_eq!(lets_in(&native, None, &arriving), state.incoming(&arriving) == Verdict::Pass);
            for id in state.sas.keys().filter(|id| id.destination == arriving.destination) {
                let expected = state.opened(id, &arriving) == Verdict::Pass;
                prop_assert_eq!(lets_in(&native, Some(&native_id(id)), &arriving), expected, "{} {:?}", id, arriving);
            }
        }
    }

    #[test]
    fn at_each_step_nothing_passes_in_the_clear_and_what_stays_open_has_something_to_send_by(a in kernel_state(), b in kernel_state()) {
        let (from, to) = (MARK.lower(&a).unwrap(), MARK.lower(&b).unwrap());
        let mut now = from.clone();
        let guarded = |datagram: &Datagram| a.ports.intersection(&b.ports).any(|port| port.get() == datagram.destination_port);
        for step in std::iter::once(None).chain(from.plan(&to).into_iter().map(Some)) {
            step.inspect(|step| now.apply(step));
            for datagram in datagrams().filter(guarded) {
                let outcomes = sent(&now, &datagram);
                prop_assert!(!outcomes.is_empty() && !lets_in(&now, None, &back(datagram)), "{:?}", datagram);
                let open = |state: &State| matches!(state.outgoing(&datagram), Verdict::Seal(_));
                if open(&a) && open(&b) {
                    prop_assert!(outcomes.iter().all(Option::is_some), "{:?}", datagram);
                }
            }
        }
    }
}

#[test]
fn what_an_owner_has_is_known_by_its_tag_and_within_its_claim() {
    let owner = |name: &str| Owner::new("c".parse().unwrap(), name.parse().unwrap());
    let marks = ["n", "m", "o"].map(|name| Mark::new(&owner(name)));
    assert!(marks[0] != marks[1] && marks[1] != marks[2]);
    for Mark { reqid, priority } in marks {
        assert!(reqid >= 1 << 30 && (2..=32_768).contains(&priority) && priority.is_multiple_of(2));
    }
    assert_eq!(
        marks[0],
        Mark { reqid: 0x4dbb_07eb, priority: 2 + 2 * (0xf6de_f119_u32 % 16_384) },
        "an upgrade finds its own"
    );
}
