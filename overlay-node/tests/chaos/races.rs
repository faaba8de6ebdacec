//! Two managers and one object.

use std::sync::Arc;
use std::time::Duration;

use overlay_core::MemoryStore;
use overlay_core::testing::{Dice, Executor, FlakyStore, block_on, yield_now};
use overlay_ipam::SubnetRequest;
use overlay_node::testing::leaks;
use overlay_node::{Control, ControlError, EndpointSpec, NetworkSpec, Reference};

use crate::cluster::{Last, Mortal, NOW, endpoint, manager, network, node};
use crate::{front, prepared, seeded, settle, settled_and_tight, sound};

#[test]
fn what_is_claimed_anew_is_not_taken_back_with_what_was_lost() {
    let lost = (0..500).filter(|seed| claims_anew_while_settling(*seed)).count();
    assert!(lost > 0);
}

/// An endpoint's claim comes late, after it was detached; it is attached anew while another manager settles. Whether the claim came.
fn claims_anew_while_settling(seed: u32) -> bool {
    let memory = MemoryStore::default();
    prepared(&memory);
    let mortal = Mortal::new(memory.clone(), 1, Last::Late); // the commit after the one that writes it down
    let anew = || EndpointSpec::new(network(1), "new".parse().unwrap(), node(1));
    let _ = block_on(manager(Arc::new(mortal.clone()), 1).attach(endpoint(5), anew(), NOW));
    let other = manager(Arc::new(memory.clone()), 2);
    let _ = block_on(other.detach(endpoint(5), NOW)).unwrap();
    let came = mortal.arrive();
    let mut dice = seeded(seed);
    let store = FlakyStore::new(memory, Dice::new(dice.seed()), 0);
    store.storm(10_000); // stalls, and hardly a failure
    let mut executor = Executor::new(dice.seed());
    let (first, second) = (manager(Arc::new(store.clone()), 3), manager(Arc::new(store.clone()), 4));
    let before = dice.below(80);
    executor.spawn(async move {
        for _ in 0..before {
            yield_now().await;
        }
        let spec = EndpointSpec::new(network(1), "new".parse().unwrap(), node(1));
        let _ = first.attach(endpoint(5), spec, NOW).await;
    });
    executor.spawn(async move { drop(second.settle(NOW).await) });
    executor.run().unwrap();
    store.calm();
    block_on(settled_and_tight(&other, &format!("seed {seed}")));
    came
}

#[test]
fn what_one_manager_gives_back_is_not_what_another_has_just_allocated() {
    let (mut allocated, mut refused) = (0, 0);
    for seed in 0..200 {
        let memory = MemoryStore::default();
        prepared(&memory);
        let other = manager(Arc::new(memory.clone()), 2);
        let both = vec![
            SubnetRequest::this("10.7.0.0/24".parse().unwrap()),
            SubnetRequest::this("fd00:8::/64".parse().unwrap()),
        ];
        let spec = NetworkSpec { subnets: both, ..front("both") };
        let at = |name: &str| {
            let spec = EndpointSpec::new(network(3), name.parse().unwrap(), node(1));
            EndpointSpec { addresses: [[10, 7, 0, 7].into()].into(), ..spec }
        };
        block_on(async {
            other.create_network(network(3), spec, NOW).await.unwrap();
            other.attach(endpoint(6), at("former"), NOW).await.unwrap();
            other.detach(endpoint(6), NOW).await.unwrap(); // its address rests
        });
        let mut dice = Dice::new([seed; 32]);
        let store = FlakyStore::new(memory, Dice::new(dice.seed()), 0);
        store.storm(10_000);
        let mut executor = Executor::new(dice.seed());
        let (first, second) = (manager(Arc::new(store.clone()), 3), manager(Arc::new(store.clone()), 4));
        let attaching = executor.spawn(async move { first.attach(endpoint(5), at("new"), NOW).await });
        executor.spawn(async move {
            for _ in 0..3 {
                drop(second.settle(NOW + Duration::from_secs(300)).await); // to this one it has rested
            }
        });
        executor.run().unwrap();
        store.calm();
        block_on(async {
            let there = other.endpoint(endpoint(5)).await.unwrap();
            match attaching.take().unwrap() {
                Ok(told) => {
                    allocated += 1;
                    assert_eq!(there, Some(told));
                }
                Err(ControlError::Refused(_)) => {
                    refused += 1;
                    assert_eq!(there, None);
                }
                Err(error) => println!("seed {seed}: {error}"),
            }
            settled_and_tight(&other, &format!("seed {seed}")).await;
        });
    }
    assert!(allocated > 0 && refused > 0, "{allocated} {refused}");
}

#[test]
fn a_cluster_is_founded_once_whoever_does_it() {
    for seed in 0..50 {
        let memory = MemoryStore::default();
        let mut dice = seeded(seed);
        let store = FlakyStore::new(memory.clone(), Dice::new(dice.seed()), 20);
        let mut executor = Executor::new(dice.seed());
        for number in 1..=3 {
            let manager = manager(Arc::new(store.clone()), number);
            executor.spawn(async move {
                while let Err(error) = manager.found_cluster(network(number), NOW).await {
                    assert!(error.refusal().is_none(), "seed {seed}: {error}");
                }
            });
        }
        executor.run().unwrap();
        store.calm();
        let other = manager(Arc::new(memory), 4);
        block_on(async {
            settled_and_tight(&other, &format!("seed {seed}")).await;
            let networks = other.networks().await.unwrap();
            let names: Vec<&str> = networks.iter().map(|network| network.spec.name.as_str()).collect();
            assert_eq!(names, ["bridge", "host", "ingress", "none"], "seed {seed}: {networks:?}");
            assert!(networks[2].spec.ingress && networks[0].subnets.len() == 1, "seed {seed}: {networks:?}");
        });
    }
}

#[test]
fn an_attachment_and_a_removal_that_race_never_leave_an_endpoint_without_its_network() {
    let (mut attached, mut removed) = (0, 0);
    for seed in 0..100 {
        let memory = MemoryStore::default();
        prepared(&memory);
        let mut dice = Dice::new([seed; 32]);
        let store = FlakyStore::new(memory.clone(), Dice::new(dice.seed()), 0);
        store.storm(1000); // stalls, and hardly a failure
        let mut executor = Executor::new(dice.seed());
        let (first, second) = (manager(Arc::new(store.clone()), 1), manager(Arc::new(store.clone()), 2));
        let attaching = executor.spawn(async move {
            let spec = EndpointSpec::new(network(2), "new".parse().unwrap(), node(1));
            first.attach(endpoint(5), spec, NOW).await
        });
        let removing =
            executor.spawn(async move { second.remove_network(&Reference::from("unused"), NOW).await.map(drop) });
        executor.run().unwrap();
        let (attaching, removing) = (attaching.take().unwrap(), removing.take().unwrap());
        attached += u32::from(attaching.is_ok());
        removed += u32::from(removing.is_ok());
        assert!(!(attaching.is_ok() && removing.is_ok()), "seed {seed}: {attaching:?} {removing:?}");
        store.calm();
        let other = manager(Arc::new(memory), 3);
        block_on(async {
            sound(&other).await;
            settle(&other, NOW).await;
            assert_eq!(leaks(&other).await.unwrap(), [""; 0], "seed {seed}");
        });
    }
    assert!(attached > 0 && removed > 0, "{attached} {removed}");
}

#[test]
fn an_endpoint_that_has_moved_away_does_not_end_with_the_node_that_it_left() {
    let (mut moved, mut ended) = (0, 0);
    for seed in 0..100 {
        let memory = MemoryStore::default();
        prepared(&memory);
        let other = manager(Arc::new(memory.clone()), 3);
        let spec = EndpointSpec::new(network(1), "web".parse().unwrap(), node(1));
        block_on(other.attach(endpoint(5), spec, NOW)).unwrap();
        let mut dice = seeded(seed);
        let store = FlakyStore::new(memory, Dice::new(dice.seed()), 0);
        store.storm(1000); // stalls, and hardly a failure
        let mut executor = Executor::new(dice.seed());
        let (first, second) = (manager(Arc::new(store.clone()), 1), manager(Arc::new(store.clone()), 2));
        let moving = executor.spawn(async move { first.relocate(endpoint(5), node(2), NOW).await });
        executor.spawn(async move { drop(second.remove_node(&node(1).into(), NOW).await) });
        executor.run().unwrap();
        store.calm();
        block_on(async {
            settle(&other, NOW).await;
            let there = other.endpoint(endpoint(5)).await.unwrap();
            match moving.take().unwrap() {
                Ok(told) => {
                    moved += 1;
                    assert_eq!(there, Some(told), "seed {seed}: whoever moved it was told that it is there");
                }
                Err(_) => ended += 1,
            }
            settled_and_tight(&other, &format!("seed {seed}")).await;
        });
    }
    assert!(moved > 0 && ended > 0, "{moved} {ended}");
}
