//! Sets of numbers that are mostly without gaps.

use std::ops::Deref;

use crate::Malformed;
use crate::wire::{Reader, put_varint, varint_len};

/// A set of numbers from 1, as spans: what has been seen of one owner, gaps included. One span if there is no gap; a number at
/// the end is added in O(1), elsewhere in O(spans).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intervals {
    spans: Spans,
}

/// First and last of each, ascending, with a gap between each and the next. Most sets are one span, which needs no memory
/// of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Spans {
    #[default]
    None,
    One((u64, u64)),
    /// Two at least.
    Many(Vec<(u64, u64)>),
}

impl Deref for Spans {
    type Target = [(u64, u64)];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::None => &[],
            Self::One(span) => std::slice::from_ref(span),
            Self::Many(spans) => spans,
        }
    }
}

impl FromIterator<(u64, u64)> for Spans {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(spans: I) -> Self {
        let mut spans = spans.into_iter();
        match (spans.next(), spans.next()) {
            (None, _) => Self::None,
            (Some(span), None) => Self::One(span),
            (Some(first), Some(second)) => Self::Many([first, second].into_iter().chain(spans).collect()),
        }
    }
}

impl Intervals {
    /// Adds a number; whether it was new.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        let new = number > 0 && !self.contains(number);
        if new {
            self.insert_span(number, number);
        }
        new
    }

    /// Adds the numbers from `first` to `last`.
    pub(crate) fn insert_span(&mut self, first: u64, last: u64) {
        if first == 0 || last < first {
            return;
        }
        // The spans that touch the new one become one with it.
        let from = self.spans.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = from + self.spans[from..].partition_point(|(start, _)| *start <= last.saturating_add(1));
        let start = self.spans.get(from).filter(|_| from < to).map_or(first, |span| span.0.min(first));
        let end =
            to.checked_sub(1).and_then(|at| self.spans.get(at)).filter(|_| from < to).map_or(last, |s| s.1.max(last));
        match &mut self.spans {
            spans if to - from == spans.len() => *spans = Spans::One((start, end)),
            Spans::Many(spans) if to == from + 1 => spans[from] = (start, end),
            Spans::Many(spans) => drop(spans.splice(from..to, [(start, end)])),
            // A lone span that the new one does not touch.
            spans => {
                let mut two = spans.to_vec();
                two.insert(from, (start, end));
                *spans = Spans::Many(two);
            }
        }
    }

    /// Adds all of another set.
    pub(crate) fn union(&mut self, other: &Self) {
        other.spans.iter().for_each(|(first, last)| self.insert_span(*first, *last));
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        let at = self.spans.partition_point(|(_, last)| *last < number);
        self.spans.get(at).is_some_and(|(first, _)| *first <= number)
    }

    /// Whether the numbers from `first` to `last` are all there.
    fn contains_span(&self, first: u64, last: u64) -> bool {
        let at = self.spans.partition_point(|(_, end)| *end < first);
        self.spans.get(at).is_some_and(|span| span.0 <= first && last <= span.1)
    }

    /// Whether all of another set is in this one.
    pub(crate) fn contains_all(&self, other: &Self) -> bool {
        other.spans.iter().all(|(first, last)| self.contains_span(*first, *last))
    }

    /// The last number before the first gap; 0 if 1 is missing.
    pub(crate) fn through(&self) -> u64 {
        self.spans.first().filter(|(first, _)| *first == 1).map_or(0, |(_, last)| *last)
    }

    /// The greatest number; 0 for the empty set.
    pub(crate) fn last(&self) -> u64 {
        self.spans.last().map_or(0, |(_, last)| *last)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// How many spans it takes.
    pub(crate) fn spans(&self) -> usize {
        self.spans.len()
    }

    /// The set without some numbers, which ascend. O(spans + numbers).
    pub(crate) fn without(&self, numbers: impl Iterator<Item = u64>) -> Self {
        let mut numbers = numbers.peekable();
        let mut spans = Vec::new();
        for (mut first, last) in self.iter() {
            while let Some(number) = numbers.next_if(|number| *number <= last) {
                if number >= first {
                    spans.push((first, number - 1));
                    first = number + 1;
                }
            }
            spans.push((first, last));
        }
        Self { spans: spans.into_iter().filter(|(first, last)| first <= last).collect() }
    }

    /// The numbers up to `last`.
    pub(crate) fn up_to(&self, last: u64) -> Self {
        let within = self.iter().take_while(|(first, _)| *first <= last);
        Self { spans: within.map(|(first, end)| (first, end.min(last))).collect() }
    }

    /// The first `most` spans: a part of the set.
    pub(crate) fn truncated(&self, most: usize) -> Self {
        Self { spans: self.iter().take(most).collect() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.spans.iter().copied()
    }

    /// The spans of numbers above `after` that are not there, the last without an end.
    pub(crate) fn gaps(&self, after: u64) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.spans.iter().copied().chain([(u64::MAX, u64::MAX)]);
        let mut next = 1;
        ends.filter_map(move |(first, last)| {
            let gap = (std::mem::replace(&mut next, last.saturating_add(1)).max(after.saturating_add(1)), first - 1);
            (gap.0 <= gap.1).then_some(gap)
        })
    }

    /// Reads the number of spans, then each as the gap before it and its length; the shortest form only.
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.varint("spans")?;
        let mut spans = Vec::new();
        let mut least = 1_u64; // where the next span may begin
        for _ in 0..count {
            let (gap, more) = (reader.varint("gap")?, reader.varint("span")?);
            let last = least.checked_add(gap).and_then(|first| Some((first, first.checked_add(more)?)));
            let Some((first, last)) = last.filter(|(_, last)| *last <= Self::MOST) else {
                return Err(Malformed::Range { field: "span", found: more, least: 0, most: Self::MOST });
            };
            spans.push((first, last));
            least = last + 2;
        }
        Ok(Self { spans: spans.into_iter().collect() })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(self.spans.len() as u64, out);
        self.numbers().for_each(|number| put_varint(number, out));
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        varint_len(self.spans.len() as u64) + self.numbers().map(varint_len).sum::<usize>()
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        let mut least = 1;
        self.spans.iter().flat_map(move |&(first, last)| {
            let gap = first - std::mem::replace(&mut least, last.saturating_add(2));
            [gap, last - first]
        })
    }

    /// The greatest number that travels: leaves room to count on without an overflow.
    pub(crate) const MOST: u64 = u64::MAX >> 1;
}

impl FromIterator<u64> for Intervals {
    /// Of ascending numbers in O(n).
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut set = Self::default();
        numbers.into_iter().for_each(|number| set.insert_span(number, number));
        set
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn intervals() -> impl Strategy<Value = Intervals> {
        proptest::collection::vec((1..200_u64, 0..20_u64), 0..12).prop_map(|spans| {
            let mut set = Intervals::default();
            spans.iter().for_each(|(first, more)| set.insert_span(*first, first + more));
            set
        })
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_added(spans in proptest::collection::vec((0..60_u64, 0..8_u64), 0..20)) {
            let (mut set, mut model) = (Intervals::default(), BTreeSet::new());
            for (first, more) in spans {
                if more == 0 {
                    prop_assert_eq!(set.insert(first), first > 0 && model.insert(first));
                } else {
                    set.insert_span(first, first + more);
                    model.extend(if first == 0 { 1..1 } else { first..first + more + 1 });
                }
                model.remove(&0);
                let numbers: BTreeSet<u64> = set.iter().flat_map(|(first, last)| first..=last).collect();
                prop_assert_eq!(&numbers, &model);
                prop_assert!(set.spans.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                prop_assert_eq!(set.through(), (1..).take_while(|n| model.contains(n)).last().unwrap_or(0));
                prop_assert_eq!(set.last(), model.last().copied().unwrap_or(0));
                prop_assert!((0..80).all(|n| set.contains(n) == model.contains(&n)));
            }
        }

        #[test]
        fn without_some_numbers_there_is_the_rest(set in intervals(), out in proptest::collection::btree_set(1..250_u64, 0..20)) {
            let rest = set.without(out.iter().copied());
            prop_assert!((0..300).all(|n| rest.contains(n) == (set.contains(n) && !out.contains(&n))));
            prop_assert_eq!(rest.iter().flat_map(|(first, last)| first..=last).collect::<Intervals>(), rest);
        }

        #[test]
        fn gaps_are_what_is_not_there(set in intervals(), after in 0..250_u64) {
            let missing: Vec<u64> = set.gaps(after).flat_map(|(first, last)| first..=last.min(400)).collect();
            prop_assert_eq!(missing, (after + 1..=400).filter(|n| !set.contains(*n)).collect::<Vec<_>>());
        }

        #[test]
        fn up_to_a_number_there_is_what_is_not_above_it(set in intervals(), last in 0..250_u64) {
            let part = set.up_to(last);
            prop_assert!((0..300).all(|n| part.contains(n) == (n <= last && set.contains(n))));
            prop_assert_eq!(part.iter().flat_map(|(first, last)| first..=last).collect::<Intervals>(), part);
        }

        #[test]
        fn a_union_has_both_and_nothing_else(a in intervals(), b in intervals()) {
            let mut both = a.clone();
            both.union(&b);
            prop_assert!(both.contains_all(&a) && both.contains_all(&b));
            prop_assert!((0..300).all(|n| both.contains(n) == (a.contains(n) || b.contains(n))));
            prop_assert_eq!(a.contains_all(&b), both == a);
        }

        #[test]
        fn what_is_encoded_parses_back(set in intervals()) {
            let mut out = Vec::new();
            set.encode(&mut out);
            prop_assert_eq!(out.len(), set.encoded_len());
            let mut reader = Reader::new(&out);
            prop_assert_eq!(Intervals::parse(&mut reader), Ok(set));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn what_parses_is_the_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(set) = Intervals::parse(&mut reader) {
                let mut again = Vec::new();
                set.encode(&mut again);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - reader.len()]);
            }
        }
    }
}
