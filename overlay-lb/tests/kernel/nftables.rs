//! nf_tables: the suite, and what is peculiar to it.

use overlay_core::Shadow;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_lb::kernel::Nftables;

use crate::suite;
use crate::town::{Place, Town, owner, whole};

#[test]
fn nftables_does_what_it_says_it_can() {
    kernel_test(Kernel::Host, "lb::nftables_does_what_it_says_it_can", || {
        let town = Town::new(3);
        let before = whole(&town.client);
        let table = Nftables::open(&owner(), town.client.try_clone().unwrap()).unwrap();
        suite::run(&mut Place::new(&town, Shadow::new(table), Nftables::capabilities()));
        assert_eq!(whole(&town.client), before);
    });
}
