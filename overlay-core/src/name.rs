//! Names that people give: of networks, services, clusters; and of interfaces.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::text::serde_as_text;

/// A name of a network, service, container or cluster: 1 to 63 of `a-z A-Z 0-9 - _`, the first and the last a letter or digit.
///
/// The rule is Docker Swarm's, so that every name can be a DNS label (RFC 1035 §2.3.1) but for `_`. Capitals are
/// kept and tell names apart here; where a name is looked up as DNS does, compare [`folded`](Self::folded) names.
///
/// Cloning is a reference count. Every id's text is a name too.
///
/// ```
/// use overlay_core::{Name, NameError};
///
/// let name: Name = "customoverlay".parse()?;
/// assert_eq!(name.as_str(), "customoverlay");
/// assert_eq!("web-".parse::<Name>(), Err(NameError::Edge { found: '-' }));
/// # Ok::<(), NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest, in bytes: what a DNS label may have.
    pub const MAX_LEN: usize = 63;

    /// Checks a text against the rule above.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(found) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
            return Err(NameError::Character { found });
        }
        if text.len() > Self::MAX_LEN {
            return Err(NameError::TooLong { found: text.len() });
        }
        match text.chars().next().into_iter().chain(text.chars().last()).find(|c| !c.is_ascii_alphanumeric()) {
            Some(found) => Err(NameError::Edge { found }),
            None => Ok(Self(text.into())),
        }
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same name in small letters: two names are one to DNS when their folded names are equal.
    #[must_use]
    pub fn folded(&self) -> Self {
        if !self.0.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.clone();
        }
        Self(self.0.to_ascii_lowercase().into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// So that a map by name can be asked with a text: `map.get("web")`.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

serde_as_text!(Name);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// No text at all.
    #[error("a name must be given")]
    Empty,
    /// More than 63 bytes.
    #[error("a name has 63 characters or fewer, this has {found}")]
    TooLong {
        /// Bytes given.
        found: usize,
    },
    /// A character that names do not have.
    #[error("{found:?} in a name, which is made of letters, digits, - and _")]
    Character {
        /// The character given.
        found: char,
    },
    /// `-` or `_` at an end.
    #[error("{found:?} at an end of a name, which begins and ends with a letter or digit")]
    Edge {
        /// The character given.
        found: char,
    },
}

/// A Linux network interface's name: 1 to 15 printable ASCII characters without space, `/`, `:` or `%`, and not `.`, `..`,
/// `all` or `default`.
///
/// The kernel takes more bytes, and numbers a name with `%`; tools do not, so ours do not. It refuses `all` and `default`,
/// which stand for every interface among its sysctls.
///
/// ```
/// use overlay_core::IfName;
///
/// let name: IfName = "eth0".parse()?;
/// assert_eq!(name.as_str(), "eth0");
/// assert!("a-name-too-long1".parse::<IfName>().is_err());
/// # Ok::<(), overlay_core::IfNameError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName([u8; 15]); // padded with zeros, so the order of arrays is the order of texts

impl IfName {
    /// The longest, in bytes: `IFNAMSIZ` less the closing zero.
    pub const MAX_LEN: usize = 15;

    /// Checks a text against the rule above.
    pub fn new(text: &str) -> Result<Self, IfNameError> {
        let mut bytes = [0; Self::MAX_LEN];
        let room = bytes.get_mut(..text.len()).ok_or(IfNameError::Length { found: text.len() })?;
        if text.is_empty() {
            return Err(IfNameError::Length { found: 0 });
        }
        if text == "." || text == ".." {
            return Err(IfNameError::Character { found: '.' });
        }
        if text == "all" || text == "default" {
            return Err(IfNameError::Reserved);
        }
        if let Some(found) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '/' | ':' | '%')) {
            return Err(IfNameError::Character { found });
        }
        room.copy_from_slice(text.as_bytes());
        Ok(Self(bytes))
    }

    /// Whether it is that of a namespace's own loopback device.
    #[inline]
    pub const fn is_loopback(&self) -> bool {
        matches!(self.0, [b'l', b'o', 0, ..])
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or(Self::MAX_LEN);
        str::from_utf8(&self.0[..len]).unwrap_or_default()
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IfName({self})")
    }
}

impl FromStr for IfName {
    type Err = IfNameError;

    fn from_str(text: &str) -> Result<Self, IfNameError> {
        Self::new(text)
    }
}

impl AsRef<str> for IfName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

serde_as_text!(IfName);

/// Why a text is not an [`IfName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IfNameError {
    /// Not 1 to 15 bytes.
    #[error("an interface's name has 1 to 15 characters, this has {found}")]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// A character that interface names do not have; the dot, of `.` and `..`.
    #[error("{found:?} in an interface's name")]
    Character {
        /// The character given.
        found: char,
    },
    /// `all` or `default`.
    #[error("\"all\" and \"default\" are no interface's names: sysctls have them for all")]
    Reserved,
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_broken_rule_has_its_own_error() {
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new(&"a".repeat(64)), Err(NameError::TooLong { found: 64 }));
        assert_eq!(Name::new("a.b"), Err(NameError::Character { found: '.' }));
        assert_eq!(Name::new("nétwork"), Err(NameError::Character { found: 'é' }));
        assert_eq!(Name::new("_web"), Err(NameError::Edge { found: '_' }));
        assert_eq!(Name::new("-"), Err(NameError::Edge { found: '-' }));
        assert_eq!(IfName::new(""), Err(IfNameError::Length { found: 0 }));
        assert_eq!(IfName::new(".."), Err(IfNameError::Character { found: '.' }));
        assert_eq!(IfName::new("eth 0"), Err(IfNameError::Character { found: ' ' }));
        assert_eq!(IfName::new("eth%d"), Err(IfNameError::Character { found: '%' }));
        for reserved in ["all", "default"] {
            let refused = IfName::new(reserved).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "\"all\" and \"default\" are no interface's names: sysctls have them for all"
            );
        }
        assert!(IfName::new("All").is_ok() && IfName::new("default0").is_ok());
    }

    #[test]
    fn a_map_by_name_can_be_asked_with_a_text() {
        let networks =
            std::collections::BTreeMap::from([(Name::new("web").unwrap(), 1), (Name::new("Web").unwrap(), 2)]);
        assert_eq!((networks.get("web"), networks.get("Web"), networks.get("we")), (Some(&1), Some(&2), None));
    }

    proptest! {
        #[test]
        fn exactly_the_texts_of_the_reference_rule_are_names(text in "[a-zA-Z0-9_.-]{0,66}") {
            // ^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$, 63 or fewer
            let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            let rule = alphanumeric(text.chars().next())
                && alphanumeric(text.chars().last())
                && !text.contains('.')
                && text.len() <= 63;
            prop_assert_eq!(Name::new(&text).is_ok(), rule);
        }

        #[test]
        fn a_map_by_names_can_be_asked_for_a_text(texts in vec("[a-z]{1,3}", 1..9)) {
            let name = |text: &String| Name::new(text).unwrap();
            let (sorted, hashed): (BTreeSet<_>, HashSet<_>) = texts.iter().map(|text| (name(text), name(text))).unzip();
            prop_assert!(texts.iter().all(|text| sorted.contains(&**text) && hashed.contains(&**text)));
        }

        #[test]
        fn names_fold_as_dns_does(text in "[a-zA-Z0-9]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9])?") {
            let name = Name::new(&text).unwrap();
            prop_assert_eq!(name.folded(), Name::new(&text.to_uppercase()).unwrap().folded());
        }

        #[test]
        fn interface_names_round_trip_and_keep_the_order(a in "[!-~]{1,15}", b in "[!-~]{1,15}") {
            if let (Ok(left), Ok(right)) = (IfName::new(&a), IfName::new(&b)) {
                prop_assert_eq!(left.as_str(), &a);
                prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            }
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,80}") {
            let _ = Name::new(&text);
            let _ = IfName::new(&text);
        }
    }
}
