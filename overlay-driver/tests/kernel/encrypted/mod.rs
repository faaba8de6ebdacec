//! An encrypted network from what agents agree on to what is on the wire: their rounds are carried out in the host's ESP and in sandboxes. The
//! lab's kernel has ESP, but not the tables of a firewall; those, and what else is none of this, are in memory.

mod rotation;
mod town;

use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::testing::judge;
use overlay_node::{Encryption, Input, Place};

use town::{Town, id};

#[test]
fn what_agents_agree_on_carries_an_encrypted_network_in_esp_alone() {
    kernel_test(Kernel::Lab, "driver::what_agents_agree_on_is_carried_in_esp", || {
        let mut town = Town::new(Encryption::Shared);
        town.settle();
        let before = town.passes();
        let (_, container) = &town.grounds[0].container;
        let whole = (1416 - 28).to_string(); // what ESP leaves of 1500 bytes, without IPv4 and ICMP
        judge(container, "ping", &["-c1", "-W5", "-Mdo", "-s", &whole, "10.9.0.3"]);
        town.tell(0, Input::Rekey);
        town.settle();
        assert!(town.passes().is_disjoint(&before), "another epoch has other associations");

        town.grounds[0].is_stuck = true;
        town.tell(0, Input::Unplug(id(0)));
        town.net.run_for(Duration::from_secs(3));
        town.carry_out(0);
        assert_eq!(town.held(), (false, true, true), "associations are gone, but guards stay while the segment does");
        town.is_dark("by what is left");

        town.grounds[0].is_stuck = false;
        town.settle();
        assert_eq!(town.held(), (false, false, false));
    });
}

#[test]
fn a_network_with_its_own_port_is_in_esp_alone_behind_its_own_guard_and_comes_back_by_other_keys() {
    kernel_test(Kernel::Lab, "driver::a_network_with_its_own_port_is_in_esp_alone", || {
        let mut town = Town::new(Encryption::Own);
        town.settle();
        let before = town.passes();
        let host = &town.grounds[0].host;
        let policies = judge(host, "ip", &["xfrm", "policy"]);
        assert!(policies.contains("dport 29200") && !policies.contains("dport 4793"), "{policies}");

        judge(host, "ip", &["xfrm", "state", "flush"]);
        town.is_dark("after its associations were flushed");
        town.upkeeps[0].doubt(&Place::Host, town.net.now());
        let failed = town.try_out(0);
        assert!(matches!(&failed[..], [why] if why.contains("its key was put to work before")), "{failed:?}");
        town.tell(0, Input::Rekey);
        town.settle();
        assert!(town.passes().is_disjoint(&before), "what was spent is not used again");

        town.tell(0, Input::Unplug(id(0)));
        town.settle();
        assert_eq!(town.held(), (false, false, false));
        town.plug(0);
        town.settle();
        assert!(town.passes().is_disjoint(&before));
    });
}
