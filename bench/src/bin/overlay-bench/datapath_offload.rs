//! `datapath/split-1400`: a frame of 64 KiB from a TAP, cut into segments; `datapath/gather-1400`: those gathered again. Each segment; the yardstick copies one.

#![expect(clippy::expect_used, reason = "a benchmark that cannot run ends")]

use std::hint::black_box;
use std::io;

use etherparse::PacketBuilder;
use overlay_bench::{Bench, Pace};
use overlay_datapath::offload::{Checksum, Coalescer, Gso, GsoKind, Merging, Segments, VnetHeader};

use crate::crypto::now;

const LARGE: usize = 1_400;
const BATCH: usize = 64;

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    const COUNT: usize = 46;
    let size = LARGE - 54;
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 2], [10, 0, 0, 3], 64);
    let mut whole = Vec::new();
    builder.tcp(40_000, 80, 1, 512).ack(1).write(&mut whole, &vec![0x5a; size * COUNT]).expect("it fits");
    let gso = Gso { kind: GsoKind::TcpV4, size: size as u16, header_len: 54, congestion: false };
    let header = VnetHeader { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) };
    let mut pieces = vec![vec![0; LARGE]; COUNT];
    let cut = |pieces: &mut [Vec<u8>]| {
        let segments = Segments::new(header, black_box(&whole)).expect("it is right");
        for (at, piece) in pieces.iter_mut().enumerate() {
            assert_eq!(segments.write(at, piece), Some(LARGE));
        }
    };
    cut(&mut pieces);
    let (pace, arrived) = (bench.pace(), pieces.clone());
    let timed = |work: &mut dyn FnMut()| {
        let rounds = if pace == Pace::Quick { 10 } else { 200 };
        let start = now();
        (0..rounds).for_each(|_| work());
        start.elapsed().as_secs_f64() / f64::from(rounds) / COUNT as f64
    };
    bench
        .figure("datapath/split-1400", "ns")
        .measured(|| timed(&mut || cut(&mut pieces)))
        .yardstick_measured("memcpy of the packet", || copy(pace, LARGE))
        .report()?;
    let mut coalescer = Coalescer::new(Merging::default());
    bench
        .figure("datapath/gather-1400", "ns")
        .measured(|| {
            timed(&mut || {
                let mut given = 0;
                arrived.iter().for_each(|piece| coalescer.push(piece, |_, _| given += 1));
                coalescer.flush(|_, _| given += 1);
                assert_eq!(given, 1);
            })
        })
        .yardstick_measured("memcpy of the packet", || copy(pace, LARGE))
        .report()
}

/// What a copy of one costs.
fn copy(pace: Pace, len: usize) -> f64 {
    let (from, mut to) = (vec![7; BATCH * 2_048], vec![0; BATCH * 2_048]);
    let rounds = if pace == Pace::Quick { 100 } else { 4_000 };
    let start = now();
    for _ in 0..rounds {
        for at in (0..BATCH).map(|at| at * 2_048) {
            black_box(&mut to[at..at + len]).copy_from_slice(black_box(&from[at..at + len]));
        }
    }
    start.elapsed().as_secs_f64() / f64::from(rounds) / BATCH as f64
}
