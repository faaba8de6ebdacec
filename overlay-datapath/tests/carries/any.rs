//! Frames and packets of anybody's.

use overlay_core::{Port, PortRange};
use overlay_datapath::{Buffer, Fate, Hop, Reason};
use overlay_vxlan::{Frame, Packet};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bytes::{tcp, udp};
use crate::node::{NOW, datapath, end, end6, endpoint, mac, send, take, v4, v6, wanted, with};

/// A frame that endpoint 1 might well send, with bytes changed, and cut or continued.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let to = 1_u8..6;
    let sound = (to, any::<u16>(), 0_usize..60, 0..4).prop_map(|(to, port, length, kind)| match kind {
        0 => udp(end(1, 5_000), end(to, port), &vec![7; length]),
        1 => udp(end6(1, 5_000), end6(to, port), &vec![7; length]),
        2 => tcp(end(1, port), end(to, 80), true),
        _ => tcp(end6(1, port), end6(to, 80), length % 2 == 0),
    });
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (sound, changes, vec(any::<u8>(), 0..8), 0_usize..4).prop_map(|(mut frame, changes, more, cut)| {
        changes.into_iter().for_each(|(at, byte)| *at.get_mut(&mut frame[..]) = byte);
        if cut == 0 {
            frame.truncate(frame.len() / 2 + more.len());
        } else if cut == 1 {
            frame.extend(more);
        }
        frame
    })
}

proptest! {
    #[test]
    fn whatever_a_pinned_endpoint_sends_nobody_else_is_its_sender(frame in frames()) {
        let mut one = datapath(&wanted(1));
        let (fate, packet) = send(&mut one, 1, &frame);
        match fate {
            Fate::Underlay { .. } => {
                let packet = Packet::parse_ip(&packet, Port::VXLAN).unwrap().unwrap();
                prop_assert_eq!(packet.frame().len(), frame.len());
                prop_assert_eq!(packet.inner.ethernet.source(), mac(1));
                let own = [v4(1), v6(1), mac(1).link_local().into()];
                prop_assert!(packet.inner.ip.is_none_or(|ip| own.contains(&ip.source()) || ip.source().is_unspecified()));
                prop_assert!(PortRange::DYNAMIC.contains(Port::new(packet.udp.source()).unwrap()));
            }
            Fate::Port(to) if to == endpoint(1) => {
                prop_assert_eq!(Frame::parse(&packet).unwrap().ethernet.destination(), mac(1));
            }
            Fate::Port(to) => prop_assert_eq!((to, packet.len()), (endpoint(2), frame.len())),
            Fate::Drop(reason) => prop_assert_eq!(one.counts().dropped(reason), 1),
            Fate::Waiting | Fate::Copied => prop_assert!(false, "nothing is flooded here"),
        }
    }

    #[test]
    fn a_trace_of_any_frame_ends_where_the_frame_does(frame in frames()) {
        let mut one = datapath(&wanted(1));
        let trace = one.trace(endpoint(1), &frame);
        let (fate, packet) = send(&mut one, 1, &frame);
        let agrees = match (trace.end(), fate) {
            (Some(Hop::Port(to)), Fate::Port(found)) => *to == found,
            (Some(Hop::Node { vtep, .. }), Fate::Underlay { to, .. }) => *vtep == to,
            (Some(Hop::Answered(_)), Fate::Port(to)) => to == endpoint(1),
            (Some(Hop::Gateway(_)), _) => true,
            (Some(Hop::TooBig(_)), Fate::Port(to)) => to == endpoint(1),
            (Some(Hop::TooBig(_)), Fate::Drop(reason)) => reason == Reason::TooBig,
            (Some(Hop::Dropped(traced)), Fate::Drop(reason)) => *traced == reason,
            _ => false,
        };
        prop_assert!(agrees, "{:?} of {} bytes, but {}", fate, packet.len(), trace);
    }

    #[test]
    fn whatever_comes_from_the_underlay_goes_to_endpoints_here_or_nowhere(
        frame in frames(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        noise in vec(any::<u8>(), 0..80),
    ) {
        let flooding = with(wanted(2), |sandbox| {
            sandbox.vxlan.segments.values_mut().for_each(|segment| {
                segment.flood.insert([192, 0, 2, 1].into());
            });
        });
        let (mut one, mut two) = (datapath(&wanted(1)), datapath(&flooding));
        let (_, mut packet) = send(&mut one, 1, &frame);
        if !packet.is_empty() {
            changes.into_iter().for_each(|(at, byte)| *at.get_mut(&mut packet[..]) = byte);
        }
        for packet in [packet, noise] {
            match take(&mut two, &packet).0 {
                Fate::Port(to) => prop_assert!([endpoint(3), endpoint(4)].contains(&to)),
                Fate::Drop(_) => {}
                Fate::Copied => {
                    let mut buffer = Buffer::new(2_000);
                    while two.poll_transmit(&mut buffer, NOW) {
                        prop_assert!(matches!(buffer.fate(), Fate::Port(_)), "what came from a node goes to no other");
                    }
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn a_buffer_without_room_to_spare_holds_what_fits(length in 0_usize..100, most in 0_usize..200) {
        let mut one = datapath(&wanted(1));
        let frame = udp(end(1, 5_000), end(3, 53), &vec![1; length]);
        let mut batch = [Buffer::new(most)];
        prop_assert_eq!(batch[0].fill(&frame).is_ok(), frame.len() <= most);
        one.handle_frames(endpoint(1), &mut batch, NOW);
        let left = matches!(batch[0].fate(), Fate::Underlay { .. });
        prop_assert_eq!(left, frame.len() <= most);
    }
}
