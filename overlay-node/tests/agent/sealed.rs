//! Sealed gossip, and how its key is changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Instant, Name, NodeId, UnixTime};
use overlay_crypto::gossip::{GossipKey, Succession};
use overlay_crypto::{Chance, RotationConfig, Stage};
use overlay_gossip::Role;
use overlay_gossip::testing::{Conditions, Net};
use overlay_node::{Agent, AgentConfig, AgentEvent, CatalogueChange, Condition, GossipKeyChange, Input, NodeSpec};

use super::town::{Node, me};

/// Nodes with disks, of which some hang.
struct Sealed {
    net: Net<Node>,
    hangs: BTreeSet<usize>,
    left_behind: BTreeSet<NodeId>,
    lacking: usize,
}

impl Sealed {
    fn new(keys: &[u8]) -> Self {
        let mut net = Net::new(Conditions::lan(), 1);
        for (number, key) in keys.iter().enumerate() {
            let keys = (Succession::new(self::key(*key)), Chance::new([number as u8; 32]));
            let mut config = AgentConfig::lan();
            config.gossip_rotation = RotationConfig { limit: Duration::from_secs(5), ..RotationConfig::default() };
            net.add(|address, seed, now| Node(Agent::sealed(config, me(number, 1, address), keys, seed, now).unwrap()));
        }
        let mut sealed = Self { net, hangs: BTreeSet::new(), left_behind: BTreeSet::new(), lacking: 0 };
        (0..keys.len()).for_each(|node| sealed.tell(node, Input::Join(vec![Net::<Node>::address(0)])));
        sealed.run(5);
        sealed
    }

    fn tell(&mut self, node: usize, input: Input) {
        self.net.with(node, |agent, now| agent.0.handle(input, now)).unwrap().unwrap();
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 20 {
            self.net.run_for(Duration::from_millis(50));
            for (_, node, event) in self.net.take_events() {
                match event {
                    AgentEvent::GossipKeys { version } if !self.hangs.contains(&node) => {
                        self.tell(node, Input::GossipKeysKept { version });
                    }
                    AgentEvent::LeftBehind { nodes } => self.left_behind.extend(nodes),
                    AgentEvent::LackingGossipKey { .. } => self.lacking += 1,
                    _ => {}
                }
            }
        }
    }

    fn agent(&self, node: usize) -> &Agent {
        &self.net.machine(node).unwrap().0
    }

    fn keys(&self, node: usize) -> &Succession {
        self.agent(node).gossip_keys().unwrap()
    }

    fn now(&self) -> Instant {
        self.net.now()
    }

    fn change(&mut self, node: usize, change: GossipKeyChange) {
        self.net.with(node, |agent, now| agent.0.change_gossip_keys(change, now)).unwrap().unwrap();
    }
}

fn key(byte: u8) -> GossipKey {
    GossipKey::from_bytes([byte; 32])
}

#[test]
fn who_cannot_write_a_key_down_does_not_say_that_it_has_it_and_is_named_and_follows_when_it_can() {
    let mut sealed = Sealed::new(&[7, 7, 7]);
    let before = sealed.keys(0).primary();
    sealed.hangs.insert(2);
    sealed.tell(0, Input::RotateGossipKeys { without: BTreeSet::new() });
    sealed.run(3);
    assert_eq!((sealed.agent(0).gossip_stage(), sealed.keys(2).keys().count()), (Stage::Installing, 2));
    assert_eq!(sealed.keys(1).primary(), before, "nobody seals with what one may forget");
    sealed.run(20);
    let third = sealed.agent(2).gossip().me().id;
    assert_eq!(sealed.left_behind, [third].into());
    let after = sealed.keys(0).primary();
    assert!(after > before && sealed.keys(1).primary() == after);
    sealed.hangs.clear();
    sealed.tell(0, Input::RotateGossipKeys { without: BTreeSet::new() }); // and it has something to write again
    sealed.run(20);
    assert!((0..3).all(|node| sealed.keys(node).primary() > after && sealed.keys(node).keys().count() == 1));
    let refused: u64 = (0..3).map(|node| sealed.agent(node).metrics().unopened).sum();
    assert_eq!((refused, sealed.agent(0).metrics().gossip_rotations.ended), (0, 2));
}

#[test]
fn who_is_left_out_has_no_key_of_those_after_says_so_and_is_let_in_by_hand() {
    let mut sealed = Sealed::new(&[7, 7, 7]);
    let (gone, before) = (sealed.agent(2).gossip().me().id, sealed.keys(2).primary());
    (0..2).for_each(|node| sealed.tell(node, Input::GossipWithout(gone)));
    for _ in 0..2 {
        sealed.run(20);
        assert_eq!((sealed.keys(2).primary(), sealed.keys(2).keys().count()), (before, 1));
        assert!(sealed.keys(0).primary() > before && sealed.keys(0).keys().count() == 1);
        assert_eq!(sealed.keys(0).primary(), sealed.keys(1).primary());
        sealed.tell(1, Input::RotateGossipKeys { without: BTreeSet::new() }); // the next is not for it either
    }
    sealed.run(20);
    assert!(sealed.lacking > 0 && sealed.agent(2).lacking_gossip_key(sealed.now()).is_some());
    let given = sealed.keys(0).get(sealed.keys(0).primary().id).cloned().unwrap();
    let id = given.id();
    sealed.change(2, GossipKeyChange::Install(given));
    sealed.change(2, GossipKeyChange::Promote(id));
    sealed.run(40);
    assert_eq!(sealed.keys(2).primary(), sealed.keys(0).primary());
    assert_eq!((sealed.keys(2).keys().count(), sealed.agent(2).lacking_gossip_key(sealed.now())), (1, None));
    sealed.tell(1, Input::RotateGossipKeys { without: BTreeSet::new() });
    sealed.run(20);
    assert!(
        (0..3).all(|node| sealed.keys(node).primary() == sealed.keys(0).primary()),
        "it gets the next one like others"
    );
}

#[test]
fn whom_the_catalogue_does_not_have_holds_up_no_change_and_is_given_no_key() {
    let mut sealed = Sealed::new(&[7; 5]);
    let ids: Vec<NodeId> = (0..5).map(|node| sealed.agent(node).gossip().me().id).collect();
    let in_catalogue = |number: usize| {
        let spec = NodeSpec { name: Name::new(&format!("n{number}")).unwrap(), role: Role::Worker };
        let (id, created, condition) = (ids[number], UnixTime::from_millis(0), Condition::Allocated);
        CatalogueChange::Node(Arc::new(overlay_node::Node { id, spec, created, condition }))
    };
    for node in 0..5 {
        for number in [0, 1, 4] {
            sealed.tell(node, Input::Catalogue(in_catalogue(number)));
        }
    }
    sealed.run(5);
    let before = sealed.keys(0).primary();
    // Two that have the key of gossip and are no nodes: one answers, one is silent. Of four that gossip tells of besides the one that is removed, two do not make most.
    sealed.net.crash(3);
    sealed.run(20);
    for node in [0, 1] {
        sealed.tell(node, Input::Catalogue(CatalogueChange::NodeGone(ids[4])));
    }
    sealed.run(30);
    for node in [0, 1] {
        assert!(sealed.keys(node).primary() > before && sealed.keys(node).keys().count() == 1, "{node}");
    }
    assert_eq!(sealed.keys(0).primary(), sealed.keys(1).primary());
    for ghost in [2, 4] {
        assert_eq!((sealed.keys(ghost).primary(), sealed.keys(ghost).keys().count()), (before, 1), "{ghost}");
    }
    assert!(sealed.left_behind.is_empty(), "nobody is waited for that is none: {:?}", sealed.left_behind);
    // Once the catalogue has it, it is let in like others.
    let given = sealed.keys(0).get(sealed.keys(0).primary().id).cloned().unwrap();
    for node in [0, 1, 2] {
        sealed.tell(node, Input::Catalogue(in_catalogue(2)));
    }
    sealed.change(2, GossipKeyChange::Install(given.clone()));
    sealed.change(2, GossipKeyChange::Promote(given.id()));
    sealed.run(20);
    sealed.tell(0, Input::RotateGossipKeys { without: BTreeSet::new() });
    sealed.run(30);
    assert!([1, 2].iter().all(|node| sealed.keys(*node).primary() == sealed.keys(0).primary()));
}
