//! Sets of numbers from 0 on.

use super::dense::Dense;
use super::sparse::Sparse;

/// Which of the numbers 0 to some last one are taken. Finding the next free one takes O(log₆₄ n).
#[derive(Debug, Clone)]
pub(crate) enum Numbers {
    Dense(Dense),
    Sparse(Sparse),
}

impl Numbers {
    /// The numbers up to `last`, none taken.
    pub(crate) fn new(last: u128) -> Self {
        match last < Dense::CAPACITY {
            true => Self::Dense(Dense::new(last as usize)),
            false => Self::Sparse(Sparse::new(last)),
        }
    }

    #[inline]
    pub(crate) fn contains(&self, number: u128) -> bool {
        match self {
            Self::Dense(dense) => dense.contains(number as usize),
            Self::Sparse(sparse) => sparse.contains(number),
        }
    }

    /// Whether it was not in yet. The number must be one of the set's.
    #[inline]
    pub(crate) fn insert(&mut self, number: u128) -> bool {
        match self {
            Self::Dense(dense) => dense.insert(number as usize),
            Self::Sparse(sparse) => sparse.insert(number),
        }
    }

    /// Whether it was in.
    #[inline]
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        match self {
            Self::Dense(dense) => dense.remove(number as usize),
            Self::Sparse(sparse) => sparse.remove(number),
        }
    }

    /// The first from `from` on that is not in.
    #[inline]
    pub(crate) fn next_free(&self, from: u128) -> Option<u128> {
        match self {
            Self::Dense(dense) => dense.next_free(from as usize).map(|free| free as u128),
            Self::Sparse(sparse) => sparse.next_free(from),
        }
    }

    /// The first from `from` on that is in. Takes O(n / 64) where little is.
    pub(crate) fn next_used(&self, from: u128) -> Option<u128> {
        match self {
            Self::Dense(dense) => dense.next_used(from as usize).map(|used| used as u128),
            Self::Sparse(sparse) => sparse.next_used(from),
        }
    }

    /// The first that is not in, from `from` to `last`, and then from `first` on.
    #[inline]
    pub(crate) fn next_free_around(&self, (first, last): (u128, u128), from: u128) -> Option<u128> {
        let within = |found: &u128| *found <= last;
        let ahead = (from >= first && from <= last).then(|| self.next_free(from)).flatten().filter(within);
        ahead.or_else(|| self.next_free(first).filter(within))
    }

    /// Takes the first that is not in, from `from` to `last`, and then from `first` on. They must be numbers of the set.
    #[inline]
    pub(crate) fn take_around(&mut self, (first, last): (u128, u128), from: u128) -> Option<u128> {
        let from = if from >= first && from <= last { from } else { first };
        match self {
            Self::Dense(dense) => {
                dense.take_around((first as usize, last as usize), from as usize).map(|taken| taken as u128)
            }
            Self::Sparse(sparse) => sparse.take(from, last).or_else(|| sparse.take(first, last)),
        }
    }

    /// Bytes of memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.bytes(),
            Self::Sparse(sparse) => sparse.bytes(),
        }
    }
}
