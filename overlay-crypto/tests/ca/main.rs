//! A cluster's authority over a store: what it grants, once, and to whom.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod gone;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::testing::{Dice, Executor, FlakyStore, Kernel, block_on, kernel_test_judged_by};
use overlay_core::{ClusterId, MemoryStore, NodeId, Prefix, Seat, Store, Term, UnixTime};
use overlay_crypto::pki::{
    Algorithm, Authority, AuthorityConfig, Cause, Certificate, CertificateAuthority, Denied, Invitation, Issued,
    JoinRefusal, JoinToken, Joining, Known, Life, NextRoot, Proof, RemoveRefusal, RenewRefusal, Renewing, Role,
    RoleRefusal, RootRefusal, SealingKey, Serial, SigningKey, SigningRequest, StoreAuthority, TokenRefusal, Trouble,
    Usage, VerifyError,
};

const CLUSTER: ClusterId = ClusterId::from_bytes([5; 16]);
const MANAGER: NodeId = NodeId::from_bytes([1; 16]);
const OTHER: NodeId = NodeId::from_bytes([2; 16]);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> UnixTime {
    UnixTime::from_millis(1_800_000_000_000)
}

fn sealing() -> SealingKey {
    SealingKey::generate(|bytes| bytes.fill(8))
}

/// A term of this manager's, which ends whose was there before.
async fn term(store: &dyn Store, holder: NodeId) -> Term {
    Term::usurp(store, &Seat::new(&Prefix::new("manager/").unwrap(), holder).unwrap(), now()).await.unwrap()
}

/// A manager's authority that follows.
fn authority(store: &Arc<dyn Store>, seed: u8) -> StoreAuthority {
    StoreAuthority::new(Arc::clone(store), &Prefix::ALL, CLUSTER, [seed; 32]).unwrap()
}

/// One that leads a founded cluster.
fn founded(store: &Arc<dyn Store>) -> StoreAuthority {
    let leader = authority(store, 1);
    leader.hold(sealing());
    block_on(async {
        leader.lead(term(&**store, MANAGER).await);
        leader.found(&NextRoot::Generate(Algorithm::EcdsaP256), now()).await.unwrap();
    });
    leader
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::default())
}

/// A node: its key and what it was given.
struct Node {
    key: SigningKey,
    issued: Issued,
}

impl Node {
    fn own(&self) -> &Certificate {
        self.issued.certificate().unwrap()
    }

    fn id(&self) -> NodeId {
        self.own().identity().unwrap().node
    }

    fn renewing(&self) -> (SigningKey, Renewing) {
        let (key, request) = asked();
        (key, Renewing { proof: Proof::Session(self.own().clone()), request })
    }

    fn renew(&mut self, authority: &StoreAuthority, now: UnixTime) -> Result<(), Denied<RenewRefusal>> {
        let (key, renewing) = self.renewing();
        let issued = block_on(authority.renew(&renewing, now))?;
        *self = Self { key, issued };
        Ok(())
    }
}

fn asked() -> (SigningKey, SigningRequest) {
    let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    let request = SigningRequest::create(&key).unwrap();
    (key, request)
}

fn join(authority: &StoreAuthority, role: Role, node: Option<NodeId>) -> Node {
    let token = block_on(authority.token(role)).unwrap();
    let (key, request) = asked();
    let issued = block_on(authority.join(&Joining { token, request, node }, now())).unwrap();
    Node { key, issued }
}

fn believed(authority: &StoreAuthority, node: &Node, at: UnixTime) -> Result<Role, VerifyError> {
    let trusted = block_on(authority.trusted()).unwrap();
    trusted.verify(&node.issued.chain, Usage::Client, at).map(|identity| identity.role)
}

fn invited(authority: &StoreAuthority, invitation: Invitation) -> JoinToken {
    block_on(authority.invite(&invitation)).unwrap()
}

const OPEN: Invitation = Invitation { role: Role::Worker, until: None, uses: None, node: None };

fn join_by(authority: &StoreAuthority, token: &JoinToken, node: Option<NodeId>) -> Result<Issued, Denied<JoinRefusal>> {
    block_on(authority.join(&Joining { token: token.clone(), request: asked().1, node }, now()))
}

#[test]
fn a_token_lets_in_as_its_role_and_the_root_believes_who_was_let_in() {
    let authority = founded(&memory());
    for role in Role::ALL {
        let node = join(&authority, role, None);
        assert_eq!(believed(&authority, &node, now()), Ok(role));
        assert_eq!(node.own().key(), node.key.digest());
        let token = block_on(authority.token(role)).unwrap();
        let trust = token.trust(&[&node.issued.chain[..], &node.issued.roots].concat(), now());
        assert_eq!(trust.is_ok(), role == Role::Manager);
    }
    let named = join(&authority, Role::Worker, Some(OTHER));
    assert_eq!(named.id(), OTHER);
    let token = block_on(authority.token(Role::Worker)).unwrap();
    let taken = join_by(&authority, &token, Some(OTHER)).unwrap_err();
    assert_eq!(taken.refusal(), Some(&JoinRefusal::Taken { node: OTHER }));
    assert_eq!(block_on(authority.members(now())).unwrap().len(), 3);
}

#[test]
fn spent_expired_anothers_and_rotated_tokens_let_nobody_in_and_a_node_that_asks_again_spends_nothing() {
    let authority = founded(&memory());
    let twice = invited(&authority, Invitation { uses: Some(2), ..OPEN });
    let joining = Joining { token: twice.clone(), request: asked().1, node: None };
    let first = block_on(authority.join(&joining, now())).unwrap();
    for later in [now(), now() + DAY] {
        let again = block_on(authority.join(&joining, later)).unwrap();
        let (first, again) = (first.certificate().unwrap(), again.certificate().unwrap());
        assert_eq!((first.serial(), first.validity()), (again.serial(), again.validity()));
        let guessed = JoinToken::generate(joining.token.root(), |bytes| bytes.fill(9));
        let other = Joining { token: guessed, ..joining.clone() };
        let refused = block_on(authority.join(&other, later)).unwrap_err();
        assert!(matches!(refused.refusal(), Some(JoinRefusal::Token(TokenRefusal::Unknown))), "{refused:?}");
    }
    assert!(join_by(&authority, &twice, None).is_ok());
    let refusal = |token: &JoinToken, node| match join_by(&authority, token, node) {
        Err(Denied::Refused(JoinRefusal::Token(refusal))) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(&twice, None), TokenRefusal::Spent);
    assert!(block_on(authority.join(&joining, now())).is_ok(), "it was let in before");

    let until = UnixTime::from_millis(now().as_millis() - 1);
    let late = invited(&authority, Invitation { until: Some(until), ..OPEN });
    assert_eq!(refusal(&late, None), TokenRefusal::Expired { until, now: now() });
    let bound = invited(&authority, Invitation { node: Some(OTHER), ..OPEN });
    assert_eq!(refusal(&bound, None), TokenRefusal::OtherNode);
    assert!(join_by(&authority, &bound, Some(OTHER)).is_ok());
    assert!(join_by(&authority, &bound, Some(OTHER)).is_ok(), "it lost its key, and the token is for it alone");
    let old = block_on(authority.token(Role::Worker)).unwrap();
    let new = block_on(authority.rotate_token(Role::Worker)).unwrap();
    assert_eq!(refusal(&old, None), TokenRefusal::Unknown);
    assert_eq!(block_on(authority.token(Role::Worker)).unwrap().to_string(), new.to_string());
    assert!(join_by(&authority, &new, None).is_ok());
    assert_eq!(block_on(authority.tend(now() + DAY)).unwrap().tokens, 1, "the one that was over");
}

#[test]
fn many_that_join_at_once_are_each_answered_for_themselves() {
    let authority = founded(&memory());
    let some = invited(&authority, Invitation { uses: Some(30), ..OPEN });
    let mut asks: Vec<Joining> =
        (0..40).map(|_| Joining { token: some.clone(), request: asked().1, node: None }).collect();
    asks.push(Joining { token: block_on(authority.token(Role::Manager)).unwrap(), request: asked().1, node: None });
    let answers = block_on(authority.join_all(&asks, now()));
    let spent = |answer: &Result<Issued, Denied<JoinRefusal>>| {
        matches!(answer, Err(Denied::Refused(JoinRefusal::Token(TokenRefusal::Spent))))
    };
    assert!(answers[..30].iter().all(Result::is_ok) && answers[30..40].iter().all(spent) && answers[40].is_ok());
    let serials: BTreeSet<Serial> =
        answers.iter().flatten().map(|issued| issued.certificate().unwrap().serial().clone()).collect();
    assert_eq!(serials.len(), 31);
    let again = block_on(authority.join_all(&asks, now()));
    assert_eq!(again.iter().filter(|answer| answer.is_ok()).count(), 31);
}

/// Answers get lost, commits come late, two managers believe to lead: whatever happens, a use lets one node in, once.
#[test]
fn however_answers_are_lost_no_use_lets_two_in_and_no_node_gets_two_certificates_for_one() {
    let (mut lost, mut granted, mut refused) = (0, 0, 0);
    for seed in 0..60_u8 {
        let memory = memory();
        let steady = Arc::new(founded(&memory));
        let token = invited(&steady, Invitation { uses: Some(3), ..OPEN });
        let flaky = FlakyStore::new(Arc::clone(&memory), Dice::new([seed; 32]), 4);
        let store: Arc<dyn Store> = Arc::new(flaky.clone());
        let leader = Arc::new(authority(&store, seed));
        leader.hold(sealing());
        leader.lead(block_on(term(&*memory, OTHER)));

        let mut executor = Executor::new([seed; 32]);
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let joining = Joining { token: token.clone(), request: asked().1, node: None };
                let leader = Arc::clone(&leader);
                executor.spawn(async move {
                    let mut serials = BTreeSet::new();
                    let mut said = None;
                    for _ in 0..200 {
                        match leader.join(&joining, now()).await {
                            Ok(issued) => drop(serials.insert(issued.certificate().unwrap().serial().clone())),
                            Err(Denied::Refused(refusal)) => said = Some(refusal),
                            Err(Denied::Trouble(trouble)) => {
                                assert!(trouble.is_transient(), "{trouble:?}");
                                continue;
                            }
                        }
                        if serials.len() + usize::from(said.is_some()) > 0 {
                            break;
                        }
                    }
                    // Once more, as one whose answer was lost.
                    if let Ok(issued) = leader.join(&joining, now()).await {
                        serials.insert(issued.certificate().unwrap().serial().clone());
                    }
                    (serials, said)
                })
            })
            .collect();
        executor.run().unwrap();
        let results: Vec<_> = tasks.iter().map(|task| task.take().unwrap()).collect();
        flaky.calm();
        let _ = block_on(store.read(&[])); // what is late comes now
        let members = block_on(steady.members(now())).unwrap();
        assert!(members.len() <= 3, "seed {seed}: {} were let in", members.len());
        for (serials, said) in &results {
            assert!(serials.len() <= 1, "seed {seed}: {serials:?}");
            granted += serials.len();
            refused += usize::from(said.is_some());
        }
        assert_eq!(results.iter().filter(|(serials, _)| !serials.is_empty()).count(), 3, "seed {seed}");
        let injected = flaky.injected();
        lost += injected.lost_answers + injected.late_done;
    }
    assert!(lost > 20 && granted == 180 && refused > 20, "{lost} lost, {granted} granted, {refused} refused");
}

#[test]
fn a_leader_that_was_deposed_grants_nothing_and_the_next_signs_once_it_was_given_the_key() {
    let store = memory();
    let old = founded(&store);
    let second = join(&old, Role::Manager, Some(OTHER));
    let token = invited(&old, Invitation { uses: Some(1), ..OPEN });
    let next = authority(&store, 2);
    let joining = Joining { token, request: asked().1, node: None };
    let denied = block_on(next.join(&joining, now())).unwrap_err();
    assert!(matches!(denied, Denied::Trouble(Trouble::NotLeading)), "{denied:?}");

    next.lead(block_on(term(&*store, OTHER)));
    let late = block_on(old.join(&joining, now())).unwrap_err();
    assert!(matches!(late, Denied::Trouble(Trouble::Deposed)), "{late:?}");
    let late = block_on(old.rotate_token(Role::Worker)).unwrap_err();
    assert!(matches!(late, Trouble::Deposed), "{late:?}");
    let sealed = block_on(next.join(&joining, now())).unwrap_err();
    assert!(matches!(sealed, Denied::Trouble(Trouble::Sealed)), "{sealed:?}");
    assert_eq!(block_on(next.members(now())).unwrap().len(), 1, "what cannot be signed is not granted");

    next.hold(SealingKey::generate(|bytes| bytes.fill(9)));
    let other = block_on(next.join(&joining, now())).unwrap_err();
    assert!(matches!(other, Denied::Trouble(Trouble::Sealed)), "another key unseals nothing: {other:?}");
    // The old one does not lead, and gives the key all the same: to a manager.
    let given = block_on(old.sealing_key(second.own(), now())).unwrap();
    next.hold(given);
    let issued = block_on(next.join(&joining, now())).unwrap();
    let node = Node { key: asked().0, issued };
    assert_eq!(believed(&old, &node, now()), Ok(Role::Worker), "old and new have one root");
    assert_eq!(
        block_on(next.token(Role::Worker)).unwrap().to_string(),
        block_on(old.token(Role::Worker)).unwrap().to_string()
    );
}

#[test]
fn the_key_that_unseals_is_given_to_managers_alone() {
    let authority = founded(&memory());
    let (manager, mut worker) = (join(&authority, Role::Manager, None), join(&authority, Role::Worker, None));
    let given = |node: &Node, at| block_on(authority.sealing_key(node.own(), at)).map_err(|no| no.refusal().copied());
    assert_eq!(given(&manager, now()), Ok(sealing()));
    let refusal = Err(Some(RenewRefusal::Role { wanted: Role::Manager }));
    assert_eq!(given(&worker, now()), refusal);
    block_on(authority.set_role(worker.id(), Role::Manager)).unwrap();
    assert_eq!(given(&worker, now()), refusal, "it shows a worker's certificate still");
    worker.renew(&authority, now()).unwrap();
    assert_eq!(given(&worker, now()), Ok(sealing()));
    assert!(matches!(given(&worker, now() + 91 * DAY), Err(Some(RenewRefusal::Expired { .. }))));
    block_on(authority.set_role(worker.id(), Role::Worker)).unwrap();
    assert_eq!(given(&worker, now()), refusal, "it was demoted");
    block_on(authority.remove(manager.id(), now())).unwrap_err();
    block_on(authority.set_role(worker.id(), Role::Manager)).unwrap();
    block_on(authority.remove(manager.id(), now())).unwrap();
    assert_eq!(given(&manager, now()), Err(Some(RenewRefusal::Removed { node: manager.id() })));
}

#[test]
fn a_role_that_was_changed_is_in_the_next_certificate_which_is_asked_for_at_once() {
    let authority = founded(&memory());
    let mut node = join(&authority, Role::Worker, None);
    let _manager = join(&authority, Role::Manager, Some(MANAGER));
    let seen = |node: &Node| block_on(authority.seen(node.own(), now())).unwrap();
    assert_eq!((seen(&node).role, seen(&node).renew), (Role::Worker, None));
    block_on(authority.set_role(node.id(), Role::Manager)).unwrap();
    assert_eq!((seen(&node).role, seen(&node).renew), (Role::Manager, Some(Cause::Role)));
    node.renew(&authority, now()).unwrap();
    assert_eq!(believed(&authority, &node, now()), Ok(Role::Manager));
    assert_eq!(seen(&node).renew, None);

    block_on(authority.force_renewal(node.id())).unwrap();
    assert_eq!(seen(&node).renew, Some(Cause::Asked));
    let before = node.own().serial().clone();
    node.renew(&authority, now() + DAY).unwrap();
    assert_eq!(block_on(authority.seen(node.own(), now() + DAY)).unwrap().renew, None);
    assert_ne!(*node.own().serial(), before);

    block_on(authority.set_role(MANAGER, Role::Worker)).unwrap();
    let last = block_on(authority.set_role(node.id(), Role::Worker)).unwrap_err();
    assert_eq!(last.refusal(), Some(&RoleRefusal::LastManager { node: node.id() }));
    let last = block_on(authority.remove(node.id(), now())).unwrap_err();
    assert_eq!(last.refusal(), Some(&RemoveRefusal::LastManager { node: node.id() }));
    block_on(authority.set_role(MANAGER, Role::Manager)).unwrap();
    block_on(authority.announce(node.id())).unwrap();
    let holder = block_on(authority.set_role(node.id(), Role::Worker)).unwrap_err();
    assert_eq!(holder.refusal(), Some(&RoleRefusal::LastManager { node: node.id() }), "the other cannot sign yet");
    block_on(authority.announce(MANAGER)).unwrap();
    block_on(authority.set_role(node.id(), Role::Worker)).unwrap();
    let nobody = NodeId::from_bytes([9; 16]);
    let stranger = block_on(authority.set_role(nobody, Role::Worker)).unwrap_err();
    assert_eq!(stranger.refusal(), Some(&RoleRefusal::Stranger { node: nobody }));
}

#[test]
fn a_node_whose_certificate_has_expired_is_rescued_within_the_grace_by_its_key_and_nobody_else() {
    let authority = founded(&memory());
    let (mut node, other) = (join(&authority, Role::Worker, None), join(&authority, Role::Worker, None));
    let late = now() + 100 * DAY;
    let expired = node.renew(&authority, late).unwrap_err();
    assert!(matches!(expired.refusal(), Some(RenewRefusal::Expired { .. })), "{expired:?}");
    let rescue = |certificate: &Certificate, key: &SigningKey, request: &SigningRequest, at| {
        let proof = Proof::of_key(certificate.clone(), key, request).unwrap();
        block_on(authority.renew(&Renewing { proof, request: request.clone() }, at))
    };
    let (key, request) = asked();
    let forged = rescue(node.own(), &other.key, &request, late).unwrap_err();
    assert_eq!(forged.refusal(), Some(&RenewRefusal::Signature));
    let Proof::Key { certificate, signature } = Proof::of_key(node.own().clone(), &node.key, &request).unwrap() else {
        panic!()
    };
    let moved = Renewing { proof: Proof::Key { certificate, signature }, request: asked().1 };
    let moved = block_on(authority.renew(&moved, late)).unwrap_err();
    assert_eq!(moved.refusal(), Some(&RenewRefusal::Signature), "a signature is of one request");
    let too_late = rescue(node.own(), &node.key, &request, now() + 121 * DAY).unwrap_err();
    assert!(matches!(too_late.refusal(), Some(RenewRefusal::Late { .. })));

    // A certificate that another root of the same name has issued proves nothing, whoever has its key.
    let foreign = Authority::create(CLUSTER, asked().0, &Serial::generate(|to| to.fill(3)), now()).unwrap();
    let (forger, asks) = asked();
    let identity = node.own().identity().unwrap();
    let grant = overlay_crypto::pki::Grant { identity, life: Life::default(), serial: Serial::generate(|_| {}) };
    let forged = foreign.issue(&asks, &grant, now()).unwrap();
    let forged = rescue(&forged, &forger, &request, late).unwrap_err();
    assert_eq!(forged.refusal(), Some(&RenewRefusal::OtherKey { node: node.id() }));

    let issued = rescue(node.own(), &node.key, &request, late).unwrap();
    node = Node { key, issued };
    assert_eq!(believed(&authority, &node, late), Ok(Role::Worker));
    block_on(authority.remove(other.id(), late)).unwrap();
    let gone = rescue(other.own(), &other.key, &request, late).unwrap_err();
    assert_eq!(gone.refusal(), Some(&RenewRefusal::Removed { node: other.id() }));
}

#[test]
fn an_answer_that_was_lost_is_given_again_and_a_renewal_is_granted_once_for_each_key() {
    let authority = founded(&memory());
    let node = join(&authority, Role::Worker, None);
    let (_, renewing) = node.renewing();
    let first = block_on(authority.renew(&renewing, now() + DAY)).unwrap();
    let again = block_on(authority.renew(&renewing, now() + 2 * DAY)).unwrap();
    let (first, again) = (first.certificate().unwrap(), again.certificate().unwrap());
    assert_eq!((first.serial(), first.validity()), (again.serial(), again.validity()));
    let (_, another) = node.renewing();
    let other = block_on(authority.renew(&another, now() + 2 * DAY)).unwrap();
    assert_ne!(first.serial(), other.certificate().unwrap().serial());
}

#[test]
fn the_root_is_let_go_when_all_that_live_have_followed_and_both_sides_are_believed_all_the_time() {
    let authority = founded(&memory());
    let (mut ann, mut bob) = (join(&authority, Role::Manager, None), join(&authority, Role::Worker, None));
    let lost = join(&authority, Role::Worker, None);
    let (old_token, old_roots) = (block_on(authority.token(Role::Worker)).unwrap(), ann.issued.roots.clone());
    let begun = block_on(authority.rotate_root(&NextRoot::Generate(Algorithm::Ed25519), now())).unwrap();
    assert_eq!((begun.waiting.len(), begun.followed), (3, 0));
    assert_eq!(block_on(authority.seen(ann.own(), now())).unwrap().renew, Some(Cause::Root));
    ann.renew(&authority, now()).unwrap();
    // Who has not heard of the next root believes it all the same, and the other way round.
    let old = overlay_crypto::pki::Trust::new(old_roots.clone()).unwrap();
    assert!(old.verify(&ann.issued.chain, Usage::Server, now()).is_ok());
    assert_eq!(believed(&authority, &bob, now()), Ok(Role::Worker));
    let shown = [&ann.issued.chain[..], &ann.issued.roots].concat();
    assert!(old_token.trust(&shown, now()).is_ok(), "a token of the present root leads to managers of the next");
    let joined = join_by(&authority, &old_token, None).unwrap();
    let joined = Node { key: asked().0, issued: joined };
    assert_eq!(joined.issued.roots.len(), 2);

    let progress = |at| block_on(authority.root_progress(at)).unwrap();
    assert_eq!(progress(now()).unwrap().followed, 1, "the one that joined; what was sent may not have come");
    block_on(authority.seen(ann.own(), now())).unwrap();
    bob.renew(&authority, now()).unwrap();
    block_on(authority.seen(bob.own(), now())).unwrap();
    let still = progress(now()).unwrap();
    assert_eq!((still.followed, still.waiting, still.lost), (3, vec![lost.id()], vec![]));
    assert!(!block_on(authority.tend(now())).unwrap().root_changed);
    let later = now() + 95 * DAY;
    assert!(progress(later).unwrap().lost.contains(&lost.id()), "its certificate has expired");
    block_on(authority.remove(lost.id(), now())).unwrap();
    assert!(block_on(authority.tend(now())).unwrap().root_changed);
    assert_eq!(progress(now()), None);
    let trusted = block_on(authority.trusted()).unwrap();
    assert_eq!((trusted.roots.len(), trusted.roots[0].key()), (1, begun.to));
    for node in [&ann, &bob, &joined] {
        assert!(believed(&authority, node, now()).is_ok());
    }
    let dead = join_by(&authority, &old_token, None).unwrap_err();
    assert_eq!(dead.refusal(), Some(&JoinRefusal::Token(TokenRefusal::Unknown)));
    assert_eq!(block_on(authority.token(Role::Worker)).unwrap().root(), begun.to);
    // Who missed it all believes managers still, by the old root's signature, and is rescued by its key.
    assert!(old.verify(&[ann.own().clone(), trusted.crosses[0].clone()], Usage::Server, now()).is_ok());
    openssl_agrees(&old_roots[0], &ann.issued, &trusted.roots[0]);
}

fn openssl_agrees(old: &Certificate, issued: &Issued, new: &Certificate) {
    let (old, new, chain) = (old.clone(), new.clone(), issued.chain.clone());
    kernel_test_judged_by(&["openssl"], Kernel::Host, "crypto::openssl_believes_both_roots_of_a_change", move || {
        let dir = std::env::temp_dir().join(format!("overlay-ca-{}-{}", std::process::id(), chain.len()));
        fs::create_dir_all(&dir).unwrap();
        let put = |name: &str, certificates: &[Certificate]| {
            let text: String = certificates.iter().map(Certificate::to_pem).collect();
            fs::write(dir.join(name), text).unwrap();
            dir.join(name).to_str().unwrap().to_owned()
        };
        let (own, crosses) = (put("own.pem", &chain[..1]), put("crosses.pem", &chain[1..]));
        let at = (chain[0].validity().from.as_secs() + 3600).to_string();
        for root in [put("old.pem", &[old]), put("new.pem", &[new])] {
            let verify = ["verify", "-x509_strict", "-attime", &at, "-CAfile", &root, "-untrusted", &crosses, &own];
            let said = Command::new("openssl").args(verify).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        }
        fs::remove_dir_all(&dir).unwrap();
    });
}

#[test]
fn a_change_of_the_root_is_taken_back_or_changed_for_another_without_anybody_left_behind() {
    let authority = founded(&memory());
    let mut nodes: Vec<Node> = (0..3).map(|_| join(&authority, Role::Worker, None)).collect();
    let first = block_on(authority.token(Role::Worker)).unwrap().root();
    let never = block_on(authority.abort_root(now())).unwrap_err();
    assert_eq!(never.refusal(), Some(&RootRefusal::NoRotation));
    let follow = |node: &mut Node| {
        node.renew(&authority, now()).unwrap();
        block_on(authority.seen(node.own(), now())).unwrap();
    };
    let second = block_on(authority.rotate_root(&NextRoot::Generate(Algorithm::EcdsaP256), now())).unwrap();
    follow(&mut nodes[0]);
    let back = block_on(authority.abort_root(now())).unwrap();
    assert_eq!((back.from, back.to, &back.waiting[..]), (first, first, &[nodes[0].id()][..]));
    assert_eq!(block_on(authority.abort_root(now())).unwrap(), back);
    nodes.iter().for_each(|node| assert!(believed(&authority, node, now()).is_ok()));
    assert!(!block_on(authority.tend(now())).unwrap().root_changed);
    let third = block_on(authority.rotate_root(&NextRoot::Generate(Algorithm::EcdsaP256), now())).unwrap();
    assert!(third.to != second.to && third.to != first);
    nodes.iter().for_each(|node| assert!(believed(&authority, node, now()).is_ok()));
    follow(&mut nodes[1]);
    let fourth = block_on(authority.rotate_root(&NextRoot::Generate(Algorithm::EcdsaP256), now())).unwrap();
    assert_eq!((fourth.waiting.len(), fourth.from), (3, first));
    nodes.iter().for_each(|node| assert!(believed(&authority, node, now()).is_ok()));
    nodes.iter_mut().for_each(follow);
    assert!(block_on(authority.tend(now())).unwrap().root_changed);
    let trusted = block_on(authority.trusted()).unwrap();
    assert_eq!(trusted.roots.iter().map(Certificate::key).collect::<Vec<_>>(), [fourth.to]);
    nodes.iter().for_each(|node| assert!(believed(&authority, node, now()).is_ok()));
}

#[test]
fn who_was_away_for_three_changes_of_the_root_believes_managers_still_and_is_rescued() {
    let authority = founded(&memory());
    let (away, mut manager) = (join(&authority, Role::Worker, None), join(&authority, Role::Manager, None));
    let late = now() + 95 * DAY;
    for change in 0..4 {
        manager.renew(&authority, now() + change * 30 * DAY).unwrap();
        let old = overlay_crypto::pki::Trust::new(away.issued.roots.clone()).unwrap();
        let at = now() + change * 30 * DAY;
        assert!(old.verify(&manager.issued.chain, Usage::Server, at).is_ok(), "{change} changes");
        if change == 3 {
            break;
        }
        // What was given up in between takes nobody's place.
        block_on(authority.rotate_root(&NextRoot::Generate(Algorithm::EcdsaP256), at)).unwrap();
        block_on(authority.rotate_root(&NextRoot::Generate(Algorithm::EcdsaP256), at)).unwrap();
        manager.renew(&authority, at).unwrap();
        block_on(authority.seen(manager.own(), at)).unwrap();
        if change == 0 {
            block_on(authority.abort_root(at)).unwrap();
            block_on(authority.rotate_root(&NextRoot::Generate(Algorithm::EcdsaP256), at)).unwrap();
            manager.renew(&authority, at).unwrap();
            block_on(authority.seen(manager.own(), at)).unwrap();
        }
        let ends = block_on(authority.tend(late)).unwrap();
        assert!(ends.root_changed, "the one that is away has expired by then");
    }
    let trusted = block_on(authority.trusted()).unwrap();
    assert_eq!((trusted.roots.len(), trusted.crosses.len()), (1, 3));
    let (_, request) = asked();
    let proof = Proof::of_key(away.own().clone(), &away.key, &request).unwrap();
    let issued = block_on(authority.renew(&Renewing { proof, request }, late)).unwrap();
    let back = Node { key: asked().0, issued };
    assert_eq!(believed(&authority, &back, late), Ok(Role::Worker));
    openssl_agrees(&away.issued.roots[0], &manager.issued, &trusted.roots[0]);
}

#[test]
fn a_root_that_does_not_fit_is_refused_before_anything_is_changed() {
    let authority = founded(&memory());
    let present = block_on(authority.trusted()).unwrap();
    let serial = || Serial::generate(|bytes| bytes.fill(3));
    let root = |cluster, at| Authority::create(cluster, asked().0, &serial(), at).unwrap();
    let other = root(ClusterId::from_bytes([6; 16]), now());
    let soon = root(CLUSTER, UnixTime::from_millis((now().as_secs() - 630_720_000 + 300 * 86_400) * 1000));
    let not_yet = root(CLUSTER, now() + DAY);
    let refusal = |next: NextRoot| match block_on(authority.rotate_root(&next, now())) {
        Err(Denied::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(NextRoot::Given(other)), RootRefusal::NoRoot);
    assert!(matches!(refusal(NextRoot::Given(soon)), RootRefusal::Soon { .. }));
    assert!(matches!(refusal(NextRoot::Given(not_yet)), RootRefusal::NotYet { .. }));
    assert_eq!(block_on(authority.trusted()).unwrap(), present);
    let given = root(CLUSTER, now());
    let key = SigningKey::from_pkcs8(&given.key().to_pkcs8()).unwrap();
    let again = Authority::open(given.certificate().clone(), key).unwrap();
    let digest = given.certificate().key();
    assert_eq!(block_on(authority.rotate_root(&NextRoot::Given(given), now())).unwrap().to, digest);
    assert!(block_on(authority.tend(now())).unwrap().root_changed, "nobody is to follow");
    assert_eq!(refusal(NextRoot::Given(again)), RootRefusal::SameKey { key: digest });
}

#[test]
fn lives_are_as_long_as_they_are_set_backdated_by_an_hour_and_numbers_never_come_twice() {
    let store = memory();
    let life = Life::new(Duration::from_secs(3600)).unwrap();
    let config = AuthorityConfig { life, ..AuthorityConfig::default() };
    let authority = founded(&store).with_config(config);
    let mut node = join(&authority, Role::Worker, None);
    let mut serials = BTreeMap::new();
    for minute in 0..40 {
        let at = now() + Duration::from_secs(60 * minute);
        node.renew(&authority, at).unwrap();
        let validity = node.own().validity();
        assert_eq!((validity.until, validity.life()), (at + life.get(), 2 * life.get()));
        assert_eq!(serials.insert(node.own().serial().clone(), minute), None);
    }
}
