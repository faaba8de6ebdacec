//! What is still to be told, and how often.

use std::collections::{BTreeMap, BTreeSet};

use crate::swim::roster::{Index, ME};

/// Members whose standing is news: one's own first, then what was told least, newest first. What is told is always
/// the standing of the moment, so a member is news once however often it changes.
#[derive(Debug, Default)]
pub(super) struct News {
    order: BTreeSet<(u32, u64, Index)>,
    keys: BTreeMap<Index, (u32, u64)>,
    age: u64,
}

impl News {
    /// Makes this member news, told to nobody yet.
    pub(super) fn add(&mut self, at: Index) {
        self.remove(at);
        self.age += 1;
        self.put(at, (0, u64::MAX - self.age));
    }

    pub(super) fn remove(&mut self, at: Index) {
        if let Some((told, age)) = self.keys.remove(&at) {
            self.order.remove(&(told, age, at));
        }
    }

    /// In the order in which to tell.
    pub(super) fn iter(&self) -> impl Iterator<Item = Index> {
        let own = self.keys.contains_key(&ME).then_some(ME);
        own.into_iter().chain(self.order.iter().map(|(_, _, at)| *at).filter(|at| *at != ME))
    }

    /// Counts one telling; no news any more when told `limit` times.
    pub(super) fn told(&mut self, at: Index, limit: u32) {
        let Some((told, age)) = self.keys.get(&at).copied() else { return };
        self.remove(at);
        if told + 1 < limit {
            self.put(at, (told + 1, age));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    fn put(&mut self, at: Index, (told, age): (u32, u64)) {
        self.keys.insert(at, (told, age));
        self.order.insert((told, age, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_news_come_first_then_the_least_told_then_the_newest() {
        let mut news = News::default();
        [1, 2, ME, 3].into_iter().for_each(|at| news.add(at));
        assert_eq!(news.iter().collect::<Vec<_>>(), [ME, 3, 2, 1]);
        news.told(3, 9);
        news.told(ME, 9);
        assert_eq!(news.iter().collect::<Vec<_>>(), [ME, 2, 1, 3]);
        news.add(3);
        assert_eq!(news.iter().collect::<Vec<_>>(), [ME, 3, 2, 1]);
    }

    #[test]
    fn what_was_told_often_enough_is_news_no_more() {
        let mut news = News::default();
        news.add(4);
        (0..3).for_each(|_| news.told(4, 3));
        assert_eq!((news.len(), news.iter().count()), (0, 0));
    }
}
