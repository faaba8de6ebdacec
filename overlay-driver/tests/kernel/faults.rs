//! What holds while things fail.

use std::time::{Duration, Instant};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::link::devices;
use overlay_kernel::testing::judge;

use crate::world::{World, attachable, pings};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn what_foreign_tools_flush_or_remove_is_put_back() {
    kernel_test(Kernel::Host, "driver::what_foreign_tools_flush_or_remove_is_back", || {
        let world = World::new(2);
        let network = world.network(attachable("front"));
        let (web, _) = world.run(0, "web", "front");
        world.run(1, "db", "front");
        world.until(SOON, |world| world.reaches(&web, "db"));
        let sandbox = world.sandbox(0, network.id);
        let vni = network.vni.unwrap();
        let (bridge, tunnel) = (format!("br-{vni}"), format!("vx-{vni}"));
        let damages: [(&overlay_kernel::Namespace, &str, Vec<&str>); 6] = [
            (&sandbox, "ip", vec!["link", "del", &bridge]),
            (&sandbox, "bridge", vec!["fdb", "flush", "dev", &tunnel, "self"]),
            (&sandbox, "ip", vec!["neigh", "flush", "dev", &tunnel, "nud", "permanent"]),
            (&sandbox, "nft", vec!["flush ruleset"]),
            (&web.namespace, "ip", vec!["addr", "flush", "dev", "eth0"]),
            (&web.namespace, "nft", vec!["flush ruleset"]),
        ];
        for (place, tool, words) in damages {
            let before = judge(place, "nft", &["list ruleset"]).len();
            judge(place, tool, &words);
            let whole =
                |world: &World| world.reaches(&web, "db") && judge(place, "nft", &["list ruleset"]).len() == before;
            let took = world.until(SOON, whole);
            println!("{tool} {words:?}: repaired after {took:?}");
        }
    });
}

#[test]
fn a_node_that_stops_leaves_its_containers_reachable_and_adopts_them_when_it_starts_again() {
    kernel_test(Kernel::Host, "driver::a_node_that_stops_leaves_its_containers_reachable", || {
        let mut world = World::new(2);
        world.network(attachable("front"));
        let (web, _) = world.run(0, "web", "front");
        let (_db, attached) = world.run(1, "db", "front");
        world.until(SOON, |world| world.reaches(&web, "db"));
        let address = attached.endpoint.addresses.first().unwrap().addr();
        let driver = world.hosts_mut().take(0).unwrap();
        world.wait(driver.stop());
        let lost = (0..10).filter(|_| !pings(&web, address)).count();
        assert_eq!(lost, 0, "while it is down");
        world.start(0);
        let begun = Instant::now();
        let (mut lost, mut named) = (0, None);
        while begun.elapsed() < Duration::from_secs(5) {
            let at = begun.elapsed();
            if !pings(&web, address) {
                lost += 1;
                println!("lost at {at:?}");
            }
            if named.is_none() && world.reaches(&web, "db") {
                named = Some(begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("names were answered {named:?} after the start; {lost} pings were lost in 5 s");
        assert!(lost <= 1 && named.is_some(), "{lost} lost, {named:?}");
    });
}

#[test]
fn a_namespace_that_vanishes_is_unplugged_and_forgotten_by_the_others() {
    kernel_test(Kernel::Host, "driver::a_namespace_that_vanishes_is_unplugged", || {
        let world = World::new(2);
        world.network(attachable("front"));
        let (web, _) = world.run(0, "web", "front");
        let (db, attached) = world.run(1, "db", "front");
        world.until(SOON, |world| world.reaches(&web, "db"));
        world.hosts().lab.end(&db.name).unwrap();
        drop(db);
        world.until(SOON, |world| world.status(1).places.is_empty() && !world.reaches(&web, "db"));
        let id = attached.endpoint.id;
        let failed = |world: &World| {
            let endpoint = world.wait(overlay_node::Control::endpoint(world.manager(), id)).unwrap().unwrap();
            endpoint.condition.to_string().contains("has ended")
        };
        world.until(SOON, failed);
    });
}

#[test]
fn a_cable_that_was_cut_is_no_harm_once_it_is_mended() {
    kernel_test(Kernel::Host, "driver::a_cable_that_was_cut_is_no_harm", || {
        let mut world = World::new(3);
        world.network(attachable("front"));
        let (web, _) = world.run(0, "web", "front");
        world.run(1, "db", "front");
        world.run(2, "cache", "front");
        world.until(SOON, |world| world.reaches(&web, "db") && world.reaches(&web, "cache"));
        world.hosts_mut().lab.cut(1).unwrap();
        assert!(!world.reaches(&web, "db"));
        let gone = |world: &World| world.status(0).members.iter().any(|member| member.standing != "alive");
        let took = world.until(Duration::from_secs(15), gone);
        println!("suspected after {took:?}");
        assert!(world.reaches(&web, "cache"));
        world.hosts_mut().lab.mend(1).unwrap();
        let took = world.until(Duration::from_secs(15), |world| world.reaches(&web, "db"));
        println!("reached again {took:?} after it was mended");
    });
}

#[test]
fn a_node_that_was_torn_down_has_left_nothing() {
    kernel_test(Kernel::Host, "driver::a_node_that_was_torn_down_has_left_nothing", || {
        let mut world = World::new(2);
        let bare = |world: &World| {
            let host = world.hosts().lab.host(0);
            (judge(host, "nft", &["list ruleset"]), judge(host, "ip", &["-o", "link"]).lines().count())
        };
        let before = bare(&world);
        world.network(attachable("front"));
        let (web, _) = world.run(0, "web", "front");
        let (db, _) = world.run(0, "db", "front");
        world.until(SOON, |world| world.reaches(&web, "db"));
        let driver = world.hosts_mut().take(0).unwrap();
        world.wait(driver.tear_down()).unwrap();
        assert_eq!(bare(&world), before);
        for container in [&web, &db] {
            assert_eq!(devices(&container.namespace).unwrap().len(), 1);
            assert_eq!(judge(&container.namespace, "nft", &["list ruleset"]), "");
        }
        let left: Vec<_> = std::fs::read_dir(world.hosts().lab.dir(0).join("networks")).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        world.until(SOON, |world| world.status(1).members.len() == 1);
    });
}
