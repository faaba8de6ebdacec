//! Changes in the name of whomever, for tests.

use crate::tables::verify::statement;
use crate::tables::wire::{Change, Fresh, Group, Message};
use crate::testing::Forgery;

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
