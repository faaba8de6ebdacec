//! 128-bit identifiers and their text: 25 base-36 characters.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Characters of a whole id: 36²⁵ is the first power of 36 above 2¹²⁸.
const LEN: usize = 25;
/// Characters of the short form that listings show.
const SHORT_LEN: usize = 12;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 128 bits, shown as 25 characters of `0-9a-z`; listings show the first 12 ([`short`](Self::short)).
        /// Numeric order is text order, so a prefix is a range of ids ([`range`](Self::range)).
        ///
        /// ```
        #[doc = concat!("use overlay_core::{IdPrefix, ", stringify!($name), "};")]
        ///
        #[doc = concat!("let id: ", stringify!($name), " = \"4axbinlqtgd1iv7nqmcp6r0wf\".parse()?;")]
        /// assert_eq!(id.to_string(), "4axbinlqtgd1iv7nqmcp6r0wf");
        /// assert_eq!(id.short().to_string(), "4axbinlqtgd1");
        /// assert!(id.has_prefix("4axb".parse()?));
        /// # Ok::<(), overlay_core::IdError>(())
        /// ```
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// Makes an id of 16 bytes that `fill` draws, from a generator the caller owns and seeds.
            pub fn generate(fill: impl FnOnce(&mut [u8])) -> Self {
                let mut bytes = [0; 16];
                fill(&mut bytes);
                Self::from_bytes(bytes)
            }

            /// The id whose 128 bits, most significant first, are `bytes`.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }

            /// The 128 bits, most significant first.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// The first 12 characters, as listings show them: not unique, so good for people only.
            pub const fn short(self) -> IdPrefix {
                IdPrefix { first: self.0, len: SHORT_LEN }
            }

            /// Whether the id's text begins with `prefix`.
            pub fn has_prefix(self, prefix: IdPrefix) -> bool {
                prefix.bounds().contains(&self.0)
            }

            /// All ids whose text begins with `prefix`, for a range look-up in an ordered map.
            pub fn range(prefix: IdPrefix) -> RangeInclusive<Self> {
                let bounds = prefix.bounds();
                Self(*bounds.start())..=Self(*bounds.end())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_digits(f, self.0, LEN)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                decode(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize(self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize(deserializer).map(Self)
            }
        }
    };
}

id! {
    /// Names a cluster.
    ClusterId
}
id! {
    /// Names a node: one machine of the cluster.
    NodeId
}
id! {
    /// Names a network.
    NetworkId
}
id! {
    /// Names an endpoint: the attachment of one container to one network.
    EndpointId
}
id! {
    /// Names a service.
    ServiceId
}

/// The beginning of an id's text, 1 to 25 characters.
///
/// ```
/// use std::collections::BTreeMap;
/// use overlay_core::{IdPrefix, NetworkId};
///
/// let networks = BTreeMap::from([(NetworkId::from_bytes([7; 16]), "front"), (NetworkId::from_bytes([9; 16]), "back")]);
/// let typed = NetworkId::from_bytes([9; 16]).short();
/// let found: Vec<_> = networks.range(NetworkId::range(typed)).map(|(_, name)| *name).collect();
/// assert_eq!(found, ["back"]);
/// ```
#[derive(Clone, Copy)]
pub struct IdPrefix {
    first: u128, // an id with this prefix; digits past `len` do not count
    len: usize,
}

impl IdPrefix {
    fn bounds(self) -> RangeInclusive<u128> {
        let span = 36_u128.pow((LEN - self.len) as u32);
        let low = self.first - self.first % span;
        low..=low.saturating_add(span - 1)
    }
}

impl fmt::Display for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_digits(f, self.first, self.len)
    }
}

impl fmt::Debug for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdPrefix({self})")
    }
}

impl PartialEq for IdPrefix {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.bounds() == other.bounds()
    }
}

impl Eq for IdPrefix {}

impl FromStr for IdPrefix {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let len = text.len();
        if !(1..=LEN).contains(&len) {
            return Err(IdError::Length { found: len });
        }
        let mut first = digits(text)?;
        for _ in len..LEN {
            first = first.checked_mul(36).ok_or(IdError::Overflow)?;
        }
        Ok(Self { first, len })
    }
}

/// Why a text is not an id, or not the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The length is not 25 bytes, or for a prefix not 1 to 25.
    #[error("an id has 25 characters (a prefix 1 to 25), this has {found}")]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// A character that ids do not have; capitals are not accepted, so that an id has one text only.
    #[error("{found:?} in an id, which is written in 0-9 and a-z")]
    Character {
        /// The character given.
        found: char,
    },
    /// A number above 2¹²⁸ − 1.
    #[error("an id is at most f5lxx1zz5pnorynqglhzmsp33, this is above it")]
    Overflow,
}

fn decode(text: &str) -> Result<u128, IdError> {
    if text.len() != LEN {
        return Err(IdError::Length { found: text.len() });
    }
    digits(text)
}

fn digits(text: &str) -> Result<u128, IdError> {
    text.chars().try_fold(0_u128, |value, found| {
        let digit = match found {
            '0'..='9' | 'a'..='z' => found.to_digit(36).ok_or(IdError::Character { found })?,
            _ => return Err(IdError::Character { found }),
        };
        value.checked_mul(36).and_then(|value| value.checked_add(digit.into())).ok_or(IdError::Overflow)
    })
}

fn write_digits(f: &mut fmt::Formatter<'_>, mut value: u128, len: usize) -> fmt::Result {
    let mut text = [b'0'; LEN];
    let Some(text) = text.get_mut(..len) else { return Err(fmt::Error) };
    // A division of 128 bits costs as much as ten of 64, and whoever builds a zone writes many ids.
    value /= 36_u128.pow((LEN - len) as u32);
    for characters in text.rchunks_mut(SHORT_LEN) {
        let rest = if value < PART { 0 } else { value / PART };
        let mut part = (value - rest * PART) as u64;
        value = rest;
        for character in characters.iter_mut().rev() {
            *character = b"0123456789abcdefghijklmnopqrstuvwxyz"[(part % 36) as usize];
            part /= 36;
        }
    }
    f.pad(std::str::from_utf8(text).map_err(|_| fmt::Error)?)
}

/// As many as twelve digits can say, below 2⁶⁴.
const PART: u128 = 36_u128.pow(SHORT_LEN as u32);

fn serialize<S: Serializer>(value: u128, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.collect_str(&NodeId(value))
    } else {
        value.to_be_bytes().serialize(serializer)
    }
}

fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    if deserializer.is_human_readable() {
        decode(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    } else {
        <[u8; 16]>::deserialize(deserializer).map(u128::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_id_has_25_characters_and_one_more_is_refused() {
        let largest = NodeId::from_bytes([0xff; 16]);
        assert_eq!(largest.to_string(), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!("f5lxx1zz5pnorynqglhzmsp34".parse::<NodeId>(), Err(IdError::Overflow));
        assert_eq!("zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<NodeId>(), Err(IdError::Overflow));
    }

    #[test]
    fn garbage_is_refused_by_name() {
        assert_eq!("".parse::<NodeId>(), Err(IdError::Length { found: 0 }));
        assert_eq!("4axb".parse::<NodeId>(), Err(IdError::Length { found: 4 }));
        assert_eq!("4AXBINLQTGD1IV7NQMCP6R0WF".parse::<NodeId>(), Err(IdError::Character { found: 'A' }));
        assert_eq!("4axbinlqtgd1iv7nqmcp6r0é".parse::<NodeId>(), Err(IdError::Character { found: 'é' }));
        assert_eq!("".parse::<IdPrefix>(), Err(IdError::Length { found: 0 }));
        assert_eq!("g".parse::<IdPrefix>(), Err(IdError::Overflow));
    }

    proptest! {
        #[test]
        fn text_and_bytes_round_trip_and_keep_the_order(a in any::<[u8; 16]>(), b in any::<[u8; 16]>()) {
            let (a, b) = (ServiceId::from_bytes(a), ServiceId::from_bytes(b));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(ServiceId::from_bytes(a.to_bytes()), a);
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn a_prefix_matches_exactly_the_texts_that_begin_so(a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), len in 1..=LEN) {
            let (a, b) = (EndpointId::from_bytes(a), EndpointId::from_bytes(b));
            let text = a.to_string()[..len].to_owned();
            let prefix: IdPrefix = text.parse().unwrap();
            prop_assert_eq!(&prefix.to_string(), &text);
            prop_assert!(a.has_prefix(prefix));
            prop_assert_eq!(b.has_prefix(prefix), b.to_string().starts_with(&text));
            prop_assert!(EndpointId::range(prefix).contains(&a));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<NodeId>();
            let _ = text.parse::<IdPrefix>();
        }

        #[test]
        fn json_is_the_text(bytes in any::<[u8; 16]>()) {
            let id = NetworkId::from_bytes(bytes);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(&json, &format!("\"{id}\""));
            prop_assert_eq!(serde_json::from_str::<NetworkId>(&json).unwrap(), id);
        }
    }
}
