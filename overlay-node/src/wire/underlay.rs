//! A node's end of the underlay, as its gossip metadata says it.

use std::net::IpAddr;

use overlay_core::Mtu;
use overlay_crypto::{Epoch, EpochRecord, PublicKey};

use super::reader::put_address;
use super::{Malformed, Reader};

/// How a node is reached by other nodes' tunnels: what it tells in its gossip metadata.
///
/// ```
/// use overlay_core::Mtu;
/// use overlay_node::Underlay;
///
/// let here = Underlay { vtep: [192, 0, 2, 1].into(), mtu: Mtu::ETHERNET, record: None };
/// assert_eq!(Underlay::parse(&here.encode()), Ok(here));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Underlay {
    /// Where its datagrams are sent from and received at.
    pub vtep: IpAddr,
    /// Largest packet of the underlay there, [`LEAST_MTU`](Self::LEAST_MTU) or more.
    pub mtu: Mtu,
    /// What others agree with it on keys by; none while it takes part in no encrypted network.
    pub record: Option<EpochRecord>,
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
        let version = reader.small("version", PLAIN, KEYED)?;
        let found = reader.u16("mtu")?;
        let wrong = Malformed::Range {
            field: "mtu",
            found: found.into(),
            least: Self::LEAST_MTU.into(),
            most: u16::MAX.into(),
        };
        let mtu = Mtu::new(found.into()).ok().filter(|_| found >= Self::LEAST_MTU).ok_or(wrong)?;
        let vtep = reader.address("vtep")?;
        let record = if version == KEYED { Some(record(&mut reader)?) } else { None };
        reader.end("underlay")?;
        Ok(Self { vtep, mtu, record })
    }

    /// The bytes: 8 with an IPv4 VTEP, 20 with IPv6; 40 more with a key's record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.record.is_some() { KEYED } else { PLAIN }];
        out.extend_from_slice(&(self.mtu.get() as u16).to_be_bytes());
        put_address(self.vtep, &mut out);
        out.extend(self.record.iter().flat_map(EpochRecord::encode));
        out
    }
}

/// Versions of the encoding: without, and with a key's record at its end.
const PLAIN: u8 = 1;
const KEYED: u8 = 2;

fn record(reader: &mut Reader<'_>) -> Result<EpochRecord, Malformed> {
    let found = reader.u64("epoch")?;
    let range = Malformed::Range { field: "epoch", found, least: 1, most: u64::MAX };
    let epoch = Epoch::new(found).map_err(|_| range)?;
    Ok(EpochRecord { epoch, public: PublicKey::from_bytes(reader.array("public key")?) })
}

#[cfg(test)]
mod tests {
    use overlay_core::testing::any::{ip, ip_family};
    use proptest::prelude::*;

    use super::*;

    fn underlay() -> impl Strategy<Value = Underlay> {
        let mtu = (576_u32..=65_535).prop_map(|mtu| Mtu::new(mtu).unwrap());
        let record = proptest::option::of((1_u64.., any::<[u8; 32]>()).prop_map(|(epoch, public)| EpochRecord {
            epoch: Epoch::new(epoch).unwrap(),
            public: PublicKey::from_bytes(public),
        }));
        (ip_family().prop_flat_map(ip), mtu, record).prop_map(|(vtep, mtu, record)| Underlay { vtep, mtu, record })
    }

    #[test]
    fn a_packet_size_below_what_every_host_takes_is_refused() {
        let small = Underlay { vtep: [192, 0, 2, 1].into(), mtu: Mtu::new(575).unwrap(), record: None };
        let refused = Underlay::parse(&small.encode()).unwrap_err();
        assert_eq!(refused.to_string(), "mtu is 575, 576 to 65535 would be right");
    }

    #[test]
    fn a_node_without_a_key_says_what_it_always_said_and_epoch_0_is_refused() {
        let plain = Underlay { vtep: [192, 0, 2, 1].into(), mtu: Mtu::ETHERNET, record: None };
        assert_eq!(plain.encode(), [1, 5, 220, 4, 192, 0, 2, 1]);
        let record = EpochRecord { epoch: Epoch::FIRST, public: PublicKey::from_bytes([9; 32]) };
        let mut bytes = Underlay { record: Some(record), ..plain }.encode();
        bytes[15] = 0;
        assert!(Underlay::parse(&bytes).unwrap_err().to_string().starts_with("epoch is 0, 1 to"));
        bytes[0] = 3;
        assert!(Underlay::parse(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_parses_back(underlay in underlay()) {
            let bytes = underlay.encode();
            prop_assert_eq!(Underlay::parse(&bytes), Ok(underlay));
            prop_assert!(bytes.len() <= 60);
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
