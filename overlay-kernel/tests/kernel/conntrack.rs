//! Flows in the kernel.

use std::net::{IpAddr, UdpSocket};

use overlay_core::reconcile;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::Namespace;
use overlay_kernel::conntrack::Conntrack;
use overlay_kernel::nft::{Base, Chain, CtState, Family, Field, Hook, Mark, Table, th};
use overlay_kernel::testing::judge;

use crate::nft::{name, one, open, rule};

/// A namespace whose flows are tracked; those to port 7002 have the mark 5.
fn tracked() -> Namespace {
    let home = Namespace::create().unwrap();
    judge(&home, "ip", &["link", "set", "lo", "up"]);
    let mut table = Table::default();
    let rules = vec![
        rule("marked").eq(&th::DPORT, 7002).set_ct_mark(&Field::value(Mark(5))),
        rule("tracked").ct_state(CtState::INVALID).drop(),
    ];
    table.chains.insert(name("output"), Chain::base(Base::filter(Hook::Output, 0), rules));
    reconcile(&mut open("flows", &home), &one(Family::Inet, table)).unwrap();
    let zone = "add table ip z; add chain ip z c { type filter hook output priority raw; }; \
                add rule ip z c udp dport 7003 ct zone set 9";
    judge(&home, "nft", &[zone]);
    home
}

fn talk(home: &Namespace, to: &str) {
    let sent = home.run(|| {
        let local = if to.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" };
        UdpSocket::bind(local).unwrap().send_to(b"hello", to).unwrap()
    });
    assert_eq!(sent.unwrap(), 5);
}

#[test]
fn flows_are_told_as_they_are_and_cut_where_they_are_to_go() {
    kernel_test(Kernel::Host, "kernel::conntrack_flows_are_told_and_cut", || {
        let home = tracked();
        let mut flows = Conntrack::open(&home).unwrap();
        assert_eq!(flows.flows().unwrap(), []);
        for to in ["127.0.0.1:7001", "127.0.0.2:7001", "127.0.0.1:7002", "127.0.0.1:7003", "[::1]:7001"] {
            talk(&home, to);
        }
        let udp = |flows: &mut Conntrack| {
            let mut found = flows.flows().unwrap();
            found.retain(|flow| flow.protocol == 17);
            found
        };
        let found = udp(&mut flows);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(
            found
                .iter()
                .all(|flow| flow.reply.from == flow.original.to && flow.reply.from_port == flow.original.to_port)
        );
        let marked: Vec<_> = found.iter().filter(|flow| flow.mark == 5).map(|flow| flow.original.to_port).collect();
        assert_eq!(marked, [7002]);

        let gone: IpAddr = [127, 0, 0, 2].into();
        assert_eq!(flows.cut(|flow| flow.touches(gone)).unwrap(), 1);
        assert_eq!(flows.cut(|flow| flow.touches(gone)).unwrap(), 0);
        assert_eq!(flows.cut(|flow| flow.mark == 5).unwrap(), 1);
        assert_eq!(flows.cut(|flow| flow.zone == 9).unwrap(), 1);
        let left: Vec<_> = udp(&mut flows).into_iter().map(|flow| flow.original.to.to_string()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&"127.0.0.1".to_owned()) && left.contains(&"::1".to_owned()), "{left:?}");
    });
}

#[test]
fn thousands_of_flows_are_cut_at_once() {
    kernel_test(Kernel::Host, "kernel::conntrack_thousands_of_flows_are_cut", || {
        let home = tracked();
        let sent = home.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            (10_000..13_000_u16).filter(|port| socket.send_to(b"x", ("127.0.0.1", *port)).is_ok()).count()
        });
        let mut flows = Conntrack::open(&home).unwrap();
        let cut = flows.cut(|flow| flow.protocol == 17 && flow.original.to_port < 13_000).unwrap();
        println!("{cut} of {} flows cut", sent.unwrap());
        assert!(cut > 1000);
        assert!(!flows.flows().unwrap().iter().any(|flow| flow.protocol == 17), "{:?}", flows.flows().unwrap());
    });
}
