//! The store in one file: laws, crashes, damage, locks.
#![allow(clippy::unwrap_used, reason = "a test that fails")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use overlay_core::testing::{Dice, Executor, FlakyStore, block_on, store_laws};
use overlay_core::{Commit, CommitError, Key, Prefix, Revision, Store, WatchEvent};
use overlay_store::{OpenError, RedbStore};

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("overlay-store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("store")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn key(name: impl AsRef<[u8]>) -> Key {
    Key::new(name).unwrap()
}

fn put(store: &RedbStore, name: &str, value: &str) -> Revision {
    block_on(store.commit(Commit::new().put(key(name), value.to_owned()))).unwrap()
}

#[test]
fn it_keeps_the_laws_of_stores() {
    let folder = Folder::new();
    let store = RedbStore::open(folder.file()).unwrap();
    block_on(store_laws::all(&store, &Prefix::new("laws/").unwrap()));
    block_on(store_laws::resets(&store, &Prefix::new("resets/").unwrap(), || async { store.compact() }));
}

#[test]
fn one_order_of_commits_explains_what_every_client_saw() {
    let folder = Folder::new();
    let store = RedbStore::open(folder.file()).unwrap();
    for seed in 0..4 {
        let under = Prefix::new(format!("{seed}/")).unwrap();
        let tried = block_on(store_laws::interleaved(&store, &store, &under, Dice::new([seed; 32]), 60));
        assert!(tried.done > 20 && tried.not_done > 5 && tried.reads > 50, "seed {seed}: {tried:?}");
        let flaky = FlakyStore::new(store.clone(), Dice::new([seed + 100; 32]), 5);
        let under = Prefix::new(format!("flaky {seed}/")).unwrap();
        let tried = block_on(store_laws::interleaved(&flaky, &store, &under, Dice::new([seed; 32]), 60));
        assert!(tried.lost > 0, "seed {seed}: {tried:?}");
    }
}

#[test]
fn a_file_after_whose_revision_none_can_come_is_damaged() {
    let folder = Folder::new();
    put(&RedbStore::open(folder.file()).unwrap(), "a", "1");
    let about: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("overlay-store");
    let file = redb::Database::open(folder.file()).unwrap();
    let writing = file.begin_write().unwrap();
    writing.open_table(about).unwrap().insert("revision", u64::MAX).unwrap();
    writing.commit().unwrap();
    drop(file);
    assert!(matches!(RedbStore::open(folder.file()), Err(OpenError::Corrupt(_))));
}

#[test]
fn what_was_answered_is_there_when_it_is_opened_again() {
    let folder = Folder::new();
    let store = RedbStore::open(folder.file()).unwrap();
    let first = put(&store, "a", "1");
    let second = put(&store, "b", "2");
    block_on(store.commit(Commit::new().delete(key("a")))).unwrap();
    let before = block_on(store.list(&Prefix::ALL)).unwrap();
    drop(store);
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(folder.file()).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "a catalogue is its owner's only");
    }

    let store = RedbStore::open(folder.file()).unwrap();
    assert_eq!(block_on(store.list(&Prefix::ALL)).unwrap(), before);
    assert_eq!(before.entries[0].1.revision, second);
    let mut watch = block_on(store.watch(&Prefix::ALL, first)).unwrap();
    assert_eq!(block_on(watch.next()).unwrap(), WatchEvent::Reset, "history before the opening is gone");
    let mut watch = block_on(store.watch(&Prefix::ALL, before.at)).unwrap();
    let next = block_on(store.commit(Commit::new().unchanged(key("b"), second).delete(key("b")))).unwrap();
    assert!(next > before.at);
    assert!(matches!(block_on(watch.next()), Ok(WatchEvent::Changes { revision, .. }) if revision == next));
}

#[test]
fn callers_on_many_threads_each_claim_once() {
    let folder = Folder::new();
    let store = RedbStore::open(folder.file()).unwrap();
    let counter = key("counter");
    let claim = |store: RedbStore, counter: Key| {
        let mut mine = Vec::new();
        while mine.len() < 20 {
            let entry = block_on(store.get(&counter)).unwrap();
            let count = entry.as_ref().map_or(0, |entry| entry.value.len());
            let revision = entry.map(|entry| entry.revision);
            let compare = overlay_core::Compare::Key { key: counter.clone(), revision };
            let commit = Commit::new().compare(compare).put(counter.clone(), vec![0; count + 1]);
            match block_on(store.commit(commit)) {
                Ok(_) => mine.push(count),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        mine
    };
    let mut all: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| claim(store.clone(), counter.clone()))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert_eq!(all, (0..80).collect::<Vec<_>>());
}

#[test]
fn it_works_under_an_executor_that_knows_nothing_of_its_thread() {
    let folder = Folder::new();
    let store = Arc::new(RedbStore::open(folder.file()).unwrap());
    let mut executor = Executor::new([1; 32]);
    let tasks: Vec<_> = (0..8_u8)
        .map(|n| {
            let store = Arc::clone(&store);
            executor.spawn(async move { store.commit(Commit::new().put(key([n]), "")).await.unwrap() })
        })
        .collect();
    while executor.run().is_err() {} // it stalls while the disk is written, and is woken from there
    let mut revisions: Vec<_> = tasks.iter().map(|task| task.take().unwrap()).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=8).map(Revision).collect::<Vec<_>>());
}

#[test]
fn a_second_opening_is_refused_by_name() {
    let folder = Folder::new();
    let store = RedbStore::open(folder.file()).unwrap();
    assert!(matches!(RedbStore::open(folder.file()), Err(OpenError::Locked)));
    put(&store, "a", "still ours");
    drop(store);
    assert!(RedbStore::open(folder.file()).is_ok());
}

#[test]
fn of_many_who_make_the_same_file_at_once_each_has_it_or_is_told_that_another_has() {
    for round in 0..20 {
        let folder = Folder::new();
        let start = std::sync::Barrier::new(4);
        let opened = std::thread::scope(|scope| {
            let open = || {
                start.wait();
                RedbStore::open(folder.file())
            };
            [(); 4].map(|()| scope.spawn(open)).map(|thread| thread.join().unwrap())
        });
        for refused in opened.iter().filter_map(|opened| opened.as_ref().err()) {
            assert!(matches!(refused, OpenError::Locked), "round {round}: {refused:?}");
        }
        drop(opened);
        put(&RedbStore::open(folder.file()).unwrap(), "a", "1");
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "round {round}: a draft was left");
    }
}

#[test]
fn what_is_no_store_of_ours_is_refused_and_left_as_it_was() {
    let folder = Folder::new();
    for content in [&b""[..], b"hello", &[7; 8192]] {
        std::fs::write(folder.file(), content).unwrap();
        let refused = RedbStore::open(folder.file()).unwrap_err();
        assert!(matches!(refused, OpenError::Foreign), "{refused:?}");
        assert_eq!(std::fs::read(folder.file()).unwrap(), content);
    }
    assert!(matches!(RedbStore::open(folder.0.join("no/such/folder")), Err(OpenError::Io(_))));
    let left: Vec<_> = std::fs::read_dir(&folder.0).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_damaged_file_is_an_error_or_as_it_once_was_and_never_a_panic() {
    let folder = Folder::new();
    let store = RedbStore::open(folder.file()).unwrap();
    for n in 0..50 {
        put(&store, &format!("key {n}"), &"value ".repeat(20));
    }
    let expected = block_on(store.list(&Prefix::ALL)).unwrap();
    drop(store);
    let sound = std::fs::read(folder.file()).unwrap();
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut dice, mut refused, mut unharmed) = (Dice::new([9; 32]), 0, 0);
    let (here, usual) = (std::thread::current().id(), std::panic::take_hook());
    let quiet = move |info: &std::panic::PanicHookInfo<'_>| {
        if std::thread::current().id() != here {
            usual(info);
        }
    };
    std::panic::set_hook(Box::new(quiet)); // redb panics in debug builds: we must not, and need not show it
    for round in 0..150 {
        let mut damaged = sound.clone();
        match round % 5 {
            0 => damaged.truncate(dice.below(used)),
            1 => {
                let at = dice.below(used / 512) * 512; // a sector that was not written
                damaged[at..at + 512].fill(0);
            }
            _ => damaged[dice.below(used)] ^= 1 << dice.below(8),
        }
        std::fs::write(folder.file(), &damaged).unwrap();
        match RedbStore::open(folder.file()) {
            Err(OpenError::Corrupt(_) | OpenError::Foreign | OpenError::Io(_) | OpenError::Format { .. }) => {
                refused += 1;
            }
            Err(error) => panic!("round {round}: {error:?}"),
            Ok(store) => {
                let found = block_on(store.list(&Prefix::ALL)).unwrap();
                let earlier = found.at < expected.at && found.entries.len() < expected.entries.len();
                assert!(found == expected || earlier, "round {round}: other entries than were committed");
                unharmed += 1;
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(refused > 20 && unharmed > 0, "{refused} refused, {unharmed} unharmed");
}

/// The other side of the next test: commits until it is killed, and says what was answered.
#[test]
#[expect(clippy::disallowed_methods, reason = "a child process is told by its environment what to do")]
fn child_that_commits() {
    let Some(path) = std::env::var_os("OVERLAY_STORE_CHILD") else { return };
    let store = RedbStore::open(Path::new(&path)).unwrap();
    let commits = |name: u8| {
        for round in 0_u32.. {
            let value = round.to_string();
            let commit = Commit::new().put(key([b'a', name]), value.clone()).put(key([b'b', name]), value);
            block_on(store.commit(commit)).unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "answered {name} {round}").unwrap();
            out.flush().unwrap();
        }
    };
    std::thread::scope(|scope| {
        for name in 0..3 {
            scope.spawn(move || commits(name));
        }
    });
}

#[test]
fn a_killed_process_loses_nothing_that_was_answered_and_leaves_no_half() {
    let folder = Folder::new();
    let (mut dice, mut answered_in_all) = (Dice::new([3; 32]), 0);
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_commits", "--nocapture"])
            .env("OVERLAY_STORE_CHILD", folder.file())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut answered = BTreeMap::new();
        let enough = 1 + dice.below(60);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut count = 0;
        let mut note = |line: String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [.., "answered", name, number] = words[..] {
                answered.insert(name.parse::<u8>().unwrap(), number.parse::<u32>().unwrap());
                count += 1;
            }
            count
        };
        for line in lines.by_ref() {
            if note(line) == enough {
                child.kill().unwrap(); // SIGKILL
                break;
            }
        }
        for line in lines {
            note(line); // answered before the signal
        }
        child.wait().unwrap();
        answered_in_all += count;
        let store = RedbStore::open(folder.file()).unwrap();
        for (name, number) in answered {
            let value = |first| {
                let entry = block_on(store.get(&key([first, name]))).unwrap().unwrap();
                String::from_utf8(entry.value.to_vec()).unwrap().parse::<u32>().unwrap()
            };
            assert!(value(b'a') >= number, "round {round}: {number} was answered, {} is there", value(b'a'));
            assert_eq!(value(b'a'), value(b'b'), "round {round}: half of a commit");
        }
    }
    assert!(answered_in_all > 100, "{answered_in_all}");
}
