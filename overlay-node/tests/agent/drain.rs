//! What agents know of each other when an endpoint is to end.

use std::collections::BTreeSet;
use std::time::Duration;

use overlay_core::NodeId;
use overlay_dns::Health;
use overlay_node::Input;

use crate::town::{Town, id, node_id};

fn unheard(town: &mut Town) -> BTreeSet<NodeId> {
    town.net.with(0, |node, _| node.0.unheard(id(2))).unwrap().unwrap()
}

#[test]
fn a_node_has_heard_that_an_endpoint_drains_when_it_has_acted_upon_it_and_after_a_while_anyway() {
    let mut town = Town::acting(Duration::from_secs(6), 21, 3);
    for number in 2..=4 {
        town.assign(number, usize::from(number) - 2, 0);
        town.plug(number, usize::from(number) - 2);
    }
    let acts = |town: &mut Town, node| town.net.with(node, |node, _| node.0.acted(node.0.heard())).unwrap();
    town.run(2);
    assert_eq!(unheard(&mut town), [1, 2].map(node_id).into(), "they have seen it, and not acted");
    [1, 2].into_iter().for_each(|node| acts(&mut town, node));
    town.run(1);
    assert_eq!(unheard(&mut town), [].into());
    assert_eq!(
        town.net.with(0, |node, _| (node.0.health(id(2)), node.0.health(id(3)))),
        Some((Some(Health::Healthy), None))
    );

    town.tell(0, Input::Health(id(2), Health::Draining));
    assert_eq!(unheard(&mut town), [1, 2].map(node_id).into(), "at once");
    assert_eq!(town.net.with(0, |node, _| node.0.health(id(2))), Some(Some(Health::Draining)));
    town.run(4);
    assert_eq!(unheard(&mut town), [1, 2].map(node_id).into(), "they have seen it, and not acted");
    acts(&mut town, 2);
    town.run(1);
    assert_eq!(unheard(&mut town), [node_id(1)].into());
    town.run(3);
    assert_eq!(unheard(&mut town), [].into());
    // Of what nobody is told any more somebody may hold something older.
    town.tell(0, Input::Unplug(id(2)));
    assert_eq!(
        (unheard(&mut town), town.net.with(0, |node, _| node.0.health(id(2)))),
        ([node_id(0)].into(), Some(None))
    );
}

#[test]
fn a_node_has_heard_although_it_always_has_something_newer_to_act_upon() {
    let mut town = Town::acting(Duration::from_secs(600), 22, 3);
    for number in 2..=4 {
        town.assign(number, usize::from(number) - 2, 0);
        town.plug(number, usize::from(number) - 2);
    }
    town.run(2);
    town.tell(0, Input::Health(id(2), Health::Draining));
    for step in 0..40 {
        let health = if step % 2 == 0 { Health::Suspect } else { Health::Healthy };
        town.tell(1, Input::Health(id(3), health));
        let heard = town.net.with(2, |node, _| node.0.heard()).unwrap();
        town.net.run_for(Duration::from_millis(50));
        town.net.with(1, |node, _| node.0.acted(node.0.heard())).unwrap();
        town.net.with(2, |node, _| node.0.acted(heard)).unwrap();
    }
    assert_eq!(unheard(&mut town), [].into());
}
