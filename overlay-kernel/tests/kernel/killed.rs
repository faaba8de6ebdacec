use std::path::Path;
use std::process::Command;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Backend, Mac, Mtu, Name, NsKey, Owner, Phase, Table, Vni, reconcile};
use overlay_kernel::NamespaceDir;
use overlay_kernel::link::{
    BridgePort, Dev, Kind, Link, Links, MAIN_TABLE, Route, RouteKey, Setting, Site, State, Tap, Vxlan,
};
use overlay_kernel::netlink::{Buffers, Flags, Requests, Socket};
use overlay_kernel::nft::{Family, Mark, Set};
use overlay_kernel::testing::{Fate, await_go, judge, kill_at};

use crate::route::{self, NEW, NEW_NEIGHBOUR, Neighbour};
use crate::scratch::Scratch;
use crate::{links, nft, taps};

pub(crate) const DIR: &str = "OVERLAY_KERNEL_TEST_DIR";
/// Set where there is not the time to kill at every boundary: how many to go on each time.
pub(crate) const STRIDE: &str = "OVERLAY_KERNEL_TEST_STRIDE";

#[test]
fn a_name_whose_giver_was_killed_anywhere_can_be_made_and_removed() {
    kernel_test(Kernel::Host, "kernel::a_name_whose_giver_was_killed_anywhere", || {
        let (dir, name) = (Scratch::new("killed"), "victim".parse().unwrap());
        let deaths = everywhere("killed::name_giver", &dir.path, || {
            match dir.open(&name) {
                Ok(namespace) => assert!(namespace.run(|| ()).is_ok()),
                Err(_) => drop(dir.create(&name).unwrap()),
            }
            dir.remove(&name).unwrap();
            assert_eq!(dir.names().unwrap(), []);
        });
        assert!(deaths > 100, "{deaths}");
    });
}

#[test]
fn a_batch_whose_sender_was_killed_anywhere_is_there_up_to_some_request() {
    kernel_test(Kernel::Host, "kernel::a_batch_whose_sender_was_killed_anywhere", || {
        let (dir, name) = (Scratch::new("batch"), "victim".parse().unwrap());
        let namespace = dir.create(&name).unwrap();
        let mut socket = route::socket(&namespace);
        socket.request(&route::device("vx0", "vxlan")).unwrap();
        let mut counts = std::collections::BTreeSet::new();
        everywhere("killed::batch_sender", &dir.path, || {
            let found = socket.dump(&route::neighbours(2), |entry| {
                let ip = entry.attributes(12)?.find(1)?.map(|ip| ip.be32()).transpose()?;
                Ok(ip.map(|ip| ip.wrapping_sub(0x0a40_0000)))
            });
            let mut found: Vec<_> = found.unwrap().into_iter().filter(|number| *number < 500).collect();
            found.sort_unstable();
            assert_eq!(found, (0..found.len() as u32).collect::<Vec<_>>());
            counts.insert(found.len());
            let index = route::index(&mut socket, "vx0").unwrap();
            let mut undo = Requests::default();
            for number in found {
                Neighbour::numbered(index, number, false).add(&mut undo, route::DEL_NEIGHBOUR, Flags::NONE);
            }
            socket.batch(&undo, |_, _| false).unwrap();
        });
        assert!(counts.len() > 2 && counts.contains(&0) && counts.contains(&500), "{counts:?}");
    });
}

#[test]
fn an_apply_killed_anywhere_is_finished_by_one_reconcile_and_removed_without_a_trace() {
    kernel_test(Kernel::Host, "kernel::an_apply_killed_anywhere_is_finished_by_one_reconcile", || {
        // It waits for the kernel to take devices away more than it works.
        std::thread::scope(|scope| {
            (0..WORKERS).for_each(|worker| drop(scope.spawn(move || applies_killed(worker))));
        });
    });
}

const WORKERS: usize = 4;

/// One worker's share of the boundaries at which an apply is killed.
fn applies_killed(worker: usize) {
    let dir = Scratch::new(&format!("apply-{worker}"));
    let names = ["home", "c0"].map(|name| name.parse::<Name>().unwrap());
    let namespaces = names.map(|name| dir.create(&name).unwrap());
    let before = namespaces.each_ref().map(links::whole);
    let wanted = network(namespaces[1].key("c0".parse().unwrap()));
    let deaths = everywhere_in_turn("killed::builder", &dir.path, (worker, WORKERS), || {
        let mut after = links_in(&dir);
        reconcile(&mut after, &wanted).unwrap();
        assert_eq!(links_in(&dir).observe().unwrap(), wanted);
        assert!(reconcile(&mut after, &wanted).unwrap().is_empty());
        reconcile(&mut after, &State::default()).unwrap();
        assert_eq!(namespaces.each_ref().map(links::whole), before);
    });
    assert!(deaths > 100, "{deaths}");
}

#[test]
fn tables_whose_writer_was_killed_anywhere_are_those_of_before_or_after() {
    kernel_test(Kernel::Host, "kernel::nft_tables_whose_writer_was_killed_anywhere", || {
        let (dir, name) = (Scratch::new("nft"), "home".parse::<Name>().unwrap());
        let home = dir.create(&name).unwrap();
        judge(&home, "nft", &["add table inet foreign; add chain inet foreign c"]);
        let before = judge(&home, "nft", &["list", "ruleset"]);
        let [old, new] = tables();
        let mut seen = std::collections::BTreeSet::new();
        let deaths = everywhere("killed::table_writer", &dir.path, || {
            let found = nft::open("killed", &home).observe().unwrap();
            let states = [nft_state(), old.clone(), new.clone()];
            seen.insert(states.iter().position(|state| *state == found).unwrap());
            let mut after = nft::open("killed", &home);
            reconcile(&mut after, &new).unwrap();
            assert_eq!(nft::open("killed", &home).observe().unwrap(), new);
            reconcile(&mut after, &nft_state()).unwrap();
            assert_eq!(judge(&home, "nft", &["list", "ruleset"]), before);
        });
        assert!(deaths > 30 && seen.len() == 3, "{deaths} {seen:?}");
    });
}

fn nft_state() -> overlay_kernel::nft::State {
    overlay_kernel::nft::State::default()
}

/// Two states that differ in every way.
fn tables() -> [overlay_kernel::nft::State; 2] {
    let old = nft::one(Family::Inet, nft::everything());
    let mut new = old.clone();
    let table = new.tables.values_mut().next().unwrap();
    table.sets.insert(nft::name("members"), Set::of([nft::v4(9)]));
    table.sets.insert(nft::name("marks"), Set::map([(80_u16, Mark(8)), (81, Mark(9))]));
    table.chains.get_mut("forward").unwrap().rules.remove(0);
    table.chains.remove("raw");
    [old, new]
}

/// Run as a child by the test of tables.
#[test]
fn table_writer() {
    let Some(path) = std::env::var_os(DIR) else { return };
    let home = NamespaceDir::new(path).open(&"home".parse().unwrap()).unwrap();
    let mut nft = nft::open("killed", &home);
    await_go();
    for state in tables() {
        reconcile(&mut nft, &state).unwrap();
    }
}

/// A network as a node has it: a bridge, a VXLAN device with entries, a container's veth with its address and route.
fn network(container: NsKey) -> State {
    let dev = |name: &str| Dev::home(name.parse().unwrap());
    let far = Dev::far(container, "eth0".parse().unwrap());
    let link = |kind, number| Link::new(kind, Mtu::new(1450).unwrap(), Mac::new([2, 0x42, 0, 0, 0, number]));
    let port = BridgePort::new("br0".parse().unwrap());
    let vxlan = Vxlan::new(Vni::new(4096).unwrap(), Site::Home, [192, 0, 2, 1].into());
    let mut state = State::default();
    state
        .links
        .insert(dev("br0"), Link { ipv4_forwarding: true, ..link(Kind::Bridge { multicast_snooping: false }, 1) });
    state.links.insert(dev("vx0"), link(Kind::Vxlan(vxlan), 2).on_bridge(BridgePort { learning: false, ..port }));
    state.links.insert(dev("ve0"), link(Kind::Veth { peer: far.clone() }, 3).on_bridge(port));
    state.links.insert(far.clone(), link(Kind::Veth { peer: dev("ve0") }, 4));
    if taps::possible() {
        state.links.insert(dev("tap0"), link(Kind::Tap(Tap::new()), 5).on_bridge(port));
    }
    state.addresses.insert((dev("br0"), [10, 0, 9, 1].into()), 24);
    state.addresses.insert((far.clone(), [10, 0, 9, 2].into()), 24);
    let via = Route::Via { device: far.name, gateway: Some([10, 0, 9, 1].into()), source: None, onlink: false };
    let destination = "0.0.0.0/0".parse().unwrap();
    state.routes.insert(RouteKey { site: far.site, table: MAIN_TABLE, destination, metric: 0 }, via);
    for number in 10..20 {
        let mac = Mac::new([2, 0x42, 0, 0, 1, number]);
        state.neighbours.insert((dev("vx0"), [10, 0, 9, number].into()), mac);
        state.forwarding.insert((dev("vx0"), mac), [192, 0, 2, number].into());
    }
    state.flood.insert((dev("vx0"), [192, 0, 2, 10].into()));
    state.settings.insert((Site::Home, Setting::Ipv6Forwarding), true);
    state
}

fn links_in(dir: &NamespaceDir) -> Links {
    let owner = Owner::new("kernel-test".parse().unwrap(), "killed".parse().unwrap());
    let mut links = Links::open(&owner, dir.open(&"home".parse().unwrap()).unwrap()).unwrap();
    let container = dir.open(&"c0".parse().unwrap()).unwrap();
    links.reach(container.key("c0".parse().unwrap()), container).unwrap();
    links
}

/// Run as a child by the test of applies.
#[test]
fn builder() {
    let Some(path) = std::env::var_os(DIR) else { return };
    let dir = NamespaceDir::new(path);
    let mut links = links_in(&dir);
    let wanted = network(dir.open(&"c0".parse().unwrap()).unwrap().key("c0".parse().unwrap()));
    let plan = Table::<State>::plan(&mut links, &wanted).unwrap();
    await_go();
    for phase in Phase::ALL {
        Table::<State>::run(&mut links, &plan, phase).unwrap();
    }
}

/// Run as a child by the test of names.
#[test]
fn name_giver() {
    let Some(path) = std::env::var_os(DIR) else { return };
    await_go();
    let (dir, name) = (NamespaceDir::new(path), "victim".parse().unwrap());
    for _ in 0..2 {
        dir.create(&name).unwrap();
        dir.remove(&name).unwrap();
    }
}

/// Run as a child by the test of batches.
#[test]
fn batch_sender() {
    let Some(path) = std::env::var_os(DIR) else { return };
    let namespace = NamespaceDir::new(path).open(&"victim".parse().unwrap()).unwrap();
    let small = Buffers { send: 8 << 10, receive: 64 << 10 };
    let mut socket =
        namespace.run(|| Socket::with_buffers(overlay_kernel::netlink::Family::Route, small)).unwrap().unwrap();
    let index = route::index(&mut socket, "vx0").unwrap();
    let mut batch = Requests::default();
    for number in 0..500 {
        Neighbour::numbered(index, number, false).add(&mut batch, NEW_NEIGHBOUR, NEW);
    }
    await_go();
    socket.batch(&batch, |_, _| false).unwrap();
}

/// Kills the test `child` at every boundary of a system call, each time afresh, and looks at what it left. Says how
/// many boundaries there are.
pub(crate) fn everywhere(child: &str, path: &Path, after: impl FnMut()) -> usize {
    everywhere_in_turn(child, path, (0, 1), after)
}

/// As [`everywhere`], at the boundaries of one worker of several.
fn everywhere_in_turn(child: &str, path: &Path, (worker, workers): (usize, usize), mut after: impl FnMut()) -> usize {
    let everywhere = if crate::is_thorough() { 1 } else { 16 };
    let stride = std::env::var(STRIDE).map_or(everywhere, |stride| stride.parse().unwrap());
    for boundary in (1 + worker * stride..).step_by(workers * stride) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", child, "--test-threads", "1"]).env(DIR, path);
        let fate = kill_at(&mut command, boundary).unwrap();
        after();
        if let Fate::Finished { code, .. } = fate {
            assert_eq!(code, 0);
            return boundary - 1;
        }
    }
    unreachable!("every process ends")
}
