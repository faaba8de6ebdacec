use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::park_timeout;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{ErrorKind, Name};
use overlay_kernel::netlink::Requests;
use overlay_kernel::{Namespace, enter_private};

use crate::route;
use crate::scratch::Scratch;

#[test]
fn a_job_runs_in_the_namespace_and_its_caller_stays_where_it_was() {
    kernel_test(Kernel::Host, "kernel::a_job_runs_in_the_namespace", || {
        let before = Namespace::current().unwrap().id();
        let namespace = Namespace::create().unwrap();
        assert_ne!(namespace.id(), before);
        let borrowed = String::from("jobs may borrow");
        let (inside, length) = namespace.run(|| (Namespace::current().unwrap().id(), borrowed.len())).unwrap();
        assert_eq!((inside, length), (namespace.id(), 15));
        assert_eq!(Namespace::current().unwrap().id(), before);
    });
}

#[test]
fn a_panic_of_a_job_is_the_callers() {
    kernel_test(Kernel::Host, "kernel::a_panic_of_a_job_is_the_callers", || {
        let namespace = Namespace::create().unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| namespace.run(|| std::panic::panic_any(7_u8)))).unwrap_err();
        assert_eq!(panic.downcast_ref::<u8>(), Some(&7));
        assert!(namespace.run(|| ()).is_ok(), "the namespace is as good as before");
    });
}

#[test]
fn one_namespace_is_known_by_path_process_and_file() {
    kernel_test(Kernel::Host, "kernel::one_namespace_is_known_by_path_process_and_file", || {
        let here = Namespace::current().unwrap();
        let file: OwnedFd = here.as_fd().try_clone_to_owned().unwrap();
        for same in [
            Namespace::of_process(std::process::id()).unwrap(),
            Namespace::open("/proc/self/ns/net").unwrap(),
            Namespace::from_fd(file).unwrap(),
            here.try_clone().unwrap(),
        ] {
            assert_eq!(same.id(), here.id());
        }
        assert_eq!(here.key("host".parse().unwrap()).id, here.id());
    });
}

#[test]
fn a_name_lives_from_create_to_remove_and_is_given_once() {
    kernel_test(Kernel::Host, "kernel::a_name_lives_from_create_to_remove", || {
        let (dir, name) = (Scratch::new("name"), name("blue"));
        let made = dir.create(&name).unwrap();
        assert_eq!(dir.open(&name).unwrap().id(), made.id());
        assert_eq!(dir.names().unwrap(), std::slice::from_ref(&name));

        assert_eq!(dir.create(&name).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(dir.keep(&name, &made).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(dir.open(&name).unwrap().id(), made.id(), "a clash changes nothing");

        dir.remove(&name).unwrap();
        dir.remove(&name).unwrap();
        assert_eq!(dir.open(&name).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(dir.names().unwrap(), []);
        assert!(made.run(|| ()).is_ok(), "who holds it still has it");
    });
}

#[test]
fn a_stale_file_is_no_namespace_and_no_obstacle() {
    kernel_test(Kernel::Host, "kernel::a_stale_file_is_no_namespace_and_no_obstacle", || {
        let (dir, name) = (Scratch::new("stale"), name("stale"));
        std::fs::create_dir_all(&dir.path).unwrap();
        mkfifo(&dir.path(&name), Mode::S_IRWXU).unwrap();
        assert_eq!(dir.open(&name).unwrap_err().kind(), ErrorKind::Gone, "and nobody is waited for who writes to it");
        std::fs::remove_file(dir.path(&name)).unwrap();
        std::fs::write(dir.path(&name), "").unwrap();
        assert_eq!(dir.open(&name).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(dir.names().unwrap(), []);
        let made = dir.create(&name).unwrap();
        assert_eq!(dir.open(&name).unwrap().id(), made.id());
    });
}

#[test]
fn a_namespace_without_a_name_can_be_given_one_to_outlive_us() {
    kernel_test(Kernel::Host, "kernel::a_namespace_can_be_given_a_name", || {
        let (dir, name) = (Scratch::new("keep"), name("kept"));
        let id = {
            let namespace = Namespace::create().unwrap();
            dir.keep(&name, &namespace).unwrap();
            namespace.id()
        };
        assert_eq!(dir.open(&name).unwrap().id(), id);
    });
}

#[test]
fn a_vanished_namespace_is_gone_by_every_way_to_it() {
    kernel_test(Kernel::Host, "kernel::a_vanished_namespace_is_gone", || {
        assert_eq!(Namespace::of_process(u32::MAX).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(Namespace::open("/run/netns/no-such-namespace").unwrap_err().kind(), ErrorKind::Gone);
        let dir = Scratch::new("gone");
        assert_eq!(dir.open(&name("gone")).unwrap_err().kind(), ErrorKind::Gone);
        let file: OwnedFd = std::fs::File::open("/proc/self/status").unwrap().into();
        assert_eq!(Namespace::from_fd(file).unwrap_err().kind(), ErrorKind::Gone);
    });
}

#[test]
fn another_kind_of_namespace_is_refused_when_it_is_entered() {
    kernel_test(Kernel::Host, "kernel::another_kind_of_namespace_is_refused", || {
        let mounts = Namespace::open("/proc/self/ns/mnt").unwrap();
        assert_eq!(mounts.run(|| ()).unwrap_err().kind(), ErrorKind::Invalid);
    });
}

#[test]
fn a_process_with_threads_cannot_go_private_and_is_told_why() {
    let error = enter_private().unwrap_err(); // the test harness has threads
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("threads"), "{cause}");
}

#[test]
fn nothing_of_a_namespace_stays_when_its_last_holder_goes() {
    kernel_test(Kernel::Host, "kernel::nothing_of_a_namespace_stays", || {
        let (near, far) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        let mut socket = route::socket(&near);
        let file = far.as_fd().try_clone_to_owned().unwrap();
        let pair = Requests::one(route::NEW_LINK, route::NEW, |body| {
            route::link(body, 0, false).text(3, "near").nest(18, |info| {
                info.text(1, "veth").nest(2, |data| {
                    data.nest(1, |peer| {
                        let fd = file.as_raw_fd();
                        route::link(peer, 0, false).text(3, "far").u32(28, fd.cast_unsigned()); // IFLA_NET_NS_FD
                    });
                });
            });
        });
        socket.request(&pair).unwrap();
        assert!(route::index(&mut route::socket(&far), "far").is_ok());
        drop((file, far));
        let gone = (0..200).any(|_| {
            park_timeout(Duration::from_millis(20)); // the kernel takes it down in its own time
            route::index(&mut socket, "near").is_err()
        });
        assert!(gone, "the other end of the pair goes with the namespace");
    });
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}
