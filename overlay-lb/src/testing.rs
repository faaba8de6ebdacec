//! Proptest strategies for this crate's values (feature `testing`).

#![expect(clippy::expect_used, reason = "the texts and numbers are fixed")]

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use overlay_core::{EndpointId, IfName, Mac, Name, Port, Protocol};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::{Affinity, Arrivals, Bind, Condition, Replica, Scheduler, Service, State, Timeouts, Weight};

/// What of a service a state may have: all that there is, or less for a backend that can do less.
#[derive(Debug, Clone)]
pub struct Wants {
    /// Schedulers.
    pub schedulers: Vec<Scheduler>,
    /// Affinity.
    pub affinity: bool,
    /// Timeouts, of each service its own.
    pub timeouts: bool,
    /// Services at all ports.
    pub all_ports: bool,
    /// Services at the machine's own addresses, and flows that arrive from such elsewhere.
    pub published: bool,
}

impl Default for Wants {
    fn default() -> Self {
        Self { schedulers: Scheduler::ALL.to_vec(), affinity: true, timeouts: true, all_ports: true, published: true }
    }
}

/// States that pass their check, small and alike enough that two of them differ in every way a plan can meet.
pub fn state() -> impl Strategy<Value = State> {
    state_of(Wants::default())
}

/// The same with no more than what is wanted.
pub fn state_of(wants: Wants) -> impl Strategy<Value = State> {
    let published = wants.published;
    (btree_map(1_u8..6, service(wants), 0..5), arrivals()).prop_map(move |(drawn, arrivals)| {
        let mut state = State { arrivals: arrivals.filter(|_| published), ..State::default() };
        for (number, draw) in drawn {
            let (local, service) = (draw.local, draw.service(number));
            let own = |vip: &IpAddr| draw_addresses(10, 1).into_iter().find(|own| own.is_ipv4() == vip.is_ipv4());
            let sources = service.vips.iter().filter(|_| local).filter_map(|vip| Some((*vip, own(vip)?)));
            state.sources.extend(sources);
            state.services.insert(name(number), service);
        }
        state
    })
}

fn arrivals() -> impl Strategy<Value = Option<Arrivals>> {
    let marks = btree_map(1_u8..4, 1_u32..3, 0..3);
    let inside = proptest::sample::subsequence(&INSIDE[..], 0..=INSIDE.len());
    option::of((any::<bool>(), marks, vec(any::<bool>(), 2), inside)).prop_map(|drawn| {
        let (other, marks, answers, inside) = drawn?;
        let inside = inside.into_iter().map(|net| net.parse().expect("a network")).collect();
        let interface = IfName::new(if other { "eth1" } else { "eth0" }).expect("a short name");
        let marks = marks.into_iter().map(|(host, mark)| (Mac::from_ipv4([10, 0, 11, host].into()), mark)).collect();
        let pairs = draw_addresses(11, 20).into_iter().zip(draw_addresses(12, 20)).zip(answers);
        let answers = pairs.filter(|(_, has)| *has).map(|(pair, _)| pair).collect();
        Some(Arrivals { interface, marks, answers, inside })
    })
}

/// Some beside each other, some in others.
const INSIDE: [&str; 6] =
    ["10.0.12.128/25", "10.0.13.0/24", "10.0.13.7/32", "10.0.14.0/24", "fd00:0:0:d::/64", "fd00:0:0:d::7/128"];

#[derive(Debug, Clone)]
struct Draw {
    families: u8,
    named: bool,
    ports: Vec<Option<(Protocol, u16)>>,
    scheduler: Scheduler,
    affinity: Option<u8>,
    timeouts: Option<u8>,
    local: bool,
    published: bool,
    bind: u8,
    masquerade: bool,
    sources: Vec<&'static str>,
    replicas: Vec<Option<(u16, Condition)>>,
}

fn service(wants: Wants) -> impl Strategy<Value = Draw> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let condition = prop_oneof![
        3 => Just(Condition::Active), 1 => Just(Condition::Draining), 1 => Just(Condition::Down),
    ];
    let weight = prop_oneof![3 => Just(1_u16), 2 => 1_u16..5, 1 => any::<u16>().prop_map(|it| it.max(1))];
    let ports = vec(option::of((protocol, 8080_u16..8083)), 3);
    let many = prop_oneof![4 => 4_usize..5, 1 => 20_usize..24];
    let replicas = many.prop_flat_map(move |many| vec(option::of((weight.clone(), condition.clone())), many));
    let scheduler = proptest::sample::select(wants.schedulers);
    let rest = (option::of(1_u8..3), option::of(1_u8..3), any::<bool>(), any::<bool>());
    let access = (0_u8..6, any::<bool>(), proptest::sample::subsequence(&INSIDE[..], 0..=3));
    (0_u8..3, any::<bool>(), ports, scheduler, (rest, access), replicas).prop_map(
        move |(families, named, ports, scheduler, ((affinity, timeouts, local, published), access), replicas)| Draw {
            families,
            named: named || !wants.all_ports,
            ports,
            scheduler,
            affinity: affinity.filter(|_| wants.affinity),
            timeouts: timeouts.filter(|_| wants.timeouts),
            local,
            published: published && wants.published,
            bind: access.0,
            masquerade: access.1,
            sources: access.2,
            replicas,
        },
    )
}

impl Draw {
    /// The service of this number; 1 and 2 share a VIP, on ports of their own.
    fn service(self, number: u8) -> Service {
        let vip = if number == 2 { 1 } else { number };
        let published = self.published && number > 2;
        let mut service = Service::new(self.of_families(9, vip).filter(|_| !published));
        for (at, (protocol, target)) in (80_u16..).zip(&self.ports).filter_map(|(at, port)| Some((at, (*port)?))) {
            if self.named || number <= 2 || published {
                service = service.port(protocol, port(at + 10 * u16::from(number)), port(target));
            }
        }
        if number <= 2 || self.named || published {
            service = service.port(Protocol::Tcp, port(200 + u16::from(number)), port(80));
        }
        if published {
            service.bind = bind(self.bind);
            service.masquerade = self.masquerade;
            service.sources = self.sources.iter().map(|net| net.parse().expect("a network")).collect();
        }
        service.scheduler = self.scheduler;
        service.affinity = self
            .affinity
            .filter(|_| !published)
            .map(|it| Affinity { timeout: Duration::from_secs(u64::from(it) * 30) });
        service.timeouts =
            self.timeouts.map(|it| Timeouts { datagram: Duration::from_secs(u64::from(it)), ..Timeouts::default() });
        for (at, (weight, condition)) in (2_u8..).zip(&self.replicas).filter_map(|(at, it)| Some((at, (*it)?))) {
            let weight = Weight::new(weight).unwrap_or(Weight::ONE);
            let replica = Replica::new(self.of_families(10, at)).weighing(weight).being(condition);
            service.replicas.insert(EndpointId::from_bytes([at; 16]), replica);
        }
        service
    }

    fn of_families(&self, subnet: u8, host: u8) -> impl Iterator<Item = IpAddr> + use<> {
        let families = self.families;
        draw_addresses(subnet, host).into_iter().filter(move |it| families == 2 || it.is_ipv4() == (families == 0))
    }
}

fn bind(draw: u8) -> Bind {
    match draw {
        0 => Bind::Addresses(draw_addresses(11, 20).into()),
        1 => Bind::Addresses([[10, 0, 11, 21].into()].into()),
        2 => Bind::Interfaces(["eth0", "eth1"].map(|it| IfName::new(it).expect("a short name")).into()),
        _ => Bind::Any,
    }
}

fn draw_addresses(subnet: u8, host: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, subnet.into(), 0, 0, 0, host.into());
    [[10, 0, subnet, host].into(), v6.into()]
}

fn name(number: u8) -> Name {
    Name::new(&format!("s{number}")).expect("a short name")
}

fn port(number: u16) -> Port {
    Port::new(number).expect("not 0")
}
