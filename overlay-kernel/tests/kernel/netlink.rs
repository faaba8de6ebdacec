use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Applied, ErrorKind};
use overlay_kernel::Namespace;
use overlay_kernel::netlink::{Body, Buffers, Family, Flags, GenericFamily, NetlinkError, Requests, Socket};
use overlay_kernel::testing::judge;

use crate::route::{self, NEW, NEW_NEIGHBOUR, Neighbour};

#[test]
fn a_refusal_has_the_kernels_number_and_words() {
    kernel_test(Kernel::Host, "kernel::a_refusal_has_the_kernels_number_and_words", || {
        let mut socket = route::socket(&Namespace::create().unwrap());
        socket.request(&route::device("vx0", "vxlan")).unwrap();
        let clash = socket.request(&route::device("vx1", "vxlan")).unwrap_err();
        let NetlinkError::Refused { errno: 17, text: Some(text) } = &clash else { panic!("{clash:?}") };
        assert!(text.contains("VNI"), "{text}");
        let error = clash.during("create vx1");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("VNI"));
    });
}

#[test]
fn a_name_clash_a_missing_device_and_a_missing_feature_have_kinds_of_their_own() {
    kernel_test(Kernel::Host, "kernel::refusals_have_kinds_of_their_own", || {
        let mut socket = route::socket(&Namespace::create().unwrap());
        socket.request(&route::device("br0", "bridge")).unwrap();
        let kinds = [
            (route::device("br0", "bridge"), ErrorKind::Conflict),
            (route::up(999), ErrorKind::Gone),
            (route::device("x0", "no-such-kind"), ErrorKind::Unsupported),
            (route::device("a-name-that-is-too-long", "bridge"), ErrorKind::Invalid),
        ];
        for (request, kind) in kinds {
            let error = socket.request(&request).unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
        }
    });
}

#[test]
fn a_dump_tells_what_ip_tells() {
    kernel_test(Kernel::Host, "kernel::a_dump_tells_what_ip_tells", || {
        let namespace = Namespace::create().unwrap();
        let mut socket = route::socket(&namespace);
        for name in ["br0", "br1", "br2"] {
            socket.request(&route::device(name, "bridge")).unwrap();
        }
        let all = Requests::one(route::GET_LINK, Flags::NONE, |body| {
            route::link(body, 0, false);
        });
        let names = socket.dump(&all, |link| {
            let name = link.attributes(16)?.find(3)?;
            name.map(|name| name.text().map(str::to_owned)).transpose()
        });
        let told = judge(&namespace, "ip", &["-o", "link"]);
        let told: Vec<_> = told.lines().filter_map(|line| line.split(": ").nth(1)).collect();
        assert_eq!(names.unwrap(), told);
    });
}

#[test]
fn a_batch_larger_than_every_buffer_is_split_and_whole() {
    kernel_test(Kernel::Host, "kernel::a_batch_larger_than_every_buffer_is_split_and_whole", || {
        let namespace = Namespace::create().unwrap();
        let index = vxlan(&namespace);
        let small = Buffers { send: 8 << 10, receive: 16 << 10 };
        let mut socket = namespace.run(|| Socket::with_buffers(Family::Route, small)).unwrap().unwrap();
        assert!(socket.buffers().send <= 16 << 10);
        let mut batch = Requests::default();
        for number in 0..5_000 {
            Neighbour::numbered(index, number, true).add(&mut batch, NEW_NEIGHBOUR, NEW);
        }
        socket.batch(&batch, |_, _| false).unwrap();
        assert_eq!(count(&mut socket), 5_000);

        // All 5,000 refusals are heard, though they fill the receive buffer many times over.
        let mut refused = Vec::new();
        let again = socket.batch(&batch, |at, errno| {
            refused.push(at);
            errno == 17
        });
        again.unwrap();
        assert_eq!(refused, (0..5_000).collect::<Vec<_>>());
    });
}

#[test]
fn a_batch_names_the_first_refusal_and_sends_nothing_after_its_part() {
    kernel_test(Kernel::Host, "kernel::a_batch_names_the_first_refusal", || {
        let namespace = Namespace::create().unwrap();
        let index = vxlan(&namespace);
        let small = Buffers { send: 8 << 10, receive: 64 << 10 };
        let mut socket = namespace.run(|| Socket::with_buffers(Family::Route, small)).unwrap().unwrap();
        let mut batch = Requests::default();
        for number in 0..1_000 {
            let index = if number == 100 { 999 } else { index };
            Neighbour::numbered(index, number, true).add(&mut batch, NEW_NEIGHBOUR, NEW);
        }
        let error = socket.batch(&batch, |_, _| false).unwrap_err();
        assert_eq!(error.at, 100);
        assert_eq!(error.source.kind(), ErrorKind::Gone);
        assert_eq!(error.applied(), Applied::Unknown, "what was sent with it is in effect");
        assert!((101..1_000).contains(&error.sent));
        assert_eq!(count(&mut socket), error.sent - 1);
    });
}

#[test]
fn a_batch_of_one_says_exactly_what_is_in_effect() {
    kernel_test(Kernel::Host, "kernel::a_batch_of_one_says_exactly_what_is_in_effect", || {
        let mut socket = route::socket(&Namespace::create().unwrap());
        let wrong = Neighbour::numbered(999, 1, true).one(NEW_NEIGHBOUR, NEW);
        assert_eq!(socket.batch(&wrong, |_, _| false).unwrap_err().applied(), Applied::Before);
    });
}

#[test]
fn a_request_larger_than_the_buffer_is_refused_with_the_limit() {
    kernel_test(Kernel::Host, "kernel::a_request_larger_than_the_buffer_is_refused", || {
        let namespace = Namespace::create().unwrap();
        let small = Buffers { send: 8 << 10, receive: 16 << 10 };
        let mut socket = namespace.run(|| Socket::with_buffers(Family::Route, small)).unwrap().unwrap();
        let large = Requests::one(route::NEW_LINK, NEW, |body| {
            route::link(body, 0, true).attribute(999, &[0; 60_000]);
        });
        let error = socket.request(&large).unwrap_err();
        let limit = socket.buffers().send - 32;
        assert!(matches!(error, NetlinkError::TooLarge { limit: l, size: 60_036.., .. } if l == limit), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!(socket.batch(&large, |_, _| false).unwrap_err().applied(), Applied::Nothing);

        let nested = Requests::one(route::NEW_LINK, NEW, |body| {
            body.nest(18, |info| {
                info.attribute(1, &[0; 40_000]).attribute(1, &[0; 40_000]);
            });
        });
        let error = socket.request(&nested).unwrap_err();
        assert!(matches!(error, NetlinkError::TooLarge { what: "an attribute", limit: 65_535, .. }), "{error:?}");
    });
}

#[test]
fn a_lost_reply_is_missed_within_the_deadline_and_the_socket_asks_on() {
    kernel_test(Kernel::Host, "kernel::a_lost_reply_is_missed_within_the_deadline", || {
        let deadline = Duration::from_millis(50);
        let mut socket = route::socket(&Namespace::create().unwrap()).deadline(deadline);
        lose_replies(&socket);
        let error = socket.request(&route::device("br0", "bridge")).unwrap_err();
        assert!(matches!(error, NetlinkError::NoAnswer { deadline: d } if d == deadline), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let error = socket.batch(&route::device("br1", "bridge"), |_, _| false).unwrap_err();
        assert_eq!(error.applied(), Applied::Unknown, "it is in effect, but who could know");

        socket2::SockRef::from(&socket).detach_filter().unwrap();
        assert!(route::index(&mut socket, "br0").is_ok(), "it was in effect all the same");
    });
}

#[test]
fn an_answer_that_overruns_the_buffer_is_an_overrun_and_not_silence() {
    kernel_test(Kernel::Host, "kernel::an_answer_that_overruns_the_buffer", || {
        let namespace = Namespace::create().unwrap();
        let mut socket = route::socket(&namespace);
        for number in 0..20 {
            socket.request(&route::device(&format!("br{number}"), "bridge")).unwrap();
        }
        let tiny = Buffers { send: 64 << 10, receive: 0 }; // the kernel gives its least, 2,304 bytes
        let mut socket = namespace.run(|| Socket::with_buffers(Family::Route, tiny)).unwrap().unwrap();
        // Every message answers; the kernel does not wait for room.
        let mut asks = Requests::default();
        for _ in 0..20 {
            asks.add(route::GET_LINK, Flags::ACK, |body| {
                route::link(body, 0, false).text(3, "br1");
            });
        }
        let error = socket.transaction(&asks).unwrap_err();
        assert!(matches!(error.source, NetlinkError::Overrun { .. }), "{error:?}");
        assert_eq!((error.source.kind(), error.applied()), (ErrorKind::Interrupted, Applied::Unknown));
        assert!(socket.request(&route::up(1)).is_ok(), "it works again");
    });
}

#[test]
fn without_the_privilege_nothing_is_changed_and_the_error_says_so() {
    kernel_test(Kernel::Host, "kernel::without_the_privilege_nothing_is_changed", || {
        crate::ordinary::as_nobody("netlink::unprivileged_child");
    });
}

/// Run by the test above as a user without any privilege.
#[test]
fn unprivileged_child() {
    if std::env::var_os(crate::ordinary::NOBODY_HERE).is_none() {
        return;
    }
    let mut socket = Socket::open(Family::Route).unwrap();
    let error = socket.request(&route::device("overlay-no", "bridge")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error:?}");
    assert_eq!(Namespace::create().unwrap_err().kind(), ErrorKind::Permission);
    assert_eq!(Namespace::current().unwrap().run(|| ()).unwrap_err().kind(), ErrorKind::Permission);
}

#[test]
fn a_generic_family_is_found_by_name_or_is_not_there() {
    kernel_test(Kernel::Host, "kernel::a_generic_family_is_found_by_name", || {
        let mut socket = Socket::open(Family::Generic).unwrap();
        let controller = GenericFamily::find(&mut socket, "nlctrl").unwrap().unwrap();
        assert_eq!(controller.id, 0x10);
        assert_eq!(GenericFamily::find(&mut socket, "no-such-family").unwrap(), None);
    });
}

#[test]
fn a_socket_stays_in_the_namespace_it_was_born_in() {
    kernel_test(Kernel::Host, "kernel::a_socket_stays_in_the_namespace_it_was_born_in", || {
        let namespace = Namespace::create().unwrap();
        let mut socket = route::socket(&namespace);
        let other = Namespace::create().unwrap();
        other.run(|| socket.request(&route::device("br0", "bridge"))).unwrap().unwrap();
        assert!(route::index(&mut socket, "br0").is_ok());
        assert!(route::index(&mut route::socket(&other), "br0").is_err());
    });
}

#[test]
fn what_changes_under_a_dump_is_read_again_but_not_for_ever() {
    kernel_test(Kernel::Host, "kernel::what_changes_under_a_dump_is_read_again", || {
        let namespace = Namespace::create().unwrap();
        let (mut reader, mut writer) = (route::socket(&namespace), route::socket(&namespace));
        for number in 0..100 {
            writer.request(&route::device(&format!("br{number}"), "bridge")).unwrap(); // some datagrams to list
        }
        let (found, tries) = links(&mut reader, |attempt| {
            if attempt <= 3 {
                writer.request(&route::device(&format!("new{attempt}"), "bridge")).unwrap();
            }
        });
        assert_eq!((found.unwrap(), tries), (1 + 100 + 3, 4));

        let (found, tries) = links(&mut reader, |attempt| {
            writer.request(&route::device(&format!("more{attempt}"), "bridge")).unwrap();
        });
        let error = found.unwrap_err();
        assert!(matches!(error, NetlinkError::Changing { tries: t } if t == tries), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        assert!(route::index(&mut reader, "br7").is_ok(), "the socket asks on");
    });
}

#[test]
fn a_transaction_is_whole_or_nothing_and_grows_the_buffer_as_far_as_it_may() {
    kernel_test(Kernel::Host, "kernel::a_transaction_is_whole_or_nothing", || {
        let namespace = Namespace::create().unwrap();
        let open = || Socket::with_buffers(Family::Netfilter, Buffers { send: 8 << 10, receive: 64 << 10 });
        let mut socket = namespace.run(open).unwrap().unwrap();
        let error = socket.transaction(&tables(&["one", &"x".repeat(300), "two"])).unwrap_err();
        assert_eq!((error.at, error.applied()), (2, Applied::Nothing), "{error:?}");
        assert_eq!(names_of_tables(&mut socket), <[&str; 0]>::default());
        socket.transaction(&tables(&["one", "two"])).unwrap();
        assert_eq!(names_of_tables(&mut socket), ["one", "two"]);

        let names: Vec<_> = (0..1_000).map(|number| format!("table-{number}")).collect();
        socket.transaction(&tables(&names)).unwrap();
        assert_eq!(names_of_tables(&mut socket).len(), 1_002);
    });
}

#[test]
fn a_transaction_beyond_every_limit_is_refused_with_the_limit() {
    kernel_test(Kernel::Host, "kernel::a_transaction_beyond_every_limit_is_refused", || {
        let namespace = Namespace::create().unwrap();
        let mut socket = namespace.run(|| Socket::open(Family::Netfilter)).unwrap().unwrap();
        let names: Vec<_> = (0..3_000).map(|number| format!("{number}-{}", "x".repeat(4_000))).collect();
        let large = tables(&names); // 12 MB of names that are too long
        let error = socket.transaction(&large).unwrap_err();
        assert_eq!(error.applied(), Applied::Nothing);
        match error.source {
            NetlinkError::Refused { .. } => {} // this user may have any buffer
            NetlinkError::TooLarge { limit, size, .. } => {
                assert_eq!(size, large.size());
                assert_eq!(limit, socket.buffers().send - 32);
                assert!(error.source.to_string().contains("net.core.wmem_max"), "{}", error.source);
            }
            other => panic!("{other:?}"),
        }
    });
}

/// A transaction that makes nf_tables tables of the bridge family, which every kernel here has.
fn tables(names: &[impl AsRef<str>]) -> Requests {
    let border = |body: &mut Body<'_>| {
        body.raw(&[0, 0, 0, 10]);
    };
    let mut batch = Requests::default();
    batch.add(16, Flags::NONE, border);
    for (number, name) in (1..).zip(names) {
        let flags = if number == names.len() { Flags::CREATE | Flags::ACK } else { Flags::CREATE };
        batch.add(10 << 8, flags, |body| {
            body.raw(&[7, 0, 0, 0]).text(1, name.as_ref());
        });
    }
    batch.add(17, Flags::NONE, border);
    batch
}

fn names_of_tables(socket: &mut Socket) -> Vec<String> {
    let all = Requests::one(10 << 8 | 1, Flags::NONE, |body| {
        body.raw(&[7, 0, 0, 0]);
    });
    let names =
        socket.dump(&all, |table| table.attributes(4)?.find(1)?.map(|name| Ok(name.text()?.to_owned())).transpose());
    names.unwrap()
}

/// Counts links, and calls `meanwhile` with the number of each attempt while it is read.
fn links(socket: &mut Socket, mut meanwhile: impl FnMut(usize)) -> (Result<usize, NetlinkError>, usize) {
    let all = Requests::one(route::GET_LINK, Flags::NONE, |body| {
        route::link(body, 0, false);
    });
    let mut attempts = 0;
    let found = socket.dump(&all, |link| {
        let [_, _, _, _, a, b, c, d] = link.head()?;
        if u32::from_ne_bytes([a, b, c, d]) == 1 {
            attempts += 1; // the loopback device comes first
            meanwhile(attempts);
        }
        Ok(Some(()))
    });
    (found.map(|links| links.len()), attempts)
}

fn vxlan(namespace: &Namespace) -> u32 {
    let mut socket = route::socket(namespace);
    socket.request(&route::device("vx0", "vxlan")).unwrap();
    route::index(&mut socket, "vx0").unwrap()
}

/// Forwarding entries of ours.
fn count(socket: &mut Socket) -> usize {
    let found = socket.dump(&route::neighbours(7), |entry| {
        let mac = entry.attributes(12)?.find(2)?;
        Ok(mac.filter(|mac| mac.value.first() == Some(&2)).map(drop))
    });
    found.unwrap().len()
}

/// Makes the kernel drop whatever it answers to this socket.
fn lose_replies(socket: &Socket) {
    let drop_all = socket2::SockFilter::new(0x06, 0, 0, 0); // return 0
    socket2::SockRef::from(socket).attach_filter(&[drop_all]).unwrap();
}
