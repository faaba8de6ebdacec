//! Keys, and the prefixes that make ranges of them.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::text::Text;

/// The name of an entry in a [`Store`](crate::Store): 1 to 1,024 bytes, ordered bytewise.
///
/// Cheap to clone: up to 38 bytes lie in the key itself, longer ones are shared.
///
/// ```
/// use overlay_core::{Key, Prefix};
///
/// let nodes = Prefix::new("node/")?;
/// let key = nodes.key(7_u32.to_be_bytes())?; // big-endian numbers sort as they count
/// assert!(nodes.contains(&key));
/// assert_eq!(key.strip(&nodes), Some(&[0, 0, 0, 7][..]));
/// assert_eq!(format!("{key}"), r"node/\x00\x00\x00\x07");
/// # Ok::<(), overlay_core::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Text);

impl Key {
    /// The longest key, in bytes.
    pub const MAX: usize = 1024;

    /// A key of these bytes.
    ///
    /// # Errors
    /// If there are none, or more than [`Key::MAX`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        text([bytes.as_ref()].iter(), 1).map(Self)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Tells most keys apart.
    pub(super) fn hash64(&self) -> u64 {
        self.0.hash64()
    }

    /// What follows `prefix`, if the key begins with it.
    pub fn strip(&self, prefix: &Prefix) -> Option<&[u8]> {
        self.as_bytes().strip_prefix(prefix.as_bytes())
    }
}

impl From<[u8; 16]> for Key {
    /// The key that an id makes.
    fn from(id: [u8; 16]) -> Self {
        Self(Text::of([&id[..]].iter(), id.len()))
    }
}

/// All keys that begin with some bytes: 0 to 1,024 of them.
///
/// ```
/// use overlay_core::{Key, Prefix};
///
/// let nodes = Prefix::new("node/")?;
/// assert!(nodes.contains(&Key::new("node/7")?));
/// assert!(!nodes.contains(&Key::new("node")?));
/// assert!(Prefix::ALL.contains(&Key::new("node")?));
/// # Ok::<(), overlay_core::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(Text);

impl Prefix {
    /// The prefix of every key.
    pub const ALL: Self = Self(Text::EMPTY);

    /// All keys that begin with `bytes`.
    ///
    /// # Errors
    /// If these are more than [`Key::MAX`]: no key could begin with them.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        text([bytes.as_ref()].iter(), 0).map(Self)
    }

    /// The key with these bytes after the prefix.
    ///
    /// # Errors
    /// If prefix and bytes make no key.
    pub fn key(&self, bytes: impl AsRef<[u8]>) -> Result<Key, KeyError> {
        let bytes = bytes.as_ref();
        check(self.as_bytes().len() + bytes.len(), 1)?;
        Ok(Key(self.0.with(bytes)))
    }

    /// The key with these parts after the prefix, one after the other.
    ///
    /// # Errors
    /// If prefix and parts make no key.
    pub fn key_of(&self, parts: &[&[u8]]) -> Result<Key, KeyError> {
        text([self.as_bytes()].iter().chain(parts), 1).map(Key)
    }

    /// The prefix with these bytes after this one.
    ///
    /// # Errors
    /// If that is longer than any key.
    pub fn join(&self, bytes: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        text([self.as_bytes(), bytes.as_ref()].iter(), 0).map(Self)
    }

    /// Whether `key` begins with it.
    pub fn contains(&self, key: &Key) -> bool {
        key.as_bytes().starts_with(self.as_bytes())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The first bytes above all keys of this prefix; `None` where nothing is (it is empty, or all 0xff).
    ///
    /// ```
    /// use overlay_core::Prefix;
    ///
    /// assert_eq!(Prefix::new("node/")?.end().as_deref(), Some(&b"node0"[..]));
    /// assert_eq!(Prefix::new([7, 0xff])?.end().as_deref(), Some(&[8][..]));
    /// assert_eq!(Prefix::ALL.end(), None);
    /// # Ok::<(), overlay_core::KeyError>(())
    /// ```
    pub fn end(&self) -> Option<Vec<u8>> {
        let bytes = self.as_bytes();
        let last = bytes.iter().rposition(|byte| *byte != 0xff)?;
        let mut end = bytes[..=last].to_vec();
        end[last] += 1;
        Some(end)
    }
}

/// Why bytes are no key or prefix. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A key has at least one byte.
    #[error("a key has at least one byte")]
    Empty,
    /// They are too many.
    #[error("a key has at most {} bytes, not {len}", Key::MAX)]
    TooLong {
        /// How many there were.
        len: usize,
    },
}

/// The parts one after the other: `least` bytes or more, and no more than a key has.
fn text<'p>(parts: impl Iterator<Item = &'p &'p [u8]> + Clone, least: usize) -> Result<Text, KeyError> {
    let len = parts.clone().map(|part| part.len()).sum();
    check(len, least)?;
    Ok(Text::of(parts, len))
}

const fn check(len: usize, least: usize) -> Result<(), KeyError> {
    match len {
        len if len < least => Err(KeyError::Empty),
        len if len > Key::MAX => Err(KeyError::TooLong { len }),
        _ => Ok(()),
    }
}

macro_rules! as_bytes {
    ($name:ident) => {
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_bytes().hash(state);
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.as_bytes().escape_ascii(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

as_bytes!(Key);
as_bytes!(Prefix);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Lengths near the ends of the range and of the short form, and the bytes at the edges, so that both are met.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0), Just(0xff), any::<u8>()];
        let len = prop_oneof![0..4_usize, 37..41_usize, 1022..1027_usize];
        (vec(byte, 1..4), len).prop_map(|(pattern, len)| pattern.into_iter().cycle().take(len).collect())
    }

    proptest! {
        #[test]
        fn a_key_is_its_bytes(a in bytes(), b in bytes()) {
            let (x, y) = (Key::new(&a), Key::new(&b));
            prop_assert_eq!(x.is_ok(), (1..=Key::MAX).contains(&a.len()));
            if let (Ok(x), Ok(y)) = (x, y) {
                prop_assert_eq!(x.as_bytes(), &a[..]);
                prop_assert_eq!(x.cmp(&y), a.cmp(&b));
                prop_assert_eq!(x == y, a == b);
            }
        }

        #[test]
        fn a_key_and_what_begins_with_it_are_ordered_as_their_bytes(a in bytes(), more in vec(Just(0_u8), 0..40)) {
            let longer = [&a[..], &more].concat();
            if let (Ok(x), Ok(y)) = (Key::new(&a), Key::new(&longer)) {
                prop_assert_eq!(x.cmp(&y), a.cmp(&longer));
                prop_assert_eq!(y.cmp(&x), longer.cmp(&a));
                prop_assert_eq!(x == y, more.is_empty());
            }
        }

        #[test]
        fn a_prefix_contains_exactly_what_lies_between_it_and_its_end(a in bytes(), b in bytes()) {
            let (Ok(prefix), Ok(key)) = (Prefix::new(&a), Key::new(&b)) else { return Ok(()) };
            let below_end = prefix.end().is_none_or(|end| b < end);
            prop_assert_eq!(prefix.contains(&key), b >= a && below_end);
        }
    }

    #[test]
    fn a_key_is_five_words() {
        assert_eq!(size_of::<Key>(), 40);
        assert_eq!(size_of::<Option<Key>>(), 40);
    }

    #[test]
    fn what_makes_no_key_is_refused_and_named() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Prefix::ALL.key([]), Err(KeyError::Empty));
        assert_eq!(Key::new([0; 1025]).unwrap_err().to_string(), "a key has at most 1024 bytes, not 1025");
    }
}
