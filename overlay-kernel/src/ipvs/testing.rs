//! Proptest strategies for native services (feature `testing`).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use overlay_core::{IpFamily, Protocol};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::{Destination, Forward, Key, Options, Scheduler, Service, Setting, State, Timeouts};

/// States that pass their check and that a kernel can hold, small and alike enough that two of them differ in every way a plan
/// can meet.
pub fn state() -> impl Strategy<Value = State> {
    let services = vec(option::of(service()), 6);
    let timeouts = prop_oneof![Just(Timeouts::default()), Just(Timeouts { tcp: 77, tcp_fin: 8, udp: 9 })];
    let settings = btree_map(proptest::sample::select(Setting::ALL.to_vec()), Just(()), 0..4);
    (services, timeouts, settings).prop_map(|(services, timeouts, settings)| State {
        services: keys().into_iter().zip(services).filter_map(|(key, draw)| Some((key, draw?.service(key)))).collect(),
        timeouts,
        settings: settings.into_keys().map(|setting| (setting, 1 - setting.default_value())).collect(),
    })
}

fn keys() -> [Key; 6] {
    let at = |protocol, subnet: IpFamily, port| Key::At { protocol, at: SocketAddr::new(address(subnet, 100), port) };
    [
        at(Protocol::Tcp, IpFamily::V4, 80),
        at(Protocol::Udp, IpFamily::V4, 80),
        at(Protocol::Tcp, IpFamily::V6, 80),
        at(Protocol::Sctp, IpFamily::V4, 81),
        Key::Mark { mark: 7, family: IpFamily::V4 },
        Key::Mark { mark: 7, family: IpFamily::V6 },
    ]
}

fn address(family: IpFamily, host: u8) -> IpAddr {
    match family {
        IpFamily::V4 => [10, 0, 9, host].into(),
        IpFamily::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into(),
    }
}

#[derive(Debug, Clone)]
struct Draw {
    options: Options,
    destinations: Vec<Option<(Forward, u32, bool)>>,
}

impl Draw {
    fn service(self, key: Key) -> Service {
        let drawn = (2_u8..).zip(self.destinations).filter_map(|(host, draw)| Some((host, draw?)));
        let destinations = drawn.map(|(host, (forward, weight, other))| {
            let same = match key {
                Key::At { at, .. } => at.port(),
                Key::Mark { .. } => 0,
            };
            let port = if forward == Forward::Translate && other && same != 0 { 8080 } else { same };
            (SocketAddr::new(address(key.family(), host), port), Destination { forward, weight })
        });
        Service { options: self.options, destinations: destinations.collect() }
    }
}

fn service() -> impl Strategy<Value = Draw> {
    let schedulers = [
        Scheduler::RoundRobin,
        Scheduler::WeightedRoundRobin,
        Scheduler::LeastConnection,
        Scheduler::WeightedLeastConnection,
        Scheduler::SourceHash,
        Scheduler::Maglev { by_port: false },
        Scheduler::Maglev { by_port: true },
    ];
    let options = (proptest::sample::select(schedulers.to_vec()), option::weighted(0.3, 60_u32..62));
    let options = options.prop_map(|(scheduler, persistence)| Options { scheduler, persistence });
    let forward = prop_oneof![4 => Just(Forward::Translate), 1 => Just(Forward::Direct)];
    let destinations = vec(option::of((forward, 0_u32..3, any::<bool>())), 3);
    (options, destinations).prop_map(|(options, destinations)| Draw { options, destinations })
}
