//! `crypto/cert-issue`, `crypto/cert-verify`, `crypto/token-check`, `crypto/ca-issue-store…`: certificates and join tokens, on one core.
//!
//! A certificate is issued from a request that was read before; the yardstick is rcgen alone, with as many names and usages and a number of its own. What is verified is a chain of one,
//! by one root; what is checked is a token's text against what a manager keeps of it. Over a store in memory, nodes join by a token of any number of uses, one by one or many in a commit; the
//! yardstick is the root that signs alone.

#![expect(clippy::expect_used, reason = "values that are right by construction")]

use std::hint::black_box;
use std::io;
use std::sync::Arc;

use overlay_bench::Bench;
use overlay_core::testing::block_on;
use overlay_core::{ClusterId, MemoryStore, NodeId, Prefix, Seat, Store, Term, UnixTime};
use overlay_crypto::pki::{
    Algorithm, Authority, CertificateAuthority, Grant, Identity, JoinToken, Joining, Life, NextRoot, Role, SealingKey,
    Serial, SigningKey, SigningRequest, StoreAuthority, Trust, Usage,
};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SerialNumber};

/// Certificates that are issued between two looks at the clock.
const BATCH: u64 = 20;
const CLUSTER: ClusterId = ClusterId::from_bytes([5; 16]);

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let now = UnixTime::from_millis(1_800_000_000_000);
    let key = || SigningKey::generate(Algorithm::EcdsaP256).expect("the system has chance");
    let root = Authority::create(CLUSTER, key(), &serial(1), now).expect("a root");
    let request = SigningRequest::create(&key()).expect("a request");
    let node = Identity { node: NodeId::from_bytes([1; 16]), role: Role::Worker, cluster: CLUSTER };
    let issue = |number| {
        let grant = Grant { identity: node, life: Life::default(), serial: serial(number) };
        root.issue(&request, &grant, now).expect("a certificate")
    };

    let (issuer, asked) = (bare_issuer(), KeyPair::generate().expect("a key"));
    let mut number = 1;
    bench
        .figure("crypto/cert-issue", "per s")
        .rate(|| {
            (0..BATCH).for_each(|_| {
                number += 1;
                black_box(issue(number));
            });
            BATCH
        })
        .yardstick_rate("rcgen alone", || {
            (0..BATCH).for_each(|_| {
                black_box(bare_params().signed_by(&asked, &issuer).expect("a certificate"));
            });
            BATCH
        })
        .report()?;

    let (trust, chain) = (Trust::new([root.certificate().clone()]).expect("a root"), [issue(0)]);
    bench
        .figure("crypto/cert-verify", "us")
        .each(|_| {
            black_box(trust.verify(&chain, Usage::Client, now).expect("it is ours"));
        })
        .report()?;

    let token = JoinToken::generate(root.certificate().key(), |bytes| bytes.fill(9));
    let (text, kept) = (token.to_string(), token.admission(Role::Worker));
    bench
        .figure("crypto/token-check", "us")
        .each(|_| {
            let token: JoinToken = black_box(text.as_str()).parse().expect("a token");
            black_box(kept.admit(&token, None, now).expect("it lets in"));
        })
        .report()?;

    over_a_store(bench, &request, now, |number| drop(black_box(issue(number))))
}

/// Nodes with names of their own and one key, so that no time goes into making keys.
fn over_a_store(bench: &mut Bench<'_>, request: &SigningRequest, now: UnixTime, issue: impl Fn(u64)) -> io::Result<()> {
    let mut next = 0_u128;
    for (name, many) in [("crypto/ca-issue-store", 1), ("crypto/ca-issue-store-batch", 64)] {
        let authority = authority(now);
        let token = block_on(authority.token(Role::Worker)).expect("it was founded");
        let mut joining = || {
            next += 1;
            let node = Some(NodeId::from_bytes(next.to_be_bytes()));
            Joining { token: token.clone(), request: request.clone(), node }
        };
        let mut number = 1 << 32;
        bench
            .figure(name, "per s")
            .rate(|| {
                let asks: Vec<Joining> = (0..64).map(|_| joining()).collect();
                for some in asks.chunks(many) {
                    for answer in block_on(authority.join_all(some, now)) {
                        black_box(answer.expect("it lets in"));
                    }
                }
                64
            })
            .yardstick_rate("the root alone", || {
                (0..64).for_each(|_| {
                    number += 1;
                    issue(number);
                });
                64
            })
            .report()?;
    }
    Ok(())
}

fn authority(now: UnixTime) -> StoreAuthority {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let seat = Seat::new(&Prefix::new("manager/").expect("a prefix"), NodeId::from_bytes([1; 16])).expect("a seat");
    let authority = StoreAuthority::new(Arc::clone(&store), &Prefix::ALL, CLUSTER, [7; 32]).expect("a prefix");
    authority.hold(SealingKey::generate(|bytes| bytes.fill(8)));
    block_on(async {
        authority.lead(Term::campaign(&*store, &seat, now).await.expect("nobody else"));
        authority.found(&NextRoot::Generate(Algorithm::EcdsaP256), now).await.expect("a root");
    });
    authority
}

fn serial(number: u64) -> Serial {
    Serial::generate(|bytes| bytes[8..].copy_from_slice(&number.to_be_bytes()))
}

fn bare_issuer() -> Issuer<'static, KeyPair> {
    Issuer::new(bare_params(), KeyPair::generate().expect("a key"))
}

fn bare_params() -> CertificateParams {
    let mut params = CertificateParams::new(["swarm-worker".to_owned(), "n".repeat(25)]).expect("two names");
    params.serial_number = Some(SerialNumber::from_slice(&[7; 16]));
    params.use_authority_key_identifier_extension = true;
    for (kind, text) in [
        (DnType::OrganizationName, "c".repeat(25)),
        (DnType::OrganizationalUnitName, "swarm-worker".to_owned()),
        (DnType::CommonName, "n".repeat(25)),
    ] {
        params.distinguished_name.push(kind, text);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}
