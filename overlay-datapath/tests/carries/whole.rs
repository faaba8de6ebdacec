//! From one stack to the other: frames of many segments are cut, carried in the clear or sealed, lost, doubled and swapped under way, and gathered again.

use std::collections::BTreeMap;

use etherparse::{PacketBuilderStep, TcpOptionElement};
use overlay_core::EndpointId;
use overlay_datapath::offload::{Checksum, Coalescer, Gso, GsoKind, Merging, Segments, VnetHeader};
use overlay_datapath::{Fate, Reason, Wanted};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bytes::{End, builder, see};
use crate::node::{datapath, end, end6, send, take, wanted, with};
use crate::sealed::sealed;

/// One side of a conversation between an endpoint of the first node and one of the second.
#[derive(Debug, Clone, Copy)]
struct Flow {
    from: u8,
    to: u8,
    v6: bool,
    udp: bool,
    port: u16,
}

/// What a stack hands to its tap at once, to be cut.
#[derive(Debug, Clone, Copy)]
struct Burst {
    flow: usize,
    len: usize,
    size: u16,
    flags: u8,
    /// Whether its timestamp is another than that before it.
    tick: bool,
}

/// What becomes of a packet on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Arrives,
    Lost,
    Doubled,
    BeforeTheLast,
}

/// How nodes carry it.
#[derive(Debug, Clone, Copy)]
enum Tunnel {
    Clear { summed: bool },
    Sealed { in_udp: bool },
}

impl Flow {
    fn ends(self) -> (End, End) {
        let end = if self.v6 { end6 } else { end };
        (end(self.from, self.port), end(self.to, 80))
    }

    /// A frame as its stack gives it, with what is left to the device.
    fn frame(self, burst: Burst, (sequence, stamp): (u32, u32)) -> (VnetHeader, Vec<u8>) {
        let (from, to) = self.ends();
        let payload: Vec<u8> = (0..burst.len).map(|at| (sequence as usize + at).wrapping_mul(37) as u8).collect();
        let mut bytes = Vec::new();
        if self.udp {
            builder(from, to).udp(from.port, to.port).write(&mut bytes, &payload).unwrap();
        } else {
            let mut step = builder(from, to).tcp(from.port, to.port, sequence, 501).ack(9);
            for (flag, set) in
                [(1, PacketBuilderStep::fin as fn(_) -> _), (8, PacketBuilderStep::psh), (0x80, PacketBuilderStep::cwr)]
            {
                step = if burst.flags & flag != 0 { set(step) } else { step };
            }
            let stamps = [TcpOptionElement::Noop, TcpOptionElement::Noop, TcpOptionElement::Timestamp(stamp, 3)];
            step.options(&stamps).unwrap().write(&mut bytes, &payload).unwrap();
        }
        let kind = match (self.udp, self.v6) {
            (true, _) => GsoKind::UdpL4,
            (false, false) => GsoKind::TcpV4,
            (false, true) => GsoKind::TcpV6,
        };
        let several = burst.len > usize::from(burst.size);
        let gso = several.then_some(Gso { kind, size: burst.size, header_len: 0, congestion: false });
        (VnetHeader { checksum: Checksum::Whole, gso }, bytes)
    }
}

fn cut(header: VnetHeader, frame: &[u8]) -> Vec<Vec<u8>> {
    let segments = Segments::new(header, frame).unwrap();
    let mut room = vec![0; segments.longest()];
    (0..segments.len()).map(|at| segments.write(at, &mut room).map(|len| room[..len].to_vec()).unwrap()).collect()
}

/// By its flow, without IPv4's identification, which has no meaning in a packet that nobody may cut, and the checksum that covers it.
fn told(mut frame: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    see(&frame); // its checksums are right
    let flow = match frame[12] {
        0x86 => frame[20..58].iter().skip(2).chain(&frame[20..21]).copied().collect(),
        _ => frame[26..38].iter().chain(&frame[23..24]).copied().collect(),
    };
    if frame[12] != 0x86 {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    (flow, frame)
}

fn by_flow(frames: impl IntoIterator<Item = Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    frames.into_iter().map(told).for_each(|(flow, frame)| flows.entry(flow).or_default().push(frame));
    flows
}

fn wants(tunnel: Tunnel, node: u8) -> Wanted {
    match tunnel {
        Tunnel::Sealed { in_udp } => sealed(node, in_udp),
        Tunnel::Clear { summed } => with(wanted(node), |sandbox| {
            sandbox.vxlan.segments.values_mut().for_each(|segment| segment.vtep.udp_checksum = summed);
        }),
    }
}

fn flow() -> impl Strategy<Value = Flow> {
    (1_u8..3, 3_u8..5, any::<bool>(), any::<bool>(), 1_000_u16..1_003).prop_map(|(from, to, v6, udp, port)| Flow {
        from,
        to,
        v6,
        udp,
        port,
    })
}

fn burst() -> impl Strategy<Value = Burst> {
    let len = prop_oneof![2 => 1_usize..20_000, 1 => 0_usize..2, 1 => 600_usize..1_300];
    let flags = prop_oneof![3 => Just(0), 1 => prop::sample::select(vec![8, 9, 0x80, 0x88])];
    let size = prop_oneof![Just(1_300), 500_u16..1_300];
    (0_usize..3, len, size, flags, prop::bool::weighted(0.1)).prop_map(|(flow, len, size, flags, tick)| {
        // What is in one piece is no longer than a packet.
        let size = if len > 1_300 { size } else { 1_300 };
        Burst { flow, len, size, flags, tick }
    })
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![12 => Just(Luck::Arrives), 1 => Just(Luck::Lost), 1 => Just(Luck::Doubled), 1 => Just(Luck::BeforeTheLast)]
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    prop_oneof![
        any::<bool>().prop_map(|summed| Tunnel::Clear { summed }),
        any::<bool>().prop_map(|in_udp| Tunnel::Sealed { in_udp }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn the_receivers_stack_sees_what_the_senders_sent_but_for_what_the_wire_did(
        tunnel in tunnel(), flows in [flow(), flow(), flow()], bursts in vec(burst(), 1..12), luck in vec(luck(), 1..60),
    ) {
        let [mut one, mut two] = [1, 2].map(|node| datapath(&wants(tunnel, node)));
        // On the wire: what a stack meant by a packet, and the packet.
        let mut wire: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let (mut next, mut stamp, mut luck, mut doubled) = (u32::MAX - 9_000, 1, luck.into_iter().cycle(), 0);
        for burst in bursts {
            let flow = flows[burst.flow];
            stamp += u32::from(burst.tick);
            let (header, frame) = flow.frame(burst, (next, stamp));
            next = next.wrapping_add(burst.len as u32);
            for piece in cut(header, &frame) {
                let (fate, packet) = send(&mut one, flow.from, &piece);
                let left = matches!(fate, Fate::Underlay { .. });
                prop_assert!(left, "it met another fate");
                if let Tunnel::Clear { summed } = tunnel {
                    prop_assert_eq!(packet[26..28] != [0; 2], summed);
                }
                match luck.next().unwrap_or(Luck::Arrives) {
                    Luck::Lost => {}
                    Luck::Arrives => wire.push((piece, packet)),
                    Luck::Doubled => {
                        doubled += 1;
                        wire.extend([(piece.clone(), packet.clone()), (piece, packet)]);
                    }
                    Luck::BeforeTheLast => wire.insert(wire.len().saturating_sub(1), (piece, packet)),
                }
            }
        }
        let mut unopened = 0;
        let (mut meant, mut ports) = (Vec::new(), BTreeMap::<EndpointId, (Coalescer, Vec<Vec<u8>>)>::new());
        for (piece, packet) in wire {
            match take(&mut two, &packet) {
                (Fate::Port(endpoint), frame) => {
                    meant.push(piece);
                    let (gathers, seen) = ports.entry(endpoint).or_insert_with(|| (Coalescer::new(Merging::default()), Vec::new()));
                    gathers.push(&frame, |header, frame| seen.extend(cut(header, frame)));
                }
                (fate, _) => {
                    prop_assert_eq!(fate, Fate::Drop(Reason::Unopened));
                    unopened += 1;
                }
            }
        }
        let is_sealed = matches!(tunnel, Tunnel::Sealed { .. });
        prop_assert_eq!(unopened, if is_sealed { doubled } else { 0 }, "what is sealed is opened once, and all but that arrives");
        ports.values_mut().for_each(|(gathers, seen)| gathers.flush(|header, frame| seen.extend(cut(header, frame))));
        prop_assert_eq!(by_flow(ports.into_values().flat_map(|(_, seen)| seen)), by_flow(meant));
    }
}
