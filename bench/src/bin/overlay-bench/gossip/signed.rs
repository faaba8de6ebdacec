//! Entries signed by their owners: what a signature costs each of 1,000 that are made at once, and who hears of them.

#![expect(clippy::expect_used, reason = "values that are right by construction")]
#![expect(clippy::disallowed_methods, reason = "it measures this machine's time")]

use std::io;
use std::time::Instant;

use overlay_bench::Bench;
use overlay_crypto::gossip::{Signer, Verifier};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

const ENTRIES: u16 = 1_000;
const CLUSTER: &[u8] = &[5; 16];
const SEED: [u8; 32] = [7; 32];

/// About what an endpoint's entry is.
fn statements() -> Vec<[u8; 160]> {
    let statement = |number: u16| {
        let mut statement = [0x5a; 160];
        statement[..2].copy_from_slice(&number.to_be_bytes());
        statement
    };
    (0..ENTRIES).map(statement).collect()
}

/// Seconds for each entry.
fn each(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() / f64::from(ENTRIES)
}

pub(super) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let (signer, statements) = (Signer::from_seed(&SEED), statements());
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("32 bytes are a seed");
    let bare: Vec<_> = statements.iter().map(|statement| pair.sign(statement)).collect();
    let public = UnparsedPublicKey::new(&ED25519, pair.public_key());
    if bench.wants("gossip/sign-batch-1000") {
        bench
            .figure("gossip/sign-batch-1000", "ns")
            .measured(|| each(|| drop(signer.sign(CLUSTER, &statements))))
            .yardstick_measured("a signature of Ed25519 for each", || {
                each(|| drop(statements.iter().map(|statement| pair.sign(statement)).collect::<Vec<_>>()))
            })
            .report()?;
    }
    if bench.wants("gossip/verify-batch-1000") {
        let signatures = signer.sign(CLUSTER, &statements);
        bench
            .figure("gossip/verify-batch-1000", "ns")
            .measured(|| {
                let verifier = Verifier::default(); // which has seen none of them
                let verify = |(statement, signature): (&[u8; 160], &Vec<u8>)| {
                    verifier.verify(&signer.key(), CLUSTER, statement, signature).expect("a true one");
                };
                each(|| statements.iter().zip(&signatures).for_each(verify))
            })
            .yardstick_measured("a signature of Ed25519 for each", || {
                let verify = |(statement, signature): (&[u8; 160], &ring::signature::Signature)| {
                    public.verify(statement, signature.as_ref()).expect("a true one");
                };
                each(|| statements.iter().zip(&bare).for_each(verify))
            })
            .report()?;
    }
    Ok(())
}
