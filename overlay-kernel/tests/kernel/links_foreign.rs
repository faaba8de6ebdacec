//! What others do to our devices and beside them is seen, and what is theirs stays theirs.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Applied, Backend, ErrorKind, Mac, Mtu, Shadow, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::link::{Dev, Kind, Link, MAIN_TABLE, Route, RouteKey, Site, State, Step};
use overlay_kernel::testing::judge;

use crate::links_faults::{BRIDGE, dev, open, vxlan, with};

#[test]
fn a_foreign_device_that_took_our_name_meanwhile_is_neither_changed_nor_removed() {
    kernel_test(Kernel::Host, "kernel::a_foreign_device_that_took_our_name_meanwhile", || {
        let home = Namespace::create().unwrap();
        let mut links = open("a", &home);
        let wanted = with([("br0", BRIDGE)]);
        reconcile(&mut links, &wanted).unwrap();
        let mut smaller = wanted.clone();
        smaller.links.get_mut(&dev("br0")).unwrap().mtu = Mtu::new(1300).unwrap();
        let change = links.plan_to(&smaller).unwrap();
        judge(&home, "ip", &["link", "del", "br0"]);
        judge(&home, "ip", &["link", "add", "br0", "type", "bridge"]);
        let foreign = || judge(&home, "ip", &["-d", "addr", "show", "dev", "br0"]);
        let before = foreign();

        let refused = links.apply(&change).unwrap_err();
        assert_eq!(refused.source.kind(), ErrorKind::Conflict);
        assert_eq!(foreign(), before);

        links.apply(&[Step::RemoveLink(dev("br0"))]).unwrap();
        open("a", &home).apply(&[Step::RemoveLink(dev("br0"))]).unwrap();
        assert_eq!(foreign(), before);

        let put = Step::PutAddress(dev("br0"), "10.0.9.1/24".parse().unwrap(), None);
        for step in [put, Step::RaiseLink(dev("br0"))] {
            let refused = open("a", &home).apply(&[step]).unwrap_err();
            assert_eq!((refused.applied, refused.source.kind()), (Applied::Nothing, ErrorKind::Gone));
        }
        assert_eq!(foreign(), before);
    });
}

#[test]
fn a_device_of_ours_that_was_renamed_is_made_again() {
    kernel_test(Kernel::Host, "kernel::a_device_of_ours_that_was_renamed_is_made_again", || {
        let home = Namespace::create().unwrap();
        let mut links = open("a", &home);
        let wanted = with([("br0", BRIDGE), ("vx0", vxlan(3))]);
        reconcile(&mut links, &wanted).unwrap();
        for (old, new) in [("br0", "other"), ("vx0", "another")] {
            judge(&home, "ip", &["link", "set", old, "down"]);
            judge(&home, "ip", &["link", "set", old, "name", new]);
        }
        reconcile(&mut links, &wanted).unwrap();
        assert_eq!(links.observe().unwrap(), wanted);
    });
}

#[test]
fn a_foreign_name_that_is_no_text_hides_nothing() {
    kernel_test(Kernel::Host, "kernel::a_foreign_name_that_is_no_text_hides_nothing", || {
        let home = Namespace::create().unwrap();
        let mut links = open("a", &home);
        let wanted = with([("br0", BRIDGE)]);
        reconcile(&mut links, &wanted).unwrap();
        judge(&home, "sh", &["-c", r#"ip link add "$(printf 'x\377')" type bridge"#]);
        judge(&home, "sh", &["-c", r#"ip link property add dev lo altname "$(printf 'long-y\377')""#]);
        judge(&home, "sh", &["-c", r#"ip rule add priority 5 iif "$(printf 'x\377')" table 7"#]);
        assert_eq!(links.observe().unwrap(), wanted);
    });
}

#[test]
fn a_shadow_sees_everything_that_others_change() {
    kernel_test(Kernel::Host, "kernel::a_shadow_sees_everything_that_others_change", || {
        let home = Namespace::create().unwrap();
        let mut links = Shadow::new(open("a", &home));
        let mut wanted = with([("br0", BRIDGE), ("vx0", vxlan(5))]);
        reconcile(&mut links, &wanted).unwrap();
        for _ in 0..100 {
            links.observe().unwrap(); // the devices announce themselves
        }
        wanted.neighbours.insert((dev("br0"), [10, 0, 9, 7].into()), Mac::new([2, 0x42, 0, 0, 8, 7]));
        wanted.flood.insert((dev("vx0"), [192, 0, 2, 7].into()));
        wanted.flood.insert((dev("vx0"), [192, 0, 2, 8].into()));
        wanted.flood.insert((dev("vx0"), [192, 0, 2, 9].into()));
        apply_to(&mut links, &wanted);
        let damages = [
            "ip neigh del 10.0.9.7 dev br0",
            "ip neigh replace 10.0.9.7 lladdr 02:00:00:00:00:01 dev br0 nud permanent protocol 4",
            "ip neigh replace 10.0.9.7 lladdr 02:00:00:00:00:01 dev br0 nud permanent",
            "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
            "ip link set br0 down",
        ];
        for damage in damages {
            judge(&home, "sh", &["-c", damage]);
            assert_ne!(links.plan_to(&wanted).unwrap(), [], "{damage}");
            apply_to(&mut links, &wanted);
        }
        wanted.flood.remove(&(dev("vx0"), [192, 0, 2, 7].into()));
        apply_to(&mut links, &wanted);
        judge(&home, "bridge", &["fdb", "del", "00:00:00:00:00:00", "dev", "vx0", "dst", "192.0.2.8", "self"]);
        assert_eq!(links.plan_to(&wanted).unwrap().len(), 1);
    });
}

fn apply_to(links: &mut impl Backend<State = State>, wanted: &State) {
    let plan = links.plan_to(wanted).unwrap();
    links.apply(&plan).unwrap();
}

#[test]
fn a_pair_between_two_containers_is_read_back_as_one() {
    kernel_test(Kernel::Host, "kernel::a_pair_between_two_containers_is_read_back_as_one", || {
        let home = Namespace::create().unwrap();
        let mut links = open("a", &home);
        let [near, far] = ["c0", "c1"].map(|name| {
            let container = Namespace::create().unwrap();
            let key = container.key(name.parse().unwrap());
            links.reach(key.clone(), container).unwrap();
            Dev::far(key, "eth0".parse().unwrap())
        });
        let end = |peer: &Dev, number| {
            let mac = Mac::new([2, 0x42, 0, 0, 7, number]);
            Link::new(Kind::Veth { peer: peer.clone() }, Mtu::ETHERNET, mac)
        };
        let mut wanted = State::default();
        wanted.links.insert(near.clone(), end(&far, 1));
        wanted.links.insert(far, end(&near, 2));
        reconcile(&mut links, &wanted).unwrap();
        assert_eq!(links.observe().unwrap(), wanted);
    });
}

#[test]
fn a_namespace_cannot_be_reached_under_two_names() {
    kernel_test(Kernel::Host, "kernel::a_namespace_cannot_be_reached_under_two_names", || {
        let (home, container) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        let mut links = open("a", &home);
        let again = links.reach(home.key("host".parse().unwrap()), home.try_clone().unwrap()).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Invalid);
        let mut reach = |name: &str| links.reach(container.key(name.parse().unwrap()), container.try_clone().unwrap());
        reach("c0").unwrap();
        reach("c0").unwrap();
        assert_eq!(reach("c1").unwrap_err().kind(), ErrorKind::Invalid);
    });
}

#[test]
fn a_route_of_others_with_our_key_is_a_conflict_and_stays() {
    kernel_test(Kernel::Host, "kernel::a_route_of_others_with_our_key_is_a_conflict", || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "add", "foreign0", "type", "bridge"]);
        judge(&home, "ip", &["link", "set", "foreign0", "up"]);
        judge(&home, "ip", &["route", "add", "203.0.113.0/24", "dev", "foreign0"]);
        let theirs = || judge(&home, "ip", &["route", "show", "203.0.113.0/24"]);
        let before = theirs();

        let mut links = open("a", &home);
        let mut wanted = with([("br0", BRIDGE)]);
        reconcile(&mut links, &wanted).unwrap();
        let (site, destination) = (Site::Home, "203.0.113.0/24".parse().unwrap());
        let key = RouteKey { site, table: MAIN_TABLE, destination, metric: 0 };
        let by = |name: &str| Route::Via { device: name.parse().unwrap(), gateway: None, source: None, onlink: false };
        let refused = links.apply(&[Step::PutRoute(key.clone(), by("br0"))]).unwrap_err();
        assert_eq!((refused.applied, refused.source.kind()), (Applied::Nothing, ErrorKind::Conflict));
        assert_eq!(theirs(), before);

        judge(&home, "ip", &["route", "del", "203.0.113.0/24"]);
        wanted.routes.insert(key.clone(), by("br0"));
        reconcile(&mut links, &wanted).unwrap();
        wanted.routes.insert(key, Route::Blackhole);
        reconcile(&mut links, &wanted).unwrap();
        assert_eq!(open("a", &home).observe().unwrap(), wanted);
    });
}

#[test]
fn no_route_is_put_on_a_foreign_device_that_took_our_name() {
    kernel_test(Kernel::Host, "kernel::no_route_is_put_on_a_foreign_device", || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "add", "br0", "type", "bridge"]);
        judge(&home, "ip", &["link", "set", "br0", "up"]);
        let destination = "198.51.100.0/24".parse().unwrap();
        let key = RouteKey { site: Site::Home, table: MAIN_TABLE, destination, metric: 0 };
        let by = Route::Via { device: dev("br0").name, gateway: None, source: None, onlink: false };
        let refused = open("a", &home).apply(&[Step::PutRoute(key, by)]).unwrap_err();
        assert_eq!((refused.applied, refused.source.kind()), (Applied::Nothing, ErrorKind::Gone));
        assert_eq!(judge(&home, "ip", &["route", "show", "198.51.100.0/24"]), "");
    });
}
