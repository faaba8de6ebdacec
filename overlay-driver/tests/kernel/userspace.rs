//! Nodes that carry their containers' packets themselves.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{EndpointId, Mtu, NetworkId, NsKey, Port, Vni, reconcile};
use overlay_driver::packets::CarrierConfig;
use overlay_driver::testing::{Carried, Container};
use overlay_driver::{Ground as _, UserspacePlaces};
use overlay_kernel::NamespaceDir;
use overlay_kernel::testing::judge;
use overlay_node::{Encryption, NetworkSpec, Place, Places as _};
use overlay_vxlan::{LocalPort, PortEnd, Segment, Vtep};
use socket2::{Domain, Protocol, Socket, Type};

use crate::killed::assert_bare;
use crate::process::{Process, Resident, prepare};
use crate::world::{World, attachable, pings};

const SOON: Duration = Duration::from_secs(15);

pub(crate) fn address(attached: &overlay_driver::Attached) -> IpAddr {
    attached.endpoint.addresses.first().unwrap().addr()
}

/// What is written by one is read by the other.
pub(crate) fn passes(stream: &mut TcpStream, other: &mut TcpStream, words: &[u8]) {
    stream.write_all(words).unwrap();
    let mut read = vec![0; words.len()];
    other.read_exact(&mut read).unwrap();
    assert_eq!(read, words);
}

/// What is asked there at once by so many, each of whom is answered.
fn asked_by_many(from: &Container, to: &Container, at: IpAddr, count: usize) {
    let ends: Vec<(TcpStream, TcpStream)> = (0..count).map(|_| connected(from, to, at)).collect();
    for (mut stream, mut other) in ends {
        passes(&mut stream, &mut other, &[7; 4 << 10]);
        passes(&mut other, &mut stream, &[8; 4 << 10]);
    }
}

pub(crate) fn connected(from: &Container, to: &Container, at: IpAddr) -> (TcpStream, TcpStream) {
    // At another port each time: a program that a test beside starts holds a listener until it is executed.
    let listener = to.namespace.run(|| TcpListener::bind((at, 0))).unwrap().unwrap();
    let there = listener.local_addr().unwrap();
    let stream = from.namespace.run(|| TcpStream::connect(there)).unwrap().unwrap();
    let (other, _) = listener.accept().unwrap();
    for it in [&stream, &other] {
        it.set_read_timeout(Some(SOON)).unwrap();
    }
    (stream, other)
}

#[test]
fn containers_reach_each_other_by_name_and_tcp_goes_on_when_their_node_starts_again() {
    kernel_test(Kernel::Host, "driver::containers_reach_each_other_in_user_space", || {
        let mut world = World::carried(2, Carried::InUserSpace);
        world.network(attachable("front"));
        let ((web, _), (db, at)) = (world.run(0, "web", "front"), world.run(1, "db", "front"));
        world.until(SOON, |world| world.reaches(&web, "db") && world.reaches(&db, "web"));
        let links = judge(world.hosts().lab.host(0), "ip", &["-d", "link"]);
        assert!(!links.contains("vxlan"), "{links}");
        let (mut stream, mut other) = connected(&web, &db, address(&at));
        (0..64).for_each(|_| passes(&mut stream, &mut other, &[7; 16 << 10]));

        let stopped = world.hosts_mut().take(0).unwrap();
        world.wait(stopped.stop());
        assert!(!pings(&web, address(&at)), "nobody carries");
        stream.write_all(b"meanwhile").unwrap();
        world.start(0);
        world.until(SOON, |world| world.reaches(&web, "db"));
        let mut read = [0; 9];
        other.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"meanwhile");
        passes(&mut other, &mut stream, b"and back");
    });
}

#[test]
fn a_connection_outlives_the_killing_of_the_node_that_carries_it() {
    kernel_test(Kernel::Host, "driver::a_connection_outlives_the_killing_of_the_node", || {
        let mut world = World::carried(2, Carried::InUserSpace);
        let (asked, serving, runtime) = prepare(&mut world);
        world.network(attachable("front"));
        let (web, at) = world.run(1, "web", "front");
        let residents = [Resident::new(&world, 0)];
        let own = &residents[0].container;
        let mut process = Process::start(&asked);
        process.attach(&residents);
        process.await_said("attached c0.");
        world.until(SOON, |world| world.reaches(&web, "c0") && world.reaches(own, "web"));
        let (mut stream, mut other) = connected(own, &web, address(&at));
        for _ in 0..3 {
            passes(&mut stream, &mut other, b"before");
            process.kill();
            stream.write_all(b"meanwhile").unwrap();
            process = Process::start(&asked);
            process.attach(&residents);
            process.await_said("attached c0.");
            let mut read = [0; 9];
            other.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"meanwhile");
            passes(&mut other, &mut stream, b"after");
        }
        process.tear_down();
        assert_bare(&world, [own].into_iter());
        NamespaceDir::new(&asked.hosts).remove(&"host".parse().unwrap()).unwrap();
        runtime.block_on(serving.stop());
    });
}

#[test]
fn a_node_carries_in_several_queues_at_once() {
    kernel_test(Kernel::Host, "driver::a_node_carries_in_several_queues_at_once", || {
        let world = World::carried(2, Carried::InQueues(2));
        world.network(attachable("front"));
        world.network(NetworkSpec { encryption: Encryption::Shared, ..attachable("vault") });
        for network in ["front", "vault"] {
            let (a, _) = world.run(0, &format!("a-{network}"), network);
            let (beside, _) = world.run(0, &format!("beside-{network}"), network);
            let (b, at) = world.run(1, &format!("b-{network}"), network);
            world.until(SOON, |world| pings(&a, address(&at)) && world.reaches(&a, &format!("b-{network}")));
            [&a, &beside].into_iter().for_each(|from| asked_by_many(from, &b, address(&at), 16));
        }
        let queues = world.hosts().in_user_space(0).unwrap().counts_by_queue();
        assert_eq!(queues.len(), 2);
        for queue in queues {
            assert!(queue.frames_read > 0, "each reads every second tap: {queue:?}");
        }
    });
}

#[test]
fn another_carrier_begins_where_one_has_ended_by_itself_and_connections_go_on() {
    kernel_test(Kernel::Host, "driver::another_carrier_begins_where_one_has_ended", || {
        let world = World::carried(2, Carried::InUserSpace);
        world.network(attachable("front"));
        world.network(NetworkSpec { encryption: Encryption::Shared, ..attachable("vault") });
        let mut ends = Vec::new();
        for network in ["front", "vault"] {
            let (a, _) = world.run(0, &format!("a-{network}"), network);
            let (b, at) = world.run(1, &format!("b-{network}"), network);
            world.until(SOON, |_| pings(&a, address(&at)));
            let ((mut stream, mut other), at) = (connected(&a, &b, address(&at)), address(&at));
            passes(&mut stream, &mut other, b"before");
            ends.push((a, b, at, stream, other));
        }
        world.hosts().in_user_space(0).unwrap().end_carrier();
        for (a, _, at, stream, other) in &mut ends {
            stream.write_all(b"meanwhile").unwrap();
            world.until(Duration::from_secs(60), |_| pings(a, *at));
            let mut read = [0; 9];
            other.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"meanwhile");
            passes(other, stream, b"after");
        }
    });
}

#[test]
fn a_port_of_esp_that_another_has_is_no_harm_to_networks_that_are_not_encrypted() {
    kernel_test(Kernel::Host, "driver::a_port_of_esp_that_another_has", || {
        let world = World::carried(2, Carried::InUserSpace);
        let other = taken(&world, 4_500);
        world.network(attachable("front"));
        let connection = Connection::of(&world, "front");
        world.network(NetworkSpec { encryption: Encryption::Shared, ..attachable("vault") });
        let (_b, _) = world.run(1, "b", "vault");
        let a = world.hosts().lab.container("a").unwrap();
        let _ = world.wait(world.hosts().attach(0, &a, "vault")); // which may be there before the other is known
        world.until(SOON, |world| fails(world, "4500"));
        connection.goes_on();
        // As soon as it is free it is had.
        drop(other);
        world.until(SOON, |world| world.reaches(&a, "b"));
        connection.goes_on();
    });
}

#[test]
fn a_port_of_vxlan_that_another_has_is_no_harm_to_encrypted_networks() {
    kernel_test(Kernel::Host, "driver::a_port_of_vxlan_that_another_has", || {
        let world = World::carried(2, Carried::InUserSpace);
        let other = taken(&world, 4_789);
        world.network(NetworkSpec { encryption: Encryption::Shared, ..attachable("vault") });
        let connection = Connection::of(&world, "vault");
        world.network(attachable("front"));
        let (_b, _) = world.run(1, "b", "front");
        let a = world.hosts().lab.container("a").unwrap();
        assert!(world.wait(world.hosts().attach(0, &a, "front")).is_err());
        connection.goes_on();
        drop(other);
        world.wait(world.hosts().attach(0, &a, "front")).unwrap();
        world.until(SOON, |world| world.reaches(&a, "b"));
    });
}

#[test]
fn a_carrier_for_which_there_was_no_room_begins_as_soon_as_there_is() {
    kernel_test(Kernel::Host, "driver::a_carrier_for_which_there_was_no_room", || {
        let world = World::carried(2, Carried::InUserSpace);
        world.network(attachable("front"));
        let connection = Connection::of(&world, "front");
        // The driver may begin another before the port is ours: then that ends too.
        let end = || world.hosts().in_user_space(0).unwrap().end_carrier();
        let other = taken_after(&world, 4_789, end);
        world.wait(world.driver(0).look()).unwrap();
        assert!(fails(&world, "4789"), "{:?}", world.status(0).places);
        drop(other);
        world.until(SOON, |_| pings(&connection.from, connection.at));
        connection.goes_on();
    });
}

#[test]
fn a_network_whose_tap_cannot_be_opened_fails_no_other() {
    kernel_test(Kernel::Host, "driver::a_network_whose_tap_cannot_be_opened_fails_no_other", || {
        let world = World::new(1);
        let lab = &world.hosts().lab;
        let kernel = world.hosts().places(0).unwrap();
        let mut places = UserspacePlaces::with_carrier(&CarrierConfig::default(), kernel, &lab.dir(0)).unwrap();
        let containers = ["a", "b"].map(|name| lab.container(name).unwrap());
        let mut tables =
            [1, 2].map(|number| places.open(&Place::Network(NetworkId::from_bytes([number; 16]))).unwrap());
        let keys = containers.each_ref().map(|it| places.enter(&it.name, &it.source).unwrap().unwrap());
        let wanted = [1, 2].map(|number: u8| segment_of(number, &keys[usize::from(number) - 1]));
        let [first, second] = &mut tables;
        reconcile(&mut first.vxlan, &wanted[0]).unwrap();
        // Of what has ended no tap can be opened; the other network's is its own affair.
        places.leave(&containers[0].name);
        reconcile(&mut second.vxlan, &wanted[1]).unwrap();
        assert!(reconcile(&mut second.vxlan, &wanted[1]).unwrap().is_empty());
        for tables in &mut tables {
            reconcile(&mut tables.vxlan, &overlay_vxlan::State::default()).unwrap();
        }
        for number in [1, 2] {
            places.close(&Place::Network(NetworkId::from_bytes([number; 16]))).unwrap();
        }
    });
}

/// A network's one segment, with one container in it.
fn segment_of(number: u8, container: &NsKey) -> overlay_vxlan::State {
    let vtep = Vtep { port: Port::new(40_000 + u16::from(number)).unwrap(), ..Vtep::new([127, 0, 0, 1].into()) };
    let mut segment = Segment::new(vtep, Mtu::new(1_450).unwrap());
    let end = PortEnd::Namespace { namespace: container.clone(), interface: "eth0".parse().unwrap() };
    let addresses = [format!("10.0.{number}.2/24").parse().unwrap()].into();
    let port = LocalPort { mac: [2, 0, 0, 0, 0, number].into(), addresses, end };
    segment.ports.insert(EndpointId::from_bytes([number; 16]), port);
    overlay_vxlan::State { segments: [(Vni::new(number.into()).unwrap(), segment)].into() }
}

/// Another program of the first host has this port, as soon as it is free.
fn taken(world: &World, port: u16) -> UdpSocket {
    taken_after(world, port, || {})
}

/// The same, where something is done before each try.
fn taken_after(world: &World, port: u16, before: impl Fn()) -> UdpSocket {
    let (at, until) = ((Ipv4Addr::UNSPECIFIED, port), Instant::now() + SOON);
    loop {
        before();
        match world.hosts().lab.host(0).run(|| UdpSocket::bind(at)).unwrap() {
            Ok(socket) => return socket,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::yield_now();
    }
}

/// Whether a place of the first host says what is wrong in these words.
fn fails(world: &World, words: &str) -> bool {
    let places = world.status(0).places;
    places.into_iter().any(|place| place.failure.is_some_and(|why| why.contains(words)))
}

/// From a container of the first host to one of the second.
struct Connection {
    from: Container,
    at: IpAddr,
    _to: Container,
    ends: Mutex<(TcpStream, TcpStream)>,
}

impl Connection {
    fn of(world: &World, network: &str) -> Self {
        let (from, _) = world.run(0, &format!("from-{network}"), network);
        let (to, at) = world.run(1, &format!("to-{network}"), network);
        let at = address(&at);
        world.until(SOON, |_| pings(&from, at));
        let ends = Mutex::new(connected(&from, &to, at));
        let it = Self { from, at, _to: to, ends };
        it.goes_on();
        it
    }

    fn goes_on(&self) {
        let (stream, other) = &mut *self.ends.lock().unwrap();
        for _ in 0..20 {
            assert!(pings(&self.from, self.at));
            passes(stream, other, b"there");
            passes(other, stream, b"and back");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn nothing_of_an_encrypted_network_crosses_the_cable_in_the_clear() {
    kernel_test(Kernel::Host, "driver::nothing_crosses_the_cable_in_the_clear_in_user_space", || {
        const WORDS: &[u8] = b"the combination is 4-8-15";
        const ALL: i32 = 0x0300; // ETH_P_ALL, as the network has it
        let world = World::carried(2, Carried::InUserSpace);
        world.network(attachable("front"));
        world.network(NetworkSpec { encryption: Encryption::Shared, ..attachable("vault") });
        let ear = world.hosts().lab.host(0).run(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL))));
        let ear = ear.unwrap().unwrap();
        ear.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        ear.set_recv_buffer_size(8 << 20).unwrap();
        let heard = || {
            let (mut frame, mut heard) = (vec![0; 1 << 16], false);
            while let Ok(len) = (&ear).read(&mut frame) {
                heard |= frame[..len].windows(WORDS.len()).any(|window| window == WORDS);
                if len == 0 {
                    break;
                }
            }
            heard
        };
        for (network, clear) in [("front", true), ("vault", false)] {
            let (a, _) = world.run(0, &format!("a-{network}"), network);
            let (b, at) = world.run(1, &format!("b-{network}"), network);
            world.until(SOON, |_| pings(&a, address(&at)));
            let (mut stream, mut other) = connected(&a, &b, address(&at));
            passes(&mut stream, &mut other, WORDS);
            passes(&mut other, &mut stream, WORDS);
            assert_eq!(heard(), clear, "{network}");
        }
    });
}
