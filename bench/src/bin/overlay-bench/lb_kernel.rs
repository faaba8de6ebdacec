//! `lb`, second part: virtual services in this machine's kernel, in namespaces of their own. Needs root; without, no figure.
//!
//! `nft-apply-10k`: 10,000 services of five replicas come into an empty namespace; the yardstick is `nft -f` of the same
//! tables. `nft-change-1`: one replica of one of them more, and one less, a whole reconcile with a shadow; `-readback` with all
//! read back. `nft-conn-{1,5000}`: new TCP connections a second to the VIP of the only service, and of one of 5,000; the
//! yardstick is one hand-written rule that translates by `numgen`, and then the only service.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant as Clock};

use overlay_bench::{Bench, Pace};
use overlay_core::{EndpointId, ErrorKind, Lower as _, Owner, Port, Protocol, Shadow, Table, reconcile};
use overlay_kernel::Namespace;
use overlay_lb::kernel::Nftables;
use overlay_lb::{Replica, Service, State};
use socket2::SockRef;

use crate::firewall::{Outcome, must};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    match Namespace::create() {
        Err(error) if error.kind() == ErrorKind::Permission => {
            eprintln!("lb: no figure of the kernel without root: {error}");
            return Ok(());
        }
        other => drop(other.map_err(io::Error::other)?),
    }
    let small = bench.pace() == Pace::Quick;
    apply(bench, if small { 1_000 } else { 10_000 })?;
    change(bench, if small { 1_000 } else { 10_000 })?;
    connections(bench, if small { 500 } else { 5_000 }, if small { 200 } else { 2_000 })?;
    crate::lb_mesh::run(bench)
}

fn apply(bench: &mut Bench<'_>, count: u32) -> io::Result<()> {
    if !bench.wants("lb/nft-apply-10k") {
        return Ok(());
    }
    let wanted = must(services(count));
    let path = std::env::temp_dir().join(format!("overlay-bench-lb-{}.nft", std::process::id()));
    fs::write(&path, must(text(&wanted)))?;
    let place = || must(Namespace::create().map_err(Into::into));
    let opened = || {
        let home = place();
        let table = must(open(&home));
        (home, table)
    };
    let report = bench
        .figure("lb/nft-apply-10k", "ms")
        .once(opened, |(home, mut table)| {
            settle(&mut table, &wanted);
            (home, table)
        })
        .yardstick_once("nft -f", place, |home| {
            let run = || Command::new("nft").arg("-f").arg(&path).stdout(Stdio::null()).status();
            let status = must(home.run(run).map_err(Into::into));
            assert!(status.is_ok_and(|status| status.success()));
            home
        })
        .report();
    fs::remove_file(&path)?;
    report
}

/// The tables of a state as `nft` reads them: it looks a computed number up only where the type says how it is computed.
fn text(state: &State) -> Outcome<String> {
    let home = Namespace::create()?;
    let tables = open(&home)?.lower(state)?.tables.to_nft(&owner());
    Ok(tables.replace(
        "type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service",
        "typeof ip daddr . meta l4proto . th dport . numgen inc mod 5 : ip daddr . th dport",
    ))
}

fn change(bench: &mut Bench<'_>, count: u32) -> io::Result<()> {
    let wanted = ["lb/nft-change-1", "lb/nft-change-1-readback"];
    if !wanted.iter().any(|name| bench.wants(name)) {
        return Ok(());
    }
    let home = must(Namespace::create().map_err(Into::into));
    let before = must(services(count));
    let mut after = before.clone(); // as who keeps a state makes the next
    let one = after.services.get_mut(format!("s{}", count / 2).as_str());
    one.into_iter().for_each(|one| drop(one.replicas.pop_last()));
    let mut spare = after.clone(); // the class of four replicas is there already, as it is among many services
    let other = spare.services.get_mut("s7");
    other.into_iter().for_each(|one| drop(one.replicas.pop_last()));
    let mut from = before;
    let other = from.services.get_mut("s7");
    other.into_iter().for_each(|one| drop(one.replicas.pop_last()));
    let shadow = RefCell::new(Shadow::new(must(open(&home))));
    settle(&mut *shadow.borrow_mut(), &from);
    let mut turns = [&spare, &from].into_iter().cycle();
    bench
        .figure("lb/nft-change-1", "ms")
        .each(|_| turns.next().into_iter().for_each(|next| settle(&mut *shadow.borrow_mut(), next)))
        .report()?;
    let plain = RefCell::new(must(open(&home)));
    let mut turns = [&spare, &from].into_iter().cycle();
    bench
        .figure("lb/nft-change-1-readback", "ms")
        .once(|| turns.next(), |next| next.into_iter().for_each(|next| settle(&mut *plain.borrow_mut(), next)))
        .report()
}

/// So many services of five replicas, at 10.1.0.0 and on.
fn services(count: u32) -> Outcome<State> {
    let mut state = State::default();
    for number in 0..count {
        let mut service = Service::new([Ipv4Addr::from(0x0a01_0000 + number).into()]);
        service = service.port(Protocol::Tcp, Port::new(80)?, Port::new(8_080)?);
        for replica in 0..5_u32 {
            let address = Ipv4Addr::from(0x0a80_0000 + number * 5 + replica);
            let mut id = [0; 16];
            id[..4].copy_from_slice(&(number * 5 + replica).to_be_bytes());
            service.replicas.insert(EndpointId::from_bytes(id), Replica::new([address.into()]));
        }
        state.services.insert(format!("s{number}").parse()?, service);
    }
    Ok(state)
}

fn connections(bench: &mut Bench<'_>, many: u32, count: u32) -> io::Result<()> {
    let wanted = ["lb/nft-conn-1", "lb/nft-conn-5000"];
    if !wanted.iter().any(|name| bench.wants(name)) {
        return Ok(());
    }
    let (one, all, hand) = (must(Road::new()), must(Road::new()), must(Road::new()));
    must(one.serve(1));
    must(all.serve(many));
    must(hand.by_hand());
    let to = |number: u32| SocketAddr::from((Ipv4Addr::from(0x0a01_0000 + number), 80));
    bench
        .figure("lb/nft-conn-1", "connections/s")
        .measured(|| one.rate(to(0), count))
        .yardstick_measured("one numgen rule by hand", || hand.rate(to(0), count))
        .yardstick_measured("no translation", || hand.rate(SERVER, count))
        .report()?;
    bench
        .figure("lb/nft-conn-5000", "connections/s")
        .measured(|| all.rate(to(many - 1), count))
        .yardstick_measured("the only service", || one.rate(to(0), count))
        .yardstick_measured("one numgen rule by hand", || hand.rate(to(0), count))
        .report()
}

/// A client and a server.
struct Road {
    client: Namespace,
    _server: Namespace,
}

impl Road {
    fn new() -> Outcome<Self> {
        let [client, server] = [Namespace::create()?, Namespace::create()?];
        let target = format!("/proc/{}/fd/{}", std::process::id(), server.as_fd().as_raw_fd());
        shell(
            &client,
            &format!(
                "ip link set lo up; ip link add eth0 type veth peer name eth0 netns {target}
                 ip addr add 10.0.9.5/24 dev eth0; ip link set eth0 up"
            ),
        )?;
        shell(&server, "ip link set lo up; ip addr add 10.0.9.2/24 dev eth0; ip link set eth0 up")?;
        let listener = server.run(|| TcpListener::bind("0.0.0.0:8080"))??;
        #[expect(clippy::disallowed_methods, reason = "somebody must accept meanwhile")]
        thread::spawn(move || listener.incoming().for_each(drop));
        Ok(Self { client, _server: server })
    }

    /// The first of these services leads to the server, and so does the last.
    fn serve(&self, count: u32) -> Outcome<()> {
        let mut state = services(count)?;
        for number in [0, count - 1] {
            let service = state.services.get_mut(format!("s{number}").as_str());
            let service = service.ok_or("no service")?;
            service.replicas.clear();
            service.replicas.insert(EndpointId::from_bytes([1; 16]), Replica::new([SERVER.ip()]));
            let own = Ipv4Addr::new(10, 0, 9, 5).into();
            let reached: Vec<_> = service.vips.iter().map(|vip| (*vip, own)).collect();
            state.sources.extend(reached);
        }
        settle(&mut open(&self.client)?, &state);
        Ok(())
    }

    fn by_hand(&self) -> Outcome<()> {
        shell(
            &self.client,
            "ip route add local 10.1.0.0 dev lo src 10.0.9.5
             nft 'add table ip hand; add chain ip hand out { type nat hook output priority -100; }'
             nft 'add rule ip hand out ip daddr 10.1.0.0 tcp dport 80 dnat to numgen inc mod 1 map { 0 : 10.0.9.2 }:8080'",
        )
    }

    /// Connections a second.
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn rate(&self, to: SocketAddr, count: u32) -> f64 {
        let dial = || -> io::Result<f64> {
            let start = Clock::now();
            for _ in 0..count {
                let stream = TcpStream::connect(to)?;
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?; // no port is kept waiting
            }
            Ok(f64::from(count) / start.elapsed().as_secs_f64())
        };
        must(must(self.client.run(dial).map_err(Into::into)).map_err(Into::into))
    }
}

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 9, 2)), 8_080);

fn shell(namespace: &Namespace, script: &str) -> Outcome<()> {
    let status = namespace.run(|| Command::new("sh").args(["-ec", script]).status())??;
    if status.success() { Ok(()) } else { Err(format!("{script}: {status}").into()) }
}

fn open(home: &Namespace) -> Outcome<Nftables> {
    Ok(Nftables::open(&owner(), home.try_clone()?)?)
}

fn settle(table: &mut impl Table<State>, state: &State) {
    must(reconcile(table, state).map_err(|error| overlay_core::told(&error).into()));
}

fn owner() -> Owner {
    let [cluster, instance] = ["bench", "lb"].map(|name| must(str::parse(name).map_err(Into::into)));
    Owner::new(cluster, instance)
}
