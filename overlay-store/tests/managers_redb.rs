//! Managers of a cluster on a store in one file.
#![allow(clippy::unwrap_used, reason = "a test that fails")]

mod managers;

use std::sync::Arc;

use overlay_core::Store;
use overlay_store::RedbStore;

#[test]
fn managers_on_one_file_make_nothing_twice_and_find_all_when_it_is_opened_anew() {
    let folder = std::env::temp_dir().join(format!("overlay-managers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let open = || Arc::new(RedbStore::open(folder.join("catalogue")).unwrap()) as Arc<dyn Store>;
    let store = open();
    managers::three_managers_make_nothing_twice_and_lose_nothing(&std::array::from_fn(|_| Arc::clone(&store)));
    drop(store);
    managers::what_they_made_is_there_and_goes_without_a_trace(&open());
    std::fs::remove_dir_all(&folder).unwrap();
}
