//! `dns` over sockets: ours beside unbound, knot and dnsmasq, one at a time, with the same 10,000 names. The server has the
//! first core and `dnsperf` the second, in a namespace of their own. Needs root and dnsperf; without, no figure.
//!
//! `socket-*-hit` asks for names that are there, `-nxdomain` for such as are not; `cpu` is the server's processor time for a query.
//! The first yardstick is the fastest peer; a bare echo server is the least that sockets cost. `forward-*` passes each query on to a knot, which shares
//! the second core.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use overlay_bench::{Bench, Pace};
use overlay_core::ErrorKind;
use overlay_kernel::Namespace;

use crate::dns::must;
use crate::dns_servers::{DOMAIN, Duty, Kind, Running, name, query};

const NAMES: usize = 10_000;

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let namespace = match Namespace::create() {
        Err(error) if error.kind() == ErrorKind::Permission => {
            eprintln!("dns: no figures over sockets without root: {error}");
            return Ok(());
        }
        other => other.map_err(io::Error::other)?,
    };
    let is_up = must(namespace.run(|| Command::new("ip").args(["link", "set", "lo", "up"]).status()));
    let has_dnsperf = Command::new("dnsperf").arg("-h").output();
    if is_up.is_err() || has_dnsperf.is_err() {
        eprintln!("SKIPPED the figures over sockets: they need iproute2 and dnsperf");
        return Ok(());
    }
    let world = World::new(namespace, bench.pace());
    let mut servers = world.start(&[Kind::Unbound, Kind::Knot, Kind::Dnsmasq], Duty::Names(NAMES), 5400);
    let speed = |(_, server): &(Kind, Running)| std::cmp::Reverse(world.load(server, "hit").0 as u64);
    servers.sort_by_cached_key(speed);
    servers.extend(world.start(&[Kind::Echo], Duty::Names(NAMES), 5410));
    let ours = world.start(&[Kind::Ours], Duty::Names(NAMES), 5420);
    let [(_, ours)] = &ours[..] else { return Err(io::Error::other("our own server does not answer")) };
    for (qps, cpu, file) in [
        ("dns/socket-qps-hit", "dns/socket-cpu-per-query-hit", "hit"),
        ("dns/socket-qps-nxdomain", "dns/socket-cpu-per-query-nxdomain", "nxdomain"),
    ] {
        compare(bench, (qps, "queries/s"), ours, &servers, |server| world.load(server, file).0)?;
        compare(bench, (cpu, "us"), ours, &servers, |server| world.load(server, file).1)?;
    }
    drop(servers);
    forward(bench, &world)?;
    under_flood(bench, &world)
}

fn compare(
    bench: &mut Bench<'_>,
    (figure, unit): (&'static str, &'static str),
    ours: &Running,
    others: &[(Kind, Running)],
    measure: impl Fn(&Running) -> f64,
) -> io::Result<()> {
    let mut line = bench.figure(figure, unit).measured(|| measure(ours));
    for (kind, server) in others {
        let measure = &measure;
        line = line.yardstick_measured(kind.name(), move || measure(server));
    }
    line.report()
}

fn forward(bench: &mut Bench<'_>, world: &World) -> io::Result<()> {
    let upstream = world.start(&[Kind::Knot, Kind::Unbound], Duty::Names(NAMES), 5430);
    let Some((_, upstream)) = upstream.into_iter().next() else {
        eprintln!("SKIPPED the figures of forwarding: they need knot or unbound");
        return Ok(());
    };
    let on_second = Command::new("taskset").args(["-a", "-c", "-p", "1", &upstream.pid()]).output();
    must(on_second);
    let ours = world.start(&[Kind::Ours], Duty::Forward(upstream.port), 5440);
    let others = world.start(&[Kind::Dnsmasq], Duty::Forward(upstream.port), 5450);
    let [(_, ours)] = &ours[..] else { return Err(io::Error::other("our own server does not answer")) };
    compare(bench, ("dns/forward-qps", "queries/s"), ours, &others, |server| world.load(server, "hit").0)?;
    compare(bench, ("dns/forward-p99", "us"), ours, &others, |server| world.p99(server))
}

/// Our own names while 10⁵ queries a second ask for others, and the upstream server is dead.
fn under_flood(bench: &mut Bench<'_>, world: &World) -> io::Result<()> {
    let dead = must(world.namespace.udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 5460))));
    let ours = world.start(&[Kind::Ours], Duty::Both(NAMES as u16, 5460), 5470);
    let [(_, ours)] = &ours[..] else { return Err(io::Error::other("our own server does not answer")) };
    let is_over = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let flood = must(world.namespace.udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        let (port, is_over) = (ours.port, &is_over);
        let flood = scope.spawn(move || send_flood(&flood, port, is_over));
        let client = must(world.namespace.udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        must(client.set_read_timeout(Some(LOST)));
        let result = bench
            .figure("dns/internal-p99-under-dead-upstream", "us")
            .measured(|| p99((0..1_000).map(|number| now_and_then(&client, ours.port, number)).collect()))
            .report();
        is_over.store(true, Ordering::Relaxed);
        let (sent, taken) = flood.join().unwrap_or_default();
        let rate = sent as f64 / taken.as_secs_f64();
        assert!(rate > 10_000.0, "a flood of {rate:.0} queries a second is none");
        eprintln!("dns: {rate:.0} queries a second for other names meanwhile, for {taken:.1?}");
        result
    });
    drop(dead);
    result
}

/// 10⁵ queries a second, each for another name: a hundred every millisecond.
fn send_flood(socket: &UdpSocket, port: u16, is_over: &AtomicBool) -> (u64, Duration) {
    let (start, mut sent) = (now(), 0_u64);
    while !is_over.load(Ordering::Relaxed) {
        if sent < start.elapsed().as_micros() as u64 / 10 {
            let _ = socket.send_to(&query(sent as u16, &format!("x{sent}.flood.example")), (Ipv4Addr::LOCALHOST, port));
            sent += 1;
        } else {
            std::thread::park_timeout(Duration::from_micros(500));
        }
    }
    (sent, start.elapsed())
}

/// As [`round_trip`], a millisecond after the last: the flood is to last for longer than its questions wait.
fn now_and_then(client: &UdpSocket, port: u16, number: usize) -> f64 {
    std::thread::park_timeout(Duration::from_millis(1));
    round_trip(client, port, number)
}

/// After this a query or its answer is lost, and that counts as its time.
const LOST: Duration = Duration::from_millis(100);

/// Seconds until our own name is answered.
fn round_trip(client: &UdpSocket, port: u16, number: usize) -> f64 {
    let start = now();
    let mut reply = [0; 512];
    must(client.send_to(&query(number as u16, &name(number % NAMES)), (Ipv4Addr::LOCALHOST, port)));
    while !matches!(client.recv(&mut reply), Ok(12..) if reply[..2] == (number as u16).to_be_bytes()) {
        if start.elapsed() > LOST {
            break;
        }
    }
    start.elapsed().as_secs_f64()
}

fn p99(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}

/// A namespace, and files of queries.
struct World {
    namespace: Namespace,
    folder: std::path::PathBuf,
}

impl World {
    fn new(namespace: Namespace, pace: Pace) -> Self {
        let folder = std::env::temp_dir().join(format!("overlay-bench-{}-queries", std::process::id()));
        must(fs::create_dir_all(&folder));
        let count = if pace == Pace::Quick { 20_000 } else { 120_000 };
        let random = |number: usize| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let hit: String = (0..count).map(|number| format!("{} A\n", name(random(number) % NAMES))).collect();
        let none: String = (0..count).map(|number| format!("no{}.{DOMAIN} A\n", random(number) % 1_000_000)).collect();
        must(fs::write(folder.join("hit"), hit));
        must(fs::write(folder.join("nxdomain"), none));
        Self { namespace, folder }
    }

    fn start(&self, kinds: &[Kind], duty: Duty, port: u16) -> Vec<(Kind, Running)> {
        let start = |(kind, port): (&Kind, u16)| Some((*kind, kind.start(&self.namespace, duty, port)?));
        kinds.iter().zip(port..).filter_map(start).collect()
    }

    /// Queries per second, and the server's processor time for each.
    fn load(&self, server: &Running, file: &str) -> (f64, f64) {
        let before = server.cpu();
        let printed = self.dnsperf(server, file, &["-c", "4", "-q", "200"]);
        let spent = server.cpu() - before;
        let after = |label: &str| {
            let rest = printed.split(label).nth(1).unwrap_or_default();
            rest.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        (after("Queries per second:"), spent / after("Queries completed:"))
    }

    /// The time that 99 of 100 queries take at most, at 2,000 a second.
    fn p99(&self, server: &Running) -> f64 {
        let printed = self.dnsperf(server, "hit", &["-c", "1", "-Q", "2000", "-l", "1", "-v"]);
        let taken = printed.lines().filter(|line| line.starts_with("> "));
        p99(taken.filter_map(|line| line.split_whitespace().last()?.parse().ok()).collect())
    }

    fn dnsperf(&self, server: &Running, file: &str, arguments: &[&str]) -> String {
        let file = self.folder.join(file);
        let mut command = Command::new("taskset");
        command
            .args(["-c", "1", "dnsperf", "-t", "1", "-s", "127.0.0.1", "-p", &server.port.to_string(), "-d"])
            .arg(file);
        command.args(arguments);
        if !arguments.contains(&"-l") {
            command.args(["-n", "1"]);
        }
        let output = must(must(self.namespace.run(|| command.output())));
        assert!(output.status.success(), "dnsperf: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    Instant::now()
}
