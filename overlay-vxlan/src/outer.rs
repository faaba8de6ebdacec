//! The headers around a frame that crosses the underlay.

use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_core::{IpFamily, Mac, Port, Vni};

use crate::header::Header;
use crate::wire::{IPV4, IPV6, UDP, checksum};

/// The headers to write in front of an inner frame: Ethernet where wanted, IP, UDP and VXLAN.
///
/// The UDP checksum is sent as zero (RFC 7348 §5; for IPv6, RFC 6935 §5), the IPv6 flow label too.
///
/// ```
/// use overlay_core::{Port, Vni};
/// use overlay_vxlan::{Addresses, Outer};
///
/// let outer = Outer::new(
///     Addresses::V4 { source: [192, 0, 2, 1].into(), destination: [192, 0, 2, 2].into() },
///     Port::new(50_000)?,
///     Vni::new(42)?,
/// );
/// let mut buffer = [0; 64 + 1_400]; // the frame lies behind 64 bytes of headroom
/// let (headroom, frame) = buffer.split_at_mut(64);
/// let start = outer.prepend(headroom, frame.len())?;
/// assert_eq!(buffer[start..].len(), 36 + 1_400);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outer {
    /// The Ethernet addresses, where the packet leaves through a packet socket; without, it begins with IP.
    pub macs: Option<Macs>,
    /// The VTEPs' addresses.
    pub addresses: Addresses,
    /// UDP source port: [`PortRange::pick`](overlay_core::PortRange::pick) of the inner flow's hash.
    pub source_port: Port,
    /// UDP destination port, usually [`Port::VXLAN`].
    pub destination_port: Port,
    /// The network.
    pub vni: Vni,
    /// Routers the packet may pass, 1 to 255.
    pub ttl: u8,
    /// DSCP (RFC 2474) and, in the two low bits, ECN, which RFC 6040 wants copied from the inner packet.
    pub traffic_class: u8,
    /// `None` sets IPv4's DF: routers may not fragment the packet. `Some` allows it, with an identification
    /// that must not repeat while a fragment may be under way (RFC 6864 §4.1). IPv6 routers never fragment.
    pub identification: Option<u16>,
}

/// The outer Ethernet addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Macs {
    /// This host's.
    pub source: Mac,
    /// The next hop's.
    pub destination: Mac,
}

/// The outer IP addresses, both of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// An IPv4 underlay.
    V4 {
        /// This VTEP's.
        source: Ipv4Addr,
        /// The peer's.
        destination: Ipv4Addr,
    },
    /// An IPv6 underlay.
    V6 {
        /// This VTEP's.
        source: Ipv6Addr,
        /// The peer's.
        destination: Ipv6Addr,
    },
}

impl Outer {
    /// Bytes of the longest headers there are: Ethernet, IPv6, UDP, VXLAN. Headroom that always suffices.
    pub const MAX_LEN: usize = ETHERNET_LEN + IPV6_LEN + TAIL_LEN;

    /// Headers without Ethernet's, to [`Port::VXLAN`], with TTL 64 and DF.
    pub const fn new(addresses: Addresses, source_port: Port, vni: Vni) -> Self {
        Self {
            macs: None,
            addresses,
            source_port,
            destination_port: Port::VXLAN,
            vni,
            ttl: 64,
            traffic_class: 0,
            identification: None,
        }
    }

    /// Bytes of these headers: 36 (IPv4) or 56 (IPv6), and 14 more with Ethernet's.
    #[inline]
    pub const fn header_len(&self) -> usize {
        let ethernet = if self.macs.is_some() { ETHERNET_LEN } else { 0 };
        ethernet + self.addresses.family().header_len() + TAIL_LEN
    }

    /// Writes the headers at the end of `headroom`, the bytes in front of a frame of `frame` bytes, and gives the offset
    /// in it where they start. In constant time: the frame is not looked at.
    ///
    /// # Errors
    /// Nothing is written if `headroom` is too short, or the frame longer than an IP packet can carry.
    #[inline(always)]
    pub fn prepend(&self, headroom: &mut [u8], frame: usize) -> Result<usize, OuterError> {
        let len = self.header_len();
        let have = headroom.len();
        let start = have.checked_sub(len).ok_or(OuterError::Headroom { need: len, have })?;
        let most = self.addresses.most();
        if frame > most {
            return Err(OuterError::Frame { found: frame, most });
        }
        let datagram = (TAIL_LEN + frame) as u16; // fits: checked against `most`
        self.write(headroom, datagram);
        Ok(start)
    }

    /// Writes from the back to the front; `None` if there is too little room, which `prepend` has ruled out.
    #[inline(always)]
    fn write(&self, headroom: &mut [u8], datagram: u16) -> Option<()> {
        let (headroom, tail) = headroom.split_last_chunk_mut()?;
        *tail = self.tail(datagram);
        let (headroom, ethertype) = match self.addresses {
            Addresses::V4 { source, destination } => {
                let (headroom, header) = headroom.split_last_chunk_mut()?;
                self.write_ipv4(header, source, destination, datagram);
                (headroom, IPV4)
            }
            Addresses::V6 { source, destination } => {
                let (headroom, header) = headroom.split_last_chunk_mut()?;
                self.write_ipv6(header, source, destination, datagram);
                (headroom, IPV6)
            }
        };
        if let Some(macs) = self.macs {
            let (_, header) = headroom.split_last_chunk_mut()?;
            macs.write(header, ethertype);
        }
        Some(())
    }

    /// The UDP header (RFC 768) and VXLAN's.
    #[inline(always)]
    fn tail(&self, datagram: u16) -> [u8; TAIL_LEN] {
        let udp = u64::from(self.source_port.get()) << 48
            | u64::from(self.destination_port.get()) << 32
            | u64::from(datagram) << 16;
        let vxlan = u64::from_be_bytes(Header { vni: self.vni }.encode());
        (u128::from(udp) << 64 | u128::from(vxlan)).to_be_bytes()
    }

    /// The IPv4 header (RFC 791 §3.1).
    #[inline(always)]
    fn write_ipv4(&self, header: &mut [u8; IPV4_LEN], source: Ipv4Addr, destination: Ipv4Addr, datagram: u16) {
        let total = u64::from(datagram) + IPV4_LEN as u64;
        let fragmentation = match self.identification {
            None => DF,
            Some(identification) => u64::from(identification) << 16,
        };
        let (source, destination) = (u32::from(source), u32::from(destination));
        let first = 0x4500 << 48 | u64::from(self.traffic_class) << 48 | total << 32 | fragmentation;
        let second = u32::from(self.ttl) << 24 | u32::from(UDP) << 16;
        let sum =
            (first >> 32) + (first & 0xffff_ffff) + u64::from(second) + u64::from(source) + u64::from(destination);
        let second = second | u32::from(!checksum::fold(sum));
        header[..8].copy_from_slice(&first.to_be_bytes());
        header[8..12].copy_from_slice(&second.to_be_bytes());
        header[12..].copy_from_slice(&(u64::from(source) << 32 | u64::from(destination)).to_be_bytes());
    }

    /// The IPv6 header (RFC 8200 §3).
    #[inline(always)]
    fn write_ipv6(&self, header: &mut [u8; IPV6_LEN], source: Ipv6Addr, destination: Ipv6Addr, datagram: u16) {
        let first = 6 << 60
            | u64::from(self.traffic_class) << 52
            | u64::from(datagram) << 16
            | u64::from(UDP) << 8
            | u64::from(self.ttl);
        header[..8].copy_from_slice(&first.to_be_bytes());
        header[8..24].copy_from_slice(&source.octets());
        header[24..].copy_from_slice(&destination.octets());
    }
}

impl Addresses {
    /// The family of both.
    #[inline]
    pub const fn family(&self) -> IpFamily {
        match self {
            Self::V4 { .. } => IpFamily::V4,
            Self::V6 { .. } => IpFamily::V6,
        }
    }

    /// Bytes of the longest frame: the length fields count to 65,535, IPv4's from its own header on.
    const fn most(&self) -> usize {
        match self {
            Self::V4 { .. } => u16::MAX as usize - IPV4_LEN - TAIL_LEN,
            Self::V6 { .. } => u16::MAX as usize - TAIL_LEN,
        }
    }
}

impl Macs {
    /// The Ethernet header (IEEE 802.3 §3.1.1).
    #[inline(always)]
    fn write(self, header: &mut [u8; ETHERNET_LEN], ethertype: u16) {
        header[..6].copy_from_slice(&self.destination.octets());
        header[6..12].copy_from_slice(&self.source.octets());
        header[12..].copy_from_slice(&ethertype.to_be_bytes());
    }
}

/// Why headers cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OuterError {
    /// Too few bytes in front of the frame.
    #[error("the headers need {need} bytes of headroom, {have} are there")]
    Headroom {
        /// Bytes of the headers.
        need: usize,
        /// Bytes of headroom.
        have: usize,
    },
    /// A frame that no IP packet can carry.
    #[error("a frame is at most {most} bytes here, this has {found}")]
    Frame {
        /// Bytes of the frame.
        found: usize,
        /// The most an IP packet of the family can carry.
        most: usize,
    },
}

const ETHERNET_LEN: usize = 14; // IEEE 802.3 §3.1.1
const IPV4_LEN: usize = IpFamily::V4.header_len();
const IPV6_LEN: usize = IpFamily::V6.header_len();
const TAIL_LEN: usize = 8 + Header::LEN; // RFC 768, RFC 7348 §5
const DF: u64 = 0x4000; // RFC 791 §3.1

#[cfg(test)]
mod tests {
    use overlay_core::Encapsulation;

    use super::*;

    #[test]
    fn too_little_headroom_and_too_long_a_frame_write_nothing() {
        let outer = Outer::new(
            Addresses::V4 { source: [192, 0, 2, 1].into(), destination: [192, 0, 2, 2].into() },
            Port::MAX,
            Vni::MAX,
        );
        let mut headroom = [7; 40];
        assert_eq!(
            outer.prepend(&mut headroom[..35], 0).unwrap_err().to_string(),
            "the headers need 36 bytes of headroom, 35 are there"
        );
        assert_eq!(
            outer.prepend(&mut headroom, 65_500).unwrap_err().to_string(),
            "a frame is at most 65499 bytes here, this has 65500"
        );
        assert_eq!(headroom, [7; 40]);
        assert_eq!(outer.prepend(&mut headroom, 65_499), Ok(4));
    }

    #[test]
    fn the_longest_headers_fit_the_length_promised() {
        let addresses = Addresses::V6 { source: 1.into(), destination: 2.into() };
        let macs = Some(Macs { source: Mac::ZERO, destination: Mac::BROADCAST });
        let outer = Outer { macs, ..Outer::new(addresses, Port::MAX, Vni::MAX) };
        assert_eq!(outer.header_len(), Outer::MAX_LEN);
        assert_eq!(outer.prepend(&mut [0; Outer::MAX_LEN], 65_519), Ok(0));
    }

    #[test]
    fn the_headers_take_what_the_mtu_arithmetic_says() {
        let v4 = Addresses::V4 { source: [192, 0, 2, 1].into(), destination: [192, 0, 2, 2].into() };
        let v6 = Addresses::V6 { source: 1.into(), destination: 2.into() };
        for addresses in [v4, v6] {
            let headers = Outer::new(addresses, Port::MAX, Vni::MAX).header_len();
            let inner_ethernet = 14;
            assert_eq!(Encapsulation::vxlan(addresses.family()).outer_len(1_000), headers + inner_ethernet + 1_000);
        }
    }
}
