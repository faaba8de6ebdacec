//! What each encapsulation costs, to the byte.

use serde::{Deserialize, Serialize};

use crate::{IpFamily, Mtu, MtuError};

/// How a network's frames cross the underlay: VXLAN in UDP over IPv4 or IPv6, in the clear or in ESP.
///
/// Sizes hold for an outer IP header without options and an inner Ethernet header without a VLAN tag.
///
/// ```
/// use overlay_core::{Encapsulation, Esp, IpFamily, Mtu};
///
/// let plain = Encapsulation::vxlan(IpFamily::V4);
/// assert_eq!(plain.inner_mtu(Mtu::ETHERNET)?.get(), 1450);
/// assert_eq!(Encapsulation::vxlan(IpFamily::V6).inner_mtu(Mtu::ETHERNET)?.get(), 1430);
/// assert_eq!(plain.with_esp(Esp::default()).inner_mtu(Mtu::ETHERNET)?.get(), 1416);
/// # Ok::<(), overlay_core::MtuError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Encapsulation {
    /// Family of the outer IP header.
    pub underlay: IpFamily,
    /// ESP in transport mode around the outer UDP datagram, where the network is encrypted.
    pub esp: Option<Esp>,
}

/// The shape of an ESP packet (RFC 4303) with an AEAD that has an 8-byte IV: AES-GCM (RFC 4106) or
/// ChaCha20-Poly1305 (RFC 7634).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Esp {
    /// Length of the integrity check value.
    pub icv: Icv,
    /// Whether a UDP header (RFC 3948) precedes the ESP header, for paths through NAT.
    pub udp_encapsulated: bool,
}

/// Length of ESP's integrity check value (RFC 4106 §6); RFC 7634 knows 16 octets only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Icv {
    /// 8 octets: what Docker's encrypted networks use.
    Octets8,
    /// 12 octets.
    Octets12,
    /// 16 octets: the default, and what ours use.
    #[default]
    Octets16,
}

impl Encapsulation {
    /// VXLAN in the clear: 50 bytes over IPv4, 70 over IPv6.
    pub const fn vxlan(underlay: IpFamily) -> Self {
        Self { underlay, esp: None }
    }

    /// The same inside ESP.
    #[must_use]
    pub const fn with_esp(self, esp: Esp) -> Self {
        Self { esp: Some(esp), ..self }
    }

    /// Bytes of the outer IP packet that carries an inner IP packet of `inner` bytes; at most [`usize::MAX`].
    pub const fn outer_len(self, inner: usize) -> usize {
        let datagram = inner.saturating_add(UDP + VXLAN + ETHERNET);
        let payload = match self.esp {
            None => datagram,
            Some(esp) => match datagram.saturating_add(ESP_TRAILER).checked_next_multiple_of(ESP_ALIGN) {
                Some(padded) => padded.saturating_add(esp.before() + esp.icv.octets()),
                None => usize::MAX,
            },
        };
        payload.saturating_add(self.underlay.header_len())
    }

    /// The largest inner MTU whose packets fit an underlay of MTU `underlay` unfragmented.
    ///
    /// # Errors
    /// When less than [`Mtu::MIN`] is left; `found` says how much.
    pub const fn inner_mtu(self, underlay: Mtu) -> Result<Mtu, MtuError> {
        let payload = (underlay.get() as usize).saturating_sub(self.underlay.header_len());
        let datagram = match self.esp {
            None => payload,
            Some(esp) => {
                let padded = payload.saturating_sub(esp.before() + esp.icv.octets());
                (padded - padded % ESP_ALIGN).saturating_sub(ESP_TRAILER)
            }
        };
        Mtu::new(datagram.saturating_sub(UDP + VXLAN + ETHERNET) as u32)
    }
}

impl Esp {
    /// Bytes between the outer IP header and the encrypted datagram.
    const fn before(self) -> usize {
        ESP_HEADER + ESP_IV + if self.udp_encapsulated { UDP } else { 0 }
    }
}

impl Icv {
    /// The length in bytes.
    pub const fn octets(self) -> usize {
        match self {
            Self::Octets8 => 8,
            Self::Octets12 => 12,
            Self::Octets16 => 16,
        }
    }
}

const UDP: usize = 8; // RFC 768
const VXLAN: usize = 8; // RFC 7348 §5
const ETHERNET: usize = 14; // IEEE 802.3, no tag, no FCS
const ESP_HEADER: usize = 8; // SPI and sequence number, RFC 4303 §2
const ESP_IV: usize = 8; // RFC 4106 §3.1, RFC 7634 §2
const ESP_TRAILER: usize = 2; // pad length and next header, RFC 4303 §2
const ESP_ALIGN: usize = 4; // RFC 4303 §2.4

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any::encapsulation;

    #[test]
    fn the_reference_figures_hold() {
        let docker = Encapsulation::vxlan(IpFamily::V4).with_esp(Esp { icv: Icv::Octets8, udp_encapsulated: false });
        assert_eq!(docker.inner_mtu(Mtu::ETHERNET).map(Mtu::get), Ok(1424));
        assert_eq!(Encapsulation::vxlan(IpFamily::V4).outer_len(0), 50);
        assert_eq!(Encapsulation::vxlan(IpFamily::V6).outer_len(0), 70);
    }

    #[test]
    fn json_is_in_small_letters_as_everywhere() {
        let text = serde_json::to_string(&Encapsulation::vxlan(IpFamily::V4).with_esp(Esp::default())).unwrap();
        assert_eq!(text, r#"{"underlay":"v4","esp":{"icv":"octets16","udp_encapsulated":false}}"#);
    }

    #[test]
    fn an_underlay_too_small_says_what_is_left() {
        let plain = Encapsulation::vxlan(IpFamily::V6);
        assert_eq!(plain.inner_mtu(Mtu::new(100).unwrap()), Err(MtuError { found: 30 }));
        assert_eq!(plain.inner_mtu(Mtu::MIN), Err(MtuError { found: 0 }));
    }

    proptest! {
        #[test]
        fn a_packet_of_any_length_is_longer_outside_and_no_sum_wraps(kind in encapsulation(), below in 0_usize..=50) {
            prop_assert_eq!(kind.outer_len(usize::MAX - below), usize::MAX);
        }

        #[test]
        fn the_inner_mtu_fits_and_one_byte_more_does_not(kind in encapsulation(), underlay in 68_u32..=65_535) {
            let underlay = Mtu::new(underlay).unwrap();
            if let Ok(inner) = kind.inner_mtu(underlay) {
                let inner = inner.get() as usize;
                prop_assert!(kind.outer_len(inner) <= underlay.get() as usize);
                prop_assert!(kind.outer_len(inner + 1) > underlay.get() as usize);
            } else {
                prop_assert!(kind.outer_len(Mtu::MIN.get() as usize) > underlay.get() as usize);
            }
        }
    }
}
