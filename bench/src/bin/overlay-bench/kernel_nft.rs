//! `kernel`, second part: native tables held in this machine's kernel, in a namespace of their own.
//!
//! One map from virtual addresses and ports to real ones, of 10,000 elements and of 160,000 (1,000 and 16,000 when quick), a
//! chain that translates by it and one that filters. The yardstick is `nft -f` of a text that does the same, its start
//! included. `nft-change-one-of-10k` is a whole reconcile after one element has changed: from a shadow that a witness proves
//! current, and with everything read back.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use overlay_bench::{Bench, Pace};
use overlay_core::{Backend as _, Owner, Shadow, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::nft::{
    Base, Chain, CtState, Family, Hook, IpProtocol, Mark, Nft, Rule, Set, State, Table, TableKey, ip, jhash, meta, th,
};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let namespace = Namespace::create().map_err(io::Error::other)?;
    let small = if bench.pace() == Pace::Quick { 1_000 } else { 10_000 };
    replace(bench, &namespace, small)?;
    change(bench, &namespace, small)?;
    load(bench, &namespace, small * 16)
}

fn replace(bench: &mut Bench<'_>, namespace: &Namespace, elements: u32) -> io::Result<()> {
    let states = [balanced(elements, 0), balanced(elements, 1)];
    let texts = Texts::write(&states)?;
    let nft = RefCell::new(open(namespace));
    let turn = RefCell::new(0_usize);
    let next = || {
        *turn.borrow_mut() += 1;
        *turn.borrow() % 2
    };
    make(&mut *nft.borrow_mut(), &states[0]);
    bench
        .figure("kernel/nft-replace-10k-elements", "ms")
        .once(next, |turn| make(&mut *nft.borrow_mut(), &states[turn]))
        .yardstick_once("nft -f", next, |turn| feed(namespace, &texts.paths[turn]))
        .report()?;
    make(&mut *nft.borrow_mut(), &State::default());
    Ok(())
}

fn change(bench: &mut Bench<'_>, namespace: &Namespace, elements: u32) -> io::Result<()> {
    let wanted = balanced(elements, 0);
    let mut changed = wanted.clone();
    let one = balanced_with(elements, |number| if number == elements / 2 { 9 } else { 0 });
    changed.tables.clone_from(&one.tables);
    let mut shadow = Shadow::new(open(namespace));
    let mut turns = [&changed, &wanted].into_iter().cycle();
    let mut next = || turns.next().unwrap_or(&wanted);
    make(&mut shadow, &wanted);
    bench.figure("kernel/nft-change-one-of-10k", "ms").each(|_| make(&mut shadow, next())).report()?;
    let mut nft = shadow.into_inner();
    bench.figure("kernel/nft-change-one-of-10k-readback", "ms").each(|_| make(&mut nft, next())).report()?;
    bench.figure("kernel/nft-observe-10k", "ms").once(|| (), |()| must(nft.observe())).report()?;
    make(&mut nft, &State::default());
    Ok(())
}

fn load(bench: &mut Bench<'_>, namespace: &Namespace, elements: u32) -> io::Result<()> {
    let wanted = balanced(elements, 0);
    let texts = Texts::write(std::slice::from_ref(&wanted))?;
    let nft = RefCell::new(open(namespace));
    let empty = || make(&mut *nft.borrow_mut(), &State::default());
    bench
        .figure("kernel/nft-160k", "ms")
        .once(empty, |()| make(&mut *nft.borrow_mut(), &wanted))
        .yardstick_once("nft -f", empty, |()| feed(namespace, &texts.paths[0]))
        .report()?;
    empty();
    Ok(())
}

fn balanced(elements: u32, variant: u8) -> State {
    balanced_with(elements, |_| variant)
}

/// A map of so many elements, sixteen for each virtual address.
fn balanced_with(elements: u32, variant: impl Fn(u32) -> u8) -> State {
    let ip_of = |network: u32, number: u32| Ipv4Addr::from(network << 24 | number);
    let mut table = Table::default();
    let pairs = (0..elements).map(|number| {
        let key = (ip_of(10, number / 16), IpProtocol::TCP, 80_u16, Mark(number % 16));
        (key, (ip_of(11 + u32::from(variant(number)), number), 8080_u16))
    });
    table.sets.insert(must("be".parse()), Set::map(pairs));
    let key = (ip::DADDR, meta::L4PROTO, th::DPORT, jhash(&(ip::SADDR, th::SPORT), 16, 1));
    let balance = must(Rule::new("balance")).dnat_by::<(Ipv4Addr, u16), _>(&key, &must("be".parse()));
    table.chains.insert(must("pre".parse()), Chain::base(Base::nat(Hook::Prerouting, Base::DSTNAT), vec![balance]));
    let replies = must(Rule::new("replies")).ct_state(CtState::ESTABLISHED).counter().accept();
    table.chains.insert(must("forward".parse()), Chain::base(Base::filter(Hook::Forward, 0), vec![replies]));
    State { tables: [(TableKey::new(Family::Ip, must("lb".parse())), table)].into() }
}

/// The same states as `nft` reads them, in files that go with this value; each replaces what is there.
struct Texts {
    paths: Vec<PathBuf>,
}

impl Texts {
    fn write(states: &[State]) -> io::Result<Self> {
        let mut texts = Self { paths: Vec::new() };
        for (number, state) in states.iter().enumerate() {
            let path = std::env::temp_dir().join(format!("overlay-bench-{}-{number}.nft", std::process::id()));
            // `nft` looks a computed number up only where the type says how it is computed.
            let text = state.to_nft(&owner()).replace(
                "type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service",
                "typeof ip daddr . meta l4proto . th dport . jhash ip saddr . th sport mod 16 : ip daddr . th dport",
            );
            let table = text.lines().next().unwrap_or_default().trim_end_matches(" {").to_owned();
            fs::write(&path, format!("add {table}\ndelete {table}\n{text}"))?;
            texts.paths.push(path);
        }
        Ok(texts)
    }
}

impl Drop for Texts {
    fn drop(&mut self) {
        self.paths.iter().for_each(|path| drop(fs::remove_file(path)));
    }
}

fn feed(namespace: &Namespace, path: &PathBuf) {
    let run = || Command::new("nft").arg("-f").arg(path).stdout(Stdio::null()).status();
    let status = must(must(namespace.run(run)));
    assert!(status.success(), "nft -f: {status}");
}

fn owner() -> Owner {
    let [cluster, instance] = ["bench", "nft"].map(|name| must(name.parse()));
    Owner::new(cluster, instance)
}

fn open(namespace: &Namespace) -> Nft {
    must(Nft::open(&owner(), namespace))
}

fn make(nft: &mut impl overlay_core::Table<State>, wanted: &State) {
    must(reconcile(nft, wanted));
}

#[expect(clippy::panic, reason = "a benchmark that cannot measure says so and ends")]
fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
