//! Changes that are made together, and what they rest on.

use std::fmt;

use bytes::Bytes;

use crate::{Key, Prefix, Revision, StoreError};

/// Puts and deletes that are done whole or not at all, and the comparisons that must hold for it.
///
/// Each key may be put or deleted once. Deleting what is not there is no error. Without puts and deletes it only compares.
///
/// ```
/// use overlay_core::{Commit, Key, Revision};
///
/// let (old, new) = (Key::new("alias/old")?, Key::new("alias/new")?);
/// let rename = Commit::new().unchanged(old.clone(), Revision(7)).absent(new.clone()).delete(old).put(new, "10.0.0.2");
/// assert_eq!((rename.compares.len(), rename.puts.len(), rename.deletes.len()), (2, 1, 1));
/// # Ok::<(), overlay_core::KeyError>(())
/// ```
#[must_use]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// What must be so.
    pub compares: Vec<Compare>,
    /// What will be under these keys.
    pub puts: Vec<(Key, Bytes)>,
    /// Under these keys will be nothing.
    pub deletes: Vec<Key>,
}

impl Commit {
    /// Compares and changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// `key` must have been put last by the commit `revision`.
    pub fn unchanged(self, key: Key, revision: Revision) -> Self {
        self.compare(Compare::Key { key, revision: Some(revision) })
    }

    /// There must be nothing under `key`.
    pub fn absent(self, key: Key) -> Self {
        self.compare(Compare::Key { key, revision: None })
    }

    /// This must be so.
    pub fn compare(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// `value` will be under `key`.
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.puts.push((key, value.into()));
        self
    }

    /// There will be nothing under `key`.
    pub fn delete(mut self, key: Key) -> Self {
        self.deletes.push(key);
        self
    }

    /// Whether it changes nothing: it only compares.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    /// The keys it puts or deletes.
    pub fn written(&self) -> impl Iterator<Item = &Key> {
        self.puts.iter().map(|(key, _)| key).chain(&self.deletes)
    }

    /// Whether it keeps to `limits` and writes no key twice: what a store asks before anything else.
    ///
    /// # Errors
    /// [`TooLarge`](CommitError::TooLarge) or [`Twice`](CommitError::Twice).
    pub fn check(&self, limits: Limits) -> Result<(), CommitError> {
        let within = |what, size, limit| match size > limit {
            true => Err(CommitError::TooLarge { what, size, limit }),
            false => Ok(()),
        };
        within(Limit::Compares, self.compares.len(), limits.operations)?;
        within(Limit::Operations, self.puts.len() + self.deletes.len(), limits.operations)?;
        let largest = self.puts.iter().map(|(_, value)| value.len()).max();
        within(Limit::Value, largest.unwrap_or(0), limits.value)?;
        within(Limit::Commit, self.size(), limits.commit)?;
        self.twice().map_or(Ok(()), |key| Err(CommitError::Twice { key: key.clone() }))
    }

    /// Bytes of all keys and values in it, those of comparisons too.
    pub fn size(&self) -> usize {
        let compares = self.compares.iter().map(|compare| compare.bytes().len());
        let puts = self.puts.iter().map(|(key, value)| key.as_bytes().len() + value.len());
        let deletes = self.deletes.iter().map(|key| key.as_bytes().len());
        compares.chain(puts).chain(deletes).sum()
    }

    fn twice(&self) -> Option<&Key> {
        if self.puts.len() + self.deletes.len() <= 8 {
            let put = |puts: &[(Key, Bytes)], key: &Key| puts.iter().any(|(other, _)| other == key);
            let puts = self.puts.iter().map(|(key, _)| key).enumerate();
            let mut puts = puts.filter(|(at, key)| put(&self.puts[..*at], key)).map(|(_, key)| key);
            let deletes = self.deletes.iter().enumerate();
            let again = |(at, key): &(usize, &Key)| self.deletes[..*at].contains(key) || put(&self.puts, key);
            return puts.next().or_else(|| deletes.filter(again).map(|(_, key)| key).next());
        }
        if self.written().is_sorted_by(|one, next| one < next) {
            return None;
        }
        let mut keys: Vec<&Key> = self.written().collect();
        keys.sort_unstable();
        keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }
}

/// What must be so for a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key was put last by this commit; `None`: there is nothing under it.
    Key {
        /// The key.
        key: Key,
        /// The commit.
        revision: Option<Revision>,
    },
    /// No key of the prefix was put after `revision`: nothing came or changed. (That something went, it does not tell;
    /// compare the keys that must still be there.) A store may look at every entry of the prefix for this: keep it small,
    /// or let the writers of a large one put a guard key in it and compare that.
    Prefix {
        /// The prefix.
        prefix: Prefix,
        /// The revision.
        revision: Revision,
    },
}

impl Compare {
    /// The key's or prefix's bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Key { key, .. } => key.as_bytes(),
            Self::Prefix { prefix, .. } => prefix.as_bytes(),
        }
    }
}

/// What a commit may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Comparisons; and as many puts and deletes together.
    pub operations: usize,
    /// Bytes of one value.
    pub value: usize,
    /// Bytes of all keys and values, those of comparisons too.
    pub commit: usize,
}

/// Which of the [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// The number of comparisons.
    Compares,
    /// The number of puts and deletes.
    Operations,
    /// The bytes of one value.
    Value,
    /// The bytes of the whole.
    Commit,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compares => "comparisons",
            Self::Operations => "puts and deletes",
            Self::Value => "bytes in one value",
            Self::Commit => "bytes in all",
        })
    }
}

/// Why a commit was not done, or may not have been.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A comparison does not hold: somebody else was faster. Nothing was changed. Read again and decide anew.
    #[error("{compare:?} does not hold: {}", Found(*found))]
    Conflict {
        /// The first comparison that does not hold.
        compare: Compare,
        /// The key's last change, or the latest in the prefix; `None` if there is nothing.
        found: Option<Revision>,
    },
    /// The answer was lost: it may be done, or not, or still be done later. Read what it would have put. As long as its comparisons
    /// hold it can still come; it cannot any more once one of the keys it compares was changed.
    #[error("the answer to a commit was lost: it may be done or not")]
    Ambiguous(#[source] StoreError),
    /// It is larger than the store takes. Nothing was changed. Split it.
    #[error("a commit with {size} {what}: this store takes {limit}")]
    TooLarge {
        /// What there is too much of.
        what: Limit,
        /// How much there is.
        size: usize,
        /// How much there may be.
        limit: usize,
    },
    /// It would put or delete a key twice. Nothing was changed. A mistake of the caller.
    #[error("a commit that writes {key} twice")]
    Twice {
        /// The key.
        key: Key,
    },
    /// It could not be tried. Nothing was changed.
    #[error("the commit was not done")]
    Failed(#[from] StoreError),
}

struct Found(Option<Revision>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(revision) => write!(f, "changed at {revision}"),
            None => f.write_str("there is nothing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    const LIMITS: Limits = Limits { operations: 20, value: 10, commit: 100 };

    #[test]
    fn a_key_written_twice_is_refused_in_small_and_large_commits() {
        for others in [0, 15] {
            let many = (0..others).fold(Commit::new(), |commit, n| commit.put(key(&format!("k{n}")), ""));
            assert!(many.check(LIMITS).is_ok());
            let put_twice = many.clone().put(key("a"), "").put(key("a"), "");
            assert!(matches!(put_twice.check(LIMITS), Err(CommitError::Twice { key }) if key.as_bytes() == b"a"));
            let put_and_deleted = many.put(key("a"), "").delete(key("a"));
            assert!(matches!(put_and_deleted.check(LIMITS), Err(CommitError::Twice { .. })));
        }
    }

    #[test]
    fn each_limit_is_named() {
        let refused = |commit: Commit| match commit.check(LIMITS) {
            Err(CommitError::TooLarge { what, size, limit }) => (what, size, limit),
            other => panic!("{other:?}"),
        };
        let compares = (0..21).fold(Commit::new(), |commit, _| commit.absent(key("a")));
        assert_eq!(refused(compares), (Limit::Compares, 21, 20));
        let deletes = (0..20).fold(Commit::new(), |commit, n| commit.delete(key(&n.to_string())));
        assert!(deletes.check(LIMITS).is_ok());
        assert_eq!(refused(deletes.put(key("a"), "")), (Limit::Operations, 21, 20));
        assert_eq!(refused(Commit::new().put(key("a"), vec![0; 11])), (Limit::Value, 11, 10));
        let large = (0..10).fold(Commit::new(), |commit, n| commit.put(key(&n.to_string()), vec![0; 10]));
        assert_eq!(refused(large), (Limit::Commit, 110, 100));
    }
}
