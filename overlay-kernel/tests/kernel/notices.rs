use std::net::Ipv4Addr;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::Namespace;
use overlay_kernel::netlink::{Drained, Family, Flags, Message, Notices, Requests, Socket};

use crate::route::{self, NEW, NEW_NEIGHBOUR, Neighbour};

const LINK: u32 = 1;
const NEIGHBOUR: u32 = 3;
const IPV4_ADDRESS: u32 = 5;
const IPV4_ROUTE: u32 = 7;
const IPV4_RULE: u32 = 8;
const IPV6_ADDRESS: u32 = 9;

#[test]
fn a_witness_is_quiet_until_something_changes_and_again_after() {
    kernel_test(Kernel::Host, "kernel::a_witness_is_quiet_until_something_changes", || {
        let namespace = Namespace::create().unwrap();
        let mut witness = open(&namespace, 1 << 20);
        assert_eq!(witness.drain(|_| ()).unwrap(), Drained::Quiet);
        route::socket(&namespace).request(&route::device("br0", "bridge")).unwrap();
        let mut kinds = Vec::new();
        assert_eq!(witness.drain(|notice| kinds.push(notice.kind)).unwrap(), Drained::Changed);
        assert!(kinds.contains(&route::NEW_LINK), "{kinds:?}");
        assert_eq!(witness.drain(|_| ()).unwrap(), Drained::Quiet);
    });
}

#[test]
fn a_witness_that_missed_something_says_so() {
    kernel_test(Kernel::Host, "kernel::a_witness_that_missed_something_says_so", || {
        let namespace = Namespace::create().unwrap();
        let mut socket = route::socket(&namespace);
        socket.request(&route::device("vx0", "vxlan")).unwrap();
        let index = route::index(&mut socket, "vx0").unwrap();
        let mut witness = open(&namespace, 4096);
        let mut batch = Requests::default();
        for number in 0..1_000 {
            Neighbour::numbered(index, number, true).add(&mut batch, NEW_NEIGHBOUR, NEW);
        }
        socket.batch(&batch, |_, _| false).unwrap();
        let mut heard = 0;
        assert_eq!(witness.drain(|_| heard += 1).unwrap(), Drained::Overrun);
        assert!(heard < 1_000);
        assert_eq!(witness.drain(|_| ()).unwrap(), Drained::Quiet, "once");
    });
}

#[test]
fn a_witness_can_be_deaf_to_its_own_and_hears_others() {
    kernel_test(Kernel::Host, "kernel::a_witness_can_be_deaf_to_its_own", || {
        let namespace = Namespace::create().unwrap();
        let (mut ours, mut theirs) = (route::socket(&namespace), route::socket(&namespace));
        ours.request(&route::device("vx0", "vxlan")).unwrap();
        let index = route::index(&mut ours, "vx0").unwrap();
        let mut witness = open(&namespace, 4096); // 10,000 notices would overrun it
        witness.ignore(ours.port()).unwrap();
        let mut batch = Requests::default();
        for number in 0..10_000 {
            Neighbour::numbered(index, number, false).add(&mut batch, NEW_NEIGHBOUR, NEW);
        }
        ours.batch(&batch, |_, _| false).unwrap();
        assert_eq!(witness.drain(|_| ()).unwrap(), Drained::Quiet);
        theirs.request(&Neighbour::numbered(index, 1, false).one(route::DEL_NEIGHBOUR, Flags::NONE)).unwrap();
        let mut from = Vec::new();
        assert_eq!(witness.drain(|notice| from.push(notice.port)).unwrap(), Drained::Changed);
        assert!(from.contains(&theirs.port()) && !from.contains(&ours.port()), "{from:?}");
    });
}

/// Prints, for each kind of change, whose port its notices have: the table in KERNEL.md.
#[test]
fn notices_have_the_port_of_who_asked_or_none_and_never_anothers() {
    kernel_test(Kernel::Host, "kernel::notices_have_the_port_of_who_asked_or_none", || {
        let namespace = Namespace::create().unwrap();
        let mut socket = route::socket(&namespace);
        let mut witness = open(&namespace, 1 << 20);
        let mut table = Table { socket: &mut socket, witness: &mut witness };
        table.row("link add (bridge)", &route::device("br0", "bridge"));
        table.row("link add (vxlan)", &route::device("vx0", "vxlan"));
        let (br0, vx0) = (table.index("br0"), table.index("vx0"));
        table.row("link up", &route::up(br0));
        table.row("link enslave", &enslave(vx0, br0));
        table.row("port flags", &port_flags(vx0));
        table.row(
            "link mtu",
            &Requests::one(route::NEW_LINK, Flags::NONE, |body| {
                route::link(body, vx0, true).u32(4, 1400);
            }),
        );
        table.row(
            "link down",
            &Requests::one(route::NEW_LINK, Flags::NONE, |body| {
                body.raw(&[0; 4]).raw(&vx0.to_ne_bytes()).raw(&[0; 4]).raw(&1_u32.to_ne_bytes());
            }),
        );
        table.row("link up", &route::up(vx0));
        table.row(
            "altname add",
            &Requests::one(108, Flags::CREATE, |body| {
                route::link(body, br0, false).nest(52, |names| {
                    names.text(53, "overlay-alternative-name");
                });
            }),
        );
        let (v4, v6) = (Ipv4Addr::new(10, 9, 0, 1), "fd00::1".parse().unwrap());
        table.row("address add (v4)", &route::address(route::NEW_ADDRESS, br0, v4.into(), 24));
        table.row("address add (v6)", &route::address(route::NEW_ADDRESS, br0, v6, 64));
        table.row("route add", &route::route(route::NEW_ROUTE, br0, Ipv4Addr::new(10, 77, 0, 0), 16));
        table.row("rule add", &route::rule(route::NEW_RULE, 777));
        neighbours(&mut table, vx0);
        table.row("rule delete", &route::rule(route::DEL_RULE, 777));
        table.row("route delete", &route::route(route::DEL_ROUTE, br0, Ipv4Addr::new(10, 77, 0, 0), 16));
        table.row("address delete (v4)", &route::address(route::DEL_ADDRESS, br0, v4.into(), 24));
        table.row("address delete (v6)", &route::address(route::DEL_ADDRESS, br0, v6, 64));
        table.row(
            "link delete",
            &Requests::one(route::DEL_LINK, Flags::NONE, |body| {
                route::link(body, vx0, false);
            }),
        );
    });
}

fn neighbours(table: &mut Table<'_>, vx0: u32) {
    for (what, forwarding) in [("neighbour", false), ("forwarding entry", true)] {
        let (one, other) = (Neighbour::numbered(vx0, 1, forwarding), Neighbour::numbered(vx0, 2, forwarding));
        let other = Neighbour { mac: one.mac, ..other };
        let changed = if forwarding { other } else { Neighbour { mac: [2; 6], ..one } };
        table.row(&format!("{what} add"), &one.one(NEW_NEIGHBOUR, NEW));
        table.row(&format!("{what} replace"), &changed.one(NEW_NEIGHBOUR, Flags::CREATE | Flags::REPLACE));
        table.row(&format!("{what} replace, same"), &changed.one(NEW_NEIGHBOUR, Flags::CREATE | Flags::REPLACE));
        table.row(&format!("{what} delete"), &changed.one(route::DEL_NEIGHBOUR, Flags::NONE));
    }
    let bridge_entry = |kind, flags| {
        Requests::one(kind, flags, |body| {
            body.raw(&[7, 0, 0, 0]).raw(&vx0.to_ne_bytes()).raw(&0xc0_u16.to_ne_bytes()).raw(&[4, 0]);
            body.attribute(2, &[2, 9, 9, 9, 9, 9]);
        })
    };
    table.row("bridge's entry add", &bridge_entry(NEW_NEIGHBOUR, NEW));
    table.row("bridge's entry delete", &bridge_entry(route::DEL_NEIGHBOUR, Flags::NONE));
}

struct Table<'a> {
    socket: &'a mut Socket,
    witness: &'a mut Notices,
}

impl Table<'_> {
    fn row(&mut self, what: &str, request: &Requests) {
        self.witness.drain(|_| ()).unwrap();
        self.socket.request(request).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let own = self.socket.port();
        let mut row = Vec::new();
        self.witness
            .drain(|notice: Message<'_>| {
                assert!(notice.port == 0 || notice.port == own, "{what}: {notice:?}");
                row.push(format!("{}{}", notice.kind, if notice.port == own { "*" } else { "" }));
            })
            .unwrap();
        println!("{what:<24} {}", row.join(" "));
    }

    fn index(&mut self, name: &str) -> u32 {
        route::index(self.socket, name).unwrap()
    }
}

fn open(namespace: &Namespace, buffer: usize) -> Notices {
    let groups = [LINK, NEIGHBOUR, IPV4_ADDRESS, IPV4_ROUTE, IPV4_RULE, IPV6_ADDRESS];
    namespace.notices(Family::Route, &groups, buffer).unwrap()
}

fn enslave(index: u32, master: u32) -> Requests {
    Requests::one(route::NEW_LINK, Flags::NONE, |body| {
        route::link(body, index, true).u32(10, master);
    })
}

fn port_flags(index: u32) -> Requests {
    Requests::one(19, Flags::NONE, |body| {
        // RTM_SETLINK
        body.raw(&[7, 0, 0, 0]).raw(&index.to_ne_bytes()).raw(&[0; 8]);
        body.nest(12, |port| {
            port.u8(8, 0).u8(32, 1).u8(33, 1); // IFLA_PROTINFO: learning off, neighbour suppression, isolated
        });
    })
}
