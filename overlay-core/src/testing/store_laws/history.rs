//! What clients did, and whether one order of commits explains it all.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Commit, Compare, Entry, Key, KeyChange, Listing, Prefix, Reading, Revision};

/// One call of a client: when it began and ended, on a clock that all share, and what came of it.
pub(super) struct Act {
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) what: What,
}

pub(super) enum What {
    Read(Vec<Key>, Reading),
    List(Prefix, Listing),
    Done(Commit, Revision),
    /// The answer was lost.
    Lost(Commit),
    /// It was not done: a conflict, or the store could not be used.
    NotDone(Commit),
}

/// A commit as a watch told it.
pub(super) type Told = (Revision, Vec<KeyChange>);

type State = BTreeMap<Key, Entry>;

/// Checks that the commits, in the order in which they were told, explain every act.
pub(super) fn check(acts: &[Act], told: &[Told], under: &Prefix, mark: impl Fn(&[KeyChange]) -> Option<Bytes>) {
    assert!(told.is_sorted_by(|(a, _), (b, _)| a < b), "revisions must rise: {told:?}");
    let mut commits = marked(acts, &mark);
    let mut states = vec![(Revision::ZERO, State::new())];
    for (revision, changes) in told {
        let (_, before) = states.last().expect("the first state is empty");
        let Some(mark) = mark(changes) else { continue };
        let act =
            commits.remove(&mark).unwrap_or_else(|| panic!("{revision}: {changes:?} was told, but not made, or twice"));
        let commit = match act {
            What::Done(commit, at) => {
                assert_eq!(at, revision, "{commit:?}");
                commit
            }
            What::Lost(commit) => commit,
            What::NotDone(commit) => panic!("{commit:?} was refused and done, at {revision}"),
            What::Read(..) | What::List(..) => panic!("reads carry no mark"),
        };
        holds(commit, before, *revision);
        let (after, made) = applied(before, commit, *revision);
        assert_eq!(&made, changes, "{revision}: {commit:?}");
        states.push((*revision, after));
    }
    let missing: Vec<_> = commits.values().filter(|what| matches!(what, What::Done(..))).collect();
    assert!(missing.is_empty(), "{} commits were done and not told", missing.len());
    for act in acts {
        explain(act, &states, under);
    }
    real_time(acts);
}

/// Commits by the mark in their puts, which no two have.
fn marked<'a>(acts: &'a [Act], mark: &impl Fn(&[KeyChange]) -> Option<Bytes>) -> BTreeMap<Bytes, &'a What> {
    let mut commits = BTreeMap::new();
    for act in acts {
        let (What::Done(commit, _) | What::Lost(commit) | What::NotDone(commit)) = &act.what else { continue };
        let puts = commit.puts.iter().map(|(key, value)| KeyChange { key: key.clone(), value: Some(value.clone()) });
        let mark = mark(&puts.collect::<Vec<_>>()).expect("every commit has a mark");
        assert!(commits.insert(mark, &act.what).is_none(), "marks must differ");
    }
    commits
}

fn holds(commit: &Commit, before: &State, revision: Revision) {
    for compare in &commit.compares {
        let holds = match compare {
            Compare::Key { key, revision } => before.get(key).map(|entry| entry.revision) == *revision,
            Compare::Prefix { prefix, revision } => {
                before.iter().all(|(key, entry)| !prefix.contains(key) || entry.revision <= *revision)
            }
        };
        assert!(holds, "{revision}: {compare:?} did not hold in {before:?}");
    }
}

fn applied(before: &State, commit: &Commit, revision: Revision) -> (State, Vec<KeyChange>) {
    let mut after = before.clone();
    let mut changes = Vec::new();
    for (key, value) in &commit.puts {
        after.insert(key.clone(), Entry { value: value.clone(), revision });
        changes.push(KeyChange { key: key.clone(), value: Some(value.clone()) });
    }
    for key in &commit.deletes {
        if after.remove(key).is_some() {
            changes.push(KeyChange { key: key.clone(), value: None });
        }
    }
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    (after, changes)
}

/// A reading or listing shows the state at its revision.
fn explain(act: &Act, states: &[(Revision, State)], under: &Prefix) {
    let state_at = |at: Revision| {
        let after = states.partition_point(|(revision, _)| *revision <= at);
        &states[after - 1].1
    };
    match &act.what {
        What::Read(keys, reading) => {
            let state = state_at(reading.at);
            let expected: Vec<_> = keys.iter().map(|key| state.get(key).cloned()).collect();
            assert_eq!(reading.entries, expected, "read {keys:?} at {}", reading.at);
        }
        What::List(prefix, listing) => {
            let state = state_at(listing.at).iter().filter(|(key, _)| prefix.contains(key) && under.contains(key));
            let expected: Vec<_> = state.map(|(key, entry)| (key.clone(), entry.clone())).collect();
            assert_eq!(listing.entries, expected, "list {prefix} at {}", listing.at);
        }
        What::Done(..) | What::Lost(_) | What::NotDone(_) => {}
    }
}

/// What begins after something has ended is not before it.
fn real_time(acts: &[Act]) {
    let revision = |act: &Act| match &act.what {
        What::Read(_, reading) => Some(reading.at),
        What::List(_, listing) => Some(listing.at),
        What::Done(_, at) => Some(*at),
        What::Lost(_) | What::NotDone(_) => None,
    };
    let mut ends: Vec<(u64, Revision)> = acts.iter().filter_map(|act| Some((act.ended, revision(act)?))).collect();
    ends.sort_unstable();
    let mut newest = Revision::ZERO;
    for (_, at) in &mut ends {
        newest = newest.max(*at);
        *at = newest;
    }
    for act in acts {
        let before = ends.partition_point(|(ended, _)| *ended < act.began);
        let (Some((_, newest)), Some(at)) = (before.checked_sub(1).map(|last| ends[last]), revision(act)) else {
            continue;
        };
        assert!(at >= newest, "an act at {at} began after one at {newest} had ended");
    }
}
