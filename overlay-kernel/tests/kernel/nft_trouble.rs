//! What goes wrong with tables has a name, and what others do is seen.

use std::error::Error;
use std::net::Ipv4Addr;
use std::thread;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{
    Applied, Backend, ErrorKind, Meter, ReconcileError, Shadow, State as _, StepError, Trace, Traced, Witness as _,
    reconcile,
};
use overlay_kernel::Namespace;
use overlay_kernel::nft::{Base, Chain, CtState, Family, Hook, Rule, Set, State, Table, Writers, ct, ip, meta};
use overlay_kernel::testing::judge;

use crate::nft::{everything, name, one, open, rule, v4};

/// A table with a set of so many addresses from a first one on, and a chain that looks into it.
fn with_members(first: u32, count: u32) -> State {
    let mut table = Table::default();
    let members = (first..first + count).map(|number| Ipv4Addr::from(0x0a00_0000 + number));
    table.sets.insert(name("members"), Set::of(members));
    let rules = vec![rule("members").is_in(&ip::SADDR, &name("members")).counter().accept()];
    table.chains.insert(name("forward"), Chain::base(Base::filter(Hook::Forward, 0).or_drop(), rules));
    one(Family::Ip, table)
}

fn causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn who_planned_before_another_wrote_changes_nothing() {
    kernel_test(Kernel::Host, "kernel::nft_who_planned_before_another_wrote", || {
        let home = Namespace::create().unwrap();
        let (mut slow, mut fast) = (open("a", &home), open("a", &home));
        let plan = slow.plan_to(&with_members(0, 3)).unwrap();
        reconcile(&mut fast, &with_members(10, 3)).unwrap();
        let StepError { applied, source, .. } = slow.apply(&plan).unwrap_err();
        assert_eq!((applied, source.kind()), (Applied::Nothing, ErrorKind::Interrupted));
        assert!(source.kind().is_transient());
        assert_eq!(fast.observe().unwrap(), with_members(10, 3));
        reconcile(&mut slow, &with_members(0, 3)).unwrap();
        assert_eq!(fast.observe().unwrap(), with_members(0, 3));
    });
}

#[test]
fn who_has_tables_beside_another_is_not_interrupted_by_it_and_is_by_strangers() {
    kernel_test(Kernel::Host, "kernel::nft_who_has_tables_beside_another", || {
        let (home, writers) = (Namespace::create().unwrap(), Writers::default());
        let [mut one, mut two] = ["a", "b"].map(|instance| Shadow::new(open(instance, &home).among(&writers)));
        let mut stranger = open("c", &home);
        for round in 0..3 {
            let plans = [one.plan_to(&with_members(round, 3)).unwrap(), two.plan_to(&with_members(round, 4)).unwrap()];
            one.apply(&plans[0]).unwrap();
            two.apply(&plans[1]).unwrap();
            assert!(one.inner_mut().undisturbed().unwrap() && two.inner_mut().undisturbed().unwrap());
        }
        let plan = one.plan_to(&with_members(7, 3)).unwrap();
        reconcile(&mut two, &with_members(8, 4)).unwrap();
        reconcile(&mut stranger, &with_members(0, 1)).unwrap();
        reconcile(&mut two, &with_members(9, 4)).unwrap();
        assert_eq!(one.apply(&plan).unwrap_err().source.kind(), ErrorKind::Interrupted, "a stranger wrote in between");
        reconcile(&mut one, &with_members(7, 3)).unwrap();
        assert_eq!(open("a", &home).observe().unwrap(), with_members(7, 3));
        assert_eq!(open("b", &home).observe().unwrap(), with_members(9, 4));
    });
}

#[test]
fn two_writers_at_once_never_leave_a_mixture() {
    kernel_test(Kernel::Host, "kernel::nft_two_writers_at_once", || {
        let home = Namespace::create().unwrap();
        let rounds = 100;
        let write = |first: u32| {
            let mut nft = open("a", &home);
            let (mut done, mut interrupted) = (0, 0);
            for round in 0..rounds {
                match reconcile(&mut nft, &with_members(first + round % 2, 50)) {
                    Ok(_) => done += 1,
                    Err(ReconcileError::Apply { error, .. }) if error.source.kind() == ErrorKind::Interrupted => {
                        assert_eq!(error.applied, Applied::Nothing);
                        interrupted += 1;
                    }
                    Err(ReconcileError::Observe(error)) if error.kind() == ErrorKind::Interrupted => interrupted += 1,
                    Err(error) => panic!("{}", causes(&error)),
                }
            }
            (done, interrupted)
        };
        let watch = || {
            let mut nft = open("a", &home);
            for _ in 0..rounds {
                let state = match nft.observe() {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    other => other.unwrap(),
                };
                let whole = [0, 1, 1000, 1001].iter().any(|first| state == with_members(*first, 50));
                assert!(whole || state == State::default(), "{state:?}");
            }
        };
        let (a, b) = thread::scope(|scope| {
            let (a, b) = (scope.spawn(|| write(0)), scope.spawn(|| write(1000)));
            watch();
            (a.join().unwrap(), b.join().unwrap())
        });
        println!("done and interrupted: {a:?} {b:?}");
        assert!(a.0 > 0 && b.0 > 0);
    });
}

#[test]
fn a_flush_of_everything_is_repaired() {
    kernel_test(Kernel::Host, "kernel::nft_a_flush_of_everything_is_repaired", || {
        let home = Namespace::create().unwrap();
        let mut nft = Shadow::new(open("a", &home));
        let wanted = one(Family::Inet, everything());
        reconcile(&mut nft, &wanted).unwrap();
        let before = judge(&home, "nft", &["list", "ruleset"]);
        judge(&home, "nft", &["flush", "ruleset"]);
        assert!(!reconcile(&mut nft, &wanted).unwrap().is_empty());
        assert_eq!(judge(&home, "nft", &["list", "ruleset"]), before);
        assert!(reconcile(&mut nft, &wanted).unwrap().is_empty());
    });
}

#[test]
fn a_rule_whose_body_was_changed_by_hand_is_set_again() {
    kernel_test(Kernel::Host, "kernel::nft_a_rule_whose_body_was_changed", || {
        let home = Namespace::create().unwrap();
        let mut nft = Shadow::new(open("a", &home));
        let wanted = with_members(0, 3);
        reconcile(&mut nft, &wanted).unwrap();
        let kernel_name = open("a", &home).kernel_name(wanted.tables.keys().next().unwrap());
        let listed = judge(&home, "nft", &["-a", "list", "ruleset"]);
        let handle = listed.lines().find_map(|line| line.split_once("comment \"members\" # handle ")).unwrap().1;
        let body = "ip saddr @members counter drop comment \\\"members\\\"";
        judge(&home, "sh", &["-c", &format!("nft \"replace rule ip {kernel_name} forward handle {handle} {body}\"")]);
        let plan = nft.plan_to(&wanted).unwrap();
        assert_eq!(plan.iter().map(ToString::to_string).collect::<Vec<_>>(), ["set 1 rule of ip fw forward"]);
        reconcile(&mut nft, &wanted).unwrap();
        assert!(judge(&home, "nft", &["list", "ruleset"]).contains("accept comment \"members\""));
    });
}

#[test]
fn a_shadow_does_not_read_again_what_only_it_changed() {
    kernel_test(Kernel::Host, "kernel::nft_a_shadow_does_not_read_again", || {
        let home = Namespace::create().unwrap();
        let reads = std::sync::atomic::AtomicUsize::new(0);
        let traced = Traced::new(open("a", &home), |trace| {
            if let Trace::Observed(_) = trace {
                reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        let mut nft = Shadow::new(traced);
        for round in 0..10 {
            reconcile(&mut nft, &with_members(round % 3, 20)).unwrap();
        }
        assert_eq!(reads.load(std::sync::atomic::Ordering::Relaxed), 1);
        judge(&home, "nft", &["add", "table", "ip", "foreign"]);
        reconcile(&mut nft, &with_members(7, 20)).unwrap();
        assert_eq!(reads.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert_eq!(open("a", &home).observe().unwrap(), with_members(7, 20));
    });
}

#[test]
fn what_does_not_fit_is_loaded_ahead_or_refused_with_the_limit() {
    kernel_test(Kernel::Host, "kernel::nft_what_does_not_fit", || {
        let home = Namespace::create().unwrap();
        let mut nft = open("a", &home);
        let (many, others) = (with_members(0, 20_000), with_members(100_000, 20_000));
        reconcile(&mut nft, &many).unwrap();
        assert_eq!(open("a", &home).observe().unwrap(), many);
        // To change all elements of a set that is in use is one transaction, or none.
        let plan = nft.plan_to(&others).unwrap();
        match nft.apply(&plan) {
            Ok(()) => assert_eq!(nft.observe().unwrap(), others),
            Err(StepError { applied, source, .. }) => {
                assert_eq!((applied, source.kind()), (Applied::Nothing, ErrorKind::Limit), "{}", causes(&source));
                assert!(causes(&source).contains("a transaction of"), "{}", causes(&source));
                assert_eq!(nft.observe().unwrap(), many);
                // Another name for it is all it takes.
                let mut renamed = others;
                let table = renamed.tables.values_mut().next().unwrap();
                let set = table.sets.remove("members").unwrap();
                table.sets.insert(name("members-2"), set);
                let rules = vec![rule("members").is_in(&ip::SADDR, &name("members-2")).counter().accept()];
                table.chains.get_mut("forward").unwrap().rules = rules;
                reconcile(&mut nft, &renamed).unwrap();
                assert_eq!(nft.observe().unwrap(), renamed);
            }
        }
        reconcile(&mut nft, &State::default()).unwrap();
    });
}

#[test]
fn counters_are_readings_and_no_drift() {
    kernel_test(Kernel::Host, "kernel::nft_counters_are_readings", || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "set", "lo", "up"]);
        let mut table = Table::default();
        let rules = vec![rule("all").counter(), rule("none").eq(&ip::DADDR, v4(1)).counter()];
        table.chains.insert(name("output"), Chain::base(Base::filter(Hook::Output, 0), rules));
        let wanted = one(Family::Ip, table);
        let mut nft = open("a", &home);
        reconcile(&mut nft, &wanted).unwrap();
        judge(&home, "ping", &["-c", "1", "127.0.0.1"]);
        let readings: Vec<_> = nft.read().unwrap().into_iter().map(|(key, found)| (key.place, key.id, found)).collect();
        assert_eq!((readings[0].0, &*readings[0].1, readings[0].2.packets), (0, "all", 2));
        assert_eq!((readings[1].0, &*readings[1].1, readings[1].2.packets), (1, "none", 0));
        assert!(readings[0].2.bytes > 100);
        assert!(reconcile(&mut nft, &wanted).unwrap().is_empty());
        assert_eq!(nft.read().unwrap().values().next().unwrap().packets, 2);
    });
}

#[test]
fn what_the_kernel_refuses_is_said_of_its_step_and_nothing_is_in_effect() {
    kernel_test(Kernel::Host, "kernel::nft_what_the_kernel_refuses_is_said", || {
        let home = Namespace::create().unwrap();
        let mut nft = open("a", &home);
        // No device of this name, or a kernel that waits for it: what it says must be true either way.
        let mut table = Table::default();
        let devices = ["nowhere".parse().unwrap()].into();
        table.chains.insert(name("in"), Chain::base(Base::ingress(devices, 0), Vec::new()));
        let wanted = one(Family::Netdev, table);
        let plan = nft.plan_to(&wanted).unwrap();
        match nft.apply(&plan) {
            Ok(()) => assert_eq!(nft.observe().unwrap(), wanted),
            Err(StepError { at, applied, source }) => {
                assert_eq!((at, applied, source.kind()), (1, Applied::Nothing, ErrorKind::Gone), "{}", causes(&source));
                assert_eq!(nft.observe().unwrap(), State::default());
            }
        }
        reconcile(&mut nft, &State::default()).unwrap();
        let mut table = Table::default();
        let tracked = rule("tracked").ct_state(CtState::NEW).drop();
        table.chains.insert(name("aside"), Chain::regular(vec![rule("plain").accept()]));
        table.chains.insert(name("forward"), Chain::base(Base::filter(Hook::Forward, 0), vec![tracked]));
        let wanted = one(Family::Bridge, table);
        let plan = nft.plan_to(&wanted).unwrap();
        match nft.apply(&plan) {
            Ok(()) => assert_eq!(nft.observe().unwrap(), wanted), // this kernel tracks flows in bridges
            Err(StepError { at, applied, source }) => {
                assert_eq!(plan[at].to_string(), "set 1 rule of bridge fw forward", "{}", causes(&source));
                assert_eq!((applied, source.kind()), (Applied::Nothing, ErrorKind::Unsupported), "{}", causes(&source));
                assert_eq!(nft.observe().unwrap(), State::default());
            }
        }
    });
}

#[test]
fn what_is_done_already_is_done() {
    kernel_test(Kernel::Host, "kernel::nft_what_is_done_already_is_done", || {
        let home = Namespace::create().unwrap();
        let wanted = one(Family::Inet, everything());
        let build = State::default().plan(&wanted);
        let remove = wanted.plan(&State::default());
        for plan in [&build, &remove] {
            for _ in 0..2 {
                open("a", &home).apply(plan).unwrap();
            }
            plan.iter().for_each(|step| open("a", &home).apply(std::slice::from_ref(step)).unwrap());
        }
        assert_eq!(open("a", &home).observe().unwrap(), State::default());
    });
}

#[test]
fn owners_do_not_see_one_another() {
    kernel_test(Kernel::Host, "kernel::nft_owners_do_not_see_one_another", || {
        let home = Namespace::create().unwrap();
        let (mut a, mut b) = (open("a", &home), open("b", &home));
        reconcile(&mut a, &with_members(0, 3)).unwrap();
        reconcile(&mut b, &one(Family::Inet, everything())).unwrap();
        assert_eq!(a.observe().unwrap(), with_members(0, 3));
        reconcile(&mut a, &State::default()).unwrap();
        assert_eq!(b.observe().unwrap(), one(Family::Inet, everything()));
    });
}

#[test]
fn a_value_that_no_kernel_could_hold_is_refused_before_anything_is_done() {
    kernel_test(Kernel::Host, "kernel::nft_a_value_that_no_kernel_could_hold", || {
        let home = Namespace::create().unwrap();
        let mut table = Table::default();
        let lost = Rule::new("lost").unwrap().any(&ct::STATE, CtState::NEW).is_in(&meta::MARK, &name("nowhere"));
        table.chains.insert(name("forward"), Chain::base(Base::filter(Hook::Forward, 0), vec![lost]));
        let refused = reconcile(&mut open("a", &home), &one(Family::Inet, table)).unwrap_err();
        assert!(matches!(refused, ReconcileError::Refused(_)), "{refused}");
        assert_eq!(judge(&home, "nft", &["list", "ruleset"]), "");
    });
}

#[test]
fn a_device_that_was_made_again_is_guarded_again() {
    kernel_test(Kernel::Host, "kernel::nft_a_device_that_was_made_again", || {
        let home = Namespace::create().unwrap();
        let make = |up: bool| {
            let pair = "link add d0 type veth peer name d1".split(' ').collect::<Vec<_>>();
            judge(&home, "ip", &pair);
            for device in ["d0", "d1"].into_iter().filter(|_| up) {
                judge(&home, "ip", &["link", "set", device, "up"]);
            }
        };
        make(false);
        let mut table = Table::default();
        let devices = ["d0".parse().unwrap()].into();
        table.chains.insert(name("in"), Chain::base(Base::ingress(devices, 0), vec![rule("all").counter()]));
        table.chains.insert(name("aside"), Chain::regular(Vec::new()));
        let wanted = one(Family::Netdev, table);
        let mut nft = Shadow::new(open("a", &home));
        reconcile(&mut nft, &wanted).unwrap();
        assert!(reconcile(&mut nft, &wanted).unwrap().is_empty());
        judge(&home, "ip", &["link", "del", "d0"]);
        make(true);
        reconcile(&mut nft, &wanted).unwrap();
        assert_eq!(open("a", &home).observe().unwrap(), wanted);
        let mut seen = 0;
        for _ in 0..100 {
            // The other end announces itself.
            let readings = open("a", &home).read().unwrap();
            seen = readings.values().next().unwrap().packets;
            if seen > 0 {
                break;
            }
            thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(seen > 0, "nothing came by the chain");
    });
}
