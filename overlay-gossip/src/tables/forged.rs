//! Changes in the name of whomever, for tests.

#[cfg(test)]
use bytes::Bytes;
#[cfg(test)]
use overlay_core::NodeId;

use crate::tables::verify::statement;
use crate::tables::wire::{Change, Fresh, Group, Message};
#[cfg(test)]
use crate::tables::{DIRECTORY, VOUCHERS, verify::voucher_key};
use crate::testing::Forgery;
#[cfg(test)]
use crate::testing::TestKeys;

/// A message of news.
pub(crate) fn forged(forgery: &Forgery) -> Vec<u8> {
    let Forgery { owner, incarnation, ref at, .. } = *forgery;
    let group = Group { owner, incarnation, stable: 0, changes: vec![change(forgery)] };
    let mut body = Vec::new();
    Message::Fresh(Fresh { groups: vec![(at.network, group)] }).encode(&mut body);
    body
}

/// What its owner would sign.
pub(crate) fn forged_statement(forgery: &Forgery) -> Vec<u8> {
    statement(forgery.at.network, forgery.owner, forgery.incarnation, &change(forgery))
}

fn change(forgery: &Forgery) -> Change {
    let Forgery { sequence, at, value, signature, .. } = forgery.clone();
    Change { sequence, covers: Vec::new(), table: at.table, key: at.key, value, signature }
}

/// What is shown of a start of a node, signed by whoever has that secret.
#[cfg(test)]
pub(crate) fn forged_voucher(owner: NodeId, incarnation: u64, voucher: Vec<u8>, secret: u64) -> Group {
    let Some(key) = voucher_key() else { unreachable!("a key that is in range") };
    let (table, value) = (VOUCHERS, Some(voucher.into()));
    let mut change = Change { sequence: 1, covers: Vec::new(), table, key, value, signature: Bytes::new() };
    change.signature = TestKeys::signature(secret, &statement(DIRECTORY, owner, incarnation, &change)).into();
    Group { owner, incarnation, stable: 0, changes: vec![change] }
}
