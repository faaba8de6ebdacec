//! What a member signs.

use overlay_core::NodeId;

use crate::wire::{Number, Update, put_address, put_bytes};
use crate::{Member, Role, Standing};

/// What stands behind the signature of an update, whoever tells it.
pub(super) fn statement(update: &Update) -> Vec<u8> {
    match update.standing {
        Standing::Left => goodbye(update.member.id, update.number()),
        Standing::Alive | Standing::Suspected | Standing::Suspended => presence(&update.member, update.revision),
    }
}

/// What a node signs of itself under each of its numbers.
pub(super) fn presence(member: &Member, revision: u32) -> Vec<u8> {
    let Member { id, incarnation, address, role, metadata } = member;
    let mut out = numbered(b"overlay-gossip member 1", *id, Number { incarnation: *incarnation, revision });
    out.push((*role == Role::Manager).into());
    out.push(address.is_ipv6().into());
    put_address(*address, &mut out);
    put_bytes(metadata.as_bytes(), &mut out);
    out
}

/// What a node signs when it leaves.
pub(super) fn goodbye(id: NodeId, number: Number) -> Vec<u8> {
    numbered(b"overlay-gossip goodbye 1", id, number)
}

fn numbered(label: &[u8], id: NodeId, Number { incarnation, revision }: Number) -> Vec<u8> {
    let mut out = label.to_vec();
    out.extend_from_slice(&id.to_bytes());
    out.extend_from_slice(&incarnation.to_be_bytes());
    out.extend_from_slice(&revision.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::any_update;

    proptest! {
        #[test]
        fn two_updates_have_one_statement_only_if_they_say_the_same(one in any_update(), other in any_update(), same: [bool; 6]) {
            let pick = |at: usize, one: &Update, other: &Update| if same[at] { one.clone() } else { other.clone() };
            let member = Member {
                id: pick(0, &one, &other).member.id,
                incarnation: pick(1, &one, &other).member.incarnation,
                address: pick(2, &one, &other).member.address,
                role: pick(3, &one, &other).member.role,
                metadata: pick(4, &one, &other).member.metadata,
            };
            let mixed = Update { member, revision: pick(5, &one, &other).revision, ..one.clone() };
            let left = one.standing == Standing::Left;
            let says = |update: &Update| {
                let Member { address, role, metadata, .. } = &update.member;
                let rest = (!left).then(|| (*address, *role, metadata.clone()));
                (update.member.id, update.number(), rest)
            };
            prop_assert_eq!(statement(&one) == statement(&mixed), says(&one) == says(&mixed));
        }
    }
}
