//! A host with an uplink to a physical network, and containers.

use std::process::Command;

use overlay_core::{EndpointId, IfName, Mac, Mtu, NsKey, Owner, Shadow, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_link::{Bridge, Inside, LocalNetworks, Macvlan, MacvlanMode, Port, State};

pub(crate) struct Container {
    pub(crate) key: NsKey,
    pub(crate) namespace: Namespace,
}

pub(crate) struct Lab {
    pub(crate) host: Namespace,
    /// A machine on the physical network: 192.0.2.254, 2001:db8::254.
    lan: Namespace,
    pub(crate) containers: Vec<Container>,
}

impl Lab {
    pub(crate) fn new(containers: usize) -> Self {
        let (host, lan) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        let containers = (0..containers).map(|number| {
            let namespace = Namespace::create().unwrap();
            Container { key: namespace.key(format!("c{number}").parse().unwrap()), namespace }
        });
        let lab = Self { containers: containers.collect(), host, lan };
        let proc = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&lab.lan))
        );
        judge(&lab.host, "ip", &["link", "add", "u0", "type", "veth", "peer", "name", "l0", "netns", &proc]);
        judge(
            &lab.host,
            "sh",
            &[
                "-c",
                "ip link set u0 addrgenmode none up; ip addr add 192.0.2.1/24 dev u0; ip addr add 2001:db8::1/64 dev u0 nodad; ip addr add fe80::1/64 dev u0 nodad",
            ],
        );
        judge(
            &lab.lan,
            "sh",
            &[
                "-c",
                "ip link set l0 addrgenmode none up; ip addr add 192.0.2.254/24 dev l0; ip addr add 2001:db8::254/64 dev l0 nodad; ip addr add fe80::254/64 dev l0 nodad",
            ],
        );
        carries(&lab.host, "u0");
        lab
    }

    pub(crate) fn open(&self) -> LocalNetworks {
        let owner = Owner::new("test".parse().unwrap(), "link".parse().unwrap());
        let mut opened = LocalNetworks::open(&owner, self.host.try_clone().unwrap()).unwrap();
        for container in &self.containers {
            opened.reach(container.key.clone(), container.namespace.try_clone().unwrap()).unwrap();
        }
        opened
    }

    pub(crate) fn settle(&self, wanted: &State) {
        reconcile(&mut Shadow::new(self.open()), wanted).unwrap();
        assert!(reconcile(&mut self.open(), wanted).unwrap().is_empty());
    }

    /// All containers on a bridge, 172.30.1.10 and fd00:1::10 up.
    pub(crate) fn bridge(&self, shape: impl FnOnce(Bridge) -> Bridge) -> State {
        let mut bridge = shape(Bridge::new(mac(1, 1), Mtu::ETHERNET));
        bridge.addresses = ["172.30.1.1/24", "fd00:1::1/64"].map(|it| it.parse().unwrap()).into();
        for (number, container) in (10..).zip(&self.containers) {
            let addresses =
                [format!("172.30.1.{number}/24"), format!("fd00:1::{number}/64")].map(|it| it.parse().unwrap());
            let inside = Inside { namespace: container.key.clone(), interface: name("eth0") };
            let port = Port { mac: mac(1, number), addresses: addresses.into(), inside: Some(inside) };
            bridge.ports.insert(name(&format!("lp{number}")), port);
        }
        State { bridges: [(name("lb1"), bridge)].into(), ..State::default() }
    }

    /// So many containers on the physical network, 192.0.2.10 and 2001:db8::10 up.
    pub(crate) fn macvlans(&self, mode: MacvlanMode, count: usize) -> State {
        let mut state = State::default();
        for (number, container) in (10..).zip(&self.containers).take(count) {
            let addresses =
                [format!("192.0.2.{number}/24"), format!("2001:db8::{number}/64")].map(|it| it.parse().unwrap());
            let inside = Inside { namespace: container.key.clone(), interface: name("lan0") };
            let macvlan = Macvlan::new(name("u0"), mac(2, number), inside);
            let macvlan = Macvlan { mode, addresses: addresses.into(), ..macvlan };
            state.macvlans.insert(EndpointId::from_bytes([number; 16]), macvlan);
        }
        state
    }

    /// The machine on the physical network finds the bridge's subnets behind the host.
    pub(crate) fn route_back(&self) {
        const ROUTES: &str = "ip route add 172.30.1.0/24 via 192.0.2.1; ip -6 route add fd00:1::/64 via 2001:db8::1";
        judge(&self.lan, "sh", &["-c", ROUTES]);
    }

    /// The containers' default routes are by the bridge.
    pub(crate) fn default_routes(&self) {
        for container in &self.containers {
            judge(
                &container.namespace,
                "sh",
                &["-c", "ip route add default via 172.30.1.1; ip -6 route add default via fd00:1::1"],
            );
        }
    }

    /// All that the host and the containers show.
    pub(crate) fn whole(&self) -> Vec<String> {
        [&self.host].into_iter().chain(self.containers.iter().map(|it| &it.namespace)).map(whole).collect()
    }
}

/// Waits for a device's carrier, which the kernel notices when it gets to it: before that, nothing is as it stays.
pub(crate) fn carries(namespace: &Namespace, device: &str) {
    let up = format!(
        "for i in $(seq 500); do ip -o link show {device} | grep -q 'state UP' && exit; sleep 0.01; done; exit 1"
    );
    judge(namespace, "sh", &["-c", &up]);
}

pub(crate) fn whole(namespace: &Namespace) -> String {
    const SHOW: &str = "ip -d -o link | sed 's/^[0-9]*: //; s/@if[0-9]*//'; ip -o addr | sed 's/^[0-9]*: //'; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule; bridge fdb";
    judge(namespace, "sh", &["-c", SHOW])
}

/// All forwarding switches but those of devices that come and go.
pub(crate) fn host_switches(host: &Namespace) -> String {
    let show = "cd /proc/sys/net; grep . ipv4/ip_forward ipv4/conf/all/* ipv4/conf/default/* ipv4/conf/u0/* ipv6/conf/all/* ipv6/conf/default/* ipv6/conf/u0/* 2>/dev/null | grep -v stable_secret";
    judge(host, "sh", &["-c", show])
}

pub(crate) fn reaches(from: &Container, to: &str) -> bool {
    let ping = || Command::new("ping").args(["-c1", "-W1", "-n", to]).output().unwrap();
    from.namespace.run(ping).unwrap().status.success()
}

pub(crate) const fn mac(subnet: u8, host: u8) -> Mac {
    Mac::new([0x02, 0x42, 172, 30, subnet, host])
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}
