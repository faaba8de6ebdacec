//! A node whose process is killed while it works.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use overlay_core::testing::{Dice, Kernel, kernel_test};
use overlay_driver::testing::{Container, date, node, ping};
use overlay_kernel::link::devices;
use overlay_kernel::testing::judge;
use overlay_kernel::{Namespace, NamespaceDir};

use crate::process::{Process, Resident, prepare};
use crate::world::{World, attachable};

const SOON: Duration = Duration::from_secs(30);
const KILLS: usize = 20;

/// Pings on and on, until it is told to stop; gives how many were sent, and how many lost.
fn ping_on(from: &Namespace, to: IpAddr) -> impl FnOnce() -> (usize, usize) + use<> {
    let (from, stop) = (from.try_clone().unwrap(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let pinging = thread::spawn(move || {
        let (mut sent, mut lost) = (0, 0);
        while !stopped.load(Ordering::Relaxed) {
            sent += 1;
            if ping(&from, to, Duration::from_secs(1)).unwrap().is_none() {
                lost += 1;
            }
            thread::sleep(Duration::from_millis(10));
        }
        (sent, lost)
    });
    move || {
        stop.store(true, Ordering::Relaxed);
        pinging.join().unwrap()
    }
}

/// Nothing of the first host is left: in its containers, on its disk, in the catalogue, among the members.
pub(crate) fn assert_bare<'c>(world: &World, containers: impl Iterator<Item = &'c Container>) {
    for container in containers {
        assert_eq!(devices(&container.namespace).unwrap().len(), 1, "{}", container.name);
        assert_eq!(judge(&container.namespace, "nft", &["list ruleset"]), "", "{}", container.name);
    }
    for dir in ["networks", "carried"] {
        let left: Vec<_> = std::fs::read_dir(world.hosts().lab.dir(0).join(dir)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let network = world.wait(world.manager().network(&"front".into())).unwrap();
    let endpoints = world.wait(world.manager().endpoints(network.id)).unwrap();
    assert!(endpoints.iter().all(|endpoint| endpoint.spec.node == node(1)), "{endpoints:?}");
    world.until(SOON, |world| world.status(1).members.len() == 1);
}

#[test]
fn a_node_killed_at_any_moment_of_its_work_goes_on_where_it_was_and_its_containers_hardly_notice() {
    kernel_test(Kernel::Host, "driver::a_node_killed_at_any_moment_goes_on", || {
        let seed = [10; 32];
        let (mut world, mut dice) = (World::new(2), Dice::new(seed));
        println!("seed {seed:?}");
        let (asked, serving, runtime) = prepare(&mut world);
        let bare = |world: &World| {
            let host = world.hosts().lab.host(0);
            (judge(host, "nft", &["list ruleset"]), judge(host, "ip", &["-o", "link"]).lines().count())
        };
        let before = bare(&world);
        world.network(attachable("front"));
        let (web, attached) = world.run(1, "web", "front");
        let mut residents = vec![Resident::new(&world, 0)];
        let mut process = Process::start(&asked);
        process.attach(&residents);
        process.await_said("attached c0.");
        let kept = &residents[0].container;
        world.until(SOON, |world| world.reaches(&web, "c0") && world.reaches(kept, "web"));
        let stop = ping_on(&kept.namespace, attached.endpoint.addresses.first().unwrap().addr());

        let (mut leaving, mut detached): (Option<Resident>, _) = (None, Vec::new());
        for kill in 1..=KILLS {
            residents.push(Resident::new(&world, kill));
            process.attach(&residents[residents.len() - 1..]);
            if let Some(Resident { id, container }) = leaving.take() {
                world.wait(world.manager().detach(id, date())).unwrap();
                detached.push(container);
            }
            thread::sleep(Duration::from_millis(dice.below(1200) as u64));
            process.kill();
            process = Process::start(&asked);
            if kill % 4 == 3 {
                leaving = Some(residents.remove(1 + dice.below(residents.len() - 2)));
            }
            process.attach(&residents);
        }
        let mut waited: Vec<String> = residents.iter().map(|it| format!("attached {}.", it.container.name)).collect();
        while let Some(words) = waited.pop() {
            let said = process.await_said(&words);
            waited.retain(|words| !said.iter().any(|line| line.contains(words)));
        }
        for Resident { container, .. } in &residents {
            world.until(SOON, |world| world.reaches(&web, container.name.as_str()) && world.reaches(container, "web"));
        }
        let (sent, lost) = stop();
        println!("{lost} of {sent} packets were lost, with {KILLS} kills");
        assert!(lost <= KILLS, "{lost} of {sent}");
        for container in &detached {
            world.until(SOON, |_| devices(&container.namespace).unwrap().len() == 1);
            assert!(!world.reaches(&web, container.name.as_str()), "{}", container.name);
        }

        process.tear_down();
        assert_eq!(bare(&world), before);
        assert_bare(&world, residents.iter().map(|it| &it.container).chain(&detached));
        NamespaceDir::new(&asked.hosts).remove(&"host".parse().unwrap()).unwrap();
        runtime.block_on(serving.stop());
    });
}
