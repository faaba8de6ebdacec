//! Bodies for overlay-node's catalogue: the records that a store may give back.

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] = &[("catalogue_records", records)];

/// No bytes make a reader panic, and what is read is written as the same again.
fn records(bytes: &[u8]) {
    overlay_node::testing::reread_records(bytes);
}
