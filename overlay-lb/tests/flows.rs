//! The flow table, held against a plain list.

use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::{Instant, Protocol};
use overlay_lb::{Flow, FlowId, FlowTable, Signal, Stage, TableError, Timeouts, Tuple, Way};
use proptest::collection::vec;
use proptest::prelude::*;

/// As slow as it is simple.
struct Model {
    most: usize,
    flows: Vec<(FlowId, Flow, Stage, [bool; 2], Instant)>,
}

fn tuples(flow: &Flow) -> [(Tuple, Way); 2] {
    let alias = SocketAddr::new(flow.client.ip(), flow.alias);
    [
        (Tuple::new(flow.protocol, flow.client, flow.vip), Way::Forth),
        (Tuple::new(flow.protocol, flow.replica, alias), Way::Back),
    ]
}

fn idle(protocol: Protocol, stage: Stage) -> Duration {
    match (protocol, stage) {
        (Protocol::Udp, _) => TIMEOUTS.datagram,
        (_, Stage::Established) => TIMEOUTS.established,
        _ => TIMEOUTS.transitory,
    }
}

impl Model {
    fn find(&self, tuple: &Tuple, now: Instant) -> Option<(FlowId, Way)> {
        let of = |(id, flow, _, _, until): &(FlowId, Flow, _, _, Instant)| {
            let way = tuples(flow).iter().find(|(it, _)| it == tuple).map(|(_, way)| (*id, *way))?;
            (*until >= now).then_some(way)
        };
        self.flows.iter().find_map(of)
    }

    fn verdict(&self, flow: &Flow, now: Instant) -> Result<(), TableError> {
        let [(forth, _), (back, _)] = tuples(flow);
        let ours = |tuple: &Tuple| self.find(tuple, now).is_some();
        match (ours(&forth), ours(&back)) {
            (true, _) => Err(TableError::Known),
            (_, true) => Err(TableError::Ambiguous),
            _ => {
                let over = self.flows.iter().filter(|it| {
                    it.4 < now && tuples(&it.1).iter().any(|(tuple, _)| *tuple == forth || *tuple == back)
                });
                if self.flows.len() - over.count() < self.most { Ok(()) } else { Err(TableError::Full) }
            }
        }
    }

    fn note(&mut self, (id, way): (FlowId, Way), signal: Signal, now: Instant) {
        let Some((_, flow, stage, closed, until)) = self.flows.iter_mut().find(|it| it.0 == id) else { return };
        if signal == Signal::End {
            closed[usize::from(way == Way::Back)] = true;
        }
        if signal == Signal::Abort || (signal == Signal::End && *closed == [true; 2]) {
            *stage = Stage::Closing;
        } else if way == Way::Back && *stage == Stage::Opening {
            *stage = Stage::Established;
        }
        *until = now + idle(flow.protocol, *stage);
    }
}

const TIMEOUTS: Timeouts = Timeouts {
    established: Duration::from_secs(100),
    transitory: Duration::from_secs(10),
    datagram: Duration::from_secs(30),
};

#[derive(Debug, Clone)]
enum Deed {
    Insert(Flow),
    Find(Flow, bool),
    Note(Flow, bool, Signal),
    Remove(Flow),
    Wait(u64),
    Sweep(usize),
}

fn flow() -> impl Strategy<Value = Flow> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    (protocol, any::<bool>(), 1_u8..4, 1_u16..4, 1_u8..3, 1_u8..4).prop_map(
        |(protocol, v6, client, port, vip, replica)| {
            let end = |kind: u16, host: u8, port: u16| -> SocketAddr {
                let ip = if v6 {
                    [0xfd00, 0, 0, kind, 0, 0, 0, host.into()].into()
                } else {
                    std::net::IpAddr::from([10, 0, kind as u8, host])
                };
                SocketAddr::new(ip, port)
            };
            let (client, vip, replica) = (end(1, client, port), end(2, vip, 80), end(3, replica, 8080));
            Flow { protocol, client, vip, replica, alias: port, owner: u32::from(host(replica)) << 16 }
        },
    )
}

fn host(of: SocketAddr) -> u8 {
    match of.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(ip) => ip.octets()[15],
    }
}

fn deed() -> impl Strategy<Value = Deed> {
    let signal = prop_oneof![Just(Signal::Begin), Just(Signal::More), Just(Signal::End), Just(Signal::Abort)];
    prop_oneof![
        4 => flow().prop_map(Deed::Insert),
        2 => (flow(), any::<bool>()).prop_map(|(flow, back)| Deed::Find(flow, back)),
        3 => (flow(), any::<bool>(), signal).prop_map(|(flow, back, signal)| Deed::Note(flow, back, signal)),
        1 => flow().prop_map(Deed::Remove),
        // Never within a quarter of a second of a deadline, which is as exact as the table is.
        1 => (1_u64..20).prop_map(|it| Deed::Wait(it * 7)),
        1 => (0_usize..40).prop_map(Deed::Sweep),
    ]
}

proptest! {
    #[test]
    fn a_flow_table_does_what_a_plain_list_does(deeds in vec(deed(), 1..150), seed: [u8; 32], most in 1_usize..40) {
        let mut table = FlowTable::new(most, seed);
        let mut model = Model { most, flows: Vec::new() };
        let mut now = Instant::ZERO;
        for deed in deeds {
            // Deadlines fall on whole seconds after a start that is between two.
            match deed {
                Deed::Insert(flow) => {
                    let expected = model.verdict(&flow, now);
                    let mut gone = Vec::new();
                    let inserted = table.insert(&flow, &TIMEOUTS, |flow, stage| gone.push((flow, stage)), now);
                    prop_assert_eq!(inserted.map(drop), expected);
                    for (flow, stage) in gone {
                        let at = model.flows.iter().position(|it| it.1 == flow && it.2 == stage && it.4 < now).unwrap();
                        model.flows.swap_remove(at);
                    }
                    if let Ok(id) = inserted {
                        model.flows.push((id, flow, Stage::Opening, [false; 2], now + idle(flow.protocol, Stage::Opening)));
                    }
                }
                Deed::Find(flow, back) => {
                    let (tuple, _) = tuples(&flow)[usize::from(back)];
                    prop_assert_eq!(table.find(&tuple, now), model.find(&tuple, now));
                }
                Deed::Note(flow, back, signal) => {
                    let (tuple, _) = tuples(&flow)[usize::from(back)];
                    if let Some(found) = model.find(&tuple, now) {
                        let before = table.stage(found.0);
                        let changed = table.note(found, signal, &TIMEOUTS, now);
                        model.note(found, signal, now);
                        let after = model.flows.iter().find(|it| it.0 == found.0).map(|it| it.2);
                        prop_assert_eq!(table.stage(found.0), after);
                        prop_assert_eq!(changed, after.filter(|_| before != after));
                    }
                }
                Deed::Remove(flow) => {
                    if let Some(at) = model.flows.iter().position(|it| it.1 == flow) {
                        let (id, flow, ..) = model.flows.swap_remove(at);
                        prop_assert_eq!(table.remove(id), Some(flow));
                        prop_assert_eq!(table.remove(id), None);
                    }
                }
                Deed::Wait(seconds) => now += Duration::from_millis(seconds * 1000 + 350),
                Deed::Sweep(count) => {
                    let mut gone = Vec::new();
                    table.sweep(count, now, |flow, _| gone.push(flow));
                    for flow in gone {
                        let at = model.flows.iter().position(|it| it.1 == flow && it.4 < now).unwrap();
                        model.flows.swap_remove(at);
                    }
                }
            }
            prop_assert_eq!(table.len(), model.flows.len());
        }
        let all: Vec<Tuple> = model.flows.iter().flat_map(|it| tuples(&it.1)).map(|(tuple, _)| tuple).collect();
        let mut found = vec![None; all.len()];
        table.find_many(&all, &mut found, now);
        for (tuple, found) in all.iter().zip(found) {
            prop_assert_eq!(found, model.find(tuple, now));
        }
        let (mut kept, mut listed): (Vec<_>, Vec<_>) = (model.flows.iter().map(|it| it.0).collect(), table.flows().map(|it| it.0).collect());
        kept.sort();
        listed.sort();
        prop_assert_eq!(kept, listed);
        table.sweep(most, now + Duration::from_secs(1000), |_, _| {});
        prop_assert!(table.is_empty());
    }
}

#[test]
fn a_full_table_says_so_and_has_room_again_when_one_goes() {
    let flow = |port: u16| Flow {
        protocol: Protocol::Udp,
        client: SocketAddr::from(([10, 0, 0, 1], port)),
        vip: "10.0.0.9:53".parse().unwrap(),
        replica: "10.0.0.2:53".parse().unwrap(),
        alias: port,
        owner: 1,
    };
    let mut table = FlowTable::new(1000, [3; 32]);
    let bytes = table.bytes();
    let ids: Vec<_> =
        (1..=1000).map(|it| table.insert(&flow(it), &TIMEOUTS, |_, _| {}, Instant::ZERO).unwrap()).collect();
    assert_eq!(table.insert(&flow(1001), &TIMEOUTS, |_, _| {}, Instant::ZERO), Err(TableError::Full));
    assert_eq!(table.remove(ids[500]), Some(flow(501)));
    assert!(table.insert(&flow(1001), &TIMEOUTS, |_, _| {}, Instant::ZERO).is_ok());
    assert_eq!((table.bytes(), table.len(), table.most()), (bytes, 1000, 1000));
    assert!(bytes <= 1000 * 64 + 4096 * 4, "{bytes}");
}
