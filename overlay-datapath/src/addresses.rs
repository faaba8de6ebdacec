//! What is known of addresses.

use std::net::IpAddr;

use crate::tables::Map;

/// A map from addresses. Each family is looked up by itself: a number is hashed at once.
#[derive(Debug, Clone)]
pub(crate) struct Addresses<V> {
    v4: Map<u32, V>,
    v6: Map<u128, V>,
}

impl<V> Addresses<V> {
    pub(crate) fn insert(&mut self, address: IpAddr, value: V) {
        match address {
            IpAddr::V4(address) => drop(self.v4.insert(address.to_bits(), value)),
            IpAddr::V6(address) => drop(self.v6.insert(address.to_bits(), value)),
        }
    }

    #[inline]
    pub(crate) fn get(&self, address: IpAddr) -> Option<&V> {
        match address {
            IpAddr::V4(address) => self.v4.get(&address.to_bits()),
            IpAddr::V6(address) => self.v6.get(&address.to_bits()),
        }
    }
}

impl<V> Default for Addresses<V> {
    fn default() -> Self {
        Self { v4: Map::default(), v6: Map::default() }
    }
}

impl<V> FromIterator<(IpAddr, V)> for Addresses<V> {
    fn from_iter<I: IntoIterator<Item = (IpAddr, V)>>(of: I) -> Self {
        let mut addresses = Self::default();
        of.into_iter().for_each(|(address, value)| addresses.insert(address, value));
        addresses
    }
}
