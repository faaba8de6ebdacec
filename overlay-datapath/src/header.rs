//! Fields of an inner frame that change on its way.

use overlay_core::{IpFamily, Mac, Mtu};
use overlay_vxlan::{Frame, Ip, Transport};

use crate::checksum;

/// Writes where a frame goes, and from whom it comes.
pub(crate) fn address(frame: &mut [u8], to: Mac, from: Option<Mac>) -> Option<()> {
    let head: &mut [u8; 12] = frame.first_chunk_mut()?;
    head[..6].copy_from_slice(&to.octets());
    if let Some(from) = from {
        head[6..].copy_from_slice(&from.octets());
    }
    Some(())
}

/// One router more was passed. Nothing if it was one too many, or it is no IP packet.
pub(crate) fn count_hop(frame: &mut [u8]) -> Option<()> {
    let parsed = Frame::parse(frame).ok()?;
    let (ip, at) = (parsed.ip?, parsed.ethernet.header_len());
    if ip.ttl() <= 1 {
        return None;
    }
    match ip {
        Ip::V4(_) => mend(frame, at + 8, at + 10, |[ttl, protocol]| [ttl - 1, protocol]),
        Ip::V6(_) => frame.get_mut(at + 7).map(|hops| *hops -= 1),
    }
}

/// Tells the receiver of congestion that the outer header met (RFC 6040 §4.2). `None` if it cannot be told.
pub(crate) fn mark_congestion(frame: &mut [u8]) -> Option<()> {
    let parsed = Frame::parse(frame).ok()?;
    let (ip, at) = (parsed.ip?, parsed.ethernet.header_len());
    match (ip.traffic_class() & ECN, ip) {
        (NOT_ECT, _) => None,
        (_, Ip::V4(_)) => mend(frame, at, at + 10, |[version, class]| [version, class | ECN]),
        (_, Ip::V6(_)) => frame.get_mut(at + 1).map(|class| *class |= ECN << 4),
    }
}

/// Where a TCP connection begins, lowers the segment size that its sender asks for to what the network carries (RFC 9293 §3.7.1).
pub(crate) fn clamp(frame: &mut [u8], mtu: Mtu) -> Option<()> {
    let parsed = Frame::parse(frame).ok()?;
    let (Some(ip), Some(Transport::Tcp(tcp))) = (parsed.ip, parsed.transport) else { return None };
    if tcp.flags() & SYN == 0 {
        return None;
    }
    let most = u16::try_from(mtu.get()).unwrap_or(u16::MAX) - ip.family().header_len() as u16 - 20;
    let start = parsed.ethernet.header_len();
    let end = match ip {
        Ip::V4(v4) => start + v4.total_len(),
        Ip::V6(v6) => start + IpFamily::V6.header_len() + v6.payload_len(),
    };
    let tcp_at = end.checked_sub(parsed.payload.len() + tcp.header_len())?;
    let at = tcp_at + segment_size(frame.get(tcp_at + 20..tcp_at + tcp.header_len())?)? + 20;
    let old = u16::from_be_bytes(*frame.get(at..)?.first_chunk()?);
    if old <= most {
        return None;
    }
    frame.get_mut(at..at + 2)?.copy_from_slice(&most.to_be_bytes());
    // At an odd place its bytes are in two words, each the other way round.
    let turned = |word: u16| if (at - tcp_at).is_multiple_of(2) { word } else { word.swap_bytes() };
    let sum = frame.get_mut(tcp_at + 16..tcp_at + 18)?.first_chunk_mut::<2>()?;
    *sum = checksum::mended(u16::from_be_bytes(*sum), turned(old), turned(most)).to_be_bytes();
    Some(())
}

/// Where the number is in TCP's options (RFC 9293 §3.2).
fn segment_size(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *options.get(at..)? {
            [1, ..] => at += 1,
            [2, 4, _, _, ..] => return Some(at + 2),
            [of, length, ..] if of != 0 && length >= 2 => at += usize::from(length),
            _ => return None,
        }
    }
}

/// Changes the word at `at`, and the checksum that covers it.
fn mend(frame: &mut [u8], at: usize, sum_at: usize, change: impl FnOnce([u8; 2]) -> [u8; 2]) -> Option<()> {
    let old: [u8; 2] = *frame.get(at..)?.first_chunk()?;
    let new = change(old);
    frame.get_mut(at..at + 2)?.copy_from_slice(&new);
    let sum: &mut [u8; 2] = frame.get_mut(sum_at..)?.first_chunk_mut()?;
    *sum = checksum::mended(u16::from_be_bytes(*sum), u16::from_be_bytes(old), u16::from_be_bytes(new)).to_be_bytes();
    Some(())
}

pub(crate) const ECN: u8 = 3; // RFC 3168 §5
const NOT_ECT: u8 = 0;
const SYN: u8 = 2;

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, PacketHeaders, TcpOptionElement, TransportHeader};

    use super::*;

    fn begins(options: &[TcpOptionElement]) -> Vec<u8> {
        let step = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 2).tcp(1, 2, 3, 4);
        let mut frame = Vec::new();
        step.syn().options(options).unwrap().write(&mut frame, b"early").unwrap();
        frame
    }

    fn sums_are_right(frame: &[u8]) -> bool {
        let read = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let (Some(etherparse::NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) = (&read.net, &read.transport)
        else {
            return false;
        };
        ip.header_checksum == ip.calc_header_checksum()
            && tcp.checksum == tcp.calc_checksum_ipv4(ip, read.payload.slice()).unwrap()
    }

    #[test]
    fn a_segment_size_is_lowered_wherever_it_stands_and_never_raised() {
        let mtu = Mtu::new(1_450).unwrap();
        let odd = [TcpOptionElement::Noop, TcpOptionElement::MaximumSegmentSize(1_460)];
        for options in [&odd[..], &odd[1..]] {
            let mut frame = begins(options);
            assert_eq!(clamp(&mut frame, mtu), Some(()));
            assert!(sums_are_right(&frame));
            assert!(frame.windows(4).any(|option| option == [2, 4, 0x05, 0x82]), "1,410");
        }
        let mut small = begins(&[TcpOptionElement::MaximumSegmentSize(536)]);
        assert_eq!(clamp(&mut small, mtu), None);
        assert_eq!(clamp(&mut begins(&[]), mtu), None);
    }

    #[test]
    fn hops_are_counted_down_to_one() {
        let mut frame = begins(&[]);
        assert_eq!(count_hop(&mut frame), Some(()));
        assert!(sums_are_right(&frame));
        assert_eq!((frame[22], count_hop(&mut frame)), (1, None));
    }

    #[test]
    fn congestion_is_told_to_who_understands() {
        let mut frame = begins(&[]);
        assert_eq!(mark_congestion(&mut frame), None);
        frame[15] = 2; // ECT(0)
        frame[24..26].copy_from_slice(&[0; 2]);
        let sum = checksum::finish(checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(mark_congestion(&mut frame), Some(()));
        assert!(sums_are_right(&frame) && frame[15] == 3);
    }
}
