//! Sets and maps.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use super::rule::{Gives, Use};
use super::value::{Bytes, Type, Value, bytes_of, length};
use super::{Elements, Verdict};

/// A set, a map or a verdict map, with its elements: what rules look many things up in at the cost of one.
///
/// Of two elements with one key the later counts. Keys are [`Value`]s; a key of an interval set is a range of them, of a tuple one range for each part. Ranges in one set
/// do not overlap; ranges of numbers in this machine's byte order ([`Mark`](super::Mark)s, indices, states) there are not.
///
/// ```
/// use std::net::Ipv4Addr;
/// use overlay_kernel::nft::{IpProtocol, Set, Verdict};
///
/// let web = Ipv4Addr::new(10, 0, 9, 2);
/// let published = Set::map([((IpProtocol::TCP, 8080_u16), (web, 80_u16))]);
/// let members = Set::of([web, Ipv4Addr::new(10, 0, 9, 3)]);
/// let subnets = Set::ranges([web..=Ipv4Addr::new(10, 0, 9, 9)]);
/// let ports = Set::verdicts([(22_u16, Verdict::Drop)]);
/// assert_eq!((members.len(), published.len()), (2, 1));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub(super) head: SetHead,
    /// By key; in an interval set the key's first value and then its last.
    pub(super) elements: BTreeMap<Bytes, Datum>,
}

/// What a set is, without its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetHead {
    pub(super) key: Vec<Type>,
    pub(super) intervals: bool,
    pub(super) kind: SetKind,
    /// Whether rules fill it.
    pub(super) filled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SetKind {
    Plain,
    Verdicts,
    Map(Vec<Type>),
    /// One that we do not make: observed only.
    Strange(Box<str>),
}

/// What an element has besides its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Datum {
    #[default]
    Nothing,
    Value(Box<[u8]>),
    Verdict(Verdict),
}

impl Set {
    /// A set of these keys.
    pub fn of<K: Value>(keys: impl IntoIterator<Item = K>) -> Self {
        Self::plain(keys.into_iter().map(|key| (bytes_of(&key), Datum::Nothing)), SetHead::of::<K>(SetKind::Plain))
    }

    /// A map from these keys to values.
    pub fn map<K: Value, V: Value>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let elements =
            pairs.into_iter().map(|(key, value)| (bytes_of(&key), Datum::Value(bytes_of(&value)[..].into())));
        Self::plain(elements, SetHead::of::<K>(SetKind::Map(V::TYPES.to_vec())))
    }

    /// A map from these keys to verdicts.
    pub fn verdicts<K: Value>(pairs: impl IntoIterator<Item = (K, Verdict)>) -> Self {
        let elements = pairs.into_iter().map(|(key, verdict)| (bytes_of(&key), Datum::Verdict(verdict)));
        Self::plain(elements, SetHead::of::<K>(SetKind::Verdicts))
    }

    /// A set of all that is in these ranges, both ends included.
    pub fn ranges<K: Value>(ranges: impl IntoIterator<Item = RangeInclusive<K>>) -> Self {
        let elements = ranges.into_iter().map(|range| (range_bytes(&range), Datum::Nothing));
        Self::plain(elements, SetHead::of::<K>(SetKind::Plain).with_intervals())
    }

    /// A map from ranges to values.
    pub fn range_map<K: Value, V: Value>(pairs: impl IntoIterator<Item = (RangeInclusive<K>, V)>) -> Self {
        let elements =
            pairs.into_iter().map(|(range, value)| (range_bytes(&range), Datum::Value(bytes_of(&value)[..].into())));
        Self::plain(elements, SetHead::of::<K>(SetKind::Map(V::TYPES.to_vec())).with_intervals())
    }

    /// A map from ranges to verdicts.
    pub fn range_verdicts<K: Value>(pairs: impl IntoIterator<Item = (RangeInclusive<K>, Verdict)>) -> Self {
        let elements = pairs.into_iter().map(|(range, verdict)| (range_bytes(&range), Datum::Verdict(verdict)));
        Self::plain(elements, SetHead::of::<K>(SetKind::Verdicts).with_intervals())
    }

    /// A map that rules fill ([`Rule::update`](super::Rule::update)), with elements that go when their time is over: 65,535 at most. What is in it
    /// is no part of a state: it is neither read nor changed by plans, and it goes with the map.
    pub fn filled<K: Value, V: Value>() -> Self {
        let head = SetHead { filled: true, ..SetHead::of::<K>(SetKind::Map(V::TYPES.to_vec())) };
        Self { head, elements: BTreeMap::new() }
    }

    /// A set like this with those elements of it alone that a step is about.
    #[must_use]
    pub fn only(&self, elements: &Elements) -> Self {
        let kept = elements.all.iter().filter_map(|(key, _)| self.elements.get_key_value(key));
        Self { head: self.head.clone(), elements: kept.map(|(key, datum)| (key.clone(), datum.clone())).collect() }
    }

    /// A set of the first so many parts of this one's keys, each once: of all addresses that a map has for something, say.
    #[must_use]
    pub fn first_parts(&self, count: usize) -> Self {
        let key: Vec<Type> = self.head.key.iter().take(count).copied().collect();
        let size = length(&key);
        let parts = self.elements.keys().filter_map(|key| key.get(..size));
        let elements = parts.map(|part| (Bytes::new(part), Datum::Nothing)).collect();
        Self { head: SetHead { key, intervals: false, kind: SetKind::Plain, filled: false }, elements }
    }

    /// Whether its keys are of this type.
    pub fn has_keys<K: Value>(&self) -> bool {
        self.head.key == K::TYPES
    }

    /// Takes the elements of another set in. Nothing, if that is of another kind.
    pub fn absorb(&mut self, other: Self) {
        if self.head == other.head {
            self.elements.extend(other.elements);
        }
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Whether a key is in it; one of another type is not. O(log n), but O(n) where keys are tuples of ranges.
    pub fn contains<K: Value>(&self, key: &K) -> bool {
        let bytes = bytes_of(key);
        if self.head.key != K::TYPES {
            return false;
        }
        match self.head.form() {
            Form::Single => self.elements.contains_key(&bytes),
            Form::Ends => {
                let (mut most, len) = (bytes.clone(), bytes.len());
                most.push(&vec![0xff; len]);
                let before = self.elements.range(..=most).next_back();
                before.is_some_and(|(range, _)| {
                    range.get(..len) <= Some(&bytes[..]) && range.get(len..) >= Some(&bytes[..])
                })
            }
            Form::Span => self.elements.keys().any(|range| {
                let (low, high) = range.split_at(range.len() / 2);
                let mut start = 0;
                self.head.key.iter().all(|part| {
                    let at = start..start + part.size();
                    start += part.size().next_multiple_of(4);
                    low.get(at.clone()) <= bytes.get(at.clone()) && high.get(at.clone()) >= bytes.get(at)
                })
            }),
        }
    }

    fn plain(elements: impl Iterator<Item = (Bytes, Datum)>, head: SetHead) -> Self {
        Self { head, elements: elements.collect() }
    }
}

/// How elements of a set are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A key.
    Single,
    /// A key, and another element where the range is over: in interval sets of one field.
    Ends,
    /// A first key and a last one: in those of several.
    Span,
}

impl SetHead {
    pub(super) const fn form(&self) -> Form {
        match (self.intervals, self.key.len()) {
            (false, _) => Form::Single,
            (true, 1) => Form::Ends,
            (true, _) => Form::Span,
        }
    }

    fn of<K: Value>(kind: SetKind) -> Self {
        Self { key: K::TYPES.to_vec(), intervals: false, kind, filled: false }
    }

    fn with_intervals(self) -> Self {
        Self { intervals: true, ..self }
    }

    /// Whether a rule may use the set as it does: not a map for its keys alone, which Linux 6.1 refuses.
    pub(super) fn serves(&self, used: &Use) -> bool {
        let gives = match (&self.kind, used.gives) {
            (SetKind::Plain, Gives::Nothing) => true,
            (SetKind::Verdicts, Gives::Verdict) => true,
            (SetKind::Map(has), Gives::Value(wanted)) => has == wanted,
            (SetKind::Map(has), Gives::Room(wanted)) => self.filled && has == wanted,
            _ => false,
        };
        gives && self.key == used.key
    }
}

/// As text: `map ipv4_addr . inet_service : mark`.
impl fmt::Display for SetHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            SetKind::Plain => "set",
            SetKind::Verdicts | SetKind::Map(_) => "map",
            SetKind::Strange(_) => "strange set",
        };
        write!(f, "{what} {}", Types(&self.key))?;
        match &self.kind {
            SetKind::Plain => {}
            SetKind::Verdicts => f.write_str(" : verdict")?,
            SetKind::Map(types) => write!(f, " : {}", Types(types))?,
            SetKind::Strange(what) => write!(f, " ({what})")?,
        }
        if self.intervals {
            f.write_str(" of intervals")?;
        }
        if self.filled { f.write_str(" filled by rules") } else { Ok(()) }
    }
}

/// A concatenation's types as `nft` writes them.
pub(super) struct Types<'a>(pub(super) &'a [Type]);

impl fmt::Display for Types<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, part) in self.0.iter().enumerate() {
            let between = if number == 0 { "" } else { " . " };
            write!(f, "{between}{part}")?;
        }
        Ok(())
    }
}

fn range_bytes<K: Value>(range: &RangeInclusive<K>) -> Bytes {
    let mut bytes = bytes_of(range.start());
    bytes.push(&bytes_of(range.end()));
    bytes
}
