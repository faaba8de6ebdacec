//! The same managers on a store in a file. (On etcd: overlay-store's `ipam_etcd`.)

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::sync::Arc;

use overlay_core::testing::block_on;
use overlay_core::{MemoryStore, Prefix, Store};
use overlay_ipam::testing::managers_agree;
use overlay_store::RedbStore;

#[test]
fn three_managers_lease_no_address_twice_in_memory_and_in_a_file() {
    let folder = std::env::temp_dir().join(format!("overlay-ipam-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file: Arc<dyn Store> = Arc::new(RedbStore::open(folder.join("catalogue")).unwrap());
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::default());
    for store in [memory, file] {
        let stores = vec![Arc::clone(&store), Arc::clone(&store), store];
        let claims = block_on(managers_agree(stores, &Prefix::new("ipam/").unwrap(), 30));
        assert!(claims > 500, "{claims} claims");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
