//! Many containers on several networks and hosts, and many faults.

use std::net::IpAddr;
use std::time::Duration;

use overlay_core::testing::{Dice, Kernel, kernel_test};
use overlay_driver::testing::{Container, ping_all};
use overlay_kernel::link::devices;
use overlay_kernel::testing::judge;

use crate::world::{World, attachable};

const LONG: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_millis(500);

/// A container, its network, and its address.
type Resident = (Container, usize, IpAddr);

/// So many containers, each on the next host and the next network.
fn populate(world: &World, hosts: usize, networks: usize, count: usize) -> Vec<Resident> {
    (0..networks).for_each(|number| drop(world.network(attachable(&format!("n{number}")))));
    let resident = |number: usize| {
        let network = number % networks;
        let (container, attached) = world.run(number % hosts, &format!("c{number}"), &format!("n{network}"));
        (container, network, attached.endpoint.addresses.first().unwrap().addr())
    };
    (0..count).map(resident).collect()
}

/// The addresses that a container should reach, and those it should not.
fn others(of: &Resident, all: &[Resident]) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let (inside, outside): (Vec<_>, Vec<_>) = all.iter().filter(|it| it.2 != of.2).partition(|it| it.1 == of.1);
    let addresses = |of: Vec<&Resident>| of.into_iter().map(|it| it.2).collect();
    (addresses(inside), addresses(outside))
}

fn all_reach_their_own(all: &[Resident]) -> bool {
    all.iter().all(|one| {
        let (inside, _) = others(one, all);
        ping_all(&one.0.namespace, &inside, PATIENCE).is_ok_and(|unheard| unheard.is_empty())
    })
}

#[test]
fn forty_containers_on_four_networks_and_three_hosts_reach_all_of_their_network_and_nobody_else() {
    kernel_test(Kernel::Host, "driver::forty_containers_on_four_networks_and_three_hosts", || {
        let world = World::new(3);
        let all = populate(&world, 3, 4, 40);
        let took = world.until(LONG, |_| all_reach_their_own(&all));
        println!("all reach all of their network {took:?} after the last was attached");
        for one in &all {
            let (_, outside) = others(one, &all);
            let unheard = ping_all(&one.0.namespace, &outside, Duration::from_millis(100)).unwrap();
            assert_eq!(unheard.len(), outside.len(), "{} hears somebody of another network", one.0.name);
        }
        let (asking, _, _) = &all[0];
        assert!(world.reaches(asking, "c4") && !world.reaches(asking, "c5"));
    });
}

/// What somebody does to a host.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Restart,
    Cut,
    Mend,
    Flush,
    RemoveTunnel,
    RemoveBridge,
}

const FAULTS: [Fault; 6] =
    [Fault::Restart, Fault::Cut, Fault::Mend, Fault::Flush, Fault::RemoveTunnel, Fault::RemoveBridge];

fn commit(world: &mut World, host: usize, fault: Fault, vni: u32, network: overlay_core::NetworkId) {
    let sandbox = world.sandbox(host, network);
    let gone = |what: &str| sandbox.run(|| std::process::Command::new("ip").args(["link", "del", what]).status());
    match fault {
        Fault::Restart => {
            let driver = world.hosts_mut().take(host).unwrap();
            world.wait(driver.stop());
            world.start(host);
        }
        Fault::Cut => world.hosts_mut().lab.cut(host).unwrap(),
        Fault::Mend => world.hosts_mut().lab.mend(host).unwrap(),
        Fault::Flush => drop(judge(&sandbox, "nft", &["flush ruleset"])),
        // It may be gone already.
        Fault::RemoveTunnel => drop(gone(&format!("vx-{vni}"))),
        Fault::RemoveBridge => drop(gone(&format!("br-{vni}"))),
    }
}

#[test]
fn after_twenty_faults_all_is_as_it_was_and_nothing_is_left_after_removal() {
    kernel_test(Kernel::Host, "driver::after_twenty_faults_all_is_as_it_was", || {
        let seed = [20; 32];
        let (mut world, mut dice) = (World::new(3), Dice::new(seed));
        let bare = |world: &World, host: usize| judge(world.hosts().lab.host(host), "nft", &["list ruleset"]);
        let before: Vec<String> = (0..3).map(|host| bare(&world, host)).collect();
        let all = populate(&world, 3, 2, 12);
        world.until(LONG, |_| all_reach_their_own(&all));
        let networks = world.wait(world.manager().networks()).unwrap();
        let networks: Vec<_> =
            networks.into_iter().filter(|network| network.vni.is_some() && !network.spec.ingress).collect();
        for _ in 0..20 {
            let (host, fault) = (dice.below(3), FAULTS[dice.below(FAULTS.len())]);
            let network = &networks[dice.below(networks.len())];
            println!("host-{}: {fault:?}", host + 1);
            commit(&mut world, host, fault, network.vni.unwrap().get(), network.id);
            std::thread::sleep(Duration::from_millis(100 + dice.below(400) as u64));
        }
        (0..3).for_each(|host| world.hosts_mut().lab.mend(host).unwrap());
        let took = world.until(LONG, |_| all_reach_their_own(&all));
        println!("all reach all of their network {took:?} after the last fault");
        world.until(LONG, |world| (0..12).step_by(2).all(|number| world.reaches(&all[0].0, &format!("c{number}"))));

        for host in 0..3 {
            let driver = world.hosts_mut().take(host).unwrap();
            world.wait(driver.tear_down()).unwrap();
        }
        assert_eq!((0..3).map(|host| bare(&world, host)).collect::<Vec<_>>(), before, "seed {seed:?}");
        for (container, _, _) in &all {
            assert_eq!(devices(&container.namespace).unwrap().len(), 1, "{}", container.name);
        }
        assert!(world.wait(world.manager().nodes()).unwrap().is_empty());
        for network in &networks {
            assert!(world.wait(world.manager().endpoints(network.id)).unwrap().is_empty());
        }
    });
}
