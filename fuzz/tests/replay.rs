//! Every body over its corpus and over seeded mutations of it.
//!
//! `OVERLAY_FUZZ_SEED` (0) chooses the mutations, `OVERLAY_FUZZ_MUTATIONS` (200) how many each entry has, `OVERLAY_FUZZ_BODY` (all) one body.

#![expect(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Mutex;
use std::thread::{available_parallelism, scope};

use overlay_core::testing::Dice;
use overlay_fuzz::{Body, mutate, targets};

#[test]
fn every_body_holds_over_its_corpus_and_mutations_of_it() {
    let chosen = only();
    let bodies = targets().filter(|(name, _)| chosen.as_ref().is_none_or(|only| only == name));
    // Each core takes the next one that nobody has taken.
    let left = Mutex::new(bodies);
    let next = || left.lock().unwrap().next();
    let cores = available_parallelism().map_or(1, usize::from);
    scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some((name, body)) = next() {
                    replay(name, body);
                }
            });
        }
    });
}

#[test]
fn every_corpus_folder_belongs_to_a_body() {
    let names: Vec<_> = targets().map(|(name, _)| name).collect();
    for folder in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap() {
        let folder = folder.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&folder.as_str()), "corpus/{folder} has no body in TARGETS");
    }
}

fn replay(name: &str, body: Body) {
    let (seed, mutations) = (setting("OVERLAY_FUZZ_SEED", 0), setting("OVERLAY_FUZZ_MUTATIONS", 200));
    let corpus = corpus(name);
    corpus.iter().for_each(|(entry, bytes)| hold(name, body, bytes, entry));
    let mut dice = Dice::new(seed_of(seed));
    for (entry, bytes) in &corpus {
        for number in 0..mutations {
            let (_, other) = &corpus[dice.below(corpus.len())];
            let what = format!("mutation {number} of {entry}, OVERLAY_FUZZ_SEED={seed}");
            hold(name, body, &mutate(bytes, other, &mut dice), &what);
        }
    }
}

fn hold(name: &str, body: Body, bytes: &[u8], what: &str) {
    let shown = bytes.escape_ascii();
    assert!(
        catch_unwind(|| body(bytes)).is_ok(),
        "{name} broke on {what}; these bytes go to corpus/{name}/: b\"{shown}\""
    );
}

/// The entries of a body, in the order of their names.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("corpus/{name}: {error}; a body needs entries"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "corpus/{name} is empty; a body needs entries");
    paths.iter().map(|path| (path.file_name().unwrap().to_string_lossy().into(), fs::read(path).unwrap())).collect()
}

#[expect(clippy::disallowed_methods, reason = "a longer replay is asked for by the environment")]
fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

#[expect(clippy::disallowed_methods, reason = "one body is asked for by the environment")]
fn only() -> Option<String> {
    std::env::var("OVERLAY_FUZZ_BODY").ok()
}

fn seed_of(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes
}
