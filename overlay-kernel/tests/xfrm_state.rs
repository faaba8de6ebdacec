//! The laws of native associations and policies, without a kernel.

use overlay_core::State as _;
use overlay_core::testing::laws::{self, InMemory};
use overlay_kernel::xfrm::testing::state;
use overlay_kernel::xfrm::{Action, Key, Policy, Ports, Sa, Selector, SpiTaken, State, Step};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_state_keeps_the_laws_of_states(a in state(true), b in state(true)) {
        prop_assert_eq!((a.check(), b.check()), (Ok(()), Ok(())));
        laws::state(&a, &b)?;
    }

    #[test]
    fn memory_keeps_the_laws_of_backends(desired in proptest::collection::vec(state(true), 1..4), seed: [u8; 32]) {
        let mut world = InMemory::new(|state: &mut State, _| state.sas.clear());
        let seen = laws::backend(&mut world, &desired, seed)?;
        prop_assert_eq!(seen.reached, desired.len());
    }

    /// Between any two steps of a plan, what is blocked both before and after is blocked.
    #[test]
    fn what_blocks_before_and_after_blocks_all_along(a in state(true), b in state(true)) {
        let mut now = a.clone();
        for step in a.plan(&b) {
            now.apply(&step);
            for (key, policy) in &a.policies {
                if policy.action == Action::Block && b.policies.get(key).is_some_and(|it| it.action == Action::Block) {
                    prop_assert_eq!(&now.policies[key].action, &Action::Block);
                }
            }
            if let Step::PutPolicy(_, Policy { action: Action::Protect(_), .. }) = step {
                prop_assert!(b.sas.keys().all(|id| now.sas.contains_key(id)), "a policy sends by what is there");
            }
        }
    }

    #[test]
    fn another_key_needs_another_spi_and_none_is_printed(state in state(true)) {
        for (id, sa) in &state.sas {
            let mut again = state.clone();
            prop_assert_eq!(again.add(*id, sa.clone()), Ok(()));
            let other = Sa { key: Some(Key::new(other_key(sa))), ..sa.clone() };
            prop_assert_eq!(again.add(*id, other), Err(SpiTaken(*id)));
            prop_assert_eq!(again.add(*id, Sa { window: sa.window + 1, ..sa.clone() }), Err(SpiTaken(*id)));
            let shown = format!("{sa:?} {sa}");
            prop_assert!(shown.contains("Key(..)") && !shown.contains("7, 7"));
        }
    }
}

fn other_key(sa: &Sa) -> zeroize::Zeroizing<Vec<u8>> {
    zeroize::Zeroizing::new(vec![8; sa.aead.material_len()])
}

#[test]
fn what_no_kernel_could_hold_is_refused_by_name() {
    let some = Sa {
        source: [10, 0, 0, 1].into(),
        reqid: 1,
        mode: overlay_kernel::xfrm::Mode::Transport,
        aead: overlay_kernel::xfrm::Aead::Aes128Gcm,
        extended: true,
        window: 64,
        lifetimes: Default::default(),
        udp: None,
        selector: None,
        counted: 0,
        key: None,
    };
    let only = |source: &str, protocol, source_port| Selector {
        source: source.parse().unwrap(),
        destination: "0.0.0.0/0".parse().unwrap(),
        protocol,
        source_port,
        destination_port: None,
    };
    let said = |spi, sa: Sa| {
        let id = overlay_kernel::xfrm::SaId { destination: [10, 0, 0, 2].into(), spi };
        State { sas: [(id, sa)].into(), ..State::default() }.check().map_err(|refusal| refusal.to_string())
    };
    assert_eq!(said(256, some.clone()), Ok(()));
    let key = Key::new(zeroize::Zeroizing::new(vec![0; 36]));
    for (spi, sa, reason) in [
        (255, some.clone(), "SPIs below 256"),
        (256, Sa { reqid: 0, ..some.clone() }, "that is none"),
        (256, Sa { window: 4097, ..some.clone() }, "1 to 4,096"),
        (256, Sa { extended: false, counted: u64::from(u32::MAX), ..some.clone() }, "no number is left"),
        (256, Sa { source: std::net::Ipv6Addr::LOCALHOST.into(), ..some.clone() }, "of one family"),
        (256, Sa { key: Some(key), ..some.clone() }, "key and salt"),
        (256, Sa { selector: Some(only("0.0.0.0/0", 0, None)), ..some.clone() }, "say none"),
        (256, Sa { selector: Some(only("10.0.0.1/8", 0, None)), ..some.clone() }, "beyond its prefix"),
        (256, Sa { selector: Some(only("::1/128", 0, None)), ..some.clone() }, "one family"),
        (256, Sa { selector: Some(only("10.0.0.1/32", 1, Some(53.into()))), ..some.clone() }, "ports are TCP's"),
        (256, Sa { selector: Some(only("10.0.0.1/32", 17, Some(Ports { bits: 4, mask: 3 }))), ..some }, "within it"),
    ] {
        let refused = said(spi, sa).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
}
