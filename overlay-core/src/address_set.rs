//! The addresses of one endpoint.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// A few IP addresses in order, each once: read as the slice that they are.
///
/// Nearly every endpoint has one of each family, and is in several tables, thousands of times. So two lie in place, where a copy
/// allocates nothing; more are shared by all copies. What changes one is O(n), or O(n log n) for many at once.
///
/// ```
/// use overlay_core::AddressSet;
///
/// let mut addresses = AddressSet::from([[10, 0, 9, 3].into()]);
/// assert!(addresses.insert("fd00::3".parse()?) && !addresses.insert([10, 0, 9, 3].into()));
/// assert_eq!(addresses.last(), Some(&"fd00::3".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone)]
pub struct AddressSet(Held);

#[derive(Clone)]
enum Held {
    /// So many of these.
    InPlace(u8, [IpAddr; IN_PLACE]),
    /// More than have room there.
    Shared(Arc<[IpAddr]>),
}

const IN_PLACE: usize = 2;

impl AddressSet {
    /// None.
    pub const fn new() -> Self {
        Self(Held::InPlace(0, [IpAddr::V4(Ipv4Addr::UNSPECIFIED); IN_PLACE]))
    }

    /// Adds an address; whether it was not there.
    pub fn insert(&mut self, address: IpAddr) -> bool {
        let Err(at) = self.binary_search(&address) else { return false };
        match &mut self.0 {
            Held::InPlace(len, all) if usize::from(*len) < IN_PLACE => {
                all[at..].rotate_right(1);
                all[at] = address;
                *len += 1;
            }
            _ => {
                let mut all = self.to_vec();
                all.insert(at, address);
                self.0 = Held::Shared(all.into());
            }
        }
        true
    }

    /// Takes an address away; whether it was there.
    pub fn remove(&mut self, address: &IpAddr) -> bool {
        let was = self.len();
        self.retain(|held| held != address);
        self.len() < was
    }

    /// Takes all away.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Keeps those that are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&IpAddr) -> bool) {
        *self = self.iter().filter(|address| wanted(address)).copied().collect();
    }
}

impl Deref for AddressSet {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match &self.0 {
            Held::InPlace(len, all) => &all[..usize::from(*len)],
            Held::Shared(all) => all,
        }
    }
}

impl Default for AddressSet {
    fn default() -> Self {
        Self::new()
    }
}

impl Extend<IpAddr> for AddressSet {
    fn extend<T: IntoIterator<Item = IpAddr>>(&mut self, addresses: T) {
        let mut others = Vec::new();
        for address in addresses {
            match &mut self.0 {
                Held::InPlace(len @ 0, all) => (*len, all[0]) = (1, address),
                Held::InPlace(len @ 1, all) if all[0] != address => {
                    *len = 2;
                    *all = if all[0] < address { [all[0], address] } else { [address, all[0]] };
                }
                Held::InPlace(2.., all) if !all.contains(&address) => others.push(address),
                Held::Shared(all) if all.binary_search(&address).is_err() => others.push(address),
                _ => {}
            }
        }
        if !others.is_empty() {
            others.extend_from_slice(self);
            others.sort_unstable();
            others.dedup();
            self.0 = Held::Shared(others.into());
        }
    }
}

impl FromIterator<IpAddr> for AddressSet {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        let mut all = Self::new();
        all.extend(addresses);
        all
    }
}

impl From<BTreeSet<IpAddr>> for AddressSet {
    fn from(addresses: BTreeSet<IpAddr>) -> Self {
        addresses.into_iter().collect()
    }
}

impl<const N: usize> From<[IpAddr; N]> for AddressSet {
    fn from(addresses: [IpAddr; N]) -> Self {
        addresses.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a AddressSet {
    type Item = &'a IpAddr;
    type IntoIter = std::slice::Iter<'a, IpAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for AddressSet {
    type Item = IpAddr;
    type IntoIter = AddressIter;

    fn into_iter(self) -> AddressIter {
        AddressIter { all: self, next: 0 }
    }
}

/// The addresses of an [`AddressSet`], in order.
#[derive(Debug, Clone)]
pub struct AddressIter {
    all: AddressSet,
    next: usize,
}

impl Iterator for AddressIter {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        let address = self.all.get(self.next).copied()?;
        self.next += 1;
        Some(address)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.all.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for AddressIter {}

impl PartialEq for AddressSet {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for AddressSet {}

impl PartialOrd for AddressSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AddressSet {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for AddressSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for AddressSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

impl Serialize for AddressSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AddressSet {
    /// In any order, and the same twice perhaps.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<IpAddr>::deserialize(deserializer).map(Self::from_iter)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of few, so that they meet.
    fn address() -> impl Strategy<Value = IpAddr> {
        (0_u8..6, any::<bool>()).prop_map(|(number, v6)| match v6 {
            true => IpAddr::from([0, 0, 0, 0, 0, 0, 0, u16::from(number)]),
            false => IpAddr::from([10, 0, 0, number]),
        })
    }

    #[derive(Debug, Clone)]
    enum Doing {
        Insert(IpAddr),
        Remove(IpAddr),
        Extend(Vec<IpAddr>),
    }

    fn doing() -> impl Strategy<Value = Doing> {
        prop_oneof![
            address().prop_map(Doing::Insert),
            address().prop_map(Doing::Remove),
            proptest::collection::vec(address(), 0..4).prop_map(Doing::Extend),
        ]
    }

    proptest! {
        #[test]
        fn it_is_what_an_ordered_set_is_whatever_was_done(all in proptest::collection::vec(doing(), 0..20)) {
            let (mut set, mut model) = (AddressSet::new(), BTreeSet::new());
            for doing in all {
                let before = set.clone();
                let was: Vec<_> = model.iter().copied().collect();
                match doing {
                    Doing::Insert(address) => prop_assert_eq!(set.insert(address), model.insert(address)),
                    Doing::Remove(address) => prop_assert_eq!(set.remove(&address), model.remove(&address)),
                    Doing::Extend(more) => {
                        set.extend(more.iter().copied());
                        model.extend(more);
                    }
                }
                prop_assert_eq!(&*before, was, "a copy stays as it was");
                prop_assert!(set.iter().eq(&model) && set.clone().into_iter().eq(model.iter().copied()));
                prop_assert_eq!(&set, &model.iter().rev().copied().collect::<AddressSet>());
                prop_assert_eq!(format!("{set:?}"), format!("{model:?}"));
            }
        }

        #[test]
        fn two_are_compared_as_ordered_sets_are(one in proptest::collection::btree_set(address(), 0..5), other in proptest::collection::btree_set(address(), 0..5)) {
            let of = |set: &BTreeSet<IpAddr>| set.iter().copied().collect::<AddressSet>();
            prop_assert_eq!(of(&one).cmp(&of(&other)), one.cmp(&other));
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }
    }

    #[test]
    fn it_is_written_as_a_list_and_read_in_any_order() {
        let text = r#"["10.0.0.2","10.0.0.1","fd00::1","10.0.0.2"]"#;
        let set: AddressSet = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["10.0.0.1","10.0.0.2","fd00::1"]"#);
    }

    #[test]
    fn it_takes_little_room() {
        assert!(size_of::<AddressSet>() <= 40);
    }
}
