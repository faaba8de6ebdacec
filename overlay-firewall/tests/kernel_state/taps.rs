//! A virtual machine's frames come from its monitor as it likes them: what is pinned holds for them too.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Backend as _, IfName, Mac, Mtu, Owner, reconcile};
use overlay_firewall::{
    BridgePort, Content, Firewall, Flow, Frame, Ip, Judge, Packet, Pin, State, Strangers, Transport,
};
use overlay_kernel::link::{self, Dev, Kind, Link, Links, Tap};
use overlay_kernel::testing::judge;
use overlay_kernel::{Namespace, QueueFlags, TapQueue};

use crate::conformance::owner;
use crate::trouble::is_ordinary;
use crate::wire::frame;

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

const fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host)
}

/// A bridge with two taps, behind which two machines are said to be.
fn bridge() -> link::State {
    let mut state = link::State::default();
    let link = |kind, number| Link::new(kind, Mtu::ETHERNET, Mac::new([2, 0, 0, 0, 0, number]));
    let bridge = Dev::home(name("br0"));
    state.links.insert(bridge.clone(), link(Kind::Bridge { multicast_snooping: false }, 1));
    let port = link::BridgePort { learning: false, flood: false, ..link::BridgePort::new(bridge.name) };
    for (number, tap) in [(2, "tap2"), (3, "tap3")] {
        state.links.insert(Dev::home(name(tap)), link(Kind::Tap(Tap::new()), 1 + number).on_bridge(port));
        state.stations.insert((bridge.clone(), Mac::from_ipv4(address(number))), name(tap));
    }
    state
}

const PATIENCE: Duration = Duration::from_secs(10);

/// A machine's end of its tap.
struct Machine(File);

impl Machine {
    fn open(home: &Namespace, tap: &str) -> Self {
        let queue = TapQueue::open(home, name(tap), QueueFlags::default()).unwrap();
        fcntl(&queue, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        while !judge(home, "bridge", &["link", "show", "dev", tap]).contains("state forwarding") {}
        Self(OwnedFd::from(queue).into())
    }

    /// Whether it hears a frame before the one that was sent after it. IP packets may have lost their padding.
    fn hears(&mut self, frame: &[u8], last: &[u8]) -> bool {
        let began = Instant::now();
        let mut buffer = [0; 2048];
        loop {
            match self.0.read(&mut buffer) {
                Ok(len) if frame.starts_with(&buffer[..len]) => return true,
                Ok(len) if last.starts_with(&buffer[..len]) => return false,
                Ok(_) => {} // the bridge speaks for itself now and then
                Err(error) if error.kind() == ErrorKind::WouldBlock && began.elapsed() < PATIENCE => yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_virtual_machine_passes_for_nobody_else_at_its_tap() {
    kernel_test(Kernel::Host, "firewall::a_virtual_machine_passes_for_nobody_else_at_its_tap", || {
        if is_ordinary() {
            return; // who may not open `/dev/net/tun`
        }
        let home = Namespace::create().unwrap();
        let links = Owner::new("firewall-test".parse().unwrap(), "taps".parse().unwrap());
        let mut links = Links::open(&links, home.try_clone().unwrap()).unwrap();
        reconcile(&mut links, &bridge()).unwrap();
        let (mut liar, mut other) = (Machine::open(&home, "tap2"), Machine::open(&home, "tap3"));
        let [own, others, nobodys] = [2, 3, 9].map(|host| Mac::from_ipv4(address(host)));
        let says = |host| Content::Ip(Ip::v4(address(host), address(3), Transport::tcp(1, 80)));
        let tells = |sender, host| Content::Arp { sender, address: address(host), target: address(3) };
        let said = [
            (own, says(2), true),
            (own, tells(own, 2), true),
            (others, says(2), false),
            (nobodys, says(2), false),
            (own, says(3), false),
            (own, says(9), false),
            (own, tells(others, 2), false),
            (own, tells(own, 3), false),
            (nobodys, tells(own, 2), false),
            (own, Content::Other, false),
        ];

        let pin = |host| BridgePort::Pinned(Pin::new(Mac::from_ipv4(address(host)), [address(host).into()]));
        let ports = [(name("tap2"), pin(2)), (name("tap3"), pin(3))].into();
        let pinned = State { ports, strangers: Strangers::Drop, ..State::default() };
        let mut number = 0;
        for (state, all) in [(State::default(), true), (pinned, false)] {
            reconcile(&mut Firewall::of_sandbox(&owner(), home.try_clone().unwrap()).unwrap(), &state).unwrap();
            let judge = Judge::new(&state);
            for (source, content, allowed) in &said {
                let at = Frame { port: name("tap2"), out: Some(name("tap3")), source: *source };
                let packet = Packet::bridged(name("br0"), at, *content);
                let passes = judge.judge(&packet, Flow::New).ruling.passes();
                assert_eq!(passes, all || *allowed, "{packet:?}");
                number += 2;
                let bytes = frame((others, *source), content, Flow::New, number);
                let allowed = frame((others, own), &says(2), Flow::New, number + 1);
                liar.0.write_all(&bytes).unwrap();
                liar.0.write_all(&allowed).unwrap();
                assert_eq!(other.hears(&bytes, &allowed), passes, "{packet:?}");
            }
        }
        assert_eq!(links.observe().unwrap(), bridge());
    });
}
