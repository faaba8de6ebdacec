//! `firewall`, second part: rules in this machine's kernel, in namespaces of their own. Needs root; without, no figure.
//!
//! `kernel-replace-10k`: a place with 10,000 pinned endpoints and 2,000 published ports becomes one with others, a whole
//! reconcile with a shadow, and with all read back first, as a new process does; the yardstick is `nft -f` of the same
//! tables. `kernel-add-one-of-10k`, `kernel-remove-one-of-10k`: one more endpoint and port there, and one less, a whole
//! reconcile with a shadow, and with all read back. `kernel-forward-5000-ports`: the CPU of one datagram through the last of
//! 5,000 published ports, the yardstick through the only one.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};

use overlay_bench::{Bench, Pace};
use overlay_core::{Backend as _, ErrorKind, Mac, Owner, Port, Protocol, Shadow, Table, reconcile};
use overlay_firewall::{BridgePort, Firewall, Gateway, Pin, Published, State};
use overlay_kernel::Namespace;

use crate::firewall::{Outcome, must};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    match Namespace::create() {
        Err(error) if error.kind() == ErrorKind::Permission => {
            eprintln!("firewall: no figure of the kernel without root: {error}");
            return Ok(());
        }
        other => drop(other.map_err(io::Error::other)?),
    }
    let small = bench.pace() == Pace::Quick;
    let (endpoints, ports) = if small { (1_000, 200) } else { (10_000, 2_000) };
    replace(bench, endpoints, ports)?;
    add_one(bench, endpoints, ports)?;
    forward(bench, if small { 500 } else { 5_000 })
}

fn replace(bench: &mut Bench<'_>, endpoints: u32, ports: u16) -> io::Result<()> {
    let (old, new) = (must(host(endpoints, ports, 0)), must(host(endpoints, ports, 1)));
    let path = std::env::temp_dir().join(format!("overlay-bench-firewall-{}.nft", std::process::id()));
    fs::write(&path, must(text(&new)))?;
    let place = || {
        let home = must(Namespace::create().map_err(Into::into));
        settle(&mut must(open(&home)), &old);
        home
    };
    let shadowed = || {
        let home = must(Namespace::create().map_err(Into::into));
        let mut shadow = Shadow::new(must(open(&home)));
        settle(&mut shadow, &old);
        (home, shadow)
    };
    let feed = |home: Namespace| {
        let run = || Command::new("nft").arg("-f").arg(&path).stdout(Stdio::null()).status();
        let status = must(home.run(run).map_err(Into::into));
        assert!(status.is_ok_and(|status| status.success()));
        home
    };
    let report = bench
        .figure("firewall/kernel-replace-10k", "ms")
        .once(shadowed, |(home, mut shadow)| {
            settle(&mut shadow, &new);
            (home, shadow)
        })
        .yardstick_once("nft -f", place, feed)
        .report();
    let readback = bench
        .figure("firewall/kernel-replace-10k-readback", "ms")
        .once(place, |home| {
            settle(&mut must(open(&home)), &new);
            home
        })
        .yardstick_once("nft -f", place, feed)
        .report();
    fs::remove_file(&path)?;
    report.and(readback)
}

/// The tables of a state as `nft` lists them, to be read by it again.
fn text(state: &State) -> Outcome<String> {
    let home = Namespace::create()?;
    settle(&mut open(&home)?, state);
    let listed = home.run(|| Command::new("nft").args(["list", "ruleset"]).output())??;
    // nft 1.0.6 knows no name for some of what neighbour discovery is about: these few rules are left out for it.
    let listed = String::from_utf8(listed.stdout)?;
    let nameless = |line: &&str| ["@th,", "@nh,"].iter().any(|raw| line.contains(raw));
    let tables: String = listed.lines().filter(|line| !nameless(line)).map(|line| format!("{line}\n")).collect();
    let heads = tables.lines().filter_map(|line| line.strip_prefix("table ")?.strip_suffix(" {"));
    let removed: Vec<String> = heads.map(|head| format!("add table {head}\ndelete table {head}\n")).collect();
    Ok(format!("{}{tables}", removed.concat()))
}

fn add_one(bench: &mut Bench<'_>, endpoints: u32, ports: u16) -> io::Result<()> {
    let home = must(Namespace::create().map_err(Into::into));
    let without = must(host(endpoints, ports, 0));
    let mut with = without.clone(); // as who keeps a state makes the next
    must(endpoint(&mut with, endpoints, 0));
    must(web(&mut with, ports, 0));
    let shadow = RefCell::new(Shadow::new(must(open(&home))));
    let remove = || settle(&mut *shadow.borrow_mut(), &without);
    bench
        .figure("firewall/kernel-add-one-of-10k", "ms")
        .once(remove, |()| settle(&mut *shadow.borrow_mut(), &with))
        .report()?;
    let add = || settle(&mut *shadow.borrow_mut(), &with);
    bench
        .figure("firewall/kernel-remove-one-of-10k", "ms")
        .once(add, |()| settle(&mut *shadow.borrow_mut(), &without))
        .report()?;
    let plain = RefCell::new(must(open(&home)));
    let remove = || settle(&mut *plain.borrow_mut(), &without);
    bench
        .figure("firewall/kernel-add-one-of-10k-readback", "ms")
        .once(remove, |()| settle(&mut *plain.borrow_mut(), &with))
        .report()?;
    bench
        .figure("firewall/kernel-observe-10k", "ms")
        .once(|| (), |()| must(plain.borrow_mut().observe().map_err(Into::into)))
        .report()
}

fn forward(bench: &mut Bench<'_>, ports: u16) -> io::Result<()> {
    let (many, one) = (must(Road::new(ports)), must(Road::new(1)));
    bench
        .figure("firewall/kernel-forward-5000-ports", "ns")
        .each(|_| many.send())
        .yardstick("one port", |_| one.send())
        .report()
}

/// A client, a host with published ports, and the endpoint that the last of them leads to.
struct Road {
    client: UdpSocket,
    _server: UdpSocket,
    _places: [Namespace; 3],
}

impl Road {
    fn new(ports: u16) -> Outcome<Self> {
        let [host, outside, inside] = [Namespace::create()?, Namespace::create()?, Namespace::create()?];
        let target = format!("/proc/{}/fd/{}", std::process::id(), host.as_fd().as_raw_fd());
        let end =
            |device: &str| format!("ip link set lo up; ip link add eth0 type veth peer name {device} netns {target}");
        shell(&outside, &format!("{}; ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up", end("eth0")))?;
        let route = "ip route add default via 172.18.0.1";
        shell(&inside, &format!("{}; ip addr add 172.18.0.5/24 dev eth0; ip link set eth0 up; {route}", end("ovgw0")))?;
        shell(
            &host,
            "ip addr add 192.0.2.1/24 dev eth0; ip addr add 172.18.0.1/24 dev ovgw0; ip link set eth0 up
             ip link set ovgw0 up; echo 1 > /proc/sys/net/ipv4/ip_forward",
        )?;
        let mut state = State::default();
        state.gateways.insert("ovgw0".parse()?, Gateway::new(["172.18.0.0/24".parse()?]));
        for number in 1..=ports {
            let published = Published::new(Protocol::Udp, Port::new(10_000 + number)?).to("172.18.0.5:80".parse()?);
            state.published.insert(format!("p{number}").parse()?, published);
        }
        settle(&mut open(&host)?, &state);
        let server = inside.run(|| UdpSocket::bind("172.18.0.5:80"))??;
        let client = outside.run(|| UdpSocket::bind("192.0.2.2:0"))??;
        client.connect(("192.0.2.1", 10_000 + ports))?;
        client.send(b"first")?;
        let mut word = [0; 8];
        server.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
        server.recv(&mut word)?;
        Ok(Self { client, _server: server, _places: [host, outside, inside] })
    }

    fn send(&self) {
        let _full = self.client.send(b"datagram");
    }
}

fn shell(namespace: &Namespace, script: &str) -> Outcome<()> {
    let status = namespace.run(|| Command::new("sh").args(["-ec", script]).status())??;
    if status.success() { Ok(()) } else { Err(format!("{script}: {status}").into()) }
}

/// A host with so many pinned endpoints and published ports; another `variant` has other addresses throughout.
fn host(endpoints: u32, ports: u16, variant: u32) -> Outcome<State> {
    let mut state = State::default();
    state.gateways.insert("ovgw0".parse()?, Gateway::new(["10.0.0.0/8".parse()?]));
    (0..endpoints).try_for_each(|number| endpoint(&mut state, number, variant))?;
    (0..ports).try_for_each(|number| web(&mut state, number, variant))?;
    Ok(state)
}

fn endpoint(state: &mut State, number: u32, variant: u32) -> Outcome<()> {
    let address = address(number, variant);
    let pin = Pin::new(Mac::from_ipv4(address), [address.into()]).isolated();
    state.ports.insert(format!("p-{number}").parse()?, BridgePort::Pinned(pin));
    Ok(())
}

fn web(state: &mut State, number: u16, variant: u32) -> Outcome<()> {
    let published = Published::new(Protocol::Tcp, Port::new(10_000 + number)?);
    let target = (address(number.into(), variant), 80).into();
    state.published.insert(format!("web-{number}").parse()?, published.to(target));
    Ok(())
}

fn address(number: u32, variant: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0002 + variant * 0x10_0000 + number)
}

fn open(home: &Namespace) -> Outcome<Firewall> {
    Ok(Firewall::of_host(&owner(), home.try_clone()?)?)
}

fn settle(table: &mut impl Table<State>, state: &State) {
    must(reconcile(table, state).map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)).into()));
}

fn owner() -> Owner {
    let [cluster, instance] = ["bench", "firewall"].map(|name| must(str::parse(name).map_err(Into::into)));
    Owner::new(cluster, instance)
}
