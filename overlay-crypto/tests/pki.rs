//! Certificates: who is believed, and by whose judgement.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test_judged_by};
use overlay_core::{ClusterId, NodeId, UnixTime};
use overlay_crypto::pki::{
    Algorithm, Authority, Certificate, Grant, Identity, IssueError, JoinToken, Life, Refusals, RequestError, Role,
    Serial, SigningKey, SigningRequest, Trust, Usage, VerifyError,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

const CLUSTER: ClusterId = ClusterId::from_bytes([5; 16]);
const NODE: NodeId = NodeId::from_bytes([1; 16]);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> UnixTime {
    UnixTime::from_millis(1_800_000_000_000)
}

fn ago(span: Duration) -> UnixTime {
    UnixTime::from_millis(now().as_millis() - span.as_millis() as u64)
}

/// Chance, another each time.
fn serial() -> Serial {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Serial::generate(|bytes| bytes[8..].copy_from_slice(&next.to_be_bytes()))
}

fn root(algorithm: Algorithm) -> Authority {
    Authority::create(CLUSTER, SigningKey::generate(algorithm).unwrap(), &serial(), now()).unwrap()
}

fn node(role: Role) -> Identity {
    Identity { node: NODE, role, cluster: CLUSTER }
}

fn grant(identity: Identity) -> Grant {
    Grant { identity, life: Life::default(), serial: serial() }
}

fn request(algorithm: Algorithm) -> SigningRequest {
    SigningRequest::create(&SigningKey::generate(algorithm).unwrap()).unwrap()
}

fn issued(root: &Authority, role: Role) -> Certificate {
    root.issue(&request(Algorithm::EcdsaP256), &grant(node(role)), now()).unwrap()
}

fn trust(root: &Authority) -> Trust {
    Trust::new([root.certificate().clone()]).unwrap()
}

fn refused(trust: &Trust, chain: &[Certificate], now: UnixTime) -> VerifyError {
    trust.verify(chain, Usage::Client, now).unwrap_err()
}

/// Files that `openssl` reads, gone with this.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("overlay-pki-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// In PEM, as its tools like it.
    fn put(&self, name: &str, certificates: &[&Certificate]) -> String {
        let path = self.0.join(name);
        let text: String = certificates.iter().map(|certificate| certificate.to_pem()).collect();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the judge says.
fn openssl(arguments: &[&str]) -> (bool, String) {
    let said = Command::new("openssl").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    (said.status.success(), text)
}

#[test]
fn openssl_believes_what_we_issue_for_as_long_and_for_what_we_say() {
    kernel_test_judged_by(&["openssl"], Kernel::Host, "crypto::openssl_believes_what_we_issue", || {
        believes(Algorithm::EcdsaP256, Algorithm::Ed25519);
        believes(Algorithm::Ed25519, Algorithm::EcdsaP256);
    });
}

fn believes(of_root: Algorithm, of_node: Algorithm) {
    let files = Files::new(&format!("{of_root:?}"));
    let root = root(of_root);
    let manager = root.issue(&request(of_node), &grant(node(Role::Manager)), now()).unwrap();
    let (roots, own) = (files.put("root.pem", &[root.certificate()]), files.put("node.pem", &[&manager]));
    let verify = |purpose: &str, at: UnixTime| {
        let at = at.as_secs().to_string();
        openssl(&["verify", "-x509_strict", "-attime", &at, "-purpose", purpose, "-CAfile", &roots, &own])
    };
    for purpose in ["sslclient", "sslserver"] {
        let (believed, said) = verify(purpose, now());
        assert!(believed, "{said}");
        assert!(!verify(purpose, now() + 91 * DAY).0 && !verify(purpose, ago(DAY)).0);
    }
    let (_, text) = openssl(&["x509", "-in", &own, "-noout", "-text"]);
    let plain = text.replace(" = ", "="); // releases differ
    let subject = [format!("O={CLUSTER}"), "OU=swarm-manager".to_owned(), format!("CN={NODE}")];
    let names = [format!("DNS:swarm-manager, DNS:{NODE}, DNS:swarm-ca"), "CA:FALSE".to_owned()];
    for said in subject.iter().chain(&names) {
        assert!(plain.contains(said), "{said} in {text}");
    }
}

#[test]
fn a_new_root_is_believed_by_who_trusts_the_old_one_alone_if_that_has_signed_it() {
    let (old, new) = (root(Algorithm::EcdsaP256), root(Algorithm::Ed25519));
    let cross = old.cross_sign(&new, &serial(), now()).unwrap();
    let own = issued(&new, Role::Worker);
    let chain = [own.clone(), cross.clone()];
    assert_eq!(trust(&old).verify(&chain, Usage::Client, now()), Ok(node(Role::Worker)));
    assert_eq!(trust(&new).verify(&chain, Usage::Client, now()), Ok(node(Role::Worker)));
    assert_eq!(refused(&trust(&old), &chain[..1], now()), VerifyError::Foreign { cluster: CLUSTER });
    let both = Trust::new([old.certificate().clone(), new.certificate().clone()]).unwrap();
    assert_eq!(both.verify(&chain[..1], Usage::Server, now()), Ok(node(Role::Worker)));
    assert_eq!(both.verify(&[issued(&old, Role::Worker)], Usage::Server, now()), Ok(node(Role::Worker)));

    let old = old.certificate().clone();
    kernel_test_judged_by(
        &["openssl"],
        Kernel::Host,
        "crypto::openssl_believes_a_root_that_another_signed",
        move || {
            let files = Files::new("cross");
            let (roots, between) = (files.put("root.pem", &[&old]), files.put("cross.pem", &[&cross]));
            let (own, at) = (files.put("node.pem", &[&own]), now().as_secs().to_string());
            let verify = ["verify", "-x509_strict", "-attime", &at, "-CAfile", &roots];
            let (believed, said) = openssl(&[&verify[..], &["-untrusted", &between, &own]].concat());
            assert!(believed, "{said}");
            assert!(!openssl(&[&verify[..], &[&own]].concat()).0);
        },
    );
}

#[test]
fn of_a_request_only_the_key_is_believed() {
    let root = root(Algorithm::EcdsaP256);
    let key = KeyPair::generate().unwrap();
    let mut wants = CertificateParams::new(["admin".to_owned(), "swarm-ca".to_owned()]).unwrap();
    wants.distinguished_name.push(DnType::CommonName, "admin");
    wants.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
    wants.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let plain = wants.serialize_request(&key).unwrap();
    wants.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let asks_for_all = wants.serialize_request(&key);
    let mut all = Vec::new();
    for asked in [Some(plain), asks_for_all.ok()].into_iter().flatten() {
        let request = SigningRequest::from_der(asked.der().to_vec()).unwrap();
        let given = root.issue(&request, &grant(node(Role::Worker)), now()).unwrap();
        assert_eq!(trust(&root).verify(std::slice::from_ref(&given), Usage::Client, now()), Ok(node(Role::Worker)));
        assert!(!given.is_authority() && given.key() == request.key());
        all.push(given);
    }
    kernel_test_judged_by(&["openssl"], Kernel::Host, "crypto::openssl_sees_nothing_of_what_was_asked", move || {
        for given in &all {
            let files = Files::new("asked");
            let (_, text) = openssl(&["x509", "-in", &files.put("node.pem", &[given]), "-noout", "-text"]);
            let asked = ["admin", "swarm-ca,", "Certificate Sign"].iter().any(|asked| text.contains(asked));
            assert!(!asked && text.contains("CA:FALSE") && text.contains("DNS:swarm-worker"), "{text}");
        }
    });
}

#[test]
fn a_request_that_another_key_signed_or_that_is_changed_is_refused() {
    let mut der = request(Algorithm::EcdsaP256).as_der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert!(matches!(SigningRequest::from_der(der), Err(RequestError::Signature | RequestError::Malformed(_))));
    assert!(matches!(SigningRequest::from_der([0x30, 0]), Err(RequestError::Malformed(_))));
    assert_eq!(SigningRequest::from_der(vec![0; 20_000]).unwrap_err(), RequestError::TooLong { have: 20_000 });
    let of_p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let asked = CertificateParams::default().serialize_request(&of_p384).unwrap();
    assert_eq!(SigningRequest::from_der(asked.der().to_vec()).unwrap_err(), RequestError::Algorithm);
}

#[test]
fn whoever_is_not_believed_is_told_why() {
    let (ours, theirs) = (root(Algorithm::EcdsaP256), root(Algorithm::EcdsaP256));
    let (trust, own) = (trust(&ours), issued(&ours, Role::Worker));
    let until = own.validity().until;
    assert_eq!(refused(&trust, &[], now()), VerifyError::Missing);
    assert_eq!(refused(&trust, &vec![own.clone(); 7], now()), VerifyError::TooMany { have: 7 });
    assert_eq!(refused(&trust, &[issued(&theirs, Role::Worker)], now()), VerifyError::Foreign { cluster: CLUSTER });
    let later = until + Duration::from_secs(1);
    assert_eq!(refused(&trust, std::slice::from_ref(&own), later), VerifyError::Expired { until, now: later });
    assert_eq!(
        trust.verify(std::slice::from_ref(&own), Usage::Client, until),
        Ok(node(Role::Worker)),
        "the last second counts"
    );
    let earlier = ago(Duration::from_secs(1801));
    let young = Authority::open(ours.certificate().clone(), SigningKey::from_pkcs8(&ours.key().to_pkcs8()).unwrap());
    let young = young.unwrap().issue(&request(Algorithm::Ed25519), &grant(node(Role::Worker)), now() + DAY);
    let young = young.unwrap();
    let from = young.validity().from;
    assert_eq!(refused(&trust, &[young], earlier), VerifyError::NotYet { from, now: earlier });
    assert_eq!(refused(&trust, &[ours.certificate().clone()], now()), VerifyError::Authority);
    let role = trust.verify_as(Role::Manager, std::slice::from_ref(&own), Usage::Client, now());
    assert_eq!(role, Err(VerifyError::Role { found: Role::Worker, wanted: Role::Manager }));
    let much_later = now() + 21 * 365 * DAY;
    assert_eq!(
        refused(&trust, std::slice::from_ref(&own), much_later),
        VerifyError::Root { cluster: CLUSTER, now: much_later }
    );

    let mut refusals = Refusals::default();
    refusals.refuse(NODE, until);
    let who = trust.verify(&[own], Usage::Client, now()).unwrap();
    assert_eq!(refusals.check(&who), Err(VerifyError::Removed(who)));
}

#[test]
fn what_others_made_is_refused_by_name_though_it_says_the_same_of_itself() {
    let ours = root(Algorithm::EcdsaP256);
    let trust = trust(&ours);
    let key = KeyPair::generate().unwrap();
    let mut says = CertificateParams::default();
    says.not_before = time::OffsetDateTime::from_unix_timestamp(now().as_secs() as i64 - 100).unwrap();
    says.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, text) in [
        (DnType::OrganizationName, CLUSTER.to_string()),
        (DnType::OrganizationalUnitName, "swarm-manager".to_owned()),
        (DnType::CommonName, NODE.to_string()),
    ] {
        says.distinguished_name.push(kind, text);
    }
    says.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let read = |certificate: rcgen::Certificate| Certificate::from_der(certificate.der().to_vec()).unwrap();
    let own = read(says.self_signed(&key).unwrap());
    assert_eq!(own.identity(), Some(node(Role::Manager)));
    assert_eq!(refused(&trust, &[own], now()), VerifyError::SelfSigned);

    // Signed by the root's own key, as a careless other program would: for another use, without a node's name, of another cluster.
    let root_key = KeyPair::try_from(ours.key().to_pkcs8().as_slice()).unwrap();
    let mut of_root = CertificateParams::default();
    of_root.distinguished_name = rcgen::DistinguishedName::new();
    of_root.distinguished_name.push(DnType::OrganizationName, CLUSTER.to_string());
    of_root.distinguished_name.push(DnType::CommonName, "swarm-ca");
    let issuer = rcgen::Issuer::new(of_root, &root_key);
    let own = read(says.signed_by(&key, &issuer).unwrap());
    assert_eq!(trust.verify(std::slice::from_ref(&own), Usage::Client, now()), Ok(node(Role::Manager)));
    assert_eq!(trust.verify(&[own], Usage::Server, now()), Err(VerifyError::Usage(Usage::Server)));
    let other = ClusterId::from_bytes([6; 16]);
    says.distinguished_name.push(DnType::OrganizationName, other.to_string());
    let own = read(says.signed_by(&key, &issuer).unwrap());
    assert_eq!(refused(&trust, &[own], now()), VerifyError::Cluster { found: other, cluster: CLUSTER });
    says.distinguished_name.push(DnType::CommonName, "admin");
    says.subject_alt_names = vec![SanType::DnsName("swarm-manager".try_into().unwrap())];
    let own = read(says.signed_by(&key, &issuer).unwrap());
    assert_eq!(refused(&trust, &[own], now()), VerifyError::Nobody);
}

/// A node that signs for others what only a root may.
#[test]
fn a_nodes_key_signs_nobody_in() {
    let ours = root(Algorithm::EcdsaP256);
    let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    let asked = SigningRequest::create(&key).unwrap();
    let own = ours.issue(&asked, &grant(node(Role::Worker)), now()).unwrap();
    let forger = KeyPair::try_from(key.to_pkcs8().as_slice()).unwrap();
    let mut of_node = CertificateParams::default();
    of_node.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, text) in [
        (DnType::OrganizationName, CLUSTER.to_string()),
        (DnType::OrganizationalUnitName, "swarm-worker".to_owned()),
        (DnType::CommonName, NODE.to_string()),
    ] {
        of_node.distinguished_name.push(kind, text);
    }
    let mut forged = CertificateParams::default();
    forged.distinguished_name = of_node.distinguished_name.clone();
    forged.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
    let issuer = rcgen::Issuer::new(of_node, &forger);
    let forged = forged.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let forged = Certificate::from_der(forged.der().to_vec()).unwrap();
    let refusal = refused(&trust(&ours), &[forged, own], now());
    assert!(matches!(refusal, VerifyError::Foreign { .. } | VerifyError::Malformed(_)), "{refusal}");
}

#[test]
fn a_token_trusts_the_manager_that_its_root_has_signed_and_nobody_else() {
    let (ours, theirs) = (root(Algorithm::EcdsaP256), root(Algorithm::EcdsaP256));
    let token = JoinToken::generate(ours.certificate().key(), |bytes| bytes.fill(9));
    let shown = |root: &Authority, role| [issued(root, role), root.certificate().clone()];
    let trust = token.trust(&shown(&ours, Role::Manager), now()).unwrap();
    assert_eq!((trust.cluster(), trust.roots()), (CLUSTER, &[ours.certificate().clone()][..]));
    let foreign = token.trust(&shown(&theirs, Role::Manager), now()).unwrap_err();
    assert_eq!(foreign, VerifyError::Foreign { cluster: CLUSTER });
    let worker = token.trust(&shown(&ours, Role::Worker), now()).unwrap_err();
    assert_eq!(worker, VerifyError::Role { found: Role::Worker, wanted: Role::Manager });
    let unshown = token.trust(&shown(&ours, Role::Manager)[..1], now()).unwrap_err();
    assert_eq!(unshown, VerifyError::Foreign { cluster: CLUSTER });
    let [theirs_own, _] = shown(&theirs, Role::Manager);
    let mixed = token.trust(&[theirs_own, ours.certificate().clone()], now()).unwrap_err();
    assert_eq!(mixed, VerifyError::Foreign { cluster: CLUSTER }, "the root alone proves nothing");
}

#[test]
fn a_root_issues_within_its_life_for_its_own_cluster_and_under_numbers_of_their_own() {
    let ours = root(Algorithm::EcdsaP256);
    let other = Identity { cluster: ClusterId::from_bytes([6; 16]), ..node(Role::Worker) };
    let asked = request(Algorithm::EcdsaP256);
    let refused = ours.issue(&asked, &grant(other), now());
    assert!(matches!(refused, Err(IssueError::Cluster { .. })), "{refused:?}");
    let late = now() + 21 * 365 * DAY;
    let refused = ours.issue(&asked, &grant(node(Role::Worker)), late);
    assert!(matches!(refused, Err(IssueError::Root { .. })), "{refused:?}");
    let nearly = now() + (20 * 365 - 1) * DAY;
    let last = ours.issue(&asked, &grant(node(Role::Worker)), nearly).unwrap();
    assert_eq!(last.validity().until, ours.certificate().validity().until);
    assert!(matches!(ours.cross_sign(&ours, &serial(), now()), Err(IssueError::SameKey)));
    let wrong = Authority::open(ours.certificate().clone(), SigningKey::generate(Algorithm::EcdsaP256).unwrap());
    assert!(matches!(wrong, Err(IssueError::OtherKey { .. })));
    let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    let own = ours.issue(&SigningRequest::create(&key).unwrap(), &grant(node(Role::Manager)), now());
    assert!(matches!(Authority::open(own.unwrap(), key), Err(IssueError::NoRoot)));

    let mut numbers = BTreeSet::new();
    for _ in 0..200 {
        let given = ours.issue(&asked, &grant(node(Role::Worker)), now()).unwrap();
        assert!(numbers.insert(given.serial().clone()) && given.serial().as_bytes().len() == 16);
    }
}

#[test]
fn a_certificate_is_the_same_after_its_way_through_bytes_and_text() {
    let own = issued(&root(Algorithm::Ed25519), Role::Worker);
    assert_eq!(Certificate::from_der(own.as_der()).unwrap(), own);
    assert_eq!(Certificate::from_pem(&own.to_pem()).unwrap(), own);
    let text = serde_json::to_string(&own).unwrap();
    assert_eq!(serde_json::from_str::<Certificate>(&text).unwrap(), own);
    assert!(Certificate::from_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    assert!(Certificate::from_pem(&own.to_pem().replace("CERTIFICATE", "PRIVATE KEY")).is_err());
}
