//! `vxlan`: plans between states of one segment with 10,000 peers, dual stack, on 100 nodes.
//!
//! The two states are equal in value and lie apart in memory, as an observed and a desired one do; `1pct` has 100 peers
//! moved to another node. The yardstick clones the state, which a planner that owned its input would have to.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_bench::Bench;
use overlay_core::{Mac, Mtu, State as _, Vni};
use overlay_vxlan::{Peer, Segment, State, Vtep};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let from = state();
    let equal = from.clone();
    bench
        .figure("vxlan/plan-10k-equal", "ms")
        .once(|| (), |()| from.plan(&equal))
        .yardstick_once("clone of the state", || (), |()| from.clone())
        .report()?;
    let mut moved = from.clone();
    let peers = moved.segments.values_mut().flat_map(|segment| segment.peers.values_mut());
    peers.step_by(100).for_each(|peer| peer.vtep = Ipv4Addr::new(192, 0, 2, 200).into());
    bench
        .figure("vxlan/plan-10k-1pct", "ms")
        .once(|| (), |()| from.plan(&moved))
        .yardstick_once("clone of the state", || (), |()| from.clone())
        .report()?;
    crate::vxlan_kernel::run(bench)
}

fn state() -> State {
    let mut segment = Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::ETHERNET);
    for number in 2..10_002_u16 {
        let [high, low] = number.to_be_bytes();
        let v4 = Ipv4Addr::new(10, 0, high, low);
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number);
        let vtep = Ipv4Addr::new(192, 0, 2, (2 + number % 100) as u8);
        segment.peers.insert(Mac::from_ipv4(v4), Peer { vtep: vtep.into(), addresses: [v4.into(), v6.into()].into() });
    }
    State { segments: [(Vni::MIN, segment)].into() }
}
