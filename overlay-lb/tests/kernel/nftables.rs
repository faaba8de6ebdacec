//! nf_tables: the suite, and what is peculiar to it.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Meter as _, Phase, Protocol, Shadow, Table, reconcile};
use overlay_kernel::nft;
use overlay_kernel::testing::judge;
use overlay_lb::kernel::Nftables;
use overlay_lb::{Arrivals, Condition, Readings, Scheduler, Service, State, Weight};

use crate::suite::{self, Answer, Ground as _, KINDS, at, service, state};
use crate::town::{PATIENCE, Place, Town, owner, script, whole};

#[test]
fn nftables_does_what_it_says_it_can() {
    kernel_test(Kernel::Host, "lb::nftables_does_what_it_says_it_can", || {
        let town = Town::new(3);
        let before = whole(&town.client);
        let table = Nftables::open(&owner(), town.client.try_clone().unwrap()).unwrap();
        suite::run(&mut Place::new(&town, Shadow::new(table), Nftables::capabilities()));
        assert_eq!(whole(&town.client), before);
    });
}

pub(crate) fn opened(town: &Town) -> Nftables {
    Nftables::open(&owner(), town.client.try_clone().unwrap()).unwrap()
}

/// Runs the phases of a plan up to one, as a process does that is killed then.
fn until(town: &Town, wanted: &State, last: Phase) {
    let mut table = opened(town);
    let plan = table.plan(wanted).unwrap();
    for phase in Phase::ALL.into_iter().filter(|phase| *phase <= last) {
        Table::<State>::run(&mut table, &plan, phase).unwrap();
    }
}

#[test]
fn flows_are_cut_though_whoever_should_was_killed() {
    kernel_test(Kernel::Host, "lb::flows_are_cut_though_whoever_should_was_killed", || {
        let town = Town::new(2);
        for last in [Phase::Guard, Phase::Build, Phase::Open, Phase::Close] {
            let mut place = Place::new(&town, opened(&town), Nftables::capabilities());
            place.settle(&state(&service(&[2, 3])));
            let kinds = KINDS.into_iter().flat_map(|kind| [kind; 2]);
            let held: Vec<_> = kinds.map(|kind| (kind, place.open(kind.0, at(kind)))).collect();
            let wanted = state(&service(&[3]));
            until(&town, &wanted, last);
            place.table = opened(&town);
            place.settle(&wanted);
            for ((protocol, family), (held, before)) in held {
                let Answer::From(replica, client) = before else { panic!("{before:?}") };
                let gone = replica == suite::replica(2).address(family).unwrap();
                let expected = match (gone, protocol) {
                    (true, Protocol::Tcp) => Answer::Refused,
                    (true, _) => Answer::From(suite::replica(3).address(family).unwrap(), client),
                    (false, _) => before,
                };
                assert_eq!(place.ask(held), expected, "{protocol} {family} after {last}");
            }
        }
    });
}

#[test]
fn what_nftables_lacks_is_refused_by_name_and_changes_nothing() {
    kernel_test(Kernel::Host, "lb::what_nftables_lacks_is_refused_by_name", || {
        let town = Town::new(0);
        let before = whole(&town.client);
        let mut service = service(&[2]);
        service.scheduler = Scheduler::LeastConnection;
        let refused = reconcile(&mut opened(&town), &state(&service)).unwrap_err().to_string();
        assert_eq!(refused, "service web: least connection: nf_tables has no such scheduler");
        service.scheduler = Scheduler::Maglev;
        service.timeouts = Some(overlay_lb::Timeouts::default());
        let refused = reconcile(&mut opened(&town), &state(&service)).unwrap_err().to_string();
        assert_eq!(refused, "service web: timeouts: nf_tables leaves them to the namespace");
        assert_eq!(whole(&town.client), before);
    });
}

/// A source that is not the namespace's own: what is there then is said truly, and the next reconcile goes on.
#[test]
fn a_source_that_the_client_does_not_have_is_told() {
    kernel_test(Kernel::Host, "lb::a_source_that_the_client_does_not_have_is_told", || {
        let town = Town::new(1);
        let before = whole(&town.client);
        let mut wrong = state(&service(&[2]));
        wrong.sources.insert("10.0.9.100".parse().unwrap(), "10.0.9.77".parse().unwrap());
        let failed = reconcile(&mut opened(&town), &wrong).unwrap_err();
        assert!(failed.to_string().contains("take 10.0.9.100 for local, from 10.0.9.77"), "{failed}");
        let mut place = Place::new(&town, opened(&town), Nftables::capabilities());
        place.settle(&state(&service(&[2])));
        assert!(matches!(place.open(Protocol::Tcp, at(KINDS[0])).1, Answer::From(..)));
        place.settle(&State::default());
        assert_eq!(whole(&town.client), before);
    });
}

#[test]
fn a_change_of_one_service_among_many_is_a_few_steps() {
    kernel_test(Kernel::Host, "lb::a_change_of_one_service_among_many_is_a_few_steps", || {
        let town = Town::new(0);
        let mut many = State::default();
        for number in 0..500_u16 {
            let [high, low] = number.to_be_bytes();
            let mut one = Service::new([[10, 9, high, low.max(1)].into()].into_iter().filter(|_| low > 0)).port(
                Protocol::Tcp,
                suite::port(80),
                suite::port(8080),
            );
            one.replicas = (2..7).map(|at| (suite::id(at), suite::replica(at))).collect();
            if low > 0 {
                many.services.insert(format!("s{number}").parse().unwrap(), one);
            }
        }
        let mut shadow = Shadow::new(opened(&town));
        reconcile(&mut shadow, &many).unwrap();
        let mut fewer = many.clone();
        fewer.services.get_mut("s77").unwrap().replicas.get_mut(&suite::id(3)).unwrap().weight =
            Weight::new(2).unwrap();
        assert!(reconcile(&mut shadow, &fewer).unwrap().is_empty(), "round robin does not weigh");
        fewer.services.get_mut("s77").unwrap().replicas.get_mut(&suite::id(3)).unwrap().condition = Condition::Draining;
        fewer.services.get_mut("s78").unwrap().replicas.get_mut(&suite::id(3)).unwrap().condition = Condition::Draining;
        let plan = reconcile(&mut shadow, &fewer).unwrap();
        assert!(plan.len() < 20, "{plan}");
        let mut others = fewer.clone();
        others.services.get_mut("s79").unwrap().replicas.remove(&suite::id(3));
        let plan = reconcile(&mut shadow, &others).unwrap();
        assert!(plan.len() < 12 && plan.to_string().contains("cut flows"), "{plan}");
    });
}

#[test]
fn other_tables_of_the_same_owner_live_beside_it() {
    kernel_test(Kernel::Host, "lb::other_tables_of_the_same_owner_live_beside_it", || {
        let town = Town::new(1);
        let mut others = nft::Nft::open(&owner(), &town.client).unwrap();
        let key = nft::TableKey::new(nft::Family::Inet, "services".parse().unwrap());
        let theirs = nft::State { tables: [(key, nft::Table::default())].into() };
        let mut ours = opened(&town);
        for _ in 0..2 {
            reconcile(&mut others, &theirs).unwrap();
            reconcile(&mut ours, &state(&service(&[2]))).unwrap();
        }
        assert!(reconcile(&mut others, &theirs).unwrap().is_empty());
        assert!(reconcile(&mut ours, &state(&service(&[2]))).unwrap().is_empty());
    });
}

/// As on a router, or where the client has no address on the service's network.
#[test]
fn a_vip_that_is_not_the_namespaces_own_is_served_and_refused_on_its_way_out() {
    kernel_test(Kernel::Host, "lb::a_vip_that_is_not_the_namespaces_own_is_served", || {
        let town = Town::new(1);
        let mut place = Place::new(&town, Shadow::new(opened(&town)), Nftables::capabilities());
        let mut elsewhere = state(&service(&[2]));
        place.settle(&elsewhere);
        elsewhere.sources.clear();
        place.settle(&elsewhere);
        for kind in KINDS {
            let (_, answer) = place.open(kind.0, at(kind));
            assert!(matches!(answer, Answer::From(..)), "{kind:?}: {answer:?}");
        }
        for family in [overlay_core::IpFamily::V4, overlay_core::IpFamily::V6] {
            let (_, answer) = place.open(Protocol::Tcp, std::net::SocketAddr::new(suite::vip(family), 8080));
            assert_eq!(answer, Answer::Refused);
        }
    });
}

#[test]
fn a_published_port_leads_to_replicas_that_see_who_asks_and_whoever_listens_there_is_not_asked() {
    kernel_test(Kernel::Host, "lb::a_published_port_leads_to_replicas_that_see_who_asks", || {
        let town = Town::new(2);
        let before = whole(&town.client);
        let mut place = Place::new(&town, Shadow::new(opened(&town)), Nftables::capabilities());
        let published = |replicas: &[u8]| state(&Service { vips: [].into(), ..service(replicas) });
        let here = suite::HERE.map(|it| it.parse::<std::net::IpAddr>().unwrap());
        let asked = |protocol| if protocol == Protocol::Tcp { 80 } else { 53 };
        let kinds = || {
            KINDS.into_iter().zip(KINDS.map(|(protocol, family)| {
                let own = here.into_iter().find(|own| overlay_core::IpFamily::of(*own) == family).unwrap();
                (own, std::net::SocketAddr::new(own, asked(protocol)))
            }))
        };
        let listener = town.client.run(|| std::net::TcpListener::bind("[::]:80")).unwrap().unwrap();
        place.settle(&published(&[2, 3]));
        let mut held = Vec::new();
        for ((protocol, family), (own, to)) in kinds() {
            let answers = [(); 4].map(|()| place.open(protocol, to));
            for replica in [2, 3].map(|number| suite::replica(number).address(family).unwrap()) {
                let its = answers.iter().filter(|(_, answer)| *answer == Answer::From(replica, own)).count();
                assert_eq!(its, 2, "{protocol} {family}: {answers:?}");
            }
            held.extend(answers.map(|(held, answer)| (protocol, family, held, answer)));
        }
        // They are counted by the address that was asked, those of one that drains too.
        let mut drained = service(&[2, 3]);
        drained.replicas.get_mut(&suite::id(2)).unwrap().condition = Condition::Draining;
        place.settle(&state(&Service { vips: [].into(), ..drained }));
        let of = |own: std::net::IpAddr, number| suite::replica(number).address(overlay_core::IpFamily::of(own));
        let each = here.into_iter().flat_map(|own| [2, 3].map(|number| (own, of(own, number).unwrap(), 4)));
        assert_eq!(place.table.read().unwrap().iter().collect::<Vec<_>>(), each.collect::<Vec<_>>());
        // Flows to one that goes are cut, those to the other stay.
        place.settle(&published(&[3]));
        for (protocol, family, held, before) in held {
            let Answer::From(replica, client) = before else { panic!("{before:?}") };
            let gone = suite::replica(2).address(family) == Some(replica);
            let expected = match (gone, protocol) {
                (true, Protocol::Tcp) => Answer::Refused,
                (true, _) => Answer::From(suite::replica(3).address(family).unwrap(), client),
                (false, _) => before,
            };
            assert_eq!(place.ask(held), expected, "{protocol} {family}");
        }
        // Nobody is left: who asks is refused, though somebody listens there.
        place.settle(&published(&[]));
        for ((protocol, _), (_, to)) in kinds() {
            assert_eq!(place.open(protocol, to).1, Answer::Refused, "{protocol} {to}");
        }
        drop(listener);
        place.settle(&State::default());
        assert_eq!(whole(&town.client), before);
    });
}

#[test]
fn flows_that_others_translated_are_not_cut_though_they_began_at_a_published_port() {
    kernel_test(Kernel::Host, "lb::flows_that_others_translated_are_not_cut", || {
        let town = Town::new(2);
        let mut place = Place::new(&town, Shadow::new(opened(&town)), Nftables::capabilities());
        let published = |replicas: &[u8]| state(&Service { vips: [].into(), ..service(replicas) });
        place.settle(&published(&[2, 3]));
        // A proxy of somebody else's, for who asks others at the port that we publish here; flows are tracked for it, whether for us or not.
        let theirs = "nft add table inet proxy
            nft add chain inet proxy c '{ type nat hook output priority -120; }'
            nft add chain inet proxy tracks '{ type filter hook output priority 0; }'
            nft add rule inet proxy tracks ct state new counter
            nft add rule inet proxy c ip daddr 10.0.9.77 meta l4proto { tcp, udp } redirect to :8080
            nft add rule inet proxy c ip6 daddr fd00::77 meta l4proto { tcp, udp } redirect to :8080";
        script(&town.client, theirs);
        let elsewhere = ["10.0.9.77", "fd00::77"].map(|it| it.parse::<std::net::IpAddr>().unwrap());
        let proxied = elsewhere.map(|to| place.open(Protocol::Tcp, std::net::SocketAddr::new(to, 80)));
        for (_, answer) in &proxied {
            assert!(matches!(answer, Answer::From(..)), "{answer:?}");
        }
        assert_eq!(place.table.read().unwrap(), Readings::default(), "none is a service's");
        // What goes on from here on goes on by tracking alone.
        script(&town.client, "nft flush chain inet proxy c");
        for replicas in [&[3][..], &[]] {
            place.settle(&published(replicas));
            for (held, before) in &proxied {
                assert_eq!(place.ask(*held), *before, "{replicas:?} are left");
            }
        }
        place.settle(&State::default());
        for (held, before) in proxied {
            assert_eq!(place.ask(held), before, "nothing is published any more");
        }
    });
}

#[test]
fn whoever_listens_at_an_address_of_a_link_is_asked_whatever_is_published() {
    kernel_test(Kernel::Host, "lb::whoever_listens_at_an_address_of_a_link_is_asked", || {
        let town = Town::new(2);
        let mut place = Place::new(&town, Shadow::new(opened(&town)), Nftables::capabilities());
        let neighbour = &town.replicas[0];
        script(&town.client, "ip addr add fe80::5/64 dev eth0 nodad");
        script(neighbour, "ip addr add fe80::2/64 dev eth0 nodad");
        let listener = town.client.run(|| std::net::TcpListener::bind("[::]:80")).unwrap().unwrap();
        // With a replica a flow would be led to it, without one it would be refused.
        for replicas in [&[3][..], &[]] {
            place.settle(&state(&Service { vips: [].into(), ..service(replicas) }));
            let asks = || {
                let there = std::net::ToSocketAddrs::to_socket_addrs(&("fe80::5%eth0", 80)).unwrap().next().unwrap();
                std::net::TcpStream::connect_timeout(&there, PATIENCE)
            };
            let asked = neighbour.run(asks).unwrap();
            assert!(asked.is_ok(), "{replicas:?}: {asked:?}");
            assert_eq!(listener.accept().unwrap().1.port(), asked.unwrap().local_addr().unwrap().port());
        }
    });
}

#[test]
fn nobody_comes_by_a_balancer_with_an_address_from_inside() {
    kernel_test(Kernel::Host, "lb::nobody_comes_by_a_balancer_with_an_address_from_inside", || {
        let town = Town::new(1);
        let neighbour = &town.replicas[0];
        // A balancer's machine that forwards what anybody outside says, and a place that has a way back to all of them.
        script(neighbour, "ip addr add 10.0.77.9/32 dev eth0; ip addr add fd00:77::9/128 dev eth0 nodad");
        script(&town.client, "ip route add 10.0.77.0/24 dev eth0; ip route add fd00:77::/64 dev eth0");
        let shown = judge(neighbour, "ip", &["-br", "link", "show", "dev", "eth0"]);
        let mac = shown.split_whitespace().nth(2).unwrap().parse().unwrap();
        let with = |inside: &[&str]| {
            let inside = inside.iter().map(|net| net.parse().unwrap()).collect();
            let (interface, marks) = ("eth0".parse().unwrap(), [(mac, 7)].into());
            let arrivals = Some(Arrivals { interface, marks, answers: [].into(), inside });
            State { arrivals, ..State::default() }
        };
        let asks_within = |patience, from: &str, to: &str| {
            let socket = neighbour.run(|| std::net::UdpSocket::bind((from, 0))).unwrap().unwrap();
            socket.set_read_timeout(Some(patience)).unwrap();
            let asked = socket.connect((to, 8080)).and_then(|()| socket.send(b"?"));
            asked.and_then(|_| socket.recv(&mut [0; 64])).is_ok()
        };
        let asks = |from: &str, to: &str| asks_within(2 * PATIENCE, from, to);
        let is_refused = |from: &str, to: &str| !asks_within(PATIENCE / 4, from, to);
        let mut place = Place::new(&town, Shadow::new(opened(&town)), Nftables::capabilities());
        let all = [("10.0.9.2", "10.0.77.9", suite::HERE[0]), ("fd00::2", "fd00:77::9", suite::HERE[1])];
        place.settle(&with(&[]));
        for (outside, inside, here) in all {
            assert!(asks(outside, here) && asks(inside, here), "{here}");
        }
        place.settle(&with(&["10.0.77.0/24", "10.0.77.9/32", "fd00:77::/64"]));
        for (outside, inside, here) in all {
            assert!(asks(outside, here) && is_refused(inside, here), "{here}");
            // What the place itself begins is answered.
            let there = std::net::SocketAddr::new(inside.parse().unwrap(), 8080);
            let reached = town.client.run(|| std::net::TcpStream::connect_timeout(&there, PATIENCE)).unwrap();
            assert!(reached.is_ok(), "{there}: {reached:?}");
        }
    });
}
