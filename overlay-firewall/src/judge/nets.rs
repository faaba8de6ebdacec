//! Which of many subnets an address is in.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Map;

/// Subnets, looked up by one hash for each prefix length that occurs: of those that contain an address, the longest is found.
#[derive(Debug, Clone)]
pub(super) struct Nets<V> {
    /// Prefix lengths that occur, longest first, with their masks.
    v4: Vec<(u8, u32)>,
    v6: Vec<(u8, u128)>,
    in_v4: Map<(u8, u32), V>,
    in_v6: Map<(u8, u128), V>,
}

impl<V> Default for Nets<V> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new(), in_v4: Map::default(), in_v6: Map::default() }
    }
}

impl<V> Nets<V> {
    pub(super) fn insert(&mut self, net: IpNet, value: V) {
        let len = net.prefix_len();
        match net.trunc() {
            IpNet::V4(net) => {
                note(&mut self.v4, (len, u32::from(net.netmask())));
                self.in_v4.insert((len, u32::from(net.addr())), value);
            }
            IpNet::V6(net) => {
                note(&mut self.v6, (len, u128::from(net.netmask())));
                self.in_v6.insert((len, u128::from(net.addr())), value);
            }
        }
    }

    pub(super) fn find(&self, address: IpAddr) -> Option<&V> {
        match address {
            IpAddr::V4(address) => {
                let address = u32::from(address);
                self.v4.iter().find_map(|(len, mask)| self.in_v4.get(&(*len, address & mask)))
            }
            IpAddr::V6(address) => {
                let address = u128::from(address);
                self.v6.iter().find_map(|(len, mask)| self.in_v6.get(&(*len, address & mask)))
            }
        }
    }
}

fn note<M: Ord + Copy>(lens: &mut Vec<(u8, M)>, len: (u8, M)) {
    if let Err(at) = lens.binary_search_by(|other| len.0.cmp(&other.0)) {
        lens.insert(at, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_is_found_and_nothing_outside() {
        let mut nets = Nets::default();
        for (net, name) in
            [("10.0.0.0/8", "wide"), ("10.1.0.0/16", "narrow"), ("0.0.0.0/0", "all"), ("fd00::/64", "six")]
        {
            nets.insert(net.parse().unwrap(), name);
        }
        let find = |address: &str| nets.find(address.parse().unwrap()).copied();
        assert_eq!(["10.1.2.3", "10.2.2.3", "11.0.0.1"].map(find), [Some("narrow"), Some("wide"), Some("all")]);
        assert_eq!([find("fd00::1"), find("fd01::1")], [Some("six"), None]);
    }
}
