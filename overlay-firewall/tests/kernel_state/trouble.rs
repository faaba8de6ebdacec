//! What others do, what goes wrong, and what went wrong elsewhere.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{
    Backend as _, ErrorKind, Meter as _, Port, Protocol, ReconcileError, Shadow, Table as _, reconcile,
};
use overlay_firewall::kernel::{Native, Passage, Program};
use overlay_firewall::{Bind, Firewall, Flow, Ip, Published, State, Transport};
use overlay_kernel::Namespace;
use overlay_kernel::conntrack::Conntrack;
use overlay_kernel::testing::{Fate, await_go, judge, kill_at};

use crate::conformance::{owner, whole};
use crate::town::{Town, ask, gateway, hears, passes, published, script, serve, tunnel, udp};
use crate::wire::{Wire, mac_of, packet};

/// An administrator who lets everything in at VXLAN's port, before all of our chains.
const ADMIN: &str = "add table inet admin; \
                     add chain inet admin input { type filter hook input priority -400; }; \
                     add rule inet admin input udp dport 4789 accept; \
                     add chain inet admin late { type filter hook input priority 100; }; \
                     add rule inet admin late udp dport 4789 accept";

#[test]
fn cve_2023_28840_an_accept_of_others_before_ours_lets_no_cleartext_in() {
    kernel_test(Kernel::Host, "firewall::cve_2023_28840_an_accept_of_others_lets_no_cleartext_in", || {
        let town = Town::new();
        judge(&town.host, "nft", &[ADMIN]);
        for (here, there) in [("192.0.2.1:4789", "192.0.2.2:0"), ("[2001:db8::1]:4789", "[2001:db8::2]:0")] {
            let (inside, outside) = (udp(&town.host, here), udp(&town.outside, there));
            assert!(passes(&outside, (&inside, here), 7));
            reconcile(&mut town.open(), &tunnel(&["192.0.2.2", "2001:db8::2"])).unwrap();
            assert!(!passes(&outside, (&inside, here), 7));
            assert!(passes(&outside, (&inside, here), 8));
            reconcile(&mut town.open(), &tunnel(&["192.0.2.3"])).unwrap();
            assert!(!passes(&outside, (&inside, here), 8), "a stranger");
            reconcile(&mut town.open(), &State::default()).unwrap();
        }
        assert!(judge(&town.host, "nft", &["list", "ruleset"]).contains("table inet admin"));
    });
}

#[test]
fn cve_2023_28841_what_cannot_be_encrypted_does_not_leave_in_cleartext() {
    kernel_test(Kernel::Host, "firewall::cve_2023_28841_what_cannot_be_encrypted_does_not_leave", || {
        let town = Town::new();
        for (here, there) in [("192.0.2.1:0", "192.0.2.2:4789"), ("[2001:db8::1]:0", "[2001:db8::2]:4789")] {
            let (inside, outside) = (udp(&town.host, here), udp(&town.outside, there));
            assert!(passes(&inside, (&outside, there), 7));
            let mut firewall = town.open();
            reconcile(&mut firewall, &tunnel(&["192.0.2.2", "2001:db8::2"])).unwrap();
            assert!(!passes(&inside, (&outside, there), 7));
            assert!(passes(&inside, (&outside, there), 8));
            assert_eq!(firewall.read().unwrap()["tunnel/cleartext"].packets, 1);
            reconcile(&mut firewall, &State::default()).unwrap();
        }
    });
}

#[test]
fn cve_2023_28842_a_network_without_any_peer_takes_no_cleartext_either() {
    kernel_test(Kernel::Host, "firewall::cve_2023_28842_a_network_without_any_peer_takes_no_cleartext", || {
        let town = Town::new();
        let (inside, outside) = (udp(&town.host, "192.0.2.1:4789"), udp(&town.outside, "192.0.2.2:0"));
        reconcile(&mut town.open(), &tunnel(&[])).unwrap();
        assert!(!passes(&outside, (&inside, "192.0.2.1:4789"), 7));
        assert!(!passes(&outside, (&inside, "192.0.2.1:4789"), 8));
    });
}

#[test]
fn conversations_go_where_they_may_and_nowhere_else() {
    kernel_test(Kernel::Host, "firewall::conversations_go_where_they_may", || {
        let town = Town::new();
        let _servers = ["0.0.0.0:80", "[::]:81"].map(|at| serve(&town.container, at));
        let _outside = serve(&town.outside, "192.0.2.2:443");
        assert!(ask(&town.outside, "172.18.0.5:80").is_some(), "routed straight to it, without rules");
        reconcile(&mut town.open(), &published(Protocol::Tcp)).unwrap();
        assert!(ask(&town.outside, "172.18.0.5:80").is_none(), "routed straight to it");
        assert!(ask(&town.outside, "192.0.2.1:8080").is_some(), "published");
        assert!(ask(&town.host, "192.0.2.1:8080").is_some(), "published, from the host itself");
        assert!(ask(&town.host, "127.0.0.1:8080").is_some(), "published, by loopback");
        assert!(ask(&town.host, "[::1]:8080").is_none(), "not published at IPv6's loopback address");
        let own = serve(&town.host, "[::1]:8080");
        assert!(ask(&town.host, "[::1]:8080").is_some(), "whoever listens there is asked");
        drop(own);
        assert!(ask(&town.container, "192.0.2.1:8080").is_some(), "published, from behind the same gateway");
        assert!(ask(&town.container, "192.0.2.2:443").is_some(), "out");
        assert_eq!(seen_from(&town), "192.0.2.1");

        let mut loopback = published(Protocol::Tcp);
        loopback.published.values_mut().for_each(|it| (it.bind, it.v6) = (Bind::Address([127, 0, 0, 1].into()), None));
        reconcile(&mut town.open(), &loopback).unwrap();
        assert!(ask(&town.host, "127.0.0.1:8080").is_some(), "bound to loopback");
        assert!(ask(&town.outside, "192.0.2.1:8080").is_none(), "bound to loopback, from outside");
        script(&town.host, "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet");
        script(
            &town.outside,
            "ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1/32 via 192.0.2.1 src 192.0.2.2
            echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet",
        );
        assert!(ask(&town.outside, "127.0.0.1:8080").is_none(), "loopback, from a neighbour");

        let mut internal = gateway();
        internal.gateways.values_mut().for_each(|it| *it = it.clone().internal());
        reconcile(&mut town.open(), &internal).unwrap();
        assert!(ask(&town.container, "192.0.2.2:443").is_none(), "out of an internal network");
    });
}

/// Whom a server outside takes the container for.
fn seen_from(town: &Town) -> String {
    let server = serve(&town.outside, "192.0.2.2:444");
    let _asking = ask(&town.container, "192.0.2.2:444").unwrap();
    server.accept().unwrap().1.ip().to_string()
}

#[test]
fn conversations_whose_permission_was_withdrawn_are_cut_and_others_go_on() {
    kernel_test(Kernel::Host, "firewall::conversations_whose_permission_was_withdrawn_are_cut", || {
        let town = Town::new();
        let server = serve(&town.container, "0.0.0.0:80");
        let outside = serve(&town.outside, "192.0.2.2:443");
        let mut firewall = Shadow::new(town.open());
        reconcile(&mut firewall, &published(Protocol::Tcp)).unwrap();
        let mut comes = ask(&town.outside, "192.0.2.1:8080").unwrap();
        let mut taken = server.accept().unwrap().0;
        let mut goes = ask(&town.container, "192.0.2.2:443").unwrap();
        let mut served = outside.accept().unwrap().0;
        assert!(hears(&mut comes, &mut taken) && hears(&mut taken, &mut comes));

        let mut narrowed = published(Protocol::Tcp);
        let web = narrowed.published.values_mut().next().unwrap();
        *web = web.clone().from("192.0.2.0/24".parse().unwrap());
        reconcile(&mut firewall, &narrowed).unwrap();
        assert!(hears(&mut comes, &mut taken) && hears(&mut taken, &mut comes), "one of its sources");

        let plan = firewall.plan(&gateway()).unwrap().to_string();
        let said =
            ["build      add table inet withdrawn", "close      cut flows", "unguard    remove table inet withdrawn"];
        assert!(said.iter().all(|line| plan.contains(line)), "{plan}");
        reconcile(&mut firewall, &gateway()).unwrap();
        assert!(!hears(&mut comes, &mut taken), "withdrawn");
        assert!(!hears(&mut taken, &mut comes), "withdrawn");
        assert!(hears(&mut goes, &mut served) && hears(&mut served, &mut goes), "out, as before");
        assert!(reconcile(&mut firewall, &gateway()).unwrap().is_empty());

        let mut internal = gateway();
        internal.gateways.values_mut().for_each(|it| *it = it.clone().internal());
        reconcile(&mut firewall, &internal).unwrap();
        assert!(!hears(&mut goes, &mut served) && !hears(&mut served, &mut goes), "out, internal now");
    });
}

#[test]
fn a_rule_changed_by_hand_and_a_flush_of_everything_are_repaired() {
    kernel_test(Kernel::Host, "firewall::a_rule_changed_by_hand_and_a_flush_are_repaired", || {
        let town = Town::new();
        let mut firewall = Shadow::new(town.open());
        let wanted = published(Protocol::Tcp);
        reconcile(&mut firewall, &wanted).unwrap();
        let before = whole(&town.host);
        let listed = judge(&town.host, "nft", &["-a", "list", "ruleset"]);
        let handle =
            listed.lines().find_map(|line| line.split_once("comment \"gateway/ingress\" # handle ")).unwrap().1;
        let table = before.lines().find_map(|line| line.strip_prefix("table inet ")?.strip_suffix(" {")).unwrap();
        let body = "oifname @gateways counter accept comment \\\"gateway/ingress\\\"";
        let replaced = format!("nft \"replace rule inet {table} forward handle {handle} {body}\"");
        for damage in [&replaced[..], "nft flush ruleset", &format!("nft delete table inet {table}")] {
            script(&town.host, damage);
            assert_ne!(whole(&town.host), before, "{damage}");
            assert!(!reconcile(&mut firewall, &wanted).unwrap().is_empty(), "{damage}");
            assert_eq!(whole(&town.host), before, "{damage}");
            assert!(reconcile(&mut firewall, &wanted).unwrap().is_empty(), "{damage}");
        }
    });
}

#[test]
fn two_writers_at_once_leave_what_one_of_them_wanted() {
    kernel_test(Kernel::Host, "firewall::two_writers_at_once_leave_what_one_wanted", || {
        let home = Namespace::create().unwrap();
        let open = || Firewall::of_host(&owner(), home.try_clone().unwrap()).unwrap();
        let states = [published(Protocol::Tcp), published(Protocol::Udp), gateway()];
        let write = |first: usize| {
            let (mut firewall, mut interrupted, mut longest) = (open(), 0, 0);
            for round in 0..20 {
                let mut tries = 1;
                while let Err(error) = reconcile(&mut firewall, &states[(first + round) % 3]) {
                    assert!(error.is_interrupted(), "{error}: {:?}", std::error::Error::source(&error));
                    // What a caller does: it waits, each time longer, and each caller otherwise.
                    let patience = Duration::from_micros((300 + 170 * first as u64) << u64::min(tries, 7));
                    std::thread::sleep(patience);
                    tries += 1;
                    assert!(tries <= 30, "second {tries} times in a row");
                }
                (interrupted, longest) = (interrupted + tries - 1, longest.max(tries));
            }
            (interrupted, longest)
        };
        let counts = std::thread::scope(|scope| {
            [scope.spawn(|| write(0)), scope.spawn(|| write(1))].map(|it| it.join().unwrap())
        });
        println!("interrupted, most tries of one: {counts:?}");
        reconcile(&mut open(), &states[0]).unwrap();
        assert!(reconcile(&mut open(), &states[0]).unwrap().is_empty());
        reconcile(&mut open(), &State::default()).unwrap();
        assert_eq!(open().observe().unwrap(), Native::default());
    });
}

/// Where a child finds the namespace.
const PLACE: &str = "OVERLAY_FIREWALL_TEST_PLACE";

/// Port 7001 of this machine leads to its port 7002.
fn redirected() -> State {
    let redirect = Published::new(Protocol::Udp, Port::new(7001).unwrap()).to("127.0.0.1:7002".parse().unwrap());
    State { published: [("redirect".parse().unwrap(), redirect)].into(), ..State::default() }
}

#[test]
fn a_withdrawal_killed_anywhere_is_finished_and_its_flows_are_cut() {
    kernel_test(Kernel::Host, "firewall::a_withdrawal_killed_anywhere_is_finished", || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "set", "lo", "up"]);
        let open = || Firewall::of_host(&owner(), home.try_clone().unwrap()).unwrap();
        let before = whole(&home);
        let path = format!("/proc/{}/fd/{}", std::process::id(), home.as_fd().as_raw_fd());
        let mut flows = Conntrack::open(&home).unwrap();
        let mut translated = || flows.flows().unwrap().iter().filter(|flow| flow.original.to_port == 7001).count();
        let (mut graves, mut deaths) = (0, 0);
        for boundary in (1..).step_by(5) {
            reconcile(&mut open(), &redirected()).unwrap();
            let (from, to) = (udp(&home, "127.0.0.1:0"), udp(&home, "127.0.0.1:7002"));
            assert!(passes(&from, (&to, "127.0.0.1:7001"), 1));
            assert_eq!(translated(), 1);
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "trouble::withdrawer", "--test-threads", "1"]).env(PLACE, &path);
            let fate = kill_at(&mut child, boundary).unwrap();
            graves += usize::from(whole(&home).contains("withdrawn"));
            reconcile(&mut open(), &State::default()).unwrap();
            assert_eq!(translated(), 0, "{boundary}");
            assert_eq!(whole(&home), before, "{boundary}");
            if let Fate::Finished { code, .. } = fate {
                assert_eq!(code, 0);
                break;
            }
            deaths += 1;
        }
        println!("{deaths} deaths, {graves} of them with a grave left");
        assert!(deaths > 10 && graves > 1);
    });
}

/// Run as a child by the test of withdrawals.
#[test]
fn withdrawer() {
    let Some(path) = std::env::var_os(PLACE) else { return };
    let mut firewall = Firewall::of_host(&owner(), Namespace::open(path).unwrap()).unwrap();
    await_go();
    reconcile(&mut firewall, &State::default()).unwrap();
}

#[test]
fn a_policy_is_refused_on_the_host_whose_bridges_are_left_alone() {
    kernel_test(Kernel::Host, "firewall::a_policy_is_refused_on_the_host", || {
        let home = Namespace::create().unwrap();
        script(&home, "for s in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 > $s; done");
        let before = whole(&home);
        let mut firewall = Firewall::of_host(&owner(), home.try_clone().unwrap()).unwrap();
        let mut state = State::default();
        state.policy.otherwise = overlay_firewall::Action::Deny;
        let refused = reconcile(&mut firewall, &state).unwrap_err();
        assert!(matches!(refused, ReconcileError::Refused(_)), "{refused}");
        reconcile(&mut firewall, &gateway()).unwrap();
        reconcile(&mut firewall, &State::default()).unwrap();
        assert_eq!(whole(&home), before);

        let mut sandbox = Firewall::of_sandbox(&owner(), home.try_clone().unwrap()).unwrap();
        reconcile(&mut sandbox, &state).unwrap();
        assert!(whole(&home).ends_with("1\n1\n1\n"));
    });
}

/// Set where the tests run as an ordinary user.
const CHILD: &str = "OVERLAY_FIREWALL_TEST_CHILD";
const NOBODY: u32 = 65_534;

/// Whether this is the ordinary user.
pub(crate) fn is_ordinary() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    std::env::var_os(CHILD).is_some() || !map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[test]
fn an_ordinary_user_passes_the_same_tests_in_a_private_world() {
    kernel_test(Kernel::Host, "firewall::an_ordinary_user_passes_the_same_tests", || {
        if is_ordinary() {
            return;
        }
        let mut user = Command::new("unshare");
        user.args(["--user", "--map-root-user", "--net", "--mount"]).arg(std::env::current_exe().unwrap());
        user.args(["--test-threads", "2", "--skip", "killed_anywhere"]);
        user.env(CHILD, "1")
            .env("OVERLAY_REQUIRE_KERNEL", "1")
            .env("PROPTEST_CASES", "4")
            .env_remove("OVERLAY_KERNEL_LOG");
        let output = user.current_dir("/").uid(NOBODY).gid(NOBODY).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("test result: ok") && !text.contains(" 0 passed"), "{text}");
    });
}

#[test]
fn a_chain_of_others_that_drops_what_is_allowed_is_reported_with_what_helps() {
    kernel_test(Kernel::Host, "firewall::a_chain_of_others_that_drops_is_reported", || {
        let town = Town::new();
        let _server = serve(&town.container, "0.0.0.0:80");
        let wanted = published(Protocol::Tcp);
        let mut firewall = town.open();
        reconcile(&mut firewall, &wanted).unwrap();
        assert_eq!(firewall.obstacles(&wanted).unwrap(), []);
        let docker = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
                      add chain ip filter DOCKER-USER; add rule ip filter FORWARD jump DOCKER-USER; \
                      add rule ip filter FORWARD ct state established accept";
        let firewalld = "add table inet firewalld; \
                         add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; }; \
                         add rule inet firewalld filter_FORWARD ct state established accept; \
                         add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited";
        let own = "add table ip mine; add chain ip mine passing { type filter hook forward priority 0; policy drop; }";
        for (text, program, table) in [
            (docker, Program::Docker, "ip filter"),
            (firewalld, Program::Firewalld, "inet firewalld"),
            (own, Program::Other, "ip mine"),
        ] {
            judge(&town.host, "nft", &[text]);
            let before = judge(&town.host, "nft", &["list", "ruleset"]);
            assert!(ask(&town.outside, "192.0.2.1:8080").is_none(), "{program:?}");
            let found = firewall.obstacles(&wanted).unwrap();
            assert_eq!(found.iter().map(|it| it.program).collect::<Vec<_>>(), [program], "{found:?}");
            assert!(
                found[0].to_string().contains(&found[0].remedy) && found[0].chain.starts_with(table),
                "{}",
                found[0]
            );
            assert_eq!(judge(&town.host, "nft", &["list", "ruleset"]), before);
            if program != Program::Firewalld {
                script(&town.host, &found[0].remedy);
                assert!(ask(&town.outside, "192.0.2.1:8080").is_some(), "{}", found[0]);
                assert_eq!(firewall.obstacles(&wanted).unwrap(), []);
            }
            judge(&town.host, "nft", &[&format!("delete table {table}")]);
        }
        let tunnels = tunnel(&[]);
        let guarded =
            "add table inet mine; add chain inet mine incoming { type filter hook input priority 0; policy drop; }";
        judge(&town.host, "nft", &[guarded]);
        let found = firewall.obstacles(&tunnels).unwrap();
        assert_eq!(found[0].remedy, "nft insert rule inet mine incoming udp dport 4789 accept");
    });
}

#[test]
fn what_nft_lists_of_a_firewall_it_reads_again_but_for_what_it_has_no_name_for() {
    kernel_test(Kernel::Host, "firewall::what_nft_lists_of_a_firewall_it_reads_again", || {
        let mut host = State { tunnels: tunnel(&["192.0.2.2"]).tunnels, admin: true, ..published(Protocol::Tcp) };
        let mac = overlay_core::Mac::new([2, 0, 0, 0, 0, 2]);
        let pin = overlay_firewall::Pin::new(mac, ["172.18.0.5".parse().unwrap(), "fd00:18::5".parse().unwrap()]);
        host.ports.insert("c0".parse().unwrap(), overlay_firewall::BridgePort::Pinned(pin.isolated()));
        let mut sandbox = State { ports: host.ports.clone(), ..State::default() };
        sandbox.policy.otherwise = overlay_firewall::Action::Deny;
        for (state, open) in [(host, Firewall::of_host as fn(&_, _) -> _), (sandbox, Firewall::of_sandbox)] {
            let [home, other] = [(); 2].map(|()| Namespace::create().unwrap());
            reconcile(&mut open(&owner(), home.try_clone().unwrap()).unwrap(), &state).unwrap();
            let listed = judge(&home, "nft", &["list", "ruleset"]);
            let named = |line: &&str| !["@th,", "@nh,"].iter().any(|raw| line.contains(raw));
            let text: Vec<_> = listed.lines().filter(named).collect();
            assert!(text.len() + 12 > listed.lines().count(), "{listed}");
            judge(&other, "nft", &[&text.join("\n")]);
        }
    });
}

#[test]
fn what_helps_against_others_chains_runs_nothing_that_a_name_says() {
    kernel_test(Kernel::Host, "firewall::what_helps_runs_nothing_that_a_name_says", || {
        let home = Namespace::create().unwrap();
        let mut firewall = Firewall::of_host(&owner(), home.try_clone().unwrap()).unwrap();
        let hook = "{ type filter hook forward priority 0; policy drop; }";
        let (docker, ufw) = ("add chain ip t DOCKER-USER", "add chain ip t ufw-user");
        // Commands that only say with which words they were called.
        let said = "nft() { for w; do echo \"<$w>\"; done; }; ufw() { nft \"$@\"; }; firewall() { nft \"$@\"; }; ";
        for (table, more, quoted) in
            [("t", docker, true), ("t", ufw, false), ("firewalld", "", false), ("mine", "", true)]
        {
            judge(&home, "nft", &[&format!("add table ip {table}; add chain ip {table} c {hook}; {more}")]);
            for device in ["a;echo$IFS<x>", "a'b$(exit)", "a`exit`|&", "#a", "~", "*b", "a=\\"] {
                let mut state = State::default();
                state.gateways.insert(device.parse().unwrap(), overlay_firewall::Gateway::new([]));
                let found = firewall.obstacles(&state).unwrap();
                let remedy = found[0].remedy.replace("firewall-cmd", "firewall");
                let words = judge(&home, "sh", &["-c", &format!("{said}{remedy}")]);
                let word = if quoted { format!("\"{device}\"") } else { device.to_owned() };
                let word = if table == "firewalld" { format!("--add-interface={device}") } else { word };
                assert!(words.lines().any(|line| line == format!("<{word}>")), "{remedy}\n{words}");
                assert!(!words.lines().any(|line| line == "<x>"), "{remedy}");
            }
            judge(&home, "nft", &[&format!("delete table ip {table}")]);
        }
    });
}

#[test]
fn an_administrators_own_chains_have_their_say_and_are_left_alone() {
    kernel_test(Kernel::Host, "firewall::an_administrators_own_chains_are_left_alone", || {
        let town = Town::new();
        let _server = serve(&town.container, "0.0.0.0:80");
        let mut firewall = town.open();
        reconcile(&mut firewall, &published(Protocol::Tcp)).unwrap();
        assert!(ask(&town.outside, "192.0.2.1:8080").is_some());
        let hook = "add table inet admin; add chain inet admin forward { type filter hook forward priority -10; }; \
                    add rule inet admin forward ct original ip saddr 192.0.2.2 ct state new counter drop";
        judge(&town.host, "nft", &[hook]);
        let listed = |town: &Town| judge(&town.host, "sh", &["-c", "nft -s list table inet admin"]);
        let before = listed(&town);
        assert!(ask(&town.outside, "192.0.2.1:8080").is_none(), "the administrator says no");
        for state in [gateway(), published(Protocol::Tcp), State::default()] {
            reconcile(&mut firewall, &state).unwrap();
            assert_eq!(listed(&town), before);
        }
    });
}

#[test]
fn an_administrators_rules_in_our_table_are_asked_first_and_never_touched() {
    kernel_test(Kernel::Host, "firewall::an_administrators_rules_in_our_table_are_never_touched", || {
        let town = Town::new();
        let _server = serve(&town.container, "0.0.0.0:80");
        let before = whole(&town.host);
        let mut firewall = Shadow::new(town.open());
        let asked = |state: State| State { admin: true, ..state };
        reconcile(&mut firewall, &asked(published(Protocol::Tcp))).unwrap();
        assert!(ask(&town.outside, "192.0.2.1:8080").is_some(), "nothing is in it");
        let listed = whole(&town.host);
        let table = listed.lines().find_map(|line| line.strip_prefix("table inet ")?.strip_suffix(" {")).unwrap();
        let rule = "ct original ip saddr 192.0.2.2 counter drop comment \\\"published/sources\\\"";
        script(&town.host, &format!("nft \"add rule inet {table} admin {rule}\""));
        script(&town.host, &format!("nft add rule inet {table} admin ip daddr 172.18.0.5 counter accept"));
        let chain = || judge(&town.host, "sh", &["-c", &format!("nft -s list chain inet {table} admin")]);
        let own = chain();
        assert!(ask(&town.outside, "192.0.2.1:8080").is_none(), "the administrator says no");
        assert_eq!(firewall.inner_mut().read().unwrap().get("published/sources").map_or(0, |it| it.packets), 0);
        let mut internal = asked(gateway());
        internal.gateways.values_mut().for_each(|it| *it = it.clone().internal());
        for state in [asked(gateway()), internal, asked(State::default()), asked(published(Protocol::Udp))] {
            reconcile(&mut firewall, &state).unwrap();
            assert_eq!(chain(), own);
            assert!(reconcile(&mut town.open(), &state).unwrap().is_empty(), "nor is it drift");
        }
        script(&town.host, "nft add table inet elsewhere");
        reconcile(&mut firewall, &asked(published(Protocol::Tcp))).unwrap();
        assert_eq!(chain(), own, "read back anew");
        script(&town.host, "nft delete table inet elsewhere");
        reconcile(&mut firewall, &published(Protocol::Tcp)).unwrap();
        assert!(ask(&town.outside, "192.0.2.1:8080").is_some(), "it is gone with its rules");
        reconcile(&mut firewall, &State::default()).unwrap();
        assert_eq!(whole(&town.host), before);
    });
}

/// Docker's chains, as far as others meet them; a container of Docker's is behind `docker0`.
const DOCKER: &str = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
                      add chain ip filter DOCKER-USER; add rule ip filter FORWARD jump DOCKER-USER; \
                      add rule ip filter FORWARD ct state established accept; \
                      add rule ip filter DOCKER-USER ip saddr 203.0.113.9 counter drop; \
                      add rule ip filter DOCKER-USER counter return";

#[test]
fn who_asks_for_it_gets_through_dockers_chains_and_back_out_of_them() {
    kernel_test(Kernel::Host, "firewall::who_asks_for_it_gets_through_dockers_chains", || {
        let town = Town::new();
        let _server = serve(&town.container, "0.0.0.0:80");
        let _outside = serve(&town.outside, "192.0.2.2:443");
        let wanted = published(Protocol::Tcp);
        let mut passage = Passage::through_docker(&owner(), &town.host).unwrap();
        let refused = reconcile(&mut passage, &wanted).unwrap_err();
        assert_eq!(refused.applied(), overlay_core::Applied::Nothing);
        assert!(matches!(refused, ReconcileError::Apply { error, .. } if error.source.kind() == ErrorKind::Gone));

        judge(&town.host, "nft", &[DOCKER]);
        let before = whole(&town.host);
        let mut firewall = town.open();
        reconcile(&mut firewall, &wanted).unwrap();
        assert!(ask(&town.outside, "192.0.2.1:8080").is_none() && ask(&town.container, "192.0.2.2:443").is_none());
        let done = reconcile(&mut passage, &wanted).unwrap().to_string();
        assert_eq!(done, "open       let ovgw0 through DOCKER-USER\n");
        assert!(ask(&town.outside, "192.0.2.1:8080").is_some() && ask(&town.container, "192.0.2.2:443").is_some());
        assert_eq!(firewall.obstacles(&wanted).unwrap(), []);
        assert!(reconcile(&mut passage, &wanted).unwrap().is_empty());
        let dockers = || judge(&town.host, "nft", &["-s", "list", "table", "ip", "filter"]);
        let settled = dockers();

        // What is changed by hand is repaired, from a new process too; Docker's own rules stay.
        let handle = judge(
            &town.host,
            "sh",
            &["-c", "nft -a list chain ip filter DOCKER-USER | grep passage/in | sed 's/.*handle //'"],
        );
        let handle = handle.trim();
        let damages = [
            format!("nft delete rule ip filter DOCKER-USER handle {handle}"),
            "nft insert rule ip filter DOCKER-USER counter".to_owned(),
            "nft flush chain ip filter DOCKER-USER".to_owned(),
        ];
        for (damage, repairs) in damages.iter().zip([1, 0, 1]) {
            script(&town.host, damage);
            let mut passage = Passage::through_docker(&owner(), &town.host).unwrap();
            assert_eq!(reconcile(&mut passage, &wanted).unwrap().len(), repairs, "{damage}");
            assert!(ask(&town.outside, "192.0.2.1:8080").is_some(), "{damage}");
        }
        judge(&town.host, "nft", &["delete table ip filter"]);
        judge(&town.host, "nft", &[DOCKER]);
        reconcile(&mut passage, &wanted).unwrap();
        assert_eq!(dockers(), settled);

        // To Docker's own bridges Docker says who may pass.
        let order: Vec<_> =
            ["oifname \"docker0", "oifname \"br-", "iifname \"ovgw0\" accept"].map(|it| settled.find(it)).into();
        assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{settled}");
        reconcile(&mut passage, &State::default()).unwrap();
        reconcile(&mut firewall, &State::default()).unwrap();
        assert_eq!(whole(&town.host), before);
    });
}

#[test]
fn an_endpoints_datagrams_pass_for_no_nodes() {
    kernel_test(Kernel::Host, "firewall::an_endpoints_datagrams_pass_for_no_nodes", || {
        let town = Town::new();
        let mut state = gateway();
        state.tunnels = tunnel(&["192.0.2.2"]).tunnels;
        let (container, peer) = (udp(&town.container, "172.18.0.5:0"), udp(&town.outside, "192.0.2.2:4789"));
        let own = udp(&town.host, "192.0.2.1:0");
        reconcile(&mut town.open(), &gateway()).unwrap();
        assert!(passes(&container, (&peer, "192.0.2.2:4789"), 8), "without a tunnel: masqueraded as the node");
        reconcile(&mut town.open(), &state).unwrap();
        assert!(!passes(&container, (&peer, "192.0.2.2:4789"), 8), "even in a flow that was known");
        assert!(passes(&own, (&peer, "192.0.2.2:4789"), 8), "the node itself");
        let web = udp(&town.outside, "192.0.2.2:53");
        assert!(passes(&container, (&web, "192.0.2.2:53"), 8));
    });
}

#[test]
fn cleartext_in_fragments_does_not_get_in_either() {
    kernel_test(Kernel::Host, "firewall::cleartext_in_fragments_does_not_get_in", || {
        let town = Town::new();
        let inside = udp(&town.host, "[2001:db8::1]:4789");
        let wire = Wire::open(&town.outside, "eth0");
        let device = "eth0".parse().unwrap();
        let macs = [mac_of(&town.host, &device), mac_of(&town.outside, &device)].map(|mac| mac.octets()).concat();
        let send = |vni: u32| {
            let datagram = Transport::Udp { source: 50_000, destination: 4789, vni };
            let ip = Ip::v6("2001:db8::2".parse().unwrap(), "2001:db8::1".parse().unwrap(), datagram);
            let whole = packet(&ip, Flow::New, 0);
            let (header, body) = whole.split_at(40);
            // The first fragment ends with the UDP header: the network is in the second (RFC 8200, section 4.5).
            for (part, offset) in [(&body[..8], [0, 1]), (&body[8..], [0, 8])] {
                let mut frame = [&macs[..], &[0x86, 0xdd], header].concat();
                frame[14 + 5] = 8 + part.len() as u8;
                frame[14 + 6] = 44;
                frame.extend([17, 0, offset[0], offset[1], 0, 0, 0, vni as u8]);
                frame.extend(part);
                wire.send(&frame);
            }
            inside.recv(&mut [0; 64]).is_ok()
        };
        assert!(send(7), "without rules");
        reconcile(&mut town.open(), &tunnel(&["2001:db8::2"])).unwrap();
        assert!(send(8));
        assert!(!send(7));
    });
}
