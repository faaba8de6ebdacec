//! The store on etcd: laws, a server that is killed, frozen and restarted, compaction, TLS.
#![allow(clippy::unwrap_used, reason = "a test that fails")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overlay_core::testing::{Dice, FlakyStore, block_on, store_laws};
use overlay_core::{
    Commit, CommitError, Key, NodeId, Prefix, Revision, Seat, Snapshot, Store, StoreError, Term, Transaction,
    Undecided, UnixTime, WatchEvent,
};
use overlay_store::testing::{EtcdServer, ServerCertificates};
use overlay_store::{EtcdConfig, EtcdError, EtcdSecurity, EtcdStore};
use tokio::runtime::Runtime;

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn config(server: &EtcdServer, prefix: &str) -> EtcdConfig {
    EtcdConfig::new([server.endpoint()], Prefix::new(prefix).unwrap(), EtcdSecurity::PlaintextOnLoopback)
}

fn open(runtime: &Runtime, config: EtcdConfig) -> EtcdStore {
    runtime.block_on(EtcdStore::open(config)).unwrap()
}

/// The error and its causes.
fn whole(error: &dyn Error) -> String {
    std::iter::successors(Some(error), |error| (*error).source()).map(|error| format!("{error}; ")).collect()
}

#[test]
fn it_keeps_the_laws_of_stores() {
    let Some(server) = EtcdServer::start("store::it_keeps_the_laws_of_stores") else { return };
    let runtime = Runtime::new().unwrap();
    for prefix in ["", "cluster/", "\u{ff}"] {
        let store = open(&runtime, config(&server, prefix));
        let under = |name: &str| Prefix::new(format!("{prefix} {name}/")).unwrap();
        block_on(store_laws::all(&store, &under("laws"))); // under an executor that is not tokio
        runtime.block_on(store_laws::resets(&store, &under("resets"), || async {
            let at = store.list(&under("resets")).await.unwrap().at;
            server.compact(at.0);
        }));
    }
}

#[test]
fn one_order_of_commits_explains_what_every_client_saw() {
    let Some(server) = EtcdServer::start("store::one_order_of_commits") else { return };
    let runtime = Runtime::new().unwrap();
    let store = open(&runtime, config(&server, "cluster/"));
    let other = open(&runtime, config(&server, "cluster/"));
    for seed in 0..3 {
        let under = Prefix::new(format!("{seed}/")).unwrap();
        let tried = runtime.block_on(store_laws::interleaved(&store, &other, &under, Dice::new([seed; 32]), 60));
        assert!(tried.done > 20 && tried.not_done > 5 && tried.reads > 50, "seed {seed}: {tried:?}");
        let flaky = FlakyStore::new(store.clone(), Dice::new([seed + 100; 32]), 5);
        let under = Prefix::new(format!("flaky {seed}/")).unwrap();
        let tried = runtime.block_on(store_laws::interleaved(&flaky, &other, &under, Dice::new([seed; 32]), 60));
        assert!(tried.lost > 0, "seed {seed}: {tried:?}");
    }
}

#[test]
fn two_clusters_in_one_etcd_do_not_see_each_other() {
    let Some(server) = EtcdServer::start("store::two_clusters_in_one_etcd") else { return };
    let runtime = Runtime::new().unwrap();
    let (ours, theirs) = (open(&runtime, config(&server, "a/")), open(&runtime, config(&server, "b/")));
    block_on(async {
        let start = ours.list(&Prefix::ALL).await.unwrap().at;
        let mut watch = ours.watch(&Prefix::ALL, start).await.unwrap();
        theirs.commit(Commit::new().put(key("x"), "theirs")).await.unwrap();
        assert_eq!(ours.get(&key("x")).await.unwrap(), None);
        assert!(ours.list(&Prefix::ALL).await.unwrap().entries.is_empty());
        let at = ours.commit(Commit::new().absent(key("x")).put(key("x"), "ours")).await.unwrap();
        assert!(matches!(watch.next().await, Ok(WatchEvent::Changes { revision, .. }) if revision == at));
    });
}

#[test]
fn a_server_that_is_killed_and_comes_back_has_all_that_was_answered_and_watches_go_on() {
    let Some(mut server) = EtcdServer::start("store::a_server_that_is_killed") else { return };
    let runtime = Runtime::new().unwrap();
    let store = open(&runtime, EtcdConfig { deadline: Duration::from_secs(2), ..config(&server, "cluster/") });
    let start = block_on(store.list(&Prefix::ALL)).unwrap().at;
    let mut watch = block_on(store.watch(&Prefix::ALL, start)).unwrap();
    let mut answered: Vec<(Revision, String)> = Vec::new();
    let put = |answered: &mut Vec<_>, name: String| {
        let outcome = block_on(store.commit(Commit::new().put(key("k"), name.clone())));
        if let Ok(revision) = outcome {
            answered.push((revision, name));
            return Ok(());
        }
        outcome.map(drop)
    };
    for round in 0..3 {
        for n in 0..5 {
            put(&mut answered, format!("{round}.{n}")).unwrap();
        }
        server.kill();
        let down = put(&mut answered, format!("{round} down")).unwrap_err();
        assert!(matches!(down, CommitError::Failed(_) | CommitError::Ambiguous(_)), "{down:?}");
        assert!(matches!(block_on(store.get(&key("k"))), Err(StoreError::Unavailable { .. })));
        server.restart();
        let back = (0..50).any(|n| put(&mut answered, format!("{round} back {n}")).is_ok());
        assert!(back, "it does not find the server again");
    }
    let (last, value) = answered.last().cloned().unwrap();
    assert_eq!(block_on(store.get(&key("k"))).unwrap().unwrap().value, value);
    let mut told = Vec::new();
    while told.last().is_none_or(|(revision, _)| *revision < last) {
        match block_on(watch.next()) {
            Ok(WatchEvent::Changes { revision, changes }) => {
                let value = changes[0].value.clone().unwrap();
                told.push((revision, String::from_utf8(value.to_vec()).unwrap()));
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
    assert!(told.is_sorted_by(|(a, _), (b, _)| a < b), "once each and in order: {told:?}");
    assert!(answered.iter().all(|commit| told.contains(commit)), "{answered:?} were answered, {told:?} told");
}

#[test]
fn a_server_that_does_not_answer_leaves_commits_in_doubt_and_reads_undone_by_the_deadline() {
    let Some(server) = EtcdServer::start("store::a_server_that_does_not_answer") else { return };
    let runtime = Runtime::new().unwrap();
    let store = open(&runtime, EtcdConfig { deadline: Duration::from_millis(300), ..config(&server, "cluster/") });
    block_on(store.commit(Commit::new().put(key("k"), "before"))).unwrap();
    server.freeze();
    let lost = block_on(store.commit(Commit::new().put(key("k"), "frozen"))).unwrap_err();
    assert!(matches!(lost, CommitError::Ambiguous(_)), "{lost:?}");
    let unread = block_on(store.get(&key("k"))).unwrap_err();
    assert!(unread.is_transient(), "{unread:?}");
    let compared = block_on(store.commit(Commit::new().absent(key("x")))).unwrap_err();
    assert!(matches!(compared, CommitError::Failed(_)), "it changes nothing, so nothing is in doubt: {compared:?}");
    server.thaw();
    let claim = |snapshot: &Snapshot| -> Result<(Commit, ()), Undecided<()>> {
        match snapshot.get(&key("lease"))? {
            Some(_) => Ok((Commit::new(), ())),
            None => Ok((Commit::new().put(key("lease"), "ours"), ())),
        }
    };
    let claimed = (0..50).any(|_| block_on(Transaction::on(&store).run(claim)).is_ok());
    assert!(claimed);
    assert_eq!(block_on(store.get(&key("lease"))).unwrap().unwrap().value, "ours");
}

#[test]
fn a_term_fences_across_managers() {
    let Some(server) = EtcdServer::start("store::a_term_fences_across_managers") else { return };
    let runtime = Runtime::new().unwrap();
    let (first, second) = (open(&runtime, config(&server, "c/")), open(&runtime, config(&server, "c/")));
    let seat = |holder| Seat::new(&Prefix::new("manager/").unwrap(), NodeId::from_bytes([holder; 16])).unwrap();
    let now = UnixTime::from_millis(1_767_225_600_000);
    let old = block_on(Term::campaign(&first, &seat(1), now)).unwrap();
    assert!(block_on(Term::campaign(&second, &seat(2), now)).is_err());
    block_on(Term::campaign(&second, &seat(2), now + Duration::from_secs(18))).unwrap();
    let write = |snapshot: &Snapshot| -> Result<(Commit, ()), Undecided<()>> {
        snapshot.get(&key("catalogue"))?;
        Ok((Commit::new().put(key("catalogue"), "of the old one"), ()))
    };
    let deposed = block_on(Transaction::on(&first).fenced(&old).run(write));
    assert!(matches!(deposed, Err(overlay_core::TransactionError::Deposed)), "{deposed:?}");
    assert_eq!(block_on(second.get(&key("catalogue"))).unwrap(), None);
}

#[test]
fn without_a_server_or_a_runtime_it_says_so() {
    let nowhere = || EtcdConfig {
        deadline: Duration::from_millis(500),
        ..EtcdConfig::new(["127.0.0.1:1"], Prefix::ALL, EtcdSecurity::PlaintextOnLoopback)
    };
    assert!(matches!(block_on(EtcdStore::open(nowhere())), Err(EtcdError::NoRuntime)));
    let runtime = Runtime::new().unwrap();
    let refused = runtime.block_on(EtcdStore::open(nowhere())).unwrap_err();
    assert!(matches!(refused, EtcdError::Unreachable(_)), "{refused:?}");
}

#[test]
fn tls_takes_the_right_certificates_and_no_others() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let folder = Folder::new();
    let (certificate, server_key) = authority.sign("127.0.0.1");
    let files = ServerCertificates {
        authority: folder.write("ca.pem", &authority.pem),
        certificate: folder.write("server.pem", &certificate),
        key: folder.write("server.key", &server_key),
    };
    let Some(server) = EtcdServer::start_tls("store::tls_takes_the_right_certificates", &files) else { return };
    let runtime = Runtime::new().unwrap();
    let opened = |trusted: &Authority, ours: (String, String), server_name: Option<&str>| {
        let security = EtcdSecurity::Tls {
            authority: trusted.pem.clone().into_bytes(),
            certificate: ours.0.into_bytes(),
            key: ours.1.into_bytes(),
            server_name: server_name.map(str::to_owned),
        };
        let config = EtcdConfig::new([server.endpoint()], Prefix::new("tls/").unwrap(), security);
        runtime.block_on(EtcdStore::open(EtcdConfig { deadline: Duration::from_secs(2), ..config }))
    };
    let store = opened(&authority, authority.sign("manager"), None).unwrap();
    block_on(store.commit(Commit::new().put(key("k"), "secret"))).unwrap();
    assert_eq!(block_on(store.get(&key("k"))).unwrap().unwrap().value, "secret");

    let wrong_client = opened(&authority, stranger.sign("manager"), None).unwrap_err();
    let wrong_server = opened(&stranger, authority.sign("manager"), None).unwrap_err();
    let wrong_name = opened(&authority, authority.sign("manager"), Some("etcd.example.org")).unwrap_err();
    for error in [wrong_client, wrong_server, wrong_name] {
        assert!(matches!(error, EtcdError::Unreachable(_)), "{}", whole(&error));
    }
    let no_pem = opened(&authority, ("nonsense".to_owned(), "nonsense".to_owned()), None).unwrap_err();
    assert!(matches!(no_pem, EtcdError::Tls(_)), "{}", whole(&no_pem));
    let plain = EtcdConfig::new([server.endpoint()], Prefix::ALL, EtcdSecurity::PlaintextOnLoopback);
    let plain = EtcdConfig { deadline: Duration::from_secs(2), ..plain };
    assert!(runtime.block_on(EtcdStore::open(plain)).is_err(), "a server with TLS takes no plaintext");
}

/// Signs certificates for this test.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut about = rcgen::CertificateParams::new(Vec::new()).unwrap();
        about.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = about.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(about, key), pem }
    }

    /// A certificate and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let mut about = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        about.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        (about.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("overlay-store-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
