//! `kernel`: native links held in this machine's kernel, in a namespace of their own. Needs root; without, no figure.
//!
//! One VXLAN device, a neighbour and a forwarding entry for each of 10,000 peers on 100 nodes (1,000 when quick). The
//! yardsticks are what iproute2 takes for the same, its start included. `change-1-of-10k` is a whole reconcile after one
//! peer has moved to another node: from a shadow that a witness proves current, and with everything read back.

use std::cell::RefCell;
use std::error::Error;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use overlay_bench::{Bench, Pace};
use overlay_core::{Backend as _, ErrorKind, Mac, Mtu, Owner, Shadow, Table, Vni, Witness as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::link::{Dev, Kind, Link, Links, Site, State, Vxlan};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let namespace = match Namespace::create() {
        Err(error) if error.kind() == ErrorKind::Permission => {
            eprintln!("kernel: no figures without root: {error}");
            return Ok(());
        }
        other => other.map_err(io::Error::other)?,
    };
    let peers = if bench.pace() == Pace::Quick { 1_000 } else { 10_000 };
    let world = World::new(namespace, peers).map_err(io::Error::other)?;
    apply(bench, &world)?;
    observe(bench, &world)?;
    change(bench, &world)?;
    namespace_run(bench, &world)?;
    crate::kernel_nft::run(bench)
}

fn apply(bench: &mut Bench<'_>, world: &World) -> io::Result<()> {
    let scripts = Scripts::write(&world.wanted)?;
    let links = RefCell::new(world.links());
    let empty = || {
        make(&mut *links.borrow_mut(), &State::default());
        make(&mut *links.borrow_mut(), &world.bare);
    };
    bench
        .figure("kernel/apply-10k-entries", "ms")
        .once(empty, |()| make(&mut *links.borrow_mut(), &world.wanted))
        .yardstick_once("ip -batch, bridge -batch", empty, |()| {
            world.tool("ip", &["-batch", &scripts.neighbours.display().to_string()]);
            world.tool("bridge", &["-batch", &scripts.forwarding.display().to_string()]);
        })
        .report()
}

fn observe(bench: &mut Bench<'_>, world: &World) -> io::Result<()> {
    let mut links = world.links();
    make(&mut links, &world.wanted);
    bench
        .figure("kernel/observe-20k-entries", "ms")
        .once(|| (), |()| must(links.observe()))
        .yardstick_once(
            "bridge fdb show, ip neigh show",
            || (),
            |()| {
                world.tool("bridge", &["fdb", "show"]);
                world.tool("ip", &["neigh", "show"]);
            },
        )
        .report()?;
    must(links.watch());
    assert_eq!(must(links.observe()), world.wanted);
    bench.figure("kernel/witness", "us").each(|_| assert!(must(links.undisturbed()))).report()
}

fn change(bench: &mut Bench<'_>, world: &World) -> io::Result<()> {
    let mut moved = world.wanted.clone();
    moved.forwarding.values_mut().skip(500).take(1).for_each(|vtep| *vtep = node(201).into());
    let mut shadow = Shadow::new(world.links());
    let mut turns = [&moved, &world.wanted].into_iter().cycle();
    let mut next = || turns.next().unwrap_or(&world.wanted);
    make(&mut shadow, &world.wanted);
    bench.figure("kernel/change-1-of-10k", "ms").each(|_| make(&mut shadow, next())).report()?;
    let mut links = shadow.into_inner();
    bench.figure("kernel/change-1-of-10k-readback", "ms").each(|_| make(&mut links, next())).report()
}

fn namespace_run(bench: &mut Bench<'_>, world: &World) -> io::Result<()> {
    bench
        .figure("kernel/namespace-run", "us")
        .each(|_| must(world.namespace.run(|| ())))
        .yardstick("thread spawn, join", |_| std::thread::scope(|scope| drop(scope.spawn(|| ()).join())))
        .report()
}

/// A namespace, the device alone, and the device with its entries.
struct World {
    namespace: Namespace,
    bare: State,
    wanted: State,
}

impl World {
    fn new(namespace: Namespace, peers: u16) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let device = Dev::home("vx0".parse()?);
        let vxlan = Vxlan::new(Vni::new(4096)?, Site::Home, node(1).into());
        let link = Link::new(Kind::Vxlan(vxlan), Mtu::new(1450)?, Mac::new([2, 0, 0, 0, 0, 1]));
        let bare = State { links: [(device.clone(), link)].into(), ..State::default() };
        let mut wanted = bare.clone();
        for peer in 2..peers + 2 {
            let [high, low] = peer.to_be_bytes();
            let address = Ipv4Addr::new(10, 0, high, low);
            let mac = Mac::from_ipv4(address);
            wanted.neighbours.insert((device.clone(), address.into()), mac);
            wanted.forwarding.insert((device.clone(), mac), node((2 + peer % 100) as u8).into());
        }
        Ok(Self { namespace, bare, wanted })
    }

    fn links(&self) -> Links {
        let [cluster, instance] = ["bench", "kernel"].map(|name| must(name.parse()));
        must(Links::open(&Owner::new(cluster, instance), must(self.namespace.try_clone())))
    }

    /// Runs a tool there and throws away what it prints.
    fn tool(&self, program: &str, arguments: &[&str]) {
        let run = || Command::new(program).args(arguments).stdout(Stdio::null()).status();
        let status = must(must(self.namespace.run(run)));
        assert!(status.success(), "{program} {arguments:?}: {status}");
    }
}

const fn node(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// The entries as iproute2 reads them, in files that go with this value.
struct Scripts {
    neighbours: PathBuf,
    forwarding: PathBuf,
}

impl Scripts {
    fn write(state: &State) -> io::Result<Self> {
        let file = |name| std::env::temp_dir().join(format!("overlay-bench-{}-{name}", std::process::id()));
        let scripts = Self { neighbours: file("neighbours"), forwarding: file("forwarding") };
        let neighbours: String = state.neighbours.iter().map(neighbour_line).collect();
        let forwarding: String = state.forwarding.iter().map(forwarding_line).collect();
        fs::write(&scripts.neighbours, neighbours)?;
        fs::write(&scripts.forwarding, forwarding)?;
        Ok(scripts)
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.neighbours);
        let _ = fs::remove_file(&self.forwarding);
    }
}

fn neighbour_line(((dev, address), mac): (&(Dev, IpAddr), &Mac)) -> String {
    format!("neigh replace {address} lladdr {mac} dev {dev} nud permanent\n")
}

fn forwarding_line(((dev, mac), vtep): (&(Dev, Mac), &IpAddr)) -> String {
    format!("fdb replace {mac} dev {dev} dst {vtep} self permanent\n")
}

fn make(links: &mut impl Table<State>, wanted: &State) {
    must(reconcile(links, wanted));
}

/// A figure of something that failed is none.
fn must<T, E: Error>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}: {:?}", error.source()))
}
