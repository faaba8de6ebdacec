//! What is amended is what would have been lowered.

use overlay_core::{Lower as _, Mac, Name, Owner, Port, State as _};
use proptest::prelude::*;

use super::*;
use crate::testing::state;
use crate::{Bind, Gateway, Pin};

fn native(state: &State) -> Native {
    let meaning = Meaning(Some(Arc::new(state.clone())));
    Native { tables: lower::tables(state).unwrap(), meaning, ..Native::default() }
}

/// Holds what is amended to what is lowered whole; whether it could be amended.
fn compare(a: &State, b: &State) -> Result<bool, TestCaseError> {
    let (from, to) = (native(a), native(b));
    let Some((steps, last)) = Last::new(a).amend(&from, b) else { return Ok(false) };
    let mut amended = from.clone();
    steps.iter().for_each(|step| amended.apply(step));
    prop_assert_eq!(&amended, &to);
    prop_assert_eq!(steps.is_empty(), from == to);
    let whole = from.plan(&to);
    let cuts = |steps: &[NativeStep]| steps.iter().any(|step| matches!(step, NativeStep::Cut(_)));
    prop_assert_eq!(cuts(&steps), cuts(&whole));
    prop_assert_eq!(steps.len(), whole.len());
    // What is remembered after it serves the next as well as what is remembered of the whole.
    let again = last.amend(&to, a).map(|(steps, _)| steps);
    prop_assert_eq!(again, Last::new(b).amend(&to, a).map(|(steps, _)| steps));
    Ok(true)
}

/// The second with so much of the first that they differ in objects alone.
fn alike(a: &State, b: &State) -> State {
    let mut mixed = State { ports: b.ports.clone(), published: b.published.clone(), ..a.clone() };
    mixed.policy.members = b.policy.members.clone();
    mixed
}

proptest! {
    #[test]
    fn what_is_amended_is_what_is_lowered_whole(a in state(), b in state()) {
        compare(&a, &b)?;
        let mixed = alike(&a, &b);
        let elements_only = native(&a).tables.differs_in_elements_only(&native(&mixed).tables);
        for (from, to) in [(&a, &mixed), (&mixed, &a)] {
            let amended = compare(from, to)?;
            // Without gateways, what has a rule depends on one of the published ports, which may be left out.
            prop_assert!(amended == elements_only || from.gateways.is_empty());
        }
    }

    #[test]
    fn what_makes_no_sense_is_never_amended(a in state(), b in state(), pick: prop::sample::Index) {
        let mut wrong = alike(&a, &b);
        let Some((_, one)) = wrong.published.iter().nth(pick.index(8)) else { return Ok(()) };
        let one = one.clone();
        wrong.published.insert("twin".parse().unwrap(), one);
        prop_assert!(wrong.check().is_err());
        prop_assert!(Last::new(&a).amend(&native(&a), &wrong).is_none());
    }
}

fn pin(host: u8) -> BridgePort {
    let address = [172, 18, 0, host].into();
    BridgePort::Pinned(Pin::new(Mac::from_ipv4(address), [address.into()]))
}

fn published(port: u16, host: u8) -> Published {
    Published::new(Protocol::Tcp, Port::new(port).unwrap()).to(SocketAddr::new([172, 18, 0, host].into(), 80))
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn host() -> State {
    let mut state = State::default();
    state.gateways.insert("ovgw0".parse().unwrap(), Gateway::new(["172.18.0.0/24".parse().unwrap()]));
    state.ports.insert("p2".parse().unwrap(), pin(2));
    state.published.insert(name("a"), published(8001, 2));
    state
}

#[test]
fn endpoints_and_published_ports_come_change_and_go_as_elements() {
    let first = host();
    let mut more = first.clone();
    more.ports.insert("p3".parse().unwrap(), pin(3));
    more.published.insert(name("b"), published(8002, 2)); // another way to the same target
    more.published.insert(name("c"), published(8003, 3).at(Bind::Address([127, 0, 0, 1].into())));
    let mut moved = more.clone();
    moved.published.insert(name("a"), published(8001, 3).from("198.51.100.0/24".parse().unwrap()));
    moved.ports.insert("p2".parse().unwrap(), pin(4));
    // All that differs goes, and it is not all there is.
    let mut others = moved.clone();
    others.ports.extend([2, 3].map(|host| (format!("p{host}").parse().unwrap(), pin(host + 10))));
    others.ports.extend([7, 8].map(|host| (format!("p{host}").parse().unwrap(), pin(host))));
    let mut again = others.clone();
    again.ports.extend([2, 3].map(|host| (format!("p{host}").parse().unwrap(), pin(host + 20))));
    assert!(compare(&moved, &others).unwrap() && compare(&others, &again).unwrap());
    for (a, b) in [(&first, &more), (&more, &moved), (&moved, &first), (&first, &first)] {
        assert!(compare(a, b).unwrap(), "{:?}", a.plan(b));
        assert!(compare(b, a).unwrap(), "{:?}", b.plan(a));
    }
}

#[test]
fn what_needs_other_rules_or_is_wrong_is_lowered_whole() {
    let first = host();
    let amends = |change: fn(&mut State)| {
        let mut state = first.clone();
        change(&mut state);
        Last::new(&first).amend(&native(&first), &state).is_some()
    };
    assert!(amends(|_| {}));
    assert!(!amends(|state| state.published.clear()));
    assert!(!amends(|state| drop(state.gateways.insert("ovgw1".parse().unwrap(), Gateway::new([])))));
    assert!(!amends(|state| state.esp = Some([].into())));
    assert!(!amends(|state| drop(state.ports.insert("p3".parse().unwrap(), pin(2)))), "another port has the address");
    assert!(!amends(|state| drop(state.published.insert(name("b"), published(8001, 9)))), "published there already");
}

#[test]
fn a_kernels_shadow_amends_nothing_of_what_is_refused() {
    let Ok(home) = overlay_kernel::Namespace::current() else { return };
    let owner = Owner::new(name("t"), name("a"));
    let Ok(firewall) = crate::Firewall::of_host(&owner, home) else { return };
    let memo = firewall.remember(&host()).unwrap();
    let mut refused = host();
    refused.gateways.clear();
    refused.policy.otherwise = crate::Action::Deny;
    assert!(firewall.lower(&refused).is_err());
    assert!(firewall.amend(&memo, &native(&host()), &refused).is_none());
}
