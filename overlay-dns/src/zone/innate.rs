//! Names that an endpoint has without anybody saying so: by its id, and by its addresses.

use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::EndpointId;
use smallvec::SmallVec;

use super::is_address_key;
use super::trie::Fixed;
use crate::Endpoint;

/// Such a name. They are most of all names, so none is kept: what it stands for is made when it is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Innate {
    /// The first 12 characters of an id, as a number in base 36.
    Id(u64),
    /// An address, looked up backwards.
    Address(IpAddr),
}

/// What endpoints are found by that have an id with such a beginning.
pub(super) type ById = Fixed<8>;
/// What endpoints are found by that have an address.
pub(super) type ByAddress = Fixed<17>;
/// Endpoints in the order of their ids: nearly always one.
pub(super) type Bearers = SmallVec<[Arc<Endpoint>; 1]>;

impl Innate {
    /// The one that a [key](super::key) is, if it has its form.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        if is_address_key(key) {
            return address(key.get(1..)?).map(Self::Address);
        }
        let (length, text) = key.split_first()?;
        (usize::from(*length) == SHORT && text.len() == SHORT).then_some(())?;
        text.iter().try_fold(0, |number, byte| Some(number * BASE + digit(*byte)?)).map(Self::Id)
    }
}

/// What an endpoint of this id is found by.
pub(super) const fn by_id(id: EndpointId) -> [u8; 8] {
    beginning(id).to_be_bytes()
}

const fn beginning(id: EndpointId) -> u64 {
    (u128::from_be_bytes(id.to_bytes()) / REST) as u64 // less than 36¹², which fits
}

/// What the endpoints with this address are found by.
pub(super) fn by_address(address: IpAddr) -> [u8; 17] {
    let mut key = [0; 17];
    match address {
        IpAddr::V4(address) => {
            key[0] = 4;
            key[1..5].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            key[0] = 6;
            key[1..].copy_from_slice(&address.octets());
        }
    }
    key
}

/// These, with this one in place of the one that had its id, or without.
pub(super) fn replaced(held: Option<&Bearers>, id: EndpointId, new: Option<Arc<Endpoint>>) -> Option<Bearers> {
    let mut bearers: Bearers = held.into_iter().flatten().filter(|held| held.id != id).cloned().collect();
    let at = bearers.partition_point(|held| held.id < id);
    bearers.insert_many(at, new);
    (!bearers.is_empty()).then_some(bearers)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
}

const fn digit(byte: u8) -> Option<u64> {
    match byte {
        b'0'..=b'9' => Some((byte - b'0') as u64),
        b'a'..=b'z' => Some((byte - b'a') as u64 + 10),
        _ => None,
    }
}

/// Characters of an id's short form, and of its base.
const SHORT: usize = 12;
const BASE: u64 = 36;
/// What the 13 characters after those count up to.
const REST: u128 = 36_u128.pow(13);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::DnsName;

    proptest! {
        #[test]
        fn an_ids_name_is_what_its_text_begins_with(id in any::<[u8; 16]>()) {
            let id = EndpointId::from_bytes(id);
            let name: DnsName = id.short().to_string().parse().map_err(|_| TestCaseError::fail("no name"))?;
            prop_assert_eq!(Innate::of(&name.fold()), Some(Innate::Id(beginning(id))));
        }
    }

    #[test]
    fn what_is_too_long_or_has_other_characters_is_no_ids_name() {
        for text in ["0123456789a", "0123456789abc", "0123456789a_", "012345.6789ab"] {
            let name: DnsName = text.parse().expect("a name");
            assert_eq!(Innate::of(&name.fold()), None, "{text}");
        }
    }
}
