use std::cell::RefCell;
use std::process::Command;
use std::thread;
use std::time::Duration;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend, IfName, Lower, NsKey, Owner, Shadow, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::link::testing::{Kinds, state};
use overlay_kernel::link::{Links, Site, State, Step};
use overlay_kernel::testing::judge;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use crate::taps;

/// A place's namespace and two containers', with somebody else's objects in each.
struct World<T> {
    home: Namespace,
    containers: Vec<(NsKey, Namespace)>,
    open: fn(Links) -> T,
    in_the_way: Option<IfName>,
}

impl<T> World<T> {
    fn new(open: fn(Links) -> T) -> Self {
        let container = |name: &str| {
            let namespace = Namespace::create().unwrap();
            (namespace.key(name.parse().unwrap()), namespace)
        };
        let world = Self {
            home: Namespace::create().unwrap(),
            containers: vec![container("c0"), container("c1")],
            open,
            in_the_way: None,
        };
        for namespace in world.namespaces() {
            for command in FOREIGN {
                judge(namespace, "ip", &command.split(' ').collect::<Vec<_>>());
            }
            // That a bridge without ports has no carrier is known a moment after it is up.
            let is_settled = || judge(namespace, "ip", &["link", "show", "foreign0"]).contains("state DOWN");
            let waits = (0..500).take_while(|_| !is_settled()).inspect(|_| thread::sleep(Duration::from_millis(10)));
            assert!(waits.count() < 500, "foreign0 has a carrier");
        }
        world
    }

    fn keys(&self) -> Vec<NsKey> {
        self.containers.iter().map(|(key, _)| key.clone()).collect()
    }

    fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.containers.iter().map(|(_, namespace)| namespace).chain([&self.home])
    }

    fn links(&self) -> Links {
        let mut links = Links::open(&owner("ours"), self.home.try_clone().unwrap()).unwrap();
        for (key, namespace) in &self.containers {
            links.reach(key.clone(), namespace.try_clone().unwrap()).unwrap();
        }
        links
    }
}

/// What is not ours and must stay as it is, on a device of its own.
const FOREIGN: [&str; 6] = [
    "link add foreign0 type bridge",
    "addr add 10.200.0.1/24 dev foreign0",
    "link set foreign0 address 02:00:00:00:f0:00 up",
    "route add 203.0.113.0/24 dev foreign0",
    "neigh add 10.200.0.9 lladdr 02:00:00:00:f0:09 dev foreign0 nud permanent",
    "rule add priority 77 from 10.200.0.0/24 table 77",
];

fn owner(instance: &str) -> Owner {
    Owner::new("kernel-test".parse().unwrap(), instance.parse().unwrap())
}

impl<T> laws::World<State> for World<T>
where
    T: Lower<State, Native = State> + Backend<State = State>,
{
    type Native = State;
    type Table = T;
    type Foreign = String;

    fn open(&mut self) -> T {
        (self.open)(self.links())
    }

    fn foreign(&mut self) -> String {
        self.namespaces().map(whole).collect()
    }

    /// Breaks something with other tools.
    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let state = self.links().observe().unwrap();
        let home: Vec<_> = state.links.keys().filter(|dev| dev.site == Site::Home).collect();
        let Some(dev) = home.get(dice.below(home.len())) else { return false };
        let dev = dev.name;
        let damage = match dice.below(9) {
            0 => format!("ip link del {dev}"),
            1 => format!("ip link set {dev} down"),
            2 => format!("ip addr flush dev {dev}"),
            3 => format!("ip link set {dev} mtu 1281"),
            8 => format!("ip link set {dev} mtu 1200"),
            4 => format!("ip link set {dev} nomaster"),
            5 => format!("ip neigh flush dev {dev} nud permanent"),
            6 => "for dev in vx0 vx1; do bridge fdb flush dev $dev self; done; \
                  for dev in br0 br1; do bridge fdb flush dev $dev; done"
                .to_owned(),
            _ => FLUSH.to_owned(),
        };
        let _ = self.home.run(|| Command::new("sh").args(["-c", &damage]).output()).unwrap().unwrap();
        self.links().observe().unwrap() != state
    }

    /// Takes the name of a device that is to be made.
    fn obstruct(&mut self, steps: &[Step], dice: &mut Dice) -> bool {
        let made: Vec<_> = steps
            .iter()
            .filter_map(|step| match step {
                Step::AddLink(dev, _) | Step::AddPair(dev, _) if dev.site == Site::Home => Some(dev.name),
                _ => None,
            })
            .collect();
        let Some(name) = made.get(dice.below(made.len())) else { return false };
        let taken =
            self.home.run(|| Command::new("ip").args(["link", "add", name.as_str(), "type", "bridge"]).output());
        self.in_the_way = taken.unwrap().unwrap().status.success().then_some(*name);
        self.in_the_way.is_some()
    }

    fn clear(&mut self) {
        if let Some(name) = self.in_the_way.take() {
            judge(&self.home, "ip", &["link", "del", name.as_str()]);
        }
    }
}

const FLUSH: &str = "ip route flush table 100; ip rule del table 100; ip -6 rule del table 100; \
                     echo 0 >/proc/sys/net/ipv6/conf/all/forwarding";

/// Everything in a namespace, as other tools show it, without what changes by itself.
pub(crate) fn whole(namespace: &Namespace) -> String {
    let questions: [&[&str]; 7] = [
        &["link"],
        &["addr"],
        &["-4", "route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
        &["rule"],
        &["-6", "rule"],
        &["neigh", "show", "nud", "permanent"],
    ];
    let answers = questions.iter().map(|question| judge(namespace, "ip", question));
    let entries = judge(namespace, "bridge", &["fdb", "show"]);
    let settings = judge(namespace, "sh", &["-c", "cd /proc/sys/net && grep -rs . bridge ipv4/conf ipv6/conf | sort"]);
    let text: String = answers.chain([entries, settings]).collect();
    text.lines().filter(|line| !line.contains("_lft") && !line.contains("fe80:")).collect::<Vec<_>>().join("\n")
}

/// From so many cases on, every kind of trouble must have been met.
const ENOUGH: u32 = 8;

fn conform<T>(kernel: Kernel, open: fn(Links) -> T)
where
    T: Lower<State, Native = State> + Backend<State = State>,
{
    let cases = (ProptestConfig::default().cases / if crate::is_thorough() { 8 } else { 64 }).max(1);
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 48, ..ProptestConfig::default() };
    let world = RefCell::new(World::new(open));
    let total = RefCell::new(laws::Seen::default());
    let keys = world.borrow().keys();
    let kinds = Kinds { dummies: kernel == Kernel::Lab, taps: taps::possible() };
    let strategy = (vec(state(keys, kinds), 1..4), any::<[u8; 32]>());
    let result = TestRunner::new(config).run(&strategy, |(desired, seed)| {
        let mut world = world.borrow_mut();
        reconcile(&mut world.links(), &State::default()).unwrap(); // what a failed case left
        let seen = laws::backend(&mut *world, &desired, seed)?;
        let mut total = total.borrow_mut();
        total.steps += seen.steps;
        total.faults += seen.faults;
        total.kills += seen.kills;
        total.repairs += seen.repairs;
        total.obstructions += seen.obstructions;
        Ok(())
    });
    if let Err(TestError::Fail(reason, input)) = &result {
        panic!("{reason}\n{input:#?}");
    }
    result.unwrap();
    let total = total.borrow();
    let least = cases as usize / 2;
    let seen = total.steps > 4 * least && total.faults > least && total.kills > least && total.repairs > least / 2;
    assert!((seen && total.obstructions > 0) || cases < ENOUGH, "{total:?}");
}

#[test]
fn links_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "kernel::links_keep_the_laws_of_a_backend", || conform(Kernel::Host, |links| links));
}

#[test]
fn links_with_every_kind_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Lab, "kernel::links_with_every_kind_keep_the_laws", || conform(Kernel::Lab, |links| links));
}

#[test]
fn a_shadow_of_links_keeps_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "kernel::a_shadow_of_links_keeps_the_laws", || conform(Kernel::Host, Shadow::new));
}
