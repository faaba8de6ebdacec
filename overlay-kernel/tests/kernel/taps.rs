//! Taps: ports for whoever opens them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind as IoKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Applied, Backend, ErrorKind, IfName, Mac, Mtu, Phase, Shadow, State as _, Table, reconcile};
use overlay_kernel::link::{BridgePort, Kind, Link, Links, State, Tap};
use overlay_kernel::testing::{await_go, judge};
use overlay_kernel::{Feature, Found, Namespace, NamespaceDir, QueueFlags, TapQueue, probe};

use crate::killed::{DIR, everywhere};
use crate::links;
use crate::links_faults::{BRIDGE, dev, fault, open, with};
use crate::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(10);
const MULTI_QUEUE: QueueFlags = QueueFlags { multi_queue: true, vnet_hdr: false };

/// Whether this process may make taps: where `/dev/net/tun` is root's, an ordinary user may not.
pub(crate) fn possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| probe().of(Feature::Tun).is_some_and(Found::is_available))
}

/// Runs a test as root; an ordinary user may lack the device, and has no other users.
fn test(name: &str, body: impl FnOnce() + std::panic::UnwindSafe) {
    kernel_test(Kernel::Host, name, || {
        if !crate::ordinary::is_root_outside() {
            return;
        }
        assert!(possible(), "{:?}", probe().of(Feature::Tun));
        body();
    });
}

fn tap0() -> IfName {
    "tap0".parse().unwrap()
}

/// A bridge with a tap as its port.
fn plugged(tap: Tap) -> State {
    let mut state = with([("br0", BRIDGE), ("tap0", Kind::Tap(tap))]);
    let port = BridgePort { learning: false, flood: false, ..BridgePort::new("br0".parse().unwrap()) };
    state.links.get_mut(&dev("tap0")).unwrap().port = Some(port);
    state.stations.insert((dev("br0"), Mac::new([2, 0x42, 0, 0, 0, 1])), tap0());
    state
}

fn shown(home: &Namespace) -> String {
    judge(home, "ip", &["-d", "link", "show", "dev", "tap0"])
}

#[test]
fn a_tap_is_as_wanted_stays_and_goes() {
    test("kernel::a_tap_is_as_wanted_stays_and_goes", || {
        let home = Namespace::create().unwrap();
        let before = links::whole(&home);
        let mut links = open("taps", &home);
        for tap in [
            Tap::new(),
            Tap { multi_queue: true, owner: Some(1000), group: Some(1001) },
            Tap { multi_queue: false, owner: None, group: Some(7) },
            Tap { multi_queue: true, owner: None, group: None },
        ] {
            reconcile(&mut links, &plugged(tap)).unwrap();
            assert_eq!(open("taps", &home).observe().unwrap(), plugged(tap));
            assert!(reconcile(&mut links, &plugged(tap)).unwrap().is_empty());
            while !shown(&home).contains("NO-CARRIER") {} // an older kernel says so in the next second
            let shown = shown(&home);
            for part in
                ["mtu 1400", "state disabled", "link/ether 02:42:00:00:09:02", "tun type tap pi off", "master br0"]
            {
                assert!(shown.contains(part), "{part}: {shown}");
            }
            assert!(shown.contains("persist on"), "{shown}");
            assert_eq!(shown.contains("multi_queue numqueues 0"), tap.multi_queue, "{shown}");
        }
        reconcile(&mut links, &State::default()).unwrap();
        assert_eq!(links::whole(&home), before);
    });
}

/// A frame of this number.
fn frame((to, from): (Mac, Mac), number: u8) -> Vec<u8> {
    let mut frame = [to.octets(), from.octets()].concat();
    frame.extend([0x88, 0xb5]); // an EtherType for experiments (IEEE 802)
    frame.resize(60, number);
    frame
}

/// Opens a tap that nobody has open. Who made it had, or who had it closed it, and a process that another test began just then has
/// that file for a moment longer.
fn queue(home: &Namespace, name: IfName, flags: QueueFlags) -> TapQueue {
    let began = Instant::now();
    loop {
        match TapQueue::open(home, name, flags) {
            Err(error) if error.kind() == ErrorKind::Conflict && began.elapsed() < PATIENCE => thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// A tap's file that does not wait.
fn opened(home: &Namespace, name: IfName, flags: QueueFlags) -> File {
    let queue = queue(home, name, flags);
    fcntl(&queue, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    OwnedFd::from(queue).into()
}

/// The number of the next that is one of [`frame`]'s.
fn next(file: &mut File) -> u8 {
    let began = Instant::now();
    let mut buffer = [0; 2048];
    loop {
        match file.read(&mut buffer) {
            Ok(len) if buffer[12..14] == [0x88, 0xb5] => return buffer[len - 1],
            Ok(_) => {}
            Err(error) if error.kind() == IoKind::WouldBlock && began.elapsed() < PATIENCE => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_is_written_to_a_tap_comes_out_of_another_while_both_are_open() {
    test("kernel::what_is_written_to_a_tap_comes_out_of_another", || {
        let home = Namespace::create().unwrap();
        let [one, two] = [1, 2].map(|number| Mac::new([2, 0x42, 0, 0, 0, number]));
        let mut wanted = plugged(Tap::new());
        let port = wanted.links[&dev("tap0")].port;
        let other =
            Link { port, ..Link::new(Kind::Tap(Tap::new()), Mtu::new(1400).unwrap(), Mac::new([2, 0, 0, 0, 0, 9])) };
        wanted.links.insert(dev("tap1"), other);
        wanted.stations.insert((dev("br0"), two), "tap1".parse().unwrap());
        let mut links = Shadow::new(open("taps", &home));
        reconcile(&mut links, &wanted).unwrap();
        let mut here = opened(&home, tap0(), QueueFlags::default());
        here.write_all(&frame((two, one), 1)).unwrap(); // the other has no carrier yet
        let mut there = opened(&home, "tap1".parse().unwrap(), QueueFlags::default());
        while !judge(&home, "bridge", &["link", "show", "dev", "tap1"]).contains("state forwarding") {}
        here.write_all(&frame((two, one), 2)).unwrap();
        there.write_all(&frame((one, two), 3)).unwrap();
        assert_eq!([next(&mut there), next(&mut here)], [2, 3]);
        here.write_all(&frame((Mac::new([2, 0, 0, 0, 0, 77]), one), 4)).unwrap(); // for nobody that is known
        here.write_all(&frame((two, one), 5)).unwrap();
        assert_eq!(next(&mut there), 5);
        assert!(reconcile(&mut links, &wanted).unwrap().is_empty());
    });
}

#[test]
fn a_tap_in_use_is_as_wanted_however_it_was_opened_and_is_open_once_for_each_queue() {
    test("kernel::a_tap_in_use_is_as_wanted_however_it_was_opened", || {
        let home = Namespace::create().unwrap();
        let mut links = Shadow::new(open("taps", &home));
        let wanted = plugged(Tap::new());
        reconcile(&mut links, &wanted).unwrap();
        let open = |flags| TapQueue::open(&home, tap0(), flags).map_err(|error| error.kind());
        let held = queue(&home, tap0(), QueueFlags { multi_queue: false, vnet_hdr: true });
        assert!(shown(&home).contains("vnet_hdr on"), "{}", shown(&home));
        assert_eq!(open(QueueFlags::default()).unwrap_err(), ErrorKind::Conflict);
        assert_eq!(open(MULTI_QUEUE).unwrap_err(), ErrorKind::Invalid);
        assert!(reconcile(&mut links, &wanted).unwrap().is_empty());
        drop(held);
        assert!(reconcile(&mut links, &wanted).unwrap().is_empty());
        queue(&home, tap0(), QueueFlags::default());

        let several = plugged(Tap { multi_queue: true, ..Tap::new() });
        let plan = reconcile(&mut links, &several).unwrap().to_string();
        assert!(
            plan.contains("clear link tap0\n") && plan.contains("add link tap0: tap of user 0 with several"),
            "{plan}"
        );
        let held = [(); 3].map(|()| open(MULTI_QUEUE).unwrap());
        assert!(reconcile(&mut links, &several).unwrap().is_empty());
        reconcile(&mut links, &State::default()).unwrap(); // also while it is open
        assert_eq!(open(MULTI_QUEUE).unwrap_err(), ErrorKind::Gone);
        drop(held);
        assert_eq!(open(MULTI_QUEUE).unwrap_err(), ErrorKind::Gone);
        assert_eq!(judge(&home, "ip", &["-br", "link"]).lines().count(), 1); // lo
    });
}

/// Also what whoever has it open can change without any privilege: its Ethernet address, its owner, whether it stays.
#[test]
fn what_others_change_of_a_tap_is_repaired() {
    test("kernel::what_others_change_of_a_tap_is_repaired", || {
        let home = Namespace::create().unwrap();
        let mut links = Shadow::new(open("taps", &home));
        let wanted = plugged(Tap::new());
        reconcile(&mut links, &wanted).unwrap();
        for damage in [
            "ip link set tap0 address 02:42:00:00:00:01", // the machine's: frames for it would be the bridge's
            "ip link set tap0 nomaster",
            "ip link set tap0 mtu 1300",
            "ip link set tap0 down",
            "ip link set tap0 group 0",
            "bridge fdb flush dev br0",
            "ip tuntap del dev tap0 mode tap",
        ] {
            judge(&home, "sh", &["-ec", damage]);
            assert!(!reconcile(&mut links, &wanted).unwrap().is_empty(), "{damage}");
            assert_eq!(open("taps", &home).observe().unwrap(), wanted, "{damage}");
        }
    });
}

#[test]
fn a_tap_is_opened_by_its_owner_and_its_group_only() {
    test("kernel::a_tap_is_opened_by_its_owner_and_its_group_only", || {
        let home = Namespace::create().unwrap();
        let mut links = open("taps", &home);
        let with_device = |user: u32, group: u32| {
            let user = format!("--reuid={user}");
            let group = format!("--regid={group}");
            // To remove a tap, `ip tuntap` opens it.
            let args = [&*user, &*group, "--clear-groups", "ip", "tuntap", "del", "dev", "tap0", "mode", "tap"];
            home.run(|| Command::new("setpriv").args(args).output()).unwrap().unwrap()
        };
        private_devices(|| {
            for (tap, strangers, friend) in [
                (Tap { owner: Some(1000), ..Tap::new() }, [(1001, 1000), (65_534, 0)], (1000, 1001)),
                (Tap { owner: None, group: Some(1000), ..Tap::new() }, [(1000, 1001), (0, 7)], (1001, 1000)),
            ] {
                for stranger in strangers.into_iter().filter(|(user, _)| *user != 0) {
                    reconcile(&mut links, &plugged(tap)).unwrap();
                    let output = with_device(stranger.0, stranger.1);
                    let text = String::from_utf8_lossy(&output.stderr);
                    assert!(
                        !output.status.success() && text.contains("not permitted"),
                        "{stranger:?} at {tap}: {text}"
                    );
                    assert_eq!(links.observe().unwrap(), plugged(tap));
                }
                let output = with_device(friend.0, friend.1);
                assert!(output.status.success(), "{friend:?} at {tap}: {}", String::from_utf8_lossy(&output.stderr));
                assert!(!links.observe().unwrap().links.contains_key(&dev("tap0")));
            }
        });
    });
}

/// Runs a job where `/dev/net` is its own and everybody may open what is in it.
fn private_devices(job: impl FnOnce() + Send) {
    in_devices(MsFlags::empty(), true, job);
}

/// Runs a job on a thread with a `/dev/net` of its own, with the device of taps or without.
fn in_devices<T: Send>(flags: MsFlags, tun: bool, job: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let job = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&OsStr>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("tmpfs"), "/dev/net", Some("tmpfs"), flags, none).unwrap();
            if tun {
                mknod("/dev/net/tun", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 200)).unwrap();
                judge(&Namespace::current().unwrap(), "chmod", &["666", "/dev/net/tun"]);
            }
            job()
        };
        scope.spawn(job).join().unwrap()
    })
}

#[test]
fn without_the_device_of_taps_or_the_right_to_it_they_are_refused_by_name() {
    test("kernel::without_the_device_of_taps_they_are_refused_by_name", || {
        let home = Namespace::create().unwrap();
        let mut links = open("taps", &home);
        let wanted = with([("br0", BRIDGE), ("tap0", Kind::Tap(Tap::new()))]);
        let missing = in_devices(MsFlags::empty(), false, || (fault(&mut links, &wanted), probe()));
        let forbidden = in_devices(MsFlags::MS_NODEV, true, || (fault(&mut links, &wanted), probe()));
        let words = ["No such file or directory", "Permission denied"];
        let kinds = [ErrorKind::Unsupported, ErrorKind::Permission];
        for (((fault, report), words), wanted) in [missing, forbidden].into_iter().zip(words).zip(kinds) {
            let (step, applied, kind, text) = fault;
            assert!(step.starts_with("add link tap0: tap of user 0 02:42"), "{step}");
            assert_eq!(kind, wanted, "{text}");
            assert_ne!(applied, Applied::Unknown);
            assert!(text.starts_with("make link tap0: ") && text.contains("/dev/net/tun: "), "{text}");
            assert!(text.contains(words), "{text}");
            let found = report.of(Feature::Tun).unwrap().to_string();
            assert!(found.contains("missing") && found.contains("/dev/net/tun") && found.contains(words), "{found}");
        }
        assert!(reconcile(&mut links, &wanted).unwrap().to_string().contains("add link tap0"));
    });
}

#[test]
fn a_tap_that_cannot_be_finished_is_not_begun() {
    test("kernel::a_tap_that_cannot_be_finished_is_not_begun", || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["tuntap", "add", "dev", "tap0", "mode", "tap"]);
        let mut links = open("taps", &home);
        let alone = |tap| with([("tap0", Kind::Tap(tap))]);
        let (_, applied, kind, text) = fault(&mut links, &alone(Tap::new()));
        assert_eq!((applied, kind), (Applied::Nothing, ErrorKind::Conflict), "{text}");
        assert!(shown(&home).contains("mtu 1500"));
        judge(&home, "ip", &["link", "del", "tap0"]);

        // Its bridge goes between the plan and the tap.
        reconcile(&mut links, &with([("br0", BRIDGE)])).unwrap();
        let plan = links.observe().unwrap().plan(&plugged(Tap::new()));
        judge(&home, "ip", &["link", "del", "br0"]);
        let failed = open("taps", &home).apply(&plan).unwrap_err();
        assert_eq!((failed.applied, failed.source.kind()), (Applied::Nothing, ErrorKind::Gone), "{failed}");
        let began = Instant::now();
        let only_lo = || judge(&home, "ip", &["-br", "link"]).lines().count() == 1;
        // It goes with its file, which a process that another test begins just then has for a moment longer.
        while !only_lo() {
            assert!(began.elapsed() < PATIENCE);
        }

        for unfit in [Tap { owner: Some(u32::MAX), ..Tap::new() }, Tap { group: Some(u32::MAX), ..Tap::new() }] {
            assert!(alone(unfit).check().unwrap_err().to_string().contains("no user or group has the last number"));
        }
        let large = |mtu| {
            let mut state = alone(Tap::new());
            state.links.values_mut().for_each(|link| link.mtu = Mtu::new(mtu).unwrap());
            state
        };
        reconcile(&mut links, &large(65_521)).unwrap();
        assert!(large(65_522).check().unwrap_err().to_string().contains("65521 at most"));
    });
}

#[test]
fn a_tap_whose_maker_was_killed_anywhere_is_whole_or_not_there() {
    test("kernel::a_tap_whose_maker_was_killed_anywhere_is_whole_or_not_there", || {
        let (dir, name) = (Scratch::new("tap"), "home".parse().unwrap());
        let home = dir.create(&name).unwrap();
        let before = links::whole(&home);
        let wanted = with([("tap0", Kind::Tap(Tap::new()))]);
        let mut seen = [0; 2];
        everywhere("taps::maker", &dir.path, || {
            let found = maker_of(&home).observe().unwrap();
            let there = found != State::default();
            seen[usize::from(there)] += 1;
            if there {
                let down = |mut state: State| {
                    state.links.values_mut().for_each(|link| link.up = false);
                    state
                };
                assert_eq!(down(found), down(wanted.clone()));
                let text = shown(&home);
                assert!(text.contains("persist on"), "{text}");
                reconcile(&mut maker_of(&home), &State::default()).unwrap();
            }
            assert_eq!(links::whole(&home), before);
        });
        assert!(seen.into_iter().all(|deaths| deaths > 0), "{seen:?}");
    });
}

fn maker_of(home: &Namespace) -> Links {
    open("tap-maker", home)
}

/// Run as a child by the test before.
#[test]
fn maker() {
    let Some(path) = std::env::var_os(DIR) else { return };
    let home = NamespaceDir::new(path).open(&"home".parse().unwrap()).unwrap();
    let mut links = maker_of(&home);
    let plan = Table::<State>::plan(&mut links, &with([("tap0", Kind::Tap(Tap::new()))])).unwrap();
    await_go();
    for phase in Phase::ALL {
        Table::<State>::run(&mut links, &plan, phase).unwrap();
    }
}
