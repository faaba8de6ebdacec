//! Other processes: one finds what another made, also what one left that was killed.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{IpFamily, Owner, Plan, Shadow, reconcile};
use overlay_kernel::testing::{Fate, await_go, kill_at};
use overlay_kernel::{Namespace, NamespaceDir};
use overlay_vxlan::{PortEnd, Sandbox, Segment, State};

use crate::lab::{Lab, lost};
use crate::{HERE, NONE_LOST, THERE};

/// Where the lab is, for a child.
const PATHS: &str = "OVERLAY_VXLAN_TEST_PATHS";
const PLACED: [crate::lab::At; 2] = [HERE, THERE];
const MOVED: [crate::lab::At; 2] = [HERE, HERE];

#[test]
fn another_process_adopts_what_one_that_is_killed_made_while_packets_flow() {
    kernel_test(Kernel::Host, "vxlan::another_process_adopts_what_one_that_is_killed_made", || {
        let lab = Lab::new(IpFamily::V4, 2);
        let (mut first, changed) = process(&lab, "adoption::settler");
        assert!(changed > 20, "{changed} steps from nothing");
        let before = lab.whole();
        let mut pings = ["10.0.9.11", "fd00:9::11"].map(|target| {
            let mut ping = Command::new("ping");
            ping.args(["-n", "-q", "-c", "150", "-i", "0.01", target]).stdout(Stdio::piped());
            lab.containers[0].namespace.run(|| ping.spawn()).unwrap().unwrap()
        });
        let mut adoptions = 0;
        loop {
            let (mut other, changed) = process(&lab, "adoption::settler");
            other.kill().unwrap();
            other.wait().unwrap();
            assert_eq!(changed, 0, "after {adoptions} adoptions");
            adoptions += 1;
            if adoptions == 1 {
                first.kill().unwrap(); // by SIGKILL
                first.wait().unwrap();
            } else if pings.iter_mut().all(|ping| ping.try_wait().unwrap().is_some()) {
                break;
            }
        }
        for ping in pings {
            let answer = ping.wait_with_output().unwrap();
            assert_eq!(lost(&String::from_utf8_lossy(&answer.stdout)), "0% packet loss");
        }
        assert_eq!(lab.whole(), before);
    });
}

#[test]
fn a_network_whose_builder_was_killed_anywhere_is_finished_by_the_next() {
    kernel_test(Kernel::Host, "vxlan::a_network_whose_builder_was_killed_anywhere", || {
        let mut lab = Lab::new(IpFamily::V4, 2);
        lab.shape = bound;
        let before = lab.whole();
        let mut deaths = 0;
        // A step that shares no factor with what a request is made of, so that it meets every kind of call.
        for boundary in (1..).step_by(67) {
            let fate = kill_at(&mut child(&lab, "adoption::builder"), boundary).unwrap();
            lab.settle(&PLACED);
            let again = lab.settle(&PLACED);
            assert!(again.iter().all(Plan::is_empty), "killed at {boundary}: {}{}", again[0], again[1]);
            assert_eq!(lab.lost(0, 1, 9), NONE_LOST, "killed at {boundary}");
            lab.clear();
            assert_eq!(lab.whole(), before, "killed at {boundary}");
            if let Fate::Finished { code, .. } = fate {
                assert_eq!(code, 0);
                break;
            }
            deaths += 1;
        }
        assert!(deaths > 5, "{deaths}");
    });
}

/// Taking down and moving break off as building does.
#[test]
fn a_network_whose_remover_or_mover_was_killed_anywhere_is_as_the_next_wants_it() {
    kernel_test(Kernel::Host, "vxlan::a_network_whose_remover_or_mover_was_killed_anywhere", || {
        let lab = Lab::new(IpFamily::V4, 2);
        let before = lab.whole();
        for (test, placed) in [("adoption::remover", None), ("adoption::mover", Some(MOVED))] {
            let mut deaths = 0;
            for boundary in (1..).step_by(131) {
                lab.settle(&PLACED);
                reconcile(&mut lab.open(1), &lab.wanted(1, &MOVED)).unwrap(); // what leaves a host leaves it first
                let fate = kill_at(&mut child(&lab, test), boundary).unwrap();
                if let Some(placed) = placed {
                    lab.settle(&placed);
                    let again = lab.settle(&placed);
                    assert!(again.iter().all(Plan::is_empty), "{test} killed at {boundary}: {}{}", again[0], again[1]);
                    assert_eq!(lab.lost(0, 1, 9), NONE_LOST, "{test} killed at {boundary}");
                }
                lab.clear();
                assert_eq!(lab.whole(), before, "{test} killed at {boundary}");
                if let Fate::Finished { code, .. } = fate {
                    assert_eq!(code, 0, "{test}");
                    break;
                }
                deaths += 1;
            }
            assert!(deaths > 2, "{test}: {deaths}");
        }
    });
}

/// As the crate's page has it: the sandbox's namespace has a name, which the next process finds it by.
fn attach(dir: &Path, pid: u32, mut wanted: State) -> Plan {
    let (names, blue) = (NamespaceDir::new(dir), "blue".parse().unwrap());
    let home = names.open(&blue).or_else(|_| names.create(&blue)).unwrap();
    let host = Namespace::current().unwrap();
    let owner = Owner::new("my-cluster".parse().unwrap(), "node-1-blue".parse().unwrap());
    let sandbox = Sandbox::open(&owner, home, (host.key("host".parse().unwrap()), host)).unwrap();
    let mut table = Shadow::new(sandbox);
    let container = Namespace::of_process(pid).unwrap();
    let namespace = container.key("web".parse().unwrap());
    table.inner_mut().reach(namespace.clone(), container).unwrap();
    let end = PortEnd::Namespace { namespace, interface: "eth1".parse().unwrap() };
    wanted.segments.values_mut().flat_map(|segment| segment.ports.values_mut()).for_each(|port| port.end = end.clone());
    reconcile(&mut table, &wanted).unwrap()
}

#[test]
fn what_the_page_shows_works_and_has_nothing_to_do_after_a_restart() {
    kernel_test(Kernel::Host, "vxlan::what_the_page_shows_works", || {
        let roots =
            [PathBuf::from("/run"), std::env::temp_dir()].map(|root| root.join(format!("overlay-vxlan-test-{}", id())));
        let dir = roots.into_iter().find(|dir| std::fs::create_dir(dir).is_ok()).unwrap();
        let lab = Lab::new(IpFamily::V4, 1);
        let mut sleeper = lab.containers[0].namespace.run(|| Command::new("sleep").arg("60").spawn()).unwrap().unwrap();
        let steps = [(); 2].map(|()| {
            let host = &lab.hosts[0].namespace;
            host.run(|| attach(&dir, sleeper.id(), lab.wanted(0, &[HERE])).len()).unwrap()
        });
        NamespaceDir::new(&dir).remove(&"blue".parse().unwrap()).unwrap();
        sleeper.kill().and_then(|()| sleeper.wait()).unwrap();
        std::fs::remove_dir(&dir).unwrap();
        assert!(steps[0] > 5 && steps[1] == 0, "{steps:?}");
    });
}

/// A process that has settled both hosts and lives on; says how many steps that took.
fn process(lab: &Lab, test: &str) -> (Child, usize) {
    let mut child = child(lab, test).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let steps = lines.map_while(Result::ok).find_map(|line| line.rsplit_once(STEPS)?.1.trim().parse().ok());
    (child, steps.unwrap())
}

fn child(lab: &Lab, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(PATHS, lab.paths());
    command
}

/// Run as a child: settles, says so, and waits to be killed.
#[test]
fn settler() {
    let Some(lab) = adopted() else { return };
    let steps: usize = lab.settle(&PLACED).iter().map(Plan::len).sum();
    println!("{STEPS}{steps}");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Run as a child that may be killed anywhere: settles one host.
#[test]
fn builder() {
    let Some(mut lab) = adopted() else { return };
    lab.shape = bound;
    let (mut sandbox, wanted) = (lab.open(0), lab.wanted(0, &PLACED));
    await_go();
    reconcile(&mut sandbox, &wanted).unwrap();
}

/// The same, to take one host's part down.
#[test]
fn remover() {
    let Some(lab) = adopted() else { return };
    let mut sandbox = lab.open(0);
    await_go();
    reconcile(&mut sandbox, &State::default()).unwrap();
}

/// The same, to take in a container that has left the other host.
#[test]
fn mover() {
    let Some(lab) = adopted() else { return };
    let (mut sandbox, wanted) = (lab.open(0), lab.wanted(0, &MOVED));
    await_go();
    reconcile(&mut sandbox, &wanted).unwrap();
}

/// With a tunnel bound to the cable, which takes the most acts to make.
fn bound(segment: &mut Segment) {
    segment.vtep.device = Some("u0".parse().unwrap());
}

fn adopted() -> Option<Lab> {
    let paths = std::env::var(PATHS).ok()?;
    Some(Lab::adopt(IpFamily::V4, &paths))
}

const STEPS: &str = "steps: ";
