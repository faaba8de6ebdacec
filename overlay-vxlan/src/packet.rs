//! A whole VXLAN packet, from the underlay's Ethernet header to the inner transport payload.

use overlay_core::Port;

use crate::header::Header;
use crate::malformed::{Flaw, Layer, Malformed};
use crate::wire::{Ethernet, IPV4, IPV6, Ip, Transport, UDP, Udp, checksum};

/// A VXLAN packet as it crosses the underlay (RFC 7348 §5): borrowed views of its headers, every length checked.
///
/// Parsing costs a few nanoseconds, whatever the packet carries, and does not allocate.
///
/// ```
/// use overlay_core::{Port, Vni};
/// use overlay_vxlan::{Addresses, Outer, Packet};
///
/// let frame = *b"\x02\x42\x0a\0\0\x03\x02\x42\x0a\0\0\x02\x08\x06an ARP request";
/// let outer = Outer::new(
///     Addresses::V4 { source: [192, 0, 2, 1].into(), destination: [192, 0, 2, 2].into() },
///     Port::new(50_000)?,
///     Vni::new(42)?,
/// );
/// let mut buffer = vec![0; 64];
/// let start = outer.prepend(&mut buffer, frame.len())?;
/// buffer.extend(frame);
///
/// let packet = Packet::parse_ip(&buffer[start..], Port::VXLAN)?.expect("it is for VXLAN's port");
/// assert_eq!(packet.header.vni.get(), 42);
/// assert_eq!(packet.frame(), frame);
/// assert_eq!(packet.inner.ethernet.ethertype(), 0x0806);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The underlay's Ethernet header, if the packet was read with one.
    pub ethernet: Option<Ethernet<'a>>,
    /// The IP header that leads from VTEP to VTEP.
    pub ip: Ip<'a>,
    /// The UDP header; its source port tells inner flows apart.
    pub udp: Udp<'a>,
    /// The VXLAN header.
    pub header: Header,
    /// What the packet carries.
    pub inner: Frame<'a>,
    payload: &'a [u8], // of UDP: VXLAN header and inner frame
}

/// The Ethernet frame that VXLAN carries: borrowed views of its headers, every length checked.
///
/// ```
/// use overlay_vxlan::{Frame, Header, Transport};
///
/// // From a UDP socket: VXLAN header, Ethernet, IPv4, UDP, and padding that is no part of the packet.
/// let datagram = b"\x08\0\0\0\0\0\x2a\0\
///     \x02\x42\x0a\0\0\x03\x02\x42\x0a\0\0\x02\x08\0\
///     \x45\0\0\x1e\0\0\x40\0\x40\x11\0\0\x0a\0\0\x02\x0a\0\0\x03\
///     \x13\x88\0\x35\0\x0a\0\0hi....";
/// let (header, frame) = Header::parse(datagram)?;
/// let frame = Frame::parse(frame)?;
/// assert_eq!((header.vni.get(), frame.ethernet.source().to_string()), (42, "02:42:0a:00:00:02".into()));
/// assert!(matches!(frame.transport, Some(Transport::Udp(udp)) if udp.destination() == 53));
/// assert_eq!(frame.payload, b"hi");
/// # Ok::<(), overlay_vxlan::Malformed>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The Ethernet header.
    pub ethernet: Ethernet<'a>,
    /// The IP header, if the frame carries IP. An IPv4 header's checksum is left to the receiving host.
    pub ip: Option<Ip<'a>>,
    /// The transport header, if there is a known one and the packet is no fragment.
    pub transport: Option<Transport<'a>>,
    /// What follows the last header read, padding behind an IP packet cut off.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads an Ethernet frame of the underlay, up to two VLAN tags included. `None` if it is not for VXLAN: neither
    /// IPv4 nor IPv6, not UDP, or for a port other than `port`.
    ///
    /// The lengths of all headers must fit; the outer IPv4 header's checksum must be right; bytes behind
    /// the IP packet (Ethernet's padding) and behind the UDP datagram are ignored. The UDP checksum is not looked at:
    /// a receiver may ([`verify_udp`](Self::verify_udp)), a sender should not set it (RFC 7348 §5).
    ///
    /// IP options and extension headers are passed over unread. So a source route with stops left is too, which a host's
    /// IP stack would forward or drop. IPv6's jumbograms (RFC 2675) are refused, as is any other length field of 0.
    ///
    /// The inner frame's lengths must fit too. Who only passes frames on, whatever they carry, reads no more than the
    /// [`Header`].
    ///
    /// # Errors
    /// Names the header that is wrong. A UDP fragment is one too ([`Flaw::Fragment`]), whatever its port, as only a
    /// datagram's first tells, and even one that holds the whole datagram (RFC 6946): VTEPs must not fragment
    /// (RFC 7348 §4.3).
    #[inline]
    pub fn parse(frame: &'a [u8], port: Port) -> Result<Option<Self>, Malformed> {
        let (ethernet, packet) = Ethernet::parse(frame, Layer::OuterEthernet)?;
        Self::parse_in(Some(ethernet), ethernet.ethertype(), packet, port)
    }

    /// The same for a packet without an Ethernet header, as a raw IP socket or a tunnel gives it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    #[inline]
    pub fn parse_ip(packet: &'a [u8], port: Port) -> Result<Option<Self>, Malformed> {
        let ethertype = match packet.first() {
            Some(first) if first >> 4 == 6 => IPV6,
            _ => IPV4,
        };
        Self::parse_in(None, ethertype, packet, port)
    }

    /// Checks the UDP checksum, where the sender set one: 0 is right in IPv4 and IPv6 (RFC 7348 §5, RFC 6935 §5).
    /// Takes time linear in the packet's length. With stops left on a source route a right one seems wrong, as it covers
    /// the last stop's address.
    ///
    /// # Errors
    /// [`Flaw::Checksum`] in [`Layer::OuterUdp`].
    pub fn verify_udp(&self) -> Result<(), Malformed> {
        let found = self.udp.checksum();
        let sum = self.pseudo_sum() + checksum::sum(self.udp.bytes()) + checksum::sum(self.payload);
        if found == 0 || checksum::fold(sum) == 0xffff {
            return Ok(());
        }
        let right = match !checksum::fold(sum + u64::from(!found)) {
            0 => 0xffff, // RFC 768: 0 means none
            right => right,
        };
        Err(Flaw::Checksum { found, right }.at(Layer::OuterUdp))
    }

    /// The bytes of the inner frame, to be passed on.
    #[inline]
    pub fn frame(&self) -> &'a [u8] {
        self.payload.get(Header::LEN..).unwrap_or_default()
    }

    #[inline(always)]
    fn parse_in(
        ethernet: Option<Ethernet<'a>>,
        ethertype: u16,
        packet: &'a [u8],
        port: Port,
    ) -> Result<Option<Self>, Malformed> {
        let Some((ip, datagram)) = Ip::parse(ethertype, packet).map_err(|flaw| flaw.at(Layer::OuterIp))? else {
            return Ok(None);
        };
        if ip.protocol() != UDP {
            return Ok(None);
        }
        if ip.is_fragment() {
            return Err(Flaw::Fragment.at(Layer::OuterIp));
        }
        let udp = Udp::first(datagram).map_err(|flaw| flaw.at(Layer::OuterUdp))?;
        if udp.destination() != port.get() {
            return Ok(None);
        }
        if let Ip::V4(ip) = ip {
            ip.verify(packet).map_err(|flaw| flaw.at(Layer::OuterIp))?;
        }
        let payload = udp.payload(datagram).map_err(|flaw| flaw.at(Layer::OuterUdp))?;
        let (header, frame) = Header::parse(payload)?;
        let inner = Frame::parse(frame)?;
        Ok(Some(Self { ethernet, ip, udp, header, inner, payload }))
    }

    /// The sum of the pseudo header (RFC 768, RFC 8200 §8.1).
    fn pseudo_sum(&self) -> u64 {
        let addresses = match self.ip {
            Ip::V4(ip) => checksum::sum(&ip.source().octets()) + checksum::sum(&ip.destination().octets()),
            Ip::V6(ip) => checksum::sum(&ip.source().octets()) + checksum::sum(&ip.destination().octets()),
        };
        addresses + u64::from(UDP) + self.udp.datagram_len() as u64
    }
}

impl<'a> Frame<'a> {
    /// Reads an inner frame, as it follows the [`Header`] in a datagram from a UDP socket. A frame that is not IP is
    /// read as far as its Ethernet header, an IP fragment as far as its IP header.
    ///
    /// # Errors
    /// Names the header whose length does not fit.
    #[inline(always)]
    pub fn parse(frame: &'a [u8]) -> Result<Self, Malformed> {
        let (ethernet, payload) = Ethernet::parse(frame, Layer::InnerEthernet)?;
        let Some((ip, upper)) = Ip::parse(ethernet.ethertype(), payload).map_err(|flaw| flaw.at(Layer::InnerIp))?
        else {
            return Ok(Self { ethernet, ip: None, transport: None, payload });
        };
        if ip.is_fragment() {
            return Ok(Self { ethernet, ip: Some(ip), transport: None, payload: upper });
        }
        let (transport, payload) =
            Transport::parse(ip.family(), ip.protocol(), upper).map_err(|flaw| flaw.at(Layer::InnerTransport))?;
        Ok(Self { ethernet, ip: Some(ip), transport, payload })
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::{Mac, Vni};
    use proptest::prelude::*;

    use super::*;
    use crate::{Addresses, Macs, Outer};

    type Change = fn(&mut Vec<u8>);

    #[test]
    fn foreign_traffic_is_no_error() {
        let foreign: [(&str, Change); 5] = [
            ("ARP", |bytes| bytes[13] = 0x06),
            ("TCP", |bytes| bytes[23] = 6),
            ("DNS", |bytes| bytes[36..38].copy_from_slice(&53_u16.to_be_bytes())),
            ("a damaged packet for another port", |bytes| bytes[22] = 1),
            ("a datagram too long for another port", |bytes| bytes[38] = 0xff),
        ];
        for (what, change) in foreign {
            let mut bytes = packet_v4();
            change(&mut bytes);
            let port = if what.contains("another") { Port::GOSSIP } else { Port::VXLAN };
            assert_eq!(Packet::parse(&bytes, port), Ok(None), "{what}");
        }
    }

    #[test]
    fn each_flaw_is_named_with_its_layer() {
        let flaws: [(Change, &str); 19] = [
            (|b| b.truncate(13), "outer Ethernet header: 14 bytes are needed, 13 are there"),
            (|b| b.truncate(33), "outer IP header: 20 bytes are needed, 19 are there"),
            (|b| b[14] = 0x65, "outer IP header: its IP version is 6, it must be 4 or 6 and as the ethertype says"),
            (|b| b[14] = 0x44, "outer IP header: its length field says 16 bytes, 20 are the least"),
            (|b| b[16..18].fill(0), "outer IP header: its length field says 0 bytes, 20 are the least"),
            (|b| b.truncate(b.len() - 1), "outer IP header: 100 bytes are needed, 99 are there"),
            (|b| b[22] = 63, "outer IP header: its checksum is 0xb685, 0xb785 would be right"),
            (|b| b[20] = 0x20, "outer IP header: it is a fragment, only whole packets are read"),
            (|b| b[21] = 1, "outer IP header: it is a fragment, only whole packets are read"),
            (|b| b[39] = 7, "outer UDP header: its length field says 7 bytes, 8 are the least"),
            (|b| b[39] = 81, "outer UDP header: 81 bytes are needed, 80 are there"),
            (|b| b[39] = 15, "VXLAN header: 8 bytes are needed, 7 are there"),
            (|b| b[42] = 0, "VXLAN header: its I flag is clear, it must be set"),
            (|b| b[46..49].fill(0), "VXLAN header: its VNI is 0, a network's is 1 to 16777215"),
            (|b| b[39] = 29, "inner Ethernet header: 14 bytes are needed, 13 are there"),
            (|b| b[67] = 51, "inner IP header: 51 bytes are needed, 50 are there"),
            (|b| b[67] = 39, "inner transport header: 20 bytes are needed, 19 are there"),
            (|b| b[96] = 0x40, "inner transport header: its length field says 16 bytes, 20 are the least"),
            (|b| b[96] = 0xf0, "inner transport header: 60 bytes are needed, 30 are there"),
        ];
        assert!(Packet::parse(&packet_v4(), Port::VXLAN).is_ok());
        for (damage, message) in flaws {
            let mut bytes = packet_v4();
            damage(&mut bytes);
            assert_eq!(Packet::parse(&bytes, Port::VXLAN).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn ipv6_extension_headers_are_followed_to_a_limit() {
        let extended = |count: usize| {
            let mut bytes = packet_v6();
            let (first, udp) = (bytes[6], bytes.split_off(40));
            for at in 0..count {
                bytes.extend([if at + 1 == count { first } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
            }
            bytes[6] = if count == 0 { first } else { 60 };
            bytes.extend(udp);
            let len = (bytes.len() - 40) as u16;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            bytes
        };
        for count in 0..=8 {
            assert_eq!(Packet::parse_ip(&extended(count), Port::VXLAN).unwrap().unwrap().frame(), frame());
        }
        let refused = Packet::parse_ip(&extended(9), Port::VXLAN).unwrap_err();
        assert_eq!(refused.to_string(), "outer IP header: it has more than 8 extension headers");
    }

    #[test]
    fn an_extension_header_cut_short_says_so() {
        let mut bytes = packet_v6();
        (bytes[6], bytes[41]) = (60, 255);
        let refused = Packet::parse_ip(&bytes, Port::VXLAN).unwrap_err();
        assert_eq!(refused.flaw, Flaw::Truncated { need: 40 + 2048, have: 120 });
        bytes[4..6].copy_from_slice(&[0, 1]);
        let refused = Packet::parse_ip(&bytes, Port::VXLAN).unwrap_err();
        assert_eq!(refused.flaw, Flaw::Truncated { need: 42, have: 41 });
        (bytes[6], bytes[5], bytes[41]) = (51, 80, 0);
        let refused = Packet::parse_ip(&bytes, Port::VXLAN).unwrap_err();
        assert_eq!(refused.flaw, Flaw::Length { found: 8, least: 12 });
    }

    #[test]
    fn ip_options_and_vlan_tags_are_passed_over() {
        let mut bytes = packet_v4();
        bytes.splice(34..34, [1; 4]);
        (bytes[14], bytes[17]) = (0x46, 104);
        mend(&mut bytes);
        bytes.splice(12..12, [0x88, 0xa8, 0x20, 0x05, 0x81, 0x00, 0x00, 0x06]);
        let packet = Packet::parse(&bytes, Port::VXLAN).unwrap().unwrap();
        assert_eq!((packet.ethernet.unwrap().vlan(), packet.ethernet.unwrap().header_len()), (Some(5), 22));
        assert_eq!(packet.frame(), frame());
        bytes[42] ^= 1; // an option
        assert!(matches!(Packet::parse(&bytes, Port::VXLAN).unwrap_err().flaw, Flaw::Checksum { .. }));
    }

    #[test]
    fn a_source_route_is_passed_over_and_an_atomic_fragment_is_refused() {
        let extended = |next: u8, extension: &[u8]| {
            let mut bytes = packet_v6();
            bytes.splice(40..40, extension.iter().copied());
            (bytes[6], bytes[5]) = (next, 80 + extension.len() as u8);
            bytes
        };
        let mut route = [0; 24];
        (route[0], route[1], route[3], route[23]) = (17, 2, 1, 7); // one stop left, ::7
        let bytes = extended(43, &route);
        let packet = Packet::parse_ip(&bytes, Port::VXLAN).unwrap().unwrap();
        assert_eq!((packet.frame(), packet.ip.destination()), (&frame()[..], [0, 0, 0, 0, 0, 0, 0, 2].into()));
        let atomic = extended(44, &[17, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(Packet::parse_ip(&atomic, Port::VXLAN).unwrap_err().flaw, Flaw::Fragment);
    }

    #[test]
    fn a_length_of_zero_does_not_mean_all_the_rest() {
        let mut bytes = packet_v6();
        bytes[44..46].fill(0);
        let refused = Packet::parse_ip(&bytes, Port::VXLAN).unwrap_err();
        assert_eq!(refused, Flaw::Length { found: 0, least: 8 }.at(Layer::OuterUdp));
        bytes[4..6].fill(0);
        let refused = Packet::parse_ip(&bytes, Port::VXLAN).unwrap_err();
        assert_eq!(refused, Flaw::Truncated { need: 8, have: 0 }.at(Layer::OuterUdp));
    }

    #[test]
    fn what_follows_the_inner_packet_is_no_payload_but_part_of_the_frame() {
        let mut padded = frame();
        padded.extend([0; 10]);
        let mut bytes = vec![0; 36];
        outer(V4).prepend(&mut bytes, padded.len()).unwrap();
        bytes.extend(&padded);
        let packet = Packet::parse_ip(&bytes, Port::VXLAN).unwrap().unwrap();
        assert_eq!((packet.frame(), packet.inner.payload), (&padded[..], &b"0123456789"[..]));
    }

    #[test]
    fn a_fragment_inside_is_read_as_far_as_ip() {
        let mut bytes = frame();
        bytes[20] = 0x20;
        let read = Frame::parse(&bytes).unwrap();
        assert!(read.ip.unwrap().is_fragment());
        assert_eq!((read.transport, read.payload.len()), (None, 30));
    }

    #[test]
    fn an_unknown_protocol_and_ethertype_are_left_alone() {
        let mut bytes = frame();
        bytes[23] = 47; // GRE
        let read = Frame::parse(&bytes).unwrap();
        assert_eq!((read.transport, read.payload.len()), (None, 30));
        bytes[23] = 58; // ICMPv6 in IPv4
        assert_eq!(Frame::parse(&bytes).unwrap().transport, None);
        bytes[12..14].copy_from_slice(&[0x88, 0xcc]); // LLDP
        let read = Frame::parse(&bytes).unwrap();
        assert_eq!((read.ip, read.payload.len()), (None, 50));
    }

    proptest! {
        #[test]
        fn a_right_udp_checksum_is_accepted_and_any_other_refused(v6 in any::<bool>(), wrong in 1_u16..) {
            let (mut bytes, at) = if v6 { (packet_v6(), 46) } else { (packet_v4().split_off(14), 26) };
            prop_assert_eq!(Packet::parse_ip(&bytes, Port::VXLAN).unwrap().unwrap().verify_udp(), Ok(()));

            bytes[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
            let right = match Packet::parse_ip(&bytes, Port::VXLAN).unwrap().unwrap().verify_udp() {
                Err(Malformed { layer: Layer::OuterUdp, flaw: Flaw::Checksum { found, right } }) => {
                    prop_assert_eq!(found, wrong);
                    right
                }
                other => {
                    prop_assert_eq!(other, Ok(()));
                    return Ok(());
                }
            };
            bytes[at..at + 2].copy_from_slice(&right.to_be_bytes());
            prop_assert_eq!(Packet::parse_ip(&bytes, Port::VXLAN).unwrap().unwrap().verify_udp(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Packet::parse(&bytes, Port::VXLAN), Packet::parse_ip(&bytes, Port::VXLAN), Frame::parse(&bytes));
        }
    }

    fn packet_v4() -> Vec<u8> {
        let macs = Some(Macs { source: Mac::ZERO, destination: Mac::BROADCAST });
        let mut bytes = vec![0; 50];
        Outer { macs, ..outer(V4) }.prepend(&mut bytes, frame().len()).unwrap();
        bytes.extend(frame());
        bytes
    }

    fn packet_v6() -> Vec<u8> {
        let mut bytes = vec![0; 56];
        outer(Addresses::V6 { source: 1.into(), destination: 2.into() }).prepend(&mut bytes, frame().len()).unwrap();
        bytes.extend(frame());
        bytes
    }

    fn outer(addresses: Addresses) -> Outer {
        Outer::new(addresses, Port::MAX, Vni::new(42).unwrap())
    }

    /// 64 bytes: TCP with a payload of ten.
    fn frame() -> Vec<u8> {
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 2], [10, 0, 0, 3], 64)
            .tcp(1, 2, 3, 4)
            .write(&mut bytes, b"0123456789")
            .unwrap();
        bytes
    }

    /// Makes the IPv4 checksum of an untagged frame right again.
    fn mend(bytes: &mut [u8]) {
        let (header, _) = etherparse::Ipv4Header::from_slice(&bytes[14..]).unwrap();
        bytes[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    }

    const V4: Addresses = Addresses::V4 {
        source: std::net::Ipv4Addr::new(192, 0, 2, 1),
        destination: std::net::Ipv4Addr::new(192, 0, 2, 2),
    };
}
