use std::path::Path;
use std::process::Command;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::NamespaceDir;
use overlay_kernel::netlink::{Buffers, Family, Flags, Requests, Socket};
use overlay_kernel::testing::{Fate, await_go, kill_at};

use crate::route::{self, NEW, NEW_NEIGHBOUR, Neighbour};
use crate::scratch::Scratch;

const DIR: &str = "OVERLAY_KERNEL_TEST_DIR";

#[test]
fn a_name_whose_giver_was_killed_anywhere_can_be_made_and_removed() {
    kernel_test(Kernel::Host, "kernel::a_name_whose_giver_was_killed_anywhere", || {
        let (dir, name) = (Scratch::new("killed"), "victim".parse().unwrap());
        let deaths = everywhere("killed::name_giver", &dir.path, || {
            match dir.open(&name) {
                Ok(namespace) => assert!(namespace.run(|| ()).is_ok()),
                Err(_) => drop(dir.create(&name).unwrap()),
            }
            dir.remove(&name).unwrap();
            assert_eq!(dir.names().unwrap(), []);
        });
        assert!(deaths > 100, "{deaths}");
    });
}

#[test]
fn a_batch_whose_sender_was_killed_anywhere_is_there_up_to_some_request() {
    kernel_test(Kernel::Host, "kernel::a_batch_whose_sender_was_killed_anywhere", || {
        let (dir, name) = (Scratch::new("batch"), "victim".parse().unwrap());
        let namespace = dir.create(&name).unwrap();
        let mut socket = route::socket(&namespace);
        socket.request(&route::device("vx0", "vxlan")).unwrap();
        let mut counts = std::collections::BTreeSet::new();
        everywhere("killed::batch_sender", &dir.path, || {
            let found = socket.dump(&route::neighbours(2), |entry| {
                let ip = entry.attributes(12)?.find(1)?.map(|ip| ip.be32()).transpose()?;
                Ok(ip.map(|ip| ip.wrapping_sub(0x0a40_0000)))
            });
            let mut found: Vec<_> = found.unwrap().into_iter().filter(|number| *number < 500).collect();
            found.sort_unstable();
            assert_eq!(found, (0..found.len() as u32).collect::<Vec<_>>());
            counts.insert(found.len());
            let index = route::index(&mut socket, "vx0").unwrap();
            let mut undo = Requests::default();
            for number in found {
                Neighbour::numbered(index, number, false).add(&mut undo, route::DEL_NEIGHBOUR, Flags::NONE);
            }
            socket.batch(&undo, |_, _| false).unwrap();
        });
        assert!(counts.len() > 2 && counts.contains(&0) && counts.contains(&500), "{counts:?}");
    });
}

/// Run as a child by the test of names.
#[test]
fn name_giver() {
    let Some(path) = std::env::var_os(DIR) else { return };
    await_go();
    let (dir, name) = (NamespaceDir::new(path), "victim".parse().unwrap());
    for _ in 0..2 {
        dir.create(&name).unwrap();
        dir.remove(&name).unwrap();
    }
}

/// Run as a child by the test of batches.
#[test]
fn batch_sender() {
    let Some(path) = std::env::var_os(DIR) else { return };
    let namespace = NamespaceDir::new(path).open(&"victim".parse().unwrap()).unwrap();
    let small = Buffers { send: 8 << 10, receive: 64 << 10 };
    let mut socket = namespace.run(|| Socket::with_buffers(Family::Route, small)).unwrap().unwrap();
    let index = route::index(&mut socket, "vx0").unwrap();
    let mut batch = Requests::default();
    for number in 0..500 {
        Neighbour::numbered(index, number, false).add(&mut batch, NEW_NEIGHBOUR, NEW);
    }
    await_go();
    socket.batch(&batch, |_, _| false).unwrap();
}

/// Kills the test `child` at every boundary of a system call, each time afresh, and looks at what it left. Says how
/// many deaths it died.
fn everywhere(child: &str, path: &Path, mut after: impl FnMut()) -> usize {
    for boundary in 1.. {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", child, "--test-threads", "1"]).env(DIR, path);
        let fate = kill_at(&mut command, boundary).unwrap();
        after();
        if let Fate::Finished { code, .. } = fate {
            assert_eq!(code, 0);
            return boundary - 1;
        }
    }
    unreachable!("every process ends")
}
