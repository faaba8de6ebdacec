//! Where published services are found and by whom: the kernel does what the pure meaning says.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Name, Port, Protocol, Shadow, reconcile};
use overlay_kernel::Namespace;
use overlay_lb::kernel::Nftables;
use overlay_lb::{Ask, Asked, Bind, Condition, Service, State};

use crate::suite::replica;
use crate::town::{Town, owner, script};

/// What is dropped is waited for so long.
const PATIENCE: Duration = Duration::from_millis(150);

/// The machine's addresses: inside, outside, and a second one outside.
const HERE: [&str; 6] = ["10.0.9.5", "fd00::5", "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"];
/// Who asks from outside.
const OUTSIDE: [&str; 4] = ["192.0.2.9", "2001:db8::9", "192.0.2.77", "2001:db8::77"];

/// A town whose client is a machine with an outside; and the outside.
fn machine() -> (Town, Namespace) {
    let (town, outside) = (Town::new(2), Namespace::create().unwrap());
    let target = format!("/proc/{}/fd/{}", std::process::id(), outside.as_fd().as_raw_fd());
    script(
        &town.client,
        &format!(
            "ip link add eth1 type veth peer name eth0 netns {target}; ip link set eth1 addrgenmode none up
             for a in 192.0.2.1/24 192.0.2.2/24; do ip addr add $a dev eth1; done
             for a in 2001:db8::1/64 2001:db8::2/64; do ip addr add $a dev eth1 nodad; done
             echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
        ),
    );
    script(
        &outside,
        "ip link set lo up; ip link set eth0 addrgenmode none up
         for a in 192.0.2.9/24 192.0.2.77/24; do ip addr add $a dev eth0; done
         for a in 2001:db8::9/64 2001:db8::77/64; do ip addr add $a dev eth0 nodad; done",
    );
    for station in &town.replicas {
        script(station, "ip route add 192.0.2.0/24 via 10.0.9.5; ip -6 route add 2001:db8::/64 via fd00::5");
    }
    for port in [80, 81] {
        listen(&town.client, port);
    }
    (town, outside)
}

/// What the machine itself has at a port: it calls itself 0.
fn listen(machine: &Namespace, port: u16) {
    let tcp = machine.run(|| TcpListener::bind(("::", port))).unwrap().unwrap();
    thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let _ = stream.write_all(b"0 here");
        }
    });
    // One for each address, that answers come from the one that was asked.
    for here in HERE {
        let udp = machine.run(|| UdpSocket::bind((here, port))).unwrap().unwrap();
        thread::spawn(move || {
            let mut word = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut word) {
                let _ = udp.send_to(b"0 here", peer);
            }
        });
    }
}

/// What was heard, as the meaning has it.
fn ask(place: &Namespace, protocol: Protocol, (from, to): (IpAddr, SocketAddr)) -> &'static str {
    let heard = place.run(|| -> std::io::Result<String> {
        let mut word = [0; 64];
        let length = if protocol == Protocol::Tcp {
            let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect_timeout(&to.into(), PATIENCE)?;
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(10 * PATIENCE))?;
            stream.write_all(b"?")?;
            stream.read(&mut word)?
        } else {
            let socket = UdpSocket::bind((from, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(to)?;
            socket.send(b"?")?;
            socket.recv(&mut word)?
        };
        Ok(String::from_utf8_lossy(&word[..length]).into_owned())
    });
    match heard.unwrap() {
        Ok(said) if said.starts_with("0 ") => "left",
        Ok(said) if said.ends_with(&format!(" {from}")) => "served",
        Ok(said) if HERE[..2].iter().any(|inside| said.ends_with(&format!(" {inside}"))) => "served as the machine",
        Ok(said) => panic!("{said:?} to {from}"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused",
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => "dropped",
        Err(error) => panic!("{error}"),
    }
}

fn meant(asked: Asked<'_>) -> &'static str {
    match asked {
        Asked::Served(..) => "served",
        Asked::Refused(_) => "refused",
        Asked::Dropped(_) => "dropped",
        Asked::Left => "left",
    }
}

/// Services on ports 80 and 81 of the machine's own, found so.
fn states() -> Vec<State> {
    let port = |port| Port::new(port).unwrap();
    let service = |at: u16, bind: &Bind, sources: &[&str], taken: bool| {
        let mut service = Service::published().at(bind.clone());
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            service = service.port(protocol, port(at), port(8080));
        }
        service.sources = sources.iter().map(|net| net.parse().unwrap()).collect();
        for number in [2_u8, 3] {
            let condition = if taken { Condition::Active } else { Condition::Draining };
            service
                .replicas
                .insert(overlay_core::EndpointId::from_bytes([number; 16]), replica(number).being(condition));
        }
        (format!("s{at}").parse().unwrap(), service)
    };
    let addresses = |all: &[&str]| Bind::Addresses(all.iter().map(|it| it.parse().unwrap()).collect());
    let by = |name: &str| Bind::Interfaces([name.parse().unwrap()].into());
    let some: &[&str] = &["192.0.2.0/28", "2001:db8::9/128"];
    [
        [service(80, &Bind::Any, &[], true), service(81, &Bind::Any, some, true)],
        [service(80, &addresses(&HERE[2..4]), &[], true), service(81, &addresses(&HERE[4..6]), some, true)],
        [service(80, &by("eth1"), some, true), service(81, &by("eth9"), &[], true)],
        [service(80, &addresses(&HERE[2..3]), some, false), service(81, &by("eth1"), &[], false)],
        [service(80, &Bind::Any, &["192.0.2.64/26"], false), service(81, &addresses(&["203.0.113.1"]), &[], true)],
    ]
    .map(|services| State { services: services.into_iter().collect(), ..State::default() })
    .into()
}

#[test]
fn published_services_are_found_where_and_by_whom_the_meaning_says() {
    kernel_test(Kernel::Host, "lb::published_services_are_found_where_and_by_whom", || {
        let (town, outside) = machine();
        let mut table = Shadow::new(Nftables::open(&owner(), town.client.try_clone().unwrap()).unwrap());
        let mut heard = std::collections::BTreeSet::new();
        for state in states() {
            reconcile(&mut table, &state).unwrap();
            assert!(reconcile(&mut table, &state).unwrap().is_empty());
            for (from, by) in OUTSIDE.map(|it| (it, true)).into_iter().chain(HERE[2..4].iter().map(|it| (*it, false))) {
                let from: IpAddr = from.parse().unwrap();
                let family = |to: &IpAddr| to.is_ipv4() == from.is_ipv4();
                for to in HERE[2..6].iter().map(|to| to.parse().unwrap()).filter(family) {
                    for (protocol, port) in
                        [80, 81].into_iter().flat_map(|port| [(Protocol::Tcp, port), (Protocol::Udp, port)])
                    {
                        let interface = by.then(|| "eth1".parse().unwrap());
                        let asks = Ask { by: interface, from, to, protocol, port: Port::new(port).unwrap() };
                        let place = if by { &outside } else { &town.client };
                        let expected = meant(state.asked(&asks));
                        let ask = || ask(place, protocol, (from, SocketAddr::new(to, port)));
                        let mut found = ask();
                        if found == "dropped" && found != expected {
                            found = ask(); // an answer may be late; what is dropped is dropped again
                        }
                        assert_eq!(found, expected, "{asks:?} of {:?}", state.services);
                        heard.insert((found, by));
                    }
                }
            }
        }
        for outcome in ["served", "refused", "dropped", "left"] {
            assert!(heard.contains(&(outcome, true)), "{outcome}");
        }
        assert!(!heard.contains(&("dropped", false)), "nobody on the machine itself is a stranger");
        reconcile(&mut table, &State::default()).unwrap();
    });
}

#[test]
fn replicas_without_a_way_back_answer_the_machine_if_that_is_declared_and_strangers_are_dropped_before() {
    kernel_test(Kernel::Host, "lb::replicas_without_a_way_back_answer_the_machine", || {
        let (town, outside) = machine();
        for station in &town.replicas {
            script(station, "ip route del 192.0.2.0/24; ip -6 route del 2001:db8::/64");
        }
        let mut table = Shadow::new(Nftables::open(&owner(), town.client.try_clone().unwrap()).unwrap());
        let [_, restricted] = [80, 81].map(|port| Name::new(&format!("s{port}")).unwrap());
        for declared in [true, false, true] {
            let mut state = states().remove(0);
            state.services.get_mut(&restricted).unwrap().masquerade = declared; // beside one whose replicas see who asks
            reconcile(&mut table, &state).unwrap();
            assert!(reconcile(&mut table, &state).unwrap().is_empty());
            for (from, to) in
                [(OUTSIDE[0], HERE[2]), (OUTSIDE[1], HERE[5]), (OUTSIDE[2], HERE[2]), (OUTSIDE[3], HERE[3])]
            {
                let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let is_allowed = OUTSIDE[..2].iter().any(|it| it.parse() == Ok(from));
                    let ask = || ask(&outside, protocol, (from, SocketAddr::new(to, 81)));
                    match declared && is_allowed {
                        true => assert_eq!(until(ask), "served as the machine", "{protocol} from {from} to {to}"),
                        false => assert_eq!(ask(), "dropped", "{protocol} from {from} to {to}"),
                    }
                    let kept = self::ask(&outside, protocol, (from, SocketAddr::new(to, 80)));
                    assert_eq!(kept, "dropped", "nothing is masqueraded that does not say so");
                }
            }
            // Who begins on the machine itself is seen as it is there, too.
            if declared {
                let own = |protocol| {
                    ask(
                        &town.client,
                        protocol,
                        (HERE[2].parse().unwrap(), SocketAddr::new(HERE[2].parse().unwrap(), 81)),
                    )
                };
                assert_eq!(
                    [Protocol::Tcp, Protocol::Udp].map(|protocol| until(|| own(protocol))),
                    ["served as the machine"; 2]
                );
            }
        }
        reconcile(&mut table, &State::default()).unwrap();
    });
}

/// What is heard, asked again if an answer is late.
fn until(ask: impl Fn() -> &'static str) -> &'static str {
    let first = ask();
    if first == "dropped" { ask() } else { first }
}
