//! Keys that are changed while packets flow.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_crypto::{SaId, Stage};
use overlay_kernel::testing::judge;
use overlay_node::{CatalogueChange, Encryption, Input};

use super::town::{Town, config, id, node};

#[test]
fn nodes_that_change_their_keys_while_packets_flow_lose_none() {
    kernel_test(Kernel::Lab, "driver::nodes_that_change_their_keys_while_packets_flow_lose_none", || {
        let mut town = Town::new(Encryption::Shared);
        town.settle();
        let before = town.passes();
        let ping = ["-q", "-i", "0.002", "-c", "8000", "-W", "5", "10.9.0.3"];
        let ping = || Command::new("ping").args(ping).stdout(Stdio::piped()).spawn().unwrap();
        let mut flows = town.grounds[0].container.1.run(ping).unwrap(); // a child is in the namespace of the thread that starts it
        let mut step = 0_usize;
        while flows.try_wait().unwrap().is_none() {
            if step.is_multiple_of(40) {
                // Now one, now the other, now both at once.
                (0..2)
                    .filter(|number| step / 40 % 3 != 1 - number)
                    .for_each(|number| town.tell(number, Input::RotateKeys));
            }
            step += 1;
            town.net.run_for(Duration::from_millis(100));
            (0..2).for_each(|number| town.carry_out(number));
        }
        let said = std::io::read_to_string(flows.stdout.take().unwrap()).unwrap();
        assert!(said.contains("8000 packets transmitted, 8000 received"), "{said}");
        assert!(town.rotations() >= 10, "{} rotations", town.rotations());
        town.settle();
        assert!(town.passes().is_disjoint(&before));
        let states = judge(&town.grounds[0].host, "ip", &["xfrm", "state"]);
        assert_eq!(states.matches("proto esp").count(), 2, "nothing is left of earlier keys: {states}");
    });
}

/// Lets a ping end, during which all goes on, and `else_do` at each step; none of it is lost.
fn none_is_lost(town: &mut Town, mut ping: Child, mut else_do: impl FnMut(&mut Town)) {
    while ping.try_wait().unwrap().is_none() {
        else_do(town);
        town.tick();
    }
    let said = std::io::read_to_string(ping.stdout.take().unwrap()).unwrap();
    assert!(said.contains(", 0% packet loss"), "{said}");
}

#[test]
fn a_node_changes_its_keys_by_itself_before_they_end_and_no_packet_is_lost() {
    kernel_test(Kernel::Lab, "driver::a_node_changes_its_keys_by_itself_before_they_end", || {
        let mut config = config();
        config.rotation.usage.packets = 1500;
        let mut town = Town::of(2, config, Encryption::Shared);
        town.is_probed = false;
        town.settle();
        let before = town.passes();
        let states = judge(&town.grounds[0].host, "ip", &["-s", "xfrm", "state"]);
        assert!(states.contains("soft 1500(packets), hard 1875(packets)"), "{states}");
        let ping = town.ping(0, 1, (8000, "0.004"));
        none_is_lost(&mut town, ping, |_| {});
        for number in 0..2 {
            let rotations = town.net.machine(number).unwrap().0.metrics().rotations;
            assert!(rotations.causes.usage >= 2 && rotations.left_behind == 0, "{number}: {rotations:?}");
            assert_eq!(rotations.causes.usage, rotations.began);
        }
        assert!(town.passes().is_disjoint(&before));
    });
}

#[test]
fn a_node_that_was_removed_is_refused_and_the_others_lose_nothing() {
    kernel_test(Kernel::Lab, "driver::a_node_that_was_removed_is_refused", || {
        let mut town = Town::of(3, config(), Encryption::Shared);
        town.is_probed = false;
        town.settle();
        town.ping(2, 0, (5, "0.1")).wait_with_output().map(|output| assert!(output.status.success())).unwrap();
        let before = town.spis(0);
        let of_removed: BTreeSet<SaId> = before.intersection(&town.spis(2)).copied().collect();
        let (others, mut from_removed) = (town.ping(0, 1, (3000, "0.004")), town.ping(2, 0, (600, "0.02")));
        let mut ticks = 0;
        none_is_lost(&mut town, others, |town| {
            ticks += 1;
            if ticks == 10 {
                for number in 0..2 {
                    for gone in [CatalogueChange::EndpointGone(id(2)), CatalogueChange::NodeGone(node(2))] {
                        town.tell(number, Input::Catalogue(gone)); // the one that goes is told nothing
                    }
                }
            }
        });
        let said = std::io::read_to_string(from_removed.stdout.take().unwrap()).unwrap();
        from_removed.wait().unwrap();
        for number in 0..2 {
            let rotations = town.net.machine(number).unwrap().0.metrics().rotations;
            assert_eq!((rotations.causes.removal, rotations.ended, rotations.left_behind), (1, 1, 0), "{number}");
        }
        let after = town.spis(0);
        assert!(after.len() == 2 && after.is_disjoint(&before), "{after:?}");
        assert!(of_removed.len() == 2 && after.is_disjoint(&town.spis(2)), "it has the keys of none");

        // All that it sends from now on comes, sealed, and is refused.
        town.settle();
        let (refused, from_removed) = (town.refused(), town.ping(2, 0, (100, "0.01")).wait_with_output().unwrap());
        let last = String::from_utf8(from_removed.stdout).unwrap();
        assert!(last.contains(" 0 received"), "{last}; and before: {said}");
        assert_eq!(town.refused() - refused, 100);
    });
}

#[test]
fn an_agent_that_is_killed_in_any_stage_of_a_rotation_comes_back_with_other_keys_and_no_other_pair_loses_anything() {
    kernel_test(Kernel::Lab, "driver::an_agent_that_is_killed_in_any_stage_of_a_rotation", || {
        let mut town = Town::of(3, config(), Encryption::Shared);
        town.is_probed = false;
        town.settle();
        let mut incarnation = 1;
        let mut ever = [0, 1, 2].map(|number| town.spis(number));
        for stage in [Stage::Installing, Stage::Promoted, Stage::Steady] {
            for is_done in [false, true] {
                incarnation += 1;
                let ping = town.ping(1, 2, (1500, "0.004"));
                town.tell(0, Input::RotateKeys);
                // As far as that stage, whose job is to be done next.
                while stage != Stage::Installing && town.stage(0) != Some(Stage::Promoted) {
                    town.tick();
                }
                while town.stage(0) != Some(stage) {
                    town.tick();
                }
                if is_done {
                    town.carry_out_unheard(0);
                }
                town.kill(0);
                let left = town.spis(0);
                assert!(left.len() >= 4, "what it held stays: {left:?}");
                let mut ticks = 0;
                none_is_lost(&mut town, ping, |town| {
                    ticks += 1;
                    if ticks == 5 {
                        town.begin_again(0, incarnation);
                    }
                });
                town.settle();
                for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
                    let ping = town.ping(from, to, (5, "0.01")).wait_with_output().unwrap();
                    assert!(String::from_utf8(ping.stdout).unwrap().contains(", 0% packet loss"), "{stage}, {is_done}");
                }
                let now = town.spis(0);
                assert!(now.len() == 4 && now.is_disjoint(&left), "{stage}: other keys, so other names: {now:?}");
                assert!(now.is_disjoint(&ever[0]));
                ever[0].extend(left);
                ever[0].extend(now);
            }
        }
    });
}
