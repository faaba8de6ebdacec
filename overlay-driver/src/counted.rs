//! Whom strangers' addresses are counted as.

use std::net::{IpAddr, Ipv6Addr};

/// In IPv6 a machine may have all addresses of a /64: it is counted as one.
pub(crate) fn counted(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_ipv6_is_counted_by_its_network_and_one_of_ipv4_by_its_address() {
        let one = |text: &str| counted(text.parse().unwrap());
        assert_eq!(one("2001:db8::1"), one("2001:db8::ffff:0:0:2"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:1::1"));
        assert_ne!(one("192.0.2.1"), one("192.0.2.2"));
        assert_eq!(one("192.0.2.1"), one("::ffff:192.0.2.1"));
    }
}
