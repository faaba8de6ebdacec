//! A node in user space and one whose kernel does it all: each takes what the other sends, in the clear and in ESP.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod cable;
mod talk;
mod world;

use overlay_core::IpFamily;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_crypto::{Cipher, Numbers};
use overlay_datapath::Reason;

use crate::cable::Cable;
use crate::talk::converse;
use crate::world::{Look, World};

const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

#[test]
fn the_kernels_vxlan_and_ours_are_one_network() {
    kernel_test(Kernel::Host, "datapath::the_kernels_vxlan_and_ours_are_one_network", || {
        for (underlay, checksum) in FAMILIES.into_iter().flat_map(|family| [(family, false), (family, true)]) {
            let look = Look { underlay, sealed: None, cable: Cable::Wire, checksum };
            let counts = World::new(look).carry(converse);
            assert!(counts.underlay > 200 && counts.ports > 200 && counts.sealed == 0, "{counts:?}");
            assert!([Reason::Malformed, Reason::Spoofed, Reason::Policy].iter().all(|it| counts.dropped(*it) == 0));
        }
    });
}

#[test]
fn a_node_in_user_space_needs_a_udp_socket_to_hear_the_kernel_and_none_to_be_heard() {
    kernel_test(Kernel::Host, "datapath::a_node_in_user_space_needs_a_udp_socket", || {
        for underlay in FAMILIES {
            let look = Look { underlay, sealed: None, cable: Cable::Sockets, checksum: true };
            let counts = World::new(look).carry(talk::pings);
            assert!(counts.underlay >= 20 && counts.dropped(Reason::Malformed) == 0, "{counts:?}");
        }
    });
}

#[test]
fn the_kernels_esp_and_ours_are_one_network_by_every_cipher() {
    kernel_test(Kernel::Lab, "datapath::the_kernels_esp_and_ours_are_one_network", || {
        let looks = Cipher::ALL.into_iter().zip([Numbers::Extended, Numbers::Extended, Numbers::Short]);
        for (cipher, numbers) in looks {
            for underlay in FAMILIES {
                let look = Look { underlay, sealed: Some((cipher, numbers)), cable: Cable::Wire, checksum: false };
                let counts = World::new(look).carry(converse);
                assert!(counts.underlay > 200 && counts.sealed == counts.underlay, "{counts:?}");
                assert!(
                    [Reason::Unopened, Reason::Clear, Reason::ForeignSpi].iter().all(|it| counts.dropped(*it) == 0)
                );
            }
        }
    });
}

#[test]
fn what_the_other_node_seals_for_somebody_else_or_not_at_all_is_not_taken() {
    kernel_test(Kernel::Lab, "datapath::what_the_other_node_does_not_seal_is_not_taken", || {
        let sealed = Some((Cipher::Aes256Gcm, Numbers::Extended));
        let world = World::new(Look { underlay: IpFamily::V4, sealed, cable: Cable::Wire, checksum: false });
        let counts = world.carry(|ends| {
            assert!(talk::pings_once(ends));
            world::unprotect(&ends.there);
            assert!(!talk::pings_once(ends), "in the clear");
        });
        assert!(counts.dropped(Reason::Clear) > 0, "{counts:?}");
    });
}
