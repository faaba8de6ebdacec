//! What works when nothing fails.

use std::os::fd::AsFd as _;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::testing::{Container, date, node};
use overlay_driver::{Attach, Source};
use overlay_kernel::Namespace;
use overlay_kernel::link::devices;
use overlay_kernel::testing::judge;
use overlay_node::{NetworkSpec, Target};

use crate::world::{World, attachable, pings};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn containers_on_two_hosts_reach_each_other_by_name_and_a_network_is_only_where_it_is_needed() {
    kernel_test(Kernel::Host, "driver::containers_on_two_hosts_reach_each_other_by_name", || {
        let world = World::new(3);
        world.network(attachable("front"));
        let (web, _) = world.run(0, "web", "front");
        let (db, attached) = world.run(1, "db", "front");
        let took = world.until(SOON, |world| world.reaches(&web, "db"));
        println!("db is reached {took:?} after it was attached: {:?}", attached.endpoint.addresses);
        assert!(world.reaches(&db, "web") && world.reaches(&db, "web.front"));
        assert!(world.status(2).places.is_empty(), "{:?}", world.status(2));
        world.wait(world.driver(1).detach(attached.endpoint.id)).unwrap();
        world.until(SOON, |world| !world.reaches(&web, "db"));
        world.until(SOON, |world| world.status(1).places.is_empty());
        assert_eq!(devices(&db.namespace).unwrap().len(), 1, "only the loopback device is left");
    });
}

#[test]
fn a_container_on_three_networks_reaches_those_of_each_and_they_do_not_reach_one_another() {
    kernel_test(Kernel::Host, "driver::a_container_on_three_networks", || {
        let world = World::new(2);
        let networks = ["one", "two", "three"];
        networks.iter().for_each(|name| drop(world.network(attachable(name))));
        let (hub, _) = world.run(0, "hub", "one");
        world.attach(0, &hub, "two");
        world.attach(0, &hub, "three");
        let leaves: Vec<_> = networks.iter().map(|name| world.run(1, &format!("in-{name}"), name)).collect();
        for (leaf, attached) in &leaves {
            world.until(SOON, |world| world.reaches(&hub, leaf.name.as_str()) && world.reaches(leaf, "hub"));
            let address = attached.endpoint.addresses.first().unwrap().addr();
            for (other, _) in leaves.iter().filter(|(other, _)| other.name != leaf.name) {
                assert!(!pings(other, address) && !world.reaches(other, leaf.name.as_str()));
            }
        }
        let interfaces: Vec<String> = devices(&hub.namespace).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(interfaces, ["eth0", "eth1", "eth2", "gw0", "lo"]);
        let routes = judge(&hub.namespace, "ip", &["route", "show", "default"]);
        assert!(routes.contains("dev gw0"), "the gateway bridge is the way out: {routes}");
    });
}

#[test]
fn an_endpoint_that_moves_keeps_its_address_and_is_reached_at_its_new_host() {
    kernel_test(Kernel::Host, "driver::an_endpoint_that_moves_keeps_its_address", || {
        let world = World::new(3);
        world.network(attachable("front"));
        let (web, _) = world.run(0, "web", "front");
        let (_db, attached) = world.run(1, "db", "front");
        world.until(SOON, |world| world.reaches(&web, "db"));
        let there = world.hosts().lab.container("db-there").unwrap();
        let moved = world.wait(overlay_node::Control::relocate(world.manager(), attached.endpoint.id, node(2), date()));
        assert_eq!(moved.unwrap().addresses, attached.endpoint.addresses);
        let name = attached.endpoint.spec.container.clone();
        world.wait(world.driver(2).plug(attached.endpoint.id, name, there.source.clone(), None)).unwrap();
        let address = attached.endpoint.addresses.first().unwrap().addr();
        let answers = || devices(&there.namespace).unwrap().len() == 3 && pings(&web, address);
        let took = world.until(SOON, |_| answers());
        println!("reached at its new host after {took:?}");
        world.until(SOON, |world| world.status(1).places.is_empty() && world.status(1).plugged.is_empty());
        assert!(world.reaches(&web, "db"));
    });
}

#[test]
fn a_virtual_machines_port_is_a_tap_in_the_sandbox_and_goes_with_it() {
    kernel_test(Kernel::Host, "driver::a_virtual_machines_port_is_a_tap", || {
        let world = World::new(1);
        let network = world.network(attachable("front"));
        let attach = Attach::new("vm".parse().unwrap(), Source::Tap, "front");
        let attached = world.wait(world.driver(0).attach(attach)).unwrap();
        let sandbox = world.sandbox(0, network.id);
        assert!(devices(&sandbox).unwrap().contains(&attached.interface), "{:?}", attached.interface);
        let listening = judge(&sandbox, "ss", &["-Hlun", "sport", "=", ":53"]);
        let gateway = network.subnets[0].gateway().unwrap().to_string();
        world.until(SOON, |_| judge(&sandbox, "ss", &["-Hlun", "sport", "=", ":53"]).contains(&gateway));
        drop(listening);
        world.wait(world.driver(0).detach(attached.endpoint.id)).unwrap();
        world.until(SOON, |world| world.status(0).places.is_empty());
    });
}

#[test]
fn a_container_that_is_handed_over_as_an_open_file_is_found_again_after_a_restart() {
    kernel_test(Kernel::Host, "driver::a_container_that_is_handed_over_as_an_open_file", || {
        let mut world = World::new(2);
        world.network(attachable("front"));
        world.run(1, "db", "front");
        let namespace = Namespace::create().unwrap();
        let file = namespace.as_fd().try_clone_to_owned().unwrap();
        let name: overlay_core::Name = "handed".parse().unwrap();
        let source = world.hosts().places(0).unwrap().keep(&name, file).unwrap();
        let attach = Attach::new(name.clone(), source.clone(), "front");
        let attached = world.wait(world.driver(0).attach(attach)).unwrap();
        let container = Container { name, namespace, source };
        world.until(SOON, |world| world.reaches(&container, "db"));
        let driver = world.hosts_mut().take(0).unwrap();
        world.wait(driver.stop());
        world.start(0);
        world.until(SOON, |world| world.reaches(&container, "db"));
        world.wait(world.driver(0).detach(attached.endpoint.id)).unwrap();
        world.until(SOON, |_| !container.source.path().unwrap().exists());
    });
}

#[test]
fn it_is_explained_why_a_name_is_not_reached_and_how_one_is() {
    kernel_test(Kernel::Host, "driver::it_is_explained_why_a_name_is_not_reached", || {
        let world = World::new(2);
        world.network(NetworkSpec { internal: true, ..attachable("front") });
        let (web, attached) = world.run(0, "web", "front");
        world.run(1, "db", "front");
        world.until(SOON, |world| world.reaches(&web, "db"));
        let explain = |name: &str| {
            let target = Target::Name(name.parse().unwrap());
            world.wait(world.driver(0).explain(attached.endpoint.id, target)).unwrap()
        };
        assert_eq!(explain("db").broken, None);
        assert!(explain("nobody").broken.is_some());
        let world_wide = world.reaches(&web, "www.example.org");
        assert!(!world_wide, "an internal network leads nowhere");
    });
}
