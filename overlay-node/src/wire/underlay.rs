//! A node's end of the underlay, as its gossip metadata says it.

use std::net::IpAddr;

use overlay_core::Mtu;

use super::reader::put_address;
use super::{Malformed, Reader};

/// How a node is reached by other nodes' tunnels: what it tells in its gossip metadata.
///
/// ```
/// use overlay_core::Mtu;
/// use overlay_node::Underlay;
///
/// let here = Underlay { vtep: [192, 0, 2, 1].into(), mtu: Mtu::ETHERNET };
/// assert_eq!(Underlay::parse(&here.encode()), Ok(here));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Underlay {
    /// Where its datagrams are sent from and received at.
    pub vtep: IpAddr,
    /// Largest packet of the underlay there, [`LEAST_MTU`](Self::LEAST_MTU) or more.
    pub mtu: Mtu,
}

impl Underlay {
    /// What every host can take (RFC 791 §3.1): 576 bytes. Nobody's word makes the others' packets smaller than that leaves.
    pub const LEAST_MTU: u16 = 576;

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// For bytes that are no such fact.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        reader.small("version", VERSION, VERSION)?;
        let found = reader.u16("mtu")?;
        let wrong = Malformed::Range {
            field: "mtu",
            found: found.into(),
            least: Self::LEAST_MTU.into(),
            most: u16::MAX.into(),
        };
        let mtu = Mtu::new(found.into()).ok().filter(|_| found >= Self::LEAST_MTU).ok_or(wrong)?;
        let vtep = reader.address("vtep")?;
        reader.end("underlay")?;
        Ok(Self { vtep, mtu })
    }

    /// The bytes: 8 with an IPv4 VTEP, 20 with IPv6.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&(self.mtu.get() as u16).to_be_bytes());
        put_address(self.vtep, &mut out);
        out
    }
}

/// Of the encoding.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use overlay_core::testing::any::{ip, ip_family};
    use proptest::prelude::*;

    use super::*;

    fn underlay() -> impl Strategy<Value = Underlay> {
        let mtu = (576_u32..=65_535).prop_map(|mtu| Mtu::new(mtu).unwrap());
        (ip_family().prop_flat_map(ip), mtu).prop_map(|(vtep, mtu)| Underlay { vtep, mtu })
    }

    #[test]
    fn a_packet_size_below_what_every_host_takes_is_refused() {
        let small = Underlay { vtep: [192, 0, 2, 1].into(), mtu: Mtu::new(575).unwrap() };
        let refused = Underlay::parse(&small.encode()).unwrap_err();
        assert_eq!(refused.to_string(), "mtu is 575, 576 to 65535 would be right");
    }

    proptest! {
        #[test]
        fn what_is_encoded_parses_back(underlay in underlay()) {
            let bytes = underlay.encode();
            prop_assert_eq!(Underlay::parse(&bytes), Ok(underlay));
            prop_assert!(bytes.len() <= 20);
            prop_assert!((0..bytes.len()).all(|cut| Underlay::parse(&bytes[..cut]).is_err()));
        }

        #[test]
        fn what_parses_is_the_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(underlay) = Underlay::parse(&bytes) {
                prop_assert_eq!(underlay.encode(), bytes);
            }
        }
    }
}
