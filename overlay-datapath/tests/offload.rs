//! Frames that are cut and gathered: the receiver sees what was sent.

#![expect(clippy::unwrap_used, reason = "a test")]

use etherparse::{NetHeaders, PacketBuilder, PacketBuilderStep, PacketHeaders, TcpOptionElement, TransportHeader};
use overlay_datapath::offload::{
    Checksum, Coalescer, Gso, GsoKind, Merging, SegmentError, Segments, VnetError, VnetHeader,
};
use proptest::collection::vec;
use proptest::prelude::*;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// One side of a conversation.
#[derive(Debug, Clone, Copy)]
struct Flow {
    v6: bool,
    udp: bool,
    port: u16,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    sequence: u32,
    len: usize,
    flags: u8,
    stamp: u32,
    window: u16,
}

fn frame(flow: Flow, segment: Segment) -> Vec<u8> {
    let base = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let base = match flow.v6 {
        true => base.ipv6([1; 16], [2; 16], 64),
        false => base.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
    };
    let payload: Vec<u8> = (0..segment.len).map(|at| (segment.sequence as usize + at).wrapping_mul(31) as u8).collect();
    let mut bytes = Vec::new();
    if flow.udp {
        base.udp(flow.port, 443).write(&mut bytes, &payload).unwrap();
        return bytes;
    }
    let mut step = base.tcp(flow.port, 80, segment.sequence, segment.window).ack(77);
    for (flag, set) in [
        (FIN, PacketBuilderStep::fin as fn(_) -> _),
        (SYN, PacketBuilderStep::syn),
        (RST, PacketBuilderStep::rst),
        (PSH, PacketBuilderStep::psh),
        (URG, |step| step.urg(7)),
        (ECE, PacketBuilderStep::ece),
        (CWR, PacketBuilderStep::cwr),
    ] {
        if segment.flags & flag != 0 {
            step = set(step);
        }
    }
    let stamps = [TcpOptionElement::Noop, TcpOptionElement::Noop, TcpOptionElement::Timestamp(segment.stamp, 5)];
    step.options(&stamps).unwrap().write(&mut bytes, &payload).unwrap();
    bytes
}

/// Whether all its checksums are right.
fn is_right(bytes: &[u8]) -> bool {
    let read = PacketHeaders::from_ethernet_slice(bytes).unwrap();
    let payload = read.payload.slice();
    let sums =
        |found: u16, wanted: Result<u16, etherparse::err::ValueTooBigError<usize>>| wanted.is_ok_and(|it| it == found);
    match (&read.net, &read.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), Some(transport)) => {
            ip.header_checksum == ip.calc_header_checksum()
                && match transport {
                    TransportHeader::Tcp(tcp) => sums(tcp.checksum, tcp.calc_checksum_ipv4(ip, payload)),
                    TransportHeader::Udp(udp) => sums(udp.checksum, udp.calc_checksum_ipv4(ip, payload)),
                    _ => false,
                }
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(transport)) => match transport {
            TransportHeader::Tcp(tcp) => sums(tcp.checksum, tcp.calc_checksum_ipv6(ip, payload)),
            TransportHeader::Udp(udp) => sums(udp.checksum, udp.calc_checksum_ipv6(ip, payload)),
            _ => false,
        },
        _ => false,
    }
}

/// What a network device makes of it.
fn cut(header: VnetHeader, frame: &[u8]) -> Vec<Vec<u8>> {
    let segments = Segments::new(header, frame).unwrap();
    let mut room = vec![0; segments.longest()];
    (0..segments.len()).map(|at| segments.write(at, &mut room).map(|len| room[..len].to_vec()).unwrap()).collect()
}

/// What the receiver is given, in its pieces.
fn gathered(merging: Merging, frames: &[Vec<u8>]) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut coalescer = Coalescer::new(merging);
    let mut given = Vec::new();
    for frame in frames {
        coalescer.push(frame, |header, bytes| given.push((header, bytes.to_vec())));
    }
    coalescer.flush(|header, bytes| given.push((header, bytes.to_vec())));
    given
}

fn flow() -> impl Strategy<Value = Flow> {
    (any::<bool>(), any::<bool>(), 1_000_u16..1_004).prop_map(|(v6, udp, port)| Flow { v6, udp, port })
}

/// What happens to a flow.
#[derive(Debug, Clone, Copy)]
enum Step {
    Send { flow: usize, len: usize, flags: u8, tick: bool },
    Lose { flow: usize, len: usize },
    Again { back: usize },
    Swap,
    Corrupt { at: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![6 => Just(1_398_usize), 1 => 0_usize..1_399, 1 => Just(1)];
    let others = prop::sample::select(vec![SYN, RST, URG, ECE, CWR, CWR | PSH, ECE | PSH]);
    let flags = prop_oneof![8 => Just(0), 1 => Just(PSH), 1 => Just(FIN | PSH), 1 => others];
    prop_oneof![
        20 => (0_usize..3, len, flags, prop::bool::weighted(0.05)).prop_map(|(flow, len, flags, tick)| Step::Send { flow, len, flags, tick }),
        1 => (0_usize..3, 1_usize..1_399).prop_map(|(flow, len)| Step::Lose { flow, len }),
        1 => (1_usize..4).prop_map(|back| Step::Again { back }),
        1 => Just(Step::Swap),
        1 => any::<usize>().prop_map(|at| Step::Corrupt { at }),
    ]
}

/// What arrives.
fn arrivals(flows: &[Flow; 3], steps: &[Step]) -> Vec<Vec<u8>> {
    let mut next = [u32::MAX - 5_000; 3];
    let mut stamp = 1;
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for step in steps {
        match *step {
            Step::Send { flow, len, flags, tick } => {
                stamp += u32::from(tick);
                frames.push(frame(flows[flow], Segment { sequence: next[flow], len, flags, stamp, window: 512 }));
                next[flow] = next[flow].wrapping_add(len as u32);
            }
            Step::Lose { flow, len } => next[flow] = next[flow].wrapping_add(len as u32),
            Step::Again { back } => frames.extend(frames.len().checked_sub(back).map(|at| frames[at].clone())),
            Step::Swap => {
                if let [.., one, other] = &mut frames[..] {
                    std::mem::swap(one, other);
                }
            }
            Step::Corrupt { at } => {
                if let Some(last) = frames.last_mut() {
                    let at = at % last.len();
                    last[at] ^= 0x10;
                }
            }
        }
    }
    frames
}

/// The frames of each flow, in order: by what says whose they are, as far as it can be read.
fn by_flow(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
    let mut flows: Vec<(Vec<u8>, Vec<Vec<u8>>)> = Vec::new();
    for frame in frames {
        let (protocol, ends) = if frame[12] == 0x86 { (20, 22..58) } else { (23, 26..38) };
        let key = [&frame[12..15], &frame[protocol..=protocol], &frame[ends]].concat();
        match flows.iter_mut().find(|(of, _)| *of == key) {
            Some((_, frames)) => frames.push(frame),
            None => flows.push((key, vec![frame])),
        }
    }
    flows.sort();
    flows
}

/// Without what has no meaning: the identification of an IPv4 packet that nobody may cut, and the checksum that covers it.
fn meaning(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [8, 0] && frame[14] == 0x45 && frame[20] & 0x40 != 0 {
        let sum = PacketHeaders::from_ethernet_slice(&frame).is_ok_and(
            |read| matches!(read.net, Some(NetHeaders::Ipv4(ip, _)) if ip.header_checksum == ip.calc_header_checksum()),
        );
        frame[18..20].fill(0);
        if sum {
            frame[24..26].fill(0);
        }
    }
    frame
}

proptest! {
    #[test]
    fn the_receiver_sees_what_was_sent_whatever_was_lost_reordered_doubled_or_damaged(
        flows in [flow(), flow(), flow()], steps in vec(step(), 1..150), slots in 1_usize..4,
    ) {
        let sent = arrivals(&flows, &steps);
        let merging = Merging { flows: slots, ..Merging::default() };
        let given = gathered(merging, &sent);
        let seen = given.iter().flat_map(|(header, frame)| cut(*header, frame)).map(meaning);
        prop_assert_eq!(by_flow(seen), by_flow(sent.into_iter().map(meaning)));
    }

    #[test]
    fn each_piece_of_a_frame_is_a_right_packet_and_together_they_are_the_frame(
        v6: bool, udp: bool, len in 0_usize..60_000, size in 48_u16..1_500, flags in prop::sample::select(vec![0, PSH, PSH | FIN, CWR, ECE | PSH, CWR | ECE]),
    ) {
        let whole = frame(Flow { v6, udp, port: 9 }, Segment { sequence: u32::MAX - 100, len, flags, stamp: 1, window: 7 });
        let kind = match (udp, v6) {
            (true, _) => GsoKind::UdpL4,
            (false, true) => GsoKind::TcpV6,
            (false, false) => GsoKind::TcpV4,
        };
        let header = VnetHeader { checksum: Checksum::Whole, gso: Some(Gso { kind, size, header_len: 0, congestion: false }) };
        let pieces = cut(header, &whole);
        prop_assert_eq!(pieces.len(), len.div_ceil(usize::from(size)).max(1));
        let mut carried: Vec<u8> = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            prop_assert!(is_right(piece));
            let read = PacketHeaders::from_ethernet_slice(piece).unwrap();
            if let Some(TransportHeader::Tcp(tcp)) = &read.transport {
                prop_assert_eq!(tcp.sequence_number, (u32::MAX - 100).wrapping_add(carried.len() as u32));
                let is_last = at + 1 == pieces.len();
                prop_assert_eq!((tcp.psh, tcp.fin), (is_last && flags & PSH != 0, is_last && flags & FIN != 0));
                // RFC 3168 §6.1.2: the window was reduced once; and what is echoed is echoed by all.
                prop_assert_eq!((tcp.cwr, tcp.ece), (at == 0 && flags & CWR != 0, flags & ECE != 0));
            }
            if let Some(NetHeaders::Ipv4(ip, _)) = &read.net {
                prop_assert_eq!(usize::from(ip.identification), at);
            }
            carried.extend(read.payload.slice());
        }
        let read = PacketHeaders::from_ethernet_slice(&whole).unwrap();
        prop_assert_eq!(carried, read.payload.slice());
    }

    #[test]
    fn a_frame_of_any_bytes_and_any_header_is_cut_or_refused(frame in vec(any::<u8>(), 0..200), header: [u8; VnetHeader::LEN]) {
        if let Ok(header) = VnetHeader::read(&header) && let Ok(segments) = Segments::new(header, &frame) {
            let mut room = [0; 256];
            prop_assert!((0..segments.len()).all(|at| segments.write(at, &mut room).is_some_and(|len| len <= segments.longest())));
        }
        let mut bytes = 0;
        let mut coalescer = Coalescer::new(Merging::default());
        coalescer.push(&frame, |_, given| bytes += given.len());
        coalescer.flush(|_, given| bytes += given.len());
        prop_assert!(bytes <= frame.len());
    }
}

#[test]
fn segments_that_follow_one_another_become_one_until_one_is_short_or_pushed() {
    let flow = Flow { v6: false, udp: false, port: 1 };
    let one = |at: u32, len, flags| frame(flow, Segment { sequence: at * 1_000, len, flags, stamp: 1, window: 9 });
    let sent =
        [one(0, 1_000, 0), one(1, 1_000, 0), one(2, 500, 0), one(7, 1_000, 0), one(8, 1_000, PSH), one(9, 1_000, 0)];
    let given = gathered(Merging::default(), &sent);
    let sizes: Vec<_> =
        given.iter().map(|(header, frame)| (header.gso.map(|gso| gso.size), frame.len() - 66)).collect();
    assert_eq!(sizes, [(Some(1_000), 2_500), (Some(1_000), 2_000), (None, 1_000)]);
}

#[test]
fn what_differs_in_anything_but_its_place_is_not_gathered() {
    let flow = Flow { v6: true, udp: false, port: 1 };
    let base = Segment { sequence: 0, len: 100, flags: 0, stamp: 1, window: 9 };
    let next = Segment { sequence: 100, ..base };
    let of = |second: Vec<u8>| gathered(Merging::default(), &[frame(flow, base), second]).len();
    assert_eq!(of(frame(flow, next)), 1);
    assert_eq!(of(frame(flow, Segment { stamp: 2, ..next })), 2);
    assert_eq!(of(frame(flow, Segment { window: 8, ..next })), 2);
    assert_eq!(of(frame(flow, Segment { len: 101, ..next })), 2);
    assert_eq!(of(frame(flow, Segment { sequence: 101, ..next })), 2);
    assert_eq!(of(frame(Flow { port: 2, ..flow }, next)), 2);
    let mut marked = frame(flow, next);
    marked[15] |= 0x30; // congestion met
    assert_eq!(of(marked), 2);
    assert_eq!(
        gathered(Merging { tcp: false, ..Merging::default() }, &[frame(flow, base), frame(flow, next)]).len(),
        2
    );
}

#[test]
fn a_gathered_frame_says_how_it_is_to_be_cut_and_never_is_longer_than_ip_has_it() {
    let flow = Flow { v6: false, udp: false, port: 1 };
    let sent: Vec<_> = (0..60)
        .map(|at| frame(flow, Segment { sequence: at * 1_398, len: 1_398, flags: 0, stamp: 1, window: 9 }))
        .collect();
    let given = gathered(Merging::default(), &sent);
    assert_eq!(given.len(), 2);
    let (header, bytes) = &given[0];
    let gso = Gso { kind: GsoKind::TcpV4, size: 1_398, header_len: 66, congestion: false };
    assert_eq!(*header, VnetHeader { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) });
    assert_eq!(bytes.len(), 66 + 46 * 1_398);
    let datagrams: Vec<_> = (0..70)
        .map(|_| frame(Flow { udp: true, ..flow }, Segment { sequence: 0, len: 50, flags: 0, stamp: 0, window: 0 }))
        .collect();
    assert_eq!(gathered(Merging::default(), &datagrams).len(), 2, "64 are the most");
}

#[test]
fn a_header_that_is_not_true_of_its_frame_is_refused() {
    let tcp = frame(
        Flow { v6: false, udp: false, port: 1 },
        Segment { sequence: 0, len: 9_000, flags: 0, stamp: 0, window: 0 },
    );
    let with = |kind, size| VnetHeader {
        checksum: Checksum::Whole,
        gso: Some(Gso { kind, size, header_len: 0, congestion: false }),
    };
    let refused = |header| Segments::new(header, &tcp).map(|segments| segments.len());
    assert_eq!(refused(with(GsoKind::TcpV6, 1_000)), Err(SegmentError::Shape { wanted: GsoKind::TcpV6 }));
    assert_eq!(refused(with(GsoKind::UdpL4, 1_000)), Err(SegmentError::Shape { wanted: GsoKind::UdpL4 }));
    assert_eq!(refused(with(GsoKind::TcpV4, 1)), Err(SegmentError::TooMany { found: 9_000 }));
    let outside = VnetHeader { checksum: Checksum::Partial { start: 9_000, offset: 500 }, gso: None };
    assert_eq!(refused(outside), Err(SegmentError::Checksum { start: 9_000, offset: 500, len: tcp.len() }));
    assert!(matches!(VnetHeader::read(&[]), Err(VnetError::Short { found: 0 })));
}
