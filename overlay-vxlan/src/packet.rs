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
    /// # Errors
    /// Names the header that is wrong. A UDP fragment is one too ([`Flaw::Fragment`]), whatever its port, as only a
    /// datagram's first tells: VTEPs must not fragment (RFC 7348 §4.3).
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
    /// Takes time linear in the packet's length.
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
