//! Which addresses one host can have.

use std::net::IpAddr;

use ipnet::IpNet;

/// Whether an address can be one host's on a wire: not unspecified, multicast, broadcast, nor IPv4 in IPv6's form (RFC 4291 §2.5.5.2), which
/// would be a second text for an address that is checked elsewhere. Loopback addresses are a host's.
pub fn is_host_address(address: IpAddr) -> bool {
    let mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    !address.is_unspecified() && !address.is_multicast() && address != IpAddr::from([255; 4]) && !mapped
}

/// Whether an address is its subnet's own, or its broadcast address: all hosts', no one's. IPv6 has no such; a subnet of two has none
/// (RFC 3021).
pub fn is_of_all_hosts(net: IpNet) -> bool {
    matches!(net, IpNet::V4(net) if net.prefix_len() < 31 && [net.network(), net.broadcast()].contains(&net.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_single_hosts_is_told() {
        for none in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:192.0.2.1"] {
            assert!(!is_host_address(none.parse().unwrap()), "{none}");
        }
        for one in ["192.0.2.1", "fd00::", "127.0.0.1", "fe80::1"] {
            assert!(is_host_address(one.parse().unwrap()), "{one}");
        }
        for (net, of_all) in
            [("10.0.0.0/24", true), ("10.0.0.255/24", true), ("10.0.0.0/31", false), ("fd00::/64", false)]
        {
            assert_eq!(is_of_all_hosts(net.parse().unwrap()), of_all, "{net}");
        }
    }
}
