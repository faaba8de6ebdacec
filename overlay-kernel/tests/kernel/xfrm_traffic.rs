//! Traffic under the native state alone: two hosts of namespaces in the lab.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Backend as _, ErrorKind, Meter as _, ReconcileError, State as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_kernel::xfrm::{
    Action, Aead, Claim, Direction, Expiries, Expiry, Heard, Key, Lifetimes, Limits, Mode, Policy, PolicyKey, Sa, SaId,
    Selector, State, Step, Template, Xfrm,
};
use socket2::{Domain, Socket, Type};

const PORT: u16 = 4791;
const CLAIM: Claim = Claim { reqids: (100, 199), priorities: (1000, 1999) };
const MARKER: &[u8] = b"in the clear, for all to read";

struct Host {
    home: Namespace,
    address: Ipv4Addr,
    peer: Ipv4Addr,
    /// Hears what arrives, by the cable and by devices on top of it.
    tap: Socket,
}

impl Host {
    fn pair() -> [Self; 2] {
        let homes = [Namespace::create().unwrap(), Namespace::create().unwrap()];
        let addresses = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        let far = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&homes[1]))
        );
        judge(&homes[0], "sh", &["-ec", &format!("ip link add u0 type veth peer name u0 netns {far}")]);
        for (home, address) in homes.iter().zip(addresses) {
            judge(
                home,
                "sh",
                &["-ec", &format!("ip link set lo up; ip addr add {address}/24 dev u0; ip link set u0 up")],
            );
        }
        let mut homes = homes.into_iter();
        [(0, 1), (1, 0)].map(|(this, other)| {
            let home = homes.next().unwrap();
            let ip = socket2::Protocol::from(i32::from(0x0800_u16.to_be()));
            let tap = home.run(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(ip))).unwrap().unwrap();
            tap.set_nonblocking(true).unwrap();
            Self { home, address: addresses[this], peer: addresses[other], tap }
        })
    }

    fn xfrm(&self) -> Xfrm {
        Xfrm::open(self.home.try_clone().unwrap(), CLAIM).unwrap()
    }

    fn socket(&self, port: u16) -> UdpSocket {
        self.home.run(|| UdpSocket::bind((self.address, port))).unwrap().unwrap()
    }

    /// The protocols of all IPv4 packets that came since the last call, none of which holds what was said.
    fn heard(&mut self) -> Vec<u8> {
        let mut protocols = Vec::new();
        let mut packet = [0; 2048];
        while let Ok(size) = self.tap.read(&mut packet) {
            let said = packet[..size].windows(MARKER.len()).any(|part| part == MARKER);
            assert!(!said || packet[9] == UDP, "a marker within protocol {}", packet[9]);
            protocols.push(packet[9]);
        }
        protocols
    }

    fn key(&self, direction: Direction, narrow: bool) -> PolicyKey {
        let of = |address: Ipv4Addr| if narrow { IpAddr::from(address).into() } else { "0.0.0.0/0".parse().unwrap() };
        let (from, to) = if direction == Direction::In { (self.peer, self.address) } else { (self.address, self.peer) };
        let selector = Selector {
            source: of(from),
            destination: of(to),
            protocol: UDP,
            source_port: None,
            destination_port: Some(PORT.into()),
        };
        PolicyKey { direction, selector }
    }

    /// Nothing in the clear to the port, in or out.
    fn guards(&self) -> State {
        let block = Policy { priority: 1900, action: Action::Block };
        let policies = [Direction::In, Direction::Out].map(|direction| (self.key(direction, false), block.clone()));
        State { policies: policies.into(), ..State::default() }
    }

    /// And to and from the peer in ESP.
    fn protected(&self, aead: Aead, counted: u64) -> State {
        let mut state = self.guards();
        for direction in [Direction::In, Direction::Out] {
            let key = self.key(direction, true);
            let (source, destination) = (key.selector.source.addr(), key.selector.destination.addr());
            let spi = if source == IpAddr::from([192, 0, 2, 1]) { 0x1001 } else { 0x1002 };
            let template = Template { source, destination, reqid: 100, spi: None, mode: Mode::Transport };
            state.policies.insert(key, Policy { priority: 1000, action: Action::Protect(vec![template]) });
            let material = vec![spi as u8; aead.material_len()];
            let sa = Sa {
                source,
                reqid: 100,
                mode: Mode::Transport,
                aead,
                extended: true,
                window: 1024,
                lifetimes: Default::default(),
                udp: None,
                selector: None,
                counted,
                key: Some(Key::new(zeroize::Zeroizing::new(material))),
            };
            state.add(SaId { destination, spi }, sa).unwrap();
        }
        state
    }
}

/// Whether a datagram from one host arrives at the other's port.
fn passes(from: &Host, to: &Host) -> bool {
    let receiver = to.socket(PORT);
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let sent = from.socket(0).send_to(MARKER, SocketAddr::from((to.address, PORT)));
    let mut buffer = [0; 64];
    let arrived = receiver.recv(&mut buffer).is_ok_and(|size| buffer[..size] == *MARKER);
    assert!(sent.is_ok() || !arrived);
    arrived
}

const UDP: u8 = 17;
const ESP: u8 = 50;

#[test]
fn what_is_protected_passes_in_esp_and_in_nothing_else() {
    kernel_test(Kernel::Lab, "kernel::what_is_protected_passes_in_esp_only", || {
        for aead in Aead::ALL {
            for counted in [0, u64::from(u32::MAX) - 3] {
                let [mut a, mut b] = Host::pair();
                for host in [&a, &b] {
                    reconcile(&mut host.xfrm(), &host.protected(aead, counted)).unwrap();
                }
                for _ in 0..8 {
                    assert!(passes(&a, &b) && passes(&b, &a), "{aead:?} after {counted}");
                }
                assert_eq!((a.heard(), b.heard()), (vec![ESP; 8], vec![ESP; 8]), "{aead:?}");
                let readings = a.xfrm().read().unwrap();
                assert!(readings.values().all(|reading| reading.packets == 8), "{readings:?}");
                let numbers = |id: &SaId| (readings[id].sent, readings[id].received);
                let [to_b, to_a] = [(b.address, 0x1001), (a.address, 0x1002)]
                    .map(|(address, spi)| SaId { destination: address.into(), spi });
                assert_eq!((numbers(&to_b).0, numbers(&to_a).1), (counted + 8, counted + 8), "{readings:?}");
            }
        }
    });
}

#[test]
fn no_cleartext_passes_a_guarded_port_whatever_is_taken_away() {
    kernel_test(Kernel::Lab, "kernel::no_cleartext_passes_a_guarded_port", || {
        let [mut a, mut b] = Host::pair();
        assert!(passes(&a, &b), "nothing is guarded yet");
        assert_eq!(b.heard(), [UDP]);
        reconcile(&mut b.xfrm(), &b.guards()).unwrap();
        assert!(!passes(&a, &b), "b takes nothing in the clear");
        assert_eq!(b.heard(), [UDP], "it arrived, and was dropped");
        assert!(!passes(&b, &a) && a.heard().is_empty(), "b sends nothing in the clear");
        for host in [&a, &b] {
            reconcile(&mut host.xfrm(), &host.protected(Aead::Aes256Gcm, 0)).unwrap();
        }
        assert!(passes(&a, &b));
        assert_eq!(b.heard(), [ESP]);
        for host in [&a, &b] {
            judge(&host.home, "ip", &["xfrm", "state", "flush"]);
        }
        assert!(!passes(&a, &b) && !passes(&b, &a), "its associations are gone");
        assert!(a.heard().is_empty() && b.heard().is_empty());
    });
}

#[test]
fn a_template_that_is_deleted_leaves_the_port_guarded() {
    kernel_test(Kernel::Lab, "kernel::a_template_that_is_deleted_leaves_the_port_guarded", || {
        let [mut a, mut b] = Host::pair();
        let wanted = [&a, &b].map(|host| host.protected(Aead::Aes128Gcm, 0));
        for (host, wanted) in [&a, &b].into_iter().zip(&wanted) {
            reconcile(&mut host.xfrm(), wanted).unwrap();
        }
        assert!(passes(&a, &b) && passes(&b, &a));
        assert_eq!((a.heard(), b.heard()), (vec![ESP], vec![ESP]));
        for (host, wanted) in [&a, &b].into_iter().zip(&wanted) {
            let only_guards = State { policies: host.guards().policies, sas: wanted.sas.clone() };
            host.xfrm().apply(&wanted.plan(&only_guards)).unwrap();
        }
        assert!(!passes(&a, &b) && !passes(&b, &a));
        assert_eq!((a.heard(), b.heard()), (vec![], vec![]));
    });
}

#[test]
fn an_association_is_neither_replaced_nor_put_back_under_its_key() {
    kernel_test(Kernel::Lab, "kernel::an_association_is_not_put_back_under_its_key", || {
        let [a, _b] = Host::pair();
        let wanted = a.protected(Aead::Aes128Gcm, 0);
        let mut xfrm = a.xfrm();
        reconcile(&mut xfrm, &wanted).unwrap();
        assert!(
            reconcile(&mut xfrm, &a.protected(Aead::Aes128Gcm, 0)).unwrap().is_empty(),
            "adopted: keys are not compared"
        );
        let conflict =
            |failed: ReconcileError| assert!(overlay_core::told(&failed).contains("another SPI"), "{failed}");
        conflict(reconcile(&mut xfrm, &a.protected(Aead::Aes256Gcm, 0)).unwrap_err());
        judge(&a.home, "ip", &["xfrm", "state", "flush"]);
        conflict(reconcile(&mut xfrm, &wanted).unwrap_err());
        let (id, sa) = wanted.sas.iter().next().unwrap();
        let failed = xfrm.apply(&[Step::AddSa(*id, sa.clone())]).unwrap_err();
        assert_eq!(failed.source.kind(), ErrorKind::Conflict);
        assert!(xfrm.observe().unwrap().sas.is_empty());
    });
}

#[test]
fn an_association_that_reaches_its_limits_says_so_and_ends() {
    kernel_test(Kernel::Lab, "kernel::an_association_says_when_it_ends", || {
        let [a, b] = Host::pair();
        reconcile(&mut b.xfrm(), &b.protected(Aead::Aes128Gcm, 0)).unwrap();
        let mut wanted = a.protected(Aead::Aes128Gcm, 0);
        let out = SaId { destination: b.address.into(), spi: 0x1001 };
        let limits = |packets| Limits { packets: Some(packets), ..Limits::default() };
        wanted.sas.get_mut(&out).unwrap().lifetimes = Lifetimes { soft: limits(2), hard: limits(4) };
        reconcile(&mut a.xfrm(), &wanted).unwrap();
        let mut expiries = Expiries::open(&a.home, CLAIM).unwrap();
        let mut unclaimed = Expiries::open(&a.home, Claim { reqids: (1, 99), ..CLAIM }).unwrap();
        let passed = (0..8).filter(|_| passes(&a, &b)).count();
        assert!((2..=4).contains(&passed), "{passed}");
        let [soft, hard] = [false, true].map(|is_gone| Expiry { id: out, is_gone });
        let heard = expiries.drain().unwrap();
        assert_eq!((heard.expiries.first(), heard.expiries.last()), (Some(&soft), Some(&hard)), "{heard:?}");
        assert_eq!(unclaimed.drain().unwrap(), Heard { expiries: vec![], overrun: false });
        assert!(!a.xfrm().observe().unwrap().sas.contains_key(&out));
    });
}

#[test]
fn an_encrypted_vxlan_passes_in_esp_and_in_nothing_else() {
    kernel_test(Kernel::Lab, "kernel::an_encrypted_vxlan_passes_in_esp_only", || {
        let [mut a, mut b] = Host::pair();
        for (host, last) in [(&a, 1), (&b, 2)] {
            reconcile(&mut host.xfrm(), &host.protected(Aead::Aes256Gcm, 0)).unwrap();
            let make = format!(
                "ip link add x0 type vxlan id 4096 local {} remote {} dstport {PORT}; ip addr add 10.9.0.{last}/24 dev x0; ip link set x0 up",
                host.address, host.peer
            );
            judge(&host.home, "sh", &["-ec", &make]);
        }
        judge(&a.home, "ping", &["-c", "5", "-i", "0.2", "-W", "5", "10.9.0.2"]);
        for host in [&mut a, &mut b] {
            // The tap hears the ping within by x0, too: what is left came by the cable.
            let outer: Vec<u8> = host.heard().into_iter().filter(|protocol| *protocol != 1).collect();
            assert!(outer.len() >= 5 && outer.iter().all(|protocol| *protocol == ESP), "{outer:?}");
        }
    });
}

#[test]
fn what_the_kernel_only_asks_for_is_no_association_and_disturbs_nobody_who_reads() {
    kernel_test(Kernel::Lab, "kernel::what_xfrm_only_asks_for_is_no_association", || {
        let [a, b] = Host::pair();
        let wanted = State { sas: [].into(), ..a.protected(Aead::Aes256Gcm, 0) };
        let mut xfrm = a.xfrm();
        reconcile(&mut xfrm, &wanted).unwrap();
        // Who listens is asked for the association that is missing.
        let listen = || Command::new("ip").args(["xfrm", "monitor", "acquire"]).stdout(Stdio::null()).spawn();
        let mut listener = a.home.run(listen).unwrap().unwrap();
        let asked = (0..200).any(|_| {
            assert!(!passes(&a, &b));
            judge(&a.home, "sh", &["-c", "ip xfrm state; sleep 0.05"]).contains("reqid 100")
        });
        let observed = xfrm.observe();
        listener.kill().unwrap();
        listener.wait().unwrap();
        assert!(asked, "the kernel asked nobody");
        assert_eq!(observed.unwrap(), wanted);
        assert!(reconcile(&mut xfrm, &wanted).unwrap().is_empty());
        assert!(xfrm.read().unwrap().is_empty());
    });
}
