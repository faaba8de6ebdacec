//! The laws of native services, without a kernel.

use overlay_core::State as _;
use overlay_core::testing::laws::{self, InMemory};
use overlay_kernel::ipvs::testing::state;
use overlay_kernel::ipvs::{Destination, Forward, Key, Options, Scheduler, Service, Setting, State, Timeouts};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_state_keeps_the_laws_of_states(a in state(), b in state()) {
        prop_assert_eq!((a.check(), b.check()), (Ok(()), Ok(())));
        laws::state(&a, &b)?;
    }

    #[test]
    fn memory_keeps_the_laws_of_backends(desired in proptest::collection::vec(state(), 1..4), seed: [u8; 32]) {
        let mut world = InMemory::new(|state: &mut State, _| state.services.clear());
        let seen = laws::backend(&mut world, &desired, seed)?;
        prop_assert_eq!(seen.reached, desired.len());
    }
}

#[test]
fn what_no_kernel_could_hold_is_refused_by_name() {
    let options = Options { scheduler: Scheduler::RoundRobin, persistence: None };
    let said = |key: Key, at: &str, weight, forward, options| {
        let destinations = [(at.parse().unwrap(), Destination { forward, weight })].into();
        let state = State { services: [(key, Service { options, destinations })].into(), ..State::default() };
        state.check().map_err(|refusal| refusal.to_string())
    };
    let web = Key::At { protocol: overlay_core::Protocol::Tcp, at: "10.0.9.100:80".parse().unwrap() };
    let all = Key::At { protocol: overlay_core::Protocol::Tcp, at: "10.0.9.100:0".parse().unwrap() };
    let none = Key::Mark { mark: 0, family: overlay_core::IpFamily::V4 };
    assert_eq!(said(web, "10.0.9.2:8080", 1, Forward::Translate, options), Ok(()));
    for (key, at, weight, forward, reason) in [
        (all, "10.0.9.2:80", 1, Forward::Translate, "all ports are a persistent service's"),
        (none, "10.0.9.2:80", 1, Forward::Translate, "that is no mark"),
        (web, "[fd00::2]:80", 1, Forward::Translate, "only a tunnel leads into the other family"),
        (web, "10.0.9.2:8080", 1, Forward::Direct, "a packet that is not translated keeps its port"),
        (web, "0.0.0.0:80", 1, Forward::Translate, "at an address that one host can have"),
        (web, "10.0.9.2:80", 65_536, Forward::Translate, "a weight is 65,535 at most"),
    ] {
        let refused = said(key, at, weight, forward, options).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
    let timeouts = Timeouts { udp: 0, ..Timeouts::default() };
    assert!(State { timeouts, ..State::default() }.check().is_err());
    assert!(State { settings: [(Setting::Conntrack, 0)].into(), ..State::default() }.check().is_err());
}
