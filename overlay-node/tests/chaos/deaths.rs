//! Managers that die, and what they leave.

use std::sync::Arc;

use overlay_core::testing::block_on;
use overlay_core::{IpFamily, MemoryStore};
use overlay_ipam::SubnetRequest;
use overlay_node::{
    Condition, Control, ControlError, EndpointSpec, Manager, NetworkSpec, PublishMode, Refused, ServiceSpec,
};

use crate::cluster::{Last, Mortal, NOW, endpoint, manager, network, node, service, tcp};
use crate::{front, ids, prepared, remove_all, settle, settled_and_tight, sound};

/// What is done to a cluster that has all that it needs.
type Call = fn(&Manager) -> Result<(), ControlError>;

/// Each call, what must be there when it succeeded, and what takes it back.
const CALLS: [(&str, Call); 9] = [
    ("create a network", |manager| block_on(manager.create_network(network(5), front("new"), NOW)).map(drop)),
    ("change a network", |manager| {
        let mut spec = block_on(manager.network(&"front".into()))?.spec;
        spec.subnets = vec![SubnetRequest::any(IpFamily::V4), SubnetRequest::this("fd00:99::/64".parse().unwrap())];
        spec.labels = [("team".into(), "a".into())].into();
        block_on(manager.change_network(&"front".into(), spec, NOW)).map(drop)
    }),
    ("remove a network", |manager| block_on(manager.remove_network(&"unused".into(), NOW)).map(drop)),
    ("create a service", |manager| {
        let mut spec = ServiceSpec::new("new".parse().unwrap(), [network(1)]);
        spec.ports = vec![tcp(Some(80), 80, PublishMode::Ingress), tcp(None, 90, PublishMode::Ingress)];
        block_on(manager.create_service(service(5), spec, NOW)).map(drop)
    }),
    ("remove a service", |manager| block_on(manager.remove_service(&"idle".into(), NOW)).map(drop)),
    ("attach", |manager| {
        let spec = EndpointSpec::new(network(1), "new".parse().unwrap(), node(1));
        block_on(manager.attach(endpoint(5), spec, NOW)).map(drop)
    }),
    ("detach", |manager| block_on(manager.detach(endpoint(1), NOW)).map(drop)),
    ("relocate", |manager| block_on(manager.relocate(endpoint(1), node(2), NOW)).map(drop)),
    ("remove a node", |manager| block_on(manager.remove_node(&node(1).into(), NOW)).map(drop)),
];

/// Calls that are refused, if they are not cut short, after something was written down.
const REFUSED: [(&str, Call); 4] = [
    ("create a network whose VNI is taken", |manager| {
        let taken = block_on(manager.network(&"front".into()))?.vni;
        refused(block_on(manager.create_network(network(5), NetworkSpec { vni: taken, ..front("new") }, NOW)))
    }),
    ("create a network whose subnet is taken", |manager| {
        let taken = block_on(manager.network(&"front".into()))?.subnets[0].net();
        let spec = NetworkSpec { subnets: vec![SubnetRequest::this(taken)], ..front("new") };
        refused(block_on(manager.create_network(network(5), spec, NOW)))
    }),
    ("grow by a subnet that is taken", |manager| {
        let front = block_on(manager.network(&"front".into()))?;
        let taken = SubnetRequest::this(front.subnets[0].net());
        let subnets = vec![SubnetRequest::any(IpFamily::V4), taken];
        refused(block_on(manager.change_network(&"front".into(), NetworkSpec { subnets, ..front.spec }, NOW)))
    }),
    ("attach at the gateway's address", |manager| {
        let gateway = block_on(manager.network(&"front".into()))?.subnets[0].gateway();
        let spec = EndpointSpec::new(network(1), "new".parse().unwrap(), node(1));
        let spec = EndpointSpec { addresses: gateway.into_iter().collect(), ..spec };
        refused(block_on(manager.attach(endpoint(5), spec, NOW)))
    }),
];

fn refused<T: std::fmt::Debug>(result: Result<T, ControlError>) -> Result<(), ControlError> {
    match result {
        Err(ControlError::Refused(_)) => Ok(()),
        other => other.map(drop),
    }
}

#[test]
fn a_manager_that_dies_at_any_commit_leaves_what_another_settles_or_finishes() {
    for (what, call) in CALLS {
        for last in [Last::Lost, Last::Done] {
            let deaths = (0..40).take_while(|commits| dies_and_is_settled(what, call, *commits, last)).count();
            assert!((1..40).contains(&deaths), "{what} made {deaths} commits");
        }
    }
}

/// Whether it died before it was through.
fn dies_and_is_settled(what: &str, call: Call, commits: usize, last: Last) -> bool {
    let memory = MemoryStore::default();
    prepared(&memory);
    let mortal = Mortal::new(memory.clone(), commits, last);
    let told = call(&manager(Arc::new(mortal.clone()), 1));
    let other = manager(Arc::new(memory), 2);
    let context = format!("{what}, dead after {commits} commits, the last is {last:?}: {told:?}");
    assert!(told.is_ok() != mortal.is_dead(), "{context}");
    block_on(async {
        sound(&other).await;
        settled_and_tight(&other, &context).await;
        for network in other.networks().await.unwrap() {
            assert_eq!(network.condition, Condition::Allocated, "{context}");
        }
    });
    // The same call by another manager comes to an end, and changes nothing that is there already.
    let again = call(&other);
    let gone = matches!(&again, Err(ControlError::Refused(Refused::NotFound { .. })));
    assert!(again.is_ok() || gone && what.starts_with("remove"), "{context}: {again:?}");
    block_on(async {
        settled_and_tight(&other, &context).await;
        remove_all(&other).await;
        settled_and_tight(&other, &context).await;
    });
    mortal.is_dead()
}

#[test]
fn a_dead_managers_last_commit_may_come_whenever_it_likes() {
    let mut came = [0; 3];
    for (what, call) in CALLS.into_iter().chain(REFUSED) {
        for (when, came) in came.iter_mut().enumerate() {
            let done = (0..40).map_while(|commits| comes_late(what, call, commits, when));
            *came += done.filter(|done| *done).count();
        }
    }
    assert!(came.iter().all(|came| *came > 0), "{came:?}");
}

/// Whether the last commit was done: when all was settled, when all was removed after that, or after it was made and removed once
/// more. `None` if nobody died.
fn comes_late(what: &str, call: Call, commits: usize, when: usize) -> Option<bool> {
    let memory = MemoryStore::default();
    prepared(&memory);
    let mortal = Mortal::new(memory.clone(), commits, Last::Late);
    let told = call(&manager(Arc::new(mortal.clone()), 1));
    if !mortal.is_dead() {
        return None;
    }
    let other = manager(Arc::new(memory), 2);
    let context = format!("{what}, dead after {commits} commits, the last is late, {when}: {told:?}");
    let there = block_on(async {
        if when < 2 {
            settle(&other, NOW).await;
        }
        if when > 0 {
            let _ = call(&other);
            remove_all(&other).await;
        }
        ids(&other).await
    });
    let done = mortal.arrive();
    block_on(async {
        sound(&other).await;
        settled_and_tight(&other, &context).await;
        if when > 0 {
            assert_eq!(ids(&other).await, there, "{context}");
        }
        remove_all(&other).await;
        settled_and_tight(&other, &context).await;
    });
    Some(done)
}
