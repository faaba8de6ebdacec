//! Native tables keep the laws of a state, and in memory those of a backend.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;

use overlay_core::State as _;
use overlay_core::testing::{Dice, laws};
use overlay_kernel::nft::testing::state;
use overlay_kernel::nft::{Set, State};
use proptest::prelude::*;

fn meddle(state: &mut State, dice: &mut Dice) {
    let Some(key) = state.tables.keys().nth(dice.below(state.tables.len())).cloned() else { return };
    match dice.below(4) {
        0 => drop(state.tables.remove(&key)),
        1 => drop(state.tables.get_mut(&key).unwrap().strange.insert("flags 1".into())),
        2 => state.tables.get_mut(&key).unwrap().chains.values_mut().for_each(|chain| drop(chain.rules.pop())),
        _ => state.tables.get_mut(&key).unwrap().sets.clear(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn generated_states_pass_the_check(state in state()) {
        prop_assert_eq!(state.check(), Ok(()));
    }

    #[test]
    fn states_keep_the_laws(from in state(), to in state()) {
        laws::state(&from, &to)?;
    }

    #[test]
    fn what_is_strange_makes_room(mut from in state(), to in state()) {
        for table in from.tables.values_mut().take(2) {
            table.strange.insert("chain of somebody".into());
        }
        laws::state(&from, &to)?;
    }

    #[test]
    fn memory_keeps_the_laws_of_a_backend(
        desired in proptest::collection::vec(state(), 1..4),
        seed in any::<[u8; 32]>(),
    ) {
        laws::backend(&mut laws::InMemory::new(meddle), &desired, seed)?;
    }
}

#[test]
fn a_set_knows_what_is_in_it() {
    let ip = |last: u8| Ipv4Addr::new(10, 0, 0, last);
    let plain = Set::of([ip(2), ip(4)]);
    let ends = Set::ranges([ip(2)..=ip(4), ip(7)..=ip(9)]);
    let spans = Set::ranges([(ip(2), 80_u16)..=(ip(4), 90_u16)]);
    let of = |set: &Set| (1..11).filter(|last| set.contains(&ip(*last))).collect::<Vec<u8>>();
    assert_eq!([of(&plain), of(&ends), of(&spans)], [vec![2, 4], vec![2, 3, 4, 7, 8, 9], vec![]]);
    let at = |last: u8, port: u16| spans.contains(&(ip(last), port));
    assert_eq!([at(2, 80), at(4, 90), at(3, 85), at(3, 79), at(5, 85)], [true, true, true, false, false]);
    assert!(!plain.contains(&80_u16));
}
