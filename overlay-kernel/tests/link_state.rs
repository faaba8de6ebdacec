//! Native links keep the laws of a state, and in memory those of a backend.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use overlay_core::testing::{Dice, laws};
use overlay_core::{NsId, NsKey, State as _};
use overlay_kernel::link::testing::{Kinds, state};
use overlay_kernel::link::{Dev, Kind, State, Step};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

fn containers() -> Vec<NsKey> {
    ["c0", "c1"].map(|name| NsKey { name: name.parse().unwrap(), id: NsId { device: 4, inode: 1 } }).into()
}

fn meddle(state: &mut State, dice: &mut Dice) {
    let Some(dev) = state.links.keys().nth(dice.below(state.links.len())).cloned() else { return };
    match dice.below(3) {
        0 => state.apply(&Step::RemoveLink(dev)),
        1 => state.links.get_mut(&dev).into_iter().for_each(|link| (link.up, link.marked) = (false, false)),
        _ => {
            state.neighbours.clear();
            state.forwarding.clear();
        }
    }
}

proptest! {
    #[test]
    fn generated_states_pass_the_check(state in state(containers(), Kinds::ALL)) {
        prop_assert_eq!(state.check(), Ok(()));
    }

    #[test]
    fn states_keep_the_laws(from in state(containers(), Kinds::ALL), to in state(containers(), Kinds::ALL)) {
        laws::state(&from, &to)?;
    }

    #[test]
    fn what_a_broken_off_creation_leaves_is_finished(
        mut from in state(containers(), Kinds::ALL),
        to in state(containers(), Kinds::ALL),
        at in 0_usize..16,
    ) {
        if let Some(link) = from.links.values_mut().nth(at) {
            (link.up, link.marked) = (false, at.is_multiple_of(2));
        }
        laws::state(&from, &to)?;
    }

    #[test]
    fn a_stray_makes_room(mut from in state(containers(), Kinds::ALL), to in state(containers(), Kinds::ALL), at in 0_usize..16) {
        let stray = from.links.keys().nth(at).cloned();
        if let Some(dev) = stray.filter(|dev| !matches!(from.links[dev].kind, Kind::Veth { .. } | Kind::Bridge { .. })) {
            from.links.get_mut(&dev).unwrap().kind = Kind::Stray("veth".into());
        }
        laws::state(&from, &to)?;
    }

    #[test]
    fn memory_keeps_the_laws_of_a_backend(
        desired in proptest::collection::vec(state(containers(), Kinds::ALL), 1..4),
        seed in any::<[u8; 32]>(),
    ) {
        laws::backend(&mut laws::InMemory::new(meddle), &desired, seed)?;
    }
}

#[test]
fn a_bridge_comes_before_its_port_and_the_neighbour_before_the_forwarding_entry() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..64 {
        let to = state(containers(), Kinds::ALL).new_tree(&mut runner).unwrap().current();
        let plan = State::default().plan(&to);
        let at = |wanted: &dyn Fn(&Step) -> bool| plan.iter().position(wanted);
        for (dev, link) in &to.links {
            let Some(port) = link.port else { continue };
            let bridge = Dev { site: dev.site.clone(), name: port.bridge };
            let made = |dev: &Dev| at(&|step| matches!(step, Step::AddLink(on, _) | Step::AddPair(on, _) if on == dev));
            assert!(made(&bridge).unwrap() < made(dev).unwrap(), "{plan:?}");
        }
        let last = plan.iter().rposition(|step| matches!(step, Step::PutNeighbour(..)));
        let first = at(&|step| matches!(step, Step::PutForwarding(..)));
        assert!(last.zip(first).is_none_or(|(neighbour, entry)| neighbour < entry), "{plan:?}");
    }
}
