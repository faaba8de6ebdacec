//! `lb`: balancing in user space. `lb/maglev-build-{100,1000}`: a table of 65,537 slots among so many replicas; `lb/maglev-pick`: one
//! of 1,000 replicas for a random hash; the yardstick is the crate `maglev`. `lb/flow-hit`: the flow of a random packet of
//! 10⁶ flows, either way, `lb/flow-hit-batch` the same 32 at a time; `lb/line-load`: one load from as many lines of 64 bytes, which
//! is the least that a random flow can cost; `lb/flow-insert`: one of 10⁶ flows into a table that has room for them; the yardstick is a `HashMap` of the same keys. `lb/flow-bytes`: memory for each flow. `lb/nat-rewrite`: one
//! packet of 1,450 bytes, of 512, made to go elsewhere and back; the yardstick copies it. `lb/packet`: the same through a whole
//! balancer with 1,000 flows.

use std::collections::HashMap;
use std::hint::black_box;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant as Clock;

use maglev::{ConsistentHasher as _, Maglev as Yardstick};
use overlay_bench::{Bench, Pace};
use overlay_core::{EndpointId, Instant, Port, Protocol};
use overlay_lb::{
    Balancer, Config, Flow, FlowTable, Maglev, Replica, Service, State, TableSize, Timeouts, Tuple, Verdict, Weight,
    translate,
};

use crate::firewall::must;
use crate::{lb_drain, lb_kernel};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    build(bench, "lb/maglev-build-100", 100)?;
    build(bench, "lb/maglev-build-1000", 1_000)?;
    pick(bench)?;
    flows(bench)?;
    rewrite(bench)?;
    packets(bench)?;
    lb_kernel::run(bench)?;
    lb_drain::run(bench)
}

fn replicas(count: u32) -> Vec<(EndpointId, Weight)> {
    let id = |number: u32| {
        let mut bytes = [7; 16];
        bytes[..4].copy_from_slice(&random(number as usize).to_be_bytes());
        bytes[4..8].copy_from_slice(&number.to_be_bytes());
        EndpointId::from_bytes(bytes)
    };
    (0..count).map(|number| (id(number), Weight::ONE)).collect()
}

fn build(bench: &mut Bench<'_>, name: &'static str, count: u32) -> io::Result<()> {
    let replicas = replicas(count);
    let names: Vec<String> = replicas.iter().map(|(id, _)| id.to_string()).collect();
    bench
        .figure(name, "ms")
        .once(|| (), |()| must(Maglev::new(TableSize::DEFAULT, &replicas).map_err(Into::into)))
        .yardstick_once("crate maglev", || names.clone(), |names| Yardstick::with_capacity(names, 65_537))
        .report()
}

fn pick(bench: &mut Bench<'_>) -> io::Result<()> {
    let replicas = replicas(1_000);
    let ours = must(Maglev::new(TableSize::DEFAULT, &replicas).map_err(Into::into));
    let names = replicas.iter().map(|(id, _)| id.to_string());
    let theirs = Yardstick::with_capacity(names, 65_537);
    bench
        .figure("lb/maglev-pick", "ns")
        .each(|n| _ = black_box(ours.pick(black_box(spread(n)))))
        .yardstick("crate maglev", |n| _ = black_box(theirs.get(&black_box(spread(n)))))
        .report()
}

fn flow(number: u32) -> Flow {
    let client = SocketAddr::from((Ipv4Addr::from(0x0a00_0002 + number / 50_000), 10_000 + (number % 50_000) as u16));
    let replica = SocketAddr::from((Ipv4Addr::from(0x0a80_0002 + random(number as usize) % 1_000), 8_080));
    let vip = SocketAddr::from((Ipv4Addr::new(10, 255, 0, (number % 200) as u8), 80));
    Flow { protocol: Protocol::Tcp, client, vip, replica, alias: client.port(), owner: number % 1_000 }
}

fn packet(number: u32, back: bool) -> Tuple {
    let flow = flow(number);
    match back {
        false => Tuple::new(flow.protocol, flow.client, flow.vip),
        true => Tuple::new(flow.protocol, flow.replica, flow.client),
    }
}

fn flows(bench: &mut Bench<'_>) -> io::Result<()> {
    let count = if bench.pace() == Pace::Quick { 100_000 } else { 1_000_000 };
    let wanted = ["lb/flow-hit", "lb/flow-hit-batch", "lb/flow-insert", "lb/flow-bytes", "lb/line-load"];
    if !wanted.iter().any(|name| bench.wants(name)) {
        return Ok(());
    }
    let now = Instant::from_nanos(1);
    let all: Vec<Flow> = (0..count).map(flow).collect();
    let mut table = FlowTable::new(count as usize, [5; 32]);
    let mut map = HashMap::with_capacity(2 * count as usize);
    fill(&mut table, &all, now);
    all.iter().enumerate().for_each(|(number, _)| map.extend(both(number as u32)));
    let packets: Vec<Tuple> = (0..1 << 18).map(|n| packet(random(n) % count, n % 2 == 1)).collect();
    bench
        .figure("lb/flow-hit", "ns")
        .each(|n| _ = black_box(table.find(&packets[n % packets.len()], now)))
        .yardstick("HashMap", |n| _ = black_box(map.get(&packets[n % packets.len()])))
        .report()?;
    let lines: Vec<[u32; 16]> = (0..count).map(|number| [number; 16]).collect();
    let mut loaded = 0; // where the next is: so each load waits for the one before, as packets do
    bench
        .figure("lb/line-load", "ns")
        .each(|n| loaded = lines[(random(n % packets.len()).wrapping_add(loaded) % count) as usize][0])
        .report()?;
    black_box(loaded);
    let mut found = [None; 32];
    bench
        .figure("lb/flow-hit-batch", "ns")
        .measured(|| {
            timed(packets.len(), || {
                for packets in packets.chunks(32) {
                    table.find_many(packets, &mut found, now);
                    black_box(&found);
                }
            })
        })
        .yardstick_measured("HashMap", || {
            timed(packets.len(), || packets.iter().for_each(|packet| _ = black_box(map.get(packet))))
        })
        .report()?;
    bench.figure("lb/flow-bytes", "bytes").value(table.bytes() as f64 / f64::from(count)).report()?;
    bench
        .figure("lb/flow-insert", "ns")
        .measured(|| {
            table.sweep(table.most(), Instant::FAR_FUTURE, |_, _| {});
            assert!(table.is_empty(), "all are over by then");
            timed(all.len(), || fill(&mut table, &all, now))
        })
        .yardstick_measured("HashMap", || {
            map.clear();
            timed(all.len(), || {
                for (number, flow) in all.iter().enumerate() {
                    map.insert(Tuple::new(flow.protocol, flow.client, flow.vip), number as u32);
                    map.insert(Tuple::new(flow.protocol, flow.replica, flow.client), number as u32);
                }
            })
        })
        .report()
}

fn both(number: u32) -> [(Tuple, u32); 2] {
    [(packet(number, false), number), (packet(number, true), number)]
}

fn fill(table: &mut FlowTable, all: &[Flow], now: Instant) {
    let timeouts = Timeouts::default();
    for flow in all {
        let inserted = table.insert(flow, &timeouts, |_, _| {}, now);
        assert!(inserted.is_ok(), "{inserted:?}");
    }
}

/// Seconds for each of so many operations.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn timed(count: usize, operations: impl FnOnce()) -> f64 {
    let start = Clock::now();
    operations();
    start.elapsed().as_secs_f64() / count as f64
}

/// A TCP packet of 1,450 bytes with right checksums.
fn segment(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(client), SocketAddr::V4(to)) = (client, to) else { return Vec::new() };
    let step = etherparse::PacketBuilder::ipv4(client.ip().octets(), to.ip().octets(), 64);
    let mut bytes = Vec::new();
    let data = [0x5a; 1_410];
    must(step.tcp(client.port(), to.port(), 1, 1_000).ack(1).write(&mut bytes, &data).map_err(Into::into));
    bytes
}

fn rewrite(bench: &mut Bench<'_>) -> io::Result<()> {
    let mut packets: Vec<(Vec<u8>, [Tuple; 2])> = (0..512)
        .map(|number| {
            let Flow { client, vip, replica, .. } = flow(number * 97);
            let ways = [Tuple::new(Protocol::Tcp, client, replica), Tuple::new(Protocol::Tcp, client, vip)];
            (segment(client, vip), ways)
        })
        .collect();
    let copies: Vec<Vec<u8>> = packets.iter().map(|(bytes, _)| bytes.clone()).collect();
    let mut copy = vec![0_u8; 1_450];
    bench
        .figure("lb/nat-rewrite", "ns")
        .each(|n| {
            let (bytes, ways) = &mut packets[n % 512];
            let done = translate(black_box(bytes), &ways[n / 512 % 2]);
            debug_assert!(done.is_ok(), "{done:?}");
            let _ = black_box(done);
        })
        .yardstick("memcpy of 1,450 bytes", |n| black_box(&mut copy).copy_from_slice(black_box(&copies[n % 512])))
        .report()
}

fn packets(bench: &mut Bench<'_>) -> io::Result<()> {
    let mut service = Service::new([Ipv4Addr::new(10, 0, 9, 100).into()]);
    service = service.port(Protocol::Tcp, must(port(80)), must(port(8_080)));
    for (number, (id, weight)) in (2..).zip(replicas(10)) {
        service.replicas.insert(id, Replica::new([Ipv4Addr::new(10, 0, 9, number).into()]).weighing(weight));
    }
    let state = State {
        services: [(must("web".parse().map_err(Into::into)), service)].into_iter().collect(),
        ..State::default()
    };
    let mut balancer = Balancer::new(Config::default(), [3; 32], Instant::ZERO);
    must(balancer.handle_state(Arc::new(state), Instant::ZERO).map_err(Into::into));
    let vip = SocketAddr::from(([10, 0, 9, 100], 80));
    let mut asks: Vec<Vec<u8>> = Vec::new();
    for number in 0..1_000 {
        let client = SocketAddr::from(([10, 0, 9, 50], 20_000 + number));
        let mut first = segment(client, vip);
        first[33] = 2; // SYN; its checksum does not matter here
        let verdict = balancer.handle_packet(&mut first, Instant::ZERO);
        assert!(matches!(verdict, Verdict::Forth { .. }), "{verdict:?}");
        asks.push(segment(client, vip));
    }
    let templates = asks.clone();
    let mut copy = vec![0_u8; 1_450];
    bench
        .figure("lb/packet", "ns")
        .each(|n| {
            let packet = &mut asks[n % 1_000];
            packet[..40].copy_from_slice(&templates[n % 1_000][..40]);
            let _ = black_box(balancer.handle_packet(black_box(packet), Instant::ZERO));
        })
        .yardstick("memcpy of 1,450 bytes", |n| black_box(&mut copy).copy_from_slice(black_box(&templates[n % 1_000])))
        .report()
}

fn port(number: u16) -> crate::firewall::Outcome<Port> {
    Port::new(number).map_err(Into::into)
}

fn random(n: usize) -> u32 {
    (spread(n) >> 32) as u32
}

fn spread(n: usize) -> u64 {
    let n = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}
