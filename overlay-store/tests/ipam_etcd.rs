//! Addresses leased by three managers on etcd.
#![allow(clippy::unwrap_used, reason = "a test that fails")]

use std::sync::Arc;

use overlay_core::{Prefix, Store};
use overlay_store::testing::EtcdServer;
use overlay_store::{EtcdConfig, EtcdSecurity, EtcdStore};
use tokio::runtime::Runtime;

#[test]
fn three_managers_lease_no_address_twice() {
    let Some(server) = EtcdServer::start("store::three_managers_lease_no_address_twice") else { return };
    let runtime = Runtime::new().unwrap();
    let open = || {
        let prefix = Prefix::new("cluster/").unwrap();
        let config = EtcdConfig::new([server.endpoint()], prefix, EtcdSecurity::PlaintextOnLoopback);
        Arc::new(runtime.block_on(EtcdStore::open(config)).unwrap()) as Arc<dyn Store>
    };
    let stores = vec![open(), open(), open()];
    let root = Prefix::new("ipam/").unwrap();
    let claims = runtime.block_on(overlay_ipam::testing::managers_agree(stores, &root, 20));
    assert!(claims > 300, "{claims} claims");
}
