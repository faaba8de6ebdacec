//! What must hold for every [`Store`]: call [`all`], [`resets`] and [`interleaved()`] with a store of yours.
//!
//! Each law is a future to be polled under any executor, [`block_on`](fn@crate::testing::block_on) say. It uses keys under `under`
//! only, which must be empty, so that one server can serve many tests. A law that does not hold panics and says what it
//! saw.
#![expect(clippy::expect_used, reason = "a law that does not hold is a test that fails")]

mod history;
mod interleaved;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::{Commit, CommitError, Compare, Key, KeyChange, Limit, Prefix, Revision, Store, StoreError, WatchEvent};

pub use interleaved::{Tried, interleaved};

/// Every law that needs nothing but the store: commits, comparisons, listings, limits, watches, dropped futures.
///
/// ```
/// use overlay_core::testing::{block_on, store_laws};
/// use overlay_core::{Limits, MemoryStore, Prefix};
///
/// let store = MemoryStore::default().with_limits(Limits { operations: 128, value: 1 << 20, commit: 3 << 19 });
/// block_on(store_laws::all(&store, &Prefix::new("test/")?));
/// # Ok::<(), overlay_core::KeyError>(())
/// ```
pub async fn all(store: &dyn Store, under: &Prefix) {
    writes(store, &part(under, "writes")).await;
    compares(store, &part(under, "compares")).await;
    prefix_compares(store, &part(under, "prefix-compares")).await;
    listings(store, &part(under, "listings")).await;
    limits(store, &part(under, "limits")).await;
    watches(store, &part(under, "watches")).await;
    dropped(store, &part(under, "dropped")).await;
}

/// A commit is read back, whole; deleting nothing and committing nothing change nothing; a key is written once.
pub async fn writes(store: &dyn Store, under: &Prefix) {
    let [a, b, c] = keys(under, ["a", "b", "c"]);
    assert_eq!(get(store, &a).await, None, "the part of the store a law is given must be empty");
    let first = commit(store, Commit::new().put(a.clone(), "1").put(b.clone(), "").delete(c.clone())).await;
    assert_eq!(get(store, &a).await, Some((Bytes::from("1"), first)));
    assert_eq!(get(store, &b).await, Some((Bytes::new(), first)), "an empty value is one");

    let second =
        commit(store, Commit::new().put(b.clone(), "2").delete(a.clone()).put(c.clone(), [0, 0xff].to_vec())).await;
    assert!(second > first);
    let reading = store.read(&[c.clone(), a.clone(), b.clone(), c.clone()]).await.expect("read");
    assert!(reading.at >= second);
    let found: Vec<_> =
        reading.entries.into_iter().map(|entry| entry.map(|entry| (entry.value, entry.revision))).collect();
    let c_entry = Some((Bytes::from_static(&[0, 0xff]), second));
    assert_eq!(found, [c_entry.clone(), None, Some((Bytes::from("2"), second)), c_entry]);
    assert!(store.read(&[]).await.expect("read").entries.is_empty());

    for idle in [Commit::new(), Commit::new().delete(a.clone())] {
        let at = commit(store, idle).await;
        assert!(at >= second);
    }
    let same = commit(store, Commit::new().put(c.clone(), [0, 0xff].to_vec())).await;
    assert_eq!(get(store, &c).await.map(|(_, revision)| revision), Some(same), "to put the same is a change");
    assert!(same > second);

    for twice in
        [Commit::new().put(a.clone(), "1").put(a.clone(), "1"), Commit::new().put(a.clone(), "1").delete(a.clone())]
    {
        let refused = store.commit(twice).await;
        assert!(matches!(&refused, Err(CommitError::Twice { key }) if *key == a), "{refused:?}");
    }
    assert_eq!(get(store, &a).await, None);
}

/// A commit whose comparison does not hold says which and what is there, and changes nothing.
pub async fn compares(store: &dyn Store, under: &Prefix) {
    let [a, b] = keys(under, ["a", "b"]);
    let first = commit(store, Commit::new().absent(a.clone()).absent(b.clone()).put(a.clone(), "1")).await;
    conflicts(store, Commit::new().absent(a.clone()).put(b.clone(), "x"), Some(first)).await;
    conflicts(store, Commit::new().unchanged(b.clone(), first).put(b.clone(), "x"), None).await;
    conflicts(store, Commit::new().absent(b.clone()).absent(a.clone()).delete(a.clone()), Some(first)).await;

    let second = commit(store, Commit::new().unchanged(a.clone(), first).put(a.clone(), "2")).await;
    conflicts(store, Commit::new().unchanged(a.clone(), first).delete(a.clone()), Some(second)).await;
    conflicts(store, Commit::new().unchanged(a.clone(), Revision(second.0 + 1)).delete(a.clone()), Some(second)).await;
    conflicts(store, Commit::new().absent(a.clone()), Some(second)).await; // also where nothing would be changed
    let checked = commit(store, Commit::new().unchanged(a.clone(), second).absent(b.clone())).await;
    assert!(checked >= second);
    assert_eq!(get(store, &a).await, Some((Bytes::from("2"), second)));
    assert_eq!(get(store, &b).await, None);

    commit(store, Commit::new().unchanged(a.clone(), second).delete(a.clone())).await;
    conflicts(store, Commit::new().unchanged(a.clone(), second).put(a.clone(), "x"), None).await;
    commit(store, Commit::new().absent(a.clone()).put(b, "back")).await;
}

/// A comparison of a prefix notices what came and what changed in it, and nothing beside it.
pub async fn prefix_compares(store: &dyn Store, under: &Prefix) {
    let inside = part(under, "in");
    let [a, b] = keys(&inside, ["a", "b"]);
    let [beside, note] = keys(under, ["in", "note"]); // "in" sorts just before "in/"
    let compared = |revision| {
        let compare = Compare::Prefix { prefix: inside.clone(), revision };
        Commit::new().compare(compare).put(note.clone(), "")
    };
    commit(store, compared(Revision::ZERO)).await;
    let first = commit(store, Commit::new().put(a.clone(), "")).await;
    conflicts(store, compared(Revision::ZERO), Some(first)).await;
    commit(store, compared(first).put(beside.clone(), "")).await;
    let second = commit(store, Commit::new().put(b.clone(), "")).await;
    conflicts(store, compared(first), Some(second)).await;
    let third = commit(store, Commit::new().put(a.clone(), "")).await;
    conflicts(store, compared(second), Some(third)).await;
    commit(store, compared(third)).await;
    commit(store, Commit::new().delete(a)).await;
    commit(store, compared(third)).await; // that something went, it does not tell
    let everything = Compare::Prefix { prefix: Prefix::ALL, revision: third };
    let conflict = store.commit(Commit::new().compare(everything)).await;
    assert!(matches!(conflict, Err(CommitError::Conflict { .. })), "{conflict:?}");
}

/// A listing has what its prefix contains and nothing else, in the order of the keys, at a revision to watch from.
pub async fn listings(store: &dyn Store, under: &Prefix) {
    let names: [&[u8]; 11] = [
        b"a",
        b"a\0",
        b"a\0\0",
        b"a\xfe\xff",
        b"a\xff",
        b"a\xff\0",
        b"a\xff\xff",
        b"a\xff\xff\x01",
        b"b",
        b"\xff",
        b"\xff\xff",
    ];
    let all: Vec<Key> = names.iter().map(|name| under.key(name).expect("a key")).collect();
    let at =
        commit(store, all.iter().fold(Commit::new(), |commit, key| commit.put(key.clone(), key.as_bytes().to_vec())))
            .await;
    let prefixes: [&[u8]; 9] =
        [b"", b"a", b"a\0", b"a\xff", b"a\xff\xff", b"a\xff\xff\xff", b"\xff", b"\xff\xff", b"c"];
    for prefix in prefixes {
        let prefix = under.join(prefix).expect("a prefix");
        let listing = store.list(&prefix).await.expect("list");
        let found: Vec<&Key> = listing.entries.iter().map(|(key, _)| key).collect();
        let mut expected: Vec<&Key> = all.iter().filter(|key| prefix.contains(key)).collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "under {prefix}");
        assert!(listing.at >= at);
        assert!(listing.entries.iter().all(|(key, entry)| entry.revision == at && entry.value == key.as_bytes()));
    }
    many(store, &part(under, "many")).await;
}

/// More entries than a page of any store.
async fn many(store: &dyn Store, under: &Prefix) {
    let operations = store.limits().operations.min(100);
    let numbers: Vec<u32> = (0..1_100).collect();
    for numbers in numbers.chunks(operations) {
        let put = |commit: Commit, n: &u32| commit.put(under.key(n.to_be_bytes()).expect("a key"), vec![7; 40]);
        commit(store, numbers.iter().fold(Commit::new(), put)).await;
    }
    let listing = store.list(under).await.expect("list");
    assert_eq!(listing.entries.len(), numbers.len());
    assert!(listing.entries.is_sorted_by(|(a, _), (b, _)| a < b));
    let keys: Vec<Key> = listing.entries.iter().map(|(key, _)| key.clone()).collect();
    let reading = store.read(&keys).await.expect("read");
    assert!(reading.entries.iter().zip(&listing.entries).all(|(read, (_, listed))| read.as_ref() == Some(listed)));
}

/// A commit as large as the limits say is done; one larger is refused, by name, and changes nothing.
pub async fn limits(store: &dyn Store, under: &Prefix) {
    let limits = store.limits();
    let [a] = keys(under, ["a"]);
    commit(store, Commit::new().put(a.clone(), vec![7; limits.value])).await;
    assert_eq!(get(store, &a).await.map(|(value, _)| value.len()), Some(limits.value));
    too_large(store, Commit::new().put(a.clone(), vec![7; limits.value + 1]), Limit::Value).await;

    let key = |n: usize| under.key(n.to_be_bytes()).expect("a key");
    let puts = |count| (0..count).fold(Commit::new(), |commit, n| commit.put(key(n), ""));
    commit(store, (0..limits.operations).fold(puts(limits.operations), |commit, n| commit.absent(key(n)))).await;
    too_large(store, puts(limits.operations).delete(a.clone()), Limit::Operations).await;
    let compares =
        (0..=limits.operations).fold(Commit::new(), |commit, _| commit.absent(under.key("none").expect("a key")));
    too_large(store, compares.delete(a.clone()), Limit::Compares).await;
    assert!(get(store, &a).await.is_some(), "what is refused changes nothing");

    let longest = under.key(vec![b'k'; Key::MAX - under.as_bytes().len()]).expect("a key");
    commit(store, Commit::new().put(longest.clone(), "")).await;
    assert!(get(store, &longest).await.is_some());
    let deletes = (0..limits.operations).fold(Commit::new(), |commit, n| commit.delete(key(n)));
    commit(store, deletes).await;
    commit(store, Commit::new().delete(a).delete(longest)).await;
    assert!(store.list(under).await.expect("list").entries.is_empty());
}

/// A watch tells every change under its prefix after its revision, once and in order, however it is polled.
pub async fn watches(store: &dyn Store, under: &Prefix) {
    let inside = part(under, "in");
    let [a, b] = keys(&inside, ["a", "b"]);
    let [beside] = keys(under, ["beside"]);
    let start = store.list(&inside).await.expect("list").at;
    let mut early = store.watch(&inside, start).await.expect("watch");
    assert!(poll_once(early.next()).is_none(), "nothing was changed yet");

    let first = commit(store, Commit::new().put(b.clone(), "b1").put(a.clone(), "a1").put(beside.clone(), "")).await;
    commit(store, Commit::new().put(beside, "x")).await;
    let second = commit(store, Commit::new().delete(a.clone()).put(b.clone(), "b2")).await;
    commit(store, Commit::new().delete(a.clone())).await;
    let conflict = store.commit(Commit::new().absent(b.clone()).put(a.clone(), "x")).await;
    assert!(matches!(conflict, Err(CommitError::Conflict { .. })));
    let third = commit(store, Commit::new().put(a.clone(), "a3")).await;

    let change = |key: &Key, value: Option<&'static str>| KeyChange { key: key.clone(), value: value.map(Bytes::from) };
    let told = [
        (first, vec![change(&a, Some("a1")), change(&b, Some("b1"))]),
        (second, vec![change(&a, None), change(&b, Some("b2"))]),
        (third, vec![change(&a, Some("a3"))]),
    ]
    .map(|(revision, changes)| WatchEvent::Changes { revision, changes });
    for event in &told {
        assert_eq!(&early.next().await.expect("watch"), event);
    }
    for (from, told) in [(start, &told[..]), (first, &told[1..]), (second, &told[2..])] {
        let mut late = store.watch(&inside, from).await.expect("watch");
        for event in told {
            assert_eq!(&late.next().await.expect("watch"), event, "from {from}");
        }
    }
    let mut latest = store.watch(&inside, third).await.expect("watch");
    for watch in [&mut early, &mut latest] {
        for _ in 0..3 {
            assert!(poll_once(watch.next()).is_none(), "all was told");
        }
    }
    let fourth = commit(store, Commit::new().delete(b.clone())).await;
    for watch in [&mut early, &mut latest] {
        let event = watch.next().await.expect("watch");
        assert_eq!(event, WatchEvent::Changes { revision: fourth, changes: vec![change(&b, None)] });
    }
    let ahead = store.watch(&inside, Revision(fourth.0 + 1_000_000)).await.map(drop);
    assert!(matches!(ahead, Err(StoreError::Ahead { .. })), "{ahead:?}");
}

/// Once `compact` has made the store forget its history, a watch that has not told all of it is reset and stays so; one from the present
/// goes on.
pub async fn resets<C: Future<Output = ()>>(store: &dyn Store, under: &Prefix, compact: impl Fn() -> C) {
    let [a] = keys(under, ["a"]);
    let before = commit(store, Commit::new().put(a.clone(), "1")).await;
    commit(store, Commit::new().put(a.clone(), "2")).await;
    let last = commit(store, Commit::new().put(a.clone(), "3")).await;
    compact().await;
    let mut late = store.watch(under, before).await.expect("watch");
    for _ in 0..2 {
        assert_eq!(late.next().await.expect("watch"), WatchEvent::Reset);
    }
    let at = store.list(under).await.expect("list").at;
    assert!(at >= last);
    let mut present = store.watch(under, at).await.expect("watch");
    let next = commit(store, Commit::new().put(a.clone(), "4")).await;
    let changes = vec![KeyChange { key: a, value: Some(Bytes::from("4")) }];
    assert_eq!(present.next().await.expect("watch"), WatchEvent::Changes { revision: next, changes });
}

/// A commit whose future is dropped midway was done whole or not at all, and the store goes on.
pub async fn dropped(store: &dyn Store, under: &Prefix) {
    let [a, b] = keys(under, ["a", "b"]);
    for round in 0..20_u8 {
        let both = Commit::new().put(a.clone(), vec![round]).put(b.clone(), vec![round]);
        let _ = poll_once(store.commit(both));
        let _ = poll_once(store.read(&[a.clone(), b.clone()]));
        let _ = poll_once(store.list(under));
        let reading = store.read(&[a.clone(), b.clone()]).await.expect("read");
        let [a, b] = &reading.entries[..] else { panic!("two keys, {} entries", reading.entries.len()) };
        assert_eq!(a, b, "half of a commit");
    }
    let last = commit(store, Commit::new().put(a.clone(), "last").put(b, "last")).await;
    let mut watch = store.watch(under, last).await.expect("watch");
    let _ = poll_once(watch.next());
    commit(store, Commit::new().delete(a)).await;
    assert!(matches!(watch.next().await, Ok(WatchEvent::Changes { .. })));
}

fn part(under: &Prefix, name: &str) -> Prefix {
    under.join(format!("{name}/")).expect("a prefix")
}

fn keys<const N: usize>(under: &Prefix, names: [&str; N]) -> [Key; N] {
    names.map(|name| under.key(name).expect("a key"))
}

async fn get(store: &dyn Store, key: &Key) -> Option<(Bytes, Revision)> {
    store.get(key).await.expect("get").map(|entry| (entry.value, entry.revision))
}

async fn commit(store: &dyn Store, commit: Commit) -> Revision {
    let shown = format!("{commit:.200?}");
    store.commit(commit).await.unwrap_or_else(|error| panic!("{shown}: {error:?}"))
}

async fn conflicts(store: &dyn Store, commit: Commit, expected: Option<Revision>) {
    let compares = commit.compares.clone();
    match store.commit(commit).await {
        Err(CommitError::Conflict { compare, found }) => {
            assert!(compares.contains(&compare));
            assert_eq!(found, expected, "{compare:?}");
        }
        other => panic!("{compares:?} gave {other:?}"),
    }
}

async fn too_large(store: &dyn Store, commit: Commit, expected: Limit) {
    match store.commit(commit).await {
        Err(CommitError::TooLarge { what, size, limit }) => assert!(what == expected && size > limit),
        other => panic!("too large by {expected}, and it gave {other:?}"),
    }
}

/// What a future comes to if it need not wait; it is dropped.
fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
