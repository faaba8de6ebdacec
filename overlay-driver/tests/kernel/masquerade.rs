//! Published ports whose containers see the node that was asked, since that was declared.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Port, Protocol};
use overlay_driver::testing::Lab;
use overlay_driver::{Attach, Source};
use overlay_kernel::testing::judge;
use overlay_lb::Ask;
use overlay_node::{Access, ClientSource, PublishMode, PublishedPort, mesh_replica};

use crate::machine::machine;
use crate::mesh::{SOON, addresses, names, service, shares, until_both_answer, world};
use crate::replica::{Replica, TARGET, asks_over_tcp, asks_over_udp, publishes, serve};
use crate::world::World;

fn masqueraded(port: PublishedPort) -> PublishedPort {
    PublishedPort { source: ClientSource::Masquerade, ..port }
}

/// The addresses of a host's own endpoint on the ingress network.
fn ingress_addresses(world: &World, host: usize) -> BTreeSet<IpAddr> {
    let (ingress, node) = (world.wait(world.manager().network(&"ingress".into())).unwrap().id, world.status(host).node);
    let endpoints = world.wait(world.manager().endpoints(ingress)).unwrap();
    let own = endpoints.iter().filter(|it| it.spec.container.as_str() == "routing-mesh" && it.spec.node == node);
    own.flat_map(|endpoint| endpoint.addresses.iter().map(ipnet::IpNet::addr)).collect()
}

#[test]
fn where_it_is_declared_containers_without_marks_see_the_node_that_was_asked_and_answer_it() {
    kernel_test(Kernel::Host, "driver::where_it_is_declared_containers_without_marks_see_the_node", || {
        let world = world();
        let [client, _] = Lab::outside_addresses();
        let mut ports = publishes(PublishMode::Ingress, &[(Protocol::Tcp, 80), (Protocol::Udp, 53)]);
        let access = Access { sources: [client.into()].into(), ..Access::default() };
        let target = Port::new(TARGET).unwrap();
        ports.push(PublishedPort {
            published: Port::new(81).ok(),
            access,
            ..PublishedPort::new(Protocol::Tcp, target)
        });
        let web = service(&world, "web", ports.into_iter().map(masqueraded).collect());
        let replicas =
            [0, 1].map(|host| Replica::new(&world, host, &format!("web-{host}"), &web, &["front", "ingress"]));
        let lab = &world.hosts().lab;
        for host in [2, 0] {
            let seen = |family: IpAddr| {
                ingress_addresses(&world, host).into_iter().find(|own| own.is_ipv4() == family.is_ipv4()).unwrap()
            };
            for to in addresses(host) {
                for from in [lab.outside(), lab.host(host)] {
                    let tcp = || asks_over_tcp(from, (to, 80).into());
                    let udp = || asks_over_udp(from, (to, 53).into());
                    until_both_answer(&world, seen(to), [&tcp, &udp]);
                    for (what, shares) in [("TCP", shares(40, seen(to), tcp)), ("UDP", shares(40, seen(to), udp))] {
                        assert_eq!(names(&shares), ["web-0", "web-1"], "{what} to {to}: {shares:?}");
                    }
                }
            }
            // Who may ask is decided by who it is, not by the node that is seen.
            let [v4, v6] = addresses(host).map(|to| asks_over_tcp(lab.outside(), (to, 81).into()));
            assert_eq!((v4.map(|(_, from)| from), v6), (Ok(seen(client)), Err(ErrorKind::TimedOut)));
        }
        for replica in &replicas {
            let rules = judge(&replica.container.namespace, "nft", &["list", "ruleset"]);
            assert!(!rules.contains("balancers"), "nothing is marked there: {rules}");
            assert!(!judge(&replica.container.namespace, "ip", &["rule"]).contains("fwmark"));
        }
        // Whoever asks is told.
        let said = world.status(2).places.into_iter().find(|it| it.place == "host").unwrap().masqueraded;
        assert!(
            said.contains(&"tcp 80 of service web is masqueraded: its containers see the node".to_owned()),
            "{said:?}"
        );
        let [to, _] = addresses(0);
        let by = "eth0".parse().ok();
        let ask = Ask { by, from: client, to, protocol: Protocol::Tcp, port: Port::new(80).unwrap() };
        let explained = world.wait(world.driver(0).explain_published(ask)).unwrap();
        let text = explained.to_string();
        assert!(explained.broken.is_none() && text.contains("masqueraded: they see the node"), "{text}");
    });
}

#[test]
fn a_virtual_machine_serves_what_is_masqueraded_and_knows_nothing_of_it() {
    kernel_test(Kernel::Host, "driver::a_virtual_machine_serves_what_is_masqueraded", || {
        let world = world();
        let ports = publishes(PublishMode::Ingress, &[(Protocol::Tcp, 80), (Protocol::Udp, 53)]);
        let web = service(&world, "web", ports.into_iter().map(masqueraded).collect());
        let attach = Attach::new("vm".parse().unwrap(), Source::Tap, "front");
        let attached = world.wait(world.driver(0).attach(Attach { service: Some(web.id), ..attach })).unwrap();
        let id = mesh_replica(web.id, world.status(0).node, &"vm".parse().unwrap());
        let endpoint = world.wait(world.manager().endpoint(id)).unwrap().unwrap();
        assert_eq!(world.wait(world.driver(0).in_effect(id)).unwrap(), Ok(()));
        let machine = machine(&world.sandbox(0, endpoint.spec.network), &endpoint);
        let end = Arc::default();
        let served = serve(&machine, "vm", &end);
        for host in [2, 0] {
            for to in addresses(host) {
                let seen =
                    ingress_addresses(&world, host).into_iter().find(|own| own.is_ipv4() == to.is_ipv4()).unwrap();
                let tcp = || asks_over_tcp(world.hosts().lab.outside(), (to, 80).into());
                let udp = || asks_over_udp(world.hosts().lab.outside(), (to, 53).into());
                world.until(SOON, |_| tcp().is_ok() && udp().is_ok());
                assert_eq!((tcp(), udp()), (Ok(("vm".to_owned(), seen)), Ok(("vm".to_owned(), seen))), "{to}");
            }
        }
        end.store(true, Ordering::Relaxed);
        served.into_iter().for_each(|served| served.join().unwrap());
        world.wait(world.driver(0).detach(attached.endpoint.id)).unwrap();
        assert_eq!(world.wait(world.manager().endpoint(id)).unwrap(), None);
    });
}
