//! Managers of a cluster on etcd, each with a connection of its own.
#![allow(clippy::unwrap_used, reason = "a test that fails")]

mod managers;

use std::sync::Arc;

use overlay_core::{Prefix, Store};
use overlay_store::testing::EtcdServer;
use overlay_store::{EtcdConfig, EtcdSecurity, EtcdStore};
use tokio::runtime::Runtime;

#[test]
fn managers_on_etcd_make_nothing_twice_and_find_all_when_they_come_anew() {
    let Some(server) = EtcdServer::start("store::managers_on_etcd_make_nothing_twice") else { return };
    let runtime = Runtime::new().unwrap();
    let open = || {
        let config = EtcdConfig::new([server.endpoint()], Prefix::new("").unwrap(), EtcdSecurity::PlaintextOnLoopback);
        Arc::new(runtime.block_on(EtcdStore::open(config)).unwrap()) as Arc<dyn Store>
    };
    managers::three_managers_make_nothing_twice_and_lose_nothing(&std::array::from_fn(|_| open()));
    managers::what_they_made_is_there_and_goes_without_a_trace(&open());
}
