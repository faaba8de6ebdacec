//! Balancing: packets of anybody's.

use std::sync::Arc;
use std::time::Duration;

use overlay_core::{EndpointId, Instant, Port, Protocol};
use overlay_lb::{Balancer, Config, Replica, Service, State, TableSize, Tuple, Verdict, translate};

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] = &[("lb_packets", packets), ("lb_translate", translated)];

/// A conversation: each packet has its length before it. Whatever they are, the balancer has no more flows than it may, what passes is as it
/// came, and the length stays.
fn packets(bytes: &[u8]) {
    let Some(mut balancer) = balancer() else { return };
    let (mut rest, mut now) = (bytes, Instant::ZERO);
    while let [length, more @ ..] = rest {
        let (packet, after) = more.split_at(usize::from(*length).min(more.len()));
        (rest, now) = (after, now + Duration::from_millis(u64::from(*length) * 10));
        let (mut seen, frame) = (packet.to_vec(), packet.len().is_multiple_of(2));
        let verdict =
            if frame { balancer.handle_frame(&mut seen, now) } else { balancer.handle_packet(&mut seen, now) };
        let passed = verdict == Verdict::Pass;
        assert!(!passed || seen == packet, "what passes is unchanged");
        assert_eq!(seen.len(), packet.len());
        balancer.handle_timeout(now);
        while balancer.poll_transmit().is_some() {}
        assert!(balancer.flows().len() <= 16);
    }
}

fn balancer() -> Option<Balancer> {
    let ports = Port::new(80).ok().zip(Port::new(8080).ok())?;
    let mut service = Service::new(["10.0.9.100".parse().ok()?, "fd00::100".parse().ok()?]);
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        service = service.port(protocol, ports.0, ports.1);
    }
    for number in 2..4_u8 {
        let v6 = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into());
        service
            .replicas
            .insert(EndpointId::from_bytes([number; 16]), Replica::new([[10, 0, 9, number].into(), v6.into()]));
    }
    let config = Config { flows: 16, sources: 4, table: TableSize::SMALL, ..Config::default() };
    let mut balancer = Balancer::new(config, [1; 32], Instant::ZERO);
    let state = State { services: [("web".parse().ok()?, service)].into_iter().collect(), ..State::default() };
    balancer.handle_state(Arc::new(state), Instant::ZERO).ok()?;
    Some(balancer)
}

/// What cannot be translated is left alone; what can is the same again when it is translated back.
fn translated(bytes: &[u8]) {
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        for (from, to) in [("192.0.2.1:7", "198.51.100.9:4000"), ("[2001:db8::1]:7", "[fd00::9]:4000")] {
            let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else { return };
            let mut once = bytes.to_vec();
            if translate(&mut once, &Tuple::new(protocol, from, to)).is_err() {
                assert_eq!(once, bytes);
                continue;
            }
            let mut twice = once.clone();
            let again = translate(&mut twice, &Tuple::new(protocol, from, to));
            assert!(again.is_ok() && twice == once, "to be where it is changes nothing");
        }
    }
}
