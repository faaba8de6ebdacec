//! What goes wrong with links in the kernel has a name, and what went right stays.

use std::error::Error;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{
    Applied, Backend, ErrorKind, Mac, Mtu, NsKey, Owner, ReconcileError, Shadow, StepError, Trace, Traced, Vni,
    reconcile,
};
use overlay_kernel::Namespace;
use overlay_kernel::link::{Dev, Kind, Link, Links, Site, State, Step, Vxlan};
use overlay_kernel::testing::judge;

pub(crate) fn open(instance: &str, home: &Namespace) -> Links {
    let owner = Owner::new("faults".parse().unwrap(), instance.parse().unwrap());
    Links::open(&owner, home.try_clone().unwrap()).unwrap()
}

pub(crate) fn dev(name: &str) -> Dev {
    Dev::home(name.parse().unwrap())
}

fn link(kind: Kind, number: u8) -> Link {
    Link::new(kind, Mtu::new(1400).unwrap(), Mac::new([2, 0x42, 0, 0, 9, number]))
}

pub(crate) const BRIDGE: Kind = Kind::Bridge { multicast_snooping: false };

pub(crate) fn vxlan(vni: u32) -> Kind {
    Kind::Vxlan(Vxlan::new(Vni::new(vni).unwrap(), Site::Home, [192, 0, 2, 1].into()))
}

pub(crate) fn with<const N: usize>(links: [(&str, Kind); N]) -> State {
    let links = (1..).zip(links).map(|(number, (name, kind))| (dev(name), link(kind, number)));
    State { links: links.collect(), ..State::default() }
}

/// The step that failed, what is in effect, the kind of fault, and all that the error says.
pub(crate) fn fault(links: &mut impl Backend<State = State>, wanted: &State) -> (String, Applied, ErrorKind, String) {
    let plan = links.plan_to(wanted).unwrap();
    let StepError { at, applied, source } = links.apply(&plan).unwrap_err();
    let mut text = source.to_string();
    let mut cause = source.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    (plan[at].to_string(), applied, source.kind(), text)
}

#[test]
fn a_name_that_something_foreign_has_is_a_conflict_and_the_foreign_thing_stays() {
    kernel_test(Kernel::Host, "kernel::a_foreign_name_is_a_conflict", || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "add", "br1", "type", "bridge"]);
        let mut links = open("a", &home);
        let (step, applied, kind, text) = fault(&mut links, &with([("br0", BRIDGE), ("br1", BRIDGE)]));
        assert_eq!(
            (step.as_str(), applied, kind),
            ("add link br1: bridge 02:42:00:00:09:02 mtu 1400", Applied::Before, ErrorKind::Conflict)
        );
        assert!(text.starts_with("make link br1: taken by something else: File exists"), "{text}");
        assert_eq!(links.observe().unwrap().links.keys().collect::<Vec<_>>(), [&dev("br0")]);
        assert!(judge(&home, "ip", &["link", "show", "br1"]).contains("mtu 1500"));
    });
}

#[test]
fn a_vni_or_a_port_that_something_foreign_has_is_a_conflict_with_the_kernels_words() {
    kernel_test(Kernel::Host, "kernel::a_foreign_vni_or_port_is_a_conflict", || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "add", "foreign", "type", "vxlan", "id", "7", "dstport", "4789"]);
        let (step, applied, kind, text) = fault(&mut open("a", &home), &with([("vx0", vxlan(7))]));
        assert!(step.starts_with("add link vx0: vxlan 7 from 192.0.2.1 port 4789"), "{step}");
        assert_eq!((applied, kind), (Applied::Nothing, ErrorKind::Conflict));
        assert!(text.contains("A VXLAN device with the specified VNI already exists"), "{text}");

        let _held = home.run(|| UdpSocket::bind("0.0.0.0:4789")).unwrap().unwrap();
        let (step, _, kind, text) = fault(&mut open("a", &home), &with([("vx0", vxlan(8))]));
        assert_eq!((step.as_str(), kind), ("raise link vx0", ErrorKind::Conflict), "{text}");
    });
}

#[test]
fn a_kind_that_the_kernel_lacks_is_unsupported() {
    kernel_test(Kernel::Host, "kernel::a_kind_that_the_kernel_lacks_is_unsupported", || {
        let home = Namespace::create().unwrap();
        let asked = home.run(|| std::process::Command::new("ip").args("link add du9 type dummy".split(' ')).status());
        if asked.unwrap().unwrap().success() {
            return; // this kernel lacks none of our kinds
        }
        let (_, applied, kind, text) = fault(&mut open("a", &home), &with([("du0", Kind::Dummy)]));
        assert_eq!((applied, kind), (Applied::Nothing, ErrorKind::Unsupported));
        assert!(text.contains("Unknown device type"), "{text}");
    });
}

#[test]
fn a_namespace_that_was_never_reached_or_is_another_is_named() {
    kernel_test(Kernel::Host, "kernel::a_namespace_that_was_never_reached_is_named", || {
        let (home, container) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        let key = container.key("web-1".parse().unwrap());
        let far = Dev::far(key.clone(), "eth0".parse().unwrap());
        let mut wanted = State::default();
        wanted.links.insert(dev("ve0"), link(Kind::Veth { peer: far.clone() }, 1));
        wanted.links.insert(far, link(Kind::Veth { peer: dev("ve0") }, 2));
        let (_, applied, kind, text) = fault(&mut open("a", &home), &wanted);
        assert_eq!((applied, kind), (Applied::Nothing, ErrorKind::Gone));
        assert!(text.contains("work in namespace web-1"), "{text}");

        let stale = NsKey { name: key.name, id: home.id() };
        let refused = open("a", &home).reach(stale, container).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    });
}

#[test]
fn a_container_that_vanishes_takes_its_pair_with_it_and_the_next_state_goes_on() {
    kernel_test(Kernel::Host, "kernel::a_container_that_vanishes_takes_its_pair_with_it", || {
        let (home, container) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        let key = container.key("web-1".parse().unwrap());
        let far = Dev::far(key.clone(), "eth0".parse().unwrap());
        let mut wanted = with([("br0", BRIDGE)]);
        wanted.links.insert(dev("ve0"), link(Kind::Veth { peer: far.clone() }, 8));
        wanted.links.insert(far, link(Kind::Veth { peer: dev("ve0") }, 9));
        let mut links = open("a", &home);
        links.reach(key.clone(), container).unwrap();
        reconcile(&mut links, &wanted).unwrap();
        links.leave(&key); // the last holder of the namespace
        for _ in 0..200 {
            if !judge(&home, "ip", &["link"]).contains("ve0") {
                break;
            }
        }
        assert!(reconcile(&mut links, &with([("br0", BRIDGE)])).unwrap().len() <= 1);
        assert_eq!(links.observe().unwrap(), with([("br0", BRIDGE)]));
    });
}

#[test]
fn two_owners_in_one_namespace_do_not_see_each_others_devices() {
    kernel_test(Kernel::Host, "kernel::two_owners_do_not_see_each_others_devices", || {
        let home = Namespace::create().unwrap();
        let (mut a, mut b) = (open("a", &home), open("b", &home));
        reconcile(&mut a, &with([("bra", BRIDGE)])).unwrap();
        reconcile(&mut b, &with([("brb", BRIDGE)])).unwrap();
        assert_eq!(a.observe().unwrap(), with([("bra", BRIDGE)]));
        reconcile(&mut a, &State::default()).unwrap();
        assert_eq!(b.observe().unwrap(), with([("brb", BRIDGE)]));
    });
}

#[test]
fn a_value_that_no_kernel_could_hold_is_refused_before_anything_is_done() {
    kernel_test(Kernel::Host, "kernel::a_value_that_no_kernel_could_hold_is_refused", || {
        let home = Namespace::create().unwrap();
        let mut links = open("a", &home);
        let mut wanted = with([("br0", BRIDGE)]);
        wanted.neighbours.insert((dev("vx0"), [10, 0, 0, 1].into()), Mac::new([2, 0, 0, 0, 0, 1]));
        let refused = reconcile(&mut links, &wanted);
        assert!(matches!(&refused, Err(ReconcileError::Refused(why)) if why.to_string().contains("no such device")));
        assert_eq!(links.observe().unwrap(), State::default());
    });
}

#[test]
fn a_step_that_is_done_already_is_done() {
    kernel_test(Kernel::Host, "kernel::a_step_that_is_done_already_is_done", || {
        let home = Namespace::create().unwrap();
        let mut links = open("a", &home);
        let mut wanted = with([("br0", BRIDGE), ("vx0", vxlan(5))]);
        wanted.addresses.insert((dev("br0"), [10, 0, 9, 1].into()), 24);
        wanted.flood.insert((dev("vx0"), [192, 0, 2, 9].into()));
        let plan = links.plan_to(&wanted).unwrap();
        links.apply(&plan).unwrap();
        links.apply(&plan).unwrap();
        assert_eq!(links.observe().unwrap(), wanted);
        let removal = [Step::RemoveFlood(dev("vx0"), [192, 0, 2, 9].into()), Step::RemoveLink(dev("vx0"))];
        links.apply(&removal).unwrap();
        links.apply(&removal).unwrap();
    });
}

#[test]
fn a_step_for_a_device_that_is_not_there_fails_after_those_before_it_are_in_effect() {
    kernel_test(Kernel::Host, "kernel::a_step_for_a_device_that_is_not_there_fails_after_those_before_it", || {
        let home = Namespace::create().unwrap();
        let mut links = open("a", &home);
        let mut wanted = with([("vx0", vxlan(5))]);
        reconcile(&mut links, &wanted).unwrap();
        let (ip, mac) = ([10, 0, 9, 1].into(), Mac::new([2, 0x42, 0, 0, 8, 1]));
        let steps = [Step::PutNeighbour(dev("vx0"), ip, mac), Step::PutNeighbour(dev("vx1"), ip, mac)];
        let StepError { at, applied, source } = links.apply(&steps).unwrap_err();
        assert_eq!((at, applied, source.kind()), (1, Applied::Before, ErrorKind::Gone));
        wanted.neighbours.insert((dev("vx0"), ip), mac);
        assert_eq!(links.observe().unwrap(), wanted);
    });
}

#[test]
fn a_shadow_does_not_read_again_what_only_it_changed() {
    kernel_test(Kernel::Host, "kernel::a_shadow_does_not_read_again_what_only_it_changed", || {
        let home = Namespace::create().unwrap();
        let reads = AtomicUsize::new(0);
        let told = Traced::new(open("a", &home), |call| {
            reads.fetch_add(usize::from(matches!(call, Trace::Observed(_))), Relaxed);
        });
        let mut links = Shadow::new(told);
        let mut wanted = with([("vx0", vxlan(5))]);
        reconcile_native(&mut links, &wanted);
        links.observe().unwrap(); // the device announced itself
        let mut before = usize::MAX;
        while std::mem::replace(&mut before, reads.load(Relaxed)) != reads.load(Relaxed) {
            links.observe().unwrap();
        }
        for number in 1..50 {
            let mac = Mac::new([2, 0x42, 0, 0, 8, number]);
            wanted.neighbours.insert((dev("vx0"), [10, 0, 9, number].into()), mac);
            wanted.forwarding.insert((dev("vx0"), mac), [192, 0, 2, number].into());
            reconcile_native(&mut links, &wanted);
        }
        assert_eq!(reads.load(Relaxed), before);
        judge(&home, "bridge", &["fdb", "del", "02:42:00:00:08:07", "dev", "vx0", "self"]);
        assert_eq!(links.plan_to(&wanted).unwrap().len(), 1);
        assert_eq!(reads.load(Relaxed), before + 1);
    });
}

fn reconcile_native(links: &mut impl Backend<State = State>, wanted: &State) {
    let plan = links.plan_to(wanted).unwrap();
    links.apply(&plan).unwrap();
}
