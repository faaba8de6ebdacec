//! Nodes that are not any more what their certificates say.

use super::*;

#[test]
fn a_demoted_manager_serves_nobody_until_what_it_was_issued_has_expired_or_it_is_promoted_again() {
    let authority = founded(&memory());
    let (first, second) = (join(&authority, Role::Manager, None), join(&authority, Role::Manager, None));
    let serves = |at: UnixTime| {
        let trusted = block_on(authority.trusted()).unwrap();
        trusted.verify(&second.issued.chain, Usage::Server, at).map(|identity| identity.role)
    };
    let before = block_on(authority.trusted()).unwrap().revision;
    assert_eq!(serves(now()), Ok(Role::Manager));
    block_on(authority.set_role(second.id(), Role::Worker)).unwrap();
    assert!(block_on(authority.trusted()).unwrap().revision > before, "nodes hear that there is news");
    let identity = second.own().identity().unwrap();
    assert_eq!(serves(now()), Err(VerifyError::Demoted(identity)));
    assert_eq!(
        believed(&authority, &second, now()),
        Ok(Role::Manager),
        "who calls is known by its certificate, and judged by its record"
    );
    block_on(authority.set_role(second.id(), Role::Manager)).unwrap();
    assert_eq!(serves(now()), Ok(Role::Manager));
    block_on(authority.set_role(second.id(), Role::Worker)).unwrap();
    let until = second.own().validity().until;
    assert_eq!(block_on(authority.tend(until)).unwrap().forgotten, 0);
    assert_eq!(block_on(authority.tend(until + 2 * DAY)).unwrap().forgotten, 1);
    assert!(block_on(authority.trusted()).unwrap().demoted.is_empty());
    drop(first);
}

#[test]
fn a_removed_node_is_refused_at_once_until_its_certificates_have_expired_and_never_again_let_in() {
    let authority = founded(&memory());
    let (mut node, _manager) = (join(&authority, Role::Worker, None), join(&authority, Role::Manager, None));
    let before = block_on(authority.trusted()).unwrap().revision;
    let removed = block_on(authority.remove(node.id(), now())).unwrap();
    assert_eq!(removed.knew, [Known::GossipKey, Known::Tokens]);
    assert_eq!(block_on(authority.remove(node.id(), now())).unwrap(), removed, "asked again, it says the same");
    let trusted = block_on(authority.trusted()).unwrap();
    assert!(trusted.revision > before);
    let identity = node.own().identity().unwrap();
    assert_eq!(believed(&authority, &node, now()), Err(VerifyError::Removed(identity)));
    let refusal = RenewRefusal::Removed { node: node.id() };
    assert_eq!(node.renew(&authority, now()).unwrap_err().refusal(), Some(&refusal));
    let gone = node.id();
    assert_eq!(block_on(authority.seen(node.own(), now())).unwrap_err().refusal(), Some(&refusal));
    let token = block_on(authority.token(Role::Worker)).unwrap();
    let again = join_by(&authority, &token, Some(gone)).unwrap_err();
    assert_eq!(again.refusal(), Some(&JoinRefusal::Removed { node: gone }));

    assert_eq!(block_on(authority.tend(now() + 89 * DAY)).unwrap().forgotten, 0);
    let tended = block_on(authority.tend(removed.until + DAY)).unwrap();
    assert_eq!(tended.forgotten, 1);
    let later = block_on(authority.trusted()).unwrap();
    assert!(later.refusals.is_empty() && later.revision > trusted.revision);
    assert!(matches!(believed(&authority, &node, removed.until + DAY), Err(VerifyError::Expired { .. })));
    let gone = block_on(authority.remove(NodeId::from_bytes([9; 16]), now())).unwrap_err();
    assert!(matches!(gone.refusal(), Some(RemoveRefusal::Stranger { .. })));
}
